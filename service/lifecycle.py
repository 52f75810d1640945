"""Loading, ready, leaving, draining, stopped: load -> verify -> warm -> ready; SIGTERM: readiness off -> grace ->
refuse new requests -> answer what was taken -> exit.

Opening a bundle verifies it, and its proof warms it. Meanwhile the port is open, so that /livez and /readyz
tell loading from dead. It knows nothing of routes.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import StrEnum
from types import FrameType

import uvicorn

from service.catalogue import Catalogue
from service.connection import guarded_protocol, limits_of
from service.crowd import Observer
from service.cycle import DialectOf
from service.errors import OURS, NotReady
from service.settings import Settings
from service.telemetry import on_loop_error

logger = logging.getLogger("understudy")

TICKS_A_SECOND = 10  # of uvicorn's main loop

KEEP_ALIVE_S = 75
"""Longer than load balancers keep idle connections, so that we never close one that they just used."""


class Phase(StrEnum):
    """Where the service stands."""

    LOADING = "loading"
    READY = "ready"
    LEAVING = "leaving"  # not ready for load balancers, yet whatever comes is answered
    DRAINING = "draining"  # new requests are refused
    STOPPED = "stopped"
    FAILED = "failed"


class Lifecycle:
    """Opens the models in the background, follows their folder, and knows whether requests can be answered."""

    def __init__(self, open_models: Callable[[], Catalogue], settings: Settings) -> None:
        self._open_models = open_models
        self._settings = settings
        self._catalogue: Catalogue | None = None
        self._loading: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._asked = asyncio.Event()
        self._deadline: float | None = None  # of draining, as the event loop counts
        self.phase = Phase.LOADING
        self.failure: Exception | None = None
        self.on_loaded: Callable[[Lifecycle], None] = lambda _: None
        """Called once, when the models are open or cannot be opened."""
        self.on_look: Callable[[], None] = lambda: None
        """Called with each look at the folder: for keys and whatever else is read from files."""

    @property
    def catalogue(self) -> Catalogue:
        """The open models; raises NotReady before there are any."""
        if self._catalogue is None:
            raise NotReady(f"the models are not open ({self.phase})")
        return self._catalogue

    @property
    def admitting(self) -> Catalogue:
        """The same, for a new request; raises NotReady also when they are about to go."""
        if self.phase is Phase.DRAINING or self.phase is Phase.STOPPED:
            raise NotReady(f"this replica takes no new requests ({self.phase})")
        return self.catalogue

    def unready(self) -> str | None:
        """Why this replica should get no new requests; None if it should."""
        if self.phase is not Phase.READY:
            return str(self.phase)
        dead = self.catalogue.dead
        return f"a worker of {', '.join(dead)} is missing" if dead else None

    def start(self) -> None:
        """Begin to open the models."""
        self._loading = asyncio.get_running_loop().create_task(self._load())

    def reload(self) -> None:
        """Look at the folder of models now."""
        self._asked.set()

    def leave(self) -> None:
        """Ask for no new requests. Those that come all the same are answered."""
        if self.phase in (Phase.LOADING, Phase.READY):
            self.phase = Phase.LEAVING

    def drain(self) -> None:
        """Refuse new requests."""
        if self.phase in (Phase.LOADING, Phase.READY, Phase.LEAVING):
            self.phase = Phase.DRAINING
            self._deadline = asyncio.get_running_loop().time() + self._settings.drain_seconds

    async def stop(self) -> None:
        """Answer what was admitted, then let go of the models."""
        self.drain()
        if self._following is not None:
            self._following.cancel()
        if self._loading is not None:
            await self._loading  # a thread that opens a bundle cannot be interrupted
        if self._catalogue is not None and self._deadline is not None:
            await self._catalogue.close(max(0.0, self._deadline - asyncio.get_running_loop().time()))
        if self.phase is not Phase.FAILED:
            self.phase = Phase.STOPPED

    async def _load(self) -> None:
        try:
            self._catalogue = await asyncio.to_thread(self._open_models)
        except Exception as error:  # whoever started us decides what it means: see `on_loaded`
            self.failure = error
            self.phase = Phase.FAILED
        else:
            if self.phase is Phase.LOADING:
                self.phase = Phase.READY
                self._following = asyncio.get_running_loop().create_task(self._follow(self._catalogue))
        self.on_loaded(self)

    async def _follow(self, catalogue: Catalogue) -> None:
        """Look for new versions now and then, and when asked."""
        pause_s = self._settings.reload_seconds or None
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), pause_s)
            self._asked.clear()
            try:
                self.on_look()
                await catalogue.refresh()
            except Exception:  # a fault of ours must not end the following
                logger.exception("the folder of models could not be followed")


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
) -> uvicorn.Config:
    """uvicorn as we want it, on uvloop where that is installed; what it refuses itself is counted by `refused`."""
    return uvicorn.Config(
        app,
        loop="auto",
        http=guarded_protocol(limits_of(settings), refused, dialect_of),
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # we use no client address
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
    )
