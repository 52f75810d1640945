"""Words and their tags come out of every kind of file as they went in; what cannot be is refused by file and line."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from export.data import Data
from export.errors import DataError
from export.networks.students import Form
from export.texts.datasets import Columns, Example, Names, read_examples, read_texts
from export.texts.tags import Words, spans_of
from service.bundle.manifest import Task, are_tags

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
NAMES = Names(LABELS, Task.TAGGING)
ROW = [("Ann", "B-PER"), ("Lee", "I-PER"), ("saw", "O"), ("Ulm", "B-LOC"), (".", "O")]
EXAMPLE = Example("Ann Lee saw Ulm .", Words(((0, 3), (4, 7), (8, 11), (12, 15), (16, 17)), (1, 2, 0, 3, 0)))


def read(path: Path, columns: Columns | None = None) -> list[Example]:
    return list(read_examples(str(path), NAMES, columns or Columns()))


def write(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def lines(row: Sequence[tuple[str, str]], between: str = "\t") -> str:
    return "".join(f"{word}{between}{tag}\n" for word, tag in row)


CONLL = {
    "tabs": lines(ROW),
    "spaces": lines(ROW, " "),
    "more columns": lines(ROW, "\tNN\tx\t"),
    "documents": f"-DOCSTART- -X- -X- O\n\n{lines(ROW)}\n",
    "documents without an empty line": f"-DOCSTART-\tO\n{lines(ROW)}-DOCSTART-\tO\n",
    "comments": f"# sent_id = 3\n# text = Ann Lee\n{lines(ROW)}",
    "empty lines": f"\n\n \n{lines(ROW)}\n\t\n\n",
    "Windows": lines(ROW).replace("\n", "\r\n"),
    "no newline at the end": lines(ROW).rstrip("\n"),
}


@pytest.mark.parametrize("text", CONLL.values(), ids=CONLL.keys())
@pytest.mark.parametrize("name", ["a.conll", "a.conll.gz"])
def test_a_sentence_is_read_from_its_lines(tmp_path: Path, name: str, text: str) -> None:
    assert read(write(tmp_path / name, text)) == [EXAMPLE]


def test_a_number_sign_may_be_a_word(tmp_path: Path) -> None:
    (row,) = read(write(tmp_path / "a.conll", "#\tO\nUlm\tB-LOC\n"))
    assert (row.text, row.label) == ("# Ulm", Words(((0, 1), (2, 5)), (0, 3)))


def test_sentences_end_at_an_empty_line(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.conll", f"{lines(ROW)}\n{lines(ROW[:2])}\n\n{lines(ROW[3:])}"))
    assert [row.text for row in found] == ["Ann Lee saw Ulm .", "Ann Lee", "Ulm ."]
    assert list(read_texts(str(tmp_path / "a.conll"))) == [row.text for row in found]


def test_json_rows_have_names_or_places_of_tags(tmp_path: Path) -> None:
    words, tags = (list(part) for part in zip(*ROW, strict=True))
    rows = [{"tokens": words, "ner_tags": tags}, {"tokens": words, "ner_tags": [LABELS.index(tag) for tag in tags]}]
    path = write(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert read(path, Columns("tokens", "ner_tags")) == [EXAMPLE] * 2


def test_a_table_has_words_and_tags_with_spaces_between_them(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "text\tlabel\nAnn  Lee saw Ulm\tB-PER I-PER O B-LOC\n")
    assert read(path) == [Example("Ann  Lee saw Ulm", Words(((0, 3), (5, 8), (9, 12), (13, 16)), (1, 2, 0, 3)))]


def test_the_hubs_places_are_read_in_the_hubs_own_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    theirs = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    words, tags = (list(part) for part in zip(*ROW, strict=True))
    kinds = datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(datasets.ClassLabel(names=theirs)),
        }
    )
    rows = {"tokens": [words], "ner_tags": [[theirs.index(tag) for tag in tags]]}
    (tmp_path / "hub").mkdir()
    datasets.Dataset.from_dict(rows, features=kinds).to_parquet(str(tmp_path / "hub" / "train.parquet"))
    found = read_examples(f"hub:{tmp_path / 'hub'}?split=train", NAMES, Columns("tokens", "ner_tags"))
    assert list(found) == [EXAMPLE]


# What a file says from its third line on, and what is said of it.
REFUSED = {
    "a word alone": ("Ulm\n", "line 3: 1 column; the lines before have 2"),
    "a column more": ("Ulm\tNN\tB-LOC\n", "line 3: 3 columns; the lines before have 2"),
    "an unknown tag": ("Ulm\tB-GPE\n", "line 3: unknown tag 'B-GPE'; the recipe knows O, B-PER, I-PER"),
    "an unknown tag, later": ("in\tO\n\nthe\tO\nUlm\tS-LOC\n", "line 6: unknown tag 'S-LOC'"),
    "nothing goes on": ("in\tO\nUlm\tI-LOC\n", "line 4: I-LOC, but O stands before it; data.repair (--repair)"),
    "another goes on": ("Ann\tB-PER\nUlm\tI-LOC\n", "line 4: I-LOC, but B-PER stands before it"),
    "the first goes on": ("\nUlm\tI-LOC\n", "line 4: I-LOC, but it begins the sentence"),
    "an empty word": ("\tO\n", "line 3: an empty word"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_is_refused_by_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "a.conll", f"we\tO\nsaw\tO\n{text}")
    with pytest.raises(DataError) as refusal:
        read(path)
    assert str(refusal.value).startswith(f"{path}, {message}")


def test_a_first_line_of_one_column_is_no_tagged_word(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.conll, line 2: 1 column; a word and its tag are wanted"):
        read(write(tmp_path / "a.conll", "\nUlm\n"))


JSON_REFUSED = {
    "too few tags": ({"text": ["a", "b"], "label": ["O"]}, "line 1: word 1: 2 words, but 1 tags"),
    "no list": ({"text": ["a"], "label": 3}, "line 1: word 1: the tags are int, not a list"),
    "an unknown place": ({"text": ["a", "b"], "label": [0, 9]}, "line 1: word 2: unknown tag '9'"),
    "no words": ({"text": 3, "label": []}, "line 1: the text is int"),
    "a number as word": ({"text": ["a", 3], "label": ["O", "O"]}, "line 1: the text is list, not a string"),
}


@pytest.mark.parametrize(("row", "message"), JSON_REFUSED.values(), ids=JSON_REFUSED.keys())
def test_a_json_row_is_refused_by_line_and_word(tmp_path: Path, row: dict[str, object], message: str) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps(row))
    with pytest.raises(DataError) as refusal:
        read(path)
    assert str(refusal.value).startswith(f"{path}, {message}")


def test_names_are_relabelled_before_anything_else(tmp_path: Path) -> None:
    row = [("Ulm", "B-GPE"), ("Ost", "I-GPE"), ("in", "O"), ("May", "B-DATE"), ("5", "I-DATE")]
    columns = Columns(relabel={"GPE": "LOC", "DATE": "O"})
    (found,) = read(write(tmp_path / "a.conll", lines(row)), columns)
    assert found.label == Words(((0, 3), (4, 7), (8, 10), (11, 14), (15, 16)), (3, 4, 0, 0, 0))


def test_what_goes_on_with_nothing_is_repaired_where_that_is_asked_for(tmp_path: Path) -> None:
    row = [("Ulm", "I-LOC"), ("Ost", "I-LOC"), ("Ann", "I-PER"), ("in", "O"), ("Ulm", "I-LOC")]
    (found,) = read(write(tmp_path / "a.conll", lines(row)), Columns(repair=True))
    assert isinstance(found.label, Words)
    assert found.label.tags == (3, 4, 1, 0, 3)


words = st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1), min_size=1)


@given(row=words)
def test_each_word_stands_where_its_span_says(row: list[str]) -> None:
    text = " ".join(row)
    assert [text[start:end] for start, end in spans_of(row)] == row
    assert [text[start:end] for start, end in spans_of(text)] == text.split()


@given(rows=st.lists(words.map(lambda row: [(word, LABELS[len(word) % 2]) for word in row]), min_size=1))
def test_conll_keeps_every_word(tmp_path_factory: pytest.TempPathFactory, rows: list[list[tuple[str, str]]]) -> None:
    rows = [row for row in rows if row[0][0] not in ("-DOCSTART-", "#")]
    path = write(tmp_path_factory.mktemp("conll") / "a.conll", "\n".join(map(lines, rows)))
    assert [example.text for example in read(path)] == [" ".join(word for word, _ in row) for row in rows]


def described(**changes: object) -> Data:
    return Data.model_validate({"train": "a.conll", "task": "tagging", "labels": LABELS} | changes)


def test_tags_make_pieces_of_a_row() -> None:
    data = described(relabel={"DATE": "O"}, repair=True)
    assert data.form is Form.PIECES
    assert data.columns == Columns(relabel={"DATE": "O"}, repair=True)


UNFIT = {
    "a pair": ({"pair": "text2"}, "the words of one text are tagged"),
    "no O": ({"labels": LABELS[1:]}, "of tagging they are O and names"),
    "two schemes": ({"labels": (*LABELS, "MISC")}, "of tagging they are O and names"),
    "labels of rows": ({"per_label": 3}, "a row of a tagging task has not one label"),
    "tags of another task": ({"task": "single-label", "repair": True}, "relabel and repair are of tags"),
}


@pytest.mark.parametrize(("changes", "message"), UNFIT.values(), ids=UNFIT.keys())
def test_what_tagging_cannot_mean_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        described(**changes)


def test_tags_are_of_one_scheme() -> None:
    assert are_tags(("O", "PER", "LOC"))
    assert are_tags(LABELS)
    assert not are_tags(("B-PER", "I-PER"))
    assert not are_tags(("O", "B-PER", "PER"))
    assert not are_tags(("O", "B-"))
