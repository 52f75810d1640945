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
from service.bundle.encoder import Row
from service.bundle.runtime import EngineOptions, OpenBundle, open_bundle

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


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch that one model ran."""

    subject: str
    number: int
    rows: int
    seconds: float


@dataclass(frozen=True, slots=True)
class WholePass:
    """Tang's figure for one model. Estimated where it ran only a part of the rows."""

    subject: str
    rows: int
    ran: int
    seconds: float
    times: dict[str, float]

    @property
    def estimated(self) -> bool:
        return self.ran < self.rows


@dataclass(frozen=True, slots=True)
class Queries:
    """XtremeDistil's figure for one model."""

    subject: str
    threads: int
    batch: int
    batch_ms: float
    queries_s: float  # for so many QUERIES
    times: dict[str, float]


@dataclass(frozen=True, slots=True)
class PapersReport:
    """A whole run."""

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


def whole_pass(
    contenders: Sequence[Contender], texts: Sequence[str], threads: int, budget_s: float, seed: int
) -> Iterator[Batch]:
    """Every batch through each model in turns; a model whose budget is spent rests. The first batch also warms up."""
    bundles = [_opened(each, threads) for each in contenders]
    encoded = {id(bundle): bundle.encoder.encode(texts) for bundle in bundles}
    spent = dict.fromkeys((each.title for each in contenders), 0.0)
    count = -(-len(texts) // TANG_BATCH)
    order = np.random.default_rng(seed).permutation(count).tolist()
    for place, number_of in enumerate(order):
        for each, bundle in zip(contenders, bundles, strict=True):
            if spent[each.title] > budget_s:
                continue
            rows = encoded[id(bundle)][number_of * TANG_BATCH :][:TANG_BATCH]
            if place == 0:
                bundle.run(rows[:32])
            seconds = _timed(bundle, rows)
            spent[each.title] += seconds
            yield Batch(each.title, number_of, len(rows), seconds)


def passes_of(contenders: Sequence[Contender], rows: int, batches: Sequence[Batch]) -> tuple[WholePass, ...]:
    """Seconds for all rows, scaled up from those that were run; ratios over the batches that both ran."""
    ran: dict[str, dict[int, Batch]] = {each.title: {} for each in contenders}
    for batch in batches:
        ran[batch.subject][batch.number] = batch
    return tuple(
        WholePass(
            each.title,
            rows,
            done := sum(batch.rows for batch in ran[each.title].values()),
            sum(batch.seconds for batch in ran[each.title].values()) * rows / done,
            {other.title: _ratio(ran[each.title], ran[other.title]) for other in contenders if other.teacher},
        )
        for each in contenders
    )


def queries(contenders: Sequence[Contender], threads: int, batch: int, rounds: int) -> tuple[Queries, ...]:
    """XtremeDistil's batches through each model in turns. Raises UnfitWorkload where a model reads fewer tokens."""
    workload = Workload(rows=batch, tokens=XTREME_TOKENS, threads=threads, rounds=rounds)
    subjects = [prepare(each.entry, workload) for each in contenders]
    timings = np.array(list(race_engines(subjects, workload)))  # (rounds, subjects): µs a row
    middle = np.median(timings, axis=0)
    return tuple(
        Queries(
            each.title,
            threads,
            batch,
            float(middle[place]) * batch / 1000,
            float(middle[place]) * QUERIES / 1e6,
            {
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
        caption=f"Texts: {data.source}. {TANG}",
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
        caption=XTREME,
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
    return open_bundle(contender.entry.folder, contender.entry.precision, EngineOptions(threads=threads))


def _timed(bundle: OpenBundle, rows: Sequence[Row]) -> float:
    start = perf_counter()
    bundle.run(rows)
    return perf_counter() - start


def _ratio(ours: Mapping[int, Batch], theirs: Mapping[int, Batch]) -> float:
    """How many times less time the batches took that both ran."""
    both = ours.keys() & theirs.keys()
    return sum(theirs[place].seconds for place in both) / sum(ours[place].seconds for place in both)


def _weights(report: PapersReport, title: str) -> str:
    return RANDOM if next(each for each in report.contenders if each.title == title).random else "trained"


def _times_headings(report: PapersReport) -> list[str]:
    return [f"× {each.title}" for each in report.contenders if each.teacher]


def _times(report: PapersReport, times: Mapping[str, float]) -> list[str]:
    return [number(times[each.title]) if each.title in times else NONE for each in report.contenders if each.teacher]
