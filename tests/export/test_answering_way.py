"""Question answering from SQuAD's file to the served answer: teacher, student, bundle, measure."""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from export.errors import DataError, ModelError, OptionError, RecipeError
from export.learning.fine_tuning import fine_tune
from export.measuring.evaluation import evaluate
from export.pipeline import Judged, Places, adopt, distill
from export.publishing.publish import Called
from export.recipe import DistillRecipe, as_toml, read_recipe
from export.survey import Chosen, survey
from export.teachers.hugging_face import ReadingTeacher, Teacher
from export.texts.answers import Answers, edges, exact_match, nearness, passages, read_answers, word_f1
from export.texts.datasets import Columns
from export.texts.records import read_records
from service.bundle.manifest import EDGES, Manifest, Precision, Role, Task
from service.bundle.rows import Passage
from service.bundle.runtime import open_bundle
from service.bundle.seal import read_manifest
from tests.running import serving
from tests.toys.asking_shop import COLUMNS, MAX_TOKENS, QUESTION, AskShop, open_ask_shop, texts
from tests.toys.workshop import ROOT

NAMED = Columns(COLUMNS[0], COLUMNS[2], COLUMNS[1])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> AskShop:
    return open_ask_shop(tmp_path_factory.mktemp("asking"))


@pytest.fixture(scope="module")
def taught(shop: AskShop) -> Path:
    return fine_tune(shop.teach_recipe(), shop.folder / "teacher")


@pytest.fixture(scope="module")
def adopted(shop: AskShop, taught: Path) -> Path:
    return adopt(str(taught), Called("asks"), Judged(str(shop.dev), NAMED), shop.folder / "models", "a test")


@pytest.fixture(scope="module")
def distilled(shop: AskShop, taught: Path) -> Path:
    return distill(shop.distill_recipe(taught), Places(shop.folder / "work", shop.folder / "models"), "a test")


@pytest.fixture(scope="module")
def client(shop: AskShop, adopted: Path, distilled: Path) -> Iterator[httpx2.Client]:
    with serving(shop.folder / "models", "--default", "small-asks") as server, server.client() as client:
        yield client


def measured(manifest: Manifest, what: str) -> dict[str, float]:
    return {row.metric: row.value for row in manifest.results if row.what == what}


def test_a_teacher_learns_to_answer_and_is_adopted(adopted: Path, taught: Path) -> None:
    manifest = read_manifest(adopted)
    assert (manifest.task, manifest.labels, manifest.texts) == (Task.ANSWERING, EDGES, 2)
    assert manifest.max_tokens == MAX_TOKENS  # as it was taught
    assert measured(manifest, "teacher, exact")["F1"] > 0.9
    assert measured(manifest, "teacher, exact").keys() == {"F1", "exact match"}
    assert manifest.graphs[Precision.EXACT].wander < 1e-4
    assert json.loads((taught / "dev.json").read_text())["metric"] == "F1"


def test_a_student_learns_its_teachers_logits(distilled: Path) -> None:
    manifest = read_manifest(distilled)
    assert (manifest.task, manifest.role) == (Task.ANSWERING, Role.STUDENT)
    assert measured(manifest, "student, exact")["F1"] > 0.85
    assert set(manifest.graphs) == set(Precision)
    for precision in Precision:
        open_bundle(distilled, precision)


def test_a_file_is_scored(distilled: Path, shop: AskShop) -> None:
    report = evaluate(distilled, Precision.EXACT, str(shop.train), NAMED, None)
    assert (report.rows, report.metrics["F1"] > 0.85) == (200, True)
    assert report.agreement is None


@pytest.mark.parametrize("name", ["asks", "small-asks"])
def test_answers_are_served(name: str, client: httpx2.Client) -> None:
    rows = texts()[200:]
    body = {"model": name, "input": [{"question": QUESTION, "context": text} for text, _ in rows]}
    answer = client.post("/v1/answer", json=body)
    assert answer.status_code == 200, answer.text
    found = [each["answers"][0]["answer"] for each in answer.json()["data"]]
    assert np.mean([word_f1(text, [praise]) for text, (_, praise) in zip(found, rows, strict=True)]) > 0.85


def test_a_student_that_cuts_otherwise_cannot_learn(shop: AskShop, taught: Path, tmp_path: Path) -> None:
    student = {"architecture": "transformer", "begins": str(shop.encoder), "max_tokens": 24}
    with pytest.raises(ModelError, match=r"student\.max_tokens = teacher\.max_tokens"):
        distill(shop.distill_recipe(taught, student=student), Places(tmp_path, tmp_path), "a test")


def test_a_teachers_logits_are_those_of_each_part_alone(taught: Path) -> None:
    teacher = Teacher.load(str(taught))
    assert isinstance(teacher, ReadingTeacher)
    asked = [(QUESTION, text) for text, _ in texts()[:12]]
    (found,) = teacher.signals(asked, None)
    exact = teacher.exact_logits(asked)
    np.testing.assert_allclose(found.logits, exact, atol=0.2)  # bfloat16 beside fp32, where there is any
    assert found.pieces is not None
    rows = teacher.read(asked)
    assert found.pieces.counts.sum() == len(exact) == sum(map(len, rows))
    assert len(rows) > len(asked)  # some are read in parts


