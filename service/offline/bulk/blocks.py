"""Some rows that lie one behind the other in a file: those that can be scored, and those that cannot with the reason.

It knows no kind of file. Columns of Parquet files stay as they were read, and only need to know two things.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from service.offline.records import Text

BLOCK_ROWS = 4096
BLOCK_CHARS = 4 * 2**20


class Held(Protocol):
    """A column of an Arrow table."""

    def filter(self, mask: list[bool]) -> "Held": ...
    def to_pylist(self) -> list[object]: ...


Value = TypeVar("Value")
Column = list[object] | Held


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that was not scored."""

    row: int  # in its file, from 1
    line: int | None  # where it ends, in files that have lines
    problem: str

    def at(self, file: str) -> str:
        """One line that names it."""
        return f"{file}: row {self.row}: {self.problem}" if self.line is None else f"{file}:{self.line}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Block:
    """So many rows of a file; of the good ones their texts and what the output repeats of them."""

    texts: list[Text]
    own: tuple[Column, ...]  # text, pair if there is one, and what is kept
    rows: Sequence[int]  # of each text, in its file, from 1
    lines: Sequence[int] | None
    rejects: tuple[Reject, ...] = ()

    @property
    def read(self) -> int:
        """Rows of the input that it stands for."""
        return len(self.texts) + len(self.rejects)

    def without(self, problems: dict[int, str]) -> "Block":
        """The same without some texts, by their places, each with its reason."""
        if not problems:
            return self
        good = [place not in problems for place in range(len(self.texts))]
        refused = [self._reject(place, problem) for place, problem in problems.items()]
        return replace(
            self,
            texts=picked(self.texts, good),
            own=tuple(filtered(column, good) for column in self.own),
            rows=picked(self.rows, good),
            lines=None if self.lines is None else picked(self.lines, good),
            rejects=tuple(sorted([*self.rejects, *refused], key=lambda each: each.row)),
        )

    def _reject(self, place: int, problem: str) -> Reject:
        return Reject(self.rows[place], None if self.lines is None else self.lines[place], problem)


def picked(values: Sequence[Value], good: Sequence[bool]) -> list[Value]:
    """Those that are good."""
    return [value for value, kept in zip(values, good, strict=True) if kept]


def filtered(column: Column, good: list[bool]) -> Column:
    """The same of a column of any kind."""
    return picked(column, good) if isinstance(column, list) else column.filter(good)


def listed(column: Column) -> list[object]:
    """Its values, as Python has them."""
    return column if isinstance(column, list) else column.to_pylist()
