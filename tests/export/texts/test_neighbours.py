"""Pairs are made of single texts that are alike."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from export.texts.neighbours import neighbour_pairs
from export.texts.sentences import TextSource, shaped_rows

NEWS = [
    "The bank raised its rates on Monday.",
    "Rates were raised on Monday by the central bank.",
    "A comet passed the earth last night.",
    "Last night a bright comet passed by.",
    "Nobody came.",
]


def test_texts_about_the_same_thing_are_paired() -> None:
    assert list(neighbour_pairs(NEWS, 1)) == [(NEWS[0], NEWS[1]), (NEWS[2], NEWS[3])]


def test_more_neighbours_are_the_next_nearest() -> None:
    texts = ["red green blue", "red green", "red", "grey"]
    assert set(neighbour_pairs(texts, 2)) == {(texts[0], texts[1]), (texts[0], texts[2]), (texts[1], texts[2])}


words = st.sampled_from(["ash", "birch", "cedar", "elm", "fir"])
texts = st.lists(st.lists(words, max_size=4).map(" ".join), max_size=12)


@given(texts=texts, count=st.integers(1, 3))
def test_each_pair_once_and_no_text_with_itself(texts: list[str], count: int) -> None:
    pairs = list(neighbour_pairs(texts, count))
    assert len({frozenset(pair) for pair in pairs}) == len(pairs)
    assert all(first != second for first, second in pairs)
    assert all(set(first.split()) & set(second.split()) for first, second in pairs)
    assert {text for pair in pairs for text in pair} <= set(texts)


def test_words_that_all_texts_share_make_no_neighbours() -> None:
    assert list(neighbour_pairs([" ".join(["fir"] * count) for count in range(1, 40)], 1)) == []


def test_a_source_makes_them(tmp_path: Path) -> None:
    file = tmp_path / "news.txt"
    file.write_text("\n".join(NEWS) + "\n", encoding="utf-8")
    source = TextSource(source=str(file), neighbours=1, min_words=3)
    assert source.paired
    assert list(shaped_rows(source)) == [(NEWS[0], NEWS[1]), (NEWS[2], NEWS[3])]
    with pytest.raises(ValidationError, match="neighbours make pairs of single texts"):
        TextSource(source="x", pair="y", neighbours=1)
