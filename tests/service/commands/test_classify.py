"""`classify`: files, pipes and lines as they come; one line for a mistake, and nothing half is left."""

import csv
import gzip
import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from service.bundle.manifest import Precision, Role, Task
from service.bundle.runtime import OpenBundle, open_bundle
from tests.running import PATIENCE_S, ROOT, command, environment, until
from tests.service.offline.tables import ROWS, alone, as_csv, write
from tests.toys.toy import LABELS, publish


@pytest.fixture(scope="module")
def bundle(toy_student: Path) -> OpenBundle:
    return open_bundle(toy_student)


def classified(toy_models: Path, *arguments: str, text: str = "") -> "subprocess.CompletedProcess[str]":
    return command("classify", "--models", str(toy_models), *arguments, text=text)


def test_a_table_is_classified_into_a_table(toy_models: Path, tmp_path: Path, bundle: OpenBundle) -> None:
    source, out = write(tmp_path / "in.csv.gz", as_csv()), tmp_path / "out.csv.gz"
    done = classified(toy_models, "--file", str(source), "--out", str(out), "--keep", "id")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    rows = list(csv.DictReader(io.StringIO(gzip.decompress(out.read_bytes()).decode())))
    assert [(row["id"], row["text"]) for row in rows] == ROWS
    for row in rows:
        scores = [float(row[f"score_{label}"]) for label in LABELS]
        assert scores == pytest.approx(alone(bundle, row["text"]), abs=1e-6)
        assert (row["label"], float(row["score"])) == (LABELS[scores.index(max(scores))], max(scores))


def test_lines_of_json_are_piped_through(toy_models: Path, toy_student: Path) -> None:
    text = "".join(json.dumps({"body": text}) + "\n" for _, text in ROWS)
    flags = ("--file", "-", "--input-format", "jsonl", "--text-column", "body", "--top-k", "1", "--precision", "fast")
    done = classified(toy_models, *flags, text=text)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (0, "")
    assert [line["body"] for line in lines] == [text for _, text in ROWS]
    fast = alone(open_bundle(toy_student, Precision.FAST), "a good film")
    assert lines[0]["scores"] == {LABELS[fast.index(max(fast))]: pytest.approx(max(fast), abs=1e-3)}


@pytest.mark.parametrize("role", [Role.STUDENT, Role.TEACHER])
def test_pairs_of_texts_come_from_two_columns(tmp_path: Path, role: Role) -> None:
    pairs = open_bundle(publish(tmp_path / "models", "pairs", "1", role, pairs=True))
    source = write(tmp_path / "in.tsv", "one\ttwo\ngood\ta film\n\tvery bad\n")
    done = classified(tmp_path / "models", "--file", str(source), "--text-column", "one", "--pair-column", "two")
    assert (done.returncode, done.stderr) == (0, "")
    for line, given in zip(
        map(json.loads, done.stdout.splitlines()), [("good", "a film"), ("", "very bad")], strict=True
    ):
        assert (line["one"], line["two"]) == given
        expected = pairs.scores(pairs.classify([given]))[0].tolist()
        assert list(line["scores"].values()) == pytest.approx(expected, abs=1e-6)


def test_a_model_of_pairs_does_not_take_single_texts(tmp_path: Path) -> None:
    publish(tmp_path, "pairs", "1", Role.STUDENT, pairs=True)
    done = classified(tmp_path, "good")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("understudy: pairs reads pairs of texts: name a file with --file")


def test_several_labels_may_hold(tmp_path: Path) -> None:
    both = open_bundle(publish(tmp_path, "both", "1", Role.STUDENT, task=Task.MULTI_LABEL))
    line = json.loads(classified(tmp_path, "good").stdout)
    assert line["labels"] == [label for label, score in zip(LABELS, alone(both, "good"), strict=True) if score >= 0.5]
    assert "label" not in line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--file", "BAD.csv"), "BAD.csv:4: 1 columns, but the header has 2"),
        (("--file", "BAD.csv", "--text-column", "body"), "BAD.csv:1: no column 'body'; there is id, text"),
        (("--file", "GOOD.txt", "--keep", "id"), "GOOD.txt: lines of text have no columns"),
        (("--file", "nowhere.txt"), "nowhere.txt: no such file"),
        (("--file", "BAD.csv", "--format", "xml"), "--format xml: unknown; use one of jsonl, csv"),
        (
            ("--file", "BAD.csv", "--input-format", "xml"),
            "--input-format xml: unknown; use one of txt, csv, tsv, jsonl",
        ),
        (("--file", "GOOD.txt", "a text"), "texts and --file: give one of them"),
        (("--keep", "id", "a text"), "are for files"),
        (("--file", "BAD.csv", "--pair-column", "id"), "toy reads single texts: leave --pair-column away"),
        (("--file", "BAD.csv", "--keep", "score"), "score: the answer has a column of that name"),
        (("--file", "GOOD.txt", "--out", "GOOD.txt"), "GOOD.txt: already there"),
        (("--top-k", "0", "a"), "--top-k"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    toy_models: Path, tmp_path: Path, flags: tuple[str, ...], message: str
) -> None:
    write(tmp_path / "BAD.csv", "id,text\n1,good\n2,bad\n3\n")
    write(tmp_path / "GOOD.txt", "good\n")
    before = sorted(tmp_path.iterdir())
    placed = [str(tmp_path / flag) if flag.endswith((".csv", ".txt")) else flag for flag in flags]
    out = [] if "--out" in flags else ["--out", str(tmp_path / "out.jsonl")]
    done = classified(toy_models, *placed, *out)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("understudy: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert sorted(tmp_path.iterdir()) == before


@contextmanager
def piping(toy_models: Path, *flags: str) -> Iterator["subprocess.Popen[str]"]:
    """`classify`, with pipes to talk to it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "service", "classify", "--models", str(toy_models), *flags],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def test_each_line_of_stdin_is_answered_as_it_comes(toy_models: Path) -> None:
    with piping(toy_models) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for text in ("good", "", "bad ✓"):
            process.stdin.write(f"{text}\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["text"] == text
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_leaves_no_half_file(toy_models: Path, tmp_path: Path, number: int, code: int) -> None:
    with piping(toy_models, "--file", "-", "--out", str(tmp_path / "out.jsonl")) as process:
        until(lambda: list(tmp_path.iterdir()), process)  # the half file
        deadline = time.monotonic() + PATIENCE_S
        while process.poll() is None:
            assert time.monotonic() < deadline
            # Python may see a signal that comes just before it waits for stdin only with the next one.
            process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(3)
        assert process.returncode == code
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert list(tmp_path.iterdir()) == []


def test_a_bar_is_drawn_on_a_terminal_only(toy_models: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "in.txt", "good\n" * 1234)
    leader, follower = pty.openpty()
    with os.fdopen(leader, "rb") as screen:
        done = subprocess.run(
            [sys.executable, "-m", "service", "classify", "--models", str(toy_models), "--file", str(source)],
            cwd=ROOT,
            env=environment() | {"TERM": "xterm"},
            stdout=subprocess.PIPE,
            stderr=follower,
            encoding="utf-8",
            timeout=PATIENCE_S,
            check=False,
        )
        drawn = os.read(screen.fileno(), 1 << 16).decode()
        os.close(follower)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1234)
    assert "1,234 rows" in drawn
