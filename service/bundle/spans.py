"""From the tags of pieces to entities: what `transformers` calls the aggregation of token classification.

It knows rows with places, scores and tags. It knows nothing of graphs or of the shape of an answer.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple, Self
from unicodedata import combining

import numpy as np

from service.bundle.manifest import BEGIN, INSIDE, OUTSIDE
from service.bundle.rows import Spanned
from service.bundle.tasks import Scores


class Aggregation(StrEnum):
    """Who speaks for a word; named as in Hugging Face's `aggregation_strategy`."""

    NONE = "none"  # nobody: each piece stands alone, with its tag, and nothing is grouped
    SIMPLE = "simple"  # each piece for itself; then neighbours of one label are grouped
    FIRST = "first"  # its first piece, as in training
    AVERAGE = "average"  # the mean of its pieces' scores
    MAX = "max"  # the piece that is surest


class Tag(NamedTuple):
    """What a label of a tagger says of a word."""

    label: str  # of the entity: PER of B-PER and of I-PER
    begins: bool  # it is the first word of one, whatever stands before it

    @classmethod
    def of(cls, label: str) -> Self:
        """A name without a prefix goes on with what it finds before it."""
        if label.startswith((BEGIN, INSIDE)):
            return cls(label[len(BEGIN) :], label.startswith(BEGIN))
        return cls(label, False)


class Entity(NamedTuple):
    """A stretch of a text with its label."""

    label: str
    score: float  # the mean of its words' scores
    start: int  # the text from this character on, in Unicode code points,
    end: int  # and before this one
    text: str

    @property
    def place(self) -> tuple[str, int, int]:
        """What makes two the same, however sure of it anybody is."""
        return self.label, self.start, self.end


class Tagging(NamedTuple):
    """The words of a row, or its pieces, each with the best of its tags."""

    words: Sequence[range]  # the tokens of each
    tags: Sequence[int]  # by their places among the labels
    scores: Sequence[float]


def shared(one: Iterable[Entity], other: Iterable[Entity]) -> float:
    """Of the entities that either has found in a text, the share that both have; 1 where there is none."""
    ours, theirs = ({entity.place for entity in found} for found in (one, other))
    return len(ours & theirs) / len(ours | theirs) if ours or theirs else 1.0


def entities(
    row: Spanned,
    scores: Scores,
    tags: Sequence[Tag],
    how: Aggregation = Aggregation.FIRST,
    ignored: Collection[str] = (OUTSIDE,),
) -> tuple[Entity, ...]:
    """The entities of a row of T tokens: scores (T, L), tags in the order of the labels."""
    found = tagged(row, scores, how)
    return tuple(
        _entity(row, found, group, tags)
        for group in _groups(found.tags, tags)
        if _label(found, group, tags) not in ignored
    )


def tagged(row: Spanned, scores: Scores, how: Aggregation) -> Tagging:
    """Each word of a row, or each piece of one: scores (T, L)."""
    words = row.words
    if how in (Aggregation.NONE, Aggregation.SIMPLE):
        words = [range(token, token + 1) for word in words for token in word]
    if not words:  # an empty text, or special tokens alone
        return Tagging((), (), ())
    best = _BY[how](scores, words)  # (T, L) -> (W, L)
    return Tagging(words, best.argmax(axis=1).tolist(), best.max(axis=1).tolist())


def _first(scores: Scores, words: Sequence[range]) -> Scores:
    return scores[[word.start for word in words]]


def _average(scores: Scores, words: Sequence[range]) -> Scores:
    return np.stack([scores[word.start : word.stop].mean(axis=0) for word in words])


def _max(scores: Scores, words: Sequence[range]) -> Scores:
    surest = scores.max(axis=1)  # (T, L) -> (T,)
    return scores[[word.start + int(surest[word.start : word.stop].argmax()) for word in words]]


_BY: MappingProxyType[Aggregation, Callable[[Scores, Sequence[range]], Scores]] = MappingProxyType(
    {
        Aggregation.NONE: _first,
        Aggregation.SIMPLE: _first,
        Aggregation.FIRST: _first,
        Aggregation.AVERAGE: _average,
        Aggregation.MAX: _max,
    }
)
"""The scores (T, L) of tokens -> of each word those that speak for it (W, L)."""


def _groups(found: Sequence[int], tags: Sequence[Tag]) -> Iterator[range]:
    """Neighbours of one label, but B- always begins anew; so does I- after another label."""
    begin, before = 0, None
    for place, number in enumerate(found):
        label, begins = tags[number]
        if begins or label != before:
            if place:
                yield range(begin, place)
            begin, before = place, label
    if found:
        yield range(begin, len(found))


def _label(found: Tagging, group: range, tags: Sequence[Tag]) -> str:
    return tags[found.tags[group.start]].label


def _entity(row: Spanned, found: Tagging, group: range, tags: Sequence[Tag]) -> Entity:
    """Some tokenizers count the space before a word to it, and some an accent behind its last letter to nothing."""
    start, end = row.places[found.words[group[0]][0]][0], row.places[found.words[group[-1]][-1]][1]
    while end < len(row.text) and combining(row.text[end]):
        end += 1
    covered = row.text[start:end]
    text = covered.strip()
    start += len(covered) - len(covered.lstrip())
    score = sum(found.scores[group.start : group.stop]) / len(group)
    return Entity(_label(found, group, tags), score, start, start + len(text), text)
