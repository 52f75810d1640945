"""`python -m tests.prove.shutdown`: told to stop at any moment, the service ends in time and answers whoever asked.

Each state of `tests.service.states` is stopped many times, at random moments and with either signal. Then two workers
are replaced over and over under half of their peak, on kept connections and on new ones: nobody may fail. The exit code
is 1 if a promise is broken.
"""

import argparse
import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from service.bench.arrivals import Phase, poisson
from service.bench.client import ClosedLoop, OpenLoop, Order, Pool
from service.bench.engine import parse_entry
from service.bench.machine import these_surroundings
from service.bench.samples import OK, Failure, Samples
from service.bench.served import Service, only, serve_command, started
from service.bench.texts import SENTENCES
from service.bench.wire import Caller, Dialect
from service.bench.worker import quick_loop
from service.bundle.manifest import Role
from tests.prove.bounds import Bound, conclude, run
from tests.service.endings import DRAIN_S, SPARE_S, STOPPING, Ending, State, stopped, workers_of
from tests.service.states import STATES
from tests.toys import toy

WORKERS = 2
CONNECTIONS = 16
PEAK_S = 4.0
LATEST_S = 0.5
"""So long after a state was reached the signal comes at the latest."""

SEGMENT_S = 10.0
NEW_S = 0.02  # between two requests that each take a connection of their own
PATIENCE_S = 60.0
POOL = Pool(most=200, backlog_s=10.0, spin=False)


@dataclass(slots=True)
class Record:
    """All stops in one state."""

    stops: int = 0
    answered: int = 0
    longest_s: float = 0.0
    faults: list[str] = field(default_factory=list)

    def add(self, ending: Ending) -> None:
        self.stops += 1
        self.answered += ending.answered
        self.longest_s = max(self.longest_s, ending.seconds)
        self.faults += ending.faults


@dataclass(slots=True)
class Rolling:
    """Restarts under load."""

    peak: float = 0.0  # requests a second
    restarts: int = 0  # of all workers
    kept: Counter[int] = field(default_factory=Counter)  # status, or a Failure -> requests, on kept connections
    new: Counter[int] = field(default_factory=Counter)


def main() -> int:
    asked = _arguments()
    surroundings = these_surroundings()
    records = stop_all(asked.rounds, asked.jobs, asked.seed) if asked.rounds else {}
    rolling = roll(parse_entry(asked.bundle).folder, asked.minutes * 60, asked.share) if asked.minutes else None
    details = {
        "surroundings": asdict(surroundings) | {"idle": surroundings.idle},
        "arguments": vars(asked),
        "drain_s": DRAIN_S,
        "states": {name: asdict(record) for name, record in records.items()},
        "rolling": None if rolling is None else _described(rolling),
    }
    return conclude(
        [*bounds_of(records), *([] if rolling is None else bounds_of_rolling(rolling))], details, asked.json
    )


def stop_all(rounds: int, jobs: int, seed: int) -> dict[str, Record]:
    """Every state so many times, some of them at once."""
    dice = random.Random(seed)
    plan = [
        (state, state.number or dice.choice(STOPPING), dice.uniform(0, LATEST_S))
        for _ in range(rounds)
        for state in STATES
    ]
    records: dict[str, Record] = {_name(state): Record() for state in STATES}
    with ThreadPoolExecutor(jobs) as threads:
        for state, ending in zip(plan, threads.map(lambda each: _once(*each), plan), strict=True):
            records[_name(state[0])].add(ending)
    return records


def roll(bundle: Path, seconds: float, share: float) -> Rolling:
    """Replace the workers again and again."""
    with (
        only(bundle) as models,
        started(serve_command(models, ["--workers", str(WORKERS)])) as service,
        asyncio.Runner(loop_factory=quick_loop) as runner,
    ):
        return runner.run(_rolled(service, seconds, share))


