"""Big files: every row once, whatever was changed, killed or left behind in between."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.main import get_command

from service.bench.process import PROC
from service.bundle.runtime import OpenBundle, open_bundle
from service.commands.cli import app
from service.commands.terminal import Misused
from service.offline.bulk.crew import WorkerLost, run_here
from service.offline.bulk.ledger import Ledger
from service.offline.bulk.running import Place, begin
from service.offline.errors import InputError, OfflineError, OutputError
from service.offline.reading import Columns
from tests.bulking import TEXT, WITH_ID, asked, in_this_process, parts, rejects, rows, scored, table
from tests.running import PATIENCE_S, ROOT, command, environment
from tests.tables import ROWS, alone, as_csv, write
from tests.toy import LABELS


@pytest.fixture(scope="module")
def bundle(toy_student: Path) -> OpenBundle:
    return open_bundle(toy_student)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirteen rows: three parts of four, and one of one."""
    columns = {"id": range(13), "text": [f"good {'so ' * number}" for number in range(13)]}
    return table(tmp_path_factory.mktemp("source") / "in.parquet", columns)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in parts(folder)}


@given(done=st.sets(st.integers(0, 3)), spoilt=st.sets(st.integers(0, 3)))
@settings(max_examples=25)
def test_a_run_goes_on_from_any_parts_and_ends_the_same(
    toy_student: Path, source: Path, tmp_path_factory: pytest.TempPathFactory, done: set[int], spoilt: set[int]
) -> None:
    """Some parts are complete, and of some of these the file is gone, was cut short, or lacks its receipt."""
    request, out = asked(toy_student, [source], WITH_ID), tmp_path_factory.mktemp("out") / "scored"
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


def test_a_run_that_asks_otherwise_is_refused_in_one_line(toy_student: Path, source: Path, tmp_path: Path) -> None:
    out, place = tmp_path / "out", Place(tmp_path / "out", toy_student)
    request = asked(toy_student, [source], WITH_ID)
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


def test_overwriting_removes_what_a_run_wrote_and_nothing_else(toy_student: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    scored(asked(toy_student, [source], part_rows=2), Place(out, toy_student))
    assert len(parts(out)) == 7
    scored(asked(toy_student, [source], part_rows=9), Place(out, toy_student, overwrite=True))
    assert len(parts(out)) == 2
    (tmp_path / "mine").mkdir()
    write(tmp_path / "mine" / "part-of-a-diary.txt", "dear diary")
    with pytest.raises(OutputError, match="not empty, and not of an earlier run"):
        scored(asked(toy_student, [source]), Place(tmp_path / "mine", toy_student, overwrite=True))
    assert len(list((tmp_path / "mine").iterdir())) == 1


def test_a_part_too_many_is_seen_at_the_end(toy_student: Path, source: Path, tmp_path: Path) -> None:
    request, place = asked(toy_student, [source]), Place(tmp_path / "out", toy_student)
    scored(request, place)
    write(tmp_path / "out" / "part-00004.parquet", "of somebody else")
    with pytest.raises(OutputError, match="5 parts with 13 rows, and there must be 4 with 13"):
        scored(request, place)


def test_two_runs_do_not_write_at_once(toy_student: Path, source: Path, tmp_path: Path) -> None:
    request, place = asked(toy_student, [source]), Place(tmp_path / "out", toy_student)
    with begin(request, place), pytest.raises(OutputError, match="another run is writing there"):
        scored(request, place)
    scored(request, place)


def test_another_bundle_at_its_place_is_refused(
    toy_student: Path, toy_teacher: Path, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match="not the bundle that the run began with"):
        scored(asked(toy_student, [source]), Place(tmp_path / "out", toy_teacher))


@pytest.mark.parametrize("name", ["in.csv", "in.csv.gz", "in.jsonl", "in.txt"])
def test_files_of_lines_may_be_cut_anywhere(toy_student: Path, tmp_path: Path, bundle: OpenBundle, name: str) -> None:
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
            assert list(row["scores"].values()) == pytest.approx(alone(bundle, str(row["text"])), abs=1e-6)  # type: ignore[attr-defined]


def test_a_process_that_is_killed_is_named_and_the_rest_is_done_later(
    toy_student: Path, source: Path, tmp_path: Path
) -> None:
    def children() -> set[int]:
        return {int(pid) for pid in (PROC / f"{os.getpid()}/task/{os.getpid()}/children").read_text().split()}

    request, place = asked(toy_student, [source], WITH_ID, part_rows=1), Place(tmp_path / "out", toy_student)
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


# --- the command


def classified(toy_models: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    return command("classify", "--models", str(toy_models), *map(str, arguments))


def test_a_parquet_file_is_classified_into_a_folder(
    toy_models: Path, tmp_path: Path, source: Path, bundle: OpenBundle
) -> None:
    flags = (source, "--keep", "id", "--part-rows", "5", "--out", f"{tmp_path}/scored/")
    done = classified(toy_models, *flags)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"13 rows: 13 scored; 3 parts in {tmp_path}/scored\n"
    found = rows(tmp_path / "scored")
    assert [row["id"] for row in found] == list(range(13))
    for row in found:
        scores = [row[f"score_{label}"] for label in LABELS]
        assert scores == pytest.approx(alone(bundle, str(row["text"])), abs=1e-6)
        assert (row["label"], row["score"]) == (LABELS[scores.index(max(scores))], max(scores))  # type: ignore[type-var]
    before = contents(tmp_path / "scored")
    again = classified(toy_models, *flags)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert contents(tmp_path / "scored") == before
    other = classified(toy_models, *flags, "--top-k", "1")
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)


def test_folders_and_patterns_name_several_files_and_bad_rows_are_set_aside(toy_models: Path, tmp_path: Path) -> None:
    for place in range(3):
        (tmp_path / "in").mkdir(exist_ok=True)
        write(tmp_path / "in" / f"{place}.csv", f"text,id\ngood,{place}\nbad\nso,{place}5\n")
    for what, out in ((tmp_path / "in", "a/"), (f"{tmp_path}/in/*.csv", "b/")):
        done = classified(toy_models, what, "--keep", "id", "--bad-rows", "reject", "--out", f"{tmp_path}/{out}")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("9 rows: 6 scored, 3 rejected; 3 parts in ")
        assert [row["id"] for row in rows(tmp_path / out)] == ["0", "05", "1", "15", "2", "25"]
        assert [(Path(str(row["file"])).name, row["row"], row["line"]) for row in rejects(tmp_path / out)] == [
            (f"{place}.csv", 2, 3) for place in range(3)
        ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("IN.csv", "--out", "OUT/", "--format", "xml"), "--format xml: unknown; use one of jsonl, csv, parquet"),
        (("IN.csv", "--out", "OUT/", "--engine", "spark"), "--engine spark: unknown; use one of local, ray"),
        (("IN.csv", "--out", "OUT/", "--bad-rows", "skip"), "--bad-rows skip: unknown; use one of stop, reject"),
        (("IN.csv", "--out", "OUT/", "--ray-address", "auto"), "--ray-address is for --engine ray"),
        (("IN.csv", "--out", "OUT/", "--file", "IN.csv"), "files and --file: give one of them"),
        (("IN.csv", "IN.csv", "--out", "OUT/"), "IN.csv: named twice"),
        (("--out", "OUT/"), "--out FOLDER/ is for files"),
        (("NO.csv", "--out", "OUT/"), "NO.csv: no such file"),
        (("IN.csv", "--out", "NOWHERE/OUT/"), "make the one that it is to be in first"),
        (("IN.csv", "--out", "OUT/", "--keep", "score"), "score: the answer has a column of that name"),
        (("IN.csv", "--out", "OUT/", "--pair-column", "id"), "toy reads single texts"),
        (("IN.csv", "--out", "OUT/", "--text-column", "body"), "IN.csv:1: no column 'body'"),
        (("IN.csv", "--out", "OUT/"), "IN.csv:3: 1 columns, but the header has 2"),
        (("IN.csv",), "IN.csv: a file, not a text; give --out FOLDER/, or name it with --file"),
        (("good", "--engine", "ray"), "are for big files: give --out FOLDER/"),
        (("--file", "IN.parquet", "--out", "OUT.jsonl"), "Parquet is read into a folder of parts"),
    ],
)
def test_a_mistake_is_one_line(toy_models: Path, tmp_path: Path, flags: tuple[str, ...], message: str) -> None:
    write(tmp_path / "IN.csv", "id,text\n1,good\n2\n")
    placed = [f"{tmp_path}/{flag}" if flag.isupper() or "." in flag else flag for flag in flags]
    with pytest.raises((Misused, OfflineError)) as caught:
        get_command(app).main(["classify", "--models", str(toy_models), *placed], standalone_mode=False)
    assert message in str(caught.value)
    assert parts(tmp_path / "OUT") == []


