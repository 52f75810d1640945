"""Documents become sentences of the task's shape, one after the other."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from export.errors import DataError
from export.texts.sentences import Tally, TextSource, shaped_rows, shaped_texts, treebank

DOCUMENTS = (
    "It was late. Nobody came!<br /><br />We   left early.",
    "A door.",
    "Was it good? It was, and then it was not, and then it was over.",
)


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "documents.txt"
    path.write_text("".join(f"{document}\n" for document in DOCUMENTS))
    return str(path)


def shaped(source: str, **rules: object) -> list[str]:
    return list(shaped_texts(TextSource.model_validate({"source": source, **rules})))


def test_documents_come_as_they_are_unless_asked_otherwise(source: str) -> None:
    assert shaped(source) == list(DOCUMENTS)


def test_documents_are_cut_into_sentences_and_markup_ends_one(source: str) -> None:
    assert shaped(source, sentences=True, limit=5) == [
        "It was late.",
        "Nobody came!",
        "We left early.",
        "A door.",
        "Was it good?",
    ]


def test_documents_are_skipped_and_counted_before_they_are_cut(source: str) -> None:
    assert shaped(source, skip=1, documents=1) == ["A door."]
    assert shaped(source, skip=3) == []
    assert shaped(source, documents=1, sentences=True, limit=2) == ["It was late.", "Nobody came!"]


def test_short_and_long_texts_are_left_out(source: str) -> None:
    assert shaped(source, sentences=True, min_words=3, max_words=3) == [
        "It was late.",
        "We left early.",
        "Was it good?",
    ]


def test_no_text_is_too_long_unless_asked_otherwise(tmp_path: Path) -> None:
    review = "word " * 900 + "end"
    path = tmp_path / "reviews.txt"
    path.write_text(f"{review}\nshort\n")
    assert shaped(str(path)) == [review, "short"]
    assert shaped(str(path), max_words=900) == ["short"]


def test_texts_that_do_not_fit_are_counted_too(source: str, tmp_path: Path) -> None:
    tally = Tally()
    assert len(list(shaped_texts(TextSource(source=source, sentences=True, max_words=3), tally))) == 5
    assert tally.read == 6
    path = tmp_path / "pairs.tsv"
    path.write_text("text\tother\na b\tc\na\tb\n")
    tally = Tally()
    assert list(shaped_rows(TextSource(source=str(path), pair="other", min_words=2), tally)) == []
    assert tally.read == 2


def test_words_are_counted_and_not_spaces(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": ""}\n{"text": "   "}\n{"text": "one"}\n{"text": "one\\t two"}\n')
    assert shaped(str(path)) == ["one", "one\t two"]
    assert shaped(str(path), min_words=2) == ["one\t two"]


def test_treebank_words_are_split_and_lower_case() -> None:
    assert treebank("It's GREAT, isn't it?") == "it 's great , is n't it ?"
    assert treebank("\u201cSo\u201d, she said\u2019s") == treebank('"So", she said\'s')
    assert treebank("") == ""


def test_texts_are_shaped_when_asked(source: str) -> None:
    assert shaped(source, skip=1, documents=1, treebank=True) == ["a door ."]


def test_texts_are_streamed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "first"}\n' * 9000 + "no json\n")
    texts = shaped_texts(TextSource(source=str(path)))
    assert next(texts) == "first"
    with pytest.raises(DataError, match="line 9001"):
        list(texts)


def test_bounds_that_no_text_can_meet_are_refused() -> None:
    with pytest.raises(ValidationError, match="min_words must not exceed max_words"):
        TextSource(source="a.txt", min_words=5, max_words=4)


@given(text=st.text())
def test_a_treebank_text_has_single_spaces_and_no_capitals(text: str) -> None:
    shaped = treebank(text)
    assert "  " not in shaped
    assert shaped == shaped.strip(" ")
    assert shaped == shaped.lower()