async def _rolled(service: Service, seconds: float, share: float) -> Rolling:
    caller = Caller(service.target, Dialect.CLASSIFY)
    order = Order(service.target, [caller.request([text]) for text in SENTENCES])
    found = Rolling()
    peak = await ClosedLoop(order, CONNECTIONS, PEAK_S).run()
    found.peak = len(peak.of(OK).done) / PEAK_S
    end = time.perf_counter() + seconds
    restarting = asyncio.create_task(_restart(service, found))
    asking = asyncio.create_task(_ask_anew(order, found))
    number = 0
    while time.perf_counter() < end and not restarting.done():
        load = OpenLoop(order, poisson([Phase(share * found.peak, SEGMENT_S)], number), POOL)
        found.kept.update(_statuses(await load.run()))
        number += 1
    for task in (restarting, asking):
        task.cancel()
    for ended in await asyncio.gather(restarting, asking, return_exceptions=True):
        if not isinstance(ended, asyncio.CancelledError):
            raise RuntimeError("the workers were not replaced in time") from ended
    return found


async def _restart(service: Service, found: Rolling) -> None:
    assert service.pid is not None
    while True:
        before = _workers(service.pid)
        os.kill(service.pid, signal.SIGUSR1)
        async with asyncio.timeout(PATIENCE_S):
            while before & (now := _workers(service.pid)) or len(now) != WORKERS:
                await asyncio.sleep(0.1)
        found.restarts += 1


async def _ask_anew(order: Order, found: Rolling) -> None:
    """One request a connection."""
    for number in range(10**9):
        request = order.requests[number % len(order.requests)].replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
        found.new[await _status(order, request)] += 1
        await asyncio.sleep(NEW_S)


async def _status(order: Order, request: bytes) -> int:
    try:
        async with asyncio.timeout(order.timeout_s):
            reader, writer = await asyncio.open_connection(order.target.host, order.target.port)
            try:
                writer.write(request)
                answer = await reader.read(-1)
            finally:
                writer.transport.abort()
    except TimeoutError:
        return Failure.TIMEOUT
    except OSError:
        return Failure.LOST
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else Failure.LOST


def bounds_of(records: dict[str, Record]) -> Sequence[Bound]:
    if not records:
        return []
    faults = [fault for record in records.values() for fault in record.faults]
    return [
        Bound("stops", sum(record.stops for record in records.values()), len(STATES), at_least=True),
        Bound("longest time to end, s", max(record.longest_s for record in records.values()), DRAIN_S + SPARE_S),
        Bound("requests without an answer", sum(fault.startswith("unanswered") for fault in faults), 0),
        Bound("other faults", sum(not fault.startswith("unanswered") for fault in faults), 0),
    ]


def bounds_of_rolling(rolling: Rolling) -> Sequence[Bound]:
    return [
        Bound("restarts of all workers under load", rolling.restarts, 1, at_least=True),
        Bound(f"failed on kept connections, of {rolling.kept.total()}", _failed(rolling.kept), 0),
        Bound(f"failed on new connections, of {rolling.new.total()}", _failed(rolling.new), 0),
    ]


def _described(rolling: Rolling) -> dict[str, Any]:
    kept, new = ({str(status): count for status, count in each.items()} for each in (rolling.kept, rolling.new))
    return {"peak": rolling.peak, "restarts": rolling.restarts, "kept": kept, "new": new}


def _failed(outcomes: Counter[int]) -> int:
    return outcomes.total() - outcomes[OK]


def _statuses(samples: Samples) -> list[int]:
    statuses: list[int] = samples.status.tolist()
    return statuses


def _once(state: State, number: int, delay_s: float) -> Ending:
    with TemporaryDirectory(prefix="understudy-ending-") as models:
        for version in state.versions:
            toy.publish(Path(models), "toy", version, Role.STUDENT)
        try:
            return stopped(state, Path(models), number, delay_s)
        except AssertionError as broken:
            return Ending(0.0, None, 0, (f"the state was not reached: {str(broken)[:160]}",))


def _name(state: State) -> str:
    return f"{state.name} (planted)" if state.planted else state.name


def _workers(pid: int) -> set[int]:
    return {worker.pid for worker in workers_of(pid)}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="stops in each state; 0: none")
    parser.add_argument("--jobs", type=int, default=4, help="services at once; they mostly wait")
    parser.add_argument("--minutes", type=float, default=3, help="of rolling restarts; 0: none")
    parser.add_argument("--share", type=float, default=0.5, help="of the peak, meanwhile")
    parser.add_argument("--bundle", default="models/sst2-bilstm/1", help="DIR, for the rolling restarts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the report here, not to stdout")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
