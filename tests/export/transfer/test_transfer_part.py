"""A stage may learn from a part of the transfer set: those rows as they are, nothing copied, labels found."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from export.errors import ModelError
from export.objectives.signals import Signals
from export.sections import HiddenStates
from export.tasks.metrics import Targets
from export.teachers.hugging_face import Teacher
from export.texts.unlabelled import UNLABELLED
from export.transfer.labelling import label
from export.transfer.transfer_set import Batch, Tokens, TransferSet

CPU = torch.device("cpu")


def of_rows(rows: list[list[int]], pieces: bool) -> TransferSet:
    """Signals count up, a row or a piece; each third is labelled."""
    tokens = Tokens.of(rows, pad_id=0)
    count = len(tokens.flat) if pieces else len(rows)
    numbers = np.arange(count)
    labels = np.where(numbers % 3 == 0, 1, UNLABELLED)
    return TransferSet((tokens,), Signals(numbers[:, None].astype(np.float32)), labels, pieces)


def places(batch: Batch) -> list[float]:
    return batch.target.logits[:, 0].tolist()


ROWS = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=12)


@given(ROWS, st.booleans(), st.data())
def test_a_part_gives_the_rows_that_the_whole_gives(rows: list[list[int]], pieces: bool, data: st.DataObject) -> None:
    whole = of_rows(rows, pieces)
    chosen = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, unique=True)))
    part = whole.part(chosen)
    assert len(part) == len(chosen)
    assert part.lengths.tolist() == whole.lengths[chosen].tolist()
    one, same = part.batch(np.arange(len(chosen)), CPU), whole.batch(chosen, CPU)
    assert places(one) == places(same)
    assert torch.equal(one.target.labels, same.target.labels)
    assert torch.equal(one.inputs[0], same.inputs[0])
    assert part.signals is whole.signals
    again = part.part(np.array([len(chosen) - 1]))
    assert places(again.batch(np.array([0]), CPU)) == places(whole.batch(chosen[-1:], CPU))
    assert set(chosen[part.labelled]) == set(chosen) & set(whole.labelled)


@pytest.mark.parametrize(
    ("targets", "found"),
    [
        (np.array([1, UNLABELLED, 0, UNLABELLED]), [0, 2]),
        (np.array([[1, 0], [np.nan, np.nan], [0, 0], [np.nan, np.nan]], np.float32), [0, 2]),
    ],
    ids=["one label", "several labels or numbers"],
)
def test_rows_with_labels_are_found(targets: Targets, found: list[int]) -> None:
    tokens = Tokens.of([[1], [2], [3], [4]], pad_id=0)
    assert TransferSet((tokens,), Signals(np.zeros((4, 2), np.float32)), targets).labelled.tolist() == found


def test_a_row_is_labelled_where_one_of_its_pieces_is() -> None:
    tokens = Tokens.of([[1, 2], [3], [4, 5, 6]], pad_id=0)
    targets: NDArray[np.int64] = np.array([UNLABELLED, 2, UNLABELLED, 0, UNLABELLED, UNLABELLED])
    assert TransferSet((tokens,), Signals(np.zeros((6, 3), np.float32)), targets, pieces=True).labelled.tolist() == [
        0,
        2,
    ]


def test_states_that_float16_cannot_hold_are_refused(taught: Path, tmp_path: Path) -> None:
    teacher = Teacher.load(str(taught), max_tokens=64)
    with torch.no_grad():
        teacher.model.get_parameter("bert.encoder.layer.0.output.LayerNorm.weight").mul_(1e6)
    with pytest.raises(ModelError, match=r"teacher\.hidden: this layer's states are greater than float16 holds"):
        label(teacher, (("the film is good",),), HiddenStates(layer=1), tmp_path)
    assert not list(tmp_path.glob("*.npy"))
