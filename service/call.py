"""One request with its whole body, and its answer: the same whichever way it came in.

It knows the form of HTTP. It knows nothing of connections, ASGI, paths or models.
"""

from ipaddress import IPv6Address
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.telemetry.visits import Stages

Headers = list[tuple[bytes, bytes]]
"""Names in lower case, in the order in which they came."""

JSON = b"application/json"
REQUEST_ID = b"x-request-id"
TIMEOUT = b"x-request-timeout"
MEDIA_TYPE = b"content-type"


EVERYWHERE: Headers = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
"""Headers of every answer."""


def peer_of(address: str) -> str:
    """Whom to count: an IPv4 address, or the /64 that whoever has one IPv6 address has as well."""
    if ":" not in address:
        return address
    parsed = IPv6Address(address.partition("%")[0])
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Address(int(parsed) >> 64 << 64))


class Call:
    """What was asked."""

    __slots__ = (
        "body",
        "headers",
        "key",
        "left",
        "media_type",
        "method",
        "path",
        "peer",
        "request_id",
        "stages",
        "started",
        "timeout",
    )

    def __init__(self, method: str, path: str, headers: Headers, body: bytes, peer: str | None) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.body = body
        self.peer = peer  # who asks, as `peer_of` tells
        self.started = perf_counter()
        self.left = False  # the client has, so nobody reads the answer
        self.key: str | None = None  # public name of the API key, once it was found good
        self.stages: Stages | None = None  # where the time went, once there is an answer
        # What every request is asked for, found in one go; of several headers of a name the first one counts.
        self.media_type: bytes | None = None
        self.request_id: bytes | None = None
        self.timeout: bytes | None = None
        for name, value in headers:
            if name == MEDIA_TYPE:
                self.media_type = self.media_type or value
            elif name == REQUEST_ID:
                self.request_id = self.request_id or value
            elif name == TIMEOUT:
                self.timeout = self.timeout or value

    def header(self, name: bytes) -> bytes | None:
        """The first header of that name."""
        for found, value in self.headers:
            if found == name:
                return value
        return None


class Reply:
    """What is answered."""

    __slots__ = ("body", "headers", "media_type", "status")

    def __init__(
        self, body: bytes, status: int = 200, media_type: bytes = JSON, headers: Headers | None = None
    ) -> None:
        self.body = body
        self.status = status
        self.media_type = media_type
        self.headers: Headers = headers if headers is not None else []

    def all_headers(self) -> Headers:
        """Those of every answer first."""
        return [
            (b"content-type", self.media_type),
            (b"content-length", str(len(self.body)).encode()),
            *EVERYWHERE,
            *self.headers,
        ]
