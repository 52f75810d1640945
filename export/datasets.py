"""Labelled examples and bare texts, streamed from files and from the Hugging Face hub.

A *source* is a string: the path of a file (`.tsv`, `.csv`, `.jsonl` or `.txt`, each plain or `.gz`), or a hub data set,
`hub:stanfordnlp/sst2?split=train` (`&config=…` for data sets that have several; a local folder works as a name too), or
the `.db` in which a service has captured texts (see `export.captured`), which has no labels.
This module knows nothing of models, tokenisers or training.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO, cast
from urllib.parse import parse_qs

from export import captured
from export.errors import DataError, first_line

if TYPE_CHECKING:
    from _csv import Reader

HUB = "hub:"
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # JSON can spell them; no tokenizer takes them

Record = dict[str, object]
"""One row as the file gives it: column name -> value. It never leaves this module."""


@dataclass(frozen=True, slots=True)
class Example:
    """A text and the index of its label."""

    text: str
    label: int


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a labelled row keeps its text and its label."""

    text: str = "text"
    label: str = "label"


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a run may train on (`train`) and select with (`dev`). A test split is not part of it: see `held_out`."""

    labels: tuple[str, ...]
    train: tuple[Example, ...]
    dev: tuple[Example, ...]


def read_dataset(train: str, dev: str, labels: Sequence[str], columns: Columns) -> Dataset:
    """Read both splits. Raises DataError with file and line for whatever doesn't fit."""
    read = [read_labelled(source, labels, columns) for source in (train, dev)]
    return Dataset(labels=tuple(labels), train=read[0], dev=read[1])


def read_examples(source: str, labels: Sequence[str], columns: Columns) -> Iterator[Example]:
    """Stream labelled examples. A label is one of the names in `labels`, or its index (0, 1, …)."""
    index = {name: i for i, name in enumerate(labels)} | {str(i): i for i in range(len(labels)) if str(i) not in labels}
    for line, record in _records(source, (columns.text, columns.label)):
        label = index.get(str(record[columns.label]))
        if label is None:
            known = ", ".join(labels)
            raise DataError.at(source, line, f"unknown label {record[columns.label]!r}; the recipe knows {known}")
        yield Example(_text(source, line, record[columns.text]), label)


def read_labelled(source: str, labels: Sequence[str], columns: Columns) -> tuple[Example, ...]:
    """All examples of a source, in memory. Raises DataError when there are none."""
    found = tuple(read_examples(source, labels, columns))
    if not found:
        raise DataError(f"{source}: has no rows, so there is nothing to learn from or to measure")
    return found


def read_texts(source: str, column: str = "text") -> Iterator[str]:
    """Stream bare texts: one column of a table, or each line of a `.txt` file."""
    for line, record in _records(source, (column,)):
        yield _text(source, line, record[column])


def held_out(source: str, labels: Sequence[str], columns: Columns) -> tuple[Example, ...]:
    """The only door to a test split; `export.evaluation` alone may open it (tests/test_architecture.py)."""
    return read_labelled(source, labels, columns)


def _text(source: str, line: int, value: object) -> str:
    if not isinstance(value, str):
        raise DataError.at(source, line, f"the text is {type(value).__name__}, not a string")
    if not value.isascii() and _HALF_CHARACTER.search(value):
        raise DataError.at(source, line, "the text has half a surrogate pair (\\ud800-\\udfff), which is no character")
    return value


def _records(source: str, needed: Iterable[str]) -> Iterator[tuple[int, Record]]:
    for line, record in _stream(source):
        for column in needed:
            if column not in record:
                columns = ", ".join(str(name) for name in record) or "none"
                raise DataError.at(source, line, f"no column {column!r}; there is {columns}")
            if record[column] is None:
                raise DataError.at(source, line, f"nothing in column {column!r}")
        yield line, record


def _stream(source: str) -> Iterator[tuple[int, Record]]:
    if source.startswith(HUB):
        return _hub_records(source)
    if Path(source).suffix.lower() == captured.SUFFIX:
        return ((number, {"text": text}) for number, text in captured.captured_texts(Path(source)))
    return _file_records(Path(source))


def _file_records(path: Path) -> Iterator[tuple[int, Record]]:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    reader = READERS.get(suffixes[-1] if suffixes else "")
    if reader is None:
        raise DataError(f"{path}: unknown kind of file; use one of {', '.join(READERS)} (each may be .gz)")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with _open(path) as stream:
            yield from reader(stream, str(path))
    except UnicodeDecodeError as error:
        raise DataError.at(str(path), _line_in_other_encoding(path), "not UTF-8; convert the file first") from error
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}: not a whole gzip file ({error})") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def _open(path: Path) -> TextIO:
    """As text; a byte order mark, which spreadsheets write, is left out."""
    return io.TextIOWrapper(_open_bytes(path), encoding="utf-8-sig", newline="")


def _open_bytes(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def _line_in_other_encoding(path: Path) -> int:
    """Text is decoded in blocks, so the line is looked for afterwards; a newline is the same byte in all encodings."""
    number = 0
    with _open_bytes(path) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return number


def _tsv(stream: TextIO, place: str) -> Iterator[tuple[int, Record]]:
    return _table(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE), place)


def _csv(stream: TextIO, place: str) -> Iterator[tuple[int, Record]]:
    return _table(csv.reader(stream, strict=True), place)


def _table(rows: "Reader", place: str) -> Iterator[tuple[int, Record]]:  # a header line, then rows as wide as it
    try:
        header = next(rows, None)
        if header is None:
            raise DataError(f"{place}: empty; the first line must name the columns")
        for cells in rows:
            if len(cells) != len(header):
                raise DataError.at(place, rows.line_num, f"{len(cells)} columns, but the header has {len(header)}")
            yield rows.line_num, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise DataError.at(place, rows.line_num, str(error)) from error


def _jsonl(stream: TextIO, place: str) -> Iterator[tuple[int, Record]]:
    for line, text in enumerate(stream, start=1):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError.at(place, line, f"not JSON: {error.msg}") from error
        if not isinstance(record, dict):
            raise DataError.at(place, line, "not a JSON object")
        yield line, record


def _txt(stream: TextIO, _place: str) -> Iterator[tuple[int, Record]]:
    for line, text in enumerate(stream, start=1):
        if text.strip():
            yield line, {"text": text.rstrip("\r\n")}


READERS: dict[str, Callable[[TextIO, str], Iterator[tuple[int, Record]]]] = {
    ".tsv": _tsv,
    ".csv": _csv,
    ".jsonl": _jsonl,
    ".txt": _txt,
}
"""File ending -> reader. To add a format, add one row."""


def _hub_records(source: str) -> Iterator[tuple[int, Record]]:
    import datasets  # the Hugging Face library; here, since only hub sources need it

    name, _, query = source.removeprefix(HUB).partition("?")
    asked = {key: values[-1] for key, values in parse_qs(query).items()}
    if "split" not in asked or set(asked) - {"split", "config"}:
        raise DataError(f"{source}: write hub:NAME?split=train, with &config=… where the data set has several")
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what it logs of a bad file, the exception says too
    try:
        rows = datasets.load_dataset(name, asked.get("config"), split=asked["split"], streaming=True)
        yield from enumerate(rows, start=1)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{source}: {first_line(error)}") from error
