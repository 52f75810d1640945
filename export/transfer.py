"""The transfer set: texts with the teacher's logits, from which a student learns.

Labelling is the dear part, so logits are cached on disk by content: by what the teacher is and which texts it read.
Interrupted labelling goes on where it stopped, and recipes that share texts share logits.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from export.augment import augmented
from export.datasets import Dataset
from export.errors import DataError
from export.objectives import UNLABELLED
from export.progress import progress_bar
from export.recipe import Transfer
from export.sentences import shaped_texts
from export.teachers import AnyTeacher
from service.bundle.encoder import Encoder

SHARD = 4096


@dataclass(frozen=True)
class TransferTexts:
    """Texts by where they come from: the training set's own first, with their labels; the others are `UNLABELLED`.

    A group depends on its own source and the labelled data alone, so recipes that share a source share its logits.
    """

    groups: tuple[tuple[str, ...], ...]
    labels: NDArray[np.int64]  # (N,), in the order of the groups

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts, group after group."""
        return tuple(chain.from_iterable(self.groups))


@dataclass(frozen=True)
class TransferSet:
    """Rows of any length in one flat array, with the teacher's logits and the labels that there are."""

    tokens: NDArray[np.int32]  # all rows one behind the other
    offsets: NDArray[np.int64]  # (N + 1,)
    logits: NDArray[np.float32]  # (N, L)
    labels: NDArray[np.int64]  # (N,)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row, (N,)."""
        return np.diff(self.offsets)

    def rows(self, indices: NDArray[np.int64]) -> NDArray[np.int32]:
        """Rows of one length T: (B,) -> (B, T)."""
        length = int(self.offsets[indices[0] + 1] - self.offsets[indices[0]])
        rows: NDArray[np.int32] = self.tokens[self.offsets[indices][:, None] + np.arange(length)]
        return rows


def collect(data: Dataset, recipe: Transfer, mask: str, seed: int) -> TransferTexts:
    """The labelled texts, then augmented copies and unlabelled texts, none twice in its group; none of the dev split's.

    Raises DataError when no labelled text is left.
    """
    dev = {example.text for example in data.dev}
    labelled = [example for example in data.train if example.text not in dev]
    if not labelled:
        raise DataError("data.train: each of its texts stands in data.dev too; select on other rows than you train on")
    train = tuple(example.text for example in labelled)
    known = dev.union(train)
    sources = [augmented(train, recipe.augment, mask, np.random.default_rng(seed)), *map(shaped_texts, recipe.texts)]
    extra = [tuple(text for text in dict.fromkeys(source) if text not in known) for source in sources]
    groups = (train, *filter(None, extra))
    labels = np.full(sum(map(len, groups)), UNLABELLED, dtype=np.int64)
    labels[: len(train)] = [example.label for example in labelled]
    return TransferTexts(groups, labels)


def label(teacher: AnyTeacher, groups: Sequence[Sequence[str]], cache: Path) -> NDArray[np.float32]:
    """The teacher's logits (N, L) group after group, from the cache where they are there already."""
    cache.mkdir(parents=True, exist_ok=True)
    identity = teacher.digest()
    shards = [group[start : start + SHARD] for group in groups for start in range(0, len(group), SHARD)]
    found = []
    with progress_bar("teacher's logits", sum(map(len, groups)), "rows") as bar:
        for shard in shards:
            found.append(_shard_logits(teacher, shard, cache / f"{_digest(identity, shard)}.npy"))
            bar.advance(len(shard))
    return np.concatenate(found)


def encode(encoder: Encoder, texts: TransferTexts, logits: NDArray[np.float32], pad_id: int) -> TransferSet:
    """The student's tokens of every text. An empty row becomes one pad token, as when it is served."""
    rows: list[NDArray[np.int32]] = []
    for group in texts.groups:
        for start in range(0, len(group), SHARD):
            shard = encoder.encode(group[start : start + SHARD])
            rows.extend(np.asarray(row or [pad_id], dtype=np.int32) for row in shard)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return TransferSet(np.concatenate(rows), offsets, logits, texts.labels)


def length_batches(lengths: NDArray[np.int64], batch_size: int, rng: Generator) -> Iterator[NDArray[np.int64]]:
    """Every row once, in batches whose rows are equally long: no padding, and the LSTM's fused kernel."""
    order = rng.permutation(len(lengths))
    order = order[np.argsort(lengths[order], kind="stable")]
    edges = np.flatnonzero(np.diff(lengths[order])) + 1
    groups = np.split(order, edges)
    batches = [group[i : i + batch_size] for group in groups for i in range(0, len(group), batch_size)]
    for i in rng.permutation(len(batches)):
        yield batches[i]


def _shard_logits(teacher: AnyTeacher, texts: Sequence[str], file: Path) -> NDArray[np.float32]:
    if file.exists():
        stored: NDArray[np.float32] = np.load(file, allow_pickle=False)
        return stored
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # neighbours of one length: little padding
    found = np.concatenate(list(teacher.logits([texts[i] for i in order])))
    logits = np.empty_like(found)
    logits[order] = found
    unfinished = file.with_suffix(f".{os.getpid()}.tmp")
    with unfinished.open("wb") as stream:
        np.save(stream, logits)
    unfinished.replace(file)  # whole or not at all
    return logits


def _digest(identity: str, texts: Sequence[str]) -> str:
    digest = hashlib.sha256(identity.encode())
    for text in texts:
        digest.update(f"{len(text)}:{text}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
