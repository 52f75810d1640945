"""The same model without HTTP, queue or threads: what the service's figures are divided by."""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from service.bench.engine import Entry
from service.bench.texts import requests_of
from service.bundle.runtime import OpenBundle

GROUP = 32
"""Rows run together, as in the service's batches."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What to measure, and for how long each."""

    entry: Entry
    texts: tuple[str, ...]
    rows: tuple[int, ...]
    seconds: float
    seed: int
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests of so many texts, one after the other."""

    rows: int
    p50_us: float  # of a request
    texts_s: float


@dataclass(frozen=True, slots=True)
class Alone:
    """What one thread in one process does."""

    rates: tuple[Rate, ...]

    def of(self, rows: int) -> Rate:
        return next(rate for rate in self.rates if rate.rows == rows)


def measure(bench: Bench) -> Alone:
    """Tokenise and run requests of each size."""
    bundle = bench.entry.open(bench.threads)
    return Alone(tuple(_rate(bundle, bench, rows) for rows in bench.rows))


def _rate(bundle: OpenBundle, bench: Bench, rows: int) -> Rate:
    requests = requests_of(bench.texts, rows, bench.seed)
    seconds: list[float] = []
    answer(bundle, requests[0])  # fills the caches, and is not counted
    until = perf_counter() + bench.seconds
    while not seconds or perf_counter() < until:
        texts = requests[len(seconds) % len(requests)]
        started = perf_counter()
        answer(bundle, texts)
        seconds.append(perf_counter() - started)
    return Rate(rows, float(np.median(seconds)) * 1e6, rows * len(seconds) / sum(seconds))


def answer(bundle: OpenBundle, texts: Sequence[str]) -> None:
    """Groups of like lengths: padding short rows to a long one would be work for nothing."""
    rows = sorted(bundle.encoder.encode(texts), key=len)
    for start in range(0, len(rows), GROUP):
        bundle.run(rows[start : start + GROUP])
