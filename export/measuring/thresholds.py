"""How sure must a student be for its answer to be its teacher's? Arithmetic on logits, margins and agreement.

What is promised: of the rows that a threshold accepts, `target` agree with the teacher, by a test that says so wrongly
in at most 1 - `confidence` of all cases. The smallest of many thresholds that "pass" would break that promise, since
each test may err. Here fixed-sequence testing keeps it without a correction (Bauer 1991, Statistics in Medicine 10;
as used for thresholds in Angelopoulos et al. 2021, Learn then Test, arXiv 2110.01052): the thresholds stand in an
order that the tested rows have no part in, are tested one by one from strict to loose, and the first failure ends it.
The order, its start and the temperature come from other rows, a fifth of all, drawn with a fixed seed (so do
Laufer-Goldenshluger et al. 2023, Pareto Testing, arXiv 2210.07913).

This module knows nothing of bundles, files or texts.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.stats import beta, betabinom, binom

from export.errors import OptionError, Unmet
from service.bundle.confidence import Values, margins

Logits = NDArray[np.float32]
Labels = NDArray[np.int64]
Flags = NDArray[np.bool_]

COLDEST, HOTTEST = 0.05, 20.0
STEPS = 1000
"""Thresholds that are tried at most; more cost time and, in a fixed sequence, no certainty."""

PARTS = 5
"""One part in so many sets the temperature and the order of the thresholds; the others test them."""


@dataclass(frozen=True)
class Promise:
    """Which share of accepted rows must agree with the teacher, and how sure that must be (one-sided)."""

    target: float
    confidence: float

    def __post_init__(self) -> None:
        for name, value in (("target", self.target), ("confidence", self.confidence)):
            if not 0 < value < 1:
                raise OptionError(f"--{name} {value}: must lie between 0 and 1, without either")

    @property
    def fewest_rows(self) -> int:
        """Accepted rows that keep the promise if all of them agree: the n with target ** n = 1 - confidence."""
        return math.ceil(math.log(1 - self.confidence) / math.log(self.target))


@dataclass(frozen=True)
class Tried:
    """What a threshold did with rows."""

    threshold: float
    rows: int
    accepted: int
    agreed: int

    @property
    def agreement(self) -> float:
        """On accepted rows; 0 if there are none."""
        return self.agreed / self.accepted if self.accepted else 0.0

    @property
    def escalation(self) -> float:
        """Share of rows below the threshold."""
        return 1 - self.accepted / self.rows

    def bound(self, confidence: float) -> float:
        """One-sided lower bound of the agreement on accepted rows (Clopper and Pearson 1934)."""
        if not self.agreed:
            return 0.0
        return float(beta.ppf(1 - confidence, self.agreed, self.accepted - self.agreed + 1))


@dataclass(frozen=True)
class Found:
    """A threshold that keeps the promise, at this temperature."""

    temperature: float
    tried: Tried


def calibrate(student: Logits, teacher: Logits, promise: Promise, what: str) -> Found:
    """(N, L), (N, L) -> the smallest threshold that keeps the promise. Raises Unmet, naming `what`, if none does."""
    labels: Labels = teacher.argmax(axis=1)
    fitting = _fitting_rows(len(labels))
    temperature = fit_temperature(student[fitting], labels[fitting])
    sure, agrees = margins(student, temperature), student.argmax(axis=1) == labels
    found = None
    for threshold in in_order(sure[fitting], agrees[fitting], promise):
        tried = at(threshold, sure[~fitting], agrees[~fitting])
        if tried.bound(promise.confidence) < promise.target:
            if found is None:
                raise Unmet(_why(what, tried, promise))
            break
        found = tried
    assert found is not None  # there is always a threshold to try, and the first one either passes or raises
    return Found(temperature, found)


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """(N, L), (N,) -> the temperature with the least negative log-likelihood of the teacher's labels (Guo et al. 2017).

    Of its labels and not of its distribution: the margin has to tell whether both choose the same label, and a teacher
    that is too sure of itself, or too little, would hand that on.
    """
    wide, rows = logits.astype(np.float64), np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        return float(-log_softmax(wide / math.exp(log_temperature), axis=1)[rows, labels].mean())

    best = minimize_scalar(loss, bounds=(math.log(COLDEST), math.log(HOTTEST)), method="bounded")
    return round(math.exp(best.x), 4)


def in_order(sure: Values, agrees: Flags, promise: Promise) -> Iterator[float]:
    """The thresholds to test, from strict to loose, as these rows advise: STEPS quantiles of theirs, and 0 at last.

    It starts where the test to come is likeliest to pass: the strictest accept too few rows to prove anything.
    """
    shares = np.quantile(sure, np.linspace(1, 0, STEPS + 1)[1:])
    grid = [float(threshold) for threshold in np.unique(np.append(np.round(shares, 6), 0.0))[::-1]]
    chances = [_chance(at(threshold, sure, agrees), promise) for threshold in grid[::10]]
    yield from grid[10 * int(np.argmax(chances)) :]


def at(threshold: float, sure: Values, agrees: Flags) -> Tried:
    """What the threshold does with rows of these margins (N,) and agreements (N,)."""
    accepted = sure >= threshold
    return Tried(threshold, len(sure), int(accepted.sum()), int(agrees[accepted].sum()))


def _chance(tried: Tried, promise: Promise) -> float:
    """How likely the other rows pass the test of this threshold, as these foretell: the beta-binomial of so many more
    rows, from Jeffreys' prior."""
    accepted = tried.accepted * (PARTS - 1)
    allowed = binom.ppf(1 - promise.confidence, accepted, 1 - promise.target) - 1  # disagreements that still pass
    against = tried.accepted - tried.agreed
    return float(betabinom.cdf(allowed, accepted, against + 0.5, tried.agreed + 0.5))


def _fitting_rows(rows: int) -> Flags:
    chosen = np.zeros(rows, dtype=bool)
    chosen[np.random.default_rng(0).permutation(rows)[: max(1, rows // PARTS)]] = True
    return chosen


def _why(what: str, tried: Tried, promise: Promise) -> str:
    return (
        f"{what}: no threshold keeps {promise.target:g} at confidence {promise.confidence:g}; the most promising, "
        f"{tried.threshold:g}, accepts {tried.accepted} of {tried.rows} rows and {tried.agreed} agree "
        f"(bound {tried.bound(promise.confidence):.4f}). Even if all agree, {promise.fewest_rows} must be accepted: "
        "give more texts, or a lower --target"
    )
