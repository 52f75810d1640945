"""Every student is blind to padding, whatever way its states are computed. The tests run over the table."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from export.students import STUDENTS, Shape, count_parameters

SHAPE = Shape(vocabulary=30, embedding=7, hidden=5, dense=6, labels=3)

pytestmark = pytest.mark.parametrize("name", STUDENTS)
lengths_of_rows = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def random_student(name: str, dropout: float = 0.0) -> nn.Module:
    """Large weights, and no bias is zero: zero biases hide a backward LSTM that reads the padding."""
    torch.manual_seed(0)
    student = STUDENTS[name](Shape(*SHAPE.__dict__.values()) if not dropout else Shape(30, 7, 5, 6, 3, dropout))
    for parameter in student.parameters():
        nn.init.normal_(parameter, 0, 0.7)
    return student.eval()


def padded(lengths: list[int], width: int, pad: int, seed: int = 1) -> Tensor:
    """Random rows (B, width), the same for a seed whatever the width, and `pad` behind each."""
    torch.manual_seed(seed)
    ids = torch.randint(0, SHAPE.vocabulary, (len(lengths), 9))
    ids = nn.functional.pad(ids, (0, max(0, width - 9)))[:, :width]
    return ids.masked_fill(torch.arange(width) >= torch.tensor(lengths)[:, None], pad)


@torch.inference_mode()
def logits_of(student: nn.Module, ids: Tensor, lengths: list[int]) -> Tensor:
    logits: Tensor = student(ids, torch.tensor(lengths))
    return logits


@given(lengths=lengths_of_rows, more=st.integers(1, 8), pad=st.integers(0, SHAPE.vocabulary - 1))
def test_padding_never_changes_logits(name: str, lengths: list[int], more: int, pad: int) -> None:
    student, width = random_student(name), max(lengths)
    wide = logits_of(student, padded(lengths, width + more, pad), lengths)
    narrow = logits_of(student, padded(lengths, width, 0), lengths)
    torch.testing.assert_close(wide, narrow, atol=1e-5, rtol=0)


@given(lengths=lengths_of_rows)
def test_neighbours_never_change_logits(name: str, lengths: list[int]) -> None:
    student = random_student(name)
    ids = padded(lengths, max(lengths), 0)
    together = logits_of(student, ids, lengths)
    alone = [logits_of(student, ids[i : i + 1, :length], [length]) for i, length in enumerate(lengths)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


@given(rows=st.integers(1, 5), length=st.integers(1, 8))
def test_the_fast_path_equals_the_packed_one(name: str, rows: int, length: int) -> None:
    student = random_student(name)
    ids = padded([length] * rows, length + 1, 0)
    fast = logits_of(student, ids[:, :length], [length] * rows)  # nothing is padding
    packed = logits_of(student, ids, [length] * rows)
    torch.testing.assert_close(fast, packed, atol=1e-5, rtol=0)


def test_both_paths_give_the_same_gradients(name: str) -> None:
    gradients = []
    for width in (4, 5):
        student = random_student(name)
        student(padded([4, 4], width, 0), torch.tensor([4, 4])).square().sum().backward()
        gradients.append([parameter.grad for parameter in student.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-4)


def test_every_word_counts(name: str) -> None:
    student, ids = random_student(name), padded([6], 6, 0)
    before = logits_of(student, ids, [6])
    for place in range(6):
        changed = ids.clone()
        changed[0, place] = (ids[0, place] + 1) % SHAPE.vocabulary
        assert (logits_of(student, changed, [6]) - before).abs().max() > 1e-4


def test_logits_have_a_column_for_each_label(name: str) -> None:
    assert logits_of(random_student(name), padded([3, 1], 3, 0), [3, 1]).shape == (2, SHAPE.labels)


def test_dropout_is_for_training_only(name: str) -> None:
    student, ids = random_student(name, dropout=0.5), padded([5, 5], 5, 0)
    assert torch.equal(logits_of(student, ids, [5, 5]), logits_of(student, ids, [5, 5]))
    student.train()
    assert not torch.equal(logits_of(student, ids, [5, 5]), logits_of(student, ids, [5, 5]))


def test_weights_are_counted_with_and_without_the_table(name: str) -> None:
    count = count_parameters(random_student(name))
    assert count.total - count.without_embeddings == SHAPE.vocabulary * SHAPE.embedding
    lstm = 2 * 4 * SHAPE.hidden * (SHAPE.embedding + SHAPE.hidden + 2)
    assert name != "bilstm" or count.without_embeddings == lstm + (2 * 5 + 1) * 6 + (6 + 1) * 3
