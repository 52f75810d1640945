"""`python -m tests.prove.overload`: for a while, more requests than the service can answer, by callers who do not wait.

Before each overload the peak is measured, and around it there is an ordinary load, all in the same run of arrivals.
Goodput holds, refusals are quick, memory stays flat, and afterwards all is as before; else the exit code is 1.
The load comes from many loopback addresses, so that limits for one client stay on.
"""

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median

from service.bench.arrivals import Phase
from service.bench.client import Pool
from service.bench.engine import parse_entry
from service.bench.machine import these_surroundings
from service.bench.samples import OK, TOO_BUSY, Figures, Samples, Window, figures
from service.bench.served import Service, only, probe, serve_command, started
from service.bench.texts import SENTENCES, read_texts
from service.bench.wire import Caller
from service.bench.worker import Closed, Cpus, LoadJob, Open, run_load
from tests.prove.bounds import Bound, conclude, run
from tests.prove.flags import load_parser
from tests.prove.watch import Watch

REFUSAL_S = 0.05
CALM = 0.5  # of the peak: an ordinary load
SETTLE_S = 2.0  # after the overload; then an ordinary load is answered as before
LEAST_CALM_S = 4.0
PEERS = 64
POOL = Pool(most=4000, backlog_s=REFUSAL_S)

SERVE = "--max-connections 8192 --max-queue-rows 512"
"""A request that waits holds a connection, so the queue can only be full if it is the smaller of the two."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How hard, how long, from where."""

    factors: tuple[float, ...]
    seconds: float
    rows: int
    connections: int
    seed: int
    client_cpus: Cpus
    texts: tuple[str, ...]

    @property
    def calm_s(self) -> float:
        return max(LEAST_CALM_S, self.seconds / 2)


@dataclass(frozen=True, slots=True)
class Memory:
    """MiB of all processes, the most at any moment of each part."""

    calm: float | None
    first_half: float | None  # of the overload
    second_half: float | None

    @property
    def growth(self) -> float | None:
        if self.first_half is None or self.second_half is None:
            return None
        return self.second_half - self.first_half


@dataclass(frozen=True, slots=True)
class Overload:
    """What one factor showed."""

    factor: float
    peak_s: float
    offered_s: float
    calm: Figures
    overload: Figures
    recovered: Figures
    refused_in_time: float | None  # share of refusals
    neither: float  # share of arrivals that got neither an answer nor a refusal
    memory: Memory


def main() -> int:
    asked = _arguments()
    entry, cpus = parse_entry(asked.bundle), asked.server_cpu
    texts = tuple(read_texts(asked.texts) if asked.texts else SENTENCES)
    factors = tuple(map(float, asked.factors.split(",")))
    plan = Plan(factors, asked.seconds, asked.rows, asked.connections, asked.seed, asked.client_cpu, texts)
    surroundings = these_surroundings()
    flags = [*entry.flags, *shlex.split(asked.serve_args)]
    with only(entry.folder) as models, started(serve_command(models, flags), cpus) as service:
        caller = Caller(service.target)
        probe(caller, [texts[place % len(texts)] for place in range(plan.rows)])
        found = [measure(service, caller, plan, factor) for factor in plan.factors]
    bounds = [bound for overload in found for bound in bounds_of(overload)]
    details = {
        "surroundings": asdict(surroundings) | {"idle": surroundings.idle},
        "flags": flags,
        "plan": {name: value for name, value in asdict(plan).items() if name != "texts"},
        "overloads": list(map(asdict, found)),
    }
    return conclude(bounds, details, asked.json)


def measure(service: Service, caller: Caller, plan: Plan, factor: float) -> Overload:
    """The peak, then calm, overload and calm again."""
    peak = median(_peak(caller, plan, seed) for seed in range(3))
    phases = (
        Phase(CALM * peak, plan.calm_s),
        Phase(factor * peak, plan.seconds),
        Phase(CALM * peak, SETTLE_S + plan.calm_s),
    )
    job = LoadJob(caller, plan.texts, plan.rows, Open(phases, POOL), plan.seed + round(factor), peers=PEERS)
    with Watch(service.pid) as watch:
        samples, spent = run_load(job, plan.client_cpus)
    start, end = plan.calm_s, plan.calm_s + plan.seconds
    middle, last = (start + end) / 2, end + SETTLE_S + plan.calm_s
    parts = ((1.0, start), (start, middle), (middle, end))
    overload = samples.planned_in(Window(start, end))
    return Overload(
        factor=factor,
        peak_s=peak,
        offered_s=len(overload.planned) / plan.seconds,
        calm=_figures(samples, Window(1.0, start), plan),
        overload=_figures(samples, Window(start, end), plan),
        recovered=_figures(samples, Window(end + SETTLE_S, last), plan),
        refused_in_time=_in_time(overload.of(TOO_BUSY)),
        neither=1 - float(((overload.status == OK) | (overload.status == TOO_BUSY)).mean()),
        memory=Memory(*(watch.most_mib(spent.begun_s + begin, spent.begun_s + until) for begin, until in parts)),
    )


def bounds_of(found: Overload) -> Sequence[Bound]:
    """What is promised at any factor."""
    name = f"{found.factor:g} x peak"
    calm, recovered = found.calm.latency_ms, found.recovered.latency_ms
    slower = recovered.p99 / calm.p99 if calm and recovered else None
    refused = found.overload.statuses.get(str(TOO_BUSY), 0)
    disturbed = sum(sum(part.errors.values()) for part in (found.calm, found.recovered))
    return (
        Bound(f"{name}: goodput / peak", found.overload.requests_s / found.peak_s, 0.9, at_least=True),
        Bound(f"{name}: refusals", refused, 1, at_least=True),
        Bound(f"{name}: share of refusals within {REFUSAL_S * 1000:g} ms", found.refused_in_time, 0.99, at_least=True),
        Bound(f"{name}: share of arrivals without answer or refusal", found.neither, 0.001),
        Bound(f"{name}: growth of memory during it, MiB", found.memory.growth, 8),
        Bound(f"{name}: p99 {SETTLE_S:g} s after it / p99 before it", slower, 1.5),
        Bound(f"{name}: requests before and after it that got no answer", disturbed, 0),
    )


def _peak(caller: Caller, plan: Plan, seed: int) -> float:
    seconds = max(2.0, plan.seconds / 3)
    window = Window(seconds / 4, seconds)
    job = LoadJob(caller, plan.texts, plan.rows, Closed(plan.connections, seconds), seed, peers=PEERS)
    samples, _ = run_load(job, plan.client_cpus)
    return _figures(samples, window, plan).requests_s


def _figures(samples: Samples, window: Window, plan: Plan) -> Figures:
    return figures(samples, samples.planned_in(window), window, plan.rows)


def _in_time(refused: Samples) -> float | None:
    return float((refused.latency <= REFUSAL_S).mean()) if len(refused.latency) else None


def _arguments() -> argparse.Namespace:
    parser = load_parser(__doc__)
    parser.add_argument("--bundle", default="models/sst2-bilstm/1", help="DIR, DIR:fast or DIR:exact")
    parser.add_argument("--factors", default="2,5,10", help="of the peak")
    parser.add_argument("--seconds", type=float, default=20, help="of each overload")
    parser.add_argument("--rows", type=int, default=1, help="texts in a request")
    parser.add_argument("--connections", type=int, default=64, help="of the closed loop that finds the peak")
    parser.add_argument("--serve-args", default=SERVE, help="flags for the service")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