def test_without_pyarrow_a_line_says_what_to_install_and_tables_do_without(toy_models: Path, tmp_path: Path) -> None:
    write(tmp_path / "in.csv", as_csv())
    table(tmp_path / "in.parquet", {"text": ["good"]})
    blocked = (
        "import sys, importlib.util as u; found = u.find_spec; sys.modules['pyarrow'] = None; "
        "u.find_spec = lambda name, *rest: None if name == 'pyarrow' else found(name, *rest); "
        "from service.__main__ import main; main()"
    )
    found = []
    for name in ("in.parquet", "in.csv"):
        flags = ["classify", "--models", str(toy_models), str(tmp_path / name), "--out", f"{tmp_path}/out/"]
        found.append(
            subprocess.run(
                [sys.executable, "-c", blocked, *flags],
                cwd=ROOT,
                env=environment(),
                capture_output=True,
                encoding="utf-8",
                timeout=PATIENCE_S,
                check=False,
            )
        )
    assert (found[0].returncode, found[0].stderr.count("\n")) == (2, 1)
    assert "Parquet needs pyarrow: pip install 'understudy[parquet]'" in found[0].stderr
    assert (found[1].returncode, found[1].stderr) == (0, "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_run_that_is_stopped_or_killed_goes_on_with_every_row_once(
    toy_models: Path, tmp_path: Path, number: int, code: int
) -> None:
    count = 30_000
    file = table(tmp_path / "in.parquet", {"id": range(count), "text": ["so so good"] * count}, 7000)
    out = tmp_path / "scored"
    flags = [str(file), "--keep", "id", "--part-rows", "1000", "--out", f"{out}/", "--threads", "2"]
    begun = [sys.executable, "-m", "service", "classify", "--models", str(toy_models), *flags]
    with subprocess.Popen(begun, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, encoding="utf-8") as process:
        wait_until(lambda: len(parts(out)) >= 2)
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == code
        assert process.stderr is not None
        said = process.stderr.read() if number != signal.SIGKILL else ""
    if number != signal.SIGKILL:
        assert "parts are complete; the same command goes on" in said
        assert not (out / ".staging").exists()
    assert not (out / "_SUCCESS").exists()
    kept = {path.name: path.stat().st_ino for path in parts(out)}
    done = classified(toy_models, *flags)
    assert (done.returncode, done.stderr) == (0, "")
    assert [row["id"] for row in rows(out)] == list(range(count))
    now = {path.name: path.stat().st_ino for path in parts(out)}
    again = sum(now[name] != inode for name, inode in kept.items())
    assert again <= 2  # those whose receipt was not written yet


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
