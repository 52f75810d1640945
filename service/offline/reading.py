"""Records from files of lines, each plain or .gz, and from what is piped to us, streamed row by row.

It knows rows and columns. It knows nothing of models, nor of what is done with a record.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from service.offline.errors import InputError
from service.offline.lines import LONGEST_LINE, SPLITS, Fault, Lines, Rows, unzipped
from service.offline.records import Columns, Record

CHUNK = 64 * 2**10


class Source:
    """An open file."""

    def __init__(self, name: str, raw: BinaryIO, kind: str, *, zipped: bool, size: int | None) -> None:
        self.name = name
        self.size = size
        self._raw = raw
        self._kind = kind
        self._zipped = zipped

    @property
    def position(self) -> int:
        """Bytes that were read of those that lie on the disk."""
        return 0 if self.size is None else self._raw.tell()

    def records(self, columns: Columns) -> Iterator[Record]:
        """All rows. Raises InputError at the first that is not as it should be."""
        with unzipped(self._raw, self.name, zipped=self._zipped) as raw:
            lines = Lines(raw, self.name)
            rows = Rows(lines, self.name, self._kind, columns)
            for found in rows.split(lines):
                row = rows.read(found)
                if isinstance(row, Fault):
                    raise InputError.at(self.name, lines.number, row.problem)
                text, cells = row
                yield Record(lines.number, text, cells[len(columns.texts) :])


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
    if found not in SPLITS:
        known = ", ".join(f".{each}" for each in SPLITS)
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
