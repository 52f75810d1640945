"""Does memory grow with the number of requests? Samples of each process, and a slope that outliers do not bend."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

MILLION = 1e6


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at one process."""

    moment_s: float  # since the load began
    requests: int  # answered until then, by all processes
    pid: int
    serves: bool  # a worker, or the only process; not the one that looks after workers
    rss_mib: float
    threads: int
    files: int


@dataclass(frozen=True, slots=True)
class Slope:
    """MiB per million requests of the service, with its 95 % interval."""

    estimate: float
    low: float
    high: float
    readings: int


def memory_slope(readings: Sequence[Reading], settle_s: float, processes: int = 1) -> Slope | None:
    """Over all processes that serve, each from `settle_s` after it was first seen; None of too little.

    Pairs of readings are taken within a process only, since one that was killed is followed by a smaller one. Each of
    several processes answers its share of the requests, so the slopes of one count for all.
    """
    series = [part for part in _by_process(readings, settle_s) if len(part) > 2]
    if not series:
        return None
    slopes = np.sort(np.concatenate([_pairwise(part) for part in series])) * processes * MILLION
    margin = NormalDist().inv_cdf(0.975) * sqrt(sum(_variance(len(part)) for part in series))
    low, high = (len(slopes) - margin) / 2, (len(slopes) + margin) / 2
    return Slope(
        estimate=float(np.median(slopes)),
        low=float(slopes[max(0, int(low))]),
        high=float(slopes[min(len(slopes) - 1, int(high) + 1)]),
        readings=sum(map(len, series)),
    )


def theil_sen(x: Sequence[float], y: Sequence[float]) -> float:
    """The median of the slopes between all pairs of points of different x."""
    return float(np.median(_pairwise(np.column_stack([x, y]).astype(float))))


def _by_process(readings: Sequence[Reading], settle_s: float) -> list[NDArray[np.float64]]:
    """(requests, MiB) of each process: its settled readings at different numbers of requests."""
    born: dict[int, float] = {}
    points: dict[int, list[tuple[int, float]]] = {}
    for reading in (each for each in readings if each.serves):
        first = born.setdefault(reading.pid, reading.moment_s)
        if reading.moment_s - first >= settle_s:
            points.setdefault(reading.pid, []).append((reading.requests, reading.rss_mib))
    return [np.array(part, dtype=float) for part in points.values()]


def _pairwise(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 2) -> (at most N (N - 1) / 2,)."""
    earlier, later = np.triu_indices(len(points), k=1)
    x, y = points[later].T - points[earlier].T
    return np.asarray(y[x != 0] / x[x != 0])


def _variance(count: int) -> float:
    """Of Kendall's statistic, from which Sen's interval follows."""
    return count * (count - 1) * (2 * count + 5) / 18
