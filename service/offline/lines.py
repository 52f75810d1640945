"""Files of lines (.txt, .csv, .tsv, .jsonl): lines into rows, and rows into what is wanted of them.

Whoever reads such a file does so by this code, from its beginning or from a place within it, so that all agree on what
the seventh row is, whatever is wrong with the six before. A row that cannot be read is a Fault; whether it ends
everything is for others to say. It knows nothing of models.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import BinaryIO, cast

from service.offline.errors import InputError
from service.offline.records import Columns, Text, no_column

LONGEST_LINE = 16 * 2**20
"""Bytes. A file without line ends would fill the memory."""

HALF_CHARACTER = re.compile("[\ud800-\udfff]")
"""Bytes that are no UTF-8 become such halves as a line is decoded, and JSON can spell them; no tokenizer takes them."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a row."""

    problem: str


class Lines:
    """Decoded lines of an open file from where it stands, which know how far they have come."""

    def __init__(self, raw: BinaryIO, name: str, offset: int = 0, number: int = 0) -> None:
        self.offset = offset
        self.number = number
        self._raw = raw
        self._name = name

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._raw.readline(LONGEST_LINE)
        if not line:
            raise StopIteration
        start = self.offset
        self.offset += len(line)
        self.number += 1
        if len(line) == LONGEST_LINE:
            problem = f"longer than {LONGEST_LINE} bytes; is it a file of that kind?"
            raise InputError.at(self._name, self.number, problem)
        # Spreadsheets put a byte order mark before the first line.
        return line.decode("utf-8" if start else "utf-8-sig", "surrogateescape")


Cells = list[str]
Unread = Cells | str
"""A row of a table, or a line that is one."""


def _every_line(lines: Lines) -> Iterator[str]:
    for line in lines:
        yield line.rstrip("\r\n")


def _lines_with_something(lines: Lines) -> Iterator[str]:
    for line in lines:
        if line.strip():
            yield line


def _table(lines: Lines, **dialect: object) -> Iterator[Cells | Fault]:
    csv.field_size_limit(LONGEST_LINE)
    rows = csv.reader(lines, **dialect)  # type: ignore[arg-type]
    while True:
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:  # the reader begins anew with the next line
            yield Fault(str(error))
            continue
        if cells:  # a blank line, as at the end of many files
            yield cells


JSON = "jsonl"
TABLES = ("csv", "tsv")

SPLITS: MappingProxyType[str, Callable[[Lines], Iterator[Unread | Fault]]] = MappingProxyType(
    {
        "txt": _every_line,
        "csv": partial(_table, strict=True),
        "tsv": partial(_table, delimiter="\t", quoting=csv.QUOTE_NONE),
        JSON: _lines_with_something,
    }
)
"""Kind of file -> how it is cut into rows."""

Row = tuple[Text, tuple[object, ...]]
"""A text or a pair, and the cells of all columns that are wanted: text, pair and what is kept."""


class Rows:
    """What is wanted of the rows of one file. Reads the header of a table from `lines`; raises InputError."""

    def __init__(self, lines: Lines, name: str, kind: str, columns: Columns) -> None:
        self.split = SPLITS[kind]
        self._kind = kind
        self._columns = columns
        self._width = 0
        self._places: list[int] = []
        if kind in TABLES:
            self._read_header(lines, name)
        elif kind == "txt" and (columns.pair or columns.kept):
            raise InputError(f"{name}: lines of text have no columns; use a .csv, .tsv, .jsonl or .parquet file")

    def _read_header(self, lines: Lines, name: str) -> None:
        header = next(self.split(lines), None)
        if header is None:
            raise InputError(f"{name}: empty; the first line must name the columns")
        if isinstance(header, Fault):
            raise InputError.at(name, lines.number, header.problem)
        for column in self._columns.all:
            if column not in header:
                raise InputError(f"{name}:1: {no_column(column, header)}")
        self._places = [header.index(column) for column in self._columns.all]
        self._width = len(header)

    def read(self, found: Unread | Fault) -> Row | Fault:
        """A row of `split`."""
        own = found if isinstance(found, Fault) else self._cells(found)
        if isinstance(own, Fault):
            return own
        if problem := self._no_character(own, spelt=self._kind == JSON and isinstance(found, str) and "\\u" in found):
            return Fault(problem)
        return (str(own[0]) if self._columns.pair is None else (str(own[0]), str(own[1]))), own

    def lacking(self, line: str) -> str | None:
        """What to say of a column that a line of JSON lacks; None if it lacks none, or cannot be read."""
        row = _object_of(line)
        return None if isinstance(row, Fault) else self._lacking(row)

    def _cells(self, found: Unread) -> tuple[object, ...] | Fault:
        if isinstance(found, list):
            if len(found) != self._width:
                return Fault(f"{len(found)} columns, but the header has {self._width}")
            return tuple(found[place] for place in self._places)
        return (found,) if self._kind == "txt" else self._of_json(found)

    def _of_json(self, line: str) -> tuple[object, ...] | Fault:
        row = _object_of(line)
        if isinstance(row, Fault):
            return row
        if problem := self._lacking(row):
            return Fault(problem)
        for column in self._columns.texts:
            if not isinstance(row[column], str):
                return Fault(f"{column} is {type(row[column]).__name__}, not a string")
        return tuple(row[column] for column in self._columns.all)

    def _lacking(self, row: dict[str, object]) -> str | None:
        return next((no_column(column, row) for column in self._columns.all if column not in row), None)

    def _no_character(self, own: tuple[object, ...], *, spelt: bool) -> str | None:
        """Halves of characters: nothing can write them."""
        for column, cell in zip(self._columns.all, own, strict=True):
            # Lists and objects of JSON may hold some as well; numbers hold none.
            text = json.dumps(cell, ensure_ascii=False) if isinstance(cell, list | dict) else cell
            if isinstance(text, str) and not text.isascii() and HALF_CHARACTER.search(text):
                spelling = f"{column} has half a surrogate pair (\\ud800-\\udfff), which is no character"
                return spelling if spelt else "not UTF-8; convert the file first"
        return None


def _object_of(line: str) -> dict[str, object] | Fault:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Fault(f"not JSON ({getattr(error, 'msg', error)})")
    return row if isinstance(row, dict) else Fault("not a JSON object")


@contextmanager
def unzipped(raw: BinaryIO, name: str, *, zipped: bool) -> Iterator[BinaryIO]:
    """What a file holds, gzip or not. Raises InputError as it is read, if it is no whole gzip file."""
    try:
        yield cast(BinaryIO, io.BufferedReader(gzip.GzipFile(fileobj=raw))) if zipped else raw
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InputError(f"{name}: not a whole gzip file ({error})") from error
