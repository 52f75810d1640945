"""Is recent traffic unlike the profile that the bundle recorded when it was made?

For each feature a chi-square test of homogeneity holds the last thousand rows against the profile's rows: the profile
is a sample too, and its own error counts. It is repeated with every hundred rows, for ever; look k may err with
probability ALPHA / (3 k (k + 1)), which adds up to ALPHA over all looks at all three features (a union bound, so it
does not matter how looks depend on each other). With many rows a test finds differences that matter to nobody, so an
alarm also needs an effect: the population stability index, less what chance alone makes of it (Yurdakul 2018).

Rows that depend on each other (one text asked again and again) are not what the test assumes; the least effect is what
guards against them. It knows counts. It knows nothing of texts, models or clocks.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from math import log
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.bundle.confidence import Values
from service.bundle.manifest import Histogram, Profile
from service.oversight.intervals import chi_square_tail

BLOCK, BLOCKS, FEWEST_BLOCKS = 100, 10, 2
"""Rows between two looks; how many blocks make the window; with how many the first look comes."""

ALPHA = 0.01
"""The chance that an alarm is ever raised while rows are independent and like the profile's."""

SHIFTED, CALM = 0.2, 0.1
"""From this effect on there is an alarm, and below that it ends: by custom less than 0.1 is no shift to speak of, and
0.2 or more a large one."""

EXPECTED = 10.0
"""Rows that a bin should have on either side; neighbours with fewer are counted together."""


class Feature(StrEnum):
    """What is looked at of a row."""

    TOKENS = "tokens"
    UNKNOWN = "unknown"
    MARGIN = "margin"


class Sample(NamedTuple):
    """The features of B rows, each (B,)."""

    tokens: Values
    unknown: Values
    margin: Values


class Comparison(NamedTuple):
    """How unlike two histograms are."""

    statistic: float  # chi-square
    freedom: int
    probability: float  # of such a statistic or a larger one, where nothing differs
    effect: float  # the stability index without its bias; about 0 where nothing differs


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of one feature."""

    feature: Feature
    rows: int  # in the window
    comparison: Comparison | None  # none before the first look
    alarm: bool


def compare(reference: Sequence[int], recent: Sequence[int]) -> Comparison:
    """Hold counts of the same bins against each other."""
    old, new = _merged(reference, recent)
    freedom = len(old) - 1
    if not freedom:
        return Comparison(0.0, 0, 1.0, 0.0)
    n, m = sum(old), sum(new)
    statistic = sum((a * m - b * n) ** 2 / (a + b) for a, b in zip(old, new, strict=True)) / (n * m)
    effect = _stability_index(old, new) - freedom * (1 / n + 1 / m)
    return Comparison(statistic, freedom, chi_square_tail(statistic, freedom), effect)


class Detector:
    """One feature over time."""

    def __init__(self, feature: Feature, reference: Histogram) -> None:
        self._feature = feature
        self._reference = reference.counts
        self._edges = np.asarray(reference.edges, dtype=np.float64)
        self._window = np.zeros(len(reference.counts), dtype=np.int64)
        self._blocks: deque[NDArray[np.int64]] = deque()
        self._block = np.zeros_like(self._window)
        self._looks = 0
        self._comparison: Comparison | None = None
        self._alarm = False

    def add(self, values: Values) -> None:
        """Count some rows of the block that is being filled."""
        places = np.searchsorted(self._edges, values, side="right")
        self._block += np.bincount(places, minlength=len(self._block))

    def close_block(self) -> None:
        """The block is full: move the window on, and look."""
        self._blocks.append(self._block)
        self._window += self._block
        if len(self._blocks) > BLOCKS:
            self._window -= self._blocks.popleft()
        self._block = np.zeros_like(self._block)
        if len(self._blocks) >= FEWEST_BLOCKS:
            self._look()

    def verdict(self) -> Verdict:
        return Verdict(self._feature, len(self._blocks) * BLOCK, self._comparison, self._alarm)

    def _look(self) -> None:
        self._looks += 1
        found = self._comparison = compare(self._reference, self._window.tolist())
        allowed = ALPHA / (len(Feature) * self._looks * (self._looks + 1))
        if found.probability < allowed and found.effect >= SHIFTED:
            self._alarm = True
        elif found.effect < CALM:
            self._alarm = False


class Drift:
    """All features of one student's traffic."""

    def __init__(self, profile: Profile) -> None:
        self.rows = 0
        histograms = (profile.tokens, profile.unknown, profile.margin)  # the last only where there are margins
        known = zip(Feature, histograms, strict=True)
        self._detectors = tuple(Detector(feature, found) for feature, found in known if found is not None)

    def add(self, sample: Sample) -> bool:
        """Take in rows. Has a block been closed, so that verdicts may have changed?"""
        rows, looked = len(sample.tokens), False
        first_end = BLOCK - self.rows % BLOCK
        for start, end in pairwise((0, *range(first_end, rows, BLOCK), rows)):
            for detector, values in zip(self._detectors, sample, strict=False):
                detector.add(values[start:end])
            self.rows += end - start
            if self.rows % BLOCK == 0 and end > start:
                looked = True
                for detector in self._detectors:
                    detector.close_block()
        return looked

    def verdicts(self) -> tuple[Verdict, ...]:
        """In the order of the features."""
        return tuple(detector.verdict() for detector in self._detectors)


def _merged(reference: Sequence[int], recent: Sequence[int]) -> tuple[list[int], list[int]]:
    """Both with neighbouring bins added up until each side may expect enough rows in them.

    What is added up depends on both counts together and not on how they differ, so that the test stays fair.
    """
    n, m = sum(reference), sum(recent)
    enough = EXPECTED * (n + m) / max(1, min(n, m))
    old, new = [0], [0]
    for a, b in zip(reference, recent, strict=True):
        if old[-1] + new[-1] >= enough:
            old.append(0)
            new.append(0)
        old[-1] += a
        new[-1] += b
    if len(old) > 1 and old[-1] + new[-1] < enough:  # what is left over joins its neighbour
        last_old, last_new = old.pop(), new.pop()
        old[-1] += last_old
        new[-1] += last_new
    return old, new


def _stability_index(old: Sequence[int], new: Sequence[int]) -> float:
    """sum (p - q) ln(p / q); half a row is added to each bin, so that an empty one does not make it infinite."""
    n, m = sum(old) + len(old) / 2, sum(new) + len(new) / 2
    shares = (((a + 0.5) / n, (b + 0.5) / m) for a, b in zip(old, new, strict=True))
    return sum((p - q) * log(p / q) for p, q in shares)
