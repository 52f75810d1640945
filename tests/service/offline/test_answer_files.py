"""Files of questions and texts: answered as if each stood alone, by the command, and in parts of a folder."""

import csv
import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.bundle.manifest import EDGES, Role, Task
from service.bundle.passages import AnswerSpan, Search
from service.bundle.runtime import OpenBundle, open_bundle
from service.offline.records import Record
from service.offline.scoring import Scorer, Sizes
from tests.running import command
from tests.service.offline.bulking import rows
from tests.service.offline.tables import write
from tests.toys import toy
from tests.toys.answering import alone

QUESTIONS = [
    ("good ?", "a film"),
    ("bad", "a very dull film . goodness"),
    ("so", "the film is not bad , but " * 30),
    ("so", ""),
]
TABLE = [
    {"id": str(place), "question": question, "context": context} for place, (question, context) in enumerate(QUESTIONS)
]
COLUMNS = ("--text-column", "question", "--pair-column", "context", "--keep", "id")

texts = st.lists(st.sampled_from(["good", "bad", "film", "a", "the", "."]), max_size=90).map(" ".join)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    toy.publish(folder, "asks", "1", Role.TEACHER, task=Task.ANSWERING, labels=EDGES, pairs=True)
    return folder


@pytest.fixture(scope="module")
def bundle(models: Path) -> OpenBundle:
    return open_bundle(models / "asks" / "1")


def classified(models: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    return command("classify", "--models", str(models), *map(str, arguments))


def assert_alike(found: list[dict[str, object]], wanted: list[AnswerSpan]) -> None:
    assert [list(each) for each in found] == [list(AnswerSpan._fields)] * len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours == theirs._asdict() | {"score": pytest.approx(theirs.score, abs=1e-6)}


@given(batch=st.lists(st.tuples(texts.filter(bool), texts), max_size=12), top_k=st.integers(1, 3))
def test_each_is_answered_as_if_it_were_alone(bundle: OpenBundle, batch: list[tuple[str, str]], top_k: int) -> None:
    records = [Record(line, asked) for line, asked in enumerate((*batch, *QUESTIONS))]
    sizes, search = Sizes(window_rows=5, window_chars=400, batch_rows=3, batch_tokens=90), Search(top_k)
    with Scorer(bundle, 2, sizes, search) as scorer:
        done = list(scorer.answers(iter(records), "here"))
    assert [answer.record for answer in done] == records
    for answer, (question, context) in zip(done, (*batch, *QUESTIONS), strict=True):
        assert_alike([stretch._asdict() for stretch in answer.found], alone(bundle, question, context, search))


@pytest.mark.parametrize("top_k", [None, 3])
def test_a_file_of_questions_is_answered(top_k: int | None, models: Path, tmp_path: Path, bundle: OpenBundle) -> None:
    file = tmp_path / "questions.jsonl"
    write(file, "".join(json.dumps(row) + "\n" for row in TABLE))
    flags = ("--top-k", top_k) if top_k else ()
    done = classified(models, "--file", file, *COLUMNS, *flags)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line | {"answers": None} for line in lines] == [row | {"answers": None} for row in TABLE]
    for line, asked in zip(lines, QUESTIONS, strict=True):
        assert_alike(line["answers"], alone(bundle, *asked, Search(top_k or 1)))
    assert lines[-1]["answers"] == []  # of an empty text


def test_tables_and_folders_say_the_same(models: Path, tmp_path: Path) -> None:
    file = tmp_path / "questions.csv"
    with file.open("w", newline="") as stream:
        table = csv.DictWriter(stream, list(TABLE[0]))
        table.writeheader()
        table.writerows(TABLE)
    assert classified(models, "--file", file, *COLUMNS, "--out", tmp_path / "answers.csv").returncode == 0
    with (tmp_path / "answers.csv").open() as stream:
        plain = [json.loads(row["answers"]) for row in csv.DictReader(stream)]
    folder = f"{tmp_path}/answers/"
    done = classified(models, file, *COLUMNS, "--format", "parquet", "--part-rows", 3, "--out", folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert [row["answers"] for row in rows(Path(folder))] == [
        [each | {"score": pytest.approx(each["score"], abs=1e-6)} for each in found] for found in plain
    ]


def test_without_its_columns_it_is_told_to_name_them(models: Path) -> None:
    done = classified(models, "good")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "asks answers questions: name a file with --file, and --text-column and --pair-column" in done.stderr
