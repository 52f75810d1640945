"""Text -> tokens -> padded batch, and that padding never shows in the logits."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

from service.bundle.encoder import Encoder
from service.bundle.errors import InvalidTokenizer, TextError, TextTooLong, TextUnreadable, WrongKind
from service.bundle.manifest import RECURRENT_INPUTS, SIAMESE_INPUTS, TRANSFORMER_INPUTS, Role
from service.bundle.rows import Buckets, Joined, Twins, up_to
from service.bundle.runtime import EngineOptions, OpenBundle, open_bundle
from tests.toys import toy

words = st.sampled_from((*toy.WORDS, "goodly", "films", "dullest", "Ünknown", "好", "[SEP]", "\n"))
texts = st.lists(words, max_size=60).map(" ".join) | st.text(max_size=80)
pairs = st.tuples(texts, texts)
BUCKETS = EngineOptions(buckets=Buckets(rows=(2, 4, 16), lengths=(8, 32, 64)))
PLACES = ("toy", "toy-teacher", "siamese", "pair-teacher")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, toy_student: Path, toy_teacher: Path) -> dict[str, Path]:
    models = tmp_path_factory.mktemp("pairs")
    return {
        "toy": toy_student,
        "toy-teacher": toy_teacher,
        "siamese": toy.publish(models, "siamese", "1", Role.STUDENT, pairs=True),
        "pair-teacher": toy.publish(models, "pair-teacher", "1", Role.TEACHER, pairs=True),
    }


@pytest.fixture(scope="module", params=PLACES[:2])
def bundle(request: pytest.FixtureRequest, places: dict[str, Path]) -> OpenBundle:
    return open_bundle(places[str(request.param)])


@pytest.fixture(scope="module", params=PLACES[2:])
def of_pairs(request: pytest.FixtureRequest, places: dict[str, Path]) -> OpenBundle:
    return open_bundle(places[str(request.param)])


def student_encoder(max_tokens: int = toy.MAX_TOKENS) -> Encoder:
    return toy.encoder(Role.STUDENT, toy.tokenizer(special=False), max_tokens=max_tokens)


def teacher_encoder(max_tokens: int = toy.MAX_TOKENS) -> Encoder:
    return toy.encoder(Role.TEACHER, toy.tokenizer(special=True), max_tokens=max_tokens)


def siamese_encoder() -> Encoder:
    return toy.encoder(Role.STUDENT, toy.tokenizer(special=False), pairs=True)


def pair_encoder(max_tokens: int = toy.MAX_TOKENS) -> Encoder:
    return toy.encoder(Role.TEACHER, toy.tokenizer(special=True), pairs=True, max_tokens=max_tokens)


def ids(*pieces: str) -> list[int]:
    return [toy.VOCABULARY[piece] for piece in pieces]


@settings(max_examples=60, deadline=None)
@given(batch=st.lists(texts, min_size=1, max_size=12))
def test_a_text_gets_the_same_logits_alone_as_in_any_batch(bundle: OpenBundle, batch: list[str]) -> None:
    together = bundle.classify(batch)
    alone = np.concatenate([bundle.classify([text]) for text in batch])
    assert np.abs(together - alone).max() <= 1e-5


@settings(max_examples=30, deadline=None)
@given(batch=st.lists(pairs, min_size=1, max_size=8))
def test_a_pair_gets_the_same_logits_alone_as_in_any_batch(of_pairs: OpenBundle, batch: list[tuple[str, str]]) -> None:
    together = of_pairs.classify(batch)
    alone = np.concatenate([of_pairs.classify([pair]) for pair in batch])
    assert np.abs(together - alone).max() <= 1e-5


@pytest.mark.parametrize("place", PLACES)
@settings(max_examples=20, deadline=None)
@given(batch=st.lists(pairs, min_size=1, max_size=8))
def test_buckets_change_no_answer(places: dict[str, Path], place: str, batch: list[tuple[str, str]]) -> None:
    tight, filled = open_bundle(places[place]), open_bundle(places[place], options=BUCKETS)
    asked = batch if tight.manifest.texts == 2 else [first for first, _ in batch]
    assert np.abs(filled.classify(asked) - tight.classify(asked)).max() <= 1e-5


@pytest.mark.parametrize("encoder", [siamese_encoder(), pair_encoder()])
@settings(max_examples=40, deadline=None)
@given(batch=st.lists(pairs, min_size=2, max_size=8))
def test_a_pair_gets_the_same_tokens_alone_as_in_a_list(encoder: Encoder, batch: list[tuple[str, str]]) -> None:
    assert encoder.encode(batch) == [encoder.encode([pair])[0] for pair in batch]


@settings(max_examples=40, deadline=None)
@given(batch=st.lists(texts, min_size=2, max_size=8))
def test_a_text_gets_the_same_tokens_alone_as_in_a_list(batch: list[str]) -> None:
    encoder = student_encoder()
    assert encoder.encode(batch) == [encoder.encode([text])[0] for text in batch]


def test_word_pieces_are_those_of_the_vocabulary() -> None:
    assert student_encoder().encode(["Dullest FILMS xyz!"]) == [ids("dull", "##est", "film", "##s", "[UNK]", "!")]


def test_the_teacher_wraps_each_text() -> None:
    assert teacher_encoder().encode(["good"]) == [ids("[CLS]", "good", "[SEP]")]


def test_the_teacher_reads_a_pair_in_one_sequence() -> None:
    (row,) = pair_encoder().encode([("good", "a film")])
    assert row == Joined(ids("[CLS]", "good", "[SEP]", "a", "film", "[SEP]"), [0, 0, 0, 1, 1, 1])
    assert len(row) == 6


def test_a_siamese_reads_a_pair_in_two() -> None:
    (row,) = siamese_encoder().encode([("good", "a film")])
    assert row == Twins(ids("good"), ids("a", "film"))
    assert len(row) == 3


@pytest.mark.parametrize("encoder", [student_encoder(), teacher_encoder()])
def test_long_texts_are_cut(encoder: Encoder) -> None:
    assert [len(row) for row in encoder.encode(["good " * 500, "bad " * 500])] == [toy.MAX_TOKENS] * 2


def test_of_a_long_pair_the_longer_text_is_cut() -> None:
    rows = pair_encoder(10).encode([("good " * 9, "bad film"), ("good", "bad " * 9), ("good " * 9, "bad " * 9)])
    kinds = [[row.types.count(kind) for kind in range(2)] for row in rows if isinstance(row, Joined)]
    assert kinds == [[7, 3], [3, 7], [5, 5]]  # with [CLS] and both [SEP]


def test_the_texts_of_a_siamese_are_cut_each_for_itself() -> None:
    (row,) = siamese_encoder().encode([("good " * 500, "bad")])
    assert isinstance(row, Twins)
    assert (len(row.first), len(row.second)) == (toy.MAX_TOKENS, 1)


def test_a_students_batch_has_its_lengths() -> None:
    feeds = student_encoder().collate([[5, 6, 7], [8]])
    assert tuple(feeds) == RECURRENT_INPUTS
    assert feeds["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert feeds["lengths"].tolist() == [3, 1]
    assert {array.dtype for array in feeds.values()} == {np.dtype(np.int64)}


def test_a_teachers_batch_has_its_mask() -> None:
    feeds = teacher_encoder().collate([[5, 6, 7], [8]])
    assert tuple(feeds) == TRANSFORMER_INPUTS
    assert feeds["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert feeds["token_type_ids"].tolist() == [[0, 0, 0], [0, 0, 0]]


def test_a_teachers_batch_of_pairs_has_its_token_types() -> None:
    feeds = pair_encoder().collate([Joined([5, 6, 7], [0, 1, 1]), Joined([8], [0])])
    assert tuple(feeds) == TRANSFORMER_INPUTS
    assert feeds["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert feeds["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert feeds["token_type_ids"].tolist() == [[0, 1, 1], [0, 0, 0]]


def test_a_siamese_batch_has_both_lengths() -> None:
    feeds = siamese_encoder().collate([Twins([5, 6], [7]), Twins([], [8, 9, 4])])
    assert tuple(feeds) == SIAMESE_INPUTS
    assert feeds["input_ids"].tolist() == [[5, 6], [0, 0]]
    assert feeds["lengths"].tolist() == [2, 1]
    assert feeds["pair_ids"].tolist() == [[7, 0, 0], [8, 9, 4]]
    assert feeds["pair_lengths"].tolist() == [1, 3]


def test_an_empty_text_is_one_pad_token() -> None:
    encoder = student_encoder()
    assert encoder.encode([""]) == [[]]
    feeds = encoder.collate([[], []])
    assert feeds["input_ids"].tolist() == [[0], [0]]
    assert feeds["lengths"].tolist() == [1, 1]


def test_a_bucket_fills_up_rows_and_lengths() -> None:
    feeds = student_encoder(max_tokens=5).collate([[5, 6, 7], [8]], Buckets(rows=(4,), lengths=(4, 8)))
    assert feeds["input_ids"].tolist() == [[5, 6, 7, 0], [8, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert feeds["lengths"].tolist() == [3, 1, 1, 1]


def test_a_bucket_is_never_longer_than_the_model_reads() -> None:
    feeds = student_encoder(max_tokens=5).collate([[5] * 5], Buckets(rows=(1,), lengths=(4, 8)))
    assert feeds["input_ids"].shape == (1, 5)


def test_what_is_larger_than_every_bucket_keeps_its_size() -> None:
    assert [up_to(size, (2, 4)) for size in range(1, 7)] == [2, 2, 4, 4, 5, 6]


@pytest.mark.parametrize(
    ("encoder", "wrong", "message"),
    [
        (student_encoder(), [("good", "bad")], "reads single texts"),
        (teacher_encoder(), ["good", ("good", "bad")], "reads single texts"),
        (siamese_encoder(), ["good"], "reads pairs"),
        (pair_encoder(), [("good", "bad"), "good"], "reads pairs"),
    ],
)
def test_a_text_of_the_wrong_kind_is_refused_by_its_place(encoder: Encoder, wrong: list[str], message: str) -> None:
    with pytest.raises(WrongKind, match=message) as caught:
        encoder.encode(wrong)
    assert caught.value.place == len(wrong) - 1


@pytest.mark.parametrize(
    ("encoder", "fits", "too_long"),
    [
        (student_encoder(4), "good " * 4, "good " * 5),
        (teacher_encoder(4), "good " * 2, "good " * 3),
        (student_encoder(4), "好" * 4 + " " * 9999, "好" * 5 + " " * 9999),
        (pair_encoder(8), ("good " * 3, "bad " * 2), ("good " * 3, "bad " * 3)),
        (siamese_encoder(), ("good " * 48, "bad " * 48), ("bad", "good " * 49)),
    ],
)
def test_a_text_that_must_not_be_cut_is_refused_only_if_it_is_too_long(
    encoder: Encoder, fits: str, too_long: str
) -> None:
    assert encoder.encode([fits, fits], truncate=False) == encoder.encode([fits, fits])
    with pytest.raises(TextTooLong, match=f"the {encoder.max_tokens} tokens") as caught:
        encoder.encode([fits, too_long], truncate=False)
    assert caught.value.place == 1
    with pytest.raises(TextTooLong) as caught:
        encoder.encode([too_long], truncate=False)
    assert caught.value.place == 0


borders = st.sampled_from([" ", "\n", "\u3000", "。", "好", ",", "-", "\\", "'"])
others = st.sampled_from(
    ["a", "goodly", "[SEP]", "[", "]", "x" * 101, "\u0301", "\u0000", "\u2003", "ñ", "か", "_", "<"]
)
mixed = st.lists(borders | others | st.characters(), max_size=40).map("".join)


@settings(max_examples=300, deadline=None)
@given(parts=st.lists(mixed, min_size=1, max_size=4), times=st.integers(1, 400), most=st.integers(1, 6))
def test_cutting_characters_first_changes_no_token(parts: list[str], times: int, most: int) -> None:
    text = "".join(part * times for part in parts)
    plain = Tokenizer.from_str(toy.tokenizer(special=False).decode())
    tokens = plain.encode(text).ids
    encoder = student_encoder(most)
    assert encoder.encode([text]) == [tokens[:most]]
    assert encoder.encode([text, ""]) == [tokens[:most], []]
    try:
        encoder.encode([text], truncate=False)
        assert len(tokens) <= most
    except TextTooLong:
        assert len(tokens) > most


@pytest.mark.parametrize(
    "text", ["güt film " * 100_000, "好" * 1_000_000, "ä.b" * 300_000, "\u0000 " * 500_000 + "a b c d e"]
)
def test_of_a_very_long_text_only_the_beginning_is_tokenised(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = student_encoder(4)
    seen: list[int] = []

    class Counting:
        def encode(self, text: str) -> object:
            seen.append(len(text))
            return tokenizer.encode(text)

    tokenizer = encoder._tokenizer
    monkeypatch.setattr(encoder, "_tokenizer", Counting())
    (row,) = encoder.encode([text])
    assert len(row) == 4
    if not text.startswith("\u0000"):
        assert sum(seen) < 100


@pytest.mark.parametrize("content", ["a is a is a is bright", "a,is,a,is,a,is,bright"])
def test_a_tokenizer_that_reads_across_borders_sees_the_whole_text(content: str) -> None:
    built = Tokenizer.from_str(toy.tokenizer(special=False).decode())
    built.add_tokens([AddedToken(content)])
    encoder = Encoder(built, inputs=RECURRENT_INPUTS, max_tokens=4, pad_id=0)
    assert encoder.encode([" " * 14 + content + " " * 300]) == [[built.token_to_id(content)]]


def tripping_tokenizer() -> Tokenizer:
    """One that panics in Rust on some texts: the regular expression gives up."""
    built = Tokenizer(models.WordPiece(toy.VOCABULARY, unk_token="[UNK]"))
    built.pre_tokenizer = pre_tokenizers.Split(Regex("(a+)+$"), "isolated")
    return built


def test_a_panic_of_the_tokenizer_is_an_ordinary_error() -> None:
    tripping = "a" * 30 + "b"
    with pytest.raises(BaseException, match="retry-limit") as panic:
        tripping_tokenizer().encode(tripping)
    assert not isinstance(panic.value, Exception)
    encoder = Encoder(tripping_tokenizer(), inputs=RECURRENT_INPUTS, max_tokens=8, pad_id=0)
    assert encoder.encode(["good"]) == [ids("good")]
    for batch, place in (([tripping], 0), (["good", tripping], None)):
        with pytest.raises(TextUnreadable) as caught:
            encoder.encode(batch)
        assert caught.value.place == place
        assert caught.value.__cause__ is None
        assert "aaa" not in str(caught.value)


def test_half_a_character_cannot_be_read() -> None:
    with pytest.raises(TextUnreadable):
        student_encoder().encode(["\ud800"])


def test_what_interrupts_the_process_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = student_encoder()

    class Interrupted:
        def encode(self, text: str) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(encoder, "_tokenizer", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        encoder.encode(["güt"])


def test_errors_about_texts_are_of_one_family() -> None:
    assert all(issubclass(error, TextError) for error in (WrongKind, TextTooLong, TextUnreadable))


def test_inputs_that_no_graph_takes_are_refused() -> None:
    for inputs, count in ((("pixels",), 1), (RECURRENT_INPUTS, 2), (SIAMESE_INPUTS, 1)):
        with pytest.raises(ValueError, match="no graph takes"):
            Encoder(Tokenizer(models.WordPiece()), inputs=inputs, max_tokens=8, pad_id=0, texts=count)


@pytest.mark.parametrize(("pairs", "most"), [(False, 2), (True, 3)])
def test_a_limit_without_room_for_a_text_is_refused(pairs: bool, most: int) -> None:
    """Such a limit tokenizers would take for none."""
    with pytest.raises(ValueError, match="leaves no room"):
        toy.encoder(Role.TEACHER, toy.tokenizer(special=True), pairs=pairs, max_tokens=most)
    toy.encoder(Role.TEACHER, toy.tokenizer(special=True), pairs=pairs, max_tokens=most + 1)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[]"])
def test_bytes_that_are_no_tokenizer_are_refused_in_one_line(content: bytes) -> None:
    with pytest.raises(InvalidTokenizer, match=r"here/tokenizer\.json: not a usable tokenizer") as caught:
        Encoder.from_bytes(content, "here/tokenizer.json", inputs=RECURRENT_INPUTS, max_tokens=8, pad_id=0)
    assert "\n" not in str(caught.value)
