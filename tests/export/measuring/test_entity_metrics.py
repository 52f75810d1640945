"""Entity F1 is seqeval's, and every task has all its halves."""

from collections.abc import Collection, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.publishing import card
from export.tasks.learnt import LEARNING
from export.tasks.metrics import METRICS, count_rows, find_entities, selecting
from export.tasks.targets import TARGETS
from export.texts.datasets import CELLS
from service.bundle.manifest import FEWEST_LABELS, Task
from service.bundle.spans import Tag
from service.bundle.tasks import TASKS
from tests.export.measuring.seqeval_cases import LABELS, Case, Rows, read_cases


def places(rows: Rows, labels: Sequence[str]) -> np.ndarray:
    """(W, 2): the row and the tag of each word."""
    return np.array([(i, labels.index(tag)) for i, row in enumerate(rows) for tag in row], dtype=np.int64)


def logits(rows: Rows, labels: Sequence[str]) -> np.ndarray:
    """(W, L): sure of these tags."""
    found: np.ndarray = np.eye(len(labels), dtype=np.float32)[places(rows, labels)[:, 1]]
    return found


@pytest.mark.parametrize("name", ["precision", "recall", "entity F1"])
def test_every_figure_is_seqevals(name: str) -> None:
    metric = METRICS[Task.TAGGING][name]
    cases = read_cases()
    assert len(cases) == 80
    for case in cases:
        figure = {"precision": case.precision, "recall": case.recall, "entity F1": case.f1}[name]
        assert metric(logits(case.found, LABELS), places(case.wanted, LABELS), LABELS) == pytest.approx(figure)


def test_the_kept_cases_are_of_all_kinds() -> None:
    figures = [case.f1 for case in read_cases()]
    assert min(figures) == 0
    assert max(figures) == 1
    assert len({round(figure, 3) for figure in figures}) > 20


def by_hand(row: Sequence[str]) -> set[tuple[str, int, int]]:
    """The entities of one row, word after word, as `service.bundle.spans` groups them."""
    found, start = set(), 0
    tags = [Tag.of(tag) for tag in row]
    for end in range(1, len(tags) + 1):
        if end == len(tags) or tags[end].begins or tags[end].label != tags[start].label:
            if tags[start].label != "O":
                found.add((tags[start].label, start, end))
            start = end
    return found


@given(rows=st.lists(st.lists(st.sampled_from(LABELS), min_size=1, max_size=6), min_size=1, max_size=4), data=st.data())
def test_entities_end_with_their_row_and_are_counted_once(rows: Rows, data: st.DataObject) -> None:
    other = [data.draw(st.lists(st.sampled_from(LABELS), min_size=len(row), max_size=len(row))) for row in rows]
    found = find_entities(logits(other, LABELS), places(rows, LABELS), LABELS)
    wanted = [by_hand(row) for row in rows]
    ours = [by_hand(row) for row in other]
    right = sum(len(one & two) for one, two in zip(wanted, ours, strict=True))
    assert found == (sum(map(len, wanted)), sum(map(len, ours)), right)


def test_names_without_a_prefix_are_one_entity_each_stretch() -> None:
    labels = ("PER", "O", "LOC")
    wanted, found = [["PER", "PER", "O", "LOC"]], [["PER", "O", "O", "LOC"]]
    assert find_entities(logits(found, labels), places(wanted, labels), labels) == (2, 2, 1)


def test_where_nothing_is_to_be_found_the_score_is_0() -> None:
    case = Case([["O", "O"]], [["O", "O"]], 0, 0, 0)
    assert selecting(Task.TAGGING)(logits(case.found, LABELS), places(case.wanted, LABELS), LABELS) == 0


def test_the_rows_of_words_are_counted() -> None:
    assert count_rows(Task.TAGGING, places([["O"], ["O", "O"], ["B-PER"]], LABELS)) == 3
    assert count_rows(Task.SINGLE_LABEL, np.zeros(5, np.int64)) == 5


def test_every_task_has_all_its_halves() -> None:
    served: tuple[Collection[Task], ...] = (TASKS, FEWEST_LABELS, card.TASKS)
    learnt: tuple[Collection[Task], ...] = (LEARNING, TARGETS, METRICS, CELLS)
    assert [set(table) for table in served] == [set(Task)] * 3
    for table in learnt:
        assert set(table) == set(Task) - {Task.EMBEDDING}  # a vector has no label from which it could be learnt
