"""Synthetic texts and pairs by the three rules of Tang et al. 2019, section 3.3: pure functions of (words, rng).

The rules read words and tags; they know nothing of teachers, tokenisers or files.
"""

import pkgutil
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from export.errors import RecipeError, first_line
from export.sections import Augmentation
from service.bundle.encoder import Text

Tagger = Callable[[Sequence[str]], Sequence[str]]
"""Words -> one part-of-speech tag a word."""

TURNS = {1: ((0,),), 2: ((0,), (1,), (0, 1))}
"""Texts in a row -> which of them one copy after the other changes: of a pair the first, the second, both, in turn."""

_WORD = re.compile(r"\S+")


def penn_tags(words: Sequence[str]) -> list[str]:
    """English Penn Treebank tags by TextBlob's lexicon and rules, which ship inside the package (no download)."""
    from textblob.en import parser

    return [tag for _, tag in parser.find_tags(list(words))]


TAGGERS = {"penn": penn_tags, "export.augment:penn_tags": penn_tags}
"""By name; the second as recipes of earlier bundles say it."""


def named_tagger(name: str) -> Tagger:
    """What `transfer.augment.tagger` names. Raises RecipeError where that can't be imported, or is no function."""
    if name in TAGGERS:
        return TAGGERS[name]
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise RecipeError(
            f"transfer.augment.tagger: {name!r}: {first_line(error)}; write penn, or package.module:function"
        ) from error
    if not callable(found):
        raise RecipeError(f"transfer.augment.tagger: {name!r} is no function that makes a tag of each word")
    return _checked(found, name)


def _checked(tagger: Tagger, name: str) -> Tagger:
    """A tagger that somebody else wrote."""

    def tags(words: Sequence[str]) -> Sequence[str]:
        found = tagger(words)
        if len(found) != len(words):
            raise RecipeError(f"transfer.augment.tagger: {name!r} gave {len(found)} tags for {len(words)} words")
        return found

    return tags


@dataclass(frozen=True)
class TagSampler:
    """Words of a corpus by tag, drawn from the corpus's unigram distribution within the tag."""

    words: dict[str, list[str]]
    cumulative: dict[str, NDArray[np.float64]]

    @classmethod
    def of(cls, corpus: Iterable[Sequence[str]], tagger: Tagger) -> "TagSampler":
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for words in corpus:
            for word, tag in zip(words, tagger(words), strict=True):
                counts[tag][word] += 1
        return cls(
            {tag: list(counter) for tag, counter in counts.items()},
            {tag: np.cumsum(list(counter.values())) / counter.total() for tag, counter in counts.items()},
        )

    def draw(self, tag: str, rng: Generator) -> str:
        """One word of this tag; `tag` must occur in the corpus."""
        place = int(np.searchsorted(self.cumulative[tag], rng.random(), side="right"))
        return self.words[tag][min(place, len(self.words[tag]) - 1)]


def replace_words(
    words: Sequence[str],
    tags: Sequence[str],
    sampler: TagSampler,
    rules: Augmentation,
    mask: str,
    rng: Generator,
) -> list[str]:
    """Masking and same-tag replacement: one uniform draw a word decides between mask, swap and keep."""
    replaced = []
    for word, tag, draw in zip(words, tags, rng.random(len(words)), strict=True):
        if draw < rules.p_mask:
            replaced.append(mask)
        elif draw < rules.p_mask + rules.p_pos:
            replaced.append(sampler.draw(tag, rng))
        else:
            replaced.append(word)
    return replaced


def sample_ngram(words: Sequence[str], rules: Augmentation, rng: Generator) -> list[str]:
    """With probability p_ngram keep a random n-gram alone, n uniform in ngram_from..ngram_to (at most the whole)."""
    if rng.random() >= rules.p_ngram:
        return list(words)
    n = min(int(rng.integers(rules.ngram_from, rules.ngram_to + 1)), len(words))
    start = int(rng.integers(0, len(words) - n + 1))
    return list(words[start : start + n])


def augmented(
    texts: Sequence[Text], rules: Augmentation, mask: str, rng: Generator, tagger: Tagger = penn_tags
) -> Iterator[Text]:
    """`copies` synthetic rows for each text or pair, without repetitions and without the originals.

    Both texts of a pair belong to the one corpus out of which words are drawn.
    """
    if not rules.copies:
        return
    rows = [(text,) if isinstance(text, str) else text for text in texts]
    sampler = TagSampler.of(filter(None, (_WORD.findall(part) for row in rows for part in row)), tagger)
    seen = set(texts)
    for row in rows:
        if not any(map(str.split, row)):
            continue
        read = [_Read.of(part, tagger) for part in row]
        for changed in islice(cycle(TURNS[len(row)]), rules.copies):
            parts = [
                part.copy(sampler, rules, mask, rng) if place in changed and part.words else row[place]
                for place, part in enumerate(read)
            ]
            text = parts[0] if len(parts) == 1 else (parts[0], parts[1])
            if text not in seen:
                seen.add(text)
                yield text


@dataclass(frozen=True)
class _Read:
    """A text's words and their tags."""

    words: list[str]
    tags: Sequence[str]

    @classmethod
    def of(cls, text: str, tagger: Tagger) -> "_Read":
        words = _WORD.findall(text)
        return cls(words, tagger(words) if words else ())

    def copy(self, sampler: TagSampler, rules: Augmentation, mask: str, rng: Generator) -> str:
        """Changed by all three rules."""
        changed = replace_words(self.words, self.tags, sampler, rules, mask, rng)
        return " ".join(sample_ngram(changed, rules, rng))
