"""What a task's labels become, one row of `TARGETS` a task: arrays for metrics and objectives, or marked stretches.

It knows arrays and no tensors, so that measuring a bundle needs no torch.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from export.tasks.metrics import Targets
from export.texts.answers import Answers
from export.texts.datasets import Example, Label
from export.texts.tags import Words
from export.texts.unlabelled import UNLABELLED
from service.bundle.manifest import Task


def _indices(labels: Sequence[Label | None], _count: int) -> Targets:
    """(N,)"""
    return np.array([UNLABELLED if label is None else label for label in labels], dtype=np.int64)


def _one_hot(labels: Sequence[Label | None], count: int) -> Targets:
    """(N, L): one where a label holds."""
    targets = np.zeros((len(labels), count), dtype=np.float32)
    for row, label in zip(targets, labels, strict=True):
        if isinstance(label, tuple):
            row[[int(place) for place in label]] = 1
        else:
            row[:] = np.nan
    return targets


def _numbers(labels: Sequence[Label | None], count: int) -> Targets:
    """(N, L)"""
    return np.array([[np.nan] * count if label is None else label for label in labels], np.float32).reshape(-1, count)


def _tags(labels: Sequence[Label | None], _count: int) -> Targets:
    """(W, 2): of each word of all rows its row and its tag, to be measured. What pieces learn: `texts.alignment`."""
    words = [(row, tag) for row, label in enumerate(labels) if isinstance(label, Words) for tag in label.tags]
    return np.array(words, dtype=np.int64).reshape(-1, 2)


def _questions(labels: Sequence[Label | None], _count: int) -> Targets:
    """(N,): nothing but how many there are; what is right of each is text (see `export.texts.answers`)."""
    return np.full(len(labels), UNLABELLED, dtype=np.int64)


TARGETS: Mapping[Task, Callable[[Sequence[Label | None], int], Targets]] = MappingProxyType(
    {
        Task.SINGLE_LABEL: _indices,
        Task.MULTI_LABEL: _one_hot,
        Task.REGRESSION: _numbers,
        Task.TAGGING: _tags,
        Task.ANSWERING: _questions,
    }
)
"""Of each row its label or None, and how many labels there are -> what is learnt and measured."""


Marks = Sequence[Words] | Sequence[Answers]
"""Of texts in which stretches are marked: what is right of each, by its characters."""


def words_of(examples: Sequence[Example]) -> tuple[Words, ...] | None:
    """The words of tagged texts; None of other rows."""
    words = tuple(example.label for example in examples if isinstance(example.label, Words))
    return words if len(words) == len(examples) else None


def answers_of(examples: Sequence[Example]) -> tuple[Answers, ...]:
    """Of questions; no other rows have any."""
    return tuple(example.label for example in examples if isinstance(example.label, Answers))


def marks_of(examples: Sequence[Example]) -> Marks | None:
    """The words of tagged texts, or the answers to questions; None of other rows."""
    found = answers_of(examples)
    return found if found and len(found) == len(examples) else words_of(examples)


def targets_of(examples: Sequence[Example], task: Task, labels: int) -> Targets:
    """What metrics take of labelled rows: (N,), (N, L), or of words (W, 2)."""
    return TARGETS[task]([example.label for example in examples], labels)
