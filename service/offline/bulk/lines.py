"""Files of lines (.txt, .csv, .tsv, .jsonl; .gz or not): where each part of one begins, and its rows from there on.

Both ways split lines into rows by the same code, so that they agree on what the seventh row is, whatever is wrong with
the six before. A row that cannot be read is a Fault and not the end. It knows nothing of models.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, cast

from service.offline.bulk.blocks import BLOCK_CHARS, BLOCK_ROWS, Block, Column, Reject
from service.offline.bulk.plan import InputFile, Span
from service.offline.errors import InputError
from service.offline.reading import HALF_CHARACTER, LONGEST_LINE, Columns, no_column
from service.offline.records import Text


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a row."""

    problem: str


class Lines:
    """Decoded lines of an open file from a place on, which know how far they have come."""

    def __init__(self, raw: BinaryIO, name: str, offset: int = 0, number: int = 0) -> None:
        raw.seek(offset)  # in a .gz what lies before is read and forgotten; onwards only what lies between
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
        # Bytes that are no UTF-8 become halves of characters, by which the row is known later on.
        return line.decode("utf-8" if start else "utf-8-sig", "surrogateescape")


Cells = list[str]
Split = Callable[[Lines], Iterator[Cells | str | Fault]]


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


SPLITS: MappingProxyType[str, Split] = MappingProxyType(
    {
        "txt": _every_line,
        "csv": partial(_table, strict=True),
        "tsv": partial(_table, delimiter="\t", quoting=csv.QUOTE_NONE),
        "jsonl": _lines_with_something,
    }
)
TABLES = ("csv", "tsv")

Row = tuple[Text, tuple[object, ...]]
"""A text or a pair, and all columns of the output that the row itself has."""


class LineFile:
    """An open file of lines, with the columns that are wanted of it."""

    def __init__(self, raw: BinaryIO, file: InputFile, columns: Columns) -> None:
        self._raw = raw
        self._file = file
        self._columns = columns
        self._split = SPLITS[file.kind]
        self._body = 0, 0  # offset and lines before the first row
        self._width = 0
        self._places: list[int] = []
        if file.kind in TABLES:
            self._read_header()
        elif file.kind == "jsonl":
            self._look_at_the_first()
        elif file.kind == "txt" and (columns.pair or columns.kept):
            raise InputError(f"{file.path}: lines of text have no columns; use a .csv, .tsv, .jsonl or .parquet file")

    def _read_header(self) -> None:
        lines = Lines(self._raw, self._file.path)
        header = next(self._split(lines), None)
        if not isinstance(header, list):
            problem = header.problem if isinstance(header, Fault) else "empty; the first line must name the columns"
            raise InputError(f"{self._file.path}: {problem}")
        for column in self._columns.all:
            if column not in header:
                raise InputError(f"{self._file.path}:1: {no_column(column, header)}")
        self._places = [header.index(column) for column in self._columns.all]
        self._width = len(header)
        self._body = lines.offset, lines.number

    def _look_at_the_first(self) -> None:
        """A column that it lacks was misspelt, rather than the row a bad one."""
        lines = Lines(self._raw, self._file.path)
        row = _object_of(next(iter(self._split(lines)), ""))  # type: ignore[arg-type]
        if isinstance(row, Fault):
            return
        for column in self._columns.all:
            if column not in row:
                raise InputError.at(self._file.path, lines.number, no_column(column, row))

    def spans(self, number: int, file: int, part_rows: int) -> list[Span]:
        """Where parts of so many rows begin. Reads the whole file, and looks at no more of a row than it must."""
        lines = Lines(self._raw, self._file.path, *self._body)
        rows = self._split(lines)
        found: list[Span] = []
        while True:
            start = Span(
                number=number + len(found),
                file=file,
                first=len(found) * part_rows,
                rows=0,
                offset=lines.offset,
                lines=lines.number,
            )
            taken = sum(1 for _ in islice(rows, part_rows))
            if not taken:
                return found
            found.append(start.model_copy(update={"rows": taken}))

    def blocks(self, span: Span) -> Iterator[Block]:
        """The rows of a span, some at a time."""
        lines = Lines(self._raw, self._file.path, span.offset, span.lines)
        rows = islice(self._split(lines), span.rows)
        number = span.first
        while True:
            block = self._block(rows, lines, number)
            if not block.read:
                return
            number += block.read
            yield block

    def _block(self, rows: Iterator[Cells | str | Fault], lines: Lines, before: int) -> Block:
        good: list[Row] = []
        places: list[tuple[int, int]] = []
        rejects: list[Reject] = []
        chars = 0
        for number, found in enumerate(islice(rows, BLOCK_ROWS), start=before + 1):
            row = found if isinstance(found, Fault) else self._row(found)
            chars += 0 if isinstance(found, Fault) else len(found) if isinstance(found, str) else sum(map(len, found))
            if isinstance(row, Fault):
                rejects.append(Reject(number, lines.number, row.problem))
                continue
            good.append(row)
            places.append((number, lines.number))
            if chars >= BLOCK_CHARS:
                break
        own: list[Column] = [list(column) for column in zip(*(own for _, own in good), strict=True)]
        return Block(
            [text for text, _ in good],
            tuple(own or ([] for _ in self._columns.all)),
            [number for number, _ in places],
            [line for _, line in places],
            tuple(rejects),
        )

    def _row(self, found: Cells | str) -> Row | Fault:
        if isinstance(found, list):
            if len(found) != self._width:
                return Fault(f"{len(found)} columns, but the header has {self._width}")
            own: tuple[object, ...] = tuple(found[place] for place in self._places)
        elif self._file.kind == "txt":
            own = (found,)
        else:
            read = _of_json(found, self._columns)
            if isinstance(read, Fault):
                return read
            own = read
        if problem := _no_character(own, spelt="\\u" in found):
            return Fault(problem)
        return (str(own[0]) if self._columns.pair is None else (str(own[0]), str(own[1]))), own


