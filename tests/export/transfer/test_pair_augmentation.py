"""Augmented pairs: the first text, the second, both, in turn; and a tagger of one's own."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.errors import RecipeError
from export.sections import Augmentation, Transfer
from export.texts.datasets import Dataset, Example
from export.transfer.augment import augmented, named_tagger, penn_tags
from export.transfer.transfer_set import collect

MASK = "[MASK]"
PAIRS = (("a man sleeps", "a woman reads a book"), ("two dogs run", "no dog runs"), ("it rains", "it is dry"))

GOLD = (
    "The/DT old/JJ man/NN slept/VBD quietly/RB ./.",
    "A/DT group/NN of/IN children/NNS is/VBZ jumping/VBG into/IN the/DT water/NN",
    "The/DT company/NN said/VBD its/PRP$ profits/NNS rose/VBD 12/CD percent/NN last/JJ year/NN ./.",
    "What/WP makes/VBZ the/DT plot/NN work/VB is/VBZ its/PRP$ cast/NN ./.",
    "There/EX is/VBZ no/DT reason/NN to/TO watch/VB it/PRP again/RB",
    "Two/CD dogs/NNS run/VBP through/IN a/DT field/NN and/CC bark/VBP at/IN cars/NNS",
    "The/DT best/JJS actors/NNS were/VBD paid/VBN well/RB",
    "Our/PRP$ guide/NN told/VBD us/PRP that/IN the/DT park/NN closes/VBZ early/RB",
)
"""Sentences of our own, tagged by hand."""

sides = st.lists(st.text("abcde", min_size=1, max_size=4), max_size=6).map(" ".join)
pairs = st.tuples(sides, sides)
seeds = st.integers(0, 2**32 - 1)
rules = st.builds(
    Augmentation,
    copies=st.integers(1, 7),
    p_mask=st.floats(0, 0.5),
    p_pos=st.floats(0, 0.5),
    p_ngram=st.floats(0, 1),
)


def by_initial(words: Sequence[str]) -> list[str]:
    """A tagger whose tags a test can see: the first letter."""
    return [word[0] for word in words]


def masked(copies: int) -> Augmentation:
    """Every word that may change becomes the mask."""
    return Augmentation(copies=copies, p_mask=1, p_pos=0, p_ngram=0)


def test_copies_change_the_first_text_the_second_and_both_in_turn() -> None:
    (pair,) = PAIRS[1:2]
    dogs, none = "[MASK] [MASK] [MASK]", "[MASK] [MASK] [MASK]"
    found = list(augmented([pair], masked(3), MASK, np.random.default_rng(0), by_initial))
    assert found == [(dogs, pair[1]), (pair[0], none), (dogs, none)]


def test_the_turn_begins_again_after_both() -> None:
    chosen = Augmentation(copies=300, p_mask=0.5, p_pos=0, p_ngram=0)
    pair = (" ".join(f"a{i}" for i in range(40)), " ".join(f"b{i}" for i in range(40)))
    found = list(augmented([pair], chosen, MASK, np.random.default_rng(0), by_initial))
    assert len(found) == 300
    changed = [tuple(new != old for new, old in zip(copy, pair, strict=True)) for copy in found]
    assert changed == [(True, False), (False, True), (True, True)] * 100


@given(texts=st.lists(pairs, max_size=5), chosen=rules, seed=seeds)
def test_every_copy_is_a_new_pair_with_one_old_side_at_most(
    texts: list[tuple[str, str]], chosen: Augmentation, seed: int
) -> None:
    found = list(augmented(texts, chosen, MASK, np.random.default_rng(seed), by_initial))
    assert len(set(found)) == len(found) <= chosen.copies * len(texts)
    assert not set(found) & set(texts)
    known = {MASK}.union(*(part.split() for pair in texts for part in pair))
    for copy in found:
        assert isinstance(copy, tuple)
        assert len(copy) == 2
        assert set(" ".join(copy).split()) <= known


@given(texts=st.lists(pairs, min_size=1, max_size=5), chosen=rules, seed=seeds)
def test_each_pair_has_one_copy_a_turn_at_most(texts: list[tuple[str, str]], chosen: Augmentation, seed: int) -> None:
    """With one copy a pair only first texts change, and with the second one the second does."""
    one = chosen.model_copy(update={"copies": 1})
    seconds = {second for _, second in texts}
    for copy in augmented(texts, one, MASK, np.random.default_rng(seed), by_initial):
        assert copy[1] in seconds


@given(texts=st.lists(sides, max_size=6), chosen=rules, seed=seeds)
def test_single_texts_stay_single(texts: list[str], chosen: Augmentation, seed: int) -> None:
    found = list(augmented(texts, chosen, MASK, np.random.default_rng(seed), by_initial))
    assert all(isinstance(text, str) for text in found)


def test_a_word_may_come_from_the_other_side_and_from_another_pair() -> None:
    chosen = Augmentation(copies=60, p_mask=0, p_pos=1, p_ngram=0)
    drawn: Counter[str] = Counter()
    for copy in augmented([("a1", "a2"), ("b", "a3")], chosen, MASK, np.random.default_rng(0), by_initial):
        drawn.update(copy[0].split())
    assert set(drawn) == {"a1", "a2", "a3", "b"}


def test_a_side_without_words_stays_as_it_is_and_a_pair_without_any_gives_nothing() -> None:
    found = list(augmented([(" ", "a b"), ("", "")], masked(3), MASK, np.random.default_rng(0), by_initial))
    assert found == [(" ", "[MASK] [MASK]")]  # the other turns give the pair itself, and the same once more


def test_the_transfer_set_of_pairs_holds_pairs() -> None:
    train = tuple(Example(pair, 0) for pair in PAIRS)
    dev = (Example(("a man sleeps", MASK), 1),)
    found = collect(Dataset(("no", "yes"), train, dev), Transfer(augment=masked(3)), MASK, seed=0)
    assert found.groups[0] == PAIRS
    assert len(found.texts) == 3 + 3 * 3
    assert all(isinstance(text, tuple) for text in found.texts)
    assert len(found.strings) == 2 * len(found.texts)


def test_nearly_every_english_word_gets_its_penn_tag() -> None:
    tagged = [[tuple(word.rsplit("/", 1)) for word in sentence.split()] for sentence in GOLD]
    right = [
        wanted == found
        for sentence in tagged
        for (_, wanted), found in zip(sentence, penn_tags([word for word, _ in sentence]), strict=True)
    ]
    assert sum(right) / len(right) > 0.85


def test_a_tagger_is_named_by_module_and_function() -> None:
    assert list(named_tagger("tests.export.transfer.test_pair_augmentation:by_initial")(["ab", "cd"])) == ["a", "c"]
    for ours in (Augmentation().tagger, "export.augment:penn_tags"):  # as recipes of earlier bundles have it
        assert list(named_tagger(ours)(["the", "dog"])) == ["DT", "NN"]


def test_the_recipes_tagger_tags_the_transfer_set() -> None:
    train = tuple(Example(text, 0) for text in ("ax b", "ay b"))
    swaps = Augmentation(copies=9, p_mask=0, p_pos=1, p_ngram=0, tagger=f"{__name__}:by_initial")
    found = collect(Dataset(("no", "yes"), train, ()), Transfer(augment=swaps), MASK, seed=0)
    assert found.texts == ("ax b", "ay b")  # with these tags there is nothing else to draw
    swaps = swaps.model_copy(update={"tagger": f"{__name__}:by_nothing"})
    assert len(collect(Dataset(("no", "yes"), train, ()), Transfer(augment=swaps), MASK, seed=0).texts) > 2


def by_nothing(words: Sequence[str]) -> list[str]:
    return ["word"] * len(words)


def short(words: Sequence[str]) -> list[str]:
    return ["word"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:tag", "No module named 'no_such_module'; write penn, or package.module:function"),
        ("export.transfer.augment:nothing", "has no attribute 'nothing'"),
        ("not a name", "write penn, or package.module:function"),
        ("tests.export.transfer.test_pair_augmentation:GOLD", "is no function that makes a tag of each word"),
        ("tests.export.transfer.test_pair_augmentation:short", "gave 1 tags for 2 words"),
    ],
)
def test_a_tagger_that_is_none_is_refused(name: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        named_tagger(name)(["two", "words"])
    assert str(caught.value).startswith("transfer.augment.tagger: ")
