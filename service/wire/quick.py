"""One request from parsed bytes straight to a hot endpoint, and its answer to the socket.

Past ASGI, which would cost as much again as tokenising and running a short text. It does for a connection what `Cycle`
does, and the answers are the same; tests compare both ways. It knows nothing of how requests arrive.
"""

import asyncio
from collections.abc import Callable

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from service.api.exchange import Answering
from service.call import Call, Headers, Reply
from service.errors import NotReady, respond
from service.wire.eager import Eager

Hot = Callable[[str, str], Answering | None]
"""Method and path -> the endpoint behind them, if they are hot."""


CLOSE = (b"connection", b"close")


class Quick:
    """A request under way."""

    __slots__ = (
        "_call",
        "_defaults",
        "_endpoint",
        "_flow",
        "_on_response",
        "_transport",
        "_work",
        "disconnected",
        "keep_alive",
    )

    def __init__(
        self,
        endpoint: Answering,
        call: Call,
        transport: asyncio.Transport,
        flow: FlowControl,
        defaults: Headers,
        keep_alive: bool,
        on_response: Callable[[], None],
    ) -> None:
        self._endpoint = endpoint
        self._call = call
        self._transport = transport
        self._flow = flow
        self._defaults = defaults
        self._on_response = on_response
        self._work: Eager | None = None
        self.disconnected = False
        self.keep_alive = keep_alive

    def start(self, on_done: Callable[[Eager], None]) -> Eager:
        """Its turn has come; `begin` must follow."""
        self._work = Eager(self._run(), on_done)
        return self._work

    def leave(self) -> None:
        """The client has gone: so may the work."""
        self.disconnected = self._call.left = True
        if self._work is not None:
            self._work.cancel()

    async def _run(self) -> None:
        try:
            reply = await self._endpoint(self._call)
        except asyncio.CancelledError:
            if self.disconnected:
                return
            self.keep_alive = False  # the time to drain is over
            reply = self._instead(NotReady("the service stopped before the answer was ready"))
        except BaseException as error:  # a panic of Rust code is no Exception
            self.keep_alive = False
            fault = RuntimeError("a request failed outside of its endpoint")
            fault.__cause__ = error
            reply = self._instead(fault)
        if not await self._has_room():
            return
        if CLOSE in reply.headers:
            self.keep_alive = False
        self._transport.write(wire(reply, self._defaults, self.keep_alive))
        if not self.keep_alive:
            self._transport.close()
        self._on_response()

    async def _has_room(self) -> bool:
        """Wait for a client that has not taken the answers before this one; False if it never does."""
        try:
            if self._flow.write_paused:
                await self._flow.drain()
        except asyncio.CancelledError:  # it has gone, or the time to drain is over
            if not self.disconnected:
                self._transport.abort()
            return False
        return not self.disconnected

    def _instead(self, error: Exception) -> Reply:
        """What is said where the endpoint gave no answer; it has counted the request all the same."""
        return respond(error, self._call.headers, self._endpoint.dialect)


def wire(reply: Reply, defaults: Headers, keep_alive: bool) -> bytes:
    """The bytes of an answer."""
    head = b"".join([b"%s: %s\r\n" % header for header in (*defaults, *reply.all_headers())])
    end = b"\r\n" if keep_alive or CLOSE in reply.headers else b"connection: close\r\n\r\n"
    return b"".join((STATUS_LINE[reply.status], head, end, reply.body))
