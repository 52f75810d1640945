"""uvicorn as we want it: our connections, our order of stopping, a heartbeat.

It knows signals and sockets. It knows nothing of requests or models.
"""

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable
from types import FrameType

import uvicorn

from service.connection import guarded_protocol, limits_of
from service.crowd import Observer
from service.cycle import DialectOf
from service.errors import OURS
from service.lifecycle import Lifecycle, Phase
from service.quick import Hot
from service.settings import Settings
from service.telemetry import on_loop_error

TICKS_A_SECOND = 10  # of uvicorn's main loop

KEEP_ALIVE_S = 75
"""Longer than load balancers keep idle connections, so that we never close one that they just used."""


class Server(uvicorn.Server):
    """uvicorn, except that the first signal takes readiness away before the port closes."""

    def __init__(
        self,
        config: uvicorn.Config,
        lifecycle: Lifecycle,
        settle_seconds: float,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """`beat` is called once a second as long as the event loop runs."""
        super().__init__(config)
        self._beat = beat
        self._lifecycle = lifecycle
        self._settle_seconds = settle_seconds
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(on_loop_error)
        await super().serve(sockets)

    async def on_tick(self, counter: int) -> bool:
        if counter % TICKS_A_SECOND == 0:
            self._beat()
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        settling = self._lifecycle.phase is Phase.READY and self._settle_seconds > 0
        self._lifecycle.leave()
        if settling and self._loop is not None:
            self._loop.call_soon_threadsafe(
                self._loop.call_later, self._settle_seconds, super().handle_exit, sig, frame
            )
        else:
            super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._lifecycle.drain()
        await super().shutdown(sockets)

    def handle_reload(self, sig: int, frame: FrameType | None) -> None:
        """SIGHUP."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._lifecycle.reload)


def run(server: Server, door: socket.socket) -> None:
    """Serve until a signal comes, then exit with 0."""
    # From before uvicorn takes them until after it gave them back, when it raises once more what it caught.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)
    signal.signal(signal.SIGHUP, server.handle_reload)
    server.run(sockets=[door])


def configure(
    app: Callable[..., Awaitable[None]],
    settings: Settings,
    refused: Observer = lambda _: None,
    dialect_of: DialectOf = lambda _: OURS,
    hot: Hot = lambda _method, _path: None,
) -> uvicorn.Config:
    """uvicorn as we want it, on uvloop where that is installed; see `guarded_protocol`."""
    return uvicorn.Config(
        app,
        loop="auto",
        http=guarded_protocol(limits_of(settings), refused, dialect_of, hot),
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # we use no client address
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
    )
