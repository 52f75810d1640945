"""Student and teacher on the same texts, side by side."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.api.questions import Answered
from service.bundle.manifest import Role, Task
from service.bundle.passages import Search
from service.bundle.runtime import open_bundle
from service.bundle.tasks import TASKS
from service.oversight.compare import agreements
from service.predictors import Outcome
from service.routes.compare import CompareResponse, LabelsBeside, NumbersBeside, SetsBeside
from service.settings import Settings
from tests.running import PATIENCE_S, client_of, opened, serving
from tests.service.routes.asking import scores_of
from tests.toys import toy
from tests.toys.answering import alone, publish_both
from tests.toys.pairing import TEXTS, Beside, calibration, hold_teachers, publish_student, publish_teacher

NAMES = ("red", 'very "red"', "green ✓", "blue")
PERMUTED = (toy.LABELS[2], toy.LABELS[0], toy.LABELS[1])
ANSWERED = ("a film", "a very dull film . goodness", "the film is not bad , but " * 30, "", "it was good and bright")
TASKS_OF = {"toy": Task.SINGLE_LABEL, "many": Task.MULTI_LABEL, "stars": Task.REGRESSION}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair of each task, all teachers with their labels in another order; and a student that is alone."""
    folder = tmp_path_factory.mktemp("pairs")
    publish_student(folder, calibrated=calibration(0.4))
    publish_teacher(folder, labels=PERMUTED)
    for name, task in list(TASKS_OF.items())[1:]:
        toy.publish(folder, name, "1", Role.STUDENT, task=task, labels=NAMES)
        publish_teacher(folder, f"{name}-teacher", task=task, labels=NAMES[::-1])
    toy.publish(folder, "alone", "1", Role.STUDENT, labels=toy.LABELS[:2])
    toy.publish(folder, "twins", "1", Role.STUDENT, labels=toy.LABELS, pairs=True)
    toy.publish(folder, "twins-teacher", "1", Role.TEACHER, labels=toy.LABELS, pairs=True)
    return folder


@pytest.fixture(scope="module")
def client(models: Path) -> Iterator[httpx2.Client]:
    with serving(models, "--default", "toy") as server, server.client() as opened_client:
        yield opened_client


def compare(client: httpx2.Client, **asked: Any) -> CompareResponse:
    answer = client.post("/v1/compare", json=asked)
    assert answer.status_code == 200, answer.text
    return CompareResponse.model_validate_json(answer.content)


def refused(client: httpx2.Client, **asked: Any) -> tuple[int, str]:
    answer = client.post("/v1/compare", json=asked)
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["detail"]


@pytest.mark.parametrize("model", TASKS_OF)
def test_both_answers_are_those_of_the_models_themselves(client: httpx2.Client, models: Path, model: str) -> None:
    beside, texts = Beside(models / model / "1", models / f"{model}-teacher" / "1"), list(TEXTS[:7])
    if model == "toy":
        beside = Beside(models / "toy" / "1", models / "toy-teacher" / "1")
    done = compare(client, student=model, input=texts)
    assert (done.student.model, done.teacher.model) == (f"{model}@1", f"{model}-teacher@1")
    assert done.student.digest == beside.student.manifest.seal
    assert done.teacher.digest == beside.teacher.manifest.seal
    for side, by_teacher in ((done.student, False), (done.teacher, True)):
        for place, (row, scores) in enumerate(zip(side.data, beside.scores(texts, by_teacher), strict=True)):
            assert row.index == place
            assert scores_of(row) == pytest.approx(scores, abs=1e-5)
            assert list(scores_of(row)) == list(beside.student.manifest.labels)
        times = side.timing_ms
        assert times.total == pytest.approx(times.tokenize + times.queue + times.inference, abs=0.01)
        assert times.inference > 0
        assert side.usage.tokens > len(texts)
    direct = client.post("/v1/classify", json={"model": model, "input": texts}).json()["data"]
    for row, own in zip(done.student.model_dump(exclude_none=True)["data"], direct, strict=True):
        assert row["scores"] == pytest.approx(own["scores"], abs=1e-5)
        assert {name: value for name, value in row.items() if name not in ("scores", "score")} == {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in own.items()
            if name not in ("scores", "score")
        }


