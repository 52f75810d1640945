"""What a comparison showed: the figures of all rounds put together, and JSON for later. Measures and prints nothing."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from service.bench.http import Course, Run, Variant
from service.bench.http_report import Line
from service.bench.http_report import summarise as summarise_http
from service.bench.machine import Surroundings
from service.bench.pair.contenders import Contender
from service.bench.pair.quality import Quality
from service.bench.pair.sweep import Case, Lengths, Sweep, Turn
from service.bench.report import Compared
from service.bench.samples import OK

PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9)


@dataclass(frozen=True, slots=True)
class Data:
    """The labelled file, in tokens of the first contender."""

    source: str
    rows: int
    shortest: int
    median: float
    p95: float
    longest: int

    @classmethod
    def of(cls, source: str, lengths: Lengths) -> "Data":
        middle, high = np.percentile(lengths, (50, 95)).tolist()
        return cls(source, len(lengths), int(lengths.min()), middle, high, int(lengths.max()))


@dataclass(frozen=True, slots=True)
class Speed(Compared):
    """One engine in one case, over all rounds, beside each teacher."""

    threads: int
    batch: int
    lengths: str
    median_us: float  # a row
    least_us: float
    most_us: float


@dataclass(frozen=True, slots=True)
class Spread:
    """All latencies of one load on one service, over all rounds: (upper bound in ms, count) of each bucket."""

    variant: str
    load: str
    answers: int
    histogram_ms: tuple[tuple[float, int], ...]
    percentiles_ms: dict[str, float]


@dataclass(frozen=True, slots=True)
class Conditions:
    """Where, when, with what and how it was measured."""

    surroundings: Surroundings
    command: str
    data: Data
    sweep: Sweep | None = None
    course: Course | None = None


@dataclass(frozen=True, slots=True)
class Served:
    """What the services showed."""

    lines: tuple[Line, ...] = ()
    spreads: tuple[Spread, ...] = ()
    ready_s: dict[str, float] = field(default_factory=dict)
    peak_s: dict[str, float] = field(default_factory=dict)  # answers a second of the best closed loop
    memory_mib: dict[str, float] = field(default_factory=dict)  # resident, of the whole service, after its loads


@dataclass(frozen=True, slots=True)
class PairReport:
    """A whole run."""

    conditions: Conditions
    contenders: tuple[Contender, ...]
    qualities: tuple[Quality, ...]
    speeds: tuple[Speed, ...]
    served: Served

    @property
    def teachers(self) -> tuple[Contender, ...]:
        return tuple(each for each in self.contenders if each.teacher)

    def quality(self, title: str) -> Quality:
        return next(each for each in self.qualities if each.subject == title)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, default=str) + "\n"


def speeds_of(turns: Iterable[Turn], contenders: Sequence[Contender]) -> tuple[Speed, ...]:
    """Medians over the rounds; ratios are taken within a round, so that a busy minute hits both sides alike."""
    found: dict[tuple[str, Case], dict[int, float]] = {}
    for turn in turns:
        found.setdefault((turn.subject, turn.case), {})[turn.round] = turn.us_row
    teachers = [each.title for each in contenders if each.teacher]
    return tuple(
        Speed(
            subject=subject,
            times={
                teacher: times_faster(rounds, found[teacher, case]) for teacher in teachers if (teacher, case) in found
            },
            threads=case.threads,
            batch=case.batch,
            lengths=case.bucket.title,
            median_us=float(np.median(list(rounds.values()))),
            least_us=min(rounds.values()),
            most_us=max(rounds.values()),
        )
        for (subject, case), rounds in found.items()
    )


def times_faster(ours: Mapping[int, float], theirs: Mapping[int, float]) -> float:
    """The median of the rounds' ratios."""
    return float(np.median([theirs[number] / ours[number] for number in ours]))


def served_of(surroundings: Surroundings, course: Course, variants: Sequence[Variant], runs: Sequence[Run]) -> Served:
    """All rounds -> the figures."""
    lines = summarise_http(surroundings, course, variants, runs).lines
    closed = [line for line in lines if line.offered_s is None]
    titles = [variant.title for variant in variants]
    memory = {
        title: max((line.rss_after_mib for line in lines if line.variant == title and line.rss_after_mib), default=None)
        for title in titles
    }
    return Served(
        lines=lines,
        spreads=spreads_of(runs),
        ready_s={each.title: each.service.ready_s for each in variants if each.service.ready_s is not None},
        peak_s={title: max(line.figures.requests_s for line in closed if line.variant == title) for title in titles},
        memory_mib={title: most for title, most in memory.items() if most is not None},
    )


def spreads_of(runs: Sequence[Run]) -> tuple[Spread, ...]:
    """The rounds' histograms, bucket by bucket."""
    counts: dict[tuple[str, str], Counter[float]] = {}
    for run in runs:
        counts.setdefault((run.variant, run.step.title), Counter()).update(dict(run.histogram_ms))
    return tuple(
        Spread(variant, load, found.total(), tuple(sorted(found.items())), percentiles_of(found))
        for (variant, load), found in counts.items()
    )


def percentiles_of(histogram: Mapping[float, int]) -> dict[str, float]:
    """The upper bound of the bucket in which each percentile lies; nothing of nothing."""
    if not histogram:
        return {}
    bounds = np.array(sorted(histogram))
    up_to = np.cumsum([histogram[bound] for bound in bounds])
    wanted = np.array(PERCENTILES) / 100 * up_to[-1]
    places = np.searchsorted(up_to, wanted - 1e-9)  # a share of whole answers must not fail by a rounding
    return {f"{share:g}": float(bounds[place]) for share, place in zip(PERCENTILES, places, strict=True)}


def answers_of(line: Line) -> int:
    """How many answers the percentiles of a line are of."""
    return line.figures.statuses.get(str(OK), 0)
