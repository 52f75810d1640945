"""A load that goes on and on, and what happens to the service meanwhile: hang-ups, new versions, killed workers.

It knows when and how often, and keeps a diary. What an answer should say is the exam's business.
"""

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np

from service.bench.arrivals import Phase, poisson
from service.bench.client import ClosedLoop, OpenLoop, Order, Pool
from service.bench.process import usage_of_each
from service.bench.samples import OK, TOO_BUSY, Latency, Samples
from service.bench.served import Service
from tests.prove.answers import Exam
from tests.prove.memory import Reading
from tests.prove.versions import Shelf

PEERS = 16
POOL = Pool(most=500, backlog_s=10.0, spin=False)
LEAST_WORKER_MIB = 30  # a smaller child is some helper of the interpreter
POLL_S = 0.05
GROWN = 0.7  # of the least worker's memory when the load began: a new worker has its models open
NOTED = 50  # of the requests that were lost or refused: the first so many are described

AFTERMATH_S = 5.0
"""After a kill: so long until there is a new worker, and until then requests may be lost or refused."""

SWAP_S = 20.0
"""A new version answers within so long after the folder was next looked at."""


@dataclass(frozen=True, slots=True)
class Troubles:
    """How often each happens, in seconds; 0: never."""

    swap_every: float = 0.0
    kill_every: float = 0.0
    hang_up_share: float = 0.01
    look_every: float = 1.0
    reload_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Segment:
    """One part of the load."""

    start_s: float
    requests: int
    latency_ms: Latency | None


@dataclass(frozen=True, slots=True)
class Event:
    """A new version, or a killed worker, and how long it took until the service had coped; None: it never did."""

    moment_s: float
    coped_s: float | None


@dataclass(frozen=True, slots=True)
class Mishap:
    """A request that got no answer, though no worker was missing."""

    moment_s: float  # when it was known
    sent_s: float  # when it was sent
    status: int  # or a Failure


@dataclass(slots=True)
class Diary:
    """What happened."""

    segments: list[Segment] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    swaps: list[Event] = field(default_factory=list)
    kills: list[Event] = field(default_factory=list)
    hang_ups: int = 0
    outcomes: Counter[int] = field(default_factory=Counter)
    aftermath: Counter[int] = field(default_factory=Counter)  # of what was under way soon after a kill
    mishaps: list[Mishap] = field(default_factory=list)  # the first few


