"""Loading and unloading by request: in this process, and in all other workers where there are several.

It knows the catalogue and the crew. It knows nothing of HTTP.
"""

import logging
from collections.abc import Iterable
from enum import StrEnum

from service.catalogue import Change, NoSuchModel, StillNeeded
from service.errors import NotReady
from service.lifecycle import Lifecycle
from service.processes.crew import Crew
from service.processes.line import Line, Order, Verdict

logger = logging.getLogger("understudy")


class NotByAll(Exception):
    """It was done here, but some other worker has refused it or has not answered; the message says which."""


class Deed(StrEnum):
    """What can be done about a model."""

    LOAD = "load"
    UNLOAD = "unload"


class Changes:
    """Belongs to one event loop."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._crew: Crew | None = None

    def join(self, line: Line) -> None:
        """There are other workers. Before `start`."""
        self._crew = Crew(line, self._follow)

    def start(self) -> None:
        """Do what other workers are asked."""
        if self._crew is not None:
            self._crew.start()

    def stop(self) -> None:
        if self._crew is not None:
            self._crew.stop()

    async def make(self, deed: Deed, name: str) -> Change:
        """Load or unload a model. Raises what the catalogue does, NotReady, NoTurn and NotByAll."""
        order = Order(about=name, what=deed)
        if self._crew is None:
            return await self._do(order)
        change, verdict = await self._crew.lead(order, lambda: self._do(order), _holds)
        problem = "" if verdict is None else _missing(verdict)
        if problem:
            logger.error("%s of %s: %s", deed, name, problem)
            if not change.refused:  # else that is said
                raise NotByAll(problem)
        return change

    async def _do(self, order: Order, elsewhere: bool = False) -> Change:
        catalogue = self._lifecycle.admitting
        if Deed(order.what) is Deed.LOAD:
            return await catalogue.load(order.about, elsewhere)
        return await catalogue.unload(order.about, elsewhere)

    async def _follow(self, order: Order) -> str:
        """Do what another worker has done. Returns why not, or nothing."""
        await self._lifecycle.opened()
        try:
            change = await self._do(order, elsewhere=True)
        except NotReady:  # it serves no more
            return ""
        except (NoSuchModel, StillNeeded) as error:
            return str(error)
        return "; ".join(change.refused)


def unloaded(held: Iterable[Order]) -> frozenset[str]:
    """The models that a worker which starts leaves alone."""
    return frozenset(order.about for order in held if Deed(order.what) is Deed.UNLOAD)


def _holds(change: Change) -> bool:
    """Also where the newest version is refused, but the one before it came or went."""
    return not change.refused or bool(change.opened or change.retired)


def _missing(verdict: Verdict) -> str:
    said = [f"another worker refuses it: {why}" for why in sorted(set(verdict.refusals))]
    if verdict.silent:
        said.append(f"no answer in time from {verdict.silent}, which follows when it goes on, or is replaced")
    return f"done, but not by all workers: {'; '.join(said)}" if said else ""
