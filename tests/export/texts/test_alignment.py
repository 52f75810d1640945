"""Which piece speaks for which word, and that teacher and student read the same pieces."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from export.beginnings.vocabulary import vocabulary_of
from export.networks.pretrained import load_tokenizer
from export.publishing.publish import Reads, encoder_of
from export.sections import Student
from export.teachers.hugging_face import pieces_of, reader
from export.texts.alignment import first_pieces, going_on, partners, piece_tags, places_of, word_logits
from export.texts.tags import Words, spans_of
from export.texts.unlabelled import UNLABELLED
from service.bundle.encoder import Encoder
from service.bundle.manifest import Network, Task
from service.bundle.rows import Spanned
from service.bundle.spans import Tag
from tests.toys.tagging_shop import TAGS, sentences, write_splitting_encoder

ON = going_on(TAGS)
OUT, B_PER, I_PER, B_LOC, I_LOC = range(5)
SOME = ("U.N.", "Port-au-Prince", "O'Hara", "Özdemir", "東京", "😀", "don't", "\u200b", "[MASK]", ".", "x" * 120)
words = st.lists(
    st.sampled_from(SOME) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=0, max_size=12
).map(lambda row: [word for word in row if word.strip() == word])


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_splitting_encoder(tmp_path_factory.mktemp("encoder") / "encoder", sentences())


@pytest.fixture(scope="module")
def teacher(encoder: Path) -> Encoder:
    return reader(load_tokenizer(str(encoder)), 40, of_pieces=True)


def row_of(encoder: Encoder, text: str) -> Spanned:
    (row,) = encoder.encode([text])
    assert isinstance(row, Spanned)
    return row


def labelled(text: str, *tags: int) -> Words:
    return Words(spans_of(text), tags)


def told(row: Spanned, tags: list[int]) -> list[tuple[str, int]]:
    """Pieces as the text has them, with their tags."""
    return [(row.text[slice(*place)], tag) for place, tag in zip(row.places, tags, strict=True) if place != (0, 0)]


def test_the_first_piece_of_each_part_of_a_word_has_a_tag(teacher: Encoder) -> None:
    text = "Anna in U.N. Plaza ."
    row = row_of(teacher, text)
    found = told(row, piece_tags(row, labelled(text, B_PER, OUT, B_LOC, I_LOC, OUT), ON))
    assert found[:2] == [("Anna", B_PER), ("in", OUT)]
    assert found[2:6] == [("U", B_LOC), (".", I_LOC), ("N", I_LOC), (".", I_LOC)]
    assert found[-1] == (".", OUT)
    assert {tag for _, tag in found[6:-1]} <= {I_LOC, UNLABELLED}


def test_pieces_that_go_on_with_a_part_and_special_tokens_are_not_judged(teacher: Encoder) -> None:
    row = row_of(teacher, "Limalima")
    tags = piece_tags(row, labelled("Limalima", B_LOC), ON)
    assert len(row.words[0]) > 1
    assert tags == [UNLABELLED, B_LOC, *[UNLABELLED] * (len(row) - 2)]


def test_an_entity_goes_on_with_its_own_name() -> None:
    assert ON == (OUT, I_PER, I_PER, I_LOC, I_LOC)
    assert going_on(("O", "B-PER", "LOC")) == (0, UNLABELLED, 2)


@given(row=words, data=st.data())
def test_each_word_is_spoken_for_by_a_piece_of_its_own(teacher: Encoder, row: list[str], data: st.DataObject) -> None:
    text = " ".join(row)
    own = labelled(text, *data.draw(st.lists(st.sampled_from(range(5)), min_size=len(row), max_size=len(row))))
    own = Words(spans_of(row), own.tags)
    found = row_of(teacher, text)
    tags = piece_tags(found, own, ON)
    firsts = first_pieces([found], [own])
    assert len(firsts) == len(row)
    seen = [piece for piece in firsts.tolist() if piece >= 0]
    assert seen == sorted(set(seen))
    for (start, end), tag, first in zip(own.spans, own.tags, firsts.tolist(), strict=True):
        if first >= 0:
            assert start <= found.places[first][0] < end
            assert tags[first] == tag
        else:  # cut off, or nothing that the tokenizer takes for text
            assert len(found) == 40 or not row_of(teacher, text[start:end]).words


@given(texts=st.lists(words.map(" ".join), min_size=1, max_size=4), data=st.data())
def test_rows_one_behind_the_other_or_padded(teacher: Encoder, texts: list[str], data: st.DataObject) -> None:
    rows = [row_of(teacher, text) for text in texts]
    own = [labelled(text, *[0] * len(spans_of(text))) for text in texts]
    apart = [first_pieces([row], [each]) for row, each in zip(rows, own, strict=True)]
    width = max(map(len, rows)) + data.draw(st.integers(0, 3))
    starts = np.cumsum([0, *map(len, rows)])
    for together, begins in (
        (first_pieces(rows, own), starts),
        (first_pieces(rows, own, width), range(0, 99999, width)),
    ):
        wanted = [np.where(part < 0, -1, part + begin) for part, begin in zip(apart, begins, strict=False)]
        assert np.array_equal(together, np.concatenate(wanted))


def test_entities_of_words_stand_where_their_words_do() -> None:
    words = Words(spans_of("Anna Lund in New Delhi Ulm"), (B_PER, I_PER, OUT, B_LOC, I_LOC, B_LOC))
    assert list(places_of(words, list(map(Tag.of, TAGS)))) == [("PER", 0, 9), ("LOC", 13, 22), ("LOC", 23, 26)]


def test_a_word_without_a_piece_is_outside() -> None:
    logits = np.array([[0, 5, 1, 0, 0], [9, 0, 0, 0, 0]], np.float32)
    found = word_logits(logits, np.array([0, -1]), TAGS)
    assert found.argmax(axis=1).tolist() == [B_PER, OUT]
    assert np.array_equal(found[0], logits[0])


def student_of(encoder: Path, texts: list[str], kind: str = "pieces") -> Encoder:
    wanted = Student(embedding=4, hidden=4, dense=4, vocabulary=kind)
    vocabulary = vocabulary_of(wanted, load_tokenizer(str(encoder)), texts)
    return encoder_of(vocabulary.tokenizer_json, Reads(Network.RECURRENT, Task.TAGGING), 60, vocabulary.pad_id)


@settings(max_examples=40)
@given(texts=st.lists(words.map(" ".join), min_size=1, max_size=5))
def test_a_pruned_student_reads_the_teachers_pieces_of_its_transfer_set(
    encoder: Path, teacher: Encoder, texts: list[str]
) -> None:
    student = student_of(encoder, texts)
    whole, pruned = (Tokenizer.from_str(json.dumps(json.loads(e._tokenizer.to_str()))) for e in (teacher, student))
    for text in texts:
        ours, theirs = row_of(student, text), row_of(teacher, text)
        pieces = pieces_of([theirs])
        spelt = [whole.id_to_token(theirs[piece]) for word in theirs.words for piece in word]
        count = len(spelt)
        assert [pruned.id_to_token(piece) for piece in ours[:count]] == spelt
        assert ours.places[:count] == [tuple(place) for place in pieces.places.tolist()]
        assert partners(ours.places, pieces.places).tolist() == list(range(count))


def test_words_of_another_text_may_fall_into_other_pieces(encoder: Path, teacher: Encoder) -> None:
    student = student_of(encoder, ["in Lima"])
    text = "nobody from New Delhi"
    ours, theirs = row_of(student, text), pieces_of([row_of(teacher, text)])
    assert len(ours) > len(theirs.places)
    found = partners(ours.places, theirs.places)
    assert len(found) == len(ours)
    for (start, _), their in zip(ours.places, theirs.places[found], strict=True):
        assert their[0] <= start < their[1]


def test_a_student_that_reads_words_learns_from_the_piece_in_which_each_begins(encoder: Path, teacher: Encoder) -> None:
    text = "Limalima and Anna"
    student = student_of(encoder, [text], "words")
    ours, theirs = row_of(student, text), pieces_of([row_of(teacher, text)])
    assert len(ours) == 3 < len(theirs.places)
    found = partners(ours.places, theirs.places)
    assert theirs.places[found, 0].tolist() == [0, 9, 13]


def test_what_the_teacher_cut_off_has_no_partner(teacher: Encoder) -> None:
    text = "nobody came . " * 30
    theirs = pieces_of([row_of(teacher, text)])
    assert len(theirs.places) == 38  # 40 with [CLS] and [SEP]
    ours = [span for part in range(30) for span in ((14 * part, 14 * part + 6), (14 * part + 7, 14 * part + 11))]
    found = partners(ours, theirs.places)
    assert 0 < len(found) < len(ours)
    assert partners([], theirs.places).tolist() == []
    assert partners(ours, theirs.places[:0]).tolist() == []
