"""The three rules of augmentation, each alone and together."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.sections import Augmentation
from export.transfer.augment import TagSampler, augmented, penn_tags, replace_words, sample_ngram

MASK = "[MASK]"
TEXTS = ("the old man slept", "a young girl laughed loudly", "the dog barked", "she quickly left the room")
OFF = Augmentation(copies=1, p_mask=0, p_pos=0, p_ngram=0)

words = st.lists(st.text("abcde", min_size=1, max_size=4), min_size=1, max_size=12)
seeds = st.integers(0, 2**32 - 1)


def by_initial(sentence: Sequence[str]) -> list[str]:
    """A tagger whose tags a test can see: the first letter."""
    return [word[0] for word in sentence]


def rules(**changes: float) -> Augmentation:
    return Augmentation.model_validate(OFF.model_dump() | changes)


def replaced(sentence: Sequence[str], chosen: Augmentation, seed: int = 0) -> list[str]:
    sampler = TagSampler.of([sentence], by_initial)
    return replace_words(sentence, by_initial(sentence), sampler, chosen, MASK, np.random.default_rng(seed))


@given(sentence=words, seed=seeds)
def test_probability_0_changes_nothing(sentence: list[str], seed: int) -> None:
    assert replaced(sentence, OFF, seed) == sentence
    assert sample_ngram(sentence, OFF, np.random.default_rng(seed)) == sentence


@given(sentence=words, seed=seeds)
def test_probability_1_masks_every_word(sentence: list[str], seed: int) -> None:
    assert replaced(sentence, rules(p_mask=1), seed) == [MASK] * len(sentence)


@given(sentence=words, corpus=st.lists(words, min_size=1), seed=seeds)
def test_probability_1_swaps_every_word_for_one_of_its_tag(
    sentence: list[str], corpus: list[list[str]], seed: int
) -> None:
    sampler = TagSampler.of([sentence, *corpus], by_initial)
    found = replace_words(sentence, by_initial(sentence), sampler, rules(p_pos=1), MASK, np.random.default_rng(seed))
    assert by_initial(found) == by_initial(sentence)
    assert set(found) <= set(sentence).union(*corpus)


@given(sentence=words, seed=seeds, first=st.integers(1, 6), more=st.integers(0, 6))
def test_an_ngram_is_a_contiguous_part_of_the_length_asked_for(
    sentence: list[str], seed: int, first: int, more: int
) -> None:
    chosen = rules(p_ngram=1, ngram_from=first, ngram_to=first + more)
    found = sample_ngram(sentence, chosen, np.random.default_rng(seed))
    assert min(first, len(sentence)) <= len(found) <= min(first + more, len(sentence))
    assert any(sentence[i : i + len(found)] == found for i in range(len(sentence)))


def test_every_ngram_length_and_place_occurs() -> None:
    sentence, rng = list("abcdefgh"), np.random.default_rng(0)
    found = ["".join(sample_ngram(sentence, rules(p_ngram=1), rng)) for _ in range(2000)]
    lengths = list(map(len, found))
    assert {length: round(lengths.count(length) / 2000, 1) for length in range(1, 6)} == dict.fromkeys(range(1, 6), 0.2)
    assert {text for text in found if len(text) == 1} == set(sentence)


def test_over_many_words_the_shares_are_the_probabilities() -> None:
    sentence = [f"a{i}" for i in range(40_000)]  # of one tag, so nearly every swap shows
    found = replaced(sentence, rules(p_mask=0.1, p_pos=0.15))
    masked = found.count(MASK) / len(found)
    swapped = sum(new not in (old, MASK) for old, new in zip(sentence, found, strict=True)) / len(found)
    assert masked == pytest.approx(0.1, abs=0.01)
    assert swapped == pytest.approx(0.15, abs=0.01)


def test_swaps_follow_the_words_frequencies_in_the_corpus() -> None:
    sampler, rng = TagSampler.of([["ax"] * 3 + ["ay", "bz"]], by_initial), np.random.default_rng(0)
    drawn = [sampler.draw("a", rng) for _ in range(4000)]
    assert drawn.count("ax") / len(drawn) == pytest.approx(0.75, abs=0.03)
    assert set(drawn) == {"ax", "ay"}


@given(texts=st.lists(words.map(" ".join)), seed=seeds, copies=st.integers(0, 4))
def test_no_text_comes_twice_and_none_is_an_original(texts: list[str], seed: int, copies: int) -> None:
    chosen = rules(copies=copies, p_mask=0.2, p_pos=0.2, p_ngram=0.3)
    found = list(augmented(texts, chosen, MASK, np.random.default_rng(seed), by_initial))
    assert len(set(found)) == len(found) <= copies * len(texts)
    assert not set(found) & set(texts)


def test_texts_without_words_give_nothing() -> None:
    assert list(augmented(["", "  "], rules(copies=3, p_mask=1), MASK, np.random.default_rng(0))) == []


def test_copies_of_0_turn_augmentation_off() -> None:
    assert list(augmented(TEXTS, Augmentation(copies=0), MASK, np.random.default_rng(0))) == []


def test_the_same_seed_gives_the_same_texts() -> None:
    chosen = Augmentation(copies=5)
    one, same, other = (list(augmented(TEXTS, chosen, MASK, np.random.default_rng(seed))) for seed in (1, 1, 2))
    assert one == same != other


def test_english_words_get_their_penn_tags() -> None:
    assert penn_tags(["the", "old", "dog", "barked"]) == ["DT", "JJ", "NN", "VBD"]


@given(sentence=st.lists(st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1), max_size=8))
def test_every_word_gets_one_tag(sentence: list[str]) -> None:
    assert len(penn_tags(sentence)) == len(sentence)
