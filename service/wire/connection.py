"""uvicorn's HTTP protocol, made safe for a hostile network with no proxy in front.

What comes in is bounded in bytes, time and number before anything else of the service sees it, and a request
reaches the application only when all of it is here. A client that breaks a limit is told so in one short answer
and then let go; nothing of it is logged. It knows nothing of paths, models or what an answer means.
"""

import asyncio
import selectors
import socket
from collections import deque
from contextlib import suppress
from math import inf
from typing import Any, ClassVar

from uvicorn._types import HTTPScope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.api.exchange import Answering
from service.call import Call, peer_of
from service.errors import OURS, Dialect, respond
from service.settings import Settings
from service.wire.crowd import PARTING_S, Crowd, Observer
from service.wire.cycle import Cycle, DialectOf, and_close
from service.wire.heads import Head, Limits, Reason, Refusal
from service.wire.quick import Hot, Quick
from service.wire.reader import Incoming, Reader

MAX_PIPELINED = 16
"""Requests of one connection that may wait for their turn; nearly all clients send one at a time."""

LINGER_S = 1.0
"""A refused client may finish what it is sending, so that it reads our answer instead of a reset."""

RATE_GRACE_S = 3.0
"""So long a rate says nothing: TCP may have lost a packet, and its repetition too."""

SEND_BUFFER = 64 * 1024
"""What the kernel keeps of answers that a client does not take; left alone it would keep megabytes of each."""

WRITE_BUFFER = 16 * 1024
"""What we keep of them besides: over it, the next answer waits until the client has taken some."""

DESCRIPTORS = 128
"""Files and sockets that are no connections: models, logs, the loop, and a few that are just being closed."""

Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)  # epoll would take a descriptor

_NOTHING, _HEAD, _BODY, _NOISE = Incoming


