"""Files in, files out: every row answered as if it were alone, in order; faults are named, and nothing half is left."""

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.bundle.errors import TextUnreadable
from service.bundle.manifest import Task
from service.bundle.runtime import OpenBundle, open_bundle
from service.bundle.tasks import TASKS
from service.offline.errors import InputError, OutputError
from service.offline.lines import LONGEST_LINE
from service.offline.reading import arriving, open_file
from service.offline.records import Answer, Columns, Record
from service.offline.scoring import Scorer, Sizes
from service.offline.writing import FORMATS, Shape, format_of, new_file
from tests.service.offline.tables import ROWS, alone, as_csv, write
from tests.toys.toy import LABELS, WORDS

TEXT = Columns()
SMALL = Sizes(window_rows=7, window_chars=200, batch_rows=3, batch_tokens=30)


@pytest.fixture(scope="module")
def bundle(toy_student: Path) -> OpenBundle:
    return open_bundle(toy_student)


def read(path: Path, columns: Columns = TEXT) -> list[Record]:
    with open_file(path) as source:
        return list(source.records(columns))


@given(texts=st.lists(st.lists(st.sampled_from(WORDS), max_size=20).map(" ".join), max_size=40))
def test_every_row_is_answered_in_order_as_if_it_were_alone(bundle: OpenBundle, texts: list[str]) -> None:
    records = [Record(line, text) for line, text in enumerate(texts)]
    with Scorer(bundle, 2, SMALL) as scorer:
        answers = list(scorer.answers(iter(records), "here"))
    assert [answer.record for answer in answers] == records
    for answer in answers:
        assert answer.scores == pytest.approx(alone(bundle, str(answer.record.text)), abs=1e-6)


def test_no_more_is_read_than_two_windows_ahead(bundle: OpenBundle) -> None:
    read_so_far = 0

    def endless() -> Iterator[Record]:
        nonlocal read_so_far
        while True:
            read_so_far += 1
            yield Record(read_so_far, "good")

    with Scorer(bundle, 2, SMALL) as scorer:
        answers = scorer.answers(endless(), "here")
        for answered in range(1, 100):
            next(answers)
            assert read_so_far <= answered + 2 * SMALL.window_rows


def test_long_texts_make_small_windows(bundle: OpenBundle) -> None:
    records = (Record(line, "good " * 30) for line in range(10))  # 150 characters each, and 200 fill a window
    with Scorer(bundle, 1, SMALL) as scorer:
        assert [len(window) for window in scorer._windows(records)] == [2] * 5


def test_batches_hold_to_their_limits_and_lose_no_row(bundle: OpenBundle) -> None:
    rows = [[5] * (length % 13) for length in range(50)]
    with Scorer(bundle, 1, SMALL) as scorer:
        batches = list(scorer._batches(rows))
    assert sorted(place for batch in batches for place in batch) == list(range(50))
    for batch in batches:
        assert len(batch) <= SMALL.batch_rows
        assert len(batch) * max(1, *(len(rows[place]) for place in batch)) <= SMALL.batch_tokens or len(batch) == 1


