"""What goes in and what comes out: a row of any input, those of its columns that are wanted, and its answer.

It knows nothing of files or models.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from service.bundle.encoder import Text
from service.bundle.passages import AnswerSpan
from service.bundle.spans import Entity

__all__ = ["Answer", "Columns", "Found", "Record", "Text", "no_column"]

Found = tuple[Entity, ...] | tuple[AnswerSpan, ...]
"""Stretches of a text: what a tagger marks, or the answers to a question, the best first."""


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


def no_column(column: str, there: Iterable[str]) -> str:
    """What to say of a column that is not there."""
    return f"no column {column!r}; there is {', '.join(there) or 'none'} (see --text-column, --pair-column, --keep)"


class Record(NamedTuple):
    """One row of the input."""

    line: int
    text: Text
    kept: tuple[object, ...] = ()  # the columns that go into the output as they are


class Answer(NamedTuple):
    """A record, and its scores in the order of the model's labels; none where stretches of the text are found."""

    record: Record
    scores: list[float]
    found: Found = ()
