"""What logits mean."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from service.bundle.manifest import FEWEST_LABELS, OF_PIECES, Task
from service.bundle.tasks import FUNCTIONS, TASKS, THRESHOLD, Function, Logits, Scores, sigmoid, softmax, unchanged

logits = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.floats(-1e4, 1e4, width=32),
)


@given(logits)
def test_softmax_gives_shares_that_add_up_to_one(values: np.ndarray) -> None:
    scores = softmax(values)
    assert scores.shape == values.shape
    assert ((scores >= 0) & (scores <= 1)).all()
    assert np.allclose(scores.sum(axis=1), 1)


@pytest.mark.parametrize("function", FUNCTIONS.values())
@given(values=logits)
def test_scores_keep_the_order_of_the_logits(function: Callable[[Logits], Scores], values: np.ndarray) -> None:
    ascending = np.take_along_axis(function(values), values.argsort(axis=1), 1)
    assert (np.diff(ascending, axis=1) >= 0).all()


@pytest.mark.parametrize("row", [[-90, 5], [5, -90], [3e38, -3e38], [0, 0]])
def test_softmax_survives_extremes(row: list[float]) -> None:
    scores = softmax(np.array([row], np.float32))
    assert np.isfinite(scores).all()
    assert scores.sum() == pytest.approx(1)


def test_softmax_is_what_the_formula_says() -> None:
    values = np.array([[1.0, 2.0, 3.0]], np.float32)
    assert softmax(values)[0] == pytest.approx(np.exp([1, 2, 3]) / np.exp([1, 2, 3]).sum())


@given(logits)
def test_sigmoid_is_what_the_formula_says(values: np.ndarray) -> None:
    near = np.clip(values, -30, 30)
    assert sigmoid(near) == pytest.approx(1 / (1 + np.exp(-near.astype(np.float64))), rel=1e-12)


@given(logits)
def test_sigmoid_is_its_own_mirror_image(values: np.ndarray) -> None:
    assert sigmoid(values) + sigmoid(-values) == pytest.approx(1)


def test_sigmoid_survives_extremes() -> None:
    assert sigmoid(np.array([[-3e38, -800, 0, 800, 3e38]], np.float32)).tolist() == [[0, 0, 0.5, 1, 1]]


@given(logits)
def test_a_regression_answers_with_its_logits(values: np.ndarray) -> None:
    assert (unchanged(values) == values).all()


def test_every_task_has_its_arithmetic() -> None:
    assert set(TASKS) == set(Task) == set(FEWEST_LABELS)
    assert set(FUNCTIONS) == set(Function)
    assert [meaning.width(3) for meaning in TASKS.values()] == [3] * len(Task)
    assert tuple(task for task, meaning in TASKS.items() if meaning.dimensions == 3) == OF_PIECES


@given(values=logits)
def test_one_label_is_the_best_one(values: np.ndarray) -> None:
    meaning = TASKS[Task.SINGLE_LABEL]
    for row, scores in zip(values, meaning.scores(values).tolist(), strict=True):
        (best,) = meaning.chosen(scores)
        assert scores[best] == max(scores)
        assert row[best] == pytest.approx(row.max(), abs=1e-3)


@given(values=logits)
def test_each_label_of_several_is_chosen_for_itself(values: np.ndarray) -> None:
    meaning = TASKS[Task.MULTI_LABEL]
    for row, scores in zip(values, meaning.scores(values).tolist(), strict=True):
        assert meaning.chosen(scores) == [place for place, score in enumerate(scores) if score >= THRESHOLD]
        assert {place for place, logit in enumerate(row) if logit >= 0} <= set(meaning.chosen(scores))


def test_each_piece_has_scores_of_its_own() -> None:
    meaning = TASKS[Task.TAGGING]
    values = np.array([[[1, 2, 3], [3, 2, 1]], [[0, 0, 0], [-1, 0, 1]]], np.float32)  # (B, T, L)
    scores = meaning.scores(values)
    for text in range(2):
        assert (scores[text] == softmax(values[text])).all()
    assert meaning.chosen([0.5, 0.5]) == []


def test_numbers_choose_no_label() -> None:
    meaning = TASKS[Task.REGRESSION]
    assert meaning.scores(np.array([[2.5, -1]], np.float32)).tolist() == [[2.5, -1]]
    assert meaning.chosen([2.5, -1]) == []
