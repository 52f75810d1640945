"""The student where it is sure and its teacher where it is not, as if both had been asked; in every dialect."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from service.api.door import Door
from service.bundle.manifest import Role, Task
from tests.running import serving
from tests.toys import toy
from tests.toys.cascading import OWN, PERMUTED, TOLD, Answer, ask, fates, metric, rows_of, visit
from tests.toys.pairing import TEXTS, Beside, publish_teacher

# --- as if both models had been asked


@settings(max_examples=25)
@given(st.floats(0, 1), st.lists(st.sampled_from(TEXTS), min_size=1, max_size=12))
def test_a_cascade_is_the_student_above_the_threshold_and_the_teacher_below(
    cascading: Path, beside: Beside, threshold: float, texts: list[str]
) -> None:
    margins = beside.margins(texts)
    assume(all(abs(margin - threshold) > 1e-5 for margin in margins))
    below = [margin < threshold for margin in margins]
    ours, theirs = (beside.scores(texts, by_teacher) for by_teacher in (False, True))

    async def scenario(door: Door) -> None:
        answer = await ask(door, texts)
        for row, asked, own, other, margin in zip(answer.json()["data"], below, ours, theirs, margins, strict=True):
            scores = other if asked else own
            assert list(row["scores"]) == list(toy.LABELS)
            assert row["scores"] == pytest.approx(scores, abs=1e-5)
            assert row["label"] == max(scores, key=lambda label: scores[label])
            assert (row["served_by"], row["escalated"], row["degraded"]) == (TOLD if asked else OWN)
            first, second = sorted(scores.values())[:-3:-1]
            assert row["confidence"] == pytest.approx(first - second if asked else margin, abs=1e-5)
        assert answer.headers["x-served-by"] == {1: "student" if not any(below) else "teacher"}.get(
            len(set(below)), "both"
        )
        assert ("x-teacher-digest" in answer.headers) == ("teacher" in answer.json()) == any(below)
        assert ("teacher;dur=" in answer.headers["server-timing"]) == any(below)
        asked_of, served = sum(below), len(below)
        assert await metric(door, "escalated_rows_total", model="toy@1", outcome="answered") == asked_of
        assert await metric(door, "strategy_rows_total", model="toy@1", served_by="student") == served - asked_of
        assert await metric(door, "rows_total", model="toy-teacher@1") == asked_of

    visit(cascading, scenario, cascade_threshold=threshold)


def test_the_manifests_threshold_and_temperature_count_unless_a_setting_overrides(
    cascading: Path, beside: Beside
) -> None:
    margins = beside.margins(TEXTS)
    assert min(margins) < 0.4 < max(margins)

    async def by_manifest(door: Door) -> None:
        rows = await rows_of(door, TEXTS)
        assert [row["escalated"] for row in rows] == [margin < 0.4 for margin in margins]

    async def all_are_sure(door: Door) -> None:
        rows = await rows_of(door, TEXTS)
        assert fates(rows) == {OWN}
        assert [row["confidence"] for row in rows] == pytest.approx(margins, abs=1e-5)

    visit(cascading, by_manifest)
    visit(cascading, all_are_sure, cascade_threshold=0)


# --- over a real server, in all dialects


OIP = {"inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["good", "bad"]}]}
DIALECTS: dict[str, tuple[str, Answer]] = {
    "ours": ("/v1/classify", {"input": ["good", "bad"]}),
    "Hugging Face": ("/predict", {"inputs": ["good", "bad"]}),
    "Hugging Face, at the root": ("/", {"inputs": ["good", "bad"]}),
    "OIP": ("/v2/models/toy/infer", OIP),
}


@pytest.fixture(scope="module")
def server(cascading: Path) -> Iterator[httpx2.Client]:
    flags = ("--default", "toy", "--strategy", "cascade", "--cascade-threshold", "1", "--escalation-budget", "1")
    with serving(cascading, *flags, "--log-level", "error") as running, running.client() as client:
        yield client


@pytest.mark.parametrize(("path", "body"), DIALECTS.values(), ids=DIALECTS)
def test_every_dialect_follows_the_setting_and_says_who_answered(
    server: httpx2.Client, beside: Beside, path: str, body: Answer
) -> None:
    answer = server.post(path, json=body)
    assert answer.status_code == 200
    assert answer.headers["x-served-by"] == "teacher"
    assert answer.headers["x-model-digest"] == beside.student.manifest.seal[:12]
    assert answer.headers["x-teacher-digest"] == beside.teacher.manifest.seal[:12]
    wanted = beside.scores(["good", "bad"], by_teacher=True)
    said = answer.json()
    match path:
        case "/v1/classify":
            found = [row["scores"] for row in said["data"]]
            assert (said["model"], said["teacher"]) == ("toy@1", "toy-teacher@1")
            assert said["timing_ms"]["teacher"] > 0
        case "/v2/models/toy/infer":
            flat = next(tensor["data"] for tensor in said["outputs"] if tensor["name"] == "scores")
            found = [dict(zip(toy.LABELS, flat[start : start + 3], strict=True)) for start in (0, 3)]
            assert said["model_name"] == "toy"
        case _:
            found = [{pair["label"]: pair["score"] for pair in row} for row in said]
    assert found == [pytest.approx(scores, abs=1e-5) for scores in wanted]


def test_the_request_names_a_strategy_of_its_own(server: httpx2.Client, beside: Beside) -> None:
    for strategy, by_teacher in (("student", False), ("teacher", True)):
        answer = server.post("/v1/classify", json={"input": "good", "strategy": strategy})
        (row,) = answer.json()["data"]
        assert row["scores"] == pytest.approx(beside.scores(["good"], by_teacher)[0], abs=1e-5)
        assert (row["served_by"], row["escalated"], row["degraded"]) == (strategy, False, False)
        assert answer.headers["x-served-by"] == strategy
        assert answer.json()["model"] == "toy@1"


def test_a_teacher_answers_for_itself_whatever_the_strategy(server: httpx2.Client) -> None:
    for named in ({}, {"strategy": "cascade"}, {"strategy": "student"}, {"strategy": "teacher"}):
        answer = server.post("/v1/classify", json={"input": "good", "model": "toy-teacher", **named}).json()
        assert answer["model"] == "toy-teacher@1"
        assert fates(answer["data"]) == {("teacher", False, False)}
        assert list(answer["data"][0]["scores"]) == list(PERMUTED)


def test_without_a_strategy_nothing_of_it_is_said(cascading: Path) -> None:
    async def scenario(door: Door) -> None:
        answer = await ask(door, ["good"])
        assert "x-served-by" not in answer.headers
        assert "x-teacher-digest" not in answer.headers
        assert set(answer.json()) == {"model", "data", "usage", "timing_ms"}
        assert set(answer.json()["data"][0]) == {"index", "label", "score", "scores"}
        assert set(answer.json()["timing_ms"]) == {"tokenize", "queue", "inference", "total"}
        assert fates(await rows_of(door, ["good"], strategy="student")) == {OWN}

    visit(cascading, scenario, strategy="student")


def test_top_k_and_a_named_strategy_go_together(server: httpx2.Client) -> None:
    asked = {"input": "good", "strategy": "cascade", "top_k": 1}
    (row,) = server.post("/v1/classify", json=asked).json()["data"]
    assert list(row["scores"]) == [row["label"]]
    assert row["served_by"] == "teacher"


# --- what cannot be followed


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        ({"strategy": "cascade", "model": "raw"}, 422, "python -m export calibrate"),
        ({"strategy": "cascade", "model": "tags"}, 422, "python -m export calibrate"),
        ({"strategy": "teacher", "model": "tags"}, 404, "no teacher of tags@1 is served"),
        ({"strategy": "both"}, 422, "strategy"),
        ({"strategy": 1}, 422, "strategy"),
    ],
)
def test_a_request_that_cannot_be_followed_is_refused(cascading: Path, asked: Answer, status: int, said: str) -> None:
    async def scenario(door: Door) -> None:
        answer = await ask(door, ["good"], **asked)
        assert answer.status_code == status
        assert said in answer.json()["detail"]

    visit(cascading, scenario, strategy="student")


def test_other_tasks_have_no_cascade_but_may_have_a_teacher(tmp_path: Path) -> None:
    toy.publish(tmp_path, "toy", "1", Role.STUDENT)
    publish_teacher(tmp_path)
    names = ("red", "green", "blue")
    for name, role in (("many", Role.STUDENT), ("many-teacher", Role.TEACHER)):
        toy.publish(tmp_path, name, "1", role, task=Task.MULTI_LABEL, labels=names)

    async def scenario(door: Door) -> None:
        refused = await ask(door, ["good"], model="many", strategy="cascade")
        assert (refused.status_code, "one label" in refused.text) == (422, True)
        (row,) = await rows_of(door, ["good"], model="many", strategy="teacher")
        assert (row["served_by"], row["confidence"]) == ("teacher", None)
        (row,) = await rows_of(door, ["good"], model="many")  # the setting is no reason to refuse
        assert (row["served_by"], row["degraded"], row["confidence"]) == ("student", False, None)

    visit(tmp_path, scenario, cascade_threshold=0.5)
