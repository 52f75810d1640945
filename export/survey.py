"""What is in a file of labelled rows: its columns, and what one may take them for.

It knows rows as files give them. It knows nothing of recipes, models or training.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from export.errors import DataError, OptionError
from export.texts.records import read_records
from service.bundle.manifest import Task, are_tags

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

_QUOTED = re.compile(r'"[^"]*(""[^"]*)+"')

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
    quoted: int = 0  # of them such as "a ""b"" c", quotes included
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
        self.quoted += bool(_QUOTED.fullmatch(str(value)))
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
    quoted: int = 0  # texts that look as if whoever wrote a .tsv had quoted them

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


def survey(source: str, chosen: Chosen, dev: str | None = None) -> Survey:
    """Look at every row; of the rows that select only for labels that `source` lacks, which count 0 rows.

    Raises DataError for a file without rows or rows without a label, OptionError where a column must be named.
    """
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
    if dev is not None:
        labels, counts = _also(labels, counts, dev, (text, pair, label), task)
    words = [number for name in (text, pair) if name for number in columns[name].words]
    long_words = int(np.quantile(words or [0], 0.95))
    quoted = sum(columns[name].quoted for name in (text, pair) if name)
    return Survey(source, rows, text, pair, label, task, labels, counts, long_words, quoted)


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
    """Where a row has several labels it may have none. Raises DataError, OptionError for a task that cannot be."""
    odd = next((value for value in column.values if not _is_number(value)), None)
    if task is Task.REGRESSION and odd is not None:
        raise OptionError(f"--task regression: column {column.name!r} of {source} has {odd!r}, which is no number")
    if task is Task.TAGGING and not (column.lists and are_tags(tuple(_sorted(column.items, task)))):
        example = next(iter(column.items or column.values), "")
        raise OptionError(
            f"{source}: column {column.name!r} has {example!r}; tagging wants a tag for each word, O and names, or O, "
            "B-names and I-names, from .conll or as lists in .jsonl"
        )
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
    if found is None and len(columns) == 1 and ";" in listed:
        raise OptionError(f"{source}: has one column, {listed}; a .csv has commas between columns")
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
    several = [value for value in values if "," in value]
    different = len(values) + bool(label.blanks)  # having none is one more way to have some of them
    # A name with a comma of its own is no list of others; a list of others is made of what also stands alone.
    listed = any(part.strip() in values for value in several for part in value.split(","))
    return Task.MULTI_LABEL if several and (listed or len(label.parts) < different) else Task.SINGLE_LABEL


def _are_classes(numbers: Collection[str]) -> bool:
    """Do they count kinds, and measure nothing?"""
    if len(numbers) <= MOST_GRADES:
        return all(float(number).is_integer() for number in numbers)
    return len(numbers) <= MOST_LABELS and all(number.isdecimal() for number in numbers)


def _labels(column: Column, task: Task, source: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    if task is Task.REGRESSION:
        return ("score",), ()
    counts = _counted(column, task)
    if len(counts) > MOST_LABELS:
        raise OptionError(
            f"{source}: column {column.name!r} has more than {MOST_LABELS} different values; "
            "say which one has the labels with --label, or --task regression if they are numbers"
        )
    names = _sorted(counts, task)
    if len(names) < 2 and task is not Task.MULTI_LABEL:
        raise DataError(f"{source}: column {column.name!r} has one value only, {names[0]!r}; nothing can be learnt")
    return tuple(names), tuple(counts[name] for name in names)


def _also(
    labels: tuple[str, ...], counts: tuple[int, ...], dev: str, named: Sequence[str | None], task: Task
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    columns = _columns(dev)
    for name in named:
        if columns and name and name not in columns:
            raise OptionError(f"--dev: {dev} has no column {name!r}; there is {', '.join(columns)}")
    if task is Task.REGRESSION or not columns:
        return labels, counts
    here = dict(zip(labels, counts, strict=True))
    names = _sorted({*labels, *_counted(columns[str(named[-1])], task)}, task)
    return tuple(names), tuple(here.get(name, 0) for name in names)


def _counted(column: Column, task: Task) -> Counter[str]:
    if column.lists:
        return column.items
    return column.parts if task is Task.MULTI_LABEL else column.values


def _sorted(names: Iterable[str], task: Task) -> list[str]:
    """As logits are to be ordered; of tags O, B-LOC, I-LOC, …"""
    found = sorted(names, key=_rank)
    if task is Task.TAGGING:
        found.sort(key=lambda name: (name != "O", name.partition("-")[2], name))
    return found


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
