"""Microseconds a row of the engines alone, on real texts: each batch size, length and number of threads, in turns.

A turn is one or more passes over the same few texts, so that a slow model sees the same lengths as a quick one. Texts
are tokenised before. Knows nothing of HTTP, tables or result files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from service.bench.pair.contenders import Contender
from service.bundle.encoder import Row
from service.bundle.runtime import OpenBundle

EDGES = (8, 16, 32, 64, 128)
"""Longest rows, in tokens, of the buckets; the last takes whatever is longer."""

FEWEST = 5
"""A bucket of fewer texts would be the same few sentences again and again."""

PASS_ROWS = 32
"""Texts that a pass runs, at least."""

SLOW_S = 0.25
"""A pass that takes so long needs no call before it to fill the caches."""

Lengths = NDArray[np.int64]


@dataclass(frozen=True)
class Sweep:
    """What every engine is put through."""

    batches: tuple[int, ...] = (1, 8, 32, 128)
    threads: tuple[int, ...] = (1,)
    rounds: int = 3
    turn_s: float = 0.05  # a turn makes as many passes as fit, at least one
    patience_s: float = 3.0  # a pass that would take longer is left out
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Bucket:
    """Texts of like lengths, in tokens of the first contender; all of them if there is no bound."""

    low: int = 0
    high: int | None = None

    @property
    def title(self) -> str:
        return "as in the data" if self.high is None else f"{self.low}–{self.high} tokens"


EVERY = Bucket()


@dataclass(frozen=True, slots=True)
class Case:
    """One cell of the table."""

    threads: int
    batch: int
    bucket: Bucket


@dataclass(frozen=True, slots=True)
class Turn:
    """What one engine showed in one round."""

    subject: str
    case: Case
    round: int
    us_row: float


@dataclass(frozen=True, slots=True)
class Load:
    """One engine with the batches of one case."""

    subject: str
    case: Case
    bundle: OpenBundle
    batches: tuple[tuple[Row, ...], ...]

    @property
    def rows(self) -> int:
        return sum(map(len, self.batches))

    def run(self) -> float:
        """Seconds of one pass."""
        start = perf_counter()
        for batch in self.batches:
            self.bundle.run(batch)
        return perf_counter() - start


def buckets_of(lengths: Lengths) -> tuple[Bucket, ...]:
    """All texts, then each bucket that has enough of them."""
    found, low = [EVERY], 1
    for high in (*EDGES[:-1], max(EDGES[-1], int(lengths.max()))):
        if ((lengths >= low) & (lengths <= high)).sum() >= FEWEST:
            found.append(Bucket(low, high))
        low = high + 1
    return tuple(found)


def chosen(lengths: Lengths, bucket: Bucket, count: int, seed: int) -> list[int]:
    """Places of so many texts that stand for the bucket: evenly spread over its lengths, then shuffled."""
    inside = (lengths >= bucket.low) & (lengths <= (bucket.high if bucket.high is not None else lengths.max()))
    places = np.flatnonzero(inside)
    by_length = places[np.argsort(lengths[places], kind="stable")]
    # The middles of `count` equal shares of the bucket; some come again if it has fewer texts.
    picked = by_length[((np.arange(count) + 0.5) * len(by_length) / count).astype(int)]
    return [int(place) for place in np.random.default_rng(seed).permutation(picked)]


def cases_of(sweep: Sweep, threads: int, lengths: Lengths) -> list[Case]:
    """Small batches first: they say how long the large ones would take."""
    return [Case(threads, batch, bucket) for batch in sorted(sweep.batches) for bucket in buckets_of(lengths)]


def turns_of(contenders: Sequence[Contender], sweep: Sweep, lengths: Lengths) -> int:
    """How many turns a race has, if everybody is quick enough."""
    cases = sum(len(cases_of(sweep, threads, lengths)) for threads in sweep.threads)
    return cases * sweep.rounds * len(contenders)


def token_counts(contender: Contender, texts: Sequence[str]) -> Lengths:
    """Tokens of each text (N,), as this contender reads them."""
    bundle = contender.entry.open()
    return np.array([len(row) for row in bundle.encoder.encode(texts)])


def race(contenders: Sequence[Contender], sweep: Sweep, texts: Sequence[str], lengths: Lengths) -> Iterator[Turn]:
    """All rounds of all cases, one turn at a time. The engines of one number of threads are open together."""
    for threads in sweep.threads:
        bundles = {each.title: each.entry.open(threads) for each in contenders}
        loads = [
            _load(title, bundle, case, sweep, texts, lengths)
            for case in cases_of(sweep, threads, lengths)
            for title, bundle in bundles.items()
        ]
        passes = _warmed(loads, sweep)
        for number in range(sweep.rounds):
            for load in loads:
                if (seconds := passes.get((load.subject, load.case))) is not None:
                    yield Turn(load.subject, load.case, number, _turn(load, seconds, sweep) / load.rows * 1e6)


def _load(title: str, bundle: OpenBundle, case: Case, sweep: Sweep, texts: Sequence[str], lengths: Lengths) -> Load:
    places = chosen(lengths, case.bucket, max(PASS_ROWS, case.batch), sweep.seed)
    rows = bundle.encoder.encode([texts[place] for place in places])
    size = case.batch
    return Load(title, case, bundle, tuple(tuple(rows[at : at + size]) for at in range(0, len(rows), size)))


def _warmed(loads: Sequence[Load], sweep: Sweep) -> dict[tuple[str, Case], float]:
    """(engine, case) -> seconds of a pass; those that would take too long are missing, but never all of one engine."""
    found: dict[tuple[str, Case], float] = {}
    us_row: dict[tuple[str, Bucket], float] = {}
    for load in loads:
        known = us_row.get((load.subject, load.case.bucket), us_row.get((load.subject, EVERY), 0.0))
        if known * load.rows > sweep.patience_s:
            continue
        first = load.run()
        seconds = first if first > SLOW_S else min(first, load.run())
        found[load.subject, load.case] = seconds
        us_row[load.subject, load.case.bucket] = seconds / load.rows
    return found


def _turn(load: Load, seconds: float, sweep: Sweep) -> float:
    """Mean seconds of the passes of a turn, after one that isn't counted unless it would take long."""
    if seconds < SLOW_S:
        load.run()
    passes = max(1, int(sweep.turn_s / seconds))
    return sum(load.run() for _ in range(passes)) / passes
