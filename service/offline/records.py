"""What goes in and what comes out: one row of any input, and its answer. Knows nothing of files or models."""

from typing import NamedTuple

from service.bundle.encoder import Text
from service.bundle.passages import AnswerSpan
from service.bundle.spans import Entity

__all__ = ["Answer", "Found", "Record", "Text"]

Found = tuple[Entity, ...] | tuple[AnswerSpan, ...]
"""Stretches of a text: what a tagger marks, or the answers to a question, the best first."""


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
