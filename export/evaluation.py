"""How good is it? Metrics, and the reports made of them. The one module that opens a test split (`held_out`)."""

from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score

from export.cascade import Answered
from export.datasets import Columns, Example, held_out, read_texts
from export.errors import ModelError
from export.pair import teacher_columns
from service.bundle.manifest import Precision, Task
from service.bundle.runtime import OpenBundle, open_bundle

BATCH = 32
SHUFFLES = 5

Logits = NDArray[np.float32]
Labels = NDArray[np.int64]
R = TypeVar("R", bound=Sized)


def accuracy(predicted: Labels, labels: Labels) -> float:
    """Share of rows whose label is right."""
    return float(accuracy_score(labels, predicted))


def macro_f1(predicted: Labels, labels: Labels) -> float:
    """F1 of each label, averaged with equal weight."""
    return float(f1_score(labels, predicted, average="macro", zero_division=0))


METRICS: dict[str, Callable[[Labels, Labels], float]] = {"accuracy": accuracy, "macro-F1": macro_f1}
"""Name -> (predicted (N,), labels (N,)) -> value; the first one selects on dev."""


@dataclass(frozen=True)
class Report:
    """What was measured on `rows` rows; `agreement` is the share of rows with the teacher's label."""

    rows: int
    metrics: dict[str, float]
    agreement: float | None


def report(logits: Logits, labels: Labels, teacher: Logits | None = None) -> Report:
    """Logits (N, L), labels (N,), and the teacher's logits (N, L) if there are some."""
    predicted = logits.argmax(axis=1)
    agreement = None if teacher is None else accuracy(predicted, teacher.argmax(axis=1))
    return Report(len(labels), {name: metric(predicted, labels) for name, metric in METRICS.items()}, agreement)


def evaluate(bundle: Path, precision: Precision, source: str, columns: Columns, teacher: Path | None) -> Report:
    """Score a bundle, as served, on a data set that nothing was selected with; beside its teacher if that is given.

    Raises DataError for rows and ModelError for a teacher that don't fit, BundleError for a bundle that doesn't open.
    """
    opened = open_bundle(bundle, precision)
    examples = held_out(source, opened.manifest.labels, columns)
    beside = predict(_with_labels(opened.manifest.labels, teacher), examples) if teacher else None
    return report(predict(opened, examples), labels_of(examples), beside)


def answer_both(
    bundle: Path, precision: Precision, teacher: Path, source: str, columns: Columns, *, labelled: bool = True
) -> Answered:
    """Student and teacher, as served, on rows that nothing was selected with; they may lack labels.

    Raises what `evaluate` raises.
    """
    student, beside = open_bundle(bundle, precision), open_bundle(teacher)
    order = teacher_columns(student.manifest, beside.manifest)
    if labelled:
        examples = held_out(source, student.manifest.labels, columns)
        texts, labels = [example.text for example in examples], labels_of(examples)
    else:
        texts, labels = list(read_texts(source, columns.text)), None
    found = [run_by_length(each.run, each.encoder.encode(texts)) for each in (student, beside)]
    return Answered(found[0], found[1][:, order], labels)


def _with_labels(labels: tuple[str, ...], folder: Path) -> OpenBundle:
    teacher = open_bundle(folder)
    if teacher.manifest.labels != labels:
        theirs = ", ".join(teacher.manifest.labels)
        raise ModelError(f"teacher {folder} knows the labels {theirs}; the bundle's are {', '.join(labels)}")
    return teacher


def labels_of(examples: Sequence[Example]) -> Labels:
    """(N,)"""
    return np.array([example.label for example in examples], dtype=np.int64)


def predict(bundle: OpenBundle, examples: Sequence[Example]) -> Logits:
    """Logits (N, L) in the order of the examples, run in batches of similar length as a busy server does."""
    return run_by_length(bundle.run, bundle.encoder.encode([example.text for example in examples]))


def run_by_length(run: Callable[[Sequence[R]], Logits], rows: Sequence[R]) -> Logits:
    """Run rows in batches of similar length; logits (N, L) come back in the rows' own order."""
    return run_batches(run, rows, sorted(range(len(rows)), key=lambda i: len(rows[i])))


def run_batches(run: Callable[[Sequence[R]], Logits], rows: Sequence[R], order: Sequence[int]) -> Logits:
    """Run rows in the given order, BATCH at a time; logits (N, L) come back in the rows' own order."""
    parts = [run([rows[i] for i in order[start : start + BATCH]]) for start in range(0, len(order), BATCH)]
    found = np.concatenate(parts)
    logits = np.empty_like(found)
    logits[list(order)] = found
    return logits


def decisions(task: Task, logits: Logits) -> Labels:
    """What each row's logits decide, (N, ·): the best label, or yes and no for each; numbers decide nothing."""
    match task:
        case Task.SINGLE_LABEL:
            return np.asarray(logits.argmax(axis=1, keepdims=True))
        case Task.MULTI_LABEL:
            return (logits >= 0).astype(np.int64)
        case Task.REGRESSION:
            return np.empty((len(logits), 0), dtype=np.int64)


@dataclass(frozen=True)
class Wander:
    """How far answers depend on their neighbours in the batch."""

    largest: float  # largest change of a logit between alone and in a shuffled batch
    flips: float  # share of rows whose decision changed in at least one of the shuffles
    alone: Logits  # (N, L), each row run by itself


def wander(
    run: Callable[[Sequence[R]], Logits],
    rows: Sequence[R],
    task: Task = Task.SINGLE_LABEL,
    seed: int = 0,
) -> Wander:
    """Run each row alone, then in SHUFFLES random batches of mixed lengths, and compare."""
    alone = np.concatenate([run([row]) for row in rows])
    rng = np.random.default_rng(seed)
    changed, largest = np.zeros(len(rows), dtype=bool), 0.0
    for _ in range(SHUFFLES):
        together = run_batches(run, rows, rng.permutation(len(rows)).tolist())
        largest = max(largest, float(np.abs(together - alone).max()))
        changed |= (decisions(task, together) != decisions(task, alone)).any(axis=1)
    return Wander(largest, float(changed.mean()), alone)
