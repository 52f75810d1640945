"""Metrics have the values that one gets by hand; rows come back in their order; wandering is seen."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from export.errors import DataError, ModelError
from export.measuring.evaluation import BATCH, IN_COMPANY, SHUFFLES, evaluate, predict, report, run_batches, wander
from export.tasks.metrics import METRICS, Metric, accuracy, decisions, macro_f1, micro_f1
from export.tasks.targets import targets_of
from export.texts.datasets import Columns, Example
from service.bundle.errors import MissingFile
from service.bundle.manifest import Precision, Task
from service.bundle.runtime import open_bundle
from tests.toys import toy
from tests.toys.workshop import Distilled

Logits = NDArray[np.float32]


def labels(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def row_wise(rows: Sequence[list[int]]) -> Logits:
    """Logits that depend on their own row only."""
    return np.array([[sum(row), len(row)] for row in rows], np.float32)


def looking_aside(rows: Sequence[list[int]]) -> Logits:
    """Logits that depend on the largest row of the batch."""
    return row_wise(rows) - np.array([0, max(map(sum, rows))], np.float32)


def test_logits_decide_as_the_task_reads_them() -> None:
    logits = np.array([[-1, 2], [3, -4], [0, 0]], np.float32)
    assert decisions(Task.SINGLE_LABEL, logits).tolist() == [[1], [0], [0]]
    assert decisions(Task.MULTI_LABEL, logits).tolist() == [[0, 1], [1, 0], [1, 1]]
    assert decisions(Task.REGRESSION, logits).tolist() == [[], [], []]


def test_metrics_by_hand() -> None:
    predicted, truth = labels(0, 1, 1, 0, 2, 2), labels(0, 1, 0, 0, 2, 1)
    assert accuracy(predicted, truth) == pytest.approx(4 / 6)
    # label 0: precision 1, recall 2/3; label 1: precision 1/2, recall 1/2; label 2: precision 1/2, recall 1
    assert macro_f1(predicted, truth) == pytest.approx((0.8 + 0.5 + 2 / 3) / 3)


BY_HAND = {
    Task.SINGLE_LABEL: (np.eye(3), 1 - np.eye(3), labels(0, 1, 2)),
    Task.MULTI_LABEL: (np.eye(3) - 0.5, 0.5 - np.eye(3), np.eye(3)),
}


@pytest.mark.parametrize(
    ("task", "metric"),
    [pytest.param(task, metric, id=name) for task in BY_HAND for name, metric in METRICS[task].items()],
)
def test_all_right_is_1_and_all_wrong_is_0(task: Task, metric: Metric) -> None:
    right, wrong, targets = BY_HAND[task]
    assert metric(right.astype(np.float32), targets.astype(np.float32)) == 1
    assert metric(wrong.astype(np.float32), targets.astype(np.float32)) == 0


@pytest.mark.parametrize("metric", METRICS[Task.REGRESSION].values(), ids=METRICS[Task.REGRESSION].keys())
def test_numbers_that_rise_alike_correlate(metric: Metric) -> None:
    wanted = np.array([[1, 4], [2, 6], [5, 3]], np.float32)
    assert metric(wanted * 3 + 1, wanted) == pytest.approx(1)
    assert metric(-wanted, wanted) == pytest.approx(-1)
    assert metric(np.zeros_like(wanted), wanted) == 0  # nothing varies


def test_micro_f1_by_hand() -> None:
    predicted, truth = np.array([[1, 1, 0], [0, 0, 1]]), np.array([[1, 0, 0], [0, 1, 1]])
    assert micro_f1(predicted, truth) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert accuracy(predicted, truth) == 0


def test_a_split_with_one_label_only_can_be_measured() -> None:
    assert macro_f1(labels(1, 1), labels(1, 1)) == 1
    assert macro_f1(labels(1, 0), labels(1, 1)) == pytest.approx((0 + 2 / 3) / 2)


def test_a_report_names_rows_metrics_and_agreement() -> None:
    logits = np.array([[2, 1], [0, 1], [3, 0]], np.float32)
    found = report(Task.SINGLE_LABEL, logits, labels(0, 1, 1), np.array([[1, 0], [1, 0], [1, 0]], np.float32))
    assert found.rows == 3
    assert found.agreement == pytest.approx(2 / 3)
    assert found.metrics["accuracy"] == pytest.approx(2 / 3)
    assert str(found) == "3 rows; accuracy 0.6667, macro-F1 0.6667, agreement with the teacher 0.6667"
    assert report(Task.SINGLE_LABEL, logits, labels(0, 1, 1)).agreement is None


def test_agreement_is_of_whole_rows_and_numbers_have_none() -> None:
    ours, theirs = np.array([[1, -1], [1, 1]], np.float32), np.array([[2, -3], [1, -1]], np.float32)
    assert report(Task.MULTI_LABEL, ours, np.ones((2, 2), np.float32), theirs).agreement == 0.5
    assert report(Task.REGRESSION, ours, np.ones((2, 2), np.float32), theirs).agreement is None


@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=3 * BATCH), seed=st.integers(0, 99))
def test_rows_come_back_in_their_own_order(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, 9, size=length).tolist() for length in lengths]
    order = rng.permutation(len(rows)).tolist()
    assert np.array_equal(run_batches(row_wise, rows, order), row_wise(rows))


def test_batches_are_never_larger_than_agreed() -> None:
    sizes: list[int] = []

    def run(rows: Sequence[list[int]]) -> Logits:
        sizes.append(len(rows))
        return row_wise(rows)

    run_batches(run, [[1]] * (2 * BATCH + 3), list(range(2 * BATCH + 3)))
    assert sizes == [BATCH, BATCH, 3]


def test_what_minds_its_own_row_does_not_wander() -> None:
    rows = [[i] * (1 + i % 5) for i in range(50)]
    found = wander(row_wise, rows)
    assert (found.largest, found.flips) == (0, 0)
    assert np.array_equal(found.alone, row_wise(rows))


def test_what_looks_at_its_neighbours_wanders() -> None:
    found = wander(looking_aside, [[i] for i in range(50)])
    assert found.largest > 0
    assert 0 < found.flips <= 1


@pytest.mark.parametrize("rows", [IN_COMPANY, IN_COMPANY + 40])
def test_of_many_rows_some_are_shuffled_and_all_are_run_alone(rows: int) -> None:
    """Batches of mixed lengths are mostly padding, and a large teacher takes long for them."""
    asked: Counter[int] = Counter()

    def run(batch: Sequence[list[int]]) -> Logits:
        asked[min(len(batch), 2)] += len(batch)
        return looking_aside(batch)

    found = wander(run, [[i] for i in range(rows)])
    assert asked == {1: rows, 2: SHUFFLES * IN_COMPANY}
    assert len(found.alone) == rows
    assert found.largest > 0
    assert 0 < found.flips <= 1


def test_wander_is_seeded() -> None:
    rows = [[i] for i in range(50)]
    one, same = (wander(looking_aside, rows, seed=1) for _ in range(2))
    assert (one.largest, one.flips) == (same.largest, same.flips)


def test_a_bundle_is_scored_as_it_is_served(toy_student: Path, toy_teacher: Path, tmp_path: Path) -> None:
    bundle, teacher = open_bundle(toy_student), open_bundle(toy_teacher)
    texts = ["good film", "", "a very dull film .", "the film is not bad"] * 20
    examples = [Example(text, i % len(toy.LABELS)) for i, text in enumerate(texts)]
    path = tmp_path / "test.tsv"
    path.write_text("text\tlabel\n" + "".join(f"{row.text}\t{row.label}\n" for row in examples))
    found = evaluate(toy_student, Precision.EXACT, str(path), Columns(), toy_teacher)
    alone = np.concatenate([bundle.classify([text]) for text in texts])
    assert found.rows == 80
    assert found.metrics["accuracy"] == accuracy(
        alone.argmax(axis=1), targets_of(examples, Task.SINGLE_LABEL, len(toy.LABELS))
    )
    assert found.agreement == accuracy(alone.argmax(axis=1), predict(teacher, texts).argmax(axis=1))
    assert evaluate(toy_student, Precision.EXACT, str(path), Columns(), None).agreement is None


def test_what_cannot_be_scored_is_refused(toy_student: Path, distilled: Distilled, tmp_path: Path) -> None:
    path = tmp_path / "test.tsv"
    path.write_text("text\tlabel\n")
    with pytest.raises(DataError, match="has no rows"):
        evaluate(toy_student, Precision.EXACT, str(path), Columns(), None)
    path.write_text("text\tlabel\ngood\t1\n")
    with pytest.raises(ModelError, match=r"knows the labels negative, positive; .* knows bad"):
        evaluate(toy_student, Precision.EXACT, str(path), Columns(), distilled.bundle)
    with pytest.raises(MissingFile):
        evaluate(tmp_path, Precision.EXACT, str(path), Columns(), None)
