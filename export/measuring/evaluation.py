"""Reports of how good a bundle is, and how steady. The one module that opens a test split (`held_out`)."""

from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from export.errors import ModelError, OptionError, few
from export.measuring.cascade import Answered
from export.measuring.pair import name_of, teacher_columns
from export.tasks.metrics import METRICS, Found, Labels, Logits, Targets, count_rows, decisions
from export.tasks.targets import Marks, marks_of, targets_of, words_of
from export.texts.alignment import first_pieces, places_of, word_logits
from export.texts.answers import Answers, nearness, passages
from export.texts.datasets import Columns, Example, Names, held_out, read_pairs
from export.texts.tags import Words
from service.bundle.encoder import Row, Text
from service.bundle.manifest import Manifest, Precision, Task
from service.bundle.rows import Spanned
from service.bundle.runtime import OpenBundle, open_bundle
from service.bundle.spans import Tag, entities
from service.bundle.tasks import softmax, unit

BATCH = 32
SHUFFLES = 5
IN_COMPANY = 2_000
"""Rows that are shuffled, at most: batches of mixed lengths are mostly padding, and more rows say little more."""

AGREEMENT = "agreement with the teacher"
BY_CHARACTERS = "F1 by characters"

LIKENESS = Names(("likeness",), Task.REGRESSION)
"""What people said of pairs of texts, on whatever scale."""

R = TypeVar("R", bound=Sized)


@dataclass(frozen=True)
class Report:
    """What was measured on `rows` rows; `agreement` is the share of rows, or of words, with the teacher's label."""

    rows: int
    metrics: dict[str, float]
    agreement: float | None

    def values(self) -> dict[str, float]:
        """All that was measured, by name."""
        return self.metrics | ({} if self.agreement is None else {AGREEMENT: self.agreement})

    def beside(self, teacher: "Report") -> "Report":
        """With the teacher's own metrics, where a task has nothing in which two could agree."""
        theirs = {f"teacher's {name}": value for name, value in teacher.metrics.items()}
        return replace(self, metrics=self.metrics | theirs)

    def __str__(self) -> str:
        """For people: a line."""
        return f"{self.rows:,} rows; " + ", ".join(f"{name} {value:.4f}" for name, value in self.values().items())


def side_by_side(sources: Sequence[str], reports: Sequence[Report]) -> Iterator[str]:
    """A Markdown table: a line for each of several data sets, then mean and standard deviation (of a sample)."""
    names = list(reports[0].values())
    table = np.array([[found.values()[name] for name in names] for found in reports])  # (sources, metrics)
    yield f"| data | rows | {' | '.join(names)} |"
    yield f"|---|--:|{'--:|' * len(names)}"
    lines = [(source, f"{found.rows:,}", row) for source, found, row in zip(sources, reports, table, strict=True)]
    for what, rows, values in [*lines, ("mean", "", table.mean(axis=0)), ("spread", "", table.std(axis=0, ddof=1))]:
        yield f"| {what} | {rows} | {' | '.join(f'{value:.4f}' for value in values)} |"


def report(
    task: Task, logits: Logits, targets: Targets, teacher: Logits | None = None, labels: Sequence[str] = ()
) -> Report:
    """Logits (N, L), targets (N,) or (N, L), and the teacher's logits (N, L) if there are some.

    Of tagging logits (W, L), targets (W, 2), and the names of the labels: see `asked`.
    """
    values = {name: metric(logits, targets, labels) for name, metric in METRICS[task].items()}
    beside = None if teacher is None else agreement(task, logits, teacher)
    return Report(count_rows(task, targets), values, beside)


def asked(logits: Logits, rows: Sequence[Row], marks: Marks | None, labels: Sequence[str]) -> Logits:
    """What is measured of a model's answers for its rows: all of them; where words have tags, one for each word; where
    questions have answers, how near the best one comes to each (N, 2)."""
    if not marks:
        return logits
    if isinstance(marks[0], Answers):
        answers = [each for each in marks if isinstance(each, Answers)]
        return nearness(logits, passages(rows), answers)
    words = [each for each in marks if isinstance(each, Words)]
    return word_logits(logits, first_pieces([row for row in rows if isinstance(row, Spanned)], words), labels)


def agreement(task: Task, logits: Logits, teacher: Logits) -> float | None:
    """Share of rows in which both decide alike; None of a task that decides nothing."""
    ours, theirs = decisions(task, logits), decisions(task, teacher)
    return float((ours == theirs).all(axis=1).mean()) if ours.shape[1] else None


