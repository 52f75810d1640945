"""Ready, draining, stopped: load -> verify -> warm -> ready; SIGTERM: readiness off -> drain -> stop.

Opening a bundle verifies it, and its proof warms it. Meanwhile the port is open, so that /livez and /readyz
tell loading from dead. It knows nothing of routes.
"""

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable
from enum import StrEnum
from types import FrameType

import uvicorn

from service.errors import NotReady
from service.predictors import Catalogue
from service.settings import Settings

KEEP_ALIVE_S = 75
"""Longer than load balancers keep idle connections, so that we never close one that they just used."""


class Phase(StrEnum):
    """Where the service stands."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


class Lifecycle:
    """Opens the models in the background, and knows whether requests can be answered."""

    def __init__(self, open_models: Callable[[], Catalogue], drain_seconds: float) -> None:
        self._open_models = open_models
        self._drain_seconds = drain_seconds
        self._catalogue: Catalogue | None = None
        self._loading: asyncio.Task[None] | None = None
        self.phase = Phase.LOADING
        self.failure: Exception | None = None
        self.on_loaded: Callable[[Lifecycle], None] = lambda _: None
        """Called once, when the models are open or cannot be opened."""

    @property
    def catalogue(self) -> Catalogue:
        """The open models; raises NotReady before there are any."""
        if self._catalogue is None:
            raise NotReady(f"the models are not open ({self.phase})")
        return self._catalogue

    def unready(self) -> str | None:
        """Why this replica should get no new requests; None if it should."""
        if self.phase is not Phase.READY:
            return str(self.phase)
        dead = self.catalogue.dead
        return f"the worker of {', '.join(dead)} is dead" if dead else None

    def start(self) -> None:
        """Begin to open the models."""
        self._loading = asyncio.get_running_loop().create_task(self._load())

    def drain(self) -> None:
        """Ask for no new requests. Those that come all the same are answered."""
        if self.phase in (Phase.LOADING, Phase.READY):
            self.phase = Phase.DRAINING

    async def stop(self) -> None:
        """Answer what was admitted, then let go of the models."""
        self.drain()
        if self._loading is not None:
            await self._loading  # a thread that opens a bundle cannot be interrupted
        if self._catalogue is not None:
            await self._catalogue.close(self._drain_seconds)
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
        self.on_loaded(self)


class Server(uvicorn.Server):
    """uvicorn, except that the first signal takes readiness away before the port closes."""

    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle, settle_seconds: float) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._settle_seconds = settle_seconds
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        settling = self._lifecycle.phase is Phase.READY and self._settle_seconds > 0
        self._lifecycle.drain()
        if settling and self._loop is not None:
            self._loop.call_soon_threadsafe(
                self._loop.call_later, self._settle_seconds, super().handle_exit, sig, frame
            )
        else:
            super().handle_exit(sig, frame)


def run(server: Server, door: socket.socket) -> None:
    """Serve until a signal comes, then exit with 0."""
    # From before uvicorn takes them until after it gave them back, when it raises once more what it caught.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)
    server.run(sockets=[door])


def configure(app: Callable[..., Awaitable[None]], settings: Settings) -> uvicorn.Config:
    """uvicorn as we want it; uvloop and httptools where they are installed."""
    return uvicorn.Config(
        app,
        loop="auto",
        http="auto",
        ws="none",
        lifespan="on",
        access_log=False,
        log_level=settings.log_level,
        server_header=False,
        proxy_headers=False,  # we use no client address
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
    )
