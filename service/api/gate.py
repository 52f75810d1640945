"""Who may ask what: API keys, deny by default.

A path is open to all only if it stands in the short list below. Whatever is not known needs a key like everything else,
so that a stranger gets 401 before 404. Keys are kept as digests, compared in constant time, and written nowhere.

It knows methods, paths and headers. It knows nothing of what a route does, and it never reads Host.
"""

import hashlib
import hmac
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from types import MappingProxyType

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from service.errors import Forbidden, Unauthorized
from service.settings import SettingProblem, Settings
from service.web.files import PATHS

logger = logging.getLogger("understudy")

SHORTEST, LONGEST = 16, 512
KEY = re.compile(rf"[!-~]{{{SHORTEST},{LONGEST}}}")  # printable ASCII without the space
NAME = re.compile(r"[A-Za-z0-9._-]{1,32}")
LARGEST_FILE = 1024 * 1024  # bytes; whatever is larger is no file of keys

Headers = Sequence[tuple[bytes, bytes]]


class Access(Enum):
    """What a request needs."""

    PUBLIC = auto()  # nothing
    METRICS = auto()  # a key if there are any, unless `public_metrics`
    INFER = auto()  # a key if there are any
    ADMIN = auto()  # an admin key, always


_LISTED = MappingProxyType(
    {
        (method, path): access
        for method in ("GET", "HEAD")
        for path, access in (
            ("/livez", Access.PUBLIC),
            ("/readyz", Access.PUBLIC),
            ("/v2/health/live", Access.PUBLIC),
            ("/v2/health/ready", Access.PUBLIC),
            ("/metrics", Access.METRICS),
            *((path, Access.PUBLIC) for path in PATHS),  # a page holds no secrets; what it asks for is not listed here
        )
    }
)

_CHANGES = "repository/models"
"""In the path of every route that changes something, and of no other. We look for this and not for whole paths, so that
there is no spelling that a router takes for such a route and we do not."""


def access_of(method: str, path: str) -> Access:
    """What a request needs. The path is the one that is routed, with percent signs decoded."""
    listed = _LISTED.get((method, path))
    if listed is not None:
        return listed
    return Access.ADMIN if _CHANGES in path.lower() else Access.INFER


@dataclass(frozen=True, slots=True)
class Key:
    """One key, without the key itself."""

    name: str  # public: stands in logs
    digest: bytes
    admin: bool


class Gate:
    """The keys, and whether a request may pass."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingProblem if a key, or a file of keys, is not as it should be."""
        self._settings = settings
        self._ring = _Ring.of(read_keys(settings), settings.public_metrics)
        self._said = ""

    def __str__(self) -> str:
        """How many there are, for the line that says that the service is ready."""
        keys = self._ring.keys
        admins = sum(key.admin for key in keys)
        return f"{_counted(len(keys) - admins, 'API key')}, {_counted(admins, 'admin key')}"

    def admit(self, access: Access, headers: Headers) -> str | None:
        """The public name of the key that was sent, None where none is needed. Raises Unauthorized or Forbidden."""
        ring = self._ring
        if access in ring.free:
            return None
        if ring.keys:
            key = ring.find(_sent(headers))
            if key.admin or access is not Access.ADMIN:
                return key.name
        if ring.has_admins:
            raise Forbidden("this needs an admin key")
        raise Forbidden("nobody may do this; to let an admin, start the service with admin_keys or admin_keys_file")

    def reload(self) -> None:
        """Read the files again; as long as something is wrong there, the keys stay as they are. From any thread."""
        try:
            keys = read_keys(self._settings)
        except SettingProblem as problem:
            if str(problem) != self._said:  # once, however often it is tried
                self._said = str(problem)
                logger.error("%s; the keys stay as they are", problem)
            return
        self._said = ""
        if keys != self._ring.keys:
            self._ring = _Ring.of(keys, self._settings.public_metrics)
            logger.info("the keys changed: %s", self)


