"""The files of the playground: which there are, where a browser finds them, and their bytes.

A closed list: a path that is not in it is never looked for on the disk. It knows nothing of routes or requests.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from types import MappingProxyType

from service.settings import SettingProblem

_PREFIX = "/playground/"
_TYPES = MappingProxyType(
    {
        "html": "text/html; charset=utf-8",
        "css": "text/css; charset=utf-8",
        "js": "text/javascript; charset=utf-8",
        "svg": "image/svg+xml",
    }
)
_PAGE = "index.html"
_PARTS = (
    "icon.svg",
    "style.css",
    "theme.js",
    *("main.js", "elements.js", "api.js", "key.js", "models.js", "texts.js"),
    *("answers.js", "bars.js", "entities.js", "live.js", "rates.js", "sparkline.js"),
)

PAGE = "/"
PATHS = (PAGE, *(_PREFIX + part for part in _PARTS))
"""Everything that is sent to a browser before it asks the API for something."""


@dataclass(frozen=True, slots=True)
class File:
    """One file as it is sent."""

    path: str  # of the request
    content: bytes
    media_type: str
    tag: str  # its ETag: changes with every byte


def read_files() -> Iterator[File]:
    """All of them, read now. Raises SettingProblem if the installed package lacks one."""
    folder = files("service") / "web"
    for path, name in zip(PATHS, (_PAGE, *_PARTS), strict=True):
        try:
            content = (folder / name).read_bytes()
        except OSError as error:
            raise SettingProblem(
                f"{folder / name}: {error.strerror}; install the package again, or start with --no-playground"
            ) from error
        yield File(path, content, _TYPES[name.rpartition(".")[2]], f'"{sha256(content).hexdigest()[:20]}"')
