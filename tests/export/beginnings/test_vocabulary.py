"""A pruned tokenizer cuts the transfer texts as the teacher's does, with fewer pieces."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from export.beginnings.vocabulary import Vocabulary, student_vocabulary
from export.errors import RecipeError
from export.networks.pretrained import load_tokenizer
from tests.toys.workshop import Shop, sentences

TEXTS = [text for text, _ in sentences()[:40]] + ["Un café 映画, quite UNHEARD of 😀!", "", "the the the [MASK] the"]


@pytest.fixture(scope="module")
def teacher(shop: Shop) -> PreTrainedTokenizerFast:
    return load_tokenizer(str(shop.encoder))


@pytest.fixture(scope="module")
def pruned(teacher: PreTrainedTokenizerFast) -> Vocabulary:
    return student_vocabulary(teacher, TEXTS, prune=True)


def pieces(vocabulary: Vocabulary, text: str) -> list[str]:
    return list(Tokenizer.from_str(vocabulary.tokenizer_json).encode(text).tokens)


@pytest.mark.parametrize("prune", [True, False])
def test_the_transfer_texts_have_the_teachers_pieces(teacher: PreTrainedTokenizerFast, prune: bool) -> None:
    vocabulary = student_vocabulary(teacher, TEXTS, prune)
    for text in TEXTS:
        assert pieces(vocabulary, text) == teacher.tokenize(text)


def test_ids_lead_to_the_teachers_rows(teacher: PreTrainedTokenizerFast, pruned: Vocabulary) -> None:
    tokenizer = Tokenizer.from_str(pruned.tokenizer_json)
    for text in TEXTS:
        theirs = teacher(text, add_special_tokens=False)["input_ids"]
        assert pruned.kept[tokenizer.encode(text).ids].tolist() == theirs
    assert pruned.pieces == teacher.convert_ids_to_tokens(pruned.kept.tolist())


def test_ids_are_those_of_the_table_from_0_to_its_end(pruned: Vocabulary) -> None:
    tokenizer = Tokenizer.from_str(pruned.tokenizer_json)
    assert sorted(tokenizer.get_vocab(with_added_tokens=True).values()) == list(range(len(pruned.kept)))
    assert len(set(pruned.kept.tolist())) == len(pruned.kept)


def test_common_pieces_come_first_behind_the_special_tokens(
    teacher: PreTrainedTokenizerFast, pruned: Vocabulary
) -> None:
    special = len(teacher.all_special_ids)
    assert set(pruned.pieces[:special]) == set(teacher.all_special_tokens)
    counts = Counter(piece for text in TEXTS for piece in teacher.tokenize(text))
    found = [counts[piece] for piece in pruned.pieces[special:]]
    assert found == sorted(found, reverse=True)


def test_pieces_that_never_occur_go_and_single_characters_stay(
    teacher: PreTrainedTokenizerFast, pruned: Vocabulary
) -> None:
    used = {piece for text in TEXTS for piece in teacher.tokenize(text)} | set(teacher.all_special_tokens)
    letters = {piece for piece in teacher.get_vocab() if len(piece.removeprefix("##")) == 1}
    assert set(pruned.pieces) == used | letters
    assert len(pruned.kept) < len(teacher)


def test_an_unseen_word_can_still_be_spelt(pruned: Vocabulary) -> None:
    assert "[UNK]" not in pieces(pruned, "lousy yarn")


def test_the_pad_token_moves_along(teacher: PreTrainedTokenizerFast, pruned: Vocabulary) -> None:
    assert pruned.pieces[pruned.pad_id] == teacher.pad_token
    whole = student_vocabulary(teacher, TEXTS, prune=False)
    assert whole.pieces[whole.pad_id] == teacher.pad_token
    assert whole.kept.tolist() == list(range(len(teacher)))


def test_nothing_is_put_around_a_text_and_nothing_cut(pruned: Vocabulary) -> None:
    content = json.loads(pruned.tokenizer_json)
    assert [content[part] for part in ("post_processor", "truncation", "padding")] == [None] * 3


def test_tokens_that_were_added_later_keep_their_rows(shop: Shop) -> None:
    teacher = load_tokenizer(str(shop.encoder))
    teacher.add_tokens(["<user>", "<url>"])
    texts = ["<user> liked the film <url>", "the film is good"]
    vocabulary = student_vocabulary(teacher, texts, prune=True)
    tokenizer = Tokenizer.from_str(vocabulary.tokenizer_json)
    assert len(vocabulary.kept) == tokenizer.get_vocab_size(with_added_tokens=True)
    for text in texts:
        theirs = teacher(text, add_special_tokens=False)["input_ids"]
        assert vocabulary.kept[tokenizer.encode(text).ids].tolist() == theirs


def test_a_vocabulary_is_the_same_every_time(teacher: PreTrainedTokenizerFast, pruned: Vocabulary) -> None:
    again = student_vocabulary(teacher, TEXTS, prune=True)
    assert again.tokenizer_json == pruned.tokenizer_json
    assert np.array_equal(again.kept, pruned.kept)


def test_only_wordpiece_can_be_pruned(tmp_path: Path) -> None:
    bpe = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2, "<pad>": 3}, [("a", "b")]))
    teacher = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>")
    with pytest.raises(RecipeError, match="tokenizer is BPE and only WordPiece can be pruned; set prune = false"):
        student_vocabulary(teacher, ["ab"], prune=True)
    assert pieces(student_vocabulary(teacher, ["ab"], prune=False), "ab") == ["ab"]
