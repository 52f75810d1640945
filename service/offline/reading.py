"""Records from files: .txt, .csv, .tsv and .jsonl, each plain or .gz, streamed row by row.

It knows rows and columns. It knows nothing of models, nor of what is done with a record.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, BinaryIO, cast

from service.offline.errors import InputError
from service.offline.records import Record, Text

if TYPE_CHECKING:
    from _csv import Reader as CsvRows

LONGEST_LINE = 16 * 2**20
"""Bytes. A file without line ends would fill the memory."""

CHUNK = 64 * 2**10

HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # JSON can spell them; no tokenizer takes them


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a row keeps what we need. Lines of a .txt file are all text."""

    text: str = "text"
    pair: str | None = None
    kept: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """Text, and pair if there is one."""
        return (self.text, *((self.pair,) if self.pair else ()))

    @property
    def all(self) -> tuple[str, ...]:
        """Text, pair and kept, in this order."""
        return (*self.texts, *self.kept)


class Source:
    """An open file."""

    def __init__(self, name: str, raw: BinaryIO, kind: str, *, zipped: bool, size: int | None) -> None:
        self.name = name
        self.size = size
        self._raw = raw
        self._reader = READERS[kind]
        self._zipped = zipped

    @property
    def position(self) -> int:
        """Bytes that were read of those that lie on the disk."""
        return 0 if self.size is None else self._raw.tell()

    def records(self, columns: Columns) -> Iterator[Record]:
        """All rows. Raises InputError at the first that is not as it should be."""
        raw = cast(BinaryIO, io.BufferedReader(gzip.GzipFile(fileobj=self._raw))) if self._zipped else self._raw
        try:
            yield from self._reader(_lines(raw, self.name), self.name, columns)
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise InputError(f"{self.name}: not a whole gzip file ({error})") from error


@contextmanager
def open_file(path: Path, kind: str | None = None) -> Iterator[Source]:
    """Open a file; its kind is that of its ending, if none is given."""
    kind = check_file(path, kind)
    with path.open("rb") as raw:
        yield Source(str(path), raw, kind, zipped=path.suffix.lower() == ".gz", size=path.stat().st_size)


def kind_of(path: Path) -> str:
    """What the ending of its name says, .gz aside; empty if it has none."""
    endings = [ending.lower().removeprefix(".") for ending in path.suffixes if ending.lower() != ".gz"]
    return endings[-1] if endings else ""


def check_file(path: Path, kind: str | None = None) -> str:
    """The kind of a file that is there. Raises InputError."""
    found = kind or kind_of(path)
    if found == "parquet":
        raise InputError(f"{path}: Parquet is read into a folder of parts; give --out FOLDER/")
    if found not in READERS:
        known = ", ".join(f".{each}" for each in READERS)
        raise InputError(f"{path}: unknown kind of file; use one of {known} (each may be .gz), or --input-format")
    if not path.exists() or path.is_dir():
        raise InputError(f"{path}: no such file")
    return found


@contextmanager
def from_stream(raw: BinaryIO, kind: str | None = None) -> Iterator[Source]:
    """Read what is piped to us; lines of text, if no kind is given."""
    yield Source("stdin", raw, kind or "txt", zipped=False, size=None)


