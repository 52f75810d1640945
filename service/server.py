"""uvicorn as we want it: our connections, our order of stopping, a heartbeat.

It knows signals and sockets. It knows nothing of requests or models.
"""

import asyncio
import signal
import socket
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

import uvicorn

from service.errors import OURS
from service.lifecycle import Lifecycle, Phase
from service.processes.reaper import Reaper
from service.settings import Settings
from service.telemetry.logs import on_loop_error
from service.wire.connection import Connection, guarded_protocol, limits_of
from service.wire.crowd import Observer
from service.wire.cycle import DialectOf
from service.wire.quick import Hot

BEAT_S = 1.0
"""How often we say that the event loop runs; much less than `parent.HUNG_S`."""

KEEP_ALIVE_S = 75
"""Longer than load balancers keep idle connections, so that we never close one that they just used."""

SPARE_S = 2.5
"""What a stop may take beyond its own deadlines: for traces and logs that nobody takes. Then it hangs."""

TURN_S = 0.02
"""Before the port closes: who has connected already is let in, instead of being reset."""

CUT_S = 0.2
"""For the answers of requests that are cut."""


class Unwaited(ThreadPoolExecutor):
    """Threads for what has no result that matters at a stop: a version that is being opened must not hold it up."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=True)


class Server(uvicorn.Server):
    """uvicorn, except that the first signal takes readiness away before the port closes."""

    def __init__(
        self,
        config: uvicorn.Config,
        lifecycle: Lifecycle,
        settings: Settings,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """`beat` is called once a second as long as the event loop runs: also while models open and requests drain."""
        super().__init__(config)
        self._beat = beat
        self._lifecycle = lifecycle
        self._settle_s = settings.settle_seconds
        self._reaper = Reaper(settings.settle_seconds + settings.drain_seconds + SPARE_S)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(on_loop_error)
        self._loop.set_default_executor(Unwaited())
        self._go_on_beating()
        if threading.current_thread() is not threading.main_thread():  # no signals there
            return await super().serve(sockets)
        self._reaper.start()
        try:
            await super().serve(sockets)
        finally:
            self._reaper.stop_listening()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A second signal ends the settling; a second SIGINT also the draining, as people expect of Ctrl+C."""
        settling = self._lifecycle.phase is Phase.READY and self._settle_s > 0
        self._lifecycle.leave()
        if settling and self._loop is not None:
            self._loop.call_soon_threadsafe(self._settle, sig)
        else:
            super().handle_exit(sig, frame)
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._lifecycle.abandon)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # It is the connections that refuse what comes from now on: they know what was here before.
        self._lifecycle.leave()
        self._lifecycle.count_down()
        await asyncio.sleep(TURN_S)
        await super().shutdown(sockets)
        if self.force_exit:
            await self._cut()

    def handle_reload(self, sig: int, frame: FrameType | None) -> None:
        """SIGHUP."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._lifecycle.reload)

    def _go_on_beating(self) -> None:
        asyncio.get_running_loop().call_later(BEAT_S, self._go_on_beating)
        self._beat()

    def _settle(self, sig: int) -> None:
        """Answers say `Connection: close` from now on, so that clients go elsewhere before the port closes."""
        protocol = self.config.http
        if isinstance(protocol, type) and issubclass(protocol, Connection):
            protocol.crowd.leaving = True
        asyncio.get_running_loop().call_later(self._settle_s, self._settled, sig)

    def _settled(self, sig: int) -> None:
        if not self.should_exit:  # else another signal came in between
            super().handle_exit(sig, None)

    async def _cut(self) -> None:
        """Answer those who wait with a refusal, then end; uvicorn would leave without a word."""
        self._lifecycle.hurry()
        tasks = self.server_state.tasks
        for task in tuple(tasks):
            task.cancel()
        if tasks:
            await asyncio.sleep(CUT_S)
        await self.lifespan.shutdown()


def run(server: Server, door: socket.socket) -> None:
    """Serve until a signal comes, then exit with 0."""
    # From before uvicorn takes them until after it gave them back, when it raises once more what it caught.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)
    signal.signal(signal.SIGHUP, server.handle_reload)
    server.run(sockets=[door])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # it ends anyway, and with its own exit code


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