class Connection(HttpToolsProtocol):
    """One connection. The subclass that `guarded_protocol` makes belongs to one server."""

    crowd: ClassVar[Crowd]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser = None  # type: ignore[assignment]  # super's own, which would call super
        self.peer: str | None = None
        self.reader = Reader(self.crowd.limits, self._take)
        self.running: Cycle | Quick | None = None
        self.waiting: deque[tuple[Cycle | Quick, int]] = deque()  # for their turn, with the size of their bodies
        self.requests = 0
        self._before = 0  # requests before what is being read
        self.deadline = inf  # of what we wait for
        self._limits = self.crowd.limits
        self._timed = _NOTHING  # for which part the deadline stands …
        self._since = 0.0  # … and when that part began
        self._queued = 0  # bytes of bodies that wait for their turn
        self._held = 0  # bytes of these and of an unfinished one, as the crowd knows
        self._last_words = b""  # to be said after the answers that are under way
        self._unread = 0  # the write buffer …
        self._unread_since = inf  # … and since when it has not become clearly less

    @staticmethod
    def hot(method: str, path: str) -> Answering | None:
        """The endpoint behind a path that need not go through ASGI; `guarded_protocol` knows better."""
        return None

    @staticmethod
    def dialect_of(path: str) -> Dialect:
        """How the path speaks of errors; `guarded_protocol` says it better."""
        return OURS

    # What asyncio calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.peer = peer_of(self.client[0]) if self.client else None
        with suppress(OSError):  # it has gone already
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        transport.set_write_buffer_limits(WRITE_BUFFER)
        self.deadline = self.loop.time() + self._limits.first_byte_s
        why_not = self.crowd.enter(self, self.loop)
        if why_not is not None:
            self._refuse(Refusal(why_not, "close idle connections, or try again later"))
        elif self.crowd.stopping:
            self.wind_up(self.crowd.now)

    def connection_lost(self, exc: Exception | None) -> None:
        self.crowd.leave(self)
        self.reader.close()
        self._forget_waiting()
        self._count_held()
        running, self.running = self.running, None
        if running is not None:  # super tells the newest only
            running.leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._before = self.requests
        try:
            self.reader.feed(data)
        except Refusal as refusal:
            self._refuse(refusal)
        else:
            if self.reader.incoming is not _NOTHING or self.waiting or self._held:
                self._await_rest()

    # What uvicorn calls.

    def shutdown(self) -> None:
        self.crowd.stop(self.loop)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        self.running = None
        if self.transport.is_closing():
            return
        if self.waiting:
            request, size = self.waiting.popleft()
            self._queued -= size
            self._count_held()
            self._start(request)
        elif self._last_words:
            self._part(self._last_words)
        elif self.reader.incoming is _NOTHING:
            self.deadline = self.crowd.now + self.timeout_keep_alive
        elif self.reader.incoming is _BODY:
            self._encourage()
        if self.flow.read_paused and not self.waiting:
            self.flow.resume_reading()
            self._timed = _NOTHING  # the client could not send on, so its time begins anew
            self._await_rest()

    # What the crowd calls.

    def standing(self) -> tuple[int, float] | None:
        incoming = self.reader.incoming
        if self.running is not None or incoming is _BODY:
            return None
        if incoming is _NOTHING:
            return (3 if self.requests else 1), self.deadline
        return (0 if incoming is _NOISE else 2), self.deadline

    def make_room(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # close() would wait until the client has read it all
        else:
            self.transport.close()

    def give_up_bodies(self) -> None:
        self._forget_waiting()
        self._refuse(Refusal(Reason.TOO_MUCH_UNFINISHED, "too much is being sent at once; try again later"))

    def wind_up(self, now: float) -> None:
        last = self.waiting[-1][0] if self.waiting else self.running
        if last is not None:
            last.keep_alive = False
        else:
            self.deadline = min(self.deadline, now + PARTING_S)

    def look(self, now: float) -> None:
        if self._is_stuck(now):
            self.crowd.refused(Reason.SLOW_READER)
            self.transport.abort()
        elif self.flow.read_paused:
            return
        elif self._drips(now):
            least = self._limits.bytes_per_s
            self._refuse(Refusal(Reason.SLOW_BODY, f"send the body at {least} bytes a second or more"))
        elif now >= self.deadline:
            self._time_is_over()

    # What only we call.

    def _await_rest(self) -> None:
        """Part of a request is here, or several are: how long may the rest take, and how much of it do we want now?"""
        incoming = self.reader.incoming
        if incoming is _HEAD or incoming is _BODY:
            if self._timed is not incoming:
                self._timed = incoming
                self._since = self.loop.time()
                limit_s = self._limits.body_s if incoming is _BODY else self._limits.head_s
                self.deadline = self._since + (min(limit_s, PARTING_S) if self.crowd.stopping else limit_s)
            if incoming is _BODY:
                self._encourage()
        self._count_held()
        if self.running is not None and (self._held > self._limits.head_bytes or len(self.waiting) >= MAX_PIPELINED):
            self.flow.pause_reading()  # not earlier: only who reads hears that the client has gone

    def _count_held(self) -> None:
        held = self._queued + len(self.reader.body)
        if held != self._held:
            self._held = held
            self.crowd.hold(self, held)

    def _forget_waiting(self) -> None:
        self.waiting.clear()
        self._queued = 0

    def _encourage(self) -> None:
        """Say that the body is welcome, to a client that waits for our word."""
        head = self.reader.head
        if head is not None and head.expects and self.running is None:
            self.reader.head = head._replace(expects=False)
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _take(self, head: Head, body: bytes, keep_alive: bool) -> None:
        """A request is complete and well-formed: to the application, when its turn has come."""
        self.requests += 1
        self.deadline = inf  # it is we who are waited for
        self._timed = _NOTHING
        # Those at once count as well: an endpoint that answers at once leaves nobody waiting, here or elsewhere.
        if len(self.waiting) >= MAX_PIPELINED or self.requests - self._before > MAX_PIPELINED + 1:
            raise Refusal(Reason.PIPELINE_TOO_LONG, f"at most {MAX_PIPELINED} requests may wait on a connection")
        endpoint = self.hot(head.method, head.path)
        request = (
            self._cycle(head, body, keep_alive) if endpoint is None else self._quick(endpoint, head, body, keep_alive)
        )
        if self.running is None:
            self._start(request)
        else:
            self._queued += len(body)
            self.waiting.append((request, len(body)))

    def _quick(self, endpoint: Answering, head: Head, body: bytes, keep_alive: bool) -> Quick:
        call = Call(head.method, head.path, head.headers, body, self.peer)
        defaults = self.server_state.default_headers
        return Quick(endpoint, call, self.transport, self.flow, defaults, keep_alive, self.on_response_complete)

    def _cycle(self, head: Head, body: bytes, keep_alive: bool) -> Cycle:
        scope: HTTPScope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": head.version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme or "http",
            "root_path": self.root_path,
            "headers": head.headers,
            "state": self.app_state.copy(),
            "method": head.method,
            "path": self.root_path + head.path,
            "raw_path": self.root_path.encode() + head.raw_path,
            "query_string": head.query,
        }
        cycle = Cycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )
        cycle.dialect_of = self.dialect_of
        cycle.body = body  # type: ignore[assignment]  # it is only read, and so need not be copied
        return cycle

    def _start(self, request: Cycle | Quick) -> None:
        if self.crowd.leaving:
            if self.transport.is_closing():  # the last answer was given, at once
                return
            if not self.waiting:
                request.keep_alive = False
        self.running = request
        if isinstance(request, Quick):
            work = request.start(self.tasks.discard)
            self.tasks.add(work)  # type: ignore[arg-type]  # uvicorn counts them and cancels them, nothing else
            work.begin()
        else:
            self.cycle = request
            self._start_asgi_task(request, self.app)

    def _refuse(self, refusal: Refusal) -> None:
        self.crowd.refused(refusal.reason)
        self.reader.stop_listening()
        self._count_held()
        path, given = self.reader.asked()
        reply = respond(refusal, given, self.dialect_of(path))
        headers = [b"%s: %s\r\n" % header for header in (*self.server_state.default_headers, *and_close(reply))]
        words = b"".join((STATUS_LINE[reply.status], *headers, b"\r\n", reply.body))
        if self.running is None:
            self._part(words)
        else:  # what was asked before is answered before
            self._last_words = words
            self.deadline = inf

    def _part(self, words: bytes) -> None:
        if self.transport.is_closing():
            return
        self.transport.write(words)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.deadline = self.loop.time() + (PARTING_S if self.crowd.stopping else LINGER_S)

    def _time_is_over(self) -> None:
        match self.reader.incoming:
            case Incoming.NOTHING:
                if self._has_unread():
                    return
                if not self.requests and not self.crowd.stopping:
                    self.crowd.refused(Reason.SILENT)
                self.make_room()
            case Incoming.NOISE:
                self.make_room()
            case Incoming.HEAD | Incoming.BODY if self.crowd.stopping:
                self._refuse(Refusal(Reason.STOPPING, "the service stops; ask another replica"))
            case Incoming.HEAD:
                self._refuse(Refusal(Reason.SLOW_HEAD, f"send the headers within {self._limits.head_s:g} s"))
            case Incoming.BODY:
                self._refuse(Refusal(Reason.SLOW_BODY, f"send the body within {self._limits.body_s:g} s"))

    def _has_unread(self) -> bool:
        """Has it spoken after all, while the event loop was busy? To close now would lose a whole request."""
        with Selector() as selector:
            selector.register(self.transport.get_extra_info("socket").fileno(), selectors.EVENT_READ)
            return bool(selector.select(0))

    def _drips(self, now: float) -> bool:
        took_s = now - self._since
        arriving = self.reader.incoming is _BODY and self._timed is _BODY
        return arriving and took_s > RATE_GRACE_S and len(self.reader.body) < took_s * self._limits.bytes_per_s

    def _is_stuck(self, now: float) -> bool:
        """Has the client left our answers unread for too long?"""
        unread = self.transport.get_write_buffer_size()
        if not unread:
            self._unread_since = inf
        elif self._unread_since == inf or unread < self._unread - self._limits.bytes_per_s * self._limits.answer_s:
            self._unread, self._unread_since = unread, now
        return now - self._unread_since > self._limits.answer_s


