"""Labelled examples and bare texts, streamed from files and from the Hugging Face hub.

A *source* is a string: the path of a file (`.tsv`, `.csv`, `.jsonl`, `.conll`, SQuAD's `.json` or `.txt`, each plain or
`.gz`), or a hub data set, `hub:stanfordnlp/sst2?split=train` (`&config=…` for data sets that have several; a local
folder works as a name too), or the `.db` in which a service has captured texts (see `export.texts.captured`), which has
no labels.
This module knows nothing of models, tokenisers or training.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from export.errors import DataError, few
from export.texts.answers import Answers, read_answers
from export.texts.records import CONLL, Record, read_records
from export.texts.tags import BadTag, Spelling, Words, tagged
from service.bundle.encoder import Text
from service.bundle.manifest import Task

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # JSON can spell them; no tokenizer takes them

Label = int | tuple[int, ...] | tuple[float, ...] | Words | Answers
"""What a row is labelled with: the index of its label, the indices of all that hold, its numbers, its words' tags, the
answers to its question."""


@dataclass(frozen=True, slots=True)
class Example:
    """A text, or a pair of them, and its label."""

    text: Text
    label: Label


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a labelled row keeps its text, the second one if rows are pairs, and its label; and what tags become."""

    text: str = "text"
    label: str = "label"
    pair: str | None = None
    relabel: Mapping[str, str] = field(default_factory=dict)  # see `export.texts.tags.Spelling`
    repair: bool = False

    @property
    def texts(self) -> tuple[str, ...]:
        """Of one text or two."""
        return (self.text,) if self.pair is None else (self.text, self.pair)


@dataclass(frozen=True, slots=True)
class Names:
    """The labels in the order of the logits, and what a row's cell says of them."""

    labels: tuple[str, ...]
    task: Task = Task.SINGLE_LABEL


class Cells(NamedTuple):
    """What a row gives of its label, the text that this is about, and how both are to be read."""

    label: object
    text: object
    columns: Columns
    pair: object = None  # the second text


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a run may train on (`train`, and the texts of `unlabelled`) and select with (`dev`). A test split is not
    part of it: see `held_out`."""

    labels: tuple[str, ...]
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    unlabelled: tuple[Text, ...] = ()


def read_examples(source: str, names: Names, columns: Columns) -> Iterator[Example]:
    """Stream labelled examples.

    A label is one of the names, or its index (0, 1, …) where no name is a number itself. Several labels of a row are a
    list, or one string with commas between them; so are several numbers. Tags are a list beside a list of words, or two
    strings with spaces.
    """
    read = CELLS[names.task]
    for line, record in _records(source, (*columns.texts, columns.label), names.labels):
        try:
            second = None if columns.pair is None else record[columns.pair]
            label = read(Cells(record[columns.label], record[columns.text], columns, second), names)
        except BadTag as error:
            conll = CONLL in Path(source).suffixes  # whose words have a line each
            raise DataError.at(source, line + error.word * conll, f"{'' if conll else error.where}{error}") from None
        except ValueError as error:
            raise DataError.at(source, line, str(error)) from None
        yield Example(_row(source, line, record, columns.texts), label)


def read_labelled(source: str, names: Names, columns: Columns) -> tuple[Example, ...]:
    """All examples of a source, in memory. Raises DataError when there are none."""
    found = tuple(read_examples(source, names, columns))
    if not found:
        raise DataError(f"{source}: has no rows, so there is nothing to learn from or to measure")
    return found


def read_texts(source: str, column: str = "text") -> Iterator[str]:
    """Stream bare texts: one column of a table, or each line of a `.txt` file."""
    for line, record in _records(source, (column,)):
        yield _text(source, line, record[column])


def read_pairs(source: str, columns: Sequence[str]) -> Iterator[Text]:
    """Stream bare rows of one column, or of two: then each is a pair."""
    for line, record in _records(source, columns):
        yield _row(source, line, record, columns)


def held_out(source: str, names: Names, columns: Columns) -> tuple[Example, ...]:
    """The only door to a test split; `export.measuring.evaluation` alone may open it (tests/rules)."""
    return read_labelled(source, names, columns)


@lru_cache(maxsize=16)
def _index(labels: tuple[str, ...]) -> dict[str, int]:
    by_name = {name: i for i, name in enumerate(labels)}
    if any(map(_NUMBER.fullmatch, labels)):  # of stars 1 to 5 a row with 0 would be a star
        return by_name
    return by_name | {str(i): i for i in range(len(labels))}


def _one_label(cells: Cells, names: Names) -> Label:
    return _place(cells.label, names)


def _several_labels(cells: Cells, names: Names) -> Label:
    return tuple(sorted({_place(part, names) for part in _parts(cells.label)}))


def _place(name: object, names: Names) -> int:
    found = _index(names.labels).get(str(name))
    if found is None:
        raise ValueError(f"unknown label {name!r}; the recipe knows {few(names.labels)}")
    return found


def _numbers(cells: Cells, names: Names) -> Label:
    parts, wanted = _parts(cells.label), len(names.labels)
    try:
        found = tuple(float(str(part)) for part in parts)
    except ValueError:
        raise ValueError(f"the label {cells.label!r} is no number") from None
    if len(found) != wanted or not all(map(math.isfinite, found)):
        raise ValueError(f"the label {cells.label!r} is not {wanted} finite number{'s' * (wanted > 1)}")
    return found


def _words(cells: Cells, names: Names) -> Label:
    return tagged(cells.text, cells.label, Spelling(names.labels, cells.columns.relabel, cells.columns.repair))


def _answers(cells: Cells, _names: Names) -> Label:
    return read_answers(cells.label, cells.pair)


def _parts(cell: object) -> list[object]:
    """Of a list, or of what stands between commas; an empty cell has none."""
    if isinstance(cell, list | tuple):
        return list(cell)
    return [part for part in (piece.strip() for piece in str(cell).split(",")) if part]


CELLS: Mapping[Task, Callable[[Cells, Names], Label]] = MappingProxyType(
    {
        Task.SINGLE_LABEL: _one_label,
        Task.MULTI_LABEL: _several_labels,
        Task.REGRESSION: _numbers,
        Task.TAGGING: _words,
        Task.ANSWERING: _answers,
    }
)
"""Task -> (a row's cells, the labels) -> its label; a ValueError says what is wrong with the cell."""


def _row(source: str, line: int, record: Record, columns: Sequence[str]) -> Text:
    texts = [_text(source, line, record[column]) for column in columns]
    return texts[0] if len(texts) == 1 else (texts[0], texts[1])


def _text(source: str, line: int, value: object) -> str:
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        value = " ".join(value)
    if not isinstance(value, str):
        raise DataError.at(source, line, f"the text is {type(value).__name__}, not a string")
    if not value.isascii() and _HALF_CHARACTER.search(value):
        raise DataError.at(source, line, "the text has half a surrogate pair (\\ud800-\\udfff), which is no character")
    return value


def _records(source: str, needed: Sequence[str], classes: Sequence[str] = ()) -> Iterator[tuple[int, Record]]:
    for line, record in read_records(source, needed, classes):
        for column in needed:
            if column not in record:
                columns = ", ".join(str(name) for name in record) or "none"
                raise DataError.at(source, line, f"no column {column!r}; there is {columns}")
            if record[column] is None:
                raise DataError.at(source, line, f"nothing in column {column!r}")
        yield line, record
