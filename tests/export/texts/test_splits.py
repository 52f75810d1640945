"""Few labels: so many of each, the rest without theirs, none twice, none lost, and the same for teacher and student."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.data import Data
from export.errors import DataError
from export.texts.answers import Answers
from export.texts.datasets import Example
from export.texts.splits import Examples, few, few_of_each_label, hold_out
from export.transfer.transfer_set import collect
from tests.toys.workshop import Shop

SEEDS = st.integers(0, 2**32 - 1)
ROWS = st.lists(st.integers(0, 3), min_size=1, max_size=40).map(
    lambda labels: tuple(Example(f"text {i}", label) for i, label in enumerate(labels))
)


def of_both(one: Examples, other: Examples) -> list[Example]:
    return sorted((*one, *other), key=lambda example: int(str(example.text).split()[1]))


@given(ROWS, st.integers(1, 12), SEEDS)
def test_so_many_of_each_label_learn_and_the_rest_is_the_rest(rows: Examples, count: int, seed: int) -> None:
    chosen, rest = few_of_each_label(rows, count, seed)
    there = Counter(example.label for example in rows)
    assert Counter(example.label for example in chosen) == {label: min(count, n) for label, n in there.items()}
    assert of_both(chosen, rest) == list(rows)
    assert few_of_each_label(rows, count, seed) == (chosen, rest)


@given(ROWS, st.integers(1, 50), SEEDS)
def test_so_many_rows_learn_whatever_their_labels(rows: Examples, count: int, seed: int) -> None:
    chosen, rest = few(rows, count, seed)
    assert len(chosen) == min(count, len(rows))
    assert of_both(chosen, rest) == list(rows)
    assert few(rows, count, seed) == (chosen, rest)


@given(ROWS, st.floats(0.01, 0.99), SEEDS)
def test_what_selects_does_not_learn(rows: Examples, share: float, seed: int) -> None:
    if len(rows) < 2:
        with pytest.raises(DataError, match="has a single row"):
            hold_out(rows, share, seed)
        return
    learn, select = hold_out(rows, share, seed)
    assert len(select) == min(max(round(share * len(rows)), 1), len(rows) - 1)
    assert of_both(learn, select) == list(rows)
    assert hold_out(rows, share, seed) == (learn, select)


@given(ROWS, SEEDS)
def test_fewer_labels_are_some_of_more_labels(rows: Examples, seed: int) -> None:
    """So a curve over the number of labels compares like with like."""
    chosen = [set(few_of_each_label(rows, count, seed)[0]) for count in (1, 2, 5)]
    assert chosen[0] <= chosen[1] <= chosen[2]


def test_other_seeds_choose_other_rows() -> None:
    rows = tuple(Example(f"text {i}", i % 2) for i in range(60))
    for way in (few_of_each_label, few):
        assert len({way(rows, 5, seed)[0] for seed in range(10)}) > 8
    assert len({hold_out(rows, 0.1, seed)[1] for seed in range(10)}) > 8


@given(st.lists(st.integers(0, 5), min_size=2, max_size=40), st.floats(0.01, 0.99), SEEDS)
def test_questions_about_one_text_stand_on_one_side(abouts: list[int], share: float, seed: int) -> None:
    rows = tuple(Example((f"question {i}", f"text {about}"), Answers((), ())) for i, about in enumerate(abouts))
    if len(set(abouts)) < 2:
        with pytest.raises(DataError, match="all questions are about one text"):
            hold_out(rows, share, seed)
        return
    learn, select = hold_out(rows, share, seed)
    assert sorted((*learn, *select), key=rows.index) == list(rows)
    assert learn
    assert select
    assert not {row.text[1] for row in learn} & {row.text[1] for row in select}
    assert hold_out(rows, share, seed) == (learn, select)


def test_of_many_texts_about_the_share_selects() -> None:
    rows = tuple(Example((f"question {i}", f"text {i // 4}"), Answers((), ())) for i in range(200))
    assert len(hold_out(rows, 0.1, seed=3)[1]) == 20


def test_what_selects_has_the_labels_in_their_shares() -> None:
    rows = tuple(Example(f"text {i}", int(i % 10 == 0)) for i in range(200))
    _, select = hold_out(rows, 0.1, seed=3)
    assert Counter(example.label for example in select) == {0: 18, 1: 2}


@pytest.mark.parametrize("few_rows", [{"per_label": 20}, {"rows": 30}])
def test_a_teacher_and_its_student_take_the_same_rows(shop: Shop, few_rows: dict[str, int]) -> None:
    """Whatever the seeds of their training are."""
    table = {"train": str(shop.train), "labels": shop.data["labels"], "seed": 7} | few_rows
    teaching = shop.teach_recipe(data=table, seed=1).data.read()
    distilling = shop.distill_recipe(Path("none"), data=table, seed=2).data.read()
    assert teaching == distilling
    assert len(teaching.train) == few_rows.get("rows", 40)
    assert len(teaching.dev) == 20
    assert Data.model_validate(table | {"seed": 8}).read().train != teaching.train


def test_the_rest_lends_its_texts_and_none_of_dev(shop: Shop) -> None:
    recipe = shop.distill_recipe(Path("none"), data=shop.data | {"per_label": 20}, transfer={})
    data = recipe.data.read()
    found = collect(data, recipe.transfer, "", seed=1)
    assert [len(group) for group in found.groups] == [40, 160]
    assert found.labels[40:] == (None,) * 160
    assert not {example.text for example in data.dev} & set(found.texts)
