"""Rows of token ids -> the padded arrays of one batch, in each of the forms that graphs take.

It knows which arrays a graph wants. It knows nothing of texts, tokenizers or what the graph computes.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.bundle.manifest import RECURRENT_INPUTS, SIAMESE_INPUTS, TRANSFORMER_INPUTS

Ids = NDArray[np.int64]
Feeds = dict[str, Ids]
"""What a graph is run with: name of the input -> (B, T), or (B,) for lengths."""


@dataclass(frozen=True, slots=True)
class Joined:
    """A pair in one sequence, as a BERT reads it."""

    ids: list[int]
    types: list[int]  # which of the two texts each token belongs to

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Passage(Joined):
    """A question and as much of a text as fits beside it: of a long text there are several, which overlap."""

    text: str  # all of it
    places: Sequence[tuple[int, int]]  # of each token: from which character of its text to before which
    word_ids: Sequence[int | None]  # of each token: which word of its text it belongs to
    tokens: range  # those of the text; the others are the question's, or special
    number: int  # which row of the call it is of


@dataclass(frozen=True, slots=True)
class Twins:
    """A pair in two sequences, as a siamese network reads it."""

    first: list[int]
    second: list[int]

    def __len__(self) -> int:
        return len(self.first) + len(self.second)


class Spanned(list[int]):
    """A text that is tagged piece by piece: its tokens, and where in it each one stands.

    It is a list of ids as a single text is without tags, since it is padded and run like one.
    """

    __slots__ = ("places", "text", "words")

    def __init__(
        self, ids: Iterable[int], text: str, places: Sequence[tuple[int, int]], words: Sequence[range]
    ) -> None:
        super().__init__(ids)
        self.text = text
        self.places = places
        """Of each token: from which character of the text to before which; Unicode code points."""
        self.words = words
        """Of each word: which tokens it is made of. Those of no word, such as [CLS], stand for no text."""


Row = list[int] | Joined | Twins
"""The tokens of one text or pair, truncated; `len` counts them. An empty text may have none. A tagger's are Spanned,
those in which an answer is looked for Passages."""


@dataclass(frozen=True, slots=True)
class Buckets:
    """Sizes that a batch is padded up to, so that few shapes come back often. Each list ascends."""

    rows: tuple[int, ...]
    lengths: tuple[int, ...]


def up_to(size: int, sizes: tuple[int, ...]) -> int:
    """The smallest of the sizes that is large enough, or the size itself if none is."""
    place = bisect_left(sizes, size)
    return sizes[place] if place < len(sizes) else size


@dataclass(frozen=True, slots=True)
class Padding:
    """How a batch is filled up."""

    pad_id: int
    max_tokens: int
    buckets: Buckets | None

    def block(self, rows: Sequence[list[int]]) -> tuple[Ids, Ids]:
        """Rows of any lengths -> ids (B, T) and lengths (B,); with buckets B may be larger than the number of rows."""
        # ONNX Runtime refuses length 0: an empty text is one pad token, and so is a row that only fills up.
        lengths = [len(row) or 1 for row in rows]
        longest = max(lengths)
        if self.buckets is not None:
            lengths += [1] * (up_to(len(rows), self.buckets.rows) - len(rows))
            longest = max(longest, min(up_to(longest, self.buckets.lengths), self.max_tokens))
        ids = np.full((len(lengths), longest), self.pad_id, dtype=np.int64)  # (B, T)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = row
        return ids, np.array(lengths, dtype=np.int64)


def _student(padding: Padding, rows: Sequence[list[int]]) -> Feeds:
    ids, lengths = padding.block(rows)
    return {"input_ids": ids, "lengths": lengths}


def _teacher(padding: Padding, rows: Sequence[list[int]]) -> Feeds:
    ids, lengths = padding.block(rows)
    return {"input_ids": ids, "attention_mask": _mask(ids, lengths), "token_type_ids": np.zeros_like(ids)}


def _teacher_of_pairs(padding: Padding, rows: Sequence[Joined]) -> Feeds:
    ids, lengths = padding.block([row.ids for row in rows])
    types = np.zeros_like(ids)
    for place, row in enumerate(rows):
        types[place, : len(row)] = row.types
    return {"input_ids": ids, "attention_mask": _mask(ids, lengths), "token_type_ids": types}


def _siamese(padding: Padding, rows: Sequence[Twins]) -> Feeds:
    ids, lengths = padding.block([row.first for row in rows])
    pair_ids, pair_lengths = padding.block([row.second for row in rows])
    return {"input_ids": ids, "lengths": lengths, "pair_ids": pair_ids, "pair_lengths": pair_lengths}


def _mask(ids: Ids, lengths: Ids) -> Ids:
    mask: Ids = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)  # (T,) < (B, 1) -> (B, T)
    return mask


COLLATORS: MappingProxyType[tuple[tuple[str, ...], int], Callable[[Padding, Sequence[Any]], Feeds]] = MappingProxyType(
    {
        (RECURRENT_INPUTS, 1): _student,
        (TRANSFORMER_INPUTS, 1): _teacher,
        (TRANSFORMER_INPUTS, 2): _teacher_of_pairs,
        (SIAMESE_INPUTS, 2): _siamese,
    }
)
"""A graph's inputs and the texts in a row -> how its rows (of the kind that goes with them) become a batch."""


def numbers(rows: Sequence[Row]) -> list[int]:
    """Which text or pair of the call each row is of: of a long one there may be several Passages."""
    return [row.number if isinstance(row, Passage) else place for place, row in enumerate(rows)]


def pieces(row: Row) -> list[int]:
    """All token ids of a row, of a pair those of both texts."""
    match row:
        case Joined(ids=ids):
            return ids
        case Twins(first=first, second=second):
            return first + second
        case _:
            return row
