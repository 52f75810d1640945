"""Text -> tokens -> padded batch, and that padding never shows in the logits."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from service.bundle.encoder import Encoder
from service.bundle.manifest import STUDENT_INPUTS, TEACHER_INPUTS, Role
from service.bundle.runtime import OpenBundle, open_bundle
from tests import toy

words = st.sampled_from((*toy.WORDS, "goodly", "films", "dullest", "Ünknown", "好", "[SEP]", "\n"))
texts = st.lists(words, max_size=60).map(" ".join) | st.text(max_size=80)


@pytest.fixture(scope="module", params=["toy", "toy-teacher"])
def bundle(request: pytest.FixtureRequest, toy_models: Path) -> OpenBundle:
    return open_bundle(toy_models / str(request.param) / "1")


def student_encoder() -> Encoder:
    return toy.encoder(Role.STUDENT, toy.tokenizer(special=False))


def teacher_encoder() -> Encoder:
    return toy.encoder(Role.TEACHER, toy.tokenizer(special=True))


@settings(max_examples=60, deadline=None)
@given(batch=st.lists(texts, min_size=1, max_size=12))
def test_a_text_gets_the_same_logits_alone_as_in_any_batch(bundle: OpenBundle, batch: list[str]) -> None:
    together = bundle.classify(batch)
    alone = np.concatenate([bundle.classify([text]) for text in batch])
    assert np.abs(together - alone).max() <= 1e-5


@settings(max_examples=40, deadline=None)
@given(batch=st.lists(texts, min_size=2, max_size=8))
def test_a_text_gets_the_same_tokens_alone_as_in_a_list(batch: list[str]) -> None:
    encoder = student_encoder()
    assert encoder.encode(batch) == [encoder.encode([text])[0] for text in batch]


def test_word_pieces_are_those_of_the_vocabulary() -> None:
    ids = [toy.VOCABULARY[piece] for piece in ("dull", "##est", "film", "##s", "[UNK]", "!")]
    assert student_encoder().encode(["Dullest FILMS xyz!"]) == [ids]


def test_the_teacher_wraps_each_text() -> None:
    ids = [toy.VOCABULARY[piece] for piece in ("[CLS]", "good", "[SEP]")]
    assert teacher_encoder().encode(["good"]) == [ids]


@pytest.mark.parametrize("encoder", [student_encoder(), teacher_encoder()])
def test_long_texts_are_cut(encoder: Encoder) -> None:
    assert [len(row) for row in encoder.encode(["good " * 500, "bad " * 500])] == [toy.MAX_TOKENS] * 2


def test_a_students_batch_has_its_lengths() -> None:
    feeds = student_encoder().collate([[5, 6, 7], [8]])
    assert tuple(feeds) == STUDENT_INPUTS
    assert feeds["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert feeds["lengths"].tolist() == [3, 1]
    assert {array.dtype for array in feeds.values()} == {np.dtype(np.int64)}


def test_a_teachers_batch_has_its_mask() -> None:
    feeds = teacher_encoder().collate([[5, 6, 7], [8]])
    assert tuple(feeds) == TEACHER_INPUTS
    assert feeds["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert feeds["token_type_ids"].tolist() == [[0, 0, 0], [0, 0, 0]]


def test_an_empty_text_is_one_pad_token() -> None:
    encoder = student_encoder()
    assert encoder.encode([""]) == [[]]
    feeds = encoder.collate([[], []])
    assert feeds["input_ids"].tolist() == [[0], [0]]
    assert feeds["lengths"].tolist() == [1, 1]


def test_inputs_that_no_graph_takes_are_refused() -> None:
    with pytest.raises(ValueError, match="pixels"):
        Encoder(Tokenizer(models.WordPiece()), inputs=("pixels",), max_tokens=8, pad_id=0)
