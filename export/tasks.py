"""What a task asks of the workshop, one row of `LEARNING` a task: what labels become, and what is learnt from them.

What its logits mean stands in `service.bundle.tasks`, how a file writes its labels in `export.datasets`, how good its
logits are in `export.metrics`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from export.answers import Answers
from export.datasets import Example, Label
from export.metrics import Targets
from export.objectives import (
    UNLABELLED,
    ObjectiveFunction,
    binary_cross_entropy,
    binary_cross_entropy_or_teacher,
    cross_entropy,
    cross_entropy_or_argmax,
    squared_error,
    squared_error_or_teacher,
)
from export.tags import Words
from service.bundle.manifest import Task


@dataclass(frozen=True)
class Learning:
    """How a task is learnt."""

    targets: Callable[[Sequence[Label | None], int], Targets]  # a row's label or None, L -> what objectives take
    hard: ObjectiveFunction  # from the labels that there are
    hard_or_teacher: ObjectiveFunction  # a row without labels takes what the teacher decides
    problem_type: str | None  # transformers' name of it; None where the architecture says it


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
    """(W, 2): of each word of all rows its row and its tag, to be measured. What pieces learn: `export.alignment`."""
    words = [(row, tag) for row, label in enumerate(labels) if isinstance(label, Words) for tag in label.tags]
    return np.array(words, dtype=np.int64).reshape(-1, 2)


def _questions(labels: Sequence[Label | None], _count: int) -> Targets:
    """(N,): nothing but how many there are; what is right of each is text (see `export.answers`)."""
    return np.full(len(labels), UNLABELLED, dtype=np.int64)


LEARNING: Mapping[Task, Learning] = MappingProxyType(
    {
        Task.SINGLE_LABEL: Learning(_indices, cross_entropy, cross_entropy_or_argmax, "single_label_classification"),
        Task.MULTI_LABEL: Learning(
            _one_hot, binary_cross_entropy, binary_cross_entropy_or_teacher, "multi_label_classification"
        ),
        Task.REGRESSION: Learning(_numbers, squared_error, squared_error_or_teacher, "regression"),
        Task.TAGGING: Learning(_tags, cross_entropy, cross_entropy_or_argmax, None),
        Task.ANSWERING: Learning(_questions, cross_entropy, cross_entropy_or_argmax, None),  # logits alone are learnt
    }
)


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
    return LEARNING[task].targets([example.label for example in examples], labels)
