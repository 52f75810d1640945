"""The quick way of a tokenizer answers what the tokenizer answers, or leaves the text alone."""

import random
import string
import sys
import threading
import tracemalloc
from array import array
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from service.bundle import wordpiece
from service.bundle.encoder import Encoder
from service.bundle.errors import TextTooLong
from service.bundle.manifest import TRANSFORMER_INPUTS
from service.bundle.wordpiece import LONGEST_WORD, Alphabet, Dictionary, Frame, PlainWords, plain_words
from tests.prove.wordpiece import Source, ascii_words, compare, prove, texts_of
from tests.toys import toy_tokenizers

MODELS = Path(__file__).resolve().parents[3] / "models"
COMMITTED = {file.parts[-3]: Tokenizer.from_file(str(file)) for file in sorted(MODELS.glob("*/*/tokenizer.json"))}
KNOWN = toy_tokenizers.known()
UNKNOWN = toy_tokenizers.unknown()
ALL = {**KNOWN, **COMMITTED}

words = st.sampled_from((*toy_tokenizers.STARTS, *toy_tokenizers.MARKS, "GOOD", "Filmilm", "q" * 101, "unknown"))
between = st.sampled_from((" ", "  ", "\t", "\n", "", ", ", "-", "'s ", "\x00", "\x0b", "\x1c", "\x7f"))
joined = st.lists(st.tuples(words, between), max_size=40).map(lambda pairs: "".join(word + gap for word, gap in pairs))
ascii_texts = st.text(st.characters(max_codepoint=127), max_size=80)
bracketed = st.lists(st.sampled_from((*toy_tokenizers.SPECIAL, "<s>", "[Film]", "[", "]", " ", "a")), max_size=9).map(
    "".join
)
blank = st.text(" \t\n\r\v\f\x1c", max_size=9)
long_words = st.text(string.ascii_letters, min_size=95, max_size=105)
texts = joined | ascii_texts | bracketed | blank | long_words | st.text(max_size=40)
limits = st.none() | st.integers(3, 30)


def quick(tokenizer: Tokenizer, limit: int | None = None, most_words: int = 100) -> PlainWords:
    """The quick way of a tokenizer that must have one, cut at the limit."""
    if limit is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(limit)
    found = plain_words(tokenizer, most_words)
    assert found is not None
    return found


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=30, deadline=None)
@given(batch=st.lists(texts, min_size=1, max_size=8), limit=limits)
@example(batch=["", " ", "\t", "a", "[CLS]", "Good, bad!"], limit=3)
def test_every_text_gets_the_ids_of_the_tokenizer_or_none(name: str, batch: list[str], limit: int | None) -> None:
    row = quick(ALL[name], limit).row
    assert [(text, row(text)) for text in batch if row(text) not in (None, ALL[name].encode(text).ids)] == []


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("limit", [3, 4, 5, 9])
def test_a_text_is_cut_where_the_tokenizer_cuts_it(name: str, limit: int) -> None:
    row = quick(ALL[name], limit).row
    for count in range(14):
        for word in ("a ", "qqa, ", "good.bad! ", "unaffable "):
            assert row(word * count) == ALL[name].encode(word * count).ids


@pytest.mark.parametrize("name", COMMITTED)
@pytest.mark.parametrize("tail", ["é", "[SEP]", "\x00", "\u0301", " good" * 100, "x" * 5000])
def test_of_a_long_text_only_so_much_is_read_as_is_needed(name: str, tail: str) -> None:
    row = quick(COMMITTED[name], 16).row
    for spaced in ("good " * 40, "good, " * 40, "a" * 200 + " b" * 20):
        assert row(spaced + tail) in (None, COMMITTED[name].encode(spaced + tail).ids)
    assert row("good " * 40 + tail) is not None


@pytest.mark.parametrize("name", COMMITTED)
def test_plain_texts_take_the_quick_way(name: str) -> None:
    row = quick(COMMITTED[name], 48).row
    for text in ("", "It's GOOD, isn't it?!", "two\nlines\tand\r\nmore", string.printable[:-6].replace("[", "")):
        assert row(text) == COMMITTED[name].encode(text).ids


@pytest.mark.parametrize("name", COMMITTED)
@pytest.mark.parametrize("text", ["naïve", "“quoted”", "a [SEP] b", "[", "nul\x00", "\x7f", "\ud800"])
def test_other_texts_are_left_to_the_tokenizer(name: str, text: str) -> None:
    assert quick(COMMITTED[name]).row(text) is None


def test_white_space_that_a_tokenizer_keeps_parts_its_words() -> None:
    assert quick(KNOWN["dirty"]).row("a\vb\fa") == KNOWN["dirty"].encode("a\vb\fa").ids
    assert quick(KNOWN["plain"]).row("a\vb\fa") is None  # removed there, and so one word


