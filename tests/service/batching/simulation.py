"""The real batcher in virtual time: a seed decides who asks, leaves, fails, hangs and dies, and when.

Everything but the threads is the code that serves: a worker is a task here that does what a worker's thread does,
with pauses between its steps, so that every interleaving can happen and a seed replays one exactly.
"""

import asyncio
import selectors
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from service.batching.batcher import TICK_S, Batcher, Worker
from service.batching.jobs import NEVER, Answer, Closed, Expired, Limits, QueueFull, RowFailed, WorkerLost

POISON = "poison"
GRACE_S = 2 * TICK_S
"""A tick may just have passed when a deadline does."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Jumping(self))

    def time(self) -> float:
        return self.now


class _Jumping(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout > 0:
            self._loop.now += timeout
        return super().select(0)


@dataclass
class World:
    """What may happen, drawn once for each seed."""

    rng: Random
    p_fail: float  # of a batch
    p_hang: float
    p_die: float
    events: Counter[str] = field(default_factory=Counter)


class SimulatedRunner:
    """Answers a row with itself in capitals, unless fate is against it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.interrupted = False

    def run(self, rows: Sequence[str]) -> list[str]:
        if any(POISON in row for row in rows):
            raise ValueError("a poisoned row")
        if len(rows) > 1 and self._world.rng.random() < self._world.p_fail:
            self._world.events["failed batch"] += 1
            raise ValueError("a failed run")
        return [row.upper() for row in rows]

    def interrupt(self) -> None:
        self.interrupted = True


class SimulatedBatcher(Batcher[str, str]):
    """The batcher with tasks for threads."""

    def __init__(self, world: World, limits: Limits, workers: int, loop: VirtualLoop) -> None:
        self.world = world
        self.tasks: dict[Worker[str, str], asyncio.Task[None]] = {}
        super().__init__(lambda: SimulatedRunner(world), limits, workers=workers, clock=loop.time)

    def _hire(self) -> None:
        worker: Worker[str, str] = Worker(self._new_runner())
        self._workers.append(worker)
        self.tasks[worker] = asyncio.get_running_loop().create_task(self._live(worker))

    def _runs(self, worker: Worker[str, str]) -> bool:
        return not self.tasks[worker].done()

    async def _live(self, worker: Worker[str, str]) -> None:
        rng = self.world.rng
        while not worker.lost:
            await asyncio.sleep(rng.choice((0, 0, 0.0002, 0.003)))
            if lost(worker):  # meanwhile
                return
            if not self.next_batch(worker):
                if self._closed:
                    return
                await asyncio.sleep(0.0007)
                continue
            await self._suffer(worker)

    async def _suffer(self, worker: Worker[str, str]) -> None:
        """The time of a run, and how it ends."""
        rng, world = self.world.rng, self.world
        if rng.random() < world.p_die:
            world.events["died"] += 1
            raise SystemError("the worker dies")
        if rng.random() < world.p_hang:
            world.events["hung"] += 1
            await asyncio.sleep(rng.uniform(0.2, 3))  # longer than a run may take: it comes back when it is lost
        await asyncio.sleep(rng.uniform(0, 0.03))
        self.run_batch(worker)


def lost(worker: Worker[str, str]) -> bool:
    """Asked anew each time: a type checker believes what it saw before a pause."""
    return worker.lost


@dataclass
class Request:
    """One caller and what became of it."""

    rows: list[str]
    at: float
    deadline: float
    cancel_at: float | None
    client: str | None
    ended: float = 0.0
    outcome: str = "none"


class Violation(AssertionError):
    """An invariant does not hold; the seed is in the message."""


def simulate(seed: int) -> Counter[str]:
    """Play one seed to its end and check every invariant. Returns how often what happened."""
    loop = VirtualLoop()
    try:
        loop.set_exception_handler(lambda _, context: None)  # workers that die on purpose
        return loop.run_until_complete(_play(seed, loop))
    except AssertionError as error:
        raise Violation(f"seed {seed}: {error}") from error
    finally:
        loop.close()


