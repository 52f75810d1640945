"""All open connections of a server: who may come in, who has to leave first, and who has had time enough.

One sweep a second looks after all of them, so that a request costs no timer. It knows nothing of HTTP or of bytes.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from heapq import nsmallest
from operator import itemgetter
from typing import Protocol

from service.wire.heads import Limits, Reason

SWEEP_S = 1.0
SWEEPS_IN_A_LIMIT = 4
"""Where a limit is short, the sweeps are more frequent: it may be overrun by a quarter."""

PARTING_S = 0.5
"""Between the wish to stop and the closing of idle connections: a busy client's next request is still answered,
with `Connection: close`, instead of meeting a closed door."""

LEAVE_AT_ONCE = 16
"""So many of that many times as many make room together: looking for them costs a look at everyone, which a flood
must not cause for each connection."""

Observer = Callable[[Reason], None]


class Guest(Protocol):
    """One connection."""

    peer: str | None

    def standing(self) -> tuple[int, float] | None:
        """Who makes room first, the lowest; None: not this one."""

    def make_room(self) -> None:
        """Close at once."""

    def give_up_bodies(self) -> None:
        """Let go of all that is held for this guest."""

    def look(self, now: float) -> None:
        """Has the client had time enough?"""

    def wind_up(self, now: float) -> None:
        """The server is about to stop."""


class Crowd:
    """Everyone who is connected."""

    def __init__(self, limits: Limits, refused: Observer) -> None:
        self.limits = limits
        self.refused = refused
        self.leaving = False  # answers say `Connection: close` from now on
        self.stopping = False
        self.now = 0.0  # as of the last sweep: good enough where a second does not matter
        self.unfinished_bytes = 0
        self._guests: dict[Guest, None] = {}  # in the order of their coming
        self._holding: dict[Guest, int] = {}  # bytes of unfinished bodies, in the order of their beginning
        self._of_peer: Counter[str] = Counter()
        self._sweep: asyncio.TimerHandle | None = None
        shortest = min(limits.first_byte_s, limits.head_s, limits.body_s, limits.answer_s)
        self._pause_s = min(SWEEP_S, shortest / SWEEPS_IN_A_LIMIT)

    def __len__(self) -> int:
        return len(self._guests)

    def enter(self, guest: Guest, loop: asyncio.AbstractEventLoop) -> Reason | None:
        """Count a newcomer; why it can't stay, where nobody makes room for it."""
        self._guests[guest] = None
        if self._sweep is None:
            self.now = loop.time()
            self._sweep_later(loop, self._pause_s)
        if guest.peer is not None:
            self._of_peer[guest.peer] += 1
            most = self.limits.peer_connections
            if 0 < most < self._of_peer[guest.peer]:
                self._clear(guest, most, guest.peer)
                if self._of_peer[guest.peer] > most:
                    return Reason.TOO_MANY_OF_ONE_PEER
        if len(self._guests) > self.limits.connections:
            self._clear(guest, self.limits.connections)
            if len(self._guests) > self.limits.connections:
                return Reason.TOO_MANY_CONNECTIONS
        return None

    def leave(self, guest: Guest) -> None:
        """Twice does no harm."""
        if guest not in self._guests:
            return
        del self._guests[guest]
        if guest.peer is not None:
            self._of_peer[guest.peer] -= 1
            if not self._of_peer[guest.peer]:
                del self._of_peer[guest.peer]

    def hold(self, guest: Guest, size: int) -> None:
        """So many bytes of unfinished bodies are kept for this guest."""
        self.unfinished_bytes += size - self._holding.get(guest, 0)
        if size:
            self._holding[guest] = size
        else:
            self._holding.pop(guest, None)
        if self.unfinished_bytes > self.limits.unfinished_bytes:
            # Whoever is honest has sent a body long before it is the oldest of all.
            next(iter(self._holding)).give_up_bodies()

    def stop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Everyone winds up, and is looked after more often."""
        if self.stopping:
            return
        self.leaving = self.stopping = True
        self.now = loop.time()
        for guest in tuple(self._guests):
            guest.wind_up(self.now)
        self._pause_s = min(self._pause_s, PARTING_S / 2)
        self._sweep_later(loop, self._pause_s)

    def _clear(self, newcomer: Guest, most: int, peer: str | None = None) -> None:
        """Let those leave of whom the least is lost: refused, silent, half a head, idle; the oldest first."""
        standings = (
            (standing, guest)
            for guest in self._guests
            if guest is not newcomer
            and (peer is None or guest.peer == peer)
            and (standing := guest.standing()) is not None
        )
        for _, guest in nsmallest(min(LEAVE_AT_ONCE, most // LEAVE_AT_ONCE + 1), standings, key=itemgetter(0)):
            self.refused(Reason.MADE_ROOM)
            self.leave(guest)
            guest.make_room()

    def _sweep_later(self, loop: asyncio.AbstractEventLoop, pause_s: float) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        self._sweep = loop.call_later(pause_s, self._look_after, loop, loop.time() + pause_s)

    def _look_after(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self.now = now = loop.time()
        self._sweep = None
        # After a pause of ours (a stopped process, a blocked loop) clients must not pay for it: what they sent
        # meanwhile is still unread, so they get one more round.
        held_up = now - due > self._pause_s
        try:
            if not held_up:
                for guest in tuple(self._guests):
                    guest.look(now)
        finally:
            if self._guests:
                self._sweep_later(loop, self._pause_s)
