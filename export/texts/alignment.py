"""Between words and pieces, and between two models' pieces of a text: by the characters that they cover.

What the tokenizer calls a word may be a part of a word of the data ("U.N." is four to BERT), and a server knows only
the tokenizer's. So the first piece of each of these parts is judged: the first part of a word has the word's tag, the
other parts go on with it (I-, or O). Pieces that go on with a part are not judged (UNLABELLED); Mukherjee & Awadallah
2020 give them a tag X of their own, for which a served model would need a label that nobody asked for. Of a student
they still learn the teacher's logits. A word of the data is measured by its first piece (docs/decisions/0023).
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from export.texts.tags import Words
from export.texts.unlabelled import UNLABELLED
from service.bundle.manifest import BEGIN, INSIDE, OUTSIDE
from service.bundle.rows import Spanned
from service.bundle.spans import Tag

Logits = NDArray[np.float32]


def going_on(labels: Sequence[str]) -> tuple[int, ...]:
    """Of each tag the one with which an entity goes on, or UNLABELLED where the labels have none."""
    places = {label: place for place, label in enumerate(labels)}
    return tuple(
        places.get(INSIDE + label[len(BEGIN) :], UNLABELLED) if label.startswith(BEGIN) else place
        for place, label in enumerate(labels)
    )


def piece_tags(row: Spanned, words: Words, on: Sequence[int]) -> list[int]:
    """The tag that each piece learns, UNLABELLED for those that learn none, (T,); `on` is of `going_on`."""
    tags = [UNLABELLED] * len(row)
    before = -1
    for part, word in zip(row.words, _words_of(row, words), strict=True):
        if word >= 0:
            tags[part.start] = on[words.tags[word]] if word == before else words.tags[word]
        before = word
    return tags


def first_pieces(rows: Sequence[Spanned], words: Sequence[Words], width: int | None = None) -> NDArray[np.int64]:
    """Of each word of each row the place of its first piece among all, one row behind the other, (W,).

    -1 for a word that was cut off or has no piece. With `width`, each row has so many places, as when it is padded.
    """
    found: list[int] = []
    start = 0
    for row, own in zip(rows, words, strict=True):
        firsts = [-1] * len(own.spans)
        for part, word in zip(row.words, _words_of(row, own), strict=True):
            if word >= 0 and firsts[word] < 0:
                firsts[word] = start + part.start
        found.extend(firsts)
        start += len(row) if width is None else width
    return np.array(found, dtype=np.int64)


def word_logits(logits: Logits, firsts: NDArray[np.int64], labels: Sequence[str]) -> Logits:
    """(R, L) of all pieces -> (W, L): each word's first piece speaks for it; a word without one is O."""
    unread = np.array([label == OUTSIDE for label in labels], dtype=np.float32)  # (L,)
    found = np.tile(unread, (len(firsts), 1))
    read = firsts >= 0
    found[read] = logits[firsts[read]]
    return found


def partners(ours: Sequence[tuple[int, int]], theirs: NDArray[np.int32]) -> NDArray[np.int64]:
    """Of each of our pieces of a text the place of the one of theirs in which it begins, (T,).

    Only of the first T that have one: where they were cut off earlier, the rest has none. Where both have the same
    pieces, each has itself.
    """
    starts = np.array([start for start, _ in ours], dtype=np.int64)
    if len(ours) == len(theirs) and np.array_equal(starts, theirs[:, 0]):
        return np.arange(len(ours))
    found = np.searchsorted(theirs[:, 1], starts, side="right")
    return found[: int((found < len(theirs)).cumprod().sum())]


def places_of(words: Words, tags: Sequence[Tag]) -> Iterator[tuple[str, int, int]]:
    """The entities that the tags of words make: label, first character, the one behind the last."""
    label, start, end = OUTSIDE, 0, 0
    for (first, last), tag in zip(words.spans, (tags[place] for place in words.tags), strict=True):
        if tag.begins or tag.label != label:
            if label != OUTSIDE:
                yield label, start, end
            label, start = tag.label, first
        end = last
    if label != OUTSIDE:
        yield label, start, end


def _words_of(row: Spanned, words: Words) -> list[int]:
    """Of each of the tokenizer's words the place of the data's word in which it begins; -1 for none."""
    ends = [end for _, end in words.spans]
    found = []
    for part in row.words:
        start, end = row.places[part.start]
        word = bisect_right(ends, start)
        found.append(word if word < len(ends) and words.spans[word][0] < max(end, start + 1) else -1)
    return found
