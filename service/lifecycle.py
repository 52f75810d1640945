"""Loading, ready, leaving, draining, stopped: load -> verify -> warm -> ready; SIGTERM: readiness off -> grace -> no
new connections, what comes on open ones is answered for a moment -> answer what was taken -> exit.

Opening a bundle verifies it, and its proof warms it. Meanwhile the port is open, so that /livez and /readyz
tell loading from dead. It knows nothing of routes.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum

from service.catalogue import Catalogue
from service.errors import NotReady
from service.settings import Settings

logger = logging.getLogger("understudy")

SPARE_S = 0.5
"""After the drain, for closing the models."""


class Phase(StrEnum):
    """Where the service stands."""

    LOADING = "loading"
    READY = "ready"
    LEAVING = "leaving"  # not ready for load balancers, yet whatever comes is answered
    DRAINING = "draining"  # no connection is left, or there is no time left: what comes is refused
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

    async def opened(self) -> None:
        """Wait until the models are open, or cannot be opened, or nobody wants them any more."""
        if self._loading is not None:
            await asyncio.wait({self._loading})

    def abandon(self) -> None:
        """Wait no longer for models that are being opened: the thread that does it cannot be interrupted."""
        if self._loading is not None:
            self._loading.cancel()

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
        self.count_down()

    def count_down(self) -> None:
        """Draining has begun elsewhere, where connections are known."""
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + self._settings.drain_seconds

    def hurry(self) -> None:
        """Draining is over as of now."""
        self.drain()
        self._deadline = asyncio.get_running_loop().time()

    async def stop(self) -> None:
        """Answer what was admitted, then let go of the models."""
        self.drain()
        if self._following is not None:
            self._following.cancel()
        self.abandon()
        if self._catalogue is not None and self._deadline is not None:
            left_s = max(0.0, self._deadline - asyncio.get_running_loop().time())
            with suppress(TimeoutError):  # something else than a queue holds it up: it is not worth the wait
                await asyncio.wait_for(self._catalogue.close(left_s), left_s + SPARE_S)
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
