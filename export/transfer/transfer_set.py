"""The transfer set: texts with the teacher's signals, from which a student learns."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from export.data import Data
from export.errors import DataError, ModelError
from export.objectives.signals import Pieces, Signals, Target, stretches
from export.progress import console
from export.sections import Transfer
from export.tasks.metrics import Targets
from export.tasks.targets import TARGETS
from export.texts.alignment import going_on, partners, piece_tags
from export.texts.answers import passages
from export.texts.datasets import Dataset, Label
from export.texts.sentences import Tally, TextSource, shaped_rows
from export.texts.tags import Words
from export.texts.unlabelled import UNLABELLED
from export.transfer.augment import augmented, named_tagger
from service.bundle.encoder import Encoder, Row, Text
from service.bundle.manifest import Task
from service.bundle.rows import Joined, Passage, Spanned, Twins

AT_ONCE = 4096
"""Texts: what tokenizers note besides the tokens, such as places, needs much room."""


@dataclass(frozen=True)
class TransferTexts:
    """Texts by where they come from: the training set's own first, with their labels; the others have none.

    A group depends on its own source and the labelled data alone, so recipes that share a source share its logits.
    """

    groups: tuple[tuple[Text, ...], ...]
    labels: tuple[Label | None, ...]  # in the order of the groups

    @property
    def texts(self) -> tuple[Text, ...]:
        """All texts, or pairs of them, group after group."""
        return tuple(chain.from_iterable(self.groups))

    @property
    def strings(self) -> tuple[str, ...]:
        """The same, with both texts of each pair by themselves."""
        return tuple(part for text in self.texts for part in ((text,) if isinstance(text, str) else text))


@dataclass(frozen=True)
class Tokens:
    """Rows of any length in one flat array."""

    flat: NDArray[np.int32]  # all rows one behind the other
    offsets: NDArray[np.int64]  # (N + 1,)
    pad_id: int

    @classmethod
    def of(cls, rows: Iterable[Sequence[int] | NDArray[np.int64]], pad_id: int) -> "Tokens":
        """An empty row becomes one pad token, as when it is served."""
        filled = [np.asarray(row if len(row) else [pad_id], dtype=np.int32) for row in rows]
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in filled])]).astype(np.int64)
        return cls(np.concatenate(filled), offsets, pad_id)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row, (N,)."""
        return np.diff(self.offsets)

    def block(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(B,) -> ids (B, T), padded on the right, and lengths (B,)."""
        lengths = self.lengths[indices]
        places = np.arange(lengths.max())
        real = places < lengths[:, None]  # (B, T)
        found = self.flat[np.where(real, self.offsets[indices][:, None] + places, 0)]
        return np.where(real, found, self.pad_id).astype(np.int64), lengths


@dataclass(frozen=True)
class Batch:
    """What a student is given, and what it is held against."""

    inputs: tuple[Tensor, ...]  # ids (B, T) and lengths (B,), for each text of a row
    target: Target


@dataclass(frozen=True)
class TransferSet:
    """Rows with the teacher's signals and the labels that there are.

    `signals` and `targets` have an entry a row, or an entry a piece where `pieces` says so: those of row i then stand
    where its tokens do, or, where `theirs` is set, the signals of piece j at theirs[j].
    """

    tokens: tuple[Tokens, ...]  # of each text of a row
    signals: Signals
    targets: Targets
    pieces: bool = False
    rows: NDArray[np.int64] | None = None  # those that count, where a stage learns from a part; unset: all
    theirs: NDArray[np.int64] | None = None  # (R,)

    def __len__(self) -> int:
        return len(self.tokens[0].offsets) - 1 if self.rows is None else len(self.rows)

    def part(self, indices: NDArray[np.int64]) -> "TransferSet":
        """These rows alone; nothing is copied."""
        return replace(self, rows=self._rows(indices))

    @property
    def labelled(self) -> NDArray[np.int64]:
        """Which rows have a label, (M,)."""
        several = self.targets.ndim == 2
        known = np.asarray(~np.isnan(self.targets).any(axis=1) if several else self.targets != UNLABELLED)
        if self.pieces:
            known = np.logical_or.reduceat(known, self.tokens[0].offsets[:-1])
        return np.flatnonzero(known if self.rows is None else known[self.rows])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row, (N,), of both texts together."""
        lengths: NDArray[np.int64] = np.sum([tokens.lengths for tokens in self.tokens], axis=0)
        return lengths if self.rows is None else lengths[self.rows]

    def batch(self, indices: NDArray[np.int64], device: torch.device) -> Batch:
        """These rows, (B,)."""
        indices = self._rows(indices)
        inputs = [torch.from_numpy(part) for tokens in self.tokens for part in tokens.block(indices)]
        places = stretches(self.tokens[0].offsets, indices) if self.pieces else indices  # (R,)
        labels = torch.from_numpy(self.targets[places]).to(device)
        if self.theirs is not None:
            places = self.theirs[places]
        logits = torch.from_numpy(self.signals.logits[places]).to(device)
        hidden = None
        if self.signals.hidden is not None:
            hidden = torch.from_numpy(self.signals.hidden[places].astype(np.float32)).to(device)
        return Batch(tuple(part.to(device) for part in inputs), Target(logits, labels, hidden))

    def _rows(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        return indices if self.rows is None else self.rows[indices]


def collect(data: Dataset, recipe: Transfer, mask: str, seed: int) -> TransferTexts:
    """The labelled texts, then augmented copies and unlabelled texts, none twice in its group; of the dev split none.

    Raises DataError where nothing is left of a source of unlabelled ones.
    """
    train = tuple(example.text for example in data.train)
    known = {example.text for example in data.dev}.union(train)
    copies = augmented(train, recipe.augment, mask, np.random.default_rng(seed), named_tagger(recipe.augment.tagger))
    extra = [_new(copies, known), _new(data.unlabelled, known), *(_taken(source, known) for source in recipe.texts)]
    groups = (train, *filter(None, extra))
    unlabelled = sum(map(len, groups)) - len(train)
    return TransferTexts(groups, (*(example.label for example in data.train), *([None] * unlabelled)))


def _new(texts: Iterable[Text], known: set[Text]) -> tuple[Text, ...]:
    """Each once."""
    return tuple(text for text in dict.fromkeys(texts) if text not in known)


def _taken(source: TextSource, known: set[Text]) -> tuple[Text, ...]:
    """What is new of a source. Raises DataError where nothing is: whoever names it means it to be learnt from."""
    tally = Tally()
    found = _new(shaped_rows(source, tally), known)
    console.log(f"{source.source}: {tally.read:,} texts read, {len(found):,} kept", markup=False)
    if not found:
        raise DataError(
            f"{source.source}: not one of its {tally.read:,} texts is new and fits; look at min_words, max_words, skip"
        )
    return found


def encode(encoder: Encoder, texts: TransferTexts, signals: Signals, data: Data, pad_id: int) -> TransferSet:
    """The student's tokens of every text, with all that it is held against."""
    if signals.pieces is not None and data.task is Task.ANSWERING:
        return _encode_passages(encoder, texts, signals, signals.pieces, pad_id)
    if signals.pieces is not None:
        return _encode_pieces(encoder, texts, signals, signals.pieces, going_on(data.labels), pad_id)
    rows = [row for group in texts.groups for row in encode_texts(encoder, group)]
    targets = TARGETS[data.task](texts.labels, len(data.labels))
    return TransferSet(tokens_of(rows, pad_id), signals, targets)


def encode_texts(encoder: Encoder, texts: Sequence[Text]) -> list[Row]:
    """Some at once, in their order."""
    found: list[Row] = []
    for start in range(0, len(texts), AT_ONCE):
        rows = encoder.encode(texts[start : start + AT_ONCE])
        found.extend(replace(row, number=start + row.number) if isinstance(row, Passage) else row for row in rows)
    return found


def _encode_pieces(
    encoder: Encoder, texts: TransferTexts, signals: Signals, pieces: Pieces, on: Sequence[int], pad_id: int
) -> TransferSet:
    """Of a tagger: each of the student's pieces beside the teacher's piece in which it begins.

    What the teacher cut off is cut off here too, and a text of which nothing is left is left out.
    """
    kept: list[NDArray[np.int64]] = []  # of each row
    theirs: list[NDArray[np.int64]] = []
    tags: list[NDArray[np.int64]] = []
    offsets, number, cut = pieces.offsets, 0, 0
    for group in texts.groups:
        for start in range(0, len(group), AT_ONCE):
            for row in encoder.encode(group[start : start + AT_ONCE]):
                own = _spanned(row)
                first, last, label = offsets[number], offsets[number + 1], texts.labels[number]
                found = first + partners(own.places, pieces.places[first:last])
                number, cut = number + 1, cut + len(own) - len(found)
                if len(found):
                    learnt = piece_tags(own, label, on) if isinstance(label, Words) else [UNLABELLED] * len(own)
                    kept.append(np.array(own[: len(found)]))
                    theirs.append(found)
                    tags.append(np.array(learnt[: len(found)]))
    if not kept:
        raise DataError("data.train: not one of its texts has a piece that both teacher and student read")
    lost = f"{number - len(kept):,} texts have none, {cut:,} pieces are beyond what the teacher reads"
    console.log(f"transfer set: {sum(map(len, kept)):,} pieces of {len(kept):,} texts; {lost}")
    joined = np.concatenate(theirs)
    same = len(joined) == len(signals.logits) and bool((np.diff(joined) == 1).all())
    tokens = (Tokens.of(kept, pad_id),)
    return TransferSet(tokens, signals, np.concatenate(tags), pieces=True, theirs=None if same else joined)


def _encode_passages(
    encoder: Encoder, texts: TransferTexts, signals: Signals, pieces: Pieces, pad_id: int
) -> TransferSet:
    """Of questions with their texts: each part of a text is a row, and each token has the teacher's logits of it.

    Raises ModelError where the student reads them otherwise than the teacher.
    """
    rows = [row for group in texts.groups for row in passages(encode_texts(encoder, group))]
    places = np.array([place for row in rows for place in row.places], dtype=np.int32)  # (R, 2)
    if not np.array_equal(places, pieces.places):
        raise ModelError(
            "student.begins: it cuts texts otherwise than the teacher; both need one tokenizer, and "
            "student.max_tokens = teacher.max_tokens"
        )
    nothing = np.full(len(signals.logits), UNLABELLED)
    return TransferSet(tokens_of(rows, pad_id), signals, nothing, pieces=True)


def _spanned(row: Row) -> Spanned:
    if not isinstance(row, Spanned):
        raise TypeError(f"a tagger does not read {type(row).__name__}")
    return row


def tokens_of(rows: Sequence[Row], pad_id: int) -> tuple[Tokens, ...]:
    """Of single texts or of pairs."""
    sides: list[list[list[int]]] = [[], []]
    for row in rows:
        match row:
            case Twins(first=first, second=second):
                sides[0].append(first)
                sides[1].append(second)
            case Joined(ids=ids):
                sides[0].append(ids)
            case list():
                sides[0].append(row)
            case _:
                raise TypeError(f"a student does not read {type(row).__name__}")
    return tuple(Tokens.of(side, pad_id) for side in sides if side)


def length_batches(lengths: NDArray[np.int64], batch_size: int, rng: Generator) -> Iterator[NDArray[np.int64]]:
    """Every row once, in batches whose rows are equally long, so that nothing is padding.

    Lengths with less than half a batch of rows share batches with their neighbours.
    """
    order = rng.permutation(len(lengths))
    order = order[np.argsort(lengths[order], kind="stable")]
    edges = np.flatnonzero(np.diff(lengths[order])) + 1
    groups: list[NDArray[np.int64]] = []
    for rows in np.split(order, edges):
        if groups and max(len(rows), len(groups[-1])) < batch_size / 2:
            groups[-1] = np.concatenate([groups[-1], rows])
        else:
            groups.append(rows)
    batches = [group[i : i + batch_size] for group in groups for i in range(0, len(group), batch_size)]
    for i in rng.permutation(len(batches)):
        yield batches[i]
