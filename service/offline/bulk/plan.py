"""What is asked of a run, how its input is cut, and what became of each piece: the values that the ledger keeps.

It knows numbers and names. It reads no file.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from service.bundle.devices import Device
from service.bundle.engines import Engine as GraphEngine
from service.bundle.engines import Isa
from service.bundle.manifest import Precision
from service.offline.records import Columns

PART_ROWS = 65_536
"""Some seconds of a student's work, which is what a killed run loses of each process."""


class Kept(BaseModel):
    """What is written down and read again, perhaps by another version: nothing unknown passes."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class InputFile(Kept):
    """A file as it was when the run began."""

    path: str
    kind: str
    size: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path, kind: str) -> "InputFile":
        """As it lies there now."""
        found = path.stat()
        return cls(path=str(path.resolve()), kind=kind, size=found.st_size, changed_ns=found.st_mtime_ns)


class Request(Kept):
    """All that decides what stands in the parts. Whoever asks otherwise may not go on with them."""

    files: tuple[InputFile, ...]
    model: str
    seal: str
    precision: Precision
    engine: GraphEngine  # the one that was chosen: parts of several would not be of one model
    text: str
    pair: str | None
    kept: tuple[str, ...]
    format: str
    top_k: int | None
    part_rows: int

    @property
    def columns(self) -> Columns:
        """Where rows keep what is needed."""
        return Columns(self.text, self.pair, self.kept)

    def differences(self, other: "Request") -> Iterator[str]:
        """What the other asks otherwise, in words."""
        for name in type(self).model_fields:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                yield from _changed(mine, theirs) if name == "files" else [f"{name} {_said(mine)}, now {_said(theirs)}"]


class Span(Kept):
    """Rows of one file that become one part. Places in files of lines are bytes, of the text in a .gz."""

    number: int
    file: int
    first: int  # rows of the file before it
    rows: int
    offset: int = 0
    lines: int = 0  # lines of the file before it


class Plan(Kept):
    """A request, and how its input was cut."""

    format: Literal[1] = 1
    request: Request
    spans: tuple[Span, ...]

    @property
    def rows(self) -> int:
        """Of the whole input."""
        return sum(span.rows for span in self.spans)

    def file_of(self, span: Span) -> InputFile:
        """The file that it is a piece of."""
        return self.request.files[span.file]


class Receipt(Kept):
    """A part that is complete: where its rows are from, and what became of them."""

    number: int
    file: str
    first: int
    read: int
    scored: int
    rejected: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Total:
    """Receipts added up."""

    read: int
    scored: int
    rejected: int

    @classmethod
    def of(cls, receipts: Iterable[Receipt]) -> "Total":
        """Of some parts."""
        found = list(receipts)
        return cls(*(sum(getattr(each, field.name) for each in found) for field in fields(cls)))


@dataclass(frozen=True, slots=True)
class Job:
    """All that a process needs to score any span, here or on another machine that sees the same folders."""

    plan: Plan
    folder: Path
    bundle: Path
    device: Device
    isa: Isa
    rejects: bool  # bad rows are written down; else the first one ends the run


def spans_of(file: int, number: int, rows: int, part_rows: int) -> list[Span]:
    """A file whose rows can be found by their number, cut into parts. A file without rows has none."""
    return [
        Span(number=number + place, file=file, first=first, rows=min(part_rows, rows - first))
        for place, first in enumerate(range(0, rows, part_rows))
    ]


def _said(value: object) -> str:
    return "unset" if value is None else str(value)


def _changed(mine: tuple[InputFile, ...], theirs: tuple[InputFile, ...]) -> list[str]:
    names, now = {each.path for each in mine}, {each.path for each in theirs}
    for path in sorted(names ^ now):
        return [f"{path} was {'one of the' if path in names else 'none of the'} input files"]
    changed = next(each.path for each, other in zip(mine, theirs, strict=True) if each != other)
    return [f"{changed} has changed since"]
