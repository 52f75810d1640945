"""All workers as one of them sees them: what it is asked to do, all do; what another was asked, it does too.

It knows turns and reports; see `relay` for the other end. It knows nothing of what an order says.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from itertools import count
from typing import TypeVar

from service.processes.line import Asked, Line, Order, Report, Said, Telling, Told, Verdict

logger = logging.getLogger("understudy")

TURN_S = 30.0
"""How long an order waits for those before it. Longer than one that does not reach all: see `relay.REACH_S`."""

Done = TypeVar("Done")


class NoTurn(Exception):
    """Others are still at an order before this one. Nothing was done."""


class Crew:
    """Belongs to the event loop on which it is started."""

    def __init__(self, line: Line, follow: Callable[[Order], Awaitable[str]]) -> None:
        """`follow` carries out what another worker has accepted; it returns why not, or nothing."""
        self._line = line
        self._follow = follow
        self._tickets = count(1)
        self._turns: dict[int, asyncio.Future[int]] = {}  # ticket -> the order's number
        self._verdicts: dict[int, asyncio.Future[Verdict]] = {}  # number -> what became of it
        self._told: asyncio.Queue[Told] = asyncio.Queue()
        self._obeying: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Listen to the parent."""
        self._obeying = asyncio.get_running_loop().create_task(self._obey())
        self._line.listen(self._hear)

    def stop(self) -> None:
        """Listen no more."""
        self._line.hang_up()
        if self._obeying is not None:
            self._obeying.cancel()

    async def lead(
        self, order: Order, do: Callable[[], Awaitable[Done]], accepted: Callable[[Done], bool]
    ) -> tuple[Done, Verdict | None]:
        """Do it here when its turn comes; if that is accepted, wait for what the others say. Raises NoTurn."""
        number = await self._turn(order)
        verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._verdicts[number] = verdict
        passed_on = False
        try:
            try:
                done = await do()
                passed_on = accepted(done)
            finally:
                self._report(number, passed_on)
            return done, await verdict if passed_on else None
        finally:
            del self._verdicts[number]

    async def _turn(self, order: Order) -> int:
        ticket = next(self._tickets)
        turn = self._turns[ticket] = asyncio.get_running_loop().create_future()
        self._line.tell(Said(message=Asked(ticket=ticket, order=order)))
        try:
            return await asyncio.wait_for(turn, TURN_S)
        except TimeoutError:
            raise NoTurn(f"other changes are not done after {TURN_S:g} s; nothing was done") from None
        finally:
            del self._turns[ticket]

    def _hear(self, telling: Telling) -> None:
        if isinstance(telling, Told):
            self._told.put_nowait(telling)
            return
        verdict = self._verdicts.get(telling.number)
        if verdict is not None and not verdict.done():
            verdict.set_result(telling)

    async def _obey(self) -> None:
        """One order after the other, so that all workers end alike."""
        while True:
            told = await self._told.get()
            if told.ticket is None:
                why = await self._followed(told.order)
                self._report(told.number, not why, why)
                continue
            turn = self._turns.get(told.ticket)
            if turn is None or turn.done():  # nobody waits for it any more
                self._report(told.number, False)
            else:
                turn.set_result(told.number)

    async def _followed(self, order: Order) -> str:
        try:
            return await self._follow(order)
        except Exception:  # a fault of ours must not end the following
            logger.exception("an order could not be carried out")
            return "an unexpected error; its log has it"

    def _report(self, number: int, accepted: bool, why: str = "") -> None:
        self._line.tell(Said(message=Report(number=number, accepted=accepted, why=why)))
