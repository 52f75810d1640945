"""A vocabulary of whole words: those of the transfer set, read by the service as the teacher's tokenizer parts them."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from gensim.models import KeyedVectors
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from export.beginnings.inherit import file_embeddings, svd_embeddings
from export.beginnings.vocabulary import Vocabulary, vocabulary_of, word_vocabulary
from export.errors import RecipeError
from export.networks.pretrained import load_tokenizer
from export.publishing.publish import Reads, encoder_of
from export.sections import Student
from service.bundle.encoder import Encoder
from service.bundle.manifest import Network
from tests.toys.workshop import Shop, sentences

TEXTS = (
    *(text for text, _ in sentences()[:40]),
    "The FILM, the film: [MASK] film!",
    "never [MASK] seen",
    "Un café, un Café",
)
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

texts = st.lists(
    st.sampled_from(("the", "The", "film", "zyxwv", "café", ",", "!", "映画", "[MASK]", "it's")), max_size=40
)


@pytest.fixture(scope="module")
def teacher(shop: Shop) -> PreTrainedTokenizerFast:
    return load_tokenizer(str(shop.encoder))


@pytest.fixture(scope="module")
def words(teacher: PreTrainedTokenizerFast) -> Vocabulary:
    return word_vocabulary(teacher, TEXTS, min_count=2)


def encoder(vocabulary: Vocabulary, max_tokens: int = 64) -> Encoder:
    return encoder_of(vocabulary.tokenizer_json, Reads(Network.RECURRENT), max_tokens, vocabulary.pad_id)


def parted(teacher: PreTrainedTokenizerFast, text: str) -> list[str]:
    """The words that the teacher's tokenizer sees, without the masks."""
    backend = teacher.backend_tokenizer
    plain = backend.normalizer.normalize_str(text.replace("[MASK]", " "))
    return [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(plain)]


def test_it_holds_the_special_tokens_and_the_words_by_frequency(
    teacher: PreTrainedTokenizerFast, words: Vocabulary
) -> None:
    counts = Counter(word for text in TEXTS for word in parted(teacher, text))
    frequent = {word for word, count in counts.items() if count >= 2}
    assert words.pieces[: len(SPECIAL)] == SPECIAL
    found = words.pieces[len(SPECIAL) :]
    assert set(found) == frequent
    assert [counts[word] for word in found] == sorted((counts[word] for word in found), reverse=True)
    assert "mask" not in found
    assert {"un", "cafe"} <= set(found)  # lower case and without accents, as the teacher reads them


def test_each_word_is_one_token_and_a_rare_one_is_unknown(words: Vocabulary) -> None:
    tokenizer = Tokenizer.from_str(words.tokenizer_json)
    assert tokenizer.encode("The film, never [MASK] CAFÉ").tokens == ["the", "film", ",", "[UNK]", "[MASK]", "cafe"]


def test_every_occurrence_counts_where_that_is_asked(teacher: PreTrainedTokenizerFast) -> None:
    all_of_them = word_vocabulary(teacher, TEXTS, min_count=1)
    wanted = {word for text in TEXTS for word in parted(teacher, text)}
    assert set(all_of_them.pieces) == wanted | set(SPECIAL)


def test_it_is_the_same_every_time(teacher: PreTrainedTokenizerFast, words: Vocabulary) -> None:
    again = word_vocabulary(teacher, TEXTS, min_count=2)
    assert again.tokenizer_json == words.tokenizer_json
    assert np.array_equal(again.kept, words.kept)


def test_a_word_has_the_mean_of_its_pieces_in_the_teachers_table(
    teacher: PreTrainedTokenizerFast, words: Vocabulary
) -> None:
    table = np.random.default_rng(0).normal(size=(len(teacher), 8)).astype(np.float32)
    rows = words.rows(table)
    assert rows.shape == (len(words), 8)
    for word, row in zip(words.pieces, rows, strict=True):
        ids = (
            [teacher.convert_tokens_to_ids(word)]
            if word in SPECIAL
            else teacher.convert_tokens_to_ids(teacher.tokenize(word))
        )
        np.testing.assert_allclose(row, table[ids].mean(axis=0), atol=1e-6)
    assert max(np.diff(words.firsts)) > 1  # some words are of several pieces


def test_of_word_pieces_the_rows_are_the_teachers_own(teacher: PreTrainedTokenizerFast) -> None:
    table = np.random.default_rng(0).normal(size=(len(teacher), 8)).astype(np.float32)
    pieces = vocabulary_of(Student(embedding=4, hidden=4, dense=4), teacher, TEXTS)
    assert np.array_equal(pieces.rows(table), table[pieces.kept])


