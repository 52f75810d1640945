"""`classify … --out FOLDER/`: the command, killed and begun again, and a line for every mistake."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from service.bundle.runtime import OpenBundle
from service.commands.cli import app
from service.commands.terminal import Misused
from service.offline.errors import OfflineError
from tests.running import PATIENCE_S, ROOT, command, environment, until
from tests.service.offline.bulking import contents, parts, rejects, rows, table
from tests.service.offline.tables import alone, as_csv, write
from tests.toys.toy import LABELS


def classified(toy_models: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    return command("classify", "--models", str(toy_models), *map(str, arguments))


def test_a_parquet_file_is_classified_into_a_folder(
    toy_models: Path, tmp_path: Path, thirteen_rows: Path, toy_bundle: OpenBundle
) -> None:
    flags = (thirteen_rows, "--keep", "id", "--part-rows", "5", "--out", f"{tmp_path}/scored/")
    done = classified(toy_models, *flags)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"13 rows: 13 scored; 3 parts in {tmp_path}/scored\n"
    found = rows(tmp_path / "scored")
    assert [row["id"] for row in found] == list(range(13))
    for row in found:
        scores = [row[f"score_{label}"] for label in LABELS]
        assert scores == pytest.approx(alone(toy_bundle, str(row["text"])), abs=1e-6)
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
        until(lambda: len(parts(out)) >= 2)
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
