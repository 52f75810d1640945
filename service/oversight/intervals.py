"""How sure a share is that was counted, and how rare a statistic is: closed forms, so that serving needs no scipy.

It knows numbers only.
"""

from math import erfc, exp, log, pi, sqrt
from typing import NamedTuple

Z95 = 1.959963984540054
"""The normal quantile whose interval holds the truth 95 times of 100."""


class Interval(NamedTuple):
    """Where a share lies."""

    low: float
    high: float


def wilson(successes: int, trials: int, z: float = Z95) -> Interval:
    """Wilson's score interval of a share (Wilson 1927), right also near 0 and 1; [0, 1] of nothing."""
    if not trials:
        return Interval(0.0, 1.0)
    share, square = successes / trials, z * z
    middle = (share + square / (2 * trials)) / (1 + square / trials)
    half = z * sqrt(share * (1 - share) / trials + square / (4 * trials * trials)) / (1 + square / trials)
    # At the ends the interval touches them exactly; rounding would leave it a hair inside or outside.
    low = 0.0 if successes == 0 else middle - half
    high = 1.0 if successes == trials else middle + half
    return Interval(low, high)


def chi_square_tail(statistic: float, freedom: int) -> float:
    """P(X >= statistic) of a chi-square variable with `freedom` degrees; 1 where there are none.

    The regularised upper incomplete gamma function Q(freedom / 2, statistic / 2): a finite sum for whole degrees
    (Abramowitz & Stegun 26.4.4 and 26.4.5). 0 where it is less than a float can be.
    """
    half = statistic / 2
    if freedom <= 0 or half <= 0:
        return 1.0
    if freedom % 2:
        found, term, steps = erfc(sqrt(half)), log(2 * sqrt(half / pi)), range(3, freedom + 1, 2)
    else:
        found, term, steps = 0.0, 0.0, range(2, freedom + 1, 2)
    for step in steps:  # term: the logarithm of half^s / gamma(s + 1) for s = (step - 2) / 2, which may overflow itself
        found += exp(term - half)
        term += log(half / (step / 2))
    return min(1.0, found)
