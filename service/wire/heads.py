"""What the head of a request must look like before anything else reads it, and why a connection is refused.

The parser has already refused what is no HTTP at all (bad names, line ends, lengths, folded lines). This refuses
what is HTTP, but could be read in two ways, or is more than the limits allow. Pure: it knows nothing of sockets.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from service.call import Headers
from service.errors import RETRY_SOON, ServiceError


class Reason(StrEnum):
    """Why a connection was refused or cut. A closed set: it is a label of a metric."""

    MALFORMED = "malformed"
    EXPECTATION = "expectation"
    CONTENT_ENCODING = "content_encoding"
    TARGET_TOO_LONG = "target_too_long"
    HEAD_TOO_LARGE = "head_too_large"
    BODY_TOO_LARGE = "body_too_large"
    PIPELINE_TOO_LONG = "pipeline_too_long"
    SILENT = "silent"
    SLOW_HEAD = "slow_head"
    SLOW_BODY = "slow_body"
    SLOW_READER = "slow_reader"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    TOO_MANY_OF_ONE_PEER = "too_many_of_one_peer"
    TOO_MUCH_UNFINISHED = "too_much_unfinished"
    MADE_ROOM = "made_room"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of everything one client may take."""

    connections: int  # of all clients together
    peer_connections: int  # of one address; 0: as many as of all
    first_byte_s: float  # from the connection to the first byte
    head_s: float  # from the first byte of a head to its last
    body_s: float  # from the last byte of the head to the last of the body
    answer_s: float  # for the client to take what we wrote
    bytes_per_s: int  # a body, or the reading of an answer, that goes on more slowly is cut
    head_bytes: int  # request line and headers; and, once more, what surrounds the chunks of a body
    headers: int
    target_bytes: int
    body_bytes: int
    unfinished_bytes: int  # of bodies that are still arriving, all together


_STATUS: Mapping[Reason, tuple[int, str]] = MappingProxyType(
    {
        Reason.MALFORMED: (400, "Malformed request"),
        Reason.PIPELINE_TOO_LONG: (400, "Too many requests at once"),
        Reason.SLOW_HEAD: (408, "Request timeout"),
        Reason.SLOW_BODY: (408, "Request timeout"),
        Reason.BODY_TOO_LARGE: (413, "Body too large"),
        Reason.TARGET_TOO_LONG: (414, "Target too long"),
        Reason.CONTENT_ENCODING: (415, "Wrong content encoding"),
        Reason.EXPECTATION: (417, "Expectation failed"),
        Reason.HEAD_TOO_LARGE: (431, "Head too large"),
        Reason.TOO_MANY_CONNECTIONS: (503, "Too many connections"),
        Reason.TOO_MANY_OF_ONE_PEER: (503, "Too many connections"),
        Reason.TOO_MUCH_UNFINISHED: (503, "Too many unfinished requests"),
        Reason.STOPPING: (503, "Stopping"),
    }
)


