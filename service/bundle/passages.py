"""Where in a text the answer to a question stands: from the logits of pieces to stretches of the text.

The scores are those of what was the `transformers` pipeline for question answering: of each stretch the probability
that the answer starts with its first piece, times that it ends with its last one, among the pieces of the text and the
first of all ([CLS]), which stands for "not here". It knows rows with places and logits. It knows nothing of graphs or
of the shape of an answer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from service.bundle.rows import Passage, Row
from service.bundle.tasks import Logits, Scores, softmax

SPARE = 4
"""Times as many stretches are looked at as are wanted: several may be of the same words."""


MOST_TOKENS = 512
"""Of an answer: what it costs to look for one grows with them."""


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for."""

    top_k: int = 1  # so many answers, the best ones
    longest: int = 30  # tokens of an answer
    whole_words: bool = True  # an answer that begins or ends inside a word is widened to all of it
    perhaps_none: bool = False  # that there is no answer is one too


BEST_ANSWER = Search()


class AnswerSpan(NamedTuple):
    """A stretch of the text."""

    answer: str
    score: float
    start: int  # the text from this character on, in Unicode code points,
    end: int  # and before this one


NO_ANSWER = ""


class Parts(NamedTuple):
    """A question and its text as the model has read them, a long text in parts."""

    rows: Sequence[Passage]
    logits: Sequence[Logits]  # of each row, (T, 2)


def of_texts(rows: Sequence[Row], logits: Sequence[Logits]) -> list[Parts]:
    """All rows of a call, as they come, which are passages -> those of each text."""
    both = ((row, own) for row, own in zip(rows, logits, strict=True) if isinstance(row, Passage))
    texts = (zip(*group, strict=True) for _, group in groupby(both, key=lambda each: each[0].number))
    return [Parts(*text) for text in texts]


def answers(rows: Sequence[Passage], logits: Sequence[Logits], search: Search) -> list[AnswerSpan]:
    """The best answers of a text, of which there are rows of T tokens with logits (T, 2); none where it is empty."""
    found: dict[tuple[int, int], AnswerSpan] = {}
    nowhere = 1.0
    for row, own in zip(rows, logits, strict=True):
        starts, ends = (_likely(row, own[:, side]) for side in range(2))
        nowhere = min(nowhere, float(starts[0] * ends[0]))
        for answer in _stretches(row, starts[1:], ends[1:], search):
            place = answer.start, answer.end
            if place not in found or found[place].score < answer.score:
                found[place] = answer
    if search.perhaps_none:
        found[0, 0] = AnswerSpan(NO_ANSWER, nowhere, 0, 0)
    return sorted(found.values(), key=lambda answer: -answer.score)[: search.top_k]


def shared(one: Sequence[AnswerSpan], other: Sequence[AnswerSpan]) -> float:
    """Of the characters in the best answer of either, the share that both have; 1 where neither has any."""
    ours, theirs = ({*range(each.start, each.end)} for each in (_first(one), _first(other)))
    return len(ours & theirs) / len(ours | theirs) if ours or theirs else 1.0


def _first(found: Sequence[AnswerSpan]) -> AnswerSpan:
    return found[0] if found else AnswerSpan(NO_ANSWER, 0.0, 0, 0)


def _likely(row: Passage, logits: Logits) -> Scores:
    """(T,) -> (1 + C,): the probabilities of the first token of all and of those of the text."""
    return softmax(np.concatenate([logits[:1], logits[row.tokens.start : row.tokens.stop]]))


def _stretches(row: Passage, starts: Scores, ends: Scores, search: Search) -> Iterator[AnswerSpan]:
    """The likeliest ones, (C,) twice; each is as long as it may be at most."""
    longest = min(search.longest, len(starts))
    if not longest:
        return
    reach = np.concatenate([ends, np.zeros(longest - 1)])
    scores = (starts[:, None] * sliding_window_view(reach, longest)).ravel()  # (C, M): from each token so many further
    wanted = min(SPARE * search.top_k, len(scores))
    for place in np.argpartition(-scores, wanted - 1)[:wanted].tolist():
        first, further = divmod(place, longest)
        if scores[place] > 0:
            begin = row.tokens.start + first
            yield _answer(row, begin, begin + further, float(scores[place]), search)


def _answer(row: Passage, first: int, last: int, score: float, search: Search) -> AnswerSpan:
    if search.whole_words:
        words = row.word_ids
        while first > row.tokens.start and words[first - 1] == words[first]:
            first -= 1
        while last < row.tokens.stop - 1 and words[last + 1] == words[last]:
            last += 1
    start, end = row.places[first][0], row.places[last][1]
    return AnswerSpan(row.text[start:end], score, start, end)