def test_a_text_that_cannot_be_read_is_named_by_its_line(bundle: OpenBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = bundle.encoder.encode

    def failing(texts: list[str]) -> object:
        if "poison" in texts:
            raise TextUnreadable("the tokenizer cannot read it", 0 if len(texts) == 1 else None)
        return encode(texts)

    monkeypatch.setattr(bundle.encoder, "encode", failing)
    records = [Record(line, "poison" if line == 5 else "good") for line in range(1, 10)]
    with Scorer(bundle, 1, SMALL) as scorer, pytest.raises(InputError, match=r"^here:5: the tokenizer cannot read it$"):
        list(scorer.answers(records, "here"))


@pytest.mark.parametrize("name", ["rows.csv", "rows.CSV.gz", "rows.tsv", "rows.jsonl", "rows.jsonl.gz"])
def test_all_kinds_of_tables_hold_the_same_rows(tmp_path: Path, name: str) -> None:
    rows = [row for row in ROWS if "tsv" not in name or "\n" not in row[1]]
    text = {
        "csv": as_csv(),
        "tsv": "id\ttext\n" + "".join(f"{number}\t{text}\n" for number, text in rows),
        "jsonl": "\n".join(json.dumps({"id": number, "text": text}) for number, text in rows) + "\n\n",
    }[name.lower().split(".")[1]]
    records = read(write(tmp_path / name, text), Columns(kept=("id",)))
    assert [(*record.kept, record.text) for record in records] == rows


def test_lines_of_text_are_rows_and_empty_ones_too(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.txt", "\ufeffgood\r\n\nbad ✓")
    assert read(path) == [Record(1, "good"), Record(2, ""), Record(3, "bad ✓")]


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_a_cell_may_be_long(tmp_path: Path, ending: str) -> None:
    long = "good " * 40_000
    assert read(write(tmp_path / f"rows.{ending}", f"text\n{long}\n")) == [Record(2, long)]


def test_pairs_come_from_two_columns(tmp_path: Path) -> None:
    table = write(tmp_path / "rows.csv", "b,id,a\ntwo,7,one\n")
    lines = write(tmp_path / "rows.jsonl", '{"b": "two", "id": 7, "a": "one"}\n')
    assert read(table, Columns("a", "b", ("id",))) == [Record(2, ("one", "two"), ("7",))]
    assert read(lines, Columns("a", "b", ("id",))) == [Record(1, ("one", "two"), (7,))]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.csv", "", "a.csv: empty; the first line must name the columns"),
        ("a.csv", "sentence,label\n", "a.csv:1: no column 'text'; there is sentence, label (see --text-column"),
        ("a.csv", "text,b\ngood,1\n\ngood\n", "a.csv:4: 1 columns, but the header has 2"),
        ("a.csv", 'text\n"good\n', "a.csv:2: unexpected end of data"),
        ("a.tsv", "text\ngood\tbad\n", "a.tsv:2: 2 columns, but the header has 1"),
        ("a.csv", "text\ngood\n\udcff\n", "a.csv:3: not UTF-8; convert the file first"),
        ("a.txt", "good\n\udcff\n", "a.txt:2: not UTF-8"),
        ("a.jsonl", '{"text": "a"}\n{"text": 1}\n', "a.jsonl:2: text is int, not a string"),
        ("a.jsonl", '{"text": "a"}\n\n{"text": }\n', "a.jsonl:3: not JSON (Expecting value)"),
        ("a.jsonl", "[" * 100_000, "a.jsonl:1: not JSON"),
        ("a.jsonl", "9" * 10_000, "a.jsonl:1: not JSON"),
        ("a.jsonl", '["a"]\n', "a.jsonl:1: not a JSON object"),
        ("a.jsonl", '{"txt": "a"}\n', "a.jsonl:1: no column 'text'; there is txt"),
        ("a.jsonl", '{"text": "\\ud800"}\n', "a.jsonl:1: text has half a surrogate pair"),
        ("a.txt", "x" * (LONGEST_LINE + 1), "a.txt:1: longer than"),
        ("a.parquet", "", "a.parquet: Parquet is read into a folder of parts; give --out FOLDER/"),
        ("a.orc", "", "a.orc: unknown kind of file; use one of .txt, .csv, .tsv, .jsonl"),
    ],
)
def test_a_malformed_row_is_named_with_file_and_line(tmp_path: Path, name: str, text: str, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        read(write(tmp_path / name, text))
    assert problem in str(caught.value)


def test_a_gzip_file_that_is_cut_short_is_named(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.txt.gz", "good\n" * 1000)
    whole.write_bytes(whole.read_bytes()[:-10])
    with pytest.raises(InputError, match="not a whole gzip file"):
        read(whole)


def test_lines_that_arrive_are_answered_without_waiting_for_more() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as raw:
        groups = arriving(raw)
        os.write(writing, b"one\r\ntwo\nthr")
        assert next(groups) == [Record(1, "one"), Record(2, "two")]
        os.write(writing, b"ee\n\xff")
        assert next(groups) == [Record(3, "three")]
        os.close(writing)
        assert next(groups) == [Record(4, "\ufffd")]
        assert list(groups) == []


def shape(task: Task, top_k: int | None = None, columns: tuple[str, ...] = ("text",)) -> Shape:
    return Shape(columns, LABELS, TASKS[task], top_k)


ANSWER = Answer(Record(1, 'a "b", c'), [0.2, 0.5, 0.3])


@pytest.mark.parametrize(
    ("task", "top_k", "said"),
    [
        (
            Task.SINGLE_LABEL,
            None,
            {"label": LABELS[1], "score": 0.5, "scores": dict(zip(LABELS, ANSWER.scores, strict=True))},
        ),
        (Task.SINGLE_LABEL, 2, {"label": LABELS[1], "score": 0.5, "scores": {LABELS[1]: 0.5, LABELS[2]: 0.3}}),
        (Task.MULTI_LABEL, 1, {"labels": [LABELS[1]], "scores": {LABELS[1]: 0.5}}),
        (Task.REGRESSION, None, {"scores": dict(zip(LABELS, ANSWER.scores, strict=True))}),
    ],
)
def test_a_line_of_json_says_what_the_task_means(task: Task, top_k: int | None, said: dict[str, object]) -> None:
    head, render = FORMATS["jsonl"](shape(task, top_k))
    line = render(ANSWER)
    assert head == ""
    assert json.loads(line) == {"text": 'a "b", c'} | said
    assert line.endswith("}\n")
    assert list(json.loads(line)["scores"]) == list(said["scores"])  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("task", "top_k", "header", "cells"),
    [
        (
            Task.SINGLE_LABEL,
            None,
            ["label", "score", *(f"score_{label}" for label in LABELS)],
            [LABELS[1], "0.5", "0.2", "0.5", "0.3"],
        ),
        (Task.SINGLE_LABEL, 1, ["label", "score"], [LABELS[1], "0.5"]),
        (
            Task.SINGLE_LABEL,
            9,
            ["label", "score", "label_2", "score_2", "label_3", "score_3"],
            [LABELS[1], "0.5", LABELS[2], "0.3", LABELS[0], "0.2"],
        ),
        (Task.MULTI_LABEL, 1, ["labels", "label_1", "score_1"], ['["so \\"so\\""]', LABELS[1], "0.5"]),
        (Task.REGRESSION, None, [f"score_{label}" for label in LABELS], ["0.2", "0.5", "0.3"]),
    ],
)
def test_a_line_of_a_table_says_what_the_task_means(
    task: Task, top_k: int | None, header: list[str], cells: list[str]
) -> None:
    head, render = FORMATS["csv"](shape(task, top_k))
    assert list(csv.reader(io.StringIO(head + render(ANSWER)))) == [["text", *header], ['a "b", c', *cells]]


def test_pairs_and_what_is_kept_come_first() -> None:
    answer = Answer(Record(1, ("one", "two"), (7,)), [0.2, 0.5, 0.3])
    named = shape(Task.SINGLE_LABEL, 1, ("a", "b", "id"))
    assert json.loads(FORMATS["jsonl"](named)[1](answer)) == {
        "a": "one",
        "b": "two",
        "id": 7,
        "label": LABELS[1],
        "score": 0.5,
        "scores": {LABELS[1]: 0.5},
    }
    assert FORMATS["csv"](named)[1](answer).startswith("one,two,7,")


@pytest.mark.parametrize("columns", [("label",), ("text", f"score_{LABELS[0]}"), ("text", "text")])
def test_two_columns_of_one_name_are_refused(columns: tuple[str, ...]) -> None:
    with pytest.raises(OutputError, match=columns[-1]):
        shape(Task.SINGLE_LABEL, None, columns)


@pytest.mark.parametrize(
    ("name", "found"), [("a.csv", "csv"), ("a.csv.gz", "csv"), ("a.jsonl", "jsonl"), ("a", "jsonl")]
)
def test_the_ending_says_what_is_written(name: str, found: str) -> None:
    assert format_of(Path(name)) == found


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt), new_file(path, overwrite=False) as stream:
        stream.write("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with new_file(path, overwrite=False) as stream:
        stream.write("✓\n")
        assert not path.exists()
    assert path.read_text(encoding="utf-8") == "✓\n"


def test_a_file_that_is_there_stays_unless_told(tmp_path: Path) -> None:
    path = write(tmp_path / "out.jsonl", "old")
    with pytest.raises(OutputError, match="already there"), new_file(path, overwrite=False):
        raise AssertionError("it was opened")
    with pytest.raises(InputError), new_file(path, overwrite=True):
        raise InputError("a bad row")
    assert path.read_text() == "old"
    link = tmp_path / "link.jsonl"
    link.symlink_to(path)
    with new_file(link, overwrite=True) as stream:
        stream.write("new")
    assert (path.read_text(), link.is_symlink()) == ("new", True)


def test_a_file_that_comes_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with pytest.raises(OutputError, match="already there"), new_file(path, overwrite=False):
        write(path, "of another")
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("out.jsonl", "of another")]


@pytest.mark.parametrize("place", ["nowhere/out.csv", "folder", "pipe"])
def test_where_no_file_may_be_written_is_said_at_once(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match=place), new_file(tmp_path / place, overwrite=True):
        raise AssertionError("it was opened")