def test_words_take_their_vectors_from_a_file(words: Vocabulary, tmp_path: Path) -> None:
    vectors = KeyedVectors(6)
    vectors.add_vectors(["film", "cafe", "elsewhere"], np.eye(3, 6, dtype=np.float32) + 1)
    vectors.save_word2vec_format(str(tmp_path / "vectors.txt"))
    table = file_embeddings(tmp_path / "vectors.txt", words.pieces, 6, np.random.default_rng(0))
    film, cafe = table[words.pieces.index("film")], table[words.pieces.index("cafe")]
    np.testing.assert_allclose(film - cafe, [film[0] - cafe[0], film[1] - cafe[1], 0, 0, 0, 0], atol=1e-6)
    assert len(table) == len(words)


def test_the_best_picture_of_the_teachers_table_has_a_row_a_word(
    teacher: PreTrainedTokenizerFast, words: Vocabulary
) -> None:
    table = np.random.default_rng(0).normal(size=(len(teacher), 8)).astype(np.float32)
    assert svd_embeddings(words.rows(table), 4).shape == (len(words), 4)


@given(parts=texts, limit=st.integers(1, 12))
def test_the_service_reads_words_as_the_tokenizer_does(words: Vocabulary, parts: list[str], limit: int) -> None:
    text = " ".join(parts)
    reference = Tokenizer.from_str(words.tokenizer_json)
    reference.enable_truncation(limit)
    (row,) = encoder(words, limit).encode([text])
    assert row == reference.encode(text).ids
    assert len(row) <= limit


def test_the_service_knows_the_unknown_word_and_reads_plain_text_by_its_dictionary(words: Vocabulary) -> None:
    made = encoder(words)
    assert made.unknown_id == words.pieces.index("[UNK]")
    assert made.encode(["zyxwv"]) == [[made.unknown_id]]
    assert made._words is not None
    assert made._words.row("the film was good") == made.encode(["the film was good"])[0]


def test_of_a_very_long_text_the_service_reads_the_beginning_only(words: Vocabulary) -> None:
    made = encoder(words, 8)
    long = "le café était fermé, " * 5_000
    assert len(made._beginning(long)) < 1_000
    reference = Tokenizer.from_str(words.tokenizer_json)
    reference.enable_truncation(8)
    assert made.encode([long]) == [reference.encode(long).ids]


def test_tokens_that_were_added_later_are_words(shop: Shop) -> None:
    teacher = load_tokenizer(str(shop.encoder))
    teacher.add_tokens(["<user>"])
    vocabulary = word_vocabulary(teacher, ["<user> liked it", "<user> liked it"], min_count=2)
    assert vocabulary.pieces == [*SPECIAL, "<user>", "it", "liked"]
    tokenizer = Tokenizer.from_str(vocabulary.tokenizer_json)
    assert tokenizer.encode("<user> liked nothing").tokens == ["<user>", "liked", "[UNK]"]
    table = np.random.default_rng(0).normal(size=(len(teacher), 4)).astype(np.float32)
    np.testing.assert_array_equal(vocabulary.rows(table)[5], table[teacher.convert_tokens_to_ids("<user>")])


def test_no_words_at_all_leave_the_special_tokens(teacher: PreTrainedTokenizerFast) -> None:
    assert word_vocabulary(teacher, ["", "once"], min_count=2).pieces == SPECIAL


def bpe(unknown: str | None, parts: bool) -> PreTrainedTokenizerFast:
    """A teacher's tokenizer of byte pairs."""
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<unk>", "a", "b", "ab"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("a", "b")], unk_token=unknown))
    tokenizer.normalizer = normalizers.Lowercase()
    if parts:
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["<pad>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>")


def test_a_teacher_of_another_make_is_parted_its_own_way() -> None:
    vocabulary = word_vocabulary(bpe("<unk>", parts=True), ["AB b, ab"], min_count=1)
    assert vocabulary.pieces == ["<pad>", "<unk>", "ab", ",", "b"]
    table = np.arange(10, dtype=np.float32).reshape(5, 2)
    np.testing.assert_array_equal(vocabulary.rows(table), table[[0, 1, 4, 1, 3]])  # a comma is unknown to it
    model = json.loads(vocabulary.tokenizer_json)["model"]
    assert (model["type"], model["unk_token"]) == ("WordLevel", "<unk>")


@pytest.mark.parametrize(
    ("unknown", "parts", "message"),
    [(None, True, "has no token for an unknown word"), ("<unk>", False, "doesn't part texts into words")],
)
def test_a_teacher_whose_tokenizer_gives_no_words_is_refused(unknown: str | None, parts: bool, message: str) -> None:
    wanted = Student(embedding=4, hidden=4, dense=4, vocabulary="words")
    with pytest.raises(RecipeError, match=f"student.vocabulary: .*{message}; set it to 'pieces'"):
        vocabulary_of(wanted, bpe(unknown, parts), ["ab"])
