"""Synthetic transfer texts by the three rules of Tang et al. 2019, section 3.3: pure functions of (words, rng).

The rules read words and tags; they know nothing of teachers, tokenisers or files.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from export.recipe import Augmentation

Tagger = Callable[[Sequence[str]], list[str]]
"""Words -> one part-of-speech tag a word."""

_WORD = re.compile(r"\S+")


def penn_tags(words: Sequence[str]) -> list[str]:
    """English Penn Treebank tags by TextBlob's lexicon and rules, which ship inside the package (no download)."""
    from textblob.en import parser

    return [tag for _, tag in parser.find_tags(list(words))]


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
    texts: Sequence[str], rules: Augmentation, mask: str, rng: Generator, tagger: Tagger = penn_tags
) -> Iterator[str]:
    """`copies` synthetic texts for each text, without repetitions and without the originals."""
    if not rules.copies:
        return
    corpus = [words for words in map(_WORD.findall, texts) if words]
    sampler = TagSampler.of(corpus, tagger)
    seen = set(texts)
    for words in corpus:
        tags = tagger(words)
        for _ in range(rules.copies):
            text = " ".join(sample_ngram(replace_words(words, tags, sampler, rules, mask, rng), rules, rng))
            if text not in seen:
                seen.add(text)
                yield text
