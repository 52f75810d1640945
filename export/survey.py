"""What is in a file of labelled rows: its columns, and what one may take them for.

It knows rows as files give them. It knows nothing of recipes, models or training.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from export.errors import DataError, OptionError
from export.texts.records import read_records
from service.bundle.manifest import Task

LABELS = (
    "label",
    "labels",
    "intent",
    "class",
    "category",
    "target",
    "topic",
    "topics",
    "sentiment",
    "tags",
    "ner_tags",
    "score",
)
TEXTS = ("text", "sentence", "sentence1", "question1", "premise", "utterance", "query", "review", "content", "tokens")
PAIRS = ("text2", "text_pair", "sentence2", "question2", "hypothesis")
"""Names that columns bear in well-known data sets, the likeliest first."""

MOST_LABELS = 1000
"""More different values than this are no labels."""

MOST_GRADES = 20
"""So many different whole numbers, whatever their sign and spelling (-1, 0.0), are labels and no measurements."""


@dataclass
class Column:
    """What one column holds."""

    name: str
    values: Counter[str] = field(default_factory=Counter)  # of cells that are no lists; cut off far above MOST_LABELS
    parts: Counter[str] = field(default_factory=Counter)  # the same of what stands between commas, once a row
    items: Counter[str] = field(default_factory=Counter)  # of cells that are lists
    words: list[int] = field(default_factory=list)  # of each row with something there
    blanks: list[int] = field(default_factory=list)  # the lines of the other rows

    def add(self, line: int, value: object) -> None:
        """One more row."""
        if value is None or (isinstance(value, str) and not value.strip()):
            self.blanks.append(line)
            return
        if isinstance(value, list | tuple):
            self.items.update(map(str, value))
            self.words.append(len(value))
            return
        self.words.append(len(str(value).split()))
        _count(self.values, str(value))
        for part in {part.strip() for part in str(value).split(",")} - {""}:
            _count(self.parts, part)

    @property
    def lists(self) -> bool:
        return bool(self.items)

    @property
    def mean_words(self) -> float:
        return float(np.mean(self.words)) if self.words else 0.0


def _count(found: Counter[str], value: str) -> None:
    """Not without end: what differs in each row is no label."""
    if len(found) <= 2 * MOST_LABELS or value in found:
        found[value] += 1


@dataclass(frozen=True)
class Chosen:
    """Columns by name, as the user says or as they seem to be."""

    text: str | None = None
    pair: str | None = None
    label: str | None = None
    task: Task | None = None


@dataclass(frozen=True)
class Survey:
    """What a recipe is written from."""

    source: str
    rows: int
    text: str
    pair: str | None
    label: str
    task: Task
    labels: tuple[str, ...]  # in the order of the logits
    counts: tuple[int, ...]  # rows of each label; empty for numbers
    long_words: int  # a text in twenty has more words

    @property
    def rarest(self) -> int:
        """Rows of the rarest label."""
        return min(self.counts, default=0)

    def table(self) -> dict[str, str]:
        """What was found, for people."""
        columns = {"text": self.text, "pair": self.pair, "label": self.label}
        found = {"rows": f"{self.rows:,}", "task": str(self.task)}
        found |= {f"column of the {what}": name for what, name in columns.items() if name}
        if self.counts:
            what = "words" if self.task is Task.TAGGING else "rows"
            found["labels"] = f"{len(self.labels)}, of {self.rarest:,} to {max(self.counts):,} {what} each"
        return found | {"words of a text": f"{self.long_words} or fewer in 95 of 100"}

    @property
    def lopsided(self) -> bool:
        """Has one label ten times the rows of another?"""
        return bool(self.counts) and max(self.counts) >= 10 * max(self.rarest, 1)


def survey(source: str, chosen: Chosen) -> Survey:
    """Look at every row. Raises DataError for a file without rows or rows without a label, OptionError where a column
    must be named."""
    columns = _columns(source)
    if chosen.task is Task.ANSWERING or {"question", "context", "answers"} <= columns.keys():
        raise OptionError(f"{source}: has questions to answer; begin with export/recipes/squad-teacher.toml")
    rows = max((len(column.words) + len(column.blanks) for column in columns.values()), default=0)
    if not rows:
        raise DataError(f"{source}: has no rows, so there is nothing to learn from")
    label = _named(columns, chosen.label, LABELS, "--label", source)
    text = _named(columns, chosen.text, TEXTS, "--text", source, besides=label)
    pair = _named(columns, chosen.pair, (), "--pair", source) if chosen.pair else _second(columns, (text, label))
    task = chosen.task or _task(columns[label], columns[text])
    _check_labelled(columns[label], task, source)
    labels, counts = _labels(columns[label], task, source)
    words = [number for name in (text, pair) if name for number in columns[name].words]
    return Survey(source, rows, text, pair, label, task, labels, counts, int(np.quantile(words or [0], 0.95)))


def _columns(source: str) -> dict[str, Column]:
    found: dict[str, Column] = {}
    lines: list[int] = []
    for line, record in read_records(source):
        for name in record:
            if name not in found:  # rows of JSON may leave some out
                found[name] = Column(name, blanks=lines.copy())
        for name, column in found.items():
            column.add(line, record.get(name))
        lines.append(line)
    return found


def _check_labelled(column: Column, task: Task, source: str) -> None:
    """Where a row has several labels it may have none. Raises DataError."""
    if column.blanks and task in (Task.SINGLE_LABEL, Task.REGRESSION):
        rows = len(column.words) + len(column.blanks)
        raise DataError(
            f"{source}: {len(column.blanks):,} of {rows:,} rows have nothing in column {column.name!r}, the first in "
            f"line {column.blanks[0]}; label them or leave them out"
        )


def _named(
    columns: dict[str, Column], wanted: str | None, known: Sequence[str], option: str, source: str, besides: str = ""
) -> str:
    """The column that was asked for; else one with a well-known name; else, of texts, the one with most words."""
    listed = ", ".join(columns)
    if wanted is not None:
        if wanted not in columns:
            raise OptionError(f"{option} {wanted}: {source} has no such column; there is {listed}")
        return wanted
    small = {name.lower(): name for name in columns if name != besides}
    found = next((small[name] for name in known if name in small), None)
    if found is None and known is TEXTS:
        found = max(small.values(), key=lambda name: columns[name].mean_words, default=None)
    if found is None:
        raise OptionError(f"{source}: which column is it? There is {listed}; say so with {option}")
    return found


def _second(columns: dict[str, Column], taken: Iterable[str]) -> str | None:
    small = {name.lower(): name for name in columns if name not in taken}
    return next((small[name] for name in PAIRS if name in small), None)


def _task(label: Column, text: Column) -> Task:
    if label.lists:
        return Task.TAGGING if text.lists else Task.MULTI_LABEL
    values = label.values
    if all(map(_is_number, values)) and not _are_classes(values):
        return Task.REGRESSION
    several = any("," in value for value in values)
    different = len(values) + bool(label.blanks)  # having none is one more way to have some of them
    return Task.MULTI_LABEL if several and len(label.parts) < different else Task.SINGLE_LABEL


def _are_classes(numbers: Collection[str]) -> bool:
    """Do they count kinds, and measure nothing?"""
    if len(numbers) <= MOST_GRADES:
        return all(float(number).is_integer() for number in numbers)
    return len(numbers) <= MOST_LABELS and all(number.isdecimal() for number in numbers)


def _labels(column: Column, task: Task, source: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    if task is Task.REGRESSION:
        return ("score",), ()
    counts = column.parts if task is Task.MULTI_LABEL else column.values
    counts = column.items if column.lists else counts
    if len(counts) > MOST_LABELS:
        raise OptionError(
            f"{source}: column {column.name!r} has more than {MOST_LABELS} different values; "
            "say which one has the labels with --label, or --task regression if they are numbers"
        )
    names = sorted(counts, key=_rank)
    if task is Task.TAGGING:
        names.sort(key=lambda name: (name != "O", name.partition("-")[2], name))  # O, B-LOC, I-LOC, …
    if len(names) < 2 and task is not Task.MULTI_LABEL:
        raise DataError(f"{source}: column {column.name!r} has one value only, {names[0]!r}; nothing can be learnt")
    return tuple(names), tuple(counts[name] for name in names)


def _rank(name: str) -> tuple[float, str]:
    """Numbers by their value, all else by its spelling."""
    value = float(name) if _is_number(name) else 0.0
    return (value if math.isfinite(value) else 0.0), name


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
