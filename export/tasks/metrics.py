"""How good are logits? Pure functions (logits, targets) -> value, by task. Nothing here knows models or files."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score

from service.bundle.manifest import OUTSIDE, Task
from service.bundle.spans import Tag

Logits = NDArray[np.float32]
Labels = NDArray[np.int64]
Targets = NDArray[np.int64] | NDArray[np.float32]
"""(N,) indices of labels; (N, L): ones where a label holds, or the numbers themselves; or (W, 2): of each word of all
rows the place of its row and of its tag."""


class Metric(Protocol):
    """More is better."""

    def __call__(self, logits: Logits, targets: Targets, labels: Sequence[str] = (), /) -> float:
        """(N, L) or (W, L), targets, and the names of the labels, which only tags need -> value."""


def accuracy(predicted: Labels, labels: Targets) -> float:
    """Share of rows whose label is right; of rows with several labels, of those that are right in all."""
    return float(accuracy_score(labels, predicted))


def macro_f1(predicted: Labels, labels: Labels) -> float:
    """F1 of each label, averaged with equal weight."""
    return float(f1_score(labels, predicted, average="macro", zero_division=0))


def micro_f1(predicted: Labels, labels: Labels) -> float:
    """F1 over all decisions together."""
    return float(f1_score(labels, predicted, average="micro", zero_division=0))


def pearson(numbers: Logits, wanted: Targets, _labels: Sequence[str] = ()) -> float:
    """Correlation, as a mean over the columns; 0 where a column does not vary."""
    return _by_column(pearsonr, numbers, wanted)


def spearman(numbers: Logits, wanted: Targets, _labels: Sequence[str] = ()) -> float:
    """The same of ranks."""
    return _by_column(spearmanr, numbers, wanted)


class Found(NamedTuple):
    """Entities: how many are wanted, how many were found, and how many of those are right in place and label."""

    wanted: int
    found: int
    right: int

    @property
    def precision(self) -> float:
        return self.right / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        return self.right / self.wanted if self.wanted else 0.0

    @property
    def f1(self) -> float:
        """As conlleval and seqeval have it: over all entities together, 0 where there are none."""
        return 2 * self.right / (self.found + self.wanted) if self.found + self.wanted else 0.0


def find_entities(logits: Logits, targets: Targets, labels: Sequence[str]) -> Found:
    """Of words, (W, L) and (W, 2), in the order of their rows."""
    rows, wanted = targets.astype(np.int64).T
    theirs, ours = _entities(wanted, rows, labels), _entities(logits.argmax(axis=1), rows, labels)
    return Found(len(theirs), len(ours), len(np.intersect1d(theirs, ours, assume_unique=True)))


def _entities(tags: Labels, rows: Labels, labels: Sequence[str]) -> Labels:
    """A number for each entity, which stands for its words and its label: (W,), (W,) -> (E,).

    Entities are made of tags as they are when a model is served (`service.bundle.spans`).
    """
    spelt = [Tag.of(label) for label in labels]
    names = sorted({tag.label for tag in spelt} - {OUTSIDE})
    name = np.array([names.index(tag.label) if tag.label in names else -1 for tag in spelt])[tags]  # (W,)
    begins = np.array([tag.begins for tag in spelt])[tags]
    another = np.ones(len(tags) + 1, dtype=bool)  # does something else begin before this word, or behind the last?
    another[1:-1] = begins[1:] | (name[1:] != name[:-1]) | (rows[1:] != rows[:-1])
    first, last = np.flatnonzero(another[:-1] & (name >= 0)), np.flatnonzero(another[1:] & (name >= 0))
    numbers: Labels = (first * len(tags) + last) * len(spelt) + name[first]
    return numbers


def _of_entities(measure: Callable[[Found], float]) -> Metric:
    return lambda logits, targets, labels=(): measure(find_entities(logits, targets, labels))


def count_rows(task: Task, targets: Targets) -> int:
    """Of a tagger's words, (W, 2), the rows; W >= 1."""
    return int(targets[-1, 0]) + 1 if task is Task.TAGGING else len(targets)


def decisions(task: Task, logits: Logits) -> Labels:
    """What each row's logits decide, (N, ·): the best label, or yes and no for each; numbers and vectors nothing."""
    match task:
        case Task.MULTI_LABEL:
            return (logits >= 0).astype(np.int64)
        case Task.REGRESSION | Task.EMBEDDING | Task.ANSWERING:
            return np.empty((len(logits), 0), dtype=np.int64)
        case _:
            return np.asarray(logits.argmax(axis=1, keepdims=True))


def _of_best(metric: Callable[[Labels, Labels], float]) -> Metric:
    return lambda logits, targets, _labels=(): metric(logits.argmax(axis=1), targets.astype(np.int64))


def _of_each(metric: Callable[[Labels, Labels], float]) -> Metric:
    return lambda logits, targets, _labels=(): metric(decisions(Task.MULTI_LABEL, logits), targets.astype(np.int64))


def _mean(column: int, nearness: Logits, _targets: Targets, _labels: Sequence[str] = ()) -> float:
    """Of questions, (N, 2): see `export.texts.answers.nearness`."""
    return float(nearness[:, column].mean())


def _by_column(correlation: Callable[..., object], numbers: Logits, wanted: Targets) -> float:
    found = [
        float(correlation(ours, theirs)[0]) if np.ptp(ours) and np.ptp(theirs) else 0.0  # type: ignore[index]
        for ours, theirs in zip(numbers.T, wanted.T, strict=True)
    ]
    return float(np.mean(found))


METRICS: Mapping[Task, Mapping[str, Metric]] = MappingProxyType(
    {
        Task.SINGLE_LABEL: {"accuracy": _of_best(accuracy), "macro-F1": _of_best(macro_f1)},
        Task.MULTI_LABEL: {
            "micro-F1": _of_each(micro_f1),
            "macro-F1": _of_each(macro_f1),
            "exact match": _of_each(accuracy),
        },
        Task.REGRESSION: {"Pearson": pearson, "Spearman": spearman},
        Task.TAGGING: {
            "entity F1": _of_entities(lambda found: found.f1),
            "precision": _of_entities(lambda found: found.precision),
            "recall": _of_entities(lambda found: found.recall),
        },
        Task.ANSWERING: {"F1": partial(_mean, 1), "exact match": partial(_mean, 0)},
    }
)
"""Task -> name -> metric; the first one selects on dev."""


def selecting(task: Task, name: str | None = None) -> Metric:
    """The metric that selects on dev: the named one, or the task's first."""
    metrics = METRICS[task]
    return next(iter(metrics.values())) if name is None else metrics[name]
