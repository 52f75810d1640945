"""HTTP by hand: a server with nothing behind it but an echo, and clients that write what they like."""

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import uvicorn

from service.call import Call, Reply
from service.errors import HUB, OURS
from service.wire.connection import Connection, guarded_protocol
from service.wire.crowd import Crowd
from service.wire.heads import Limits
from tests.running import until
from tests.service.wire.wire_cases import ask, post

PATIENCE_S = 20  # only ever waited for when a test fails
SHORT_S = 0.3  # a limit
SLACK_S = 1.5  # the machine may be busy; without the limit, a client would wait for ten seconds or more

LIMITS = Limits(
    connections=64,
    peer_connections=0,
    first_byte_s=10,
    head_s=10,
    body_s=10,
    answer_s=10,
    bytes_per_s=1024,
    head_bytes=4096,
    headers=20,
    target_bytes=512,
    body_bytes=20_000,
    unfinished_bytes=10**6,
)


BUSY = ask(line=b"GET /watch HTTP/1.1")  # until its client leaves
HANG = ask(line=b"GET /hang HTTP/1.1")  # for ever
HALF_HEAD = b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: "
HALF_BODY = post(b"Content-Length: 50", body=b"hello")
LARGE = post(b"Content-Length: 15000", body=b"a" * 15_000)

GONE: list[bytes] = []
"""Whose clients left while /watch watched."""


@dataclass(frozen=True)
class Answer:
    """One response as it came."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Client:
    """One connection to the server."""

    socket: socket.socket
    received: bytes = b""
    ended: bool = False

    def send(self, data: bytes) -> None:
        """Whether or not the server still listens."""
        try:
            self.socket.sendall(data)
        except OSError:
            self.ended = True

    def answers(self, count: int | None = None, head: bool = False) -> list[Answer]:
        """So many responses, or all until the server hangs up."""
        found: list[Answer] = []
        while count is None or len(found) < count:
            answer = self._next(head)
            if answer is None:
                break
            found.append(answer)
        return found

    def statuses(self, count: int | None = None) -> list[int]:
        return [answer.status for answer in self.answers(count)]

    def hung_up(self, within_s: float = PATIENCE_S) -> bool:
        """Has the server closed, with nothing left to read?"""
        self.socket.settimeout(within_s)
        try:
            return self.socket.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        self.socket.close()

    def _next(self, head: bool) -> Answer | None:
        while b"\r\n\r\n" not in self.received:
            if not self._more():
                return None
        start, _, self.received = self.received.partition(b"\r\n\r\n")
        status, *lines = start.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        length = 0 if head else int(headers.get("content-length", 0))
        while len(self.received) < length:
            assert self._more(), f"half an answer: {start!r}"
        body, self.received = self.received[:length], self.received[length:]
        return Answer(int(status.split()[1]), headers, body)

    def _more(self) -> bool:
        try:
            data = self.socket.recv(65536)
        except TimeoutError:
            raise AssertionError(f"no answer within {PATIENCE_S} s, only {self.received!r}") from None
        except OSError:
            data = b""
        self.received += data
        return bool(data)


@dataclass
class Echo:
    """A server in a thread."""

    port: int
    server: uvicorn.Server
    thread: threading.Thread
    protocol: type[Connection]
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def crowd(self) -> Crowd:
        return self.protocol.crowd

    def connect(self, source: str = "127.0.0.1") -> Client:
        made = socket.create_connection(("127.0.0.1", self.port), PATIENCE_S, source_address=(source, 0))
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Client(made)

    def exchange(self, data: bytes, count: int | None = None) -> list[Answer]:
        """Send this on a new connection; so many responses, or all until the server hangs up."""
        with self.connecting() as client:
            client.send(data)
            return client.answers(count)

    @contextmanager
    def connecting(self, source: str = "127.0.0.1") -> Iterator[Client]:
        client = self.connect(source)
        try:
            yield client
        finally:
            client.close()

    def is_well(self) -> bool:
        [answer] = self.exchange(b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        return answer.status == 200

    def stop(self) -> float:
        """How long it took."""
        started = time.monotonic()
        self.server.should_exit = True
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()
        return time.monotonic() - started


@contextmanager
def echoing(*, drain_s: int = 5, keep_alive_s: float = 75, guarded: bool = True, **limits: Any) -> Iterator[Echo]:
    """A server with these limits; not guarded: uvicorn as it comes."""
    refused: Counter[str] = Counter()
    protocol = guarded_protocol(
        replace(LIMITS, **limits),
        lambda reason: refused.update([reason.value]),
        lambda path: HUB if path == "/predict" else OURS,
        lambda method, path: HOT if path.startswith("/hot") else None,
    )
    config = uvicorn.Config(
        echo,
        http=protocol if guarded else "httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=keep_alive_s,  # type: ignore[arg-type]
        timeout_graceful_shutdown=drain_s,
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as door:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
        thread.start()
        try:
            until(lambda: server.started)
            yield Echo(door.getsockname()[1], server, thread, protocol, refused)
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)


class Hot:
    """An endpoint that is asked without the way through ASGI."""

    dialect = OURS

    async def __call__(self, call: Call) -> Reply:
        if call.path == "/hot/hang":
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                GONE.append(b"hot")
                raise
        return Reply(b"hot " + call.body)


HOT: Any = Hot()


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Says what it was asked; some paths have their ways."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    if scope["path"] == "/hang":
        await asyncio.Event().wait()
    if scope["path"] == "/wait":
        await asyncio.sleep(float(scope["query_string"]))
    if scope["path"] == "/watch":
        assert (await receive())["type"] == "http.disconnect"
        GONE.append(scope["query_string"])
        return
    if scope["path"] == "/block":  # as a fault of ours might
        time.sleep(float(scope["query_string"]))
    if scope["path"] == "/fault":
        raise ValueError("a secret")
    said = b"%s %s?%s %s" % (scope["method"].encode(), scope["path"].encode(), scope["query_string"], body)
    if scope["path"] == "/headers":
        said = repr(scope["headers"]).encode()
    if scope["path"] == "/big":
        said = bytes(1 << 21)
    headers = [(b"content-length", str(len(said)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if scope["path"] == "/half":
        await send({"type": "http.response.body", "body": said[:1], "more_body": True})
        await asyncio.Event().wait()
    await send({"type": "http.response.body", "body": said})
