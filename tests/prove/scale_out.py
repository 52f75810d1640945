"""`python -m tests.prove.scale_out --replicas 1,2,4,8,16`: replicas of one core each, behind several load balancers.

The batchers are those that serve; clocks, cores and callers are simulated, so that sixteen machines fit into one. What
a request, a run and a token take comes from the command line, as measured of a real service (docs/results/serving.md).
A replica's core does one thing at a time: the event loop's part of a request, or a run of a batch.
"""

import argparse
import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random

import numpy as np

from service.batching.batcher import Batcher, Worker
from service.batching.jobs import Limits, QueueFull
from service.bench.flags import numbers, whole
from service.bench.texts import SENTENCES
from tests.prove.bounds import Bound, conclude, run
from tests.service.batching.simulation import VirtualLoop

CALLERS = 64
"""A replica, of the closed loop that finds what they answer at most."""

TOKENS_OF_A_WORD = 1.3


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds on a core."""

    request: float  # of the event loop, half before the row waits and half after it has run
    run: float  # of a batch, whatever is in it
    token: float  # of each, padding too


class Core:
    """Whoever wants it waits for those who came before."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._free = 0.0

    async def spend(self, seconds: float) -> None:
        self._free = max(self._free, self._loop.time()) + seconds
        await asyncio.sleep(self._free - self._loop.time())


class Echo:
    """A model."""

    def run(self, rows: Sequence[str]) -> Sequence[str]:
        return rows

    def interrupt(self) -> None:
        """Never hangs."""


class Replica(Batcher[str, str]):
    """A service on a core of its own."""

    def __init__(self, costs: Costs, loop: VirtualLoop) -> None:
        self._costs = costs
        self._core = Core(loop)
        self._begin = loop.create_task
        self._arrived = asyncio.Event()
        self.open = 0  # requests that a load balancer has given it and that are not answered
        super().__init__(Echo, Limits(), clock=loop.time)

    async def answer(self, row: str) -> None:
        """Raises QueueFull."""
        self.open += 1
        try:
            await self._core.spend(self._costs.request / 2)
            future = self.submit([row])
            self._arrived.set()
            await future
            await self._core.spend(self._costs.request / 2)
        finally:
            self.open -= 1

    def _hire(self) -> None:
        worker: Worker[str, str] = Worker(self._new_runner())
        self._workers.append(worker)
        self._task = self._begin(self._live(worker))

    def _runs(self, worker: Worker[str, str]) -> bool:
        return not self._task.done()

    async def _live(self, worker: Worker[str, str]) -> None:
        while not self._closed:
            if not self.next_batch(worker):
                self._arrived.clear()
                await self._arrived.wait()
                continue
            longest = max(len(entry.row) for entry in worker.batch)
            await self._core.spend(self._costs.run + self._costs.token * longest * len(worker.batch))
            self.run_batch(worker)

    async def stop(self) -> None:
        self._closed = True
        self._arrived.set()
        await self._task


Policy = Callable[[Random, Sequence[Replica], int], Replica]
"""Which replica gets the request of this number."""


def at_random(rng: Random, replicas: Sequence[Replica], number: int) -> Replica:
    return rng.choice(replicas)


def in_turn(rng: Random, replicas: Sequence[Replica], number: int) -> Replica:
    return replicas[number % len(replicas)]


def least_open(rng: Random, replicas: Sequence[Replica], number: int) -> Replica:
    return min(replicas, key=lambda replica: (replica.open, rng.random()))