def evaluate(bundle: Path, precision: Precision, source: str, columns: Columns, teacher: Path | None) -> Report:
    """Score a bundle, as served, on a data set that nothing was selected with; beside its teacher if that is given.

    Raises DataError for rows and ModelError for a teacher that don't fit, BundleError for a bundle that doesn't open.
    """
    return next(evaluate_each(bundle, precision, [source], columns, teacher))


def evaluate_each(
    bundle: Path, precision: Precision, sources: Sequence[str], columns: Columns, teacher: Path | None
) -> Iterator[Report]:
    """The same of several data sets, one after the other."""
    opened = open_bundle(bundle, precision)
    manifest = opened.manifest
    other = _of_the_same_task(manifest, teacher) if teacher else None
    if manifest.task is Task.EMBEDDING:
        yield from (_likeness(opened, source, columns, other) for source in sources)
        return
    check_columns(manifest, columns)
    for source in sources:
        examples = held_out(source, names_of(manifest), columns)
        targets = targets_of(examples, manifest.task, len(manifest.labels))
        answered = _answer(opened, examples)
        beside = _answer(other, examples).asked(manifest.labels) if other else None
        found = report(manifest.task, answered.asked(manifest.labels), targets, beside, manifest.labels)
        if beside is not None and found.agreement is None:
            found = found.beside(report(manifest.task, beside, targets, None, manifest.labels))
        if manifest.task is Task.TAGGING:
            by_characters = answered.f1_by_characters([Tag.of(label) for label in manifest.labels])
            found = replace(found, metrics=found.metrics | {BY_CHARACTERS: by_characters})
        yield found


def _likeness(bundle: OpenBundle, source: str, columns: Columns, teacher: OpenBundle | None) -> Report:
    """How well the cosine of two texts' vectors goes with people's judgement of their likeness, and a teacher's."""
    if columns.pair is None:
        raise OptionError(f"--pair: {name_of(bundle.manifest)} makes vectors; name the column of the other text")
    examples = held_out(source, LIKENESS, columns)
    targets = targets_of(examples, Task.REGRESSION, 1)
    ours, *theirs = (
        report(Task.REGRESSION, likeness(predict(each, both_sides(examples))), targets)
        for each in ([bundle, teacher] if teacher else [bundle])
    )
    return ours.beside(*theirs) if theirs else ours


def both_sides(examples: Sequence[Example]) -> list[Text]:
    """The first texts of N pairs, then the second ones: (2 N,)."""
    return [example.text[side] for side in (0, 1) for example in examples]


def likeness(vectors: Logits) -> Logits:
    """Of those (2 N, D) the cosines of each pair, (N, 1)."""
    first, second = np.split(unit(vectors), 2)
    return np.asarray((first * second).sum(axis=1, keepdims=True), dtype=np.float32)


@dataclass(frozen=True)
class _Answers:
    """What a model says of some examples: (N, L), or of a tagger's tokens (R, L)."""

    examples: Sequence[Example]
    rows: Sequence[Row]
    logits: Logits

    def asked(self, labels: Sequence[str]) -> Logits:
        """(N, L), or of words (W, L)."""
        return asked(self.logits, self.rows, marks_of(self.examples), labels)

    def f1_by_characters(self, tags: Sequence[Tag]) -> float:
        """Of entities as they are served, by label, first and last character: a server does not know the data's
        words."""
        own = np.split(self.logits, np.cumsum([len(row) for row in self.rows])[:-1])
        wanted = found = right = 0
        for row, logits, words in zip(self.rows, own, words_of(self.examples) or (), strict=True):
            assert isinstance(row, Spanned)  # a tagger's encoder makes no others
            theirs = set(places_of(words, tags))
            ours = {entity.place for entity in entities(row, softmax(logits), tags)}
            wanted, found, right = wanted + len(theirs), found + len(ours), right + len(theirs & ours)
        return Found(wanted, found, right).f1


def _answer(bundle: OpenBundle, examples: Sequence[Example]) -> _Answers:
    rows = bundle.encoder.encode([example.text for example in examples])
    return _Answers(examples, rows, run_by_length(bundle.run, rows))


def names_of(manifest: Manifest) -> Names:
    """How its labels are to be read from a file."""
    return Names(manifest.labels, manifest.task)


def check_columns(manifest: Manifest, columns: Columns) -> None:
    """Raises OptionError where a model of pairs is to read single texts, or one of single texts pairs."""
    if manifest.texts != len(columns.texts):
        wanted = "pairs; name the column of the second text" if manifest.texts == 2 else "single texts; leave it out"
        raise OptionError(f"--pair: {name_of(manifest)} reads {wanted}")


