"""Two papers' own ways of timing a student beside its teacher, repeated on this machine. Prints nothing.

Tang et al. 2019 (arXiv:1903.12136, Table 2): all 67,350 training sentences of SST-2 in batches of 512, once.
Mukherjee & Awadallah 2020, XtremeDistil (ACL 2020, Table 16): batches of 32 rows of 32 tokens, and single rows.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter

import numpy as np

from service.bench.engine import Workload, prepare
from service.bench.engine import race as race_engines
from service.bench.pair.contenders import Contender
from service.bench.pair.report import Conditions
from service.bench.pair.sheets import NONE, RANDOM, Sheet, number
from service.bench.report import Compared
from service.bundle.encoder import Row
from service.bundle.runtime import OpenBundle, RunHandle

TANG_BATCH = 512
XTREME_TOKENS, XTREME_BATCHES, QUERIES = 32, (32, 1), 1000

TANG = (
    f"Tang et al. 2019, Table 2: batches of {TANG_BATCH}, every training sentence of SST-2 once, one V100; BERT-large "
    "against a BiLSTM of 0.96 M weights without embeddings: 434 ×. Departures: a CPU, ONNX Runtime, other students and "
    "teachers; the models take turns batch by batch, in a random order of batches; texts are tokenised before. "
    "estimated: a model that would need longer than the budget runs as many batches as fit in it, and its time is "
    "scaled up. Ratios are over the batches that both ran."
)
XTREME = (
    f"XtremeDistil (ACL 2020), Table 16: {QUERIES} queries in batches of 32 rows of 32 tokens on one P100, mean of 100 "
    "runs, and batch 1 on a Xeon E5-2690 v4; mBERT against a BiLSTM of 50/200: 51 × and 16 ×. Departures: a CPU for "
    "both, ONNX Runtime, other models, random token ids, medians of the rounds; the paper does not say how many "
    "threads or tokens its single rows had: ours have 32."
)


CUT_SHORT = "Cut short: this is what there was when it was stopped. "


@dataclass(frozen=True, slots=True)
class Plan:
    """Who runs what."""

    contenders: tuple[Contender, ...]
    texts: tuple[str, ...]
    threads: tuple[int, ...]  # the whole pass has the most of them
    budget_s: float
    rounds: int
    seed: int

    @property
    def batches(self) -> int:
        """Of Tang's, if everybody has the time for all."""
        return -(-len(self.texts) // TANG_BATCH) * len(self.contenders)

    @property
    def setups(self) -> list[tuple[int, int]]:
        """XtremeDistil's: threads, rows in a batch."""
        return [(threads, batch) for threads in self.threads for batch in XTREME_BATCHES]


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch that one model ran."""

    subject: str
    number: int
    rows: int
    seconds: float


@dataclass(frozen=True, slots=True)
class WholePass(Compared):
    """Tang's figure for one model. Estimated where it ran only a part of the rows."""

    rows: int
    ran: int
    seconds: float

    @property
    def estimated(self) -> bool:
        return self.ran < self.rows


@dataclass(frozen=True, slots=True)
class Queries(Compared):
    """XtremeDistil's figure for one model."""

    threads: int
    batch: int
    batch_ms: float
    queries_s: float  # for so many QUERIES


@dataclass(frozen=True, slots=True)
class PapersReport:
    """A run, whole or cut short."""

    complete: bool
    conditions: Conditions
    contenders: tuple[Contender, ...]
    threads: tuple[int, ...]
    tang: tuple[WholePass, ...]
    xtremedistil: tuple[Queries, ...]

    def to_json(self) -> str:
        return (
            json.dumps(asdict(self) | {"protocols": {"tang": TANG, "xtremedistil": XTREME}}, indent=1, default=str)
            + "\n"
        )

    def sheets(self) -> list[Sheet]:
        return [tang_sheet(self), xtreme_sheet(self)]


def whole_pass(plan: Plan, handle: RunHandle) -> Iterator[Batch]:
    """Every batch through each model in turns; a model whose budget is spent rests. The first batch also warms up."""
    bundles = [_opened(each, max(plan.threads)) for each in plan.contenders]
    encoded = {id(bundle): bundle.encoder.encode(plan.texts) for bundle in bundles}
    spent = dict.fromkeys((each.title for each in plan.contenders), 0.0)
    order = np.random.default_rng(plan.seed).permutation(plan.batches // len(bundles)).tolist()
    for place, number_of in enumerate(order):
        for each, bundle in zip(plan.contenders, bundles, strict=True):
            if spent[each.title] > plan.budget_s:
                continue
            rows = encoded[id(bundle)][number_of * TANG_BATCH :][:TANG_BATCH]
            if place == 0:
                bundle.run(rows[:32], handle)
            seconds = _timed(bundle, rows, handle)
            spent[each.title] += seconds
            yield Batch(each.title, number_of, len(rows), seconds)


def passes_of(contenders: Sequence[Contender], rows: int, batches: Sequence[Batch]) -> tuple[WholePass, ...]:
    """Seconds for all rows, scaled up from those that were run; ratios over the batches that both ran.

    Who has run nothing yet is left out.
    """
    ran: dict[str, dict[int, Batch]] = {each.title: {} for each in contenders}
    for batch in batches:
        ran[batch.subject][batch.number] = batch
    return tuple(
        WholePass(
            subject=each.title,
            rows=rows,
            ran=(done := sum(batch.rows for batch in ran[each.title].values())),
            seconds=sum(batch.seconds for batch in ran[each.title].values()) * rows / done,
            times={
                other.title: _ratio(ran[each.title], ran[other.title])
                for other in contenders
                if other.teacher and ran[each.title].keys() & ran[other.title].keys()
            },
        )
        for each in contenders
        if ran[each.title]
    )


def queries(plan: Plan, handle: RunHandle) -> Iterator[tuple[Queries, ...]]:
    """One set-up after the other. Raises UnfitWorkload where a model reads fewer tokens."""
    for threads, batch in plan.setups:
        yield queries_of(plan.contenders, Workload(batch, XTREME_TOKENS, threads, plan.rounds), handle)


def queries_of(contenders: Sequence[Contender], workload: Workload, handle: RunHandle) -> tuple[Queries, ...]:
    """XtremeDistil's batches of one size through each model in turns."""
    subjects = [prepare(each.entry, workload, handle) for each in contenders]
    timings = np.array(list(race_engines(subjects, workload)))  # (rounds, subjects): µs a row
    middle = np.median(timings, axis=0)
    return tuple(
        Queries(
            subject=each.title,
            threads=workload.threads,
            batch=workload.rows,
            batch_ms=float(middle[place]) * workload.rows / 1000,
            queries_s=float(middle[place]) * QUERIES / 1e6,
            times={
                other.title: float(np.median(timings[:, theirs] / timings[:, place]))
                for theirs, other in enumerate(contenders)
                if other.teacher
            },
        )
        for place, each in enumerate(contenders)
    )


def tang_sheet(report: PapersReport) -> Sheet:
    data = report.conditions.data
    return Sheet(
        title=f"Tang et al. 2019: {data.rows:,} rows, batch {TANG_BATCH}, threads {max(report.threads)}",
        caption=f"{_cut(report)}Texts: {data.source}. {TANG}",
        headings=("model", "weights", "seconds", "rows run", *_times_headings(report)),
        rows=tuple(
            (
                each.subject,
                _weights(report, each.subject),
                f"{number(each.seconds)}{' (estimated)' if each.estimated else ''}",
                f"{each.ran:,}",
                *_times(report, each.times),
            )
            for each in report.tang
        ),
    )


def xtreme_sheet(report: PapersReport) -> Sheet:
    return Sheet(
        title=f"XtremeDistil 2020: rows of {XTREME_TOKENS} tokens",
        caption=f"{_cut(report)}{XTREME}",
        headings=("set-up", "model", "weights", "ms a batch", f"s for {QUERIES} queries", *_times_headings(report)),
        rows=tuple(
            (
                f"batch {each.batch}, threads {each.threads}",
                each.subject,
                _weights(report, each.subject),
                number(each.batch_ms),
                number(each.queries_s),
                *_times(report, each.times),
            )
            for each in report.xtremedistil
        ),
        names=2,
    )


def _opened(contender: Contender, threads: int) -> OpenBundle:
    return contender.entry.open(threads)


def _timed(bundle: OpenBundle, rows: Sequence[Row], handle: RunHandle) -> float:
    start = perf_counter()
    bundle.run(rows, handle)
    return perf_counter() - start


def _ratio(ours: Mapping[int, Batch], theirs: Mapping[int, Batch]) -> float:
    """How many times less time the batches took that both ran."""
    both = ours.keys() & theirs.keys()
    return sum(theirs[place].seconds for place in both) / sum(ours[place].seconds for place in both)


def _cut(report: PapersReport) -> str:
    return "" if report.complete else CUT_SHORT


def _weights(report: PapersReport, title: str) -> str:
    return RANDOM if next(each for each in report.contenders if each.title == title).random else "trained"


def _times_headings(report: PapersReport) -> list[str]:
    return [f"× {each.title}" for each in report.contenders if each.teacher]


def _times(report: PapersReport, times: Mapping[str, float]) -> list[str]:
    return [number(times[each.title]) if each.title in times else NONE for each in report.contenders if each.teacher]
