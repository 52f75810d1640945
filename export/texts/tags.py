"""Tags of words: how a row of a file says them, and what can be wrong with them.

A tagged row is a text with its words. Where a file gives words, the text is the words with a space between each two.
Tags are O beside B-name and I-name (IOB2), or O beside bare names. This module knows nothing of files or pieces.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.bundle.manifest import BEGIN, INSIDE, OUTSIDE

_WORD = re.compile(r"\S+")

Span = tuple[int, int]
"""From which character of a text to before which."""


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a text: where each stands in it, and its tag's place among the labels."""

    spans: tuple[Span, ...]
    tags: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Spelling:
    """How a file's tags are to be read."""

    labels: Sequence[str]  # in the order of the logits
    relabel: Mapping[str, str]  # an entity's name in the file -> the name that it takes, or O
    repair: bool  # an I- that goes on with nothing is read as a B-


class BadTag(ValueError):
    """A tag that cannot be; `word` counts from 0."""

    def __init__(self, word: int, what: str) -> None:
        super().__init__(what)
        self.word = word

    @property
    def where(self) -> str:
        """For a message about a row that has all its words in one line."""
        return f"word {self.word + 1}: "


def spans_of(cell: object) -> tuple[Span, ...]:
    """Where the words of a row stand in its text: of a list of words, or of a string with spaces between them."""
    if isinstance(cell, str):
        return tuple(found.span() for found in _WORD.finditer(cell))
    spans, start = [], 0
    for word in cell if isinstance(cell, list | tuple) else ():
        spans.append((start, start + len(str(word))))
        start = spans[-1][1] + 1
    return tuple(spans)


def tagged(text: object, cell: object, spelling: Spelling) -> Words:
    """The words of a row: of its text's cell and its tags' cell. Raises BadTag."""
    spans, tags = spans_of(text), cell.split() if isinstance(cell, str) else cell
    if not isinstance(tags, list | tuple):
        raise BadTag(0, f"the tags are {type(cell).__name__}, not a list")
    if len(spans) != len(tags):
        raise BadTag(0, f"{len(spans)} words, but {len(tags)} tags")
    for place, (start, end) in enumerate(spans):
        if start == end:
            raise BadTag(place, "an empty word")
    return Words(spans, _places([_name(tag, spelling) for tag in tags], spelling))


def _name(tag: object, spelling: Spelling) -> str:
    """A tag as the labels spell it: given by name, or by its place among them."""
    if isinstance(tag, int):
        return spelling.labels[tag] if 0 <= tag < len(spelling.labels) else str(tag)
    spelt = str(tag)
    mark = spelt[: len(BEGIN)] if spelt.startswith((BEGIN, INSIDE)) else ""
    name = spelling.relabel.get(spelt[len(mark) :], spelt[len(mark) :])
    return OUTSIDE if name == OUTSIDE else mark + name


def _places(names: Sequence[str], spelling: Spelling) -> tuple[int, ...]:
    known = {label: place for place, label in enumerate(spelling.labels)}
    found, before = [], OUTSIDE
    for word, name in enumerate(names):
        if name.startswith(INSIDE) and before not in (name, BEGIN + name[len(INSIDE) :]):
            if not spelling.repair:
                raise BadTag(word, f"{name}, but {_before(names, word)}; data.repair (--repair) reads it as B-")
            name = BEGIN + name[len(INSIDE) :]
        if name not in known:
            raise BadTag(word, f"unknown tag {name!r}; the recipe knows {', '.join(spelling.labels)}")
        found.append(known[name])
        before = name
    return tuple(found)


def _before(names: Sequence[str], word: int) -> str:
    return f"{names[word - 1]} stands before it" if word else "it begins the sentence"
