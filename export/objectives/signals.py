"""What a teacher says of texts, what a student gives for a batch, and what it is held against. Plain arrays; nothing
here knows networks or texts.

R counts what carries an answer: the rows of a batch, or, for a tagger, all their pieces one behind the other.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class Stacked:
    """Arrays (…, H) that may lie on disk, read as one: only the rows that are asked for are fetched."""

    def __init__(self, parts: Sequence[NDArray[np.float16]]) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])

    @property
    def shape(self) -> tuple[int, ...]:
        """(R, H)"""
        return int(self._ends[-1]), *self._parts[0].shape[1:]

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, places: NDArray[np.int64]) -> NDArray[np.float16]:
        """(B,) -> (B, H)"""
        which = np.searchsorted(self._ends, places, side="right")
        found = np.empty((len(places), *self.shape[1:]), dtype=np.float16)
        for part in np.unique(which):
            mine = which == part
            start = self._ends[part] - len(self._parts[part])
            found[mine] = self._parts[part][places[mine] - start]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.concatenate(self._parts).astype(dtype or np.float16, copy=False)

    def parts(self) -> Iterator[NDArray[np.float16]]:
        """One behind the other."""
        yield from self._parts


class Pieces(NamedTuple):
    """Which pieces of N texts a tagger answered for, special tokens left out."""

    counts: NDArray[np.int64]  # (N,): of each text
    places: NDArray[np.int32]  # (R, 2): from which character of its text each one stands to before which

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Where each text's begin, and where the last one's end: (N + 1,)."""
        return np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)


class Signals(NamedTuple):
    """A teacher's, of texts in their order."""

    logits: NDArray[np.float32]  # (R, L)
    hidden: NDArray[np.float16] | Stacked | None = None  # (R, H): states of one of its layers, where asked for
    pieces: Pieces | None = None  # of a tagger


def hidden_parts(signals: Signals) -> list[NDArray[np.float16]]:
    """The hidden states as they lie: none, one array or several."""
    if signals.hidden is None:
        return []
    return list(signals.hidden.parts()) if isinstance(signals.hidden, Stacked) else [signals.hidden]


class StatesShape(NamedTuple):
    """Of the hidden states that a teacher gives."""

    layers: int  # 0: it gives none
    width: int


def stretches(offsets: NDArray[np.int64], rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """The places of all that belongs to these rows, (N + 1,), (B,) -> (R,)."""
    return np.concatenate([np.zeros(0, dtype=np.int64), *(np.arange(offsets[i], offsets[i + 1]) for i in rows)])


class Output(NamedTuple):
    """A student's."""

    logits: Tensor  # (R, L)
    representation: Tensor  # (R, D): the layer below the logits, which can learn a teacher's hidden states

    def exact(self) -> "Output":
        """In fp32, whatever arithmetic it comes from."""
        return Output(self.logits.float(), self.representation.float())


class Target(NamedTuple):
    """The teacher's signals and the labels that there are."""

    logits: Tensor  # (R, L)
    labels: Tensor  # (R,) or (R, L); what stands for "none" is the objective's matter
    hidden: Tensor | None = None  # (R, H): states of one of its layers
