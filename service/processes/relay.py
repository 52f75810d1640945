"""How an order that one worker was given comes to all: one at a time, in the order in which the parent hears of them.

Whoever was asked goes first; what it refuses goes no further. Then the others are told, and it hears what became of it.
The last order about each thing is kept for workers that start later.
It knows workers by number, and nothing of processes, nor of what an order says.
"""

from collections import deque
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from itertools import count

from service.processes.line import Asked, Order, Report, Telling, Told, Verdict

REACH_S = 20.0
"""How long the others may take. Who is late still has the order before it, or its successor starts with it."""


@dataclass(slots=True)
class Round:
    """An order on its way."""

    number: int
    asker: int
    asked: Asked
    missing: set[int]
    accepted: bool = False
    due: float | None = None  # None: whoever was asked is at it
    refusals: list[str] = field(default_factory=list)


class Relay:
    """One in the parent."""

    def __init__(self, send: Callable[[int, Telling], None]) -> None:
        self._send = send
        self._waiting: deque[tuple[int, Asked]] = deque()
        self._round: Round | None = None
        self._numbers = count(1)
        self._held: dict[str, Order] = {}

    @property
    def held(self) -> tuple[Order, ...]:
        """The orders that hold, for a worker that starts."""
        return tuple(self._held.values())

    def hear(self, worker: int, message: Asked | Report) -> None:
        """Take in what a worker said."""
        if isinstance(message, Asked):
            self._waiting.append((worker, message))
            return
        going = self._round
        if going is None or message.number != going.number:
            return  # too late
        going.missing.discard(worker)
        if going.due is None:
            going.accepted = message.accepted
        elif not message.accepted:
            going.refusals.append(message.why)

    def step(self, living: Set[int], now: float) -> None:
        """Go on as far as it goes. `living` are the workers that there are."""
        while self._advance(living, now):
            pass

    def _advance(self, living: Set[int], now: float) -> bool:
        going = self._round
        if going is None:
            return self._begin(living)
        going.missing &= living
        if going.missing and (going.due is None or now < going.due):
            return False
        if going.due is None and going.accepted:
            self._spread(going, living, now)
            return True
        if going.due is not None and going.asker in living:
            verdict = Verdict(number=going.number, refusals=tuple(going.refusals), silent=len(going.missing))
            self._send(going.asker, verdict)
        self._round = None
        return True

    def _begin(self, living: Set[int]) -> bool:
        if not self._waiting:
            return False
        asker, asked = self._waiting.popleft()
        if asker in living:
            self._round = Round(next(self._numbers), asker, asked, {asker})
            self._send(asker, Told(number=self._round.number, order=asked.order, ticket=asked.ticket))
        return True

    def _spread(self, going: Round, living: Set[int], now: float) -> None:
        """What the first has accepted holds, whatever the others say."""
        order = going.asked.order
        self._held[order.about] = order
        going.due = now + REACH_S
        going.missing = set(living) - {going.asker}
        for worker in sorted(going.missing):
            self._send(worker, Told(number=going.number, order=order))
