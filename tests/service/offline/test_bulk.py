"""Big files: every row once, whatever was changed, killed or left behind in between."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bench.process import PROC
from service.bundle.errors import MissingFile
from service.bundle.runtime import OpenBundle, open_bundle
from service.offline.bulk.crew import WorkerLost, run_here
from service.offline.bulk.ledger import Ledger
from service.offline.bulk.running import Place, begin
from service.offline.errors import InputError, OutputError
from service.offline.records import Columns
from tests.service.offline.bulking import (
    TEXT,
    WITH_ID,
    asked,
    contents,
    in_this_process,
    parts,
    rejects,
    rows,
    scored,
    table,
)
from tests.service.offline.tables import ROWS, alone, as_csv, write
from tests.toys.toy import LABELS


@given(done=st.sets(st.integers(0, 3)), spoilt=st.sets(st.integers(0, 3)))
@settings(max_examples=25)
def test_a_run_goes_on_from_any_parts_and_ends_the_same(
    toy_student: Path, thirteen_rows: Path, tmp_path_factory: pytest.TempPathFactory, done: set[int], spoilt: set[int]
) -> None:
    """Some parts are complete, and of some of these the file is gone, was cut short, or lacks its receipt."""
    request, out = asked(toy_student, [thirteen_rows], WITH_ID), tmp_path_factory.mktemp("out") / "scored"
    with begin(request, Place(out, toy_student)) as run:
        for _ in in_this_process(run.job, sorted(done)):
            pass
    for place, number in enumerate(sorted(done & spoilt)):
        part = Ledger(out, "parquet").part(number)
        if place == 0:
            part.write_bytes(part.read_bytes()[:-1])
        elif place == 1:
            part.unlink()
        else:
            (out / "_parts" / f"{number:05}.json").unlink()
    with begin(request, Place(out, toy_student)) as run:
        assert {receipt.number for receipt in run.done} == done - spoilt
        again = [receipt.number for receipt in run.receipts(in_this_process)]
        total = run.finish()
    assert again == sorted(set(range(4)) - (done - spoilt))
    assert (total.read, total.scored, total.rejected) == (13, 13, 0)
    assert [row["id"] for row in rows(out)] == list(range(13))
    assert json.loads((out / "_SUCCESS").read_text()) == {"rows": 13, "scored": 13, "rejected": 0, "parts": 4}
    assert not (out / ".staging").exists()


@given(bad=st.lists(st.booleans(), max_size=15), kind=st.sampled_from(["jsonl", "csv", "parquet"]))
@settings(max_examples=25)
def test_every_row_is_scored_or_among_the_rejects(
    toy_student: Path, tmp_path_factory: pytest.TempPathFactory, bad: list[bool], kind: str
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    lines = [json.dumps({"id": place, "text": None if wrong else "good"}) for place, wrong in enumerate([False, *bad])]
    request = asked(toy_student, [write(folder / "in.jsonl", "\n".join(lines))], WITH_ID, kind)
    total = scored(request, Place(folder / "out", toy_student, rejects=True))
    assert total.read == len(lines) == total.scored + total.rejected
    good = [int(str(row["id"])) for row in rows(folder / "out")]
    refused = [row["row"] for row in rejects(folder / "out")]
    assert good == [place for place, wrong in enumerate([False, *bad]) if not wrong]
    assert refused == [place + 1 for place, wrong in enumerate([False, *bad]) if wrong]


def test_the_first_bad_row_ends_it_and_may_be_set_aside_after_all(toy_student: Path, tmp_path: Path) -> None:
    values = ["good"] * 9 + [None, "bad"]
    bad = table(tmp_path / "in.parquet", {"text": values})
    request = asked(toy_student, [bad])
    with pytest.raises(InputError, match=rf"^{bad}: row 10: text is null$"):
        scored(request, Place(tmp_path / "out", toy_student))
    assert sorted(contents(tmp_path / "out")) == ["part-00000.parquet", "part-00001.parquet"]
    before = {path: path.stat().st_ino for path in parts(tmp_path / "out")}
    total = scored(request, Place(tmp_path / "out", toy_student, rejects=True))
    assert (total.scored, total.rejected) == (10, 1)
    assert {path: path.stat().st_ino for path in before} == before


def test_a_text_that_the_tokenizer_refuses_is_a_bad_row(zoo: Path, tmp_path: Path) -> None:
    """A pair for a model of single texts is refused by it, whatever stands in it."""
    request = asked(zoo / "toy" / "1", [table(tmp_path / "in.parquet", {"text": ["a"], "b": ["b"]})])
    pairs = request.model_copy(update={"pair": "b"})
    total = scored(pairs, Place(tmp_path / "out", zoo / "toy" / "1", rejects=True))
    assert (total.scored, total.rejected) == (0, 1)
    assert rejects(tmp_path / "out")[0]["problem"] == "this model reads single texts"
    assert rows(tmp_path / "out") == []


def test_pairs_come_from_two_columns(zoo: Path, tmp_path: Path) -> None:
    same = open_bundle(zoo / "same" / "1")
    source = table(tmp_path / "in.parquet", {"b": ["a film", None], "a": ["good", "bad"]})
    request = asked(zoo / "same" / "1", [source], Columns("a", "b"))
    total = scored(request, Place(tmp_path / "out", zoo / "same" / "1", rejects=True))
    assert (total.scored, total.rejected) == (1, 1)
    (row,) = rows(tmp_path / "out")
    wanted = same.scores(same.classify([("good", "a film")]))[0].tolist()
    assert [row[f"score_{label}"] for label in LABELS] == pytest.approx(wanted, abs=1e-6)
    assert rejects(tmp_path / "out")[0]["problem"] == "b is null"


def test_a_run_that_asks_otherwise_is_refused_in_one_line(
    toy_student: Path, thirteen_rows: Path, tmp_path: Path
) -> None:
    out, place = tmp_path / "out", Place(tmp_path / "out", toy_student)
    request = asked(toy_student, [thirteen_rows], WITH_ID)
    scored(request, place)
    before = contents(out)
    for change, said in (
        ({"kept": ()}, "kept ('id',), now ()"),
        ({"precision": "fast"}, "precision exact, now fast"),
        ({"seal": "0" * 64}, "now 000"),
        ({"part_rows": 5}, "part_rows 4, now 5"),
        ({"top_k": 1}, "top_k unset, now 1"),
        ({"files": ()}, "in.parquet was one of the input files"),
    ):
        with pytest.raises(OutputError) as caught:
            scored(request.model_copy(update=change), place)
        assert said in str(caught.value)
        assert str(caught.value).endswith("ask the same, or begin anew with --overwrite")
    assert contents(out) == before


def test_an_input_that_has_changed_is_refused(toy_student: Path, tmp_path: Path) -> None:
    place = Place(tmp_path / "out", toy_student)
    file = write(tmp_path / "in.csv", "text\ngood\n")
    request = asked(toy_student, [file])
    scored(request, place)
    os.utime(file, (1, 1))
    with pytest.raises(OutputError, match=r"in.csv has changed since"):
        scored(asked(toy_student, [file]), place)
    with pytest.raises(InputError, match=r"in.csv: has changed since the run began"):
        scored(request, Place(tmp_path / "other", toy_student))
    scored(asked(toy_student, [file]), Place(tmp_path / "out", toy_student, overwrite=True))


def test_overwriting_removes_what_a_run_wrote_and_nothing_else(
    toy_student: Path, thirteen_rows: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    scored(asked(toy_student, [thirteen_rows], part_rows=2), Place(out, toy_student))
    assert len(parts(out)) == 7
    scored(asked(toy_student, [thirteen_rows], part_rows=9), Place(out, toy_student, overwrite=True))
    assert len(parts(out)) == 2
    (tmp_path / "mine").mkdir()
    write(tmp_path / "mine" / "part-of-a-diary.txt", "dear diary")
    with pytest.raises(OutputError, match="not empty, and not of an earlier run"):
        scored(asked(toy_student, [thirteen_rows]), Place(tmp_path / "mine", toy_student, overwrite=True))
    assert len(list((tmp_path / "mine").iterdir())) == 1


def test_a_part_too_many_is_seen_at_the_end(toy_student: Path, thirteen_rows: Path, tmp_path: Path) -> None:
    request, place = asked(toy_student, [thirteen_rows]), Place(tmp_path / "out", toy_student)
    scored(request, place)
    write(tmp_path / "out" / "part-00004.parquet", "of somebody else")
    with pytest.raises(OutputError, match="5 parts with 13 rows, and there must be 4 with 13"):
        scored(request, place)


def test_two_runs_do_not_write_at_once(toy_student: Path, thirteen_rows: Path, tmp_path: Path) -> None:
    request, place = asked(toy_student, [thirteen_rows]), Place(tmp_path / "out", toy_student)
    with begin(request, place), pytest.raises(OutputError, match="another run is writing there"):
        scored(request, place)
    scored(request, place)


def test_another_bundle_at_its_place_is_refused(
    toy_student: Path, toy_teacher: Path, thirteen_rows: Path, tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match="not the bundle that the run began with"):
        scored(asked(toy_student, [thirteen_rows]), Place(tmp_path / "out", toy_teacher))


@pytest.mark.parametrize("name", ["in.csv", "in.csv.gz", "in.jsonl", "in.txt"])
def test_files_of_lines_may_be_cut_anywhere(
    toy_student: Path, tmp_path: Path, toy_bundle: OpenBundle, name: str
) -> None:
    text = {
        "csv": as_csv(),
        "jsonl": "".join(json.dumps({"text": text}) + "\n\n" for _, text in ROWS),
        "txt": "".join(text.replace("\n", " ") + "\n" for _, text in ROWS),
    }[name.split(".")[1]]
    file = write(tmp_path / name, text)
    found = []
    for part_rows in (1, 2, 100):
        out = tmp_path / str(part_rows)
        scored(asked(toy_student, [file], TEXT, "jsonl", part_rows), Place(out, toy_student))
        found.append(rows(out))
    wanted = [text if "txt" not in name else text.replace("\n", " ") for _, text in ROWS]
    for each in found:
        assert [row["text"] for row in each] == wanted
        for row in each:
            assert list(row["scores"].values()) == pytest.approx(alone(toy_bundle, str(row["text"])), abs=1e-6)  # type: ignore[attr-defined]


def test_a_process_that_is_killed_is_named_and_the_rest_is_done_later(
    toy_student: Path, thirteen_rows: Path, tmp_path: Path
) -> None:
    def children() -> set[int]:
        return {int(pid) for pid in (PROC / f"{os.getpid()}/task/{os.getpid()}/children").read_text().split()}

    request, place = asked(toy_student, [thirteen_rows], WITH_ID, part_rows=1), Place(tmp_path / "out", toy_student)
    before = children()
    with begin(request, place) as run, pytest.raises(WorkerLost, match=r"SIGKILL.*the same command goes on"):
        for _ in run.receipts(lambda job, numbers: run_here(job, numbers, 1)):
            for pid in children() - before:
                if b"spawn_main" in (PROC / f"{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
    with begin(request, place) as run:
        assert 0 < len(run.done) < 13
        assert len(list(run.receipts(lambda job, numbers: run_here(job, numbers, 2)))) == 13 - len(run.done)
        run.finish()
    assert [row["id"] for row in rows(tmp_path / "out")] == list(range(13))


def test_a_process_that_cannot_even_begin_says_why(thirteen_rows: Path, toy_student: Path, tmp_path: Path) -> None:
    request, place = asked(toy_student, [thirteen_rows]), Place(tmp_path / "out", toy_student)
    with begin(request, place) as run, pytest.raises(MissingFile, match="nowhere"):
        list(run_here(replace(run.job, bundle=tmp_path / "nowhere"), [0], 1))


def test_a_folder_that_lacks_a_part_is_not_called_complete(
    toy_student: Path, thirteen_rows: Path, tmp_path: Path
) -> None:
    request, place = asked(toy_student, [thirteen_rows]), Place(tmp_path / "out", toy_student)
    scored(request, place)
    parts(tmp_path / "out")[2].unlink()
    with begin(request, place):
        assert not (tmp_path / "out" / "_SUCCESS").exists()


def test_an_input_without_rows_is_done_at_once(toy_student: Path, tmp_path: Path) -> None:
    empty = [write(tmp_path / "a.csv", "text\n"), write(tmp_path / "b.csv", "text\ngood\n")]
    total = scored(asked(toy_student, empty), Place(tmp_path / "out", toy_student))
    assert (total.read, len(rows(tmp_path / "out"))) == (1, 1)
    assert scored(asked(toy_student, empty[:1]), Place(tmp_path / "none", toy_student)).read == 0
