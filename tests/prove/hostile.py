"""`python -m tests.prove.hostile`: good clients alone, and then the same beside many that mean harm.

No good request fails, the good ones' p99 hardly moves, memory stays flat, and everyone hostile is let go in time; else
the exit code is 1. The service has no proxy in front, and its own limits as they are.
"""

import argparse
import asyncio
import random
import resource
from dataclasses import asdict, dataclass
from pathlib import Path

from service.bench.client import Connection, Load, Order
from service.bench.engine import parse_entry
from service.bench.machine import these_surroundings
from service.bench.samples import OK, Figures, Samples, Window, figures
from service.bench.served import only, probe
from service.bench.texts import SENTENCES
from service.bench.wire import Caller, Target
from service.bench.worker import quick_loop
from service.settings import Settings
from tests.prove.besiegers import Record, Siege, start
from tests.prove.bounds import Bound, conclude, run
from tests.prove.watch import Watch
from tests.running import Running, serving

WARM_S, ALONE_S = 2.0, 3.0
SETTLE_S = 3.0  # until all hostile clients are there
SLACK_S = 2.0  # a sweep of the service, and the besiegers' own slowness: theirs is the lowest priority
DESCRIPTORS = 200  # besides connections


@dataclass(frozen=True, slots=True)
class Plan:
    """How many of each, and how long."""

    good: int
    hostile: int
    seconds: float
    pause_s: float
    seed: int


@dataclass(frozen=True, slots=True)
class Found:
    """What one run showed. Memory in MiB."""

    alone: Figures
    beside: Figures
    memory_alone: float | None
    memory_beside: float | None
    memory_after: float | None
    besiegers: dict[str, Record]


class Visitors(Load):
    """Connections that each ask, take the answer, and think for a while: all of them are open all the time."""

    def __init__(self, order: Order, plan: Plan, seconds: float) -> None:
        super().__init__(order)
        self._plan = plan
        self._seconds = seconds
        self._dice = random.Random(plan.seed)

    def _begin(self) -> None:
        self._until = self._loop.time() + self._seconds
        for _ in range(self._plan.good):
            self._open_one()

    def _ready(self, connection: Connection) -> None:
        self._loop.call_later(self._dice.expovariate(1 / self._plan.pause_s), self._ask, connection)

    def _ask(self, connection: Connection) -> None:
        if connection in self._open and not self._over():
            self._launch(connection)

    def _gone(self, connection: Connection) -> None:
        if not self._over():
            self._open_one()

    def _over(self) -> bool:
        return self._loop.time() >= self._until


def main() -> int:
    asked = _arguments()
    entry = parse_entry(asked.bundle)
    plan = Plan(asked.good, asked.hostile, asked.seconds, asked.pause, asked.seed)
    _need_descriptors(plan.good + plan.hostile + DESCRIPTORS)
    surroundings = these_surroundings()
    with only(entry.folder) as models, serving(models, "--no-drift", *entry.flags) as running:
        found = measure(running, plan)
    details = {
        "surroundings": asdict(surroundings) | {"idle": surroundings.idle},
        "plan": asdict(plan),
        "found": asdict(found),
    }
    return conclude(bounds_of(found, plan), details, asked.json)


def measure(running: Running, plan: Plan) -> Found:
    """Alone, beside, and once more when all is over."""
    pid = running.process.pid
    caller = Caller(Target.of(running.url))
    order = Order(caller.target, [caller.request([text]) for text in SENTENCES], timeout_s=5.0)
    probe(caller, SENTENCES[:1])
    _visit(order, plan, WARM_S)
    with Watch(pid) as quiet:
        alone = _visit(order, plan, max(ALONE_S, plan.seconds / 4))
    records, join = start(_siege(caller.target, plan))
    with Watch(pid) as watch:
        _visit(order, plan, SETTLE_S)
        beside = _visit(order, plan, plan.seconds)
    besiegers = records.recv()
    join()
    with Watch(pid) as after:
        _visit(order, plan, WARM_S)
    return Found(
        alone=_figures(alone),
        beside=_figures(beside),
        memory_alone=_most(quiet),
        memory_beside=_most(watch),
        memory_after=_most(after),
        besiegers=besiegers,
    )


def bounds_of(found: Found, plan: Plan) -> list[Bound]:
    """What is promised."""
    alone, beside = found.alone.latency_ms, found.beside.latency_ms
    slower = beside.p99 / alone.p99 if alone and beside else None
    memory = (found.memory_alone, found.memory_beside)
    growth = memory[1] - memory[0] if memory[0] is not None and memory[1] is not None else None
    connections = sum(record.connections for record in found.besiegers.values())
    return [
        Bound("good requests that failed alone", _failed(found.alone), 0),
        Bound("good requests that failed beside", _failed(found.beside), 0),
        Bound("good p99 beside / alone", slower, 1.5),
        Bound("growth of memory beside, MiB", growth, 32),
        Bound("hostile connections", connections, plan.hostile, at_least=True),
        Bound("hostile connections let go too late", sum(record.late for record in found.besiegers.values()), 0),
    ]


def _siege(target: Target, plan: Plan) -> Siege:
    limits = Settings()
    return Siege(
        host=target.host,
        port=target.port,
        clients=plan.hostile,
        seconds=SETTLE_S + plan.seconds,
        first_byte_s=limits.first_byte_seconds,
        head_s=limits.head_seconds,
        body_s=limits.body_seconds,
        answer_s=limits.answer_seconds,
        slack_s=SLACK_S,
        seed=plan.seed,
    )


def _visit(order: Order, plan: Plan, seconds: float) -> Samples:
    async def work() -> Samples:
        return await Visitors(order, plan, seconds).run()

    with asyncio.Runner(loop_factory=quick_loop) as runner:
        return runner.run(work())


def _figures(samples: Samples) -> Figures:
    window = Window(0.0, float(samples.done.max()))
    return figures(samples, samples, window, 1)


def _failed(found: Figures) -> int:
    return sum(found.errors.values()) + sum(count for status, count in found.statuses.items() if status != str(OK))


def _most(watch: Watch) -> float | None:
    return watch.most_mib(0.0, float("inf"))


def _need_descriptors(needed: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise SystemExit(f"error: {needed} open files are needed and {hard} allowed; raise `ulimit -n`")
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))  # processes that are started inherit it


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120, help="of the siege")
    parser.add_argument("--good", type=int, default=100, help="clients")
    parser.add_argument("--hostile", type=int, default=1000, help="clients")
    parser.add_argument("--pause", type=float, default=0.2, help="seconds between a good client's requests, on average")
    parser.add_argument("--bundle", default="models/sst2-bilstm/1:fast", help="DIR, DIR:fast or DIR:exact")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the report here, not to stdout")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
