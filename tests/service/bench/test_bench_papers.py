"""The papers' set-ups over toy bundles: the whole pass, the rows of 32 tokens, the page, and what a stop leaves."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from service.bench.__main__ import app
from service.bench.stopping import SIGNALS, stoppable
from service.bundle.engine import open_graph
from tests.running import PATIENCE_S, ROOT, until
from tests.service.bundle.endless import endless_graph
from tests.toys import toy

TEACHER = "toy-teacher@1:exact"


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["papers", *map(str, arguments)])


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,200 rows: three batches of Tang's, the last a short one."""
    file, rng = tmp_path_factory.mktemp("data") / "train.txt", random.Random(1)
    file.write_text("".join(" ".join(rng.choices(toy.WORDS, k=rng.randint(1, 20))) + "\n" for _ in range(1200)))
    return file


def test_both_set_ups_are_repeated(toy_student: Path, toy_teacher: Path, train: Path, tmp_path: Path) -> None:
    out, page = tmp_path / "papers.json", tmp_path / "papers.html"
    named = ("--student", f"{toy_student}:fast", "--teacher", toy_teacher, "--train", train)
    result = bench(*named, "--threads", "1", "--rounds", "2", "--json", out, "--html", page)
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    assert report["complete"]
    student, teacher = report["tang"]
    assert (student["subject"], student["rows"], student["ran"]) == ("toy@1:fast", 1200, 1200)
    assert teacher["ran"] == 1200
    assert student["times"][TEACHER] == pytest.approx(teacher["seconds"] / student["seconds"])
    assert [(each["batch"], each["subject"]) for each in report["xtremedistil"]] == [
        (batch, subject) for batch in (32, 1) for subject in ("toy@1:fast", TEACHER)
    ]
    for each in report["xtremedistil"]:
        assert each["queries_s"] == pytest.approx(each["batch_ms"] / each["batch"])  # 1,000 queries, 1,000 ms
    assert "Tang et al. 2019" in report["protocols"]["tang"]
    for words in ("Tang et al. 2019", "XtremeDistil", "Departures", "1,200"):
        assert words in result.stdout
        assert words in page.read_text()


def test_a_model_without_time_for_all_is_estimated(toy_student: Path, toy_teacher: Path, train: Path) -> None:
    many = train.with_name("many.txt")
    many.write_text(train.read_text() * 60)
    named = ("--student", toy_student, "--teacher", toy_teacher, "--train", many)
    result = bench(*named, "--threads", "1", "--rounds", "1", "--budget", "0.1")
    assert result.exit_code == 0, result.output
    assert "(estimated)" in result.stdout


def test_a_file_without_texts_is_refused(toy_student: Path, toy_teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "none.tsv").write_text("text\tlabel\n")
    result = bench("--student", toy_student, "--teacher", toy_teacher, "--train", tmp_path / "none.tsv")
    assert result.exit_code == 2
    assert "has no rows" in " ".join(result.stderr.replace("│", " ").split())


def contents(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("launcher", "number"), [(("service", "bench"), signal.SIGINT), (("service.bench",), signal.SIGTERM)]
)
def test_whoever_stops_it_has_what_there_is(
    toy_student: Path, toy_teacher: Path, train: Path, tmp_path: Path, launcher: tuple[str, ...], number: signal.Signals
) -> None:
    out, page = tmp_path / "papers.json", tmp_path / "papers.html"
    named = ("--student", toy_student, "--teacher", toy_teacher, "--train", train, "--json", out, "--html", page)
    command = [sys.executable, "-m", *launcher, "papers", *map(str, named), "--rounds", "1000000"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until(out.exists, process)
        kept = json.loads(out.read_text())
        process.send_signal(number)
        said, complaints = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 128 + number
    assert "Traceback" not in complaints
    report = json.loads(out.read_text())
    for found in (kept, report):
        assert not found["complete"]
        assert found["tang"][0]["ran"] > 0
        assert found["xtremedistil"] == []
    for words in ("Cut short", "Tang et al. 2019", "toy@1:exact"):
        assert words in said
        assert words in page.read_text()
    assert contents(tmp_path) == {"papers.json", "papers.html"}  # and nothing that is half written


def test_a_signal_ends_the_run_that_is_under_way() -> None:
    graph = open_graph(endless_graph())
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
    handlers = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(SystemExit) as stop, stoppable() as handle:
        timer.start()
        graph.run({"input_ids": np.zeros((1, 1), np.int64)}, handle)
    assert stop.value.code == 128 + signal.SIGTERM
    assert [signal.getsignal(number) for number in SIGNALS] == handlers


def test_what_is_not_stopped_leaves_signals_as_they_were() -> None:
    handlers, threads = [signal.getsignal(number) for number in SIGNALS], threading.active_count()
    with stoppable() as handle:
        assert not handle.aborted
    assert [signal.getsignal(number) for number in SIGNALS] == handlers
    assert threading.active_count() <= threads