def test_edges_are_the_tokens_of_the_answer(taught: Path) -> None:
    teacher = Teacher.load(str(taught))
    for text, praise in texts()[:40]:
        start = text.index(praise)
        wanted = Answers(((start, start + len(praise)),), (praise,))
        found = [(part, *edges(part, wanted)) for part in passages(teacher.read([(QUESTION, text)]))]
        read = {text[part.places[first][0] : part.places[last][1]] for part, first, last in found if first}
        assert read == {praise}
        assert all(last == 0 for _, first, last in found if first == 0)


def test_an_answer_that_is_cut_or_missing_is_nowhere(taught: Path) -> None:
    encoder = Teacher.load(str(taught))
    (row,) = passages(encoder.read([(QUESTION, "the film is good")]))
    assert edges(row, Answers((), ())) == (0, 0)
    assert edges(row, Answers(((0, 99),), ("the film is good and more",))) == (0, 0)
    assert edges(row, Answers(((4, 8),), ("film",)))[0] in row.tokens


@pytest.mark.parametrize(
    ("found", "wanted", "exact", "f1"),
    [
        ("The Film!", ["film"], 1, 1),
        ("a good film", ["film", "good"], 0, 2 / 3),
        ("good film", ["a very good old film"], 0, 2 * 2 / 6),
        ("", [], 1, 1),
        ("film", [], 0, 0),
        ("", ["film"], 0, 0),
        ("film film", ["film"], 0, 2 / 3),
    ],
)
def test_the_measure_is_squads(found: str, wanted: list[str], exact: float, f1: float) -> None:
    """By hand, as its script counts."""
    assert exact_match(found, wanted) == exact
    assert word_f1(found, wanted) == pytest.approx(f1)


@given(st.lists(st.sampled_from(["film", "good", "a", "The", "!", "dull"]), max_size=8).map(" ".join))
def test_what_is_right_is_wholly_right(text: str) -> None:
    assert exact_match(text, ["x", text]) == 1
    assert word_f1(text, ["x", text]) == 1


def test_where_some_have_no_answer_none_is_one() -> None:
    row = Passage(
        [1, 2, 3, 4], [0, 0, 1, 1], "a film", [(0, 0), (0, 0), (0, 1), (2, 6)], [None, None, 0, 1], range(2, 4), 0
    )
    other = Passage(row.ids, row.types, row.text, row.places, row.word_ids, row.tokens, 1)
    nowhere, film = (np.full((4, 2), -9, dtype=np.float32) for _ in range(2))
    nowhere[0], film[3] = 9, 9
    wanted = [Answers((), ()), Answers(((2, 6),), ("film",))]
    assert nearness(np.concatenate([nowhere, film]), [row, other], wanted).tolist() == [[1, 1], [1, 1]]
    assert nearness(np.concatenate([film, nowhere]), [row, other], wanted).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        ([{"text": "film", "answer_start": 3}], "does not stand at character 3"),
        ({"text": ["film"], "answer_start": [90]}, "does not stand"),
        ({"text": ["film"], "answer_start": []}, "answers are a list"),
        ([{"text": "film"}], 'an answer is written {"text": ..., "answer_start": ...}'),
        ("film", "answers are a list"),
    ],
)
def test_an_answer_that_cannot_be_is_refused(cell: object, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read_answers(cell, "a film")


def test_a_file_of_another_form_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    for content, problem in (
        ("{", "not JSON"),
        ('{"rows": []}', "not of SQuAD's form"),
        ("[1]", "not of SQuAD's form"),
    ):
        file.write_text(content)
        with pytest.raises(DataError, match=problem):
            list(read_records(str(file)))


def test_init_says_with_what_to_begin(shop: AskShop) -> None:
    with pytest.raises(OptionError, match=r"begin with export/recipes/squad-teacher\.toml"):
        survey(str(shop.train), Chosen())


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"student": {"embedding": 8, "hidden": 8, "dense": 8}}, "a BiLSTM answers no questions"),
        ({"objective": {"alpha": 0.5}}, "write alpha = 0"),
        ({"objective": {"soft": "kl"}}, "write 'mse'"),
        ({"data": {"labels": ["a", "b"]}}, "name the column of the text as pair"),
    ],
)
def test_what_cannot_be_learnt_is_refused(
    changes: dict[str, Any], problem: str, shop: AskShop, taught: Path, tmp_path: Path
) -> None:
    content = tomllib.loads(as_toml(shop.distill_recipe(taught)))
    for table, values in changes.items():
        content[table] = values if table == "student" else content[table] | values
    file = tmp_path / "recipe.toml"
    file.write_text(tomli_w.dumps(content))
    with pytest.raises(RecipeError, match=problem):
        read_recipe(DistillRecipe, file)


def test_the_recipes_of_the_house_ask_for_it() -> None:
    recipe = read_recipe(DistillRecipe, ROOT / "export" / "recipes" / "chen2021-squad.toml")
    assert recipe.data.task is Task.ANSWERING
