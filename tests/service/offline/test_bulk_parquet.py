"""Parquet in pieces: any row groups, any parts, any types of strings; columns that are kept keep their types."""

import datetime
import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.bundle.manifest import Precision, Role, Task
from service.bundle.runtime import OpenBundle, open_bundle
from service.offline.bulk import parquet
from service.offline.bulk.plan import InputFile, spans_of
from service.offline.bulk.running import Place
from service.offline.errors import InputError
from service.offline.records import Columns
from tests.service.offline.bulking import WITH_ID, asked, parts, rejects, rows, scored, table
from tests.service.offline.tables import alone, write
from tests.toys.toy import LABELS, TAGS, publish

FOLDERS = {
    Task.SINGLE_LABEL: "toy/1",
    Task.MULTI_LABEL: "tags/1",
    Task.REGRESSION: "stars/1",
    Task.EMBEDDING: "vectors/1",
}

texts = st.lists(st.one_of(st.none(), st.text(max_size=5)), max_size=40)


@pytest.fixture(scope="module")
def bundle(toy_student: Path) -> OpenBundle:
    return open_bundle(toy_student)


@given(values=texts, group=st.integers(1, 9), part_rows=st.integers(1, 9), block=st.integers(1, 9))
def test_the_pieces_are_the_whole(values: list[str | None], group: int, part_rows: int, block: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "BLOCK_ROWS", block)
        path = table(Path(folder) / "in.parquet", {"id": range(len(values)), "text": values}, group, text=pa.string())
        file = InputFile.of(path, "parquet")
        good: list[tuple[int, object, object]] = []
        bad = []
        with parquet.open_parquet(file, WITH_ID) as source:
            for span in spans_of(0, 0, source.rows, part_rows):
                blocks = list(source.blocks(span, plain=True))
                assert sum(each.read for each in blocks) == span.rows
                for each in blocks:
                    good += list(zip(each.rows, each.texts, list(each.own[1]), strict=True))  # type: ignore[arg-type]
                    bad += [(reject.row, reject.problem) for reject in each.rejects]
    wanted = [(row, value, row - 1) for row, value in enumerate(values, start=1)]
    assert good == [each for each in wanted if each[1] is not None]
    assert bad == [(row, "text is null") for row, value, _ in wanted if value is None]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str
)
def test_texts_may_be_strings_of_any_kind(toy_student: Path, tmp_path: Path, bundle: OpenBundle, kind: object) -> None:
    said = ["good", "a bad film", "good", None, "gut ✓"]
    source = table(tmp_path / "in.parquet", {"text": said, "id": [3, 1, 4, 1, 5]}, 2, text=kind)
    scored(asked(toy_student, [source], WITH_ID), Place(tmp_path / "out", toy_student, rejects=True))
    found = rows(tmp_path / "out")
    assert [(row["text"], row["id"]) for row in found] == [("good", 3), ("a bad film", 1), ("good", 4), ("gut ✓", 5)]
    for row in found:
        assert [row[f"score_{label}"] for label in LABELS] == pytest.approx(alone(bundle, str(row["text"])), abs=1e-6)
    assert rejects(tmp_path / "out") == [{"file": str(source), "row": 4, "line": None, "problem": "text is null"}]


def test_what_is_kept_keeps_its_type(toy_student: Path, tmp_path: Path) -> None:
    own = {
        "when": pa.array([datetime.datetime(2024, 1, 2), None], pa.timestamp("us")),
        "tags": pa.array([["a", "b"], []], pa.list_(pa.string())),
        "of": pa.array([{"x": 1}, {"x": None}], pa.struct([("x", pa.int16())])),
        "cost": pa.array([1, 2], pa.decimal128(9, 2)),
        "group": pa.array(["a", "b"]).dictionary_encode(),
        "raw": pa.array([b"\xff", b""]),
    }
    source = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": ["good", "bad"], **own, "unread": [0, 0]}), source)
    request = asked(toy_student, [source], Columns(kept=tuple(own)), part_rows=1)
    scored(request, Place(tmp_path / "out", toy_student))
    found = pa.concat_tables([pq.read_table(part) for part in parts(tmp_path / "out")])
    assert found.select(list(own)).to_pylist() == pa.table(own).to_pylist()
    assert [found.schema.field(name).type for name in own] == [array.type for array in own.values()]
    assert "unread" not in found.column_names
    with pytest.raises(InputError, match=r"column raw \(binary\) cannot be written as text"):
        scored(request.model_copy(update={"format": "jsonl"}), Place(tmp_path / "lines", toy_student))
    plain = asked(toy_student, [source], Columns(kept=("when", "tags", "of", "cost", "group")), "jsonl")
    scored(plain, Place(tmp_path / "plain", toy_student))
    assert rows(tmp_path / "plain")[0] | {"score": 0, "scores": 0, "label": 0} == {
        "text": "good",
        "when": "2024-01-02 00:00:00.000000",
        "tags": ["a", "b"],
        "of": {"x": 1},
        "cost": "1.00",
        "group": "a",
        "label": 0,
        "score": 0,
        "scores": 0,
    }


