"""Files of lines in pieces: where each part of one begins, and its rows from there on. It knows nothing of models."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from service.offline.bulk.blocks import BLOCK_CHARS, BLOCK_ROWS, Block, Column, Reject
from service.offline.bulk.plan import InputFile, Span
from service.offline.errors import InputError
from service.offline.lines import JSON, Fault, Lines, Row, Rows, Unread, unzipped
from service.offline.records import Columns


class LineFile:
    """An open file of lines, with the columns that are wanted of it. A column that no row can have raises InputError;
    of JSON, one that the first row lacks: it was misspelt, rather than the row a bad one."""

    def __init__(self, raw: BinaryIO, file: InputFile, columns: Columns) -> None:
        self._raw = raw
        self._path = file.path
        self._columns = columns
        lines = self._lines(0, 0)
        self._rows = Rows(lines, file.path, file.kind, columns)
        self._body = lines.offset, lines.number  # before the first row
        if file.kind == JSON and (problem := self._rows.lacking(next(map(str, self._rows.split(lines)), ""))):
            raise InputError.at(file.path, lines.number, problem)

    def _lines(self, offset: int, number: int) -> Lines:
        self._raw.seek(offset)  # in a .gz what lies before is read and forgotten; onwards only what lies between
        return Lines(self._raw, self._path, offset, number)

    def spans(self, number: int, file: int, part_rows: int) -> list[Span]:
        """Where parts of so many rows begin. Reads the whole file, and looks at no more of a row than it must."""
        lines = self._lines(*self._body)
        rows = self._rows.split(lines)
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
        lines = self._lines(span.offset, span.lines)
        rows = islice(self._rows.split(lines), span.rows)
        number = span.first
        while True:
            block = self._block(rows, lines, number)
            if not block.read:
                return
            number += block.read
            yield block

    def _block(self, rows: Iterator[Unread | Fault], lines: Lines, before: int) -> Block:
        good: list[Row] = []
        places: list[tuple[int, int]] = []
        rejects: list[Reject] = []
        chars = 0
        for number, found in enumerate(islice(rows, BLOCK_ROWS), start=before + 1):
            row = self._rows.read(found)
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


@contextmanager
def open_lines(file: InputFile, columns: Columns) -> Iterator[LineFile]:
    """Open a file of lines. What is wrong with its gzip stream is said as it is read."""
    path = Path(file.path)
    with path.open("rb") as plain, unzipped(plain, file.path, zipped=path.suffix.lower() == ".gz") as raw:
        yield LineFile(raw, file, columns)