def arriving(raw: io.BufferedReader) -> Iterator[list[Record]]:
    """Lines of text as they come: all that are there, without waiting for more. What is no UTF-8 is replaced."""
    number, rest = 0, b""
    while chunk := raw.read1(CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > LONGEST_LINE:
            raise InputError.at("stdin", number + len(lines) + 1, f"longer than {LONGEST_LINE} bytes")
        if lines:
            yield _as_records(lines, number)
        number += len(lines)
    if rest:  # the last line may lack its end
        yield _as_records([rest], number)


def _as_records(lines: list[bytes], before: int) -> list[Record]:
    texts = (line.removesuffix(b"\r").decode(errors="replace") for line in lines)
    return [Record(number, text) for number, text in enumerate(texts, start=before + 1)]


def _lines(raw: BinaryIO, name: str) -> Iterator[str]:
    """Decoded one by one, so that a line that is no UTF-8 can be named."""
    for number, line in enumerate(iter(lambda: raw.readline(LONGEST_LINE), b""), start=1):
        if len(line) == LONGEST_LINE:
            raise InputError.at(name, number, f"longer than {LONGEST_LINE} bytes; is it a file of that kind?")
        try:
            # Spreadsheets put a byte order mark before the first.
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError.at(name, number, "not UTF-8; convert the file first") from error


Reader = Callable[[Iterator[str], str, Columns], Iterator[Record]]


def _txt(lines: Iterator[str], name: str, columns: Columns) -> Iterator[Record]:
    if columns.pair or columns.kept:
        raise InputError(f"{name}: lines of text have no columns; use a .csv, .tsv or .jsonl file")
    for number, line in enumerate(lines, start=1):
        yield Record(number, line.rstrip("\r\n"))


def _csv(lines: Iterator[str], name: str, columns: Columns) -> Iterator[Record]:
    return _table(csv.reader(lines, strict=True), name, columns)


def _tsv(lines: Iterator[str], name: str, columns: Columns) -> Iterator[Record]:
    return _table(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE), name, columns)


def _table(rows: "CsvRows", name: str, columns: Columns) -> Iterator[Record]:
    csv.field_size_limit(LONGEST_LINE)
    try:
        header = next(rows, None)
        if header is None:
            raise InputError(f"{name}: empty; the first line must name the columns")
        places = [_place(header, column, f"{name}:1") for column in columns.all]
        first_kept = len(columns.all) - len(columns.kept)
        for cells in rows:
            if len(cells) != len(header):
                if not cells:  # a blank line, as at the end of many files
                    continue
                problem = f"{len(cells)} columns, but the header has {len(header)}"
                raise InputError.at(name, rows.line_num, problem)
            found = [cells[place] for place in places]
            text: Text = found[0] if columns.pair is None else (found[0], found[1])
            yield Record(rows.line_num, text, tuple(found[first_kept:]))
    except csv.Error as error:
        raise InputError.at(name, rows.line_num, str(error)) from error


def _jsonl(lines: Iterator[str], name: str, columns: Columns) -> Iterator[Record]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError.at(name, number, f"not JSON ({getattr(error, 'msg', error)})") from error
        if not isinstance(row, dict):
            raise InputError.at(name, number, "not a JSON object")
        found = [row[_place_in(row, column, f"{name}:{number}")] for column in columns.all]
        texts = found[: len(found) - len(columns.kept)]
        for column, text in zip(columns.all, texts, strict=False):
            _check_text(text, column, f"{name}:{number}")
        yield Record(number, texts[0] if columns.pair is None else tuple(texts), tuple(found[len(texts) :]))


def _place(header: list[str], column: str, where: str) -> int:
    if column not in header:
        raise InputError(f"{where}: {no_column(column, header)}")
    return header.index(column)


def _place_in(row: dict[str, object], column: str, where: str) -> str:
    if column not in row:
        raise InputError(f"{where}: {no_column(column, row)}")
    return column


def no_column(column: str, there: Iterable[str]) -> str:
    """What to say of a column that is not there."""
    return f"no column {column!r}; there is {', '.join(there) or 'none'} (see --text-column, --pair-column, --keep)"


def _check_text(text: object, column: str, where: str) -> None:
    if not isinstance(text, str):
        raise InputError(f"{where}: {column} is {type(text).__name__}, not a string")
    if not text.isascii() and HALF_CHARACTER.search(text):
        raise InputError(f"{where}: {column} has half a surrogate pair (\\ud800-\\udfff), which is no character")


READERS: MappingProxyType[str, Reader] = MappingProxyType({"txt": _txt, "csv": _csv, "tsv": _tsv, "jsonl": _jsonl})
"""Kind of file -> reader. To add a kind, add one row."""