def test_a_string_that_is_no_text_is_a_bad_row(toy_student: Path, tmp_path: Path) -> None:
    broken = pa.Array.from_buffers(pa.string(), 3, pa.array([b"good", b"\xff\xfe", b"bad"]).buffers())
    pq.write_table(pa.table({"text": broken, "id": [1, 2, 3]}), tmp_path / "in.parquet")
    for kind in ("parquet", "jsonl"):
        request = asked(toy_student, [tmp_path / "in.parquet"], WITH_ID, kind)
        total = scored(request, Place(tmp_path / kind, toy_student, rejects=True))
        assert (total.read, total.scored, total.rejected) == (3, 2, 1)
        assert [row["id"] for row in rows(tmp_path / kind)] == [1, 3]
        assert rejects(tmp_path / kind)[0]["problem"] == "not UTF-8; convert the file first"


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"body": ["a"]}, "no column 'text'; there is body"),
        ({"text": [1], "id": [1]}, "column text is int64, not strings"),
        ({"text": ["a"], "id": ["x"]}, "column id is string, but int64 in"),
    ],
)
def test_files_that_do_not_fit_are_refused_and_nothing_is_left(
    toy_student: Path, tmp_path: Path, columns: dict[str, object], problem: str
) -> None:
    first = table(tmp_path / "a.parquet", {"text": ["a"], "id": [1]})
    second = table(tmp_path / "b.parquet", columns)
    with pytest.raises(InputError, match=problem):
        scored(asked(toy_student, [first, second], WITH_ID), Place(tmp_path / "out", toy_student))
    assert not (tmp_path / "out").exists()


def test_what_is_no_parquet_is_named(toy_student: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "in.parquet", "PAR1 nothing")
    with pytest.raises(InputError, match=r"in.parquet: not a whole Parquet file \("):
        scored(asked(toy_student, [source]), Place(tmp_path / "out", toy_student))


@pytest.mark.parametrize("top_k", [None, 1, 2])
@pytest.mark.parametrize("task", [*FOLDERS, Task.TAGGING])
def test_a_part_of_any_task_says_in_parquet_what_it_says_in_csv(
    zoo: Path, tmp_path: Path, task: Task, top_k: int | None
) -> None:
    folder = (
        zoo / FOLDERS[task] if task in FOLDERS else publish(tmp_path, "ner", "1", Role.STUDENT, task=task, labels=TAGS)
    )
    source = table(tmp_path / "in.parquet", {"text": ["a good film", "", "bad", "Berlin so so"] * 3})
    found = {}
    for kind in ("parquet", "csv", "jsonl"):
        request = asked(folder, [source], kind=kind).model_copy(update={"top_k": top_k, "precision": Precision.EXACT})
        scored(request, Place(tmp_path / kind, folder))
        found[kind] = rows(tmp_path / kind)
    assert [list(row) for row in found["parquet"]] == [list(row) for row in found["csv"]]
    for ours, cells, line in zip(found["parquet"], found["csv"], found["jsonl"], strict=True):
        for name, value in ours.items():
            assert cells[name] == str(value) or same(cells[name], value)
        for name in {"text", "label", "score", "labels", "entities"} & line.keys():
            assert line[name] == ours[name]


def same(cell: object, value: object) -> bool:
    """A cell of lists is JSON."""
    return bool(json.loads(str(cell)) == value)
