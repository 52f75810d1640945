"""What logits mean."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from service.bundle.manifest import Task
from service.bundle.tasks import TASKS, softmax

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


@given(logits)
def test_softmax_keeps_the_order_of_the_logits(values: np.ndarray) -> None:
    ascending = np.take_along_axis(softmax(values), values.argsort(axis=1), 1)
    assert (np.diff(ascending, axis=1) >= 0).all()


@pytest.mark.parametrize("row", [[-90, 5], [5, -90], [3e38, -3e38], [0, 0]])
def test_softmax_survives_extremes(row: list[float]) -> None:
    scores = softmax(np.array([row], np.float32))
    assert np.isfinite(scores).all()
    assert scores.sum() == pytest.approx(1)


def test_softmax_is_what_the_formula_says() -> None:
    values = np.array([[1.0, 2.0, 3.0]], np.float32)
    assert softmax(values)[0] == pytest.approx(np.exp([1, 2, 3]) / np.exp([1, 2, 3]).sum())


def test_every_task_has_its_arithmetic() -> None:
    assert set(TASKS) == set(Task)
    assert TASKS[Task.SINGLE_LABEL].width(3) == 3
