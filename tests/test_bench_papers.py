"""The papers' set-ups over toy bundles: the whole pass, the rows of 32 tokens, the page."""

import json
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from service.bench.__main__ import app
from tests import toy

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