def by_connection(connections: int, rng: Random, replicas: Sequence[Replica], number: int) -> Replica:
    """As Kubernetes' Services do: each connection, so many for a replica, was given to one at random, for good."""
    connection = rng.randrange(connections * len(replicas))
    return replicas[Random(connection).randrange(len(replicas))]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one number of replicas, one load, one policy."""

    replicas: int
    policy: str
    share: float  # of what as many replicas answer at most
    offered_s: float
    p50_ms: float
    p99_ms: float
    refused: int


@dataclass(frozen=True, slots=True)
class Load:
    """Poisson arrivals."""

    rate: float
    seconds: float
    seed: int


async def offered(load: Load, there: Sequence[Replica], choose: Policy, loop: VirtualLoop) -> tuple[list[float], int]:
    """Seconds of all that were answered, and how many were refused. At the end the replicas stop."""
    rng, taken, refused = Random(load.seed), list[float](), list[int]()

    async def one(number: int) -> None:
        started = loop.time()
        try:
            await choose(rng, there, number).answer(_row(rng))
        except QueueFull:
            refused.append(number)
        else:
            taken.append(loop.time() - started)

    asked, number = set[asyncio.Task[None]](), itertools.count()
    until, at = loop.time() + load.seconds, loop.time()
    while (at := at + rng.expovariate(load.rate)) < until:
        await asyncio.sleep(at - loop.time())
        task = loop.create_task(one(next(number)))
        asked.add(task)
        task.add_done_callback(asked.discard)
    await asyncio.gather(*asked)
    await asyncio.gather(*(replica.stop() for replica in there))
    return taken, len(refused)


def outcome(replicas: int, policy: str, share: float, load: Load, latencies: Sequence[float], refused: int) -> Outcome:
    """In figures."""
    p50, p99 = (float(seconds) * 1e3 for seconds in np.percentile(latencies, (50, 99)))
    return Outcome(replicas, policy, share, load.rate, p50, p99, refused)


async def capacity(there: Sequence[Replica], choose: Policy, seconds: float, loop: VirtualLoop) -> float:
    """Requests a second of replicas whose callers ask again as soon as they are answered. At the end they stop."""
    rng, until, numbers, answered = Random(0), loop.time() + seconds, itertools.count(), 0

    async def caller() -> None:
        nonlocal answered
        while loop.time() < until:
            await choose(rng, there, next(numbers)).answer(_row(rng))
            answered += loop.time() < until

    await asyncio.gather(*(caller() for _ in range(CALLERS * len(there))))
    await asyncio.gather(*(replica.stop() for replica in there))
    return answered / seconds


def _started(replicas: int, costs: Costs, loop: VirtualLoop) -> list[Replica]:
    return [Replica(costs, loop) for _ in range(replicas)]


def _row(rng: Random) -> str:
    return "x" * round(len(rng.choice(SENTENCES).split()) * TOKENS_OF_A_WORD + 2)


def main() -> int:
    asked = parse()
    costs = Costs(asked.request_us / 1e6, asked.run_us / 1e6, asked.token_us / 1e6)
    policies: dict[str, Policy] = {
        "random": at_random,
        "in turn": in_turn,
        "least open": least_open,
        f"{asked.connections} connections each": partial(by_connection, asked.connections),
    }
    loop = VirtualLoop()
    most = {
        replicas: loop.run_until_complete(capacity(_started(replicas, costs, loop), least_open, asked.seconds, loop))
        for replicas in {1, *asked.replicas}
    }
    found = []
    for replicas, share, (name, policy) in itertools.product(asked.replicas, asked.shares, policies.items()):
        load = Load(most[1] * share * replicas, asked.seconds, asked.seed)
        there = _started(replicas, costs, loop)
        taken, refused = loop.run_until_complete(offered(load, there, policy, loop))
        found.append(outcome(replicas, name, share, load, taken, refused))
    loop.close()
    details = {"costs": asdict(costs), "most_s": most, "outcomes": [asdict(each) for each in found]}
    return conclude([*growth(most), *bounds(found)], details, asked.json)


def growth(most: Mapping[int, float]) -> list[Bound]:
    """What so many answer at most, beside as many times one."""
    return [
        Bound(f"{replicas} replicas: what they answer, of {replicas} times one", found / replicas / most[1], 0.98, True)
        for replicas, found in most.items()
    ]


def bounds(found: Sequence[Outcome]) -> list[Bound]:
    """Of the balancer that the documents advise, from one replica to the most of them."""
    seen = {(each.replicas, each.share): each for each in found if each.policy == "least open"}
    fewest, most = min(seen)[0], max(seen)[0]
    shares = sorted({share for _, share in seen})
    listed = []
    for share in shares:
        one, all_ = seen[fewest, share], seen[most, share]
        listed.append(Bound(f"share {share:g}: p99 of {most}, times {fewest}'s", all_.p99_ms / one.p99_ms, 1.0))
        listed.append(Bound(f"share {share:g}: refused by {most}", all_.refused, 0))
    return listed


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=whole, default=(1, 2, 4, 8, 16))
    parser.add_argument("--shares", type=numbers, default=(0.5, 0.7, 0.9), help="of what they answer at most")
    parser.add_argument("--request-us", type=float, default=75, help="of the event loop")
    parser.add_argument("--run-us", type=float, default=60, help="of a batch, whatever is in it")
    parser.add_argument("--token-us", type=float, default=2, help="of each token of a batch")
    parser.add_argument("--connections", type=int, default=32, help="of all clients, for each replica")
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the report here, not to stdout")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