def guarded_protocol(
    limits: Limits,
    refused: Observer = lambda _: None,
    dialect_of: DialectOf = lambda _: OURS,
    hot: Hot = lambda _method, _path: None,
) -> type[Connection]:
    """The protocol for one server. `refused` hears why a connection was refused or cut; `dialect_of` tells how a
    path speaks of errors, and `hot` which endpoints may be asked without the way through ASGI.
    """
    parts = {"crowd": Crowd(limits, refused), "dialect_of": staticmethod(dialect_of), "hot": staticmethod(hot)}
    return type("GuardedConnection", (Connection,), parts)


def limits_of(settings: Settings) -> Limits:
    """The limits as they are set, and no more connections than the system has descriptors for."""
    return Limits(
        connections=_within_descriptors(settings.max_connections),
        peer_connections=settings.max_peer_connections,
        first_byte_s=settings.first_byte_seconds,
        head_s=settings.head_seconds,
        body_s=settings.body_seconds,
        answer_s=settings.answer_seconds,
        bytes_per_s=settings.min_bytes_per_second,
        head_bytes=settings.max_head_bytes,
        headers=settings.max_headers,
        target_bytes=settings.max_target_bytes,
        body_bytes=settings.max_body_bytes,
        unfinished_bytes=settings.max_unfinished_bytes,
    )


def _within_descriptors(connections: int) -> int:
    """So many, after asking for as many descriptors as that takes: often the first limit is below what is allowed."""
    try:
        import resource
    except ImportError:  # Windows
        return connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return min(connections, max(soft - DESCRIPTORS, soft // 2))
    return connections
