"""HTTP/1.1 as far as a load needs it: requests as ready bytes, and answers out of fragments of any size.

It knows no sockets and no clocks. One answer at a time: a load never pipelines.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Self
from urllib.parse import urlsplit

LONGEST_HEAD = 64 * 1024
END_OF_HEAD = b"\r\n\r\n"
NO_BODY = (204, 304)

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,15})[ \t]*\r\n", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection:[ \t]*close[ \t]*\r\n", re.IGNORECASE)


class MalformedResponse(Exception):
    """Not an answer, or not one that this reader knows."""


class UnfitUrl(Exception):
    """An address that a load cannot be sent to."""


class Dialect(StrEnum):
    """Whose requests to send."""

    PREDICT = "predict"
    CLASSIFY = "classify"


QUESTIONS = MappingProxyType({Dialect.PREDICT: ("/predict", "inputs"), Dialect.CLASSIFY: ("/v1/classify", "input")})
"""Dialect -> path, and the field that holds the texts."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the service is."""

    host: str
    port: int
    prefix: str = ""

    @classmethod
    def of(cls, url: str) -> Self:
        """`http://host:port/prefix` -> its parts."""
        try:
            parts = urlsplit(url)
            port = parts.port or 80
        except ValueError as error:
            raise UnfitUrl(f"{url}: {error}; an address looks like http://127.0.0.1:8000") from error
        if parts.scheme != "http" or not parts.hostname:
            raise UnfitUrl(f"{url}: not an http address; it looks like http://127.0.0.1:8000")
        return cls(parts.hostname, port, parts.path.rstrip("/"))

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Caller:
    """How requests are put: to whom, in which dialect, with which headers besides (`name: value`)."""

    target: Target
    dialect: Dialect = Dialect.PREDICT
    headers: tuple[str, ...] = ()

    def request(self, texts: Sequence[str]) -> bytes:
        """The bytes of one request."""
        return self.post(*self.question(texts))

    def question(self, texts: Sequence[str]) -> tuple[str, bytes]:
        """Its path and body: one text as a string, several as a list."""
        asked = texts[0] if len(texts) == 1 else list(texts)
        path, field = QUESTIONS[self.dialect]
        return path, json.dumps({field: asked}, ensure_ascii=False).encode()

    def post(self, path: str, body: bytes) -> bytes:
        lines = [
            f"POST {self.target.prefix}{path} HTTP/1.1",
            f"Host: {self.target.authority}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            *self.headers,
        ]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class ResponseReader:
    """Puts one answer together. After it is whole, `body` holds it, `closes` says if the connection ends with it,
    and `header` finds what else was said."""

    __slots__ = ("_begun", "_body_at", "_head", "_status", "_whole", "body", "closes")

    def __init__(self) -> None:
        self._begun = bytearray()  # an answer that is not whole
        self._whole = 0  # bytes of head and body; 0 while the head is not complete
        self._status = 0
        self._body_at = 0
        self._head = b""
        self.body = b""
        self.closes = False

    def feed(self, data: bytes) -> int:
        """The next bytes of an answer -> its status when it is whole, 0 before."""
        if self._begun:
            self._begun += data
            if self._whole > len(self._begun):
                return 0
            data = bytes(self._begun)
        if not self._whole and not self._read_head(data):
            return 0
        if len(data) < self._whole:
            if not self._begun:
                self._begun += data
            return 0
        return self._finish(data)

    def header(self, name: bytes) -> bytes:
        """The first of that name, which is in lower case as the service writes it; b"" if there is none."""
        _, _, rest = self._head.partition(b"\r\n%s: " % name)
        return rest.partition(b"\r\n")[0]

    def _finish(self, data: bytes) -> int:
        whole, self._whole = self._whole, 0
        if self._begun:
            self._begun = bytearray()
        if self._status < 200:  # an interim answer: the real one follows
            return self.feed(data[whole:]) if len(data) > whole else 0
        if len(data) > whole:
            raise MalformedResponse("more bytes than Content-Length says")
        self.body = data[self._body_at :]
        return self._status

    def _read_head(self, data: bytes) -> bool:
        """Find out how long the answer is; False if its head is not complete."""
        end = data.find(END_OF_HEAD)
        if end < 0:
            if len(data) > LONGEST_HEAD:
                raise MalformedResponse(f"a head of more than {LONGEST_HEAD} bytes")
            if not self._begun:
                self._begun += data
            return False
        if not (data.startswith(b"HTTP/1.") and data[9:12].isdigit() and data[9:10] != b"0"):
            raise MalformedResponse("not an HTTP/1 answer")
        self._status = int(data[9:12])
        self._body_at = end + len(END_OF_HEAD)
        self._head = head = data[: end + 2]
        # Looking for a word first is much cheaper than for a pattern.
        self.closes = (b"close" in head or b"Close" in head) and _CLOSES.search(head) is not None
        self._whole = self._body_at + self._length(head)
        return True

    def _length(self, head: bytes) -> int:
        if self._status < 200 or self._status in NO_BODY:
            return 0
        found = _LENGTH.search(head)
        if found is None:
            raise MalformedResponse("an answer without Content-Length")
        return int(found[1])
