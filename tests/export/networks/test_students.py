"""Every student is blind to padding, whatever way its states are computed. The tests run over the table."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from export.networks.students import STUDENTS, Activation, Form, Pooling, Recurrent, Shape, count_parameters
from export.objectives.signals import Output

SHAPE = Shape(vocabulary=30, embedding=7, hidden=5, dense=6, labels=3)
NAMES = {network: name for name, network in reversed(list(STUDENTS.items()))}.values()
"""Of each network one; some stand in the table twice."""
OTHER = replace(SHAPE, pooling=Pooling.MAX, activation=Activation.GELU, channels=2)

Kind = tuple[tuple[str, Form], Shape]
KINDS: dict[str, Kind] = {
    f"{'-'.join(name)}{note}": (name, shape) for name in NAMES for note, shape in (("", SHAPE), (", other", OTHER))
}

pytestmark = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
lengths_of_rows = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def random_student(kind: Kind, dropout: float = 0.0) -> Recurrent:
    """Large weights, and no bias is zero: zero biases hide a backward LSTM that reads the padding."""
    torch.manual_seed(0)
    name, shape = kind
    student = STUDENTS[name](replace(shape, dropout=dropout))
    for parameter in (*student.parameters(), *student.buffers()):
        nn.init.normal_(parameter, 0, 0.7)
    return student.eval()


same_student = cache(random_student)
"""For tests of many examples, which change nothing in it."""


def padded(lengths: list[int], width: int, pad: int, seed: int = 1) -> Tensor:
    """Random rows (B, width), the same for a seed whatever the width, and `pad` behind each."""
    torch.manual_seed(seed)
    ids = torch.randint(0, SHAPE.vocabulary, (len(lengths), 9))
    ids = nn.functional.pad(ids, (0, max(0, width - 9)))[:, :width]
    return ids.masked_fill(torch.arange(width) >= torch.tensor(lengths)[:, None], pad)


def rows_of(student: Recurrent, ids: Tensor, lengths: list[int]) -> list[Tensor]:
    """What a student takes; the second text of a pair is the first one turned round."""
    whole = torch.tensor(lengths)
    if student.inputs == 1:
        return [ids, whole]
    turned = ids.clone()
    for row, length in zip(turned, lengths, strict=True):
        row[:length] = row[:length].flip(0)
    return [ids, whole, turned, whole]


@torch.inference_mode()
def logits_of(student: Recurrent, ids: Tensor, lengths: list[int]) -> Tensor:
    output: Output = student(*rows_of(student, ids, lengths))
    return output.logits


@given(lengths=lengths_of_rows, more=st.integers(1, 8), pad=st.integers(0, SHAPE.vocabulary - 1))
def test_padding_never_changes_logits(kind: Kind, lengths: list[int], more: int, pad: int) -> None:
    student, width = same_student(kind), max(lengths)
    wide = logits_of(student, padded(lengths, width + more, pad), lengths)
    narrow = logits_of(student, padded(lengths, width, 0), lengths)
    torch.testing.assert_close(wide, narrow, atol=1e-5, rtol=0)


@given(lengths=lengths_of_rows)
def test_neighbours_never_change_logits(kind: Kind, lengths: list[int]) -> None:
    student = same_student(kind)
    ids = padded(lengths, max(lengths), 0)
    together = logits_of(student, ids, lengths)
    alone = [logits_of(student, ids[i : i + 1, :length], [length]) for i, length in enumerate(lengths)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


@given(rows=st.integers(1, 5), length=st.integers(1, 8))
def test_rows_of_one_length_need_no_turning(kind: Kind, rows: int, length: int) -> None:
    student = same_student(kind)
    ids = padded([length] * rows, length + 1, 0)
    whole = logits_of(student, ids[:, :length], [length] * rows)  # nothing is padding
    turned = logits_of(student, ids, [length] * rows)
    torch.testing.assert_close(whole, turned, atol=1e-5, rtol=0)


class Packed:
    """The BiLSTM of a student over torch's packed sequences, which its own must equal."""

    def __init__(self, student: Recurrent) -> None:
        self._lstm, self._embed = student.lstm, student._embed

    def __call__(self, input_ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        rows = pack_padded_sequence(self._embed(input_ids), lengths, batch_first=True, enforce_sorted=False)
        found, (last, _) = self._lstm(rows)
        states, _ = pad_packed_sequence(found, batch_first=True, total_length=input_ids.shape[1])
        return states, last


@given(lengths=lengths_of_rows, more=st.integers(0, 2))
def test_states_and_gradients_are_those_of_packed_sequences(kind: Kind, lengths: list[int], more: int) -> None:
    found = []
    for reference in (False, True):
        student = same_student(kind)
        if reference:
            student._run = Packed(student)  # type: ignore[method-assign]
        logits = student(*rows_of(student, padded(lengths, max(lengths) + more, 0), lengths)).logits
        logits.square().sum().backward()
        found.append([logits.detach(), *(parameter.grad for parameter in student.parameters())])
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


def test_every_word_counts(kind: Kind) -> None:
    student, ids = random_student(kind), padded([6], 6, 0)
    before = logits_of(student, ids, [6])
    for place in range(6):
        changed = ids.clone()
        changed[0, place] = (ids[0, place] + 1) % SHAPE.vocabulary
        assert (logits_of(student, changed, [6]) - before).abs().max() > 1e-4


def test_logits_have_a_column_for_each_label(kind: Kind) -> None:
    form = kind[0][1]
    answers, labels = 4 if form is Form.PIECES else 2, SHAPE.dense if form is Form.VECTOR else SHAPE.labels
    student, ids = random_student(kind), padded([3, 1], 3, 0)
    assert logits_of(student, ids, [3, 1]).shape == (answers, labels)
    width = student.compared * SHAPE.dense
    assert student(*rows_of(student, ids, [3, 1])).representation.shape == (answers, width)


def test_dropout_is_for_training_only(kind: Kind) -> None:
    student, ids = random_student(kind, dropout=0.5), padded([5, 5], 5, 0)
    assert torch.equal(logits_of(student, ids, [5, 5]), logits_of(student, ids, [5, 5]))
    student.train()
    assert not torch.equal(logits_of(student, ids, [5, 5]), logits_of(student, ids, [5, 5]))


def test_weights_are_counted_with_and_without_the_table(kind: Kind) -> None:
    student = random_student(kind)
    count, shape = count_parameters(student), student.shape
    assert count.total - count.without_embeddings == shape.vocabulary * shape.embedding
    lstm = 2 * 4 * shape.hidden * (shape.channels * shape.embedding + shape.hidden + 2)
    head = 0 if kind[0][1] is Form.VECTOR else (student.compared * 6 + 1) * 3
    assert count.without_embeddings == lstm + (student.vectors * 2 * 5 + 1) * 6 + head


def test_a_student_begins_with_the_embeddings_it_is_given(kind: Kind) -> None:
    student = random_student(kind)
    table = torch.randn(SHAPE.vocabulary, SHAPE.embedding)
    student.begin_with(table)
    assert torch.equal(student.table(), torch.cat([table] * student.shape.channels, dim=1))
    loss = student(*rows_of(student, padded([4, 2], 4, 0), [4, 2])).logits.square().sum()
    loss.backward()
    assert student.get_parameter("embedding.weight").grad is not None
    assert not any(buffer.requires_grad for buffer in student.buffers())  # the static channel never learns