class Refusal(ServiceError):
    """The connection broke a rule, and is closed once it was told so."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.status, self.title = _STATUS[reason]
        if self.status == 503:
            self.headers = RETRY_SOON


class Head(NamedTuple):
    """A head that can be read in one way only."""

    method: str
    path: str  # decoded
    raw_path: bytes
    query: bytes
    version: str
    headers: Headers
    expects: bool  # the client waits for our word before it sends the body


_WATCHED = frozenset(
    (
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"content-encoding",
        b"expect",
        b"content_length",
        b"transfer_encoding",
    )
)
_HOST = re.compile(rb"(?:[A-Za-z0-9._~%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?[ \t]*")
_ABSOLUTE = re.compile(rb"https?://([^/?#@]+)([/?].*|)", re.IGNORECASE | re.DOTALL)
_HOST_BYTES = 255 + 6  # the longest name that DNS knows, and a port
_KNOWN_BYTES = 128
_ZERO = ord("0")
_ENCODED_CONTROL = re.compile(rb"%(?:[01][0-9A-Fa-f]|7[Ff])")


def read_head(method: bytes, version: str, target: bytes, headers: Headers, limits: Limits) -> Head:
    """Names in `headers` are in lower case. Raises Refusal."""
    if version != "1.1" and version != "1.0":
        raise malformed("speak HTTP/1.1 or HTTP/1.0")
    if len(target) > limits.target_bytes:
        raise target_too_long(limits)
    if len(headers) > limits.headers:
        raise Refusal(Reason.HEAD_TOO_LARGE, f"at most {limits.headers} headers")
    host: bytes | None = None
    expects = False
    for name, value in headers:
        if name not in _WATCHED:
            continue
        if name == b"host":
            if host is not None:
                raise malformed("send one Host")
            if len(value) > _HOST_BYTES or not _is_host(value):
                raise malformed("Host is not a name or an address, with or without a port")
            host = value
        elif name == b"content-length":
            _check_length(value, limits)
        else:
            expects = _check_rare(name, value.strip().lower(), version) or expects
    if host is None and version == "1.1":
        raise malformed("send a Host")
    if target.startswith(b"/"):
        path, raw_path, query = _split_known(target) if len(target) <= _KNOWN_BYTES else _split(target)
    else:
        path, raw_path, query = _split(_path_of(target, method, host))
    return Head(method.decode("ascii"), path, raw_path, query, version, headers, expects)


def target_too_long(limits: Limits) -> Refusal:
    """More bytes than `target_bytes`."""
    return Refusal(Reason.TARGET_TOO_LONG, f"at most {limits.target_bytes} bytes of path and query")


def malformed(detail: str) -> Refusal:
    """Not HTTP, or HTTP that could be read in two ways."""
    return Refusal(Reason.MALFORMED, detail)


def _check_length(value: bytes, limits: Limits) -> None:
    value = value.strip()
    if not value.isdigit() or (value[0] == _ZERO and len(value) > 1):  # is 010 eight or ten? Others may differ
        raise malformed("Content-Length is not a plain number")
    if int(value) > limits.body_bytes:
        raise body_too_large(limits)


def body_too_large(limits: Limits) -> Refusal:
    """More bytes than `body_bytes`, declared or counted."""
    return Refusal(Reason.BODY_TOO_LARGE, f"at most {limits.body_bytes} bytes; send fewer texts in a request")


def _check_rare(name: bytes, value: bytes, version: str) -> bool:
    """Is it a client that waits for our word before it sends its body?"""
    if name == b"expect":
        if value != b"100-continue":
            raise Refusal(Reason.EXPECTATION, "100-continue is all that may be expected")
        return version == "1.1"  # others could not read what we would say
    if name == b"content-encoding":
        if value not in (b"identity", b""):
            raise Refusal(Reason.CONTENT_ENCODING, "send the body as it is, not compressed")
    elif name == b"transfer-encoding":
        if value != b"chunked" or version == "1.0":
            raise malformed("chunked is the only Transfer-Encoding, and needs HTTP/1.1")
    else:  # content_length, transfer_encoding: somebody in between may take them for the real ones
        raise malformed("write Content-Length and Transfer-Encoding with a hyphen")
    return False


def _path_of(target: bytes, method: bytes, host: bytes | None) -> bytes:
    """Path and query of a target that does not begin with a path."""
    if target == b"*" and method == b"OPTIONS":
        return target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise malformed("the target is neither a path nor http(s)://host/path")
    if host is not None and absolute[1].lower() != host.strip().lower():
        raise malformed("target and Host name different hosts")
    return absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]


def _split(target: bytes) -> tuple[str, bytes, bytes]:
    """The path, decoded and as it came, and the query."""
    if b"#" in target:
        raise malformed("a fragment (#) does not belong into a request")
    raw_path, _, query = target.partition(b"?")
    if b"%" not in raw_path:
        return raw_path.decode("ascii"), raw_path, query
    if _ENCODED_CONTROL.search(raw_path) is not None:
        raise malformed("the path holds an encoded control character")
    try:
        return unquote_to_bytes(raw_path).decode(), raw_path, query
    except UnicodeDecodeError:
        raise malformed("the path is not UTF-8") from None


# Nearly all requests name one of a few paths and one of a few hosts. Both caches are small, and so are their keys.
_split_known = lru_cache(256)(_split)


@lru_cache(256)
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value) is not None
