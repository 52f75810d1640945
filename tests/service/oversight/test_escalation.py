"""An escalation that fails leaves the student's answer, whatever the teacher does and whoever comes and goes."""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from service.api.door import Door
from service.bundle.encoder import Row
from service.bundle.runtime import OpenBundle
from service.bundle.tasks import Logits
from tests.running import PATIENCE_S, client_of
from tests.toys.cascading import DEGRADED, OWN, PERMUTED, TOLD, Answer, ask, fates, metric, rows_of, visit
from tests.toys.pairing import TEXTS, Beside, calibration, hold_teachers, publish_student, publish_teacher

# --- a teacher that cannot


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Runs of teachers wait until this is set."""
    free = hold_teachers(monkeypatch)
    yield free
    free.set()


def test_a_teacher_that_is_late_leaves_the_students_answer(
    cascading: Path, beside: Beside, held: threading.Event
) -> None:
    async def scenario(door: Door) -> None:
        began = time.perf_counter()
        rows = await rows_of(door, TEXTS[:3])
        assert 0.1 <= time.perf_counter() - began < 5
        assert fates(rows) == {DEGRADED}
        own = beside.scores(TEXTS[:3], by_teacher=False)
        assert [row["scores"] for row in rows] == [pytest.approx(scores, abs=1e-5) for scores in own]
        assert await metric(door, "escalated_rows_total", model="toy@1", outcome="late") == 3
        held.set()
        async with asyncio.timeout(PATIENCE_S):
            while fates(await rows_of(door, TEXTS[:1])) != {TOLD}:  # as soon as it can again
                await asyncio.sleep(0.01)

    visit(cascading, scenario, cascade_threshold=1, escalation_seconds=0.1)


def test_the_teacher_has_no_more_time_than_the_request(cascading: Path, held: threading.Event) -> None:
    async def scenario(door: Door) -> None:
        began = time.perf_counter()
        async with client_of(door) as client:
            headers = {"x-request-timeout": "300ms"}
            answer = await client.post("/v1/classify", json={"input": TEXTS[0]}, headers=headers)
        assert answer.status_code == 200
        assert fates(answer.json()["data"]) == {DEGRADED}
        assert time.perf_counter() - began < 5
        held.set()  # or the end would wait for the teacher

    visit(cascading, scenario, cascade_threshold=1, escalation_seconds=60)


def test_a_full_queue_of_the_teacher_leaves_the_students_answer(cascading: Path, held: threading.Event) -> None:
    async def scenario(door: Door) -> None:
        teacher = door.lifecycle.catalogue.resolve("toy-teacher")
        waiting = []
        async with asyncio.timeout(PATIENCE_S):
            for queued in (0, 4, 8):  # the first four are in the worker's hands
                waiting.append(asyncio.create_task(rows_of(door, TEXTS[:4], model="toy-teacher")))
                await asyncio.sleep(0.05)
                while teacher.queued_rows != queued:
                    await asyncio.sleep(0.005)
        assert fates(await rows_of(door, TEXTS[:1])) == {DEGRADED}
        assert await metric(door, "escalated_rows_total", model="toy@1", outcome="full") == 1
        held.set()
        await asyncio.gather(*waiting)
        assert fates(await rows_of(door, TEXTS[:1])) == {TOLD}

    few = {"max_queue_rows": 8, "max_request_rows": 8, "max_client_share": 1, "max_batch_rows": 4}
    visit(cascading, scenario, cascade_threshold=1, **few)


@pytest.mark.parametrize("how", ["raises", "hangs"])
def test_a_teacher_that_fails_leaves_the_students_answer(
    cascading: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    run, free = OpenBundle.run, threading.Event()

    def running(bundle: OpenBundle, rows: Sequence[Row], *more: Any) -> Logits:
        if threading.current_thread().name.startswith("toy-teacher@"):
            if how == "raises":
                raise RuntimeError("planted")
            assert free.wait(PATIENCE_S)
        return run(bundle, rows, *more)

    monkeypatch.setattr(OpenBundle, "run", running)

    async def scenario(door: Door) -> None:
        assert fates(await rows_of(door, TEXTS[:2])) == {DEGRADED}
        assert fates(await rows_of(door, TEXTS[:2])) == {DEGRADED}  # while its worker is replaced too
        assert await metric(door, "escalated_rows_total", model="toy@1", outcome="failed") == 4
        free.set()

    visit(cascading, scenario, cascade_threshold=1, max_run_seconds=0.1, escalation_seconds=20)


def test_a_budget_that_is_used_up_leaves_the_students_answer(cascading: Path) -> None:
    async def scenario(door: Door) -> None:
        assert fates(await rows_of(door, TEXTS[:2])) == {DEGRADED}
        assert await metric(door, "escalated_rows_total", model="toy@1", outcome="budget") == 2
        assert await metric(door, "rows_total", model="toy-teacher@1") == 0
        door.desk.metrics.sample()
        assert await metric(door, "escalation_budget_seconds") == 0

    visit(cascading, scenario, cascade_threshold=1, escalation_budget=0)


def test_the_budget_is_spent_by_what_the_teacher_ran(cascading: Path) -> None:
    async def left(door: Door) -> float:
        door.desk.metrics.sample()
        return await metric(door, "escalation_budget_seconds")

    async def scenario(door: Door) -> None:
        before = await left(door)
        for text in TEXTS[:20]:
            await rows_of(door, [text])
        ran = await metric(door, "inference_seconds_sum", model="toy-teacher@1")
        assert ran > 0
        assert await left(door) >= before - ran - 1e-3

    visit(cascading, scenario, cascade_threshold=1, escalation_budget=0.5)


@pytest.mark.parametrize(
    ("knobs", "status", "said"),
    [
        ({"escalation_budget": 0}, 429, "share of time"),
        ({"escalation_seconds": 0.1}, 503, "in time"),
    ],
)
def test_where_the_settings_say_so_the_request_is_refused_instead(
    cascading: Path, held: threading.Event, knobs: Answer, status: int, said: str
) -> None:
    async def scenario(door: Door) -> None:
        answer = await ask(door, TEXTS[:1])
        assert answer.status_code == status
        assert said in answer.json()["detail"]
        assert int(answer.headers["retry-after"]) >= 1
        held.set()  # or the end would wait for the teacher

    visit(cascading, scenario, cascade_threshold=1, when_teacher_busy="refuse", **knobs)


def test_a_client_that_leaves_takes_its_escalation_along(cascading: Path, held: threading.Event) -> None:
    async def scenario(door: Door) -> None:
        teacher = door.lifecycle.catalogue.resolve("toy-teacher")
        leaving = [asyncio.create_task(ask(door, [text])) for text in TEXTS[:3]]
        async with asyncio.timeout(PATIENCE_S):
            while teacher.queued_rows < 2:
                await asyncio.sleep(0.005)
            for task in leaving:
                task.cancel()
            while teacher.queued_rows:
                await asyncio.sleep(0.005)
        held.set()

    visit(cascading, scenario, cascade_threshold=1, escalation_seconds=20, max_batch_rows=1)


# --- teachers come and go


def test_a_teacher_may_be_replaced_or_unloaded_while_students_cascade(tmp_path: Path) -> None:
    publish_student(tmp_path, calibrated=calibration(1.0))
    publish_teacher(tmp_path)

    async def scenario(door: Door) -> None:
        stop, seen = asyncio.Event(), list[str | None]()

        async def go_on() -> None:
            while not stop.is_set():
                answer = await ask(door, TEXTS[:3])
                assert answer.status_code == 200, answer.text
                assert fates(answer.json()["data"]) <= {TOLD, DEGRADED}
                seen.append(answer.json().get("teacher"))

        async def until(teacher: str | None) -> None:
            async with asyncio.timeout(PATIENCE_S):
                while not seen or seen[-1] != teacher:
                    await asyncio.sleep(0.005)

        catalogue = door.lifecycle.catalogue
        asking = [asyncio.create_task(go_on()) for _ in range(4)]
        await until("toy-teacher@1")
        publish_teacher(tmp_path, version="2", labels=PERMUTED)
        assert (await catalogue.refresh()).opened == ("toy-teacher@2",)
        await until("toy-teacher@2")
        await catalogue.unload("toy-teacher")
        await until(None)
        assert fates(await rows_of(door, TEXTS[:1])) == {DEGRADED}
        named = await ask(door, TEXTS[:1], strategy="cascade")
        assert (named.status_code, "no teacher of toy@1 is served" in named.text) == (404, True)
        await catalogue.load("toy-teacher")
        await until("toy-teacher@2")
        stop.set()
        await asyncio.gather(*asking)
        changes = [one for one, other in pairwise([*seen, "end"]) if one != other]
        assert set(changes) == {"toy-teacher@1", "toy-teacher@2", None}

    visit(tmp_path, scenario)


def test_where_the_setting_wants_the_teacher_alone_and_it_has_gone_there_is_no_answer(tmp_path: Path) -> None:
    publish_student(tmp_path)
    publish_teacher(tmp_path)

    async def scenario(door: Door) -> None:
        assert fates(await rows_of(door, TEXTS[:1])) == {("teacher", False, False)}
        await door.lifecycle.catalogue.unload("toy-teacher")
        gone = await ask(door, TEXTS[:1])
        assert (gone.status_code, gone.headers["retry-after"]) == (503, "1")
        assert fates(await rows_of(door, TEXTS[:1], strategy="student")) == {OWN}

    visit(tmp_path, scenario, strategy="teacher")


def test_a_new_student_without_calibration_is_said_to_be_degraded(tmp_path: Path) -> None:
    publish_student(tmp_path, calibrated=calibration(0.0))
    publish_teacher(tmp_path)

    async def scenario(door: Door) -> None:
        assert fates(await rows_of(door, TEXTS[:2])) == {OWN}
        publish_student(tmp_path, version="2")
        assert (await door.lifecycle.catalogue.refresh()).opened == ("toy@2",)
        assert fates(await rows_of(door, TEXTS[:2])) == {("student", False, True)}
        assert await metric(door, "escalated_rows_total", model="toy@2", outcome="uncalibrated") == 2

    visit(tmp_path, scenario)