def test_labels_are_held_against_each_other(client: httpx2.Client, models: Path) -> None:
    beside, texts = Beside(models / "toy" / "1", models / "toy-teacher" / "1"), list(TEXTS)
    done = compare(client, input=texts)
    best = [
        [max(scores, key=lambda label: scores[label]) for scores in beside.scores(texts, by_teacher)]
        for by_teacher in (False, True)
    ]
    assert done.agreement is not None
    equal = [one == other for one, other in zip(*best, strict=True)]
    assert 0 < sum(equal) < len(equal)
    assert (done.agreement.rows, done.agreement.agreed) == (len(texts), sum(equal))
    assert done.agreement.share == pytest.approx(sum(equal) / len(equal))
    for row, agree, ours, theirs, margin in zip(done.data, equal, *best, beside.margins(texts), strict=True):
        assert isinstance(row, LabelsBeside)
        assert (row.agree, row.student_label, row.teacher_label) == (agree, ours, theirs)
        assert row.confidence == pytest.approx(margin, abs=1e-5)


def test_sets_of_labels_are_held_against_each_other_label_by_label(client: httpx2.Client, models: Path) -> None:
    beside, texts = Beside(models / "many" / "1", models / "many-teacher" / "1"), list(TEXTS)
    done = compare(client, student="many", input=texts)
    assert done.agreement is not None
    shares = []
    for ours, theirs in zip(beside.scores(texts, False), beside.scores(texts, True), strict=True):
        shares.append(sum((ours[label] >= 0.5) == (theirs[label] >= 0.5) for label in NAMES) / len(NAMES))
    assert done.agreement.share == pytest.approx(sum(shares) / len(shares))
    assert done.agreement.agreed == shares.count(1.0)
    for row, share in zip(done.data, shares, strict=True):
        assert isinstance(row, SetsBeside)
        assert row.agree == (share == 1)
        assert row.share == pytest.approx(share)


def test_numbers_only_differ(client: httpx2.Client, models: Path) -> None:
    done = compare(client, student="stars", input=list(TEXTS[:5]))
    assert done.agreement is None
    for row, ours, theirs in zip(done.data, done.student.data, done.teacher.data, strict=True):
        assert isinstance(row, NumbersBeside)
        mine, other = scores_of(ours), scores_of(theirs)
        assert row.difference == {label: mine[label] - other[label] for label in NAMES}


@pytest.mark.parametrize(
    ("task", "ours", "theirs", "share"),
    [
        (Task.SINGLE_LABEL, [0.1, 0.7, 0.2], [0.3, 0.4, 0.3], 1.0),
        (Task.SINGLE_LABEL, [0.1, 0.7, 0.2], [0.5, 0.4, 0.1], 0.0),
        (Task.MULTI_LABEL, [0.6, 0.1, 0.5, 0.2], [0.5, 0.2, 0.4, 0.1], 0.75),
        (Task.MULTI_LABEL, [0.1, 0.1], [0.2, 0.2], 1.0),
        (Task.MULTI_LABEL, [0.9, 0.1], [0.1, 0.9], 0.0),
    ],
)
def test_agreement_is_the_share_of_equal_decisions(
    task: Task, ours: list[float], theirs: list[float], share: float
) -> None:
    assert agreements(TASKS[task], [Outcome(ours, ours)], [Outcome(theirs, theirs)]) == [pytest.approx(share)]


@settings(max_examples=50)
@given(
    st.sampled_from([Task.SINGLE_LABEL, Task.MULTI_LABEL]), st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3))
)
def test_whoever_is_compared_with_himself_agrees(task: Task, rows: Sequence[list[float]]) -> None:
    outcomes = [Outcome(row, row) for row in rows]
    assert agreements(TASKS[task], outcomes, outcomes) == [1.0] * len(rows)


def test_any_two_models_that_are_alike_may_be_compared(client: httpx2.Client) -> None:
    done = compare(client, student="toy-teacher", teacher="toy@1", input="good")
    assert (done.student.model, done.teacher.model) == ("toy-teacher@1", "toy@1")
    same = compare(client, student="toy", teacher="toy", input=list(TEXTS[:9]))
    assert same.agreement is not None
    assert same.agreement.share == 1