class Strain:
    """One service under load."""

    def __init__(self, service: Service, exam: Exam, publish: Callable[[int], None], troubles: Troubles) -> None:
        self.diary = Diary()
        self._service = service
        self._exam = exam
        self._publish = publish
        self._troubles = troubles
        self._requests = exam.requests
        self._chance = random.Random(0)
        self._begun = perf_counter()
        self._killed: list[float] = []
        self._fresh_mib = min(self._workers().values(), default=0.0)

    async def peak(self, connections: int, seconds: float) -> float:
        """Requests a second of a closed loop with the same questions."""
        samples = await ClosedLoop(self._order(0), connections, seconds).run()
        return len(samples.of(OK).done) / seconds

    async def run(self, rate: float, seconds: float, segment_s: float) -> None:
        """The whole load, a segment at a time, with all troubles."""
        self._begun = perf_counter()
        troubles = self._troubles
        plans = (
            (troubles.look_every, self._look),
            (troubles.swap_every, self._swap),
            (troubles.kill_every, self._kill),
            (1 / max(rate * troubles.hang_up_share, 1e-3), self._hang_up),
        )
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_every(interval, work)) for interval, work in plans if interval]
            for number in range(max(1, round(seconds / segment_s))):
                await self._segment(rate, segment_s, seed=number)
            for task in tasks:
                task.cancel()

    def _order(self, seed: int) -> Order:
        """The same questions, but beginning with another one each time."""
        count = len(self._requests)
        skipped = seed * 733 % count

        def judge(number: int, status: int, body: bytes) -> int:
            return self._exam.judge((number + skipped) % count, status, body)

        requests = self._requests[skipped:] + self._requests[:skipped]
        return Order(self._service.target, requests, peers=PEERS, judge=judge)

    async def _segment(self, rate: float, seconds: float, seed: int) -> None:
        load = OpenLoop(self._order(seed), poisson([Phase(rate, seconds)], seed), POOL)
        samples = await load.run()
        start = load.begun - self._begun
        self.diary.segments.append(Segment(start, len(samples.status), Latency.of(samples.of(OK).latency)))
        shaken = self._shaken(samples, start)
        self.diary.aftermath.update(samples.status[shaken].tolist())
        self.diary.outcomes.update(samples.status[~shaken].tolist())
        self._note_mishaps(samples, ~shaken, start)

    def _note_mishaps(self, samples: Samples, calm: "np.ndarray[tuple[int], np.dtype[np.bool_]]", start: float) -> None:
        unanswered = calm & ((samples.status < 0) | (samples.status == TOO_BUSY) | (samples.status >= 500))
        for place in np.flatnonzero(unanswered)[: NOTED - len(self.diary.mishaps)].tolist():
            sent, done = float(samples.sent[place]), float(samples.done[place])
            self.diary.mishaps.append(Mishap(start + done, start + sent, int(samples.status[place])))

    def _shaken(self, samples: Samples, start: float) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
        """Which requests were under way while a worker was missing?"""
        shaken = np.zeros(len(samples.status), dtype=bool)
        for kill in self._killed:
            shaken |= (samples.sent + start <= kill + AFTERMATH_S) & (samples.done + start >= kill)
        return shaken

    async def _look(self) -> None:
        moment, answered = perf_counter() - self._begun, self._exam.judged
        workers = self._workers()
        self.diary.readings += [
            Reading(moment, answered, pid, pid in workers or not workers, usage.rss_mib, usage.threads, usage.files)
            for pid, usage in usage_of_each(self._service.pid).items()
        ]

    async def _swap(self) -> None:
        version = 2 + len(self.diary.swaps)
        await asyncio.to_thread(self._publish, version)
        await self._note(self.diary.swaps, lambda: self._exam.newest >= version, self._troubles.reload_s + SWAP_S)

    async def _kill(self) -> None:
        workers = self._workers()
        if not workers:  # a promise about workers cannot be kept without any
            self.diary.kills.append(Event(perf_counter() - self._begun, None))
            return
        self._killed.append(perf_counter() - self._begun)
        os.kill(self._chance.choice(list(workers)), signal.SIGKILL)
        await asyncio.sleep(POLL_S)
        least = GROWN * self._fresh_mib
        await self._note(self.diary.kills, lambda: len(self._workers(least)) >= len(workers), AFTERMATH_S)

    async def _hang_up(self) -> None:
        """Send a request, or half of one, and leave without waiting, in one way or the other."""
        request = self._chance.choice(self._exam.requests)
        sent = request if self._chance.random() < 0.5 else request[: len(request) // 2]
        with suppress(OSError):
            _, writer = await asyncio.open_connection(self._service.target.host, self._service.target.port)
            writer.write(sent)
            await asyncio.sleep(self._chance.random() * 0.01)
            if self._chance.random() < 0.5:
                writer.transport.abort()
            writer.close()
            await writer.wait_closed()
        self.diary.hang_ups += 1

    async def _note(self, events: list[Event], coped: Callable[[], bool], patience_s: float) -> None:
        started = perf_counter()
        while not coped() and perf_counter() - started < patience_s:
            await asyncio.sleep(POLL_S)
        taken = perf_counter() - started
        events.append(Event(started - self._begun, taken if coped() else None))

    def _workers(self, least_mib: float = LEAST_WORKER_MIB) -> dict[int, float]:
        """pid -> MiB of the processes that the service has started to serve; none if it serves itself."""
        of_each = usage_of_each(self._service.pid)
        return {
            pid: usage.rss_mib
            for pid, usage in of_each.items()
            if pid != self._service.pid and usage.rss_mib > least_mib
        }


async def _every(interval: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(interval)
        await work()


def publisher(shelf: Shelf, source: Path, kept: int = 2) -> Callable[[int], None]:
    """Publishes a version, and takes away those that nobody needs any more."""

    def publish(version: int) -> None:
        shelf.publish(source, version)
        shelf.withdraw(version - kept)

    return publish