async def _play(seed: int, loop: VirtualLoop) -> Counter[str]:
    rng = Random(seed)
    bad_luck = rng.choice((0.0, 0.0, 0.03, 0.2))
    world = World(rng, bad_luck, bad_luck * rng.random(), bad_luck * rng.random())
    limits = Limits(
        rows=rng.randint(1, 8),
        tokens=rng.randint(4, 120),
        queued=rng.randint(4, 60),
        queued_tokens=rng.randint(20, 600),
        queued_of_one=rng.randint(2, 60),
        run_s=0.1,
    )
    batchers = [SimulatedBatcher(world, limits, rng.randint(1, 3), loop)]
    requests = [_drawn(rng, number) for number in range(rng.randint(1, 40))]
    callers = [loop.create_task(_ask(request, batchers, loop)) for request in requests]
    swaps = loop.create_task(_swap(world, batchers, limits, loop))
    stop = rng.random() < 0.5
    if stop:  # in the middle of everything
        await asyncio.sleep(rng.uniform(0, 0.5))
        await swaps
        await batchers[-1].close(rng.choice((0.0, 0.05, 5.0)))
    await asyncio.wait_for(asyncio.gather(*callers, return_exceptions=True), 300)
    await swaps
    await asyncio.sleep(1)
    for batcher in batchers:
        backlog = batcher._backlog
        assert (backlog.rows, backlog.tokens, backlog._of_client) == (0, 0, {}), "the queue's counters are off"
    await asyncio.gather(*(batcher.close(5) for batcher in batchers))
    for request in requests:
        _check(request, world, stopped=stop)
    for batcher in batchers:
        for task in batcher.tasks.values():
            task.cancel()
        await asyncio.gather(*batcher.tasks.values(), return_exceptions=True)
    return world.events + Counter(request.outcome for request in requests)


def _drawn(rng: Random, number: int) -> Request:
    rows = [
        f"{number}.{index}" + "x" * rng.choice((0, 1, 4, 20)) + (POISON if rng.random() < 0.02 else "")
        for index in range(rng.choice((1, 1, 1, 2, 5, 9)))
    ]
    at = rng.uniform(0, 0.4)
    deadline = at + rng.choice((0.0, 0.005, 0.05, 0.5)) if rng.random() < 0.3 else NEVER
    cancel_at = at + rng.choice((0.0, 0.001, 0.02, 0.2)) if rng.random() < 0.2 else None
    return Request(rows, at, deadline, cancel_at, rng.choice((None, "a", "b")))


async def _ask(request: Request, batchers: list[SimulatedBatcher], loop: VirtualLoop) -> None:
    """One caller: at its time it asks whoever serves then, and perhaps leaves."""
    await asyncio.sleep(request.at)
    try:
        future: asyncio.Future[Answer[str]] = batchers[-1].submit(request.rows, request.deadline, request.client)
    except (QueueFull, Closed) as error:
        request.outcome, request.ended = f"refused: {type(error).__name__}", loop.now
        return
    if request.cancel_at is not None:
        loop.call_at(request.cancel_at, future.cancel)
    settled: list[str] = []
    future.add_done_callback(lambda done: settled.append(_named(request, done)))
    await asyncio.wait({future})
    await asyncio.sleep(0)
    assert len(settled) == 1, "answered more than once"
    request.outcome, request.ended = settled[0], loop.now


def _named(request: Request, future: "asyncio.Future[Answer[str]]") -> str:
    if future.cancelled():
        return "cancelled"
    error: Any = future.exception()
    if error is not None:
        return type(error).__name__
    return "answered" if future.result().results == [row.upper() for row in request.rows] else "WRONG ANSWER"


async def _swap(world: World, batchers: list[SimulatedBatcher], limits: Limits, loop: VirtualLoop) -> None:
    """Hot swaps: new callers go to the new one, the old one answers what it had taken."""
    for _ in range(world.rng.choice((0, 0, 1, 3))):
        await asyncio.sleep(world.rng.uniform(0, 0.2))
        old = batchers[-1]
        batchers.append(SimulatedBatcher(world, limits, world.rng.randint(1, 2), loop))
        world.events["swapped"] += 1
        loop.create_task(old.close(30))


def _check(request: Request, world: World, stopped: bool) -> None:
    poisoned = any(POISON in row for row in request.rows)
    lost = world.events["hung"] + world.events["died"] > 0
    allowed = {
        "answered": not poisoned,
        "cancelled": request.cancel_at is not None,
        Expired.__name__: request.deadline < NEVER,
        RowFailed.__name__: poisoned,
        WorkerLost.__name__: lost,
        Closed.__name__: stopped or lost,
        "refused: QueueFull": True,
        "refused: Closed": stopped,
    }
    assert allowed.get(request.outcome, False), f"{request} ended as {request.outcome}"
    assert request.ended <= request.deadline + GRACE_S or request.outcome.startswith("refused"), f"{request} too late"
    if request.outcome == Expired.__name__:
        assert request.ended >= request.deadline, f"{request} expired before its time"
