"""The threshold that a calibration finds keeps its promise: by hand, by other libraries' sums, and by simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from export.errors import OptionError, Unmet
from export.measuring.thresholds import Logits, Promise, Tried, at, calibrate, fit_temperature, in_order
from service.bundle.confidence import margins

USUAL = Promise(0.9, 0.95)
shares = st.floats(0, 1)


def pair(rows: int, seed: int, sharpness: float = 1.0) -> tuple[Logits, Logits]:
    """A student whose label is its teacher's as often as its own probabilities say, times a sharpness that is wrong."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2.5, (rows, 3))
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)  # (N, 3)
    labels = (chances.cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1).clip(max=2)
    return (logits * sharpness).astype(np.float32), np.eye(3, dtype=np.float32)[labels]


@given(st.floats(0.5, 0.999), st.floats(0.5, 0.999))
def test_so_many_rows_are_needed_and_not_one_less(target: float, confidence: float) -> None:
    promise = Promise(target, confidence)
    needed = promise.fewest_rows
    assert Tried(0, needed, needed, needed).bound(confidence) >= target * (1 - 1e-9)
    assert needed == 1 or Tried(0, needed, needed - 1, needed - 1).bound(confidence) < target * (1 + 1e-9)


def test_the_usual_promise_needs_299_rows() -> None:
    assert Promise(0.99, 0.95).fewest_rows == 299


@given(st.integers(1, 400), st.data(), st.floats(0.5, 0.99))
def test_the_bound_is_that_of_clopper_and_pearson(rows: int, data: st.DataObject, confidence: float) -> None:
    agreed = data.draw(st.integers(0, rows))
    theirs = binomtest(agreed, rows, alternative="greater").proportion_ci(confidence, method="exact").low
    assert Tried(0, rows, rows, agreed).bound(confidence) == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("value", [0, 1, -0.1, 1.5, float("nan")])
def test_a_promise_that_nobody_can_keep_is_refused(value: float) -> None:
    with pytest.raises(OptionError, match=r"--target .*must lie between 0 and 1"):
        Promise(value, 0.95)
    with pytest.raises(OptionError, match="--confidence"):
        Promise(0.99, value)


@pytest.mark.parametrize("sharpness", [0.25, 1, 3])
def test_the_temperature_undoes_a_wrong_sharpness(sharpness: float) -> None:
    student, teacher = pair(20_000, 1, sharpness)
    assert fit_temperature(student, teacher.argmax(axis=1)) == pytest.approx(sharpness, rel=0.05)


@given(st.lists(st.tuples(shares, st.booleans()), min_size=1, max_size=50))
def test_thresholds_come_from_strict_to_loose_and_end_with_all(rows: list[tuple[float, bool]]) -> None:
    sure, agrees = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    order = list(in_order(sure, agrees, USUAL))
    assert order == sorted(set(order), reverse=True)
    assert order[-1] == 0
    assert [at(threshold, sure, agrees).accepted for threshold in order][-1] == len(rows)


@given(st.lists(st.tuples(shares, st.booleans()), min_size=1, max_size=50), shares)
def test_a_threshold_accepts_what_reaches_it(rows: list[tuple[float, bool]], threshold: float) -> None:
    found = at(threshold, np.array([row[0] for row in rows]), np.array([row[1] for row in rows]))
    accepted = [agrees for sure, agrees in rows if sure >= threshold]
    assert (found.rows, found.accepted, found.agreed) == (len(rows), len(accepted), sum(accepted))
    assert 0 <= found.agreement <= 1
    assert found.escalation == pytest.approx(1 - len(accepted) / len(rows))


def test_the_same_rows_give_the_same_threshold_and_it_meets_the_target() -> None:
    student, teacher = pair(5_000, 2)
    found = calibrate(student, teacher, USUAL, "it")
    assert found == calibrate(student.copy(), teacher.copy(), USUAL, "it")
    assert 0 < found.tried.threshold < 1
    assert found.tried.bound(0.95) >= 0.9
    assert found.tried.rows == 4_000  # a fifth sets the temperature
    stricter = calibrate(student, teacher, Promise(0.95, 0.95), "it")
    assert stricter.tried.threshold > found.tried.threshold


def test_a_student_that_always_agrees_is_asked_for_everything() -> None:
    student, _ = pair(2_000, 3)
    found = calibrate(student, student, Promise(0.99, 0.95), "it")
    assert (found.tried.threshold, found.tried.escalation, found.tried.agreement) == (0, 0, 1)


@pytest.mark.parametrize("rows", [1, 2, 7, 360])
def test_too_few_rows_say_how_many_are_needed(rows: int) -> None:
    student, _ = pair(rows, 4)
    with pytest.raises(Unmet, match=r"^toy: no threshold keeps 0\.99 at confidence 0\.95.* 299 must be accepted"):
        calibrate(student, student, Promise(0.99, 0.95), "toy")


def test_a_student_that_guesses_keeps_no_promise() -> None:
    student, teacher = pair(5_000, 5)
    with pytest.raises(Unmet, match="give more texts, or a lower --target"):
        calibrate(student, np.roll(teacher, 1, axis=0), USUAL, "toy")


@pytest.mark.parametrize("rows", [600, 3_000])
def test_the_promise_is_broken_in_no_more_than_one_of_twenty_cases(rows: int) -> None:
    """Students all alike, each calibrated on rows of its own: how often is the true agreement below the target?"""
    true_student, true_teacher = pair(50_000, 6)
    agrees = true_student.argmax(axis=1) == true_teacher.argmax(axis=1)
    broken, unmet, cases = 0, 0, 100
    for seed in range(cases):
        try:
            found = calibrate(*pair(rows, 100 + seed), USUAL, "it")
        except Unmet:
            unmet += 1
        else:
            truth = at(found.tried.threshold, margins(true_student, found.temperature), agrees)
            broken += truth.agreement < USUAL.target
    assert binomtest(broken, cases, 0.05, alternative="greater").pvalue > 0.01, f"{broken} of {cases}"
    assert unmet < 0.2 * cases, f"{unmet} of {cases}"
