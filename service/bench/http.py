"""Services under load over HTTP, measured in turns in one run. Knows nothing of tables or result files.

First a closed loop finds the peak, then Poisson arrivals come at shares of it, all in each round, so that whatever else
the machine does hits all alike. The model alone, in a process without HTTP, is measured in the same rounds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from service.bench.arrivals import Phase
from service.bench.client import Pool
from service.bench.engine import Entry
from service.bench.inprocess import Alone, Bench
from service.bench.process import Usage, usage
from service.bench.samples import OK, Figures, Window, figures, histogram
from service.bench.served import Meter, Service, between, probe, read_meters
from service.bench.wire import Caller
from service.bench.worker import Closed, Cpus, LoadJob, Open, Spent, run_inprocess, run_load

BATCH = 256
"""Texts in the requests that show what the model alone can do."""


@dataclass(frozen=True)
class Loads:
    """Each number of texts in a request meets each closed loop, then each open one."""

    rows: tuple[int, ...] = (1,)
    connections: tuple[int, ...] = (1, 16, 64)
    shares: tuple[float, ...] = (25, 50, 75, 90, 200)  # in per cent of the round's peak
    rates: tuple[float, ...] = ()  # in requests a second


@dataclass(frozen=True)
class Pace:
    """How long and how often. What is answered during the warm-up does not count."""

    seconds: float = 5.0
    warmup_s: float = 1.0
    rounds: int = 3
    seed: int = 0
    timeout_s: float = 10.0


@dataclass(frozen=True)
class Course:
    """What every service is put through, and from where."""

    loads: Loads = Loads()
    pace: Pace = Pace()
    pool: Pool = field(default_factory=Pool)
    peers: int = 16  # addresses that the load comes from, where it stays on this machine
    threads: int = 1  # of the model alone
    client_cpus: Cpus = ()
    server_cpus: Cpus = ()


@dataclass(frozen=True, slots=True)
class Variant:
    """A service that is ready to be measured, and the graph that it is said to run."""

    title: str
    service: Service
    caller: Caller
    entry: Entry | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One load: closed, with connections, or open, with a rate, which may come from a share of the peak."""

    rows: int
    connections: int | None = None
    rate: float | None = None
    share: float | None = None

    @property
    def title(self) -> str:
        if self.connections is not None:
            return f"{self.connections} connection{'s' * (self.connections > 1)}"
        return f"{self.share:g} % of peak" if self.share is not None else f"{self.rate:g}/s"


@dataclass(frozen=True, slots=True)
class Run:
    """What one load on one service showed. `meters` and `usage` include the warm-up."""

    variant: str
    round: int
    step: Step
    figures: Figures
    answered: int
    histogram_ms: tuple[tuple[float, int], ...]  # (upper bound, count) of answers with 200
    spent: Spent
    before: Usage | None
    after: Usage | None
    meters: tuple[Meter, ...]


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the model alone showed in one round."""

    variant: str
    round: int
    alone: Alone


def check(variants: Sequence[Variant], course: Course, texts: Sequence[str]) -> None:
    """Refuse early what no service would answer."""
    for variant in variants:
        for rows in course.loads.rows:
            probe(variant.caller, [texts[place % len(texts)] for place in range(rows)])


def race(variants: Sequence[Variant], course: Course, texts: tuple[str, ...]) -> Iterator[Run | Baseline]:
    """All rounds, one result at a time."""
    for number in range(course.pace.rounds):
        for variant in variants:
            if variant.entry is not None:
                yield Baseline(variant.title, number, _alone(variant.entry, course, texts))
        # Each round has arrivals of its own; all services meet the same.
        pace = replace(course.pace, seed=course.pace.seed + number)
        for rows in course.loads.rows:
            for run in _round(variants, replace(course, pace=pace), texts, rows):
                yield replace(run, round=number)


def results_of(variants: Sequence[Variant], course: Course) -> int:
    """How many results a race yields."""
    loads = course.loads
    each = len(loads.rows) * (len(loads.connections) + len(loads.shares) + len(loads.rates))
    return course.pace.rounds * sum(each + (variant.entry is not None) for variant in variants)


def _round(variants: Sequence[Variant], course: Course, texts: tuple[str, ...], rows: int) -> Iterator[Run]:
    peaks = dict.fromkeys((variant.title for variant in variants), 0.0)
    for connections in course.loads.connections:
        for variant in variants:
            run = _run(variant, course, texts, Step(rows, connections=connections))
            peaks[variant.title] = max(peaks[variant.title], run.figures.requests_s)
            yield run
    for share in course.loads.shares:
        for variant in variants:
            yield _run(variant, course, texts, Step(rows, share=share, rate=share / 100 * peaks[variant.title]))
    for rate in course.loads.rates:
        for variant in variants:
            yield _run(variant, course, texts, Step(rows, rate=rate))


def _alone(entry: Entry, course: Course, texts: tuple[str, ...]) -> Alone:
    sizes = tuple(sorted({1, BATCH, *course.loads.rows}))
    pace = course.pace
    bench = Bench(entry, texts, sizes, pace.seconds / 2, pace.seed, course.threads)
    return run_inprocess(bench, course.server_cpus)


def _run(variant: Variant, course: Course, texts: tuple[str, ...], step: Step) -> Run:
    pace = course.pace
    plan = _plan(step, pace.warmup_s + pace.seconds, course.pool)
    job = LoadJob(variant.caller, texts, step.rows, plan, pace.seed, pace.timeout_s, course.peers)
    meters, before = read_meters(variant.caller), usage(variant.service.pid)
    samples, spent = run_load(job, course.client_cpus)
    after, grown = usage(variant.service.pid), between(meters, read_meters(variant.caller))
    window = Window(pace.warmup_s, pace.warmup_s + pace.seconds)
    # What a closed loop sends depends on the answers, an open loop's requests are fixed by its plan.
    counted = samples.done_in(window) if step.rate is None else samples.planned_in(window)
    return Run(
        variant=variant.title,
        round=0,
        step=step,
        figures=figures(samples, counted, window, step.rows),
        answered=int((samples.status > 0).sum()),
        histogram_ms=tuple(histogram(counted.of(OK).latency)),
        spent=spent,
        before=before,
        after=after,
        meters=grown,
    )


def _plan(step: Step, seconds: float, pool: Pool) -> Closed | Open:
    if step.rate is not None:
        return Open((Phase(step.rate, seconds),), pool)
    assert step.connections is not None
    return Closed(step.connections, seconds)
