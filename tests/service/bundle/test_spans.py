"""Entities are those of transformers' own pipeline on the same logits, and stand where they say."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast, TokenClassificationPipeline
from transformers.pipelines.token_classification import AggregationStrategy

from service.bundle.encoder import Encoder
from service.bundle.errors import TextTooLong
from service.bundle.manifest import RECURRENT_INPUTS, Role
from service.bundle.rows import Spanned
from service.bundle.spans import Aggregation, Entity, Tag, entities, shared, tagged
from service.bundle.tasks import Scores, softmax
from tests.toys import toy

SCHEMES = (toy.TAGS, ("O", "PER", "LOC"), ("I-PER", "O", "I-LOC"), ("O", "B-PER", "B-LOC"))
GROUPED = tuple(how for how in Aggregation if how is not Aggregation.NONE)
WORDS = (*toy.WORDS, "Dullest", "GOODNESS", "films", "zyx", ",", ".", "brightly")
texts = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)


@cache
def encoder(role: Role, *, spanned: bool = True) -> Encoder:
    return toy.encoder(role, toy.tokenizer(special=role is Role.TEACHER), spanned=spanned)


def read(text: str, role: Role = Role.STUDENT) -> Spanned:
    (row,) = encoder(role).encode([text])
    assert isinstance(row, Spanned)
    return row


def standing(row: Spanned) -> list[list[str]]:
    """Each word's pieces, as they stand in the text."""
    return [[row.text[slice(*row.places[token])] for token in word] for word in row.words]


def tokenizer() -> PreTrainedTokenizerFast:
    built = Tokenizer.from_str(toy.tokenizer(special=True).decode())
    built.decoder = decoders.WordPiece(cleanup=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=built, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


@pytest.fixture(scope="module", params=SCHEMES, ids=" ".join)
def theirs(request: pytest.FixtureRequest) -> TokenClassificationPipeline:
    config = BertConfig(
        vocab_size=len(toy.VOCABULARY),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        id2label=dict(enumerate(request.param)),
    )
    return TokenClassificationPipeline(model=BertForTokenClassification(config), tokenizer=tokenizer(), device="cpu")


def labels_of(pipe: TokenClassificationPipeline) -> tuple[str, ...]:
    names = pipe.model.config.id2label
    assert names is not None
    return tuple(map(str, names.values()))


def answered(
    pipe: TokenClassificationPipeline, text: str, logits: np.ndarray, **options: object
) -> list[dict[str, Any]]:
    """What the pipeline makes of these logits."""
    (read,) = pipe.preprocess(text, is_split_into_words=False)
    told = {"logits": torch.from_numpy(logits[None]), **read}
    found: list[dict[str, Any]] = pipe.postprocess([told], **options)
    return found


@settings(max_examples=50)
@given(data=st.data(), text=texts)
def test_entities_are_those_of_transformers(
    theirs: TokenClassificationPipeline, data: st.DataObject, text: str
) -> None:
    row, labels = read(text, Role.TEACHER), labels_of(theirs)
    logits = data.draw(arrays(np.float32, (len(row), len(labels)), elements=st.floats(-5, 5, width=16)))
    scores, tags = softmax(logits), tuple(map(Tag.of, labels))
    how, ignored = data.draw(st.sampled_from(GROUPED)), data.draw(st.sampled_from([["O"], [], ["PER"]]))
    wanted = answered(theirs, text, logits, aggregation_strategy=AggregationStrategy(how.value), ignore_labels=ignored)
    found = entities(row, scores, tags, how, ignored)
    if how is Aggregation.AVERAGE and near_ties(row, scores):
        return  # theirs are of float32
    assert [(each.label, each.start, each.end) for each in found] == [
        (each["entity_group"], each["start"], each["end"]) for each in wanted
    ]
    assert [each.score for each in found] == pytest.approx([each["score"] for each in wanted], abs=1e-6)


def near_ties(row: Spanned, scores: Scores) -> bool:
    means = [np.sort(scores[word.start : word.stop].mean(axis=0)) for word in row.words]
    return any(mean[-1] - mean[-2] < 1e-6 for mean in means)


@settings(max_examples=50)
@given(data=st.data(), text=texts)
def test_pieces_are_those_of_transformers(theirs: TokenClassificationPipeline, data: st.DataObject, text: str) -> None:
    row, labels = read(text, Role.TEACHER), labels_of(theirs)
    logits = data.draw(arrays(np.float32, (len(row), len(labels)), elements=st.floats(-5, 5, width=16)))
    wanted = answered(theirs, text, logits, aggregation_strategy=AggregationStrategy.NONE, ignore_labels=[])
    words, tags, sure = tagged(row, softmax(logits), Aggregation.NONE)
    places = [word.start for word in words]
    assert [(labels[tag], place, *row.places[place]) for tag, place in zip(tags, places, strict=True)] == [
        (each["entity"], each["index"], each["start"], each["end"]) for each in wanted
    ]
    spelt = encoder(Role.TEACHER).spelt
    assert [spelt(row, place) for place in places] == [each["word"] for each in wanted]
    assert list(sure) == pytest.approx([each["score"] for each in wanted], abs=1e-6)


def sure_of(tags: Sequence[int], labels: int) -> Scores:
    """Scores that leave no doubt."""
    return np.eye(labels)[list(tags)]


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ([1, 2, 0, 3], [("PER", "a film"), ('"so"', "very")]),
        ([1, 1, 2, 2], [("PER", "a"), ("PER", "film is very")]),
        ([1, 4, 4, 2], [("PER", "a"), ('"so"', "film is"), ("PER", "very")]),
        ([2, 2, 0, 2], [("PER", "a film"), ("PER", "very")]),
        ([0, 0, 0, 0], []),
    ],
)
def test_a_new_entity_begins_with_b_or_another_label(tags: list[int], found: list[tuple[str, str]]) -> None:
    row = read("a film is very")
    told = entities(row, sure_of(tags, 5), tuple(map(Tag.of, toy.TAGS)))
    assert [(each.label, each.text) for each in told] == found