def test_the_marks_of_added_tokens_are_left_to_the_tokenizer() -> None:
    row = quick(KNOWN["more tokens"]).row
    assert row("good film") is not None
    assert [row(text) for text in ("<s>", "a <", "[film]")] == [None] * 3


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_tokenizer_that_is_not_known_to_read_word_by_word_has_no_quick_way(name: str) -> None:
    assert plain_words(UNKNOWN[name]) is None


def test_a_word_that_the_tokenizer_fails_on_is_left_to_it() -> None:
    tokenizer = UNKNOWN["no token for the unknown"]
    dictionary = Dictionary(tokenizer.pre_tokenizer, tokenizer.model, 10)
    row = PlainWords(dictionary, Alphabet.of(tokenizer, set()), Frame(b"", b"", 8)).row
    assert row("a good zebra") is None
    assert row("a good film") == tokenizer.encode("a good film").ids


@settings(max_examples=60, deadline=None)
@given(batch=st.lists(texts, min_size=1, max_size=12))
def test_an_encoder_answers_as_the_tokenizer_whatever_is_plain_in_a_list(batch: list[str]) -> None:
    tokenizer = KNOWN["a frame"]
    encoder = Encoder(tokenizer, inputs=TRANSFORMER_INPUTS, max_tokens=12, pad_id=0)
    expected = [tokenizer.encode(text) for text in batch]
    assert encoder.encode(batch) == [encoding.ids for encoding in expected]
    too_long = [place for place, encoding in enumerate(expected) if encoding.overflowing]
    if too_long:
        with pytest.raises(TextTooLong) as caught:
            encoder.encode(batch, truncate=False)
        assert caught.value.place == too_long[0]
    else:
        assert encoder.encode(batch, truncate=False) == encoder.encode(batch)


def test_a_full_dictionary_forgets_and_still_answers_the_same() -> None:
    tokenizer = COMMITTED["sst2-bilstm"]
    few, many = quick(tokenizer, 48, most_words=5), quick(tokenizer, 48, most_words=5000)
    source = Source(ascii_words(tokenizer), ())
    for text in islice(texts_of(random.Random(3), source), 500):
        assert few.row(text) == many.row(text)


def test_a_dictionary_learns_each_short_word_once_and_forgets_the_oldest() -> None:
    tokenizer = KNOWN["plain"]
    dictionary = Dictionary(tokenizer.pre_tokenizer, tokenizer.model, 3)
    for word in (b"film", b"q" * LONGEST_WORD, b"q" * (LONGEST_WORD + 1), b"film", b".", b"good"):
        ids = array("i", tokenizer.encode(word.decode()).ids).tobytes()
        assert dictionary[word] == ids
    assert list(dictionary) == [b"q" * LONGEST_WORD, b".", b"good"]


@pytest.mark.parametrize(
    ("name", "marks"), [("plain", string.punctuation), ("marks in runs", ""), ("composed", string.punctuation)]
)
def test_marks_that_stand_alone_are_words_of_their_own(name: str, marks: str) -> None:
    alphabet = Alphabet.of(KNOWN[name], barred=set())
    assert sorted(map(chr, alphabet.apart)) == sorted(marks)


def test_the_dictionary_does_not_outgrow_its_bound() -> None:
    row = quick(KNOWN["no prefix"], most_words=4096).row
    rng, letters = random.Random(5), "abdt019"  # each a piece: as many ids as letters
    row("warm up")
    tracemalloc.start()
    for _ in range(2 * 4096):
        row(" ".join("".join(rng.choices(letters, k=size)) for size in (LONGEST_WORD, LONGEST_WORD + 1)))
    ours = tracemalloc.Filter(True, wordpiece.__file__)  # nothing of other tests' threads
    found = tracemalloc.take_snapshot().filter_traces([ours])
    tracemalloc.stop()
    grown = sum(each.size for each in found.statistics("filename"))
    assert grown <= 4096 * 256  # what the module promises of an entry


def test_threads_share_one_dictionary() -> None:
    tokenizer = COMMITTED["sst2-minilm"]
    words = quick(tokenizer, 48, most_words=7)
    wrong: list[str] = []

    def work(seed: int) -> None:
        source = Source(ascii_words(tokenizer)[: 200 * seed], ())
        for text in islice(texts_of(random.Random(seed), source), 300):
            if words.row(text) not in (None, tokenizer.encode(text).ids):
                wrong.append(text)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 5)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # or they would hardly ever meet
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)
    assert wrong == []


def test_the_proof_finds_nothing_in_a_small_run() -> None:
    tally = prove(MODELS, ("A real line, isn't it?", "another\tone [SEP]"), 2_000, "7")
    assert (tally.texts, tally.mismatches, tally.shown) == (2_000, 0, [])
    assert tally.quick > 500


def test_the_proof_sees_what_is_not_the_same() -> None:
    cased, uncased = KNOWN["cased"], KNOWN["plain"]
    tally = compare("wrong", quick(uncased), cased, iter(["the film", "The film", "é"]))
    assert (tally.texts, tally.quick, tally.mismatches) == (3, 2, 1)
    assert tally.shown == ["wrong: 'The film'"]
