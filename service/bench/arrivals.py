"""When requests come of which nobody waits for another: a Poisson process. Knows numbers only."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Moments = NDArray[np.float64]  # (N,): seconds since the start


@dataclass(frozen=True, slots=True)
class Phase:
    """So many requests a second on average, for so long."""

    rate: float
    seconds: float


def poisson(phases: Sequence[Phase], seed: int) -> Moments:
    """The moments of all arrivals, in order; the rate changes from phase to phase.

    Given their number, the arrivals of a Poisson process are spread evenly at random.
    """
    rng = np.random.default_rng(seed)
    start, parts = 0.0, [np.empty(0)]
    for phase in phases:
        count = rng.poisson(phase.rate * phase.seconds)
        parts.append(start + np.sort(rng.uniform(0, phase.seconds, count)))
        start += phase.seconds
    return np.concatenate(parts)