def test_an_accent_behind_the_last_letter_is_of_the_entity() -> None:
    (found,) = entities(read("goode\u0301 ."), sure_of([1, 0], 5), tuple(map(Tag.of, toy.TAGS)))
    assert (found.start, found.end, found.text) == (0, 6, "goode\u0301")


def test_a_word_takes_the_tag_of_its_first_piece() -> None:
    row = read("Dullest films")  # dull ##est film ##s
    found = entities(row, sure_of([1, 0, 2, 3], 5), tuple(map(Tag.of, toy.TAGS)))
    assert found == (Entity("PER", 1.0, 0, 13, "Dullest films"),)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \t ", []),
        ("Dullest films!", [["Dull", "est"], ["film", "s"], ["!"]]),
        ("Gööd FÌLMS", [["Gööd"], ["FÌLM", "S"]]),
        ("go\u0308od", [["go\u0308od"]]),  # an o with two dots of its own
        ("東京 film", [["東"], ["京"], ["film"]]),
        ("😀😀 good", [["😀😀"], ["good"]]),
        ("a\u200b film\x00s", [["a"], ["film", "s"]]),  # what the normaliser takes away stands for nothing
        ("[CLS] a [SEP]", [["["], ["CLS"], ["]"], ["a"], ["["], ["SEP"], ["]"]]),  # typed by a reader, so it is text
    ],
)
def test_places_are_characters_of_the_text_as_it_was_given(role: Role, text: str, words: list[list[str]]) -> None:
    row = read(text, role)
    assert row.text == text
    assert standing(row) == words
    assert len(row) == len(row.places) == sum(map(len, words)) + (2 if role is Role.TEACHER else 0)


@given(
    st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=1, max_size=4), st.sampled_from(list(Role))
)
def test_rows_have_the_tokens_of_a_classifier_and_places_in_their_text(texts: list[str], role: Role) -> None:
    rows = encoder(role).encode(texts)
    assert rows == encoder(role, spanned=False).encode(texts)
    for text, row in zip(texts, rows, strict=True):
        assert isinstance(row, Spanned)
        assert row.text == text
        tokens = [token for word in row.words for token in word]
        assert tokens == sorted(set(tokens))
        assert all(0 <= start <= end <= len(text) for start, end in row.places)
        alone = read(text, role)
        assert (row.places, row.words) == (alone.places, alone.words)


@pytest.mark.parametrize("role", Role)
def test_what_is_not_read_has_no_words(role: Role) -> None:
    row = read("film " * 500, role)
    assert len(row) == toy.MAX_TOKENS
    assert standing(row) == [["film"]] * (toy.MAX_TOKENS - (2 if role is Role.TEACHER else 0))
    with pytest.raises(TextTooLong, match="more than the 48 tokens"):
        encoder(role).encode(["good", "film " * 500], truncate=False)


def other(pre_tokenizer: pre_tokenizers.PreTokenizer | None) -> Encoder:
    """A tokenizer of another family, with pieces for every letter and a few words."""
    pieces = [("<unk>", -20.0), *((each, -3.0) for each in ("▁", *"abcdefghilmno ")), ("▁film", -1.0), ("film", -1.0)]
    built = Tokenizer(models.Unigram(pieces, unk_id=0))
    built.normalizer = normalizers.NFKC()
    if pre_tokenizer is not None:
        built.pre_tokenizer = pre_tokenizer
    return Encoder(built, inputs=RECURRENT_INPUTS, max_tokens=48, pad_id=0, spanned=True)


def test_a_space_that_a_tokenizer_counts_to_a_word_is_no_part_of_an_entity() -> None:
    (row,) = other(pre_tokenizers.Metaspace()).encode(["bad film"])
    assert isinstance(row, Spanned)
    scores = np.tile([0.0, 1.0], (len(row), 1))
    (found,) = entities(row, scores[: len(row)], (Tag("O", False), Tag("PER", False)))
    assert (found.start, found.end, found.text) == (0, 8, "bad film")
    begun = entities(row, scores, (Tag("O", False), Tag("PER", True)))
    assert [(each.start, each.end, each.text) for each in begun] == [(0, 3, "bad"), (4, 8, "film")]


def test_without_a_notion_of_words_each_piece_is_one() -> None:
    (row,) = other(None).encode(["a bad film"])
    assert isinstance(row, Spanned)
    assert all(len(word) == 1 for word in row.words)


def test_a_siamese_network_answers_for_no_pieces() -> None:
    with pytest.raises(ValueError, match="no graph takes 2 texts"):
        toy.encoder(Role.STUDENT, toy.tokenizer(special=False), pairs=True, spanned=True)


def test_agreement_is_of_places_and_labels() -> None:
    one, two, three = (Entity("PER", score, 0, end, "x") for score, end in ((0.1, 1), (0.9, 1), (0.1, 2)))
    assert shared([], []) == shared([one], [two]) == 1
    assert shared([one], []) == shared([one], [three]) == 0
    assert shared([one, three], [two]) == 0.5