def _of_json(line: str, columns: Columns) -> tuple[object, ...] | Fault:
    row = _object_of(line)
    if isinstance(row, Fault):
        return row
    for column in columns.all:
        if column not in row:
            return Fault(no_column(column, row))
    for column in columns.texts:
        if not isinstance(row[column], str):
            return Fault(f"{column} is {type(row[column]).__name__}, not a string")
    return tuple(row[column] for column in columns.all)


def _object_of(line: str) -> dict[str, object] | Fault:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Fault(f"not JSON ({getattr(error, 'msg', error)})")
    return row if isinstance(row, dict) else Fault("not a JSON object")


def _no_character(own: tuple[object, ...], *, spelt: bool) -> str | None:
    """Halves of characters: from bytes that are no UTF-8, or as JSON can spell them. Nothing can write them."""
    for cell in own:
        # Lists and objects of JSON may hold some as well; numbers hold none.
        text = json.dumps(cell, ensure_ascii=False) if isinstance(cell, list | dict) else cell
        if isinstance(text, str) and not text.isascii() and HALF_CHARACTER.search(text):
            spelling = "has half a surrogate pair (\\ud800-\\udfff), which is no character"
            return spelling if spelt else "not UTF-8; convert the file first"
    return None


@contextmanager
def open_lines(file: InputFile, columns: Columns) -> Iterator[LineFile]:
    """Open a file of lines. What is wrong with its gzip stream is said as it is read."""
    path = Path(file.path)
    with path.open("rb") as plain:
        zipped = path.suffix.lower() == ".gz"
        raw = cast(BinaryIO, io.BufferedReader(gzip.GzipFile(fileobj=plain))) if zipped else plain
        try:
            yield LineFile(raw, file, columns)
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise InputError(f"{path}: not a whole gzip file ({error})") from error