def answer_both(
    bundle: Path, precision: Precision, teacher: Path, source: str, columns: Columns, *, labelled: bool = True
) -> Answered:
    """Student and teacher, as served, on rows that nothing was selected with; they may lack labels.

    Raises what `evaluate` raises.
    """
    student, beside = open_bundle(bundle, precision), open_bundle(teacher)
    order = teacher_columns(student.manifest, beside.manifest)
    check_columns(student.manifest, columns)
    labels: Labels | None = None
    if labelled:
        examples = held_out(source, names_of(student.manifest), columns)
        texts = [example.text for example in examples]
        labels = targets_of(examples, Task.SINGLE_LABEL, len(student.manifest.labels)).astype(np.int64)
    else:
        texts = list(read_pairs(source, columns.texts))
    return Answered(predict(student, texts), predict(beside, texts)[:, order], labels)


def _of_the_same_task(student: Manifest, folder: Path) -> OpenBundle:
    teacher = open_bundle(folder)
    if teacher.manifest.task is not student.task:
        raise ModelError(f"teacher {folder} does {teacher.manifest.task}; {name_of(student)} does {student.task}")
    if student.task is not Task.EMBEDDING and teacher.manifest.labels != student.labels:  # vectors may differ in width
        theirs, ours = few(teacher.manifest.labels), few(student.labels)
        raise ModelError(f"teacher {folder} knows the labels {theirs}; {name_of(student)} knows {ours}")
    return teacher


def predict(bundle: OpenBundle, texts: Sequence[Text]) -> Logits:
    """Logits (N, L) in the order of the texts, run in batches of similar length as a busy server does."""
    return run_by_length(bundle.run, bundle.encoder.encode(texts))


def run_by_length(run: Callable[[Sequence[R]], Logits], rows: Sequence[R]) -> Logits:
    """Run rows in batches of similar length; logits (N, L) come back in the rows' own order."""
    return run_batches(run, rows, sorted(range(len(rows)), key=lambda i: len(rows[i])))


def run_batches(run: Callable[[Sequence[R]], Logits], rows: Sequence[R], order: Sequence[int]) -> Logits:
    """Run rows in the given order, BATCH at a time; logits (N, L) come back in the rows' own order.

    Of a tagger (R, L): those of all tokens of a row, one row behind the other, without padding.
    """
    found: dict[int, Logits] = {}
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        batch = [rows[i] for i in places]
        found.update(zip(places, _apart(run(batch), batch), strict=True))
    return np.concatenate([found[i] for i in range(len(rows))])


def _apart(logits: Logits, rows: Sequence[Sized]) -> Sequence[Logits]:
    """Each row's own: (B, L) -> B x (1, L), or a tagger's (B, T, L) -> B x (T, L)."""
    if logits.ndim == 2:
        return np.split(logits, len(logits))
    return [own[: len(row)] for own, row in zip(logits, rows, strict=True)]


@dataclass(frozen=True)
class Wander:
    """How far answers depend on their neighbours in the batch."""

    largest: float  # largest change of a logit between alone and in a shuffled batch, of at most IN_COMPANY rows
    flips: float  # share of those rows with a decision that changed in at least one of the shuffles
    alone: Logits  # (N, L), each row run by itself; a tagger's (R, L)


def wander(
    run: Callable[[Sequence[R]], Logits],
    rows: Sequence[R],
    task: Task = Task.SINGLE_LABEL,
    seed: int = 0,
) -> Wander:
    """Run each row alone, then IN_COMPANY of them in SHUFFLES random batches of mixed lengths, and compare."""
    own = [part for row in rows for part in _apart(run([row]), [row])]
    chosen = sorted(np.random.default_rng(seed).permutation(len(rows))[:IN_COMPANY].tolist())
    picked, beside = [rows[i] for i in chosen], np.concatenate([own[i] for i in chosen])
    whose = np.repeat(np.arange(len(picked)), [len(own[i]) for i in chosen])
    changed, largest = np.zeros(len(beside), dtype=bool), 0.0
    rng = np.random.default_rng(seed)
    for _ in range(SHUFFLES):
        together = run_batches(run, picked, rng.permutation(len(picked)).tolist())
        largest = max(largest, float(np.abs(together - beside).max()))
        changed |= (decisions(task, together) != decisions(task, beside)).any(axis=1)
    return Wander(largest, len(np.unique(whose[changed])) / len(picked), np.concatenate(own))
