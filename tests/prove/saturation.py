"""`python -m tests.prove.saturation`: is a student as quick while its teacher is asked more than it can answer?

The student gets an open load at a share of its peak, in turns beside an idle teacher and beside one with more texts
than it can run, in one service and one run. Its p99 changes by less than a fifth; else the exit code is 1.
Texts for the teacher are always waiting: each of its callers sends the next ones as soon as it is answered.
"""

import argparse
import json
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Thread
from time import perf_counter, sleep

import numpy as np

from service.bench.arrivals import Phase
from service.bench.client import Pool
from service.bench.machine import these_surroundings
from service.bench.samples import OK, Latency, Samples, Window, figures
from service.bench.served import Service, ask, probe, serve_command, started
from service.bench.texts import SENTENCES, read_texts
from service.bench.wire import Caller
from service.bench.worker import Closed, Cpus, LoadJob, Open, pinned, run_load
from service.bundle.store import read_manifest
from tests.prove.aside import Aside
from tests.prove.bounds import Bound, conclude, run
from tests.prove.flags import load_parser

WARM_S = 1.0  # of each part, which does not count
LEAD_S = 1.0  # the teacher is busy for so long before the student's load begins
PEERS = 64
CALLERS, TEXTS_EACH = 8, 16
"""Of the teacher: four times what a batch holds is always under way."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How hard, how long, from where."""

    share: float
    seconds: float
    rounds: int
    connections: int
    seed: int
    client_cpus: Cpus
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """What one load on the student showed."""

    round: int
    saturated: bool
    answered_s: float
    latency_ms: Latency
    unanswered: int
    teacher_rows_s: float


class Crowd(Aside):
    """Callers of the teacher, who never rest while this is open."""

    def __init__(self, caller: Caller, teacher: str, texts: Sequence[str]) -> None:
        super().__init__(self._call_all, "crowd")
        self._caller = caller
        self._bodies = [
            json.dumps({"model": teacher, "input": [texts[(place + step) % len(texts)] for step in range(TEXTS_EACH)]})
            for place in range(0, len(texts), TEXTS_EACH)
        ]
        self.rows = 0
        self.refused = 0

    def _call_all(self) -> None:
        callers = [Thread(target=self._call, args=(place,)) for place in range(CALLERS)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()

    def _call(self, place: int) -> None:
        while not self._over.is_set():
            status, _ = ask(self._caller, "POST", "/v1/classify", self._bodies[place % len(self._bodies)].encode())
            place += CALLERS
            if status == OK:
                self.rows += TEXTS_EACH
            else:
                self.refused += 1


def main() -> int:
    asked = _arguments()
    texts = tuple(read_texts(asked.texts) if asked.texts else SENTENCES)
    plan = Plan(asked.share, asked.seconds, asked.rounds, asked.connections, asked.seed, asked.client_cpu, texts)
    surroundings = these_surroundings()
    teacher = read_manifest(asked.teacher).name
    flags = ["--default", read_manifest(asked.student).name, *shlex.split(asked.serve_args)]
    with (
        both(asked.student, asked.teacher) as models,
        started(serve_command(models, flags), asked.server_cpu) as service,
        pinned(asked.client_cpu),
    ):
        peak, parts, refused = measure(service, teacher, plan)
    details = {
        "surroundings": asdict(surroundings) | {"idle": surroundings.idle},
        "flags": flags,
        "plan": {name: value for name, value in asdict(plan).items() if name != "texts"},
        "peak_s": peak,
        "parts": list(map(asdict, parts)),
    }
    return conclude(bounds_of(parts, refused), details, asked.json)


def measure(service: Service, teacher: str, plan: Plan) -> tuple[float, list[Part], int]:
    """The peak, then all rounds; and how often the teacher's callers were refused."""
    caller = Caller(service.target)
    probe(caller, plan.texts[:1])
    peak = median(_peak(caller, plan, seed) for seed in range(3))
    parts, refused = [], 0
    for number in range(plan.rounds):
        for saturated in (False, True) if number % 2 == 0 else (True, False):
            job = _job(caller, plan, peak, plan.seed + number)
            if not saturated:
                parts.append(_part(number, job, plan, None))
                continue
            with Crowd(caller, teacher, plan.texts) as crowd:
                sleep(LEAD_S)
                parts.append(_part(number, job, plan, crowd))
            refused += crowd.refused
    return peak, parts, refused


def bounds_of(parts: Sequence[Part], refused: int) -> list[Bound]:
    """What is promised. Whatever else the machine does hits both parts of a round, so that rounds are compared."""
    p99 = {(part.round, part.saturated): part.latency_ms.p99 for part in parts}
    slower = median(p99[number, True] / p99[number, False] for number in {part.round for part in parts})
    rows = min((part.teacher_rows_s for part in parts if part.saturated), default=0.0)
    return [
        Bound("the student's p99, teacher saturated / idle, median of the rounds", slower, 1.2),
        Bound("requests to the student that got no answer", sum(part.unanswered for part in parts), 0),
        Bound("refusals of the teacher's callers", refused, 0),
        Bound("texts that the teacher answered meanwhile, a second", rows, 1, at_least=True),
    ]


@contextmanager
def both(student: Path, teacher: Path) -> Iterator[Path]:
    """A folder of models that holds copies of these two bundles."""
    with TemporaryDirectory(prefix="understudy-prove-") as folder:
        for bundle in (student, teacher):
            manifest = read_manifest(bundle)
            shutil.copytree(bundle, Path(folder) / manifest.name / manifest.version)
        yield Path(folder)


def _part(number: int, job: LoadJob, plan: Plan, crowd: Crowd | None) -> Part:
    before, began = 0 if crowd is None else crowd.rows, perf_counter()
    samples, _ = run_load(job, plan.client_cpus)
    rows = 0 if crowd is None else crowd.rows - before
    took = perf_counter() - began
    window = Window(WARM_S, WARM_S + plan.seconds)
    counted = samples.planned_in(window)
    found = figures(samples, counted, window, 1)
    assert found.latency_ms is not None  # the probe was answered
    return Part(
        number, crowd is not None, found.requests_s, found.latency_ms, int((counted.status != OK).sum()), rows / took
    )


def _job(caller: Caller, plan: Plan, peak: float, seed: int) -> LoadJob:
    phases = (Phase(plan.share * peak, WARM_S + plan.seconds),)
    return LoadJob(caller, plan.texts, 1, Open(phases, Pool(spin=True)), seed, peers=PEERS)


def _peak(caller: Caller, plan: Plan, seed: int) -> float:
    job = LoadJob(caller, plan.texts, 1, Closed(plan.connections, 3.0), seed, peers=PEERS)
    samples, _ = run_load(job, plan.client_cpus)
    return _answered(samples, Window(1.0, 3.0))


def _answered(samples: Samples, window: Window) -> float:
    return len(np.flatnonzero(samples.of(OK).done_in(window).done)) / window.seconds


def _arguments() -> argparse.Namespace:
    parser = load_parser(__doc__)
    parser.add_argument("--student", type=Path, default=Path("models/sst2-bilstm/1"))
    parser.add_argument("--teacher", type=Path, default=Path("models/sst2-minilm/1"))
    parser.add_argument("--share", type=float, default=0.75, help="of the student's peak")
    parser.add_argument("--seconds", type=float, default=10, help="of each part that counts")
    parser.add_argument("--rounds", type=int, default=9, help="each has both parts, in turns which comes first")
    parser.add_argument("--connections", type=int, default=32, help="of the closed loop that finds the peak")
    parser.add_argument("--serve-args", default="", help="flags for the service")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
