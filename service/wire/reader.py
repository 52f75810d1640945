"""From bytes to whole requests, within limits of size, however the bytes are cut into pieces.

It knows nothing of sockets, time, or of what a request is for.
"""

import logging
from collections.abc import Callable
from enum import Enum

import httptools

from service.call import Headers
from service.wire.heads import (
    Head,
    Limits,
    Reason,
    Refusal,
    body_too_large,
    malformed,
    read_head,
    target_too_long,
)

logger = logging.getLogger("understudy")

_UPGRADE = (b"upgrade", b"http2-settings")


class Incoming(Enum):
    """What a client is sending."""

    NOTHING = "nothing"
    HEAD = "head"
    BODY = "body"
    NOISE = "noise"  # nobody listens any more


_NOTHING, _HEAD, _BODY, _NOISE = Incoming  # an attribute of an Enum costs more than a name

Take = Callable[[Head, bytes, bool], None]
"""Gets a head, its body, and whether the client may ask again on the same connection. May raise Refusal."""


class _Enough(Exception):
    """The last request of a connection is here; what follows is nothing to us."""


class Reader:
    """Parses what one client sends."""

    __slots__ = ("_fed", "_headers", "_limits", "_parser", "_take", "_target", "_upgrading", "body", "head", "incoming")

    def __init__(self, limits: Limits, take: Take) -> None:
        self.incoming = _NOTHING
        self.head: Head | None = None  # of the last request, once it is complete
        self.body: bytes | bytearray = b""
        self._limits = limits
        self._take: Take | None = take
        self._parser: httptools.HttpRequestParser | None = self._new_parser()
        self._fed = 0  # bytes since the last request ended
        self._target = b""
        self._headers: Headers = []
        self._upgrading = False

    def feed(self, data: bytes | memoryview) -> None:
        """Hands on each request that is complete. Raises Refusal, and then listens no more."""
        most = self._limits.head_bytes
        try:
            if len(data) <= most:  # nearly always
                self._parse(data)
                return
            view = memoryview(data)
            for start in range(0, len(data), most):  # so that not too much is parsed before it is judged
                self._parse(view[start : start + most])
        except Refusal:
            self.stop_listening()
            raise

    def asked(self) -> tuple[str, Headers]:
        """Path and headers of the last request, as far as they came: to be refused in its own dialect."""
        path = self._target.partition(b"?")[0].decode("ascii", errors="replace")
        return path, self.head.headers if self.head is not None else self._headers

    def stop_listening(self) -> None:
        """Whatever still comes is thrown away."""
        self.incoming = _NOISE
        self.body = b""

    def close(self) -> None:
        """Parser and reader hold each other."""
        self.stop_listening()
        self._parser = self._take = None

    def _parse(self, data: bytes | memoryview) -> None:
        if self.incoming is _NOISE or self._parser is None:
            return
        self._fed += len(data)
        rest: memoryview | None = None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = memoryview(data)[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, _Enough):
                return
            raise _refusal_of(error) from None
        if rest is not None:  # not above: while an exception is handled, it would hide those that callbacks raise
            self._parse_without_upgrade(self._parser, rest)
        if self.incoming is not _NOTHING or self._fed > self._limits.head_bytes:
            self._check_size()

    # What the parser calls. A Refusal ends the parsing.

    def on_message_begin(self) -> None:
        if self.incoming is _NOISE:
            raise _Enough
        self.incoming = _HEAD
        self.head = None
        self._target = b""
        self._headers = []

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        parser, headers = self._parser, self._headers
        assert parser is not None
        if self._fed > self._limits.head_bytes:  # perhaps with some of the body: count again
            self._check_head(sum(len(name) + len(value) + 4 for name, value in headers) + len(self._target))
        if parser.should_upgrade():
            self._upgrading = True
            return
        self.head = read_head(parser.get_method(), parser.get_http_version(), self._target, headers, self._limits)
        self._headers = []  # trailers may follow the body; nobody wants them, least of all among the headers
        self.incoming = _BODY

    def on_body(self, part: bytes) -> None:
        if not self.body:
            self.body = part
        elif isinstance(self.body, bytes):
            self.body = bytearray(self.body) + part
        else:
            self.body += part
        if len(self.body) > self._limits.body_bytes:
            raise body_too_large(self._limits)

    def on_message_complete(self) -> None:
        if self._upgrading:
            return
        head, body = self.head, bytes(self.body)
        assert head is not None
        assert self._parser is not None
        assert self._take is not None
        keep_alive = head.version == "1.1" and self._parser.should_keep_alive()
        self._fed = 0
        self.body = b""
        self.incoming = _NOTHING if keep_alive else _NOISE
        self._take(head, body, keep_alive)

    def _check_size(self) -> None:
        """Of a request that is not complete."""
        if self.incoming is _BODY:
            if self._fed - len(self.body) > 2 * self._limits.head_bytes:
                raise malformed("too much around the chunks of the body; send larger chunks")
        elif self.incoming is not _NOISE:
            self._check_head(self._fed)

    def _check_head(self, size: int) -> None:
        if size > self._limits.head_bytes:
            if len(self._target) > self._limits.target_bytes:
                raise target_too_long(self._limits)
            raise Refusal(Reason.HEAD_TOO_LARGE, f"at most {self._limits.head_bytes} bytes of headers")

    def _parse_without_upgrade(self, parser: httptools.HttpRequestParser, rest: memoryview) -> None:
        """Read the same request without its wish to speak another protocol: the parser would leave out the body.

        HTTP allows that, and clients exist that ask for HTTP/2 with whatever they send first (Java's own does).
        """
        self._upgrading = False
        method, version = parser.get_method(), parser.get_http_version()
        if method == b"CONNECT":
            raise malformed("this is no proxy")
        lines = [b"%s %s HTTP/%s" % (method, self._target, version.encode())]
        lines += [b"%s: %s" % header for header in self._headers if header[0] not in _UPGRADE]
        self._parser = self._new_parser()
        self._fed = 0
        self._parse(b"\r\n".join((*lines, b"", b"")))
        self._parse(rest)

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # After `Connection: close` we don't listen, so what follows is no error.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser


def _refusal_of(error: httptools.HttpParserError) -> Refusal:
    """What the parser found, or what we found while it called us."""
    if not isinstance(error, httptools.HttpParserCallbackError):
        return malformed(f"not HTTP/1.1: {error}")
    cause = error.__context__
    if isinstance(cause, Refusal):
        return cause
    logger.error("a request could not be read: a fault of ours", exc_info=cause)
    return malformed("the request could not be read")