@dataclass(frozen=True, slots=True)
class _Ring:
    """All keys and what follows from them; exchanged as a whole."""

    keys: tuple[Key, ...]
    free: tuple[Access, ...]
    has_admins: bool

    @classmethod
    def of(cls, keys: tuple[Key, ...], public_metrics: bool) -> "_Ring":
        open_to_all = all(key.admin for key in keys)
        free = [Access.INFER] if open_to_all else []  # first, since it is asked for most
        free += [Access.METRICS] if open_to_all or public_metrics else []
        return cls(keys, (*free, Access.PUBLIC), any(key.admin for key in keys))

    def find(self, sent: bytes) -> Key:
        digest, found = _digest(sent), None
        for key in self.keys:  # all of them, so that the time says nothing of which came near
            if hmac.compare_digest(key.digest, digest):
                found = key
        if found is None:
            raise Unauthorized("the API key is not known")
        return found


def read_keys(settings: Settings) -> tuple[Key, ...]:
    """All keys from variables and files, once each. Raises SettingProblem, which never shows a key."""
    keys: dict[bytes, Key] = {}
    for where, key in _all_keys(settings):
        if key.digest in keys:
            raise SettingProblem(f"{where}: this key was given before; give each once, as API key or as admin key")
        keys[key.digest] = key
    return tuple(keys.values())


def with_cors(app: ASGIApp, origins: tuple[str, ...] | None) -> ASGIApp:
    """Let web pages of these origins ask from a browser; without any, the application as it is.

    Goes outside of the gate, since a browser's preflight carries no key. Credentials stay off: our keys are no cookies.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=("authorization", "traceparent", "x-api-key", "x-request-id", "x-request-timeout"),
        expose_headers=(
            "retry-after",
            "server-timing",
            "traceparent",
            "x-model-digest",
            "x-request-id",
            "x-served-by",
            "x-teacher-digest",
        ),
    )


def _counted(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def _sent(headers: Headers) -> bytes:
    found: bytes | None = None
    for name, value in headers:
        if name == b"authorization":
            scheme, _, value = value.partition(b" ")
            if scheme.lower() != b"bearer":  # meant for a proxy on the way
                continue
        elif name != b"x-api-key":
            continue
        value = value.strip(b" \t")
        if found is not None and value != found:
            raise Unauthorized("two different API keys were sent")
        found = value
    if found is None:
        raise Unauthorized("an API key is needed: send Authorization: Bearer KEY, or X-API-Key: KEY")
    return found


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _all_keys(settings: Settings) -> Iterator[tuple[str, Key]]:
    """Every key with the place where it stands."""
    for field, secret, file, admin in (
        ("api_keys", settings.api_keys, settings.api_keys_file, False),
        ("admin_keys", settings.admin_keys, settings.admin_keys_file, True),
    ):
        if secret is not None:
            yield from _parsed(field, "key", secret.get_secret_value().split(","), admin)
        if file is not None:
            yield from _parsed(str(file), "line", _lines(file), admin)


def _lines(file: Path) -> list[str]:
    try:
        if not file.is_file():  # a pipe could hold us up for ever
            raise SettingProblem(f"{file}: no such file; name a file with one key a line")
        with file.open("rb") as opened:
            content = opened.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise SettingProblem(f"{file}: larger than {LARGEST_FILE} bytes; name a file with one key a line")
        return content.decode("utf-8-sig").splitlines()
    except OSError as error:
        raise SettingProblem(f"{file}: {error.strerror}; may this user read it?") from error
    except UnicodeDecodeError as error:
        raise SettingProblem(f"{file}: not UTF-8; name a file with one key a line") from error


def _parsed(source: str, unit: str, entries: Iterable[str], admin: bool) -> Iterator[tuple[str, Key]]:
    empty = True
    for number, entry in enumerate(map(str.strip, entries), 1):
        if entry and not entry.startswith("#"):
            empty, where = False, f"{source}, {unit} {number}"
            yield where, _key(where, entry, admin)
    if empty:  # to go on would let everybody in
        raise SettingProblem(f"{source}: no key in it; put one there, or leave the setting out to need none")


def _key(where: str, entry: str, admin: bool) -> Key:
    name, key = entry.split(":", 1) if ":" in entry else ("", entry)
    if not KEY.fullmatch(key):
        raise SettingProblem(f"{where}: a key has {SHORTEST} to {LONGEST} printable ASCII characters and no space")
    if name and not NAME.fullmatch(name):
        raise SettingProblem(f"{where}: the name before the colon has 1 to 32 letters, digits, dots, _ or -")
    digest = _digest(key.encode())
    return Key(name or f"key-{digest.hex()[:8]}", digest, admin)
