"""Answers of questions: which parts of a long text are read, and which stretch of it is the best answer."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import Tokenizer

from service.bundle.encoder import Encoder
from service.bundle.errors import TextTooLong
from service.bundle.manifest import SIAMESE_INPUTS, TRANSFORMER_INPUTS
from service.bundle.passages import AnswerSpan, Search, answers
from service.bundle.rows import Passage, numbers
from service.bundle.tasks import softmax
from tests.toys import toy

WORDS = ("a", "very", "dull", "film", "good", "goodness", ".", "zyx", "café")
TEXTS = st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join)


def reader(max_tokens: int = toy.MAX_TOKENS) -> Encoder:
    return Encoder(
        Tokenizer.from_str(toy.tokenizer(special=True).decode()),
        inputs=TRANSFORMER_INPUTS,
        max_tokens=max_tokens,
        pad_id=0,
        texts=2,
        spanned=True,
    )


def passages(question: str, text: str, max_tokens: int = toy.MAX_TOKENS) -> list[Passage]:
    found = reader(max_tokens).encode([(question, text)])
    assert all(isinstance(row, Passage) for row in found)
    return [row for row in found if isinstance(row, Passage)]


def by_hand(row: Passage, logits: NDArray[np.float32], longest: int) -> dict[tuple[int, int], float]:
    """The score of every stretch of a row by first and last character, each looked at by itself."""
    seen = [0, *row.tokens]
    starts, ends = (softmax(logits[seen, side]) for side in range(2))
    scores: dict[tuple[int, int], float] = {}
    for first, last in product(range(1, len(seen)), repeat=2):
        if first <= last < first + longest:
            place = row.places[seen[first]][0], row.places[seen[last]][1]
            scores[place] = max(scores.get(place, 0.0), float(starts[first] * ends[last]))
    return scores


@settings(deadline=None)
@given(TEXTS, st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 5))
def test_the_best_stretches_are_those_of_looking_at_each(text: str, seed: int, longest: int, top_k: int) -> None:
    rows = passages("good ?", text, max_tokens=20)
    rng = np.random.default_rng(seed)
    logits = [rng.normal(0, 3, (len(row), 2)).astype(np.float32) for row in rows]
    wanted: dict[tuple[int, int], float] = {}
    for row, own in zip(rows, logits, strict=True):
        for place, score in by_hand(row, own, longest).items():
            wanted[place] = max(wanted.get(place, 0.0), score)
    found = answers(rows, logits, Search(top_k, longest, whole_words=False))
    assert [answer.score for answer in found] == pytest.approx(sorted(wanted.values(), reverse=True)[:top_k])
    for answer in found:
        assert wanted[answer.start, answer.end] == pytest.approx(answer.score)
        assert answer.answer == text[answer.start : answer.end]


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_all_of_a_text_is_read_in_parts_that_overlap(question: str, text: str) -> None:
    rows = passages(question, text, max_tokens=24)
    read: set[int] = set()
    for before, row in zip([None, *rows], rows, strict=False):
        assert len(row) <= 24
        assert row.types.index(1) - 2 <= 12  # the question has a half at most
        read |= {place for token in row.tokens for place in range(*row.places[token])}
        if before is not None:  # a stretch of some length that ends with one part begins in the next
            assert row.places[row.tokens.start][0] < before.places[before.tokens.stop - 1][1]
    assert read >= {place for place, character in enumerate(text) if not character.isspace()}
    assert all(row.text == text for row in rows)


def test_each_row_knows_whose_it_is() -> None:
    rows = reader(16).encode([("good", "a film"), ("good", "a very dull film . " * 8), ("", "")])
    owners = numbers(rows)
    assert owners == sorted(owners)
    assert set(owners) == {0, 1, 2}
    assert owners.count(1) > 2


def test_a_question_that_would_be_cut_is_refused_where_nothing_may_be_cut() -> None:
    with pytest.raises(TextTooLong, match="the question has more than 24 tokens") as refused:
        reader().encode([("good", "a film"), ("good " * 30, "a film")], truncate=False)
    assert refused.value.place == 1
    assert len(reader().encode([("good " * 24, "a film " * 40)], truncate=False)) > 1  # a text is not cut


def test_an_empty_text_has_no_answer() -> None:
    rows = passages("good ?", "")
    logits = [np.zeros((len(row), 2), dtype=np.float32) for row in rows]
    assert answers(rows, logits, Search()) == []
    assert answers(rows, logits, Search(perhaps_none=True)) == [AnswerSpan("", 1.0, 0, 0)]


def test_an_answer_is_widened_to_whole_words() -> None:
    (row,) = passages("good ?", "a goodness .")  # good and ##ness
    logits = np.full((len(row), 2), -9, dtype=np.float32)
    inside = row.tokens.start + 2
    logits[inside] = 9
    (found,) = answers([row], [logits], Search())
    assert (found.answer, found.start, found.end) == ("goodness", 2, 10)
    (found,) = answers([row], [logits], Search(whole_words=False))
    assert (found.answer, found.start) == ("ness", 6)


def test_that_there_is_none_may_be_the_likeliest() -> None:
    (row,) = passages("good ?", "a film")
    logits = np.zeros((len(row), 2), dtype=np.float32)
    logits[0] = 9
    assert answers([row], [logits], Search())[0].answer != ""
    best, second = answers([row], [logits], Search(2, perhaps_none=True))
    assert (best.answer, best.start, best.end) == ("", 0, 0)
    assert best.score > 0.9 > second.score


def test_a_siamese_network_looks_for_no_answers() -> None:
    with pytest.raises(ValueError, match="no graph takes 2 texts"):
        Encoder(
            Tokenizer.from_str(toy.tokenizer(special=False).decode()),
            inputs=SIAMESE_INPUTS,
            max_tokens=9,
            pad_id=0,
            texts=2,
            spanned=True,
        )
