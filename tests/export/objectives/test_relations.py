"""What stands inside two transformers is compared as the papers say: held against plain loops over rows and heads."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from export.objectives.relations import COMPARISONS, Inside, attention_mse, minilm, relation_kl, states_mse, tinybert

Array = NDArray[np.float64]
HEADS = 2


def inside(width: int, seed: int, lengths: tuple[int, ...] = (5, 3), layers: int = 2) -> Inside:
    generator = torch.Generator().manual_seed(seed)

    def some(count: int) -> tuple[Tensor, ...]:
        return tuple(torch.randn(len(lengths), max(lengths), width, generator=generator) for _ in range(count))

    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return Inside(mask, some(layers + 1), some(layers), some(layers), some(layers))


def scores(queries: Tensor, keys: Tensor, row: int, head: int, length: int) -> Array:
    """Of one head of one row without its padding: (length, length)."""
    width = queries.shape[2] // HEADS
    part = slice(head * width, (head + 1) * width)
    ours, theirs = (np.asarray(each[row, :length, part], dtype=np.float64) for each in (queries, keys))
    found: Array = ours @ theirs.T / math.sqrt(width)
    return found


def softmax(values: Array) -> Array:
    powers: Array = np.exp(values)
    shares: Array = powers / powers.sum(axis=1, keepdims=True)
    return shares


def kl(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], lengths: tuple[int, ...]) -> float:
    found = []
    for row, length in enumerate(lengths):
        for head in range(HEADS):
            theirs, ours = (softmax(scores(*pair, row, head, length)) for pair in (teacher, student))
            found.extend((theirs * np.log(theirs / ours)).sum(axis=1))
    return float(np.mean(found))


def mse(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], lengths: tuple[int, ...]) -> float:
    found = [
        (scores(*student, row, head, length) - scores(*teacher, row, head, length)).ravel() ** 2
        for row, length in enumerate(lengths)
        for head in range(HEADS)
    ]
    return float(np.concatenate(found).mean())


rows = st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple)


@given(lengths=rows, seed=st.integers(0, 99))
def test_minilm_is_the_sum_of_two_divergences_of_the_last_layer(lengths: tuple[int, ...], seed: int) -> None:
    student, teacher = inside(4, seed, lengths), inside(8, seed + 1, lengths)
    ours, theirs = (student.queries[-1], student.keys[-1]), (teacher.queries[-1], teacher.keys[-1])
    values = (student.values[-1],) * 2, (teacher.values[-1],) * 2
    wanted = kl(ours, theirs, lengths) + kl(*values, lengths)
    assert minilm(student, teacher, HEADS).value.item() == pytest.approx(wanted, rel=1e-4, abs=1e-6)


@given(lengths=rows, seed=st.integers(0, 99))
def test_tinybert_is_the_sum_of_squared_errors_of_scores_and_states(lengths: tuple[int, ...], seed: int) -> None:
    student, teacher = inside(8, seed, lengths), inside(8, seed + 1, lengths)
    wanted = sum(
        mse((student.queries[layer], student.keys[layer]), (teacher.queries[layer], teacher.keys[layer]), lengths)
        for layer in range(2)
    )
    real = student.mask.bool()
    wanted += sum(
        float(((ours - theirs)[real] ** 2).mean()) for ours, theirs in zip(student.states, teacher.states, strict=True)
    )
    assert tinybert(student, teacher, HEADS).value.item() == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("compare", COMPARISONS.values(), ids=COMPARISONS.keys())
def test_a_student_that_is_its_teacher_has_nothing_to_learn(compare: object) -> None:
    both = inside(8, seed=0)
    assert compare(both, both, HEADS).value.item() == pytest.approx(0, abs=1e-6)  # type: ignore[operator]


@pytest.mark.parametrize("compare", COMPARISONS.values(), ids=COMPARISONS.keys())
@pytest.mark.parametrize("lengths", [(5, 3), (1, 5)])
def test_padding_never_counts(compare: object, lengths: tuple[int, ...]) -> None:
    """Neither in the loss nor in its gradient, which stays finite where whole rows of scores are masked."""
    found = []
    for stuff in (0.0, 1e4):
        student, teacher = inside(8, 0, lengths), inside(8, 1, lengths)
        padding = ~student.mask.bool()
        for whole in (student, teacher):
            for part in (part for parts in whole[1:] for part in parts):
                part[padding] = stuff
                part.requires_grad_(whole is student)
        loss = compare(student, teacher, HEADS).value  # type: ignore[operator]
        learning = [part for parts in student[1:] for part in parts]
        gradients = torch.autograd.grad(loss, learning, allow_unused=True)
        known = [gradient for gradient in gradients if gradient is not None]
        assert known
        assert all(bool((gradient[padding] == 0).all() and gradient.isfinite().all()) for gradient in known)
        found.append(loss.item())
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_the_order_of_rows_does_not_matter() -> None:
    student, teacher, turned = inside(8, 0), inside(8, 1), torch.tensor([1, 0])
    queries, keys, mask = student.queries[0], student.keys[0], student.mask
    others = teacher.queries[0], teacher.keys[0]
    for distance in (attention_mse, relation_kl):
        straight = distance(queries, keys, *others, mask, HEADS)
        around = distance(queries[turned], keys[turned], others[0][turned], others[1][turned], mask[turned], HEADS)
        assert straight.value.item() == pytest.approx(around.value.item())
    states = (student.states[0], teacher.states[0], student.mask)
    around = states_mse(*(part[turned] for part in states))
    assert states_mse(*states).value.item() == pytest.approx(around.value.item())