def test_pairs_of_texts_are_compared_too(client: httpx2.Client) -> None:
    done = compare(client, student="twins", input={"text": "good", "text_pair": "a film"})
    assert done.teacher.model == "twins-teacher@1"
    status, why = refused(client, student="twins", input="good")
    assert (status, "reads pairs" in why) == (422, True)


def test_answers_to_questions_are_held_against_each_other(tmp_path: Path) -> None:
    publish_both(tmp_path)
    questions = [{"question": "good ?", "context": context} for context in ANSWERED]
    with serving(tmp_path, "--default", "asks") as server, server.client() as client:
        done = compare(client, input=questions)
        one = compare(client, input=questions[0])
    assert (done.student.model, done.teacher.model) == ("asks@1", "asks-teacher@1")
    both = []
    for side, name in ((done.student, "asks"), (done.teacher, "asks-teacher")):
        bundle = open_bundle(tmp_path / name / "1")
        wanted = [alone(bundle, "good ?", context, Search()) for context in ANSWERED]
        for row, answers in zip(side.data, wanted, strict=True):
            assert isinstance(row, Answered)
            assert [(found.answer, found.start, found.end) for found in row.answers] == [
                (answer.answer, answer.start, answer.end) for answer in answers
            ]
        both.append([{place for answer in answers for place in range(answer.start, answer.end)} for answers in wanted])
    shares = [
        len(ours & theirs) / len(ours | theirs) if ours | theirs else 1 for ours, theirs in zip(*both, strict=True)
    ]
    assert 0 < sum(shares) < len(shares)
    for beside, share in zip(done.data, shares, strict=True):
        assert isinstance(beside, SetsBeside)
        assert beside.agree == (share == 1)
        assert beside.share == pytest.approx(share)
    assert done.agreement is not None
    assert (done.agreement.rows, done.agreement.agreed) == (len(shares), shares.count(1))
    assert one.data[0] == done.data[0]


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        ({"student": "alone"}, 404, "no teacher of alone@1 is served; put one with the same labels"),
        ({"student": "toy-teacher"}, 404, "no teacher of toy-teacher@1 is served"),
        ({"student": "none"}, 404, "no such model"),
        ({"teacher": "none"}, 404, "no such model"),
        ({"teacher": "many-teacher"}, 422, "many-teacher@1 and toy@1 differ in task, in labels"),
        ({"teacher": "twins-teacher"}, 422, "differ"),
        ({"input": []}, 422, "at least one text"),
        ({"input": "good " * 60, "truncate": False}, 422, "more than the 48 tokens"),
        ({"top_k": 1}, 422, "top_k"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    client: httpx2.Client, asked: dict[str, Any], status: int, said: str
) -> None:
    found, why = refused(client, **{"input": "good", **asked})
    assert (found, said in why) == (status, True), why


def test_headers_tell_of_the_student_and_of_both_times(client: httpx2.Client, models: Path) -> None:
    answer = client.post("/v1/compare", json={"input": "good"}, headers={"x-request-id": "a-1"})
    assert answer.headers["x-model-digest"] == answer.json()["student"]["digest"][:12]
    assert answer.headers["x-request-id"] == "a-1"
    assert "teacher;dur=" in answer.headers["server-timing"]


def test_a_teacher_whose_queue_is_full_is_said_to_be_busy(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = hold_teachers(monkeypatch)

    async def act() -> None:
        knobs = {"models": models, "default": "toy", "max_queue_rows": 4, "max_client_share": 1}
        few = knobs | {"max_request_rows": 4, "max_batch_rows": 4}
        async with opened(Settings.model_validate(few)) as door, client_of(door) as client:
            teacher = door.lifecycle.catalogue.resolve("toy-teacher")
            waiting = [await teacher.admit(TEXTS[:4])]
            async with asyncio.timeout(PATIENCE_S):
                while teacher.queued_rows:  # until they are in the worker's hands
                    await asyncio.sleep(0.005)
            waiting.append(await teacher.admit(TEXTS[:4]))
            answer = await client.post("/v1/compare", json={"input": "good"})
            assert (answer.status_code, answer.json()["title"]) == (429, "Queue full")
            assert int(answer.headers["retry-after"]) >= 1
            free.set()
            for pending in waiting:
                await pending.future
            assert (await client.post("/v1/compare", json={"input": "good"})).status_code == 200

    asyncio.run(act())
