"""From whole documents to sentences that look like the task's own texts.

A transfer set helps in so far as its texts look like those that the student will meet: of the same domain, length and
spelling. This module cuts documents into sentences and, where the labelled data are Penn Treebank tokens ("it 's n't"),
splits the words alike. It uses NLTK's rule-based parts, which need no downloaded data.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from export.texts.datasets import read_pairs, read_texts
from export.texts.neighbours import neighbour_pairs
from service.bundle.encoder import Text

T = TypeVar("T", bound=Text)

_MARKUP = re.compile(r"<br\s*/?>|\s+")
_QUOTES = str.maketrans({"\u201c": '"', "\u201d": '"', "\u2018": "'", "\u2019": "'"})


class TextSource(BaseModel):
    """Unlabelled in-domain text: where it lies, and how to shape it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    column: str = "text"
    pair: str | None = Field(default=None, description="the column of the second text, where rows are pairs")
    neighbours: int | None = Field(
        default=None, ge=1, description="make pairs of single texts: each with so many that are most like it"
    )
    sentences: bool = Field(default=False, description="cut each document into sentences")
    treebank: bool = Field(default=False, description="lower-case and split words as the Penn Treebank does")
    min_words: int = Field(default=1, ge=1)
    max_words: int | None = Field(default=None, ge=1, description="longer texts are left out; unset: none is")
    skip: int = Field(default=0, ge=0, description="leave out this many documents at the start")
    documents: int | None = Field(default=None, ge=1, description="read at most this many documents")
    limit: int | None = Field(default=None, ge=1, description="take at most this many texts")

    @model_validator(mode="after")
    def _some_text_fits(self) -> Self:
        if self.max_words is not None and self.min_words > self.max_words:
            raise ValueError("min_words must not exceed max_words")
        if self.pair is not None and self.sentences:
            raise ValueError("a pair is not cut into sentences; leave out pair or sentences")
        if self.pair is not None and self.neighbours is not None:
            raise ValueError("neighbours make pairs of single texts; leave out pair or neighbours")
        return self

    @property
    def paired(self) -> bool:
        """Are its rows pairs?"""
        return self.pair is not None or self.neighbours is not None

    @property
    def span(self) -> tuple[int, int | None]:
        """The first document that is read, and the one before which reading ends."""
        return self.skip, None if self.documents is None else self.skip + self.documents

    def fits(self, text: str) -> bool:
        """Is it neither too short nor too long?"""
        words = len(text.split())
        return self.min_words <= words and (self.max_words is None or words <= self.max_words)


@dataclass
class Tally:
    """How many texts were read so far, also those that do not fit."""

    read: int = 0

    def over(self, texts: Iterable[T]) -> Iterator[T]:
        """The same texts, counted as they go by."""
        for text in texts:
            self.read += 1
            yield text


def shaped_texts(source: TextSource, tally: Tally | None = None) -> Iterator[str]:
    """Stream the texts of a source in their final shape. Raises DataError as `read_texts` does."""
    documents = islice(read_texts(source.source, source.column), *source.span)
    pieces = _sentences(documents) if source.sentences else documents
    fitting = filter(source.fits, (tally or Tally()).over(pieces))
    shaped = map(treebank, fitting) if source.treebank else fitting
    return islice(shaped, source.limit)


def shaped_rows(source: TextSource, tally: Tally | None = None) -> Iterator[Text]:
    """The same, and pairs where the source names a second column (then both texts must fit) or wants neighbours."""
    if source.neighbours is not None:
        return neighbour_pairs(list(shaped_texts(source, tally)), source.neighbours)
    if source.pair is None:
        return shaped_texts(source, tally)
    return islice(_pairs(source, source.pair, tally or Tally()), source.limit)


def _pairs(source: TextSource, second: str, tally: Tally) -> Iterator[Text]:
    for row in tally.over(islice(read_pairs(source.source, (source.column, second)), *source.span)):
        if not isinstance(row, str) and all(map(source.fits, row)):
            yield (treebank(row[0]), treebank(row[1])) if source.treebank else row


def treebank(text: str) -> str:
    """ "It's GREAT." -> "it 's great ." """
    return " ".join(_word_splitter().tokenize(text.translate(_QUOTES).lower()))


def _sentences(documents: Iterable[str]) -> Iterator[str]:
    for document in documents:
        for line in document.split("<br />"):
            yield from _sentence_splitter().tokenize(_MARKUP.sub(" ", line).strip())


@lru_cache(maxsize=1)
def _sentence_splitter() -> Any:  # nltk has no types
    from nltk.tokenize.punkt import PunktSentenceTokenizer

    return PunktSentenceTokenizer()


@lru_cache(maxsize=1)
def _word_splitter() -> Any:
    from nltk.tokenize import TreebankWordTokenizer

    return TreebankWordTokenizer()
