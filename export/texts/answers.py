"""Answers to questions: how a row of a file says them, which pieces of a text they are, and how near another comes.

A row is a question with its text and the answers that are right, each a stretch of the text; none where the text has
none. The measure is SQuAD's (Rajpurkar et al. 2016; of texts without an answer Rajpurkar et al. 2018). This module
knows nothing of files or networks.
"""

import re
import string
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.texts.tags import Span
from service.bundle.passages import NO_ANSWER, Search, answers, of_texts
from service.bundle.rows import Passage, Row

Logits = NDArray[np.float32]

LONGEST = Search().longest
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, slots=True)
class Answers:
    """All answers to a question that are right: where they stand in its text, and how they are spelt."""

    spans: tuple[Span, ...]
    texts: tuple[str, ...]


def read_answers(cell: object, text: object) -> Answers:
    """As SQuAD's files have them, a list of `{"text", "answer_start"}`; or as its hub data set has them, one of both in
    lists. Raises ValueError for an answer that does not stand there."""
    found = list(_listed(cell))
    for answer, start in found:
        if not isinstance(text, str) or text[start : start + len(answer)] != answer or not answer:
            raise ValueError(f"the answer {answer!r} does not stand at character {start} of the text")
    spans = tuple((start, start + len(answer)) for answer, start in found)
    return Answers(spans, tuple(answer for answer, _ in found))


def _listed(cell: object) -> Iterator[tuple[str, int]]:
    match cell:
        case {"text": list(texts), "answer_start": list(starts)} if len(texts) == len(starts):
            yield from zip(map(str, texts), map(int, starts), strict=True)
        case list():
            for each in cell:
                match each:
                    case {"text": str(text), "answer_start": int(start)}:
                        yield text, start
                    case _:
                        raise ValueError('an answer is written {"text": ..., "answer_start": ...}')
        case _:
            raise ValueError('answers are a list of {"text": ..., "answer_start": ...}')


def passages(rows: Sequence[Row]) -> list[Passage]:
    """As an encoder of questions and texts makes them; it makes no others."""
    return [row for row in rows if isinstance(row, Passage)]


def edges(row: Passage, wanted: Answers) -> tuple[int, int]:
    """The first and the last token of the first answer; twice the first of all ([CLS]) where this part of the text has
    not all of it."""
    if wanted.spans and row.tokens:
        start, end = wanted.spans[0]
        inside = [token for token in row.tokens if row.places[token][0] < end and start < row.places[token][1]]
        if inside and row.places[inside[0]][0] <= start and end <= row.places[inside[-1]][1]:
            return inside[0], inside[-1]
    return 0, 0


def nearness(logits: Logits, rows: Sequence[Passage], wanted: Sequence[Answers]) -> Logits:
    """Of each question how near the best answer comes: (R, 2) of all tokens of all rows -> (N, 2).

    Whether it is exactly right, and its F1 by words, from 0 to 1. Where a question of the data has no answer, that is
    one too.
    """
    search = Search(longest=LONGEST, perhaps_none=not all(each.spans for each in wanted))
    own = np.split(logits, np.cumsum([len(row) for row in rows])[:-1])
    best = [next((found.answer for found in answers(*part, search)), NO_ANSWER) for part in of_texts(rows, own)]
    pairs = zip(best, wanted, strict=True)
    scores = [(exact_match(text, each.texts), word_f1(text, each.texts)) for text, each in pairs]
    return np.array(scores, dtype=np.float32).reshape(-1, 2)


def exact_match(found: str, wanted: Sequence[str]) -> float:
    """Is it one of them, but for case, punctuation, articles and white space?"""
    return float(any(_words(found) == _words(text) for text in wanted or (NO_ANSWER,)))


def word_f1(found: str, wanted: Sequence[str]) -> float:
    """The greatest F1 of its words with those of one of them."""
    return max(_f1(_words(found), _words(text)) for text in wanted or (NO_ANSWER,))


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def _f1(ours: Sequence[str], theirs: Sequence[str]) -> float:
    if not ours or not theirs:
        return float(ours == theirs)
    both = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * both / (len(ours) + len(theirs))
