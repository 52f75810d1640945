"""The watch over a student, in a real service: agreement, drift, and what it must never do."""

import asyncio
import logging
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.api.door import Door
from service.bundle.manifest import Role, Task
from service.bundle.runtime import OpenBundle
from tests.running import client_of
from tests.toys import toy
from tests.toys.pairing import Beside, hold_teachers, publish_student, publish_teacher
from tests.toys.watching import (
    OTHERS,
    PAIR,
    PERMUTED,
    TEXTS,
    Report,
    classify,
    metric,
    oversight,
    publish_profiled,
    until,
    visit,
    watch_of,
)

# --- agreement


def test_agreement_is_the_one_that_both_have_without_us(watched: Path) -> None:
    beside = Beside(watched / "toy" / "1", watched / "toy-teacher" / "1")
    ours, theirs = (beside.scores(TEXTS, by_teacher) for by_teacher in (False, True))
    agreed = sum(max(a, key=a.__getitem__) == max(b, key=b.__getitem__) for a, b in zip(ours, theirs, strict=True))
    distance = np.mean([abs(a[label] - b[label]) for a, b in zip(ours, theirs, strict=True) for label in a])

    async def act(door: Door) -> None:
        for start in range(0, len(TEXTS), 49):
            await classify(door, TEXTS[start : start + 49])
        report = await until(door, lambda report: report["agreement"]["ever"]["rows"] == len(TEXTS))
        found = report["agreement"]
        assert (found["ever"]["agreed"], found["lately"]["agreed"]) == (agreed, agreed)
        assert 0 < agreed < len(TEXTS)
        assert found["distance"] == pytest.approx(distance, abs=1e-6)
        assert found["lately"]["low"] < found["lately"]["share"] < found["lately"]["high"]
        assert found["teacher"] == "toy-teacher@1"
        assert found["missed"] == 0
        assert metric(door, "watched_rows_total", **PAIR) == len(TEXTS)
        assert metric(door, "agreed_rows_total", **PAIR) == agreed
        assert metric(door, "agreement_low", **PAIR) == pytest.approx(found["lately"]["low"])
        assert metric(door, "agreement_high", **PAIR) == pytest.approx(found["lately"]["high"])

    visit(watched, act, watch_share=1, watch_queue=500)


def test_a_share_of_the_answers_is_sampled(watched: Path) -> None:
    async def act(door: Door) -> None:
        for _ in range(20):
            await classify(door, TEXTS[:100])
        report = await until(door, lambda report: report["rows"] == 2000 and not watch_of(door)._sampled)
        sampled = report["agreement"]["ever"]["rows"]
        assert sampled + 8 >= 130 and sampled <= 280  # 200 were to be expected; 8 may be with the teacher

    visit(watched, act, watch_share=0.1, watch_queue=2000)


def test_a_busy_teacher_costs_samples_and_nobodys_time(watched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = hold_teachers(monkeypatch)

    async def act(door: Door) -> None:
        asked = asyncio.create_task(classify(door, TEXTS[:3], model="toy-teacher"))
        teacher = door.lifecycle.catalogue.resolve("toy-teacher")
        while teacher.idle:
            await asyncio.sleep(0.001)
        wanted = await classify(door, TEXTS[:50])
        report = await until(door, lambda report: report["rows"] == 50)
        assert report["agreement"]["missed"] == 40
        assert report["agreement"]["ever"]["rows"] == 0
        assert metric(door, "watch_missed_rows_total", reason="busy") == 40
        await asyncio.sleep(0.05)
        assert teacher.queued_rows == 0  # nothing of ours stands in anybody's way
        assert await classify(door, TEXTS[:50]) == wanted
        await until(door, lambda report: report["rows"] == 100)  # taken in while there was no room for any of them
        free.set()
        await asked
        await until(door, lambda report: report["agreement"]["ever"]["rows"] == 10)

    visit(watched, act, watch_share=1, watch_queue=10)


def test_a_failing_teacher_is_counted(watched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = OpenBundle.run

    def failing(bundle: OpenBundle, rows: Sequence[Any], *more: Any) -> Any:
        if bundle.manifest.role is Role.TEACHER and threading.current_thread().name.startswith("toy-teacher"):
            raise RuntimeError("no")
        return run(bundle, rows, *more)

    monkeypatch.setattr(OpenBundle, "run", failing)

    async def act(door: Door) -> None:
        await classify(door, TEXTS[:5])
        report = await until(door, lambda report: report["agreement"]["missed"] == 5)
        assert report["agreement"]["ever"]["rows"] == 0
        assert metric(door, "watch_missed_rows_total", reason="failed") == 5
        assert watch_of(door).off is None

    visit(watched, act, watch_share=1)


def test_a_new_student_or_teacher_begins_anew(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    publish_student(folder)
    publish_teacher(folder)

    async def swapped(door: Door) -> None:
        await door.lifecycle.catalogue.refresh()

    async def act(door: Door) -> None:
        def scored(rows: int) -> Callable[[Report], bool]:
            return lambda report: report["agreement"]["ever"]["rows"] == rows

        await classify(door, TEXTS[:9])
        first = await until(door, scored(9))
        publish_teacher(folder, version="2")
        await swapped(door)
        report = await oversight(door)
        assert report["agreement"]["teacher"] == "toy-teacher@2"
        assert report["agreement"]["teacher_digest"] != first["agreement"]["teacher_digest"]
        assert report["agreement"]["ever"]["rows"] == 0
        assert metric(door, "watched_rows_total", **PAIR) is None
        await classify(door, TEXTS[:4])
        await until(door, scored(4))
        publish_student(folder, version="2")
        await swapped(door)
        report = await oversight(door)
        assert (report["model"], report["rows"], report["agreement"]["ever"]["rows"]) == ("toy@2", 0, 0)
        await classify(door, TEXTS[:2])
        await until(door, scored(2))
        assert metric(door, "watched_rows_total", model="toy@1", teacher="toy-teacher@2") is None
        assert metric(door, "watched_rows_total", model="toy@2", teacher="toy-teacher@2") == 2

    visit(folder, act, watch_share=1)


def test_too_little_agreement_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "models"
    publish_profiled(folder, TEXTS, agreement=1.0)
    publish_teacher(folder, labels=PERMUTED)

    async def act(door: Door) -> None:
        for _ in range(2):
            await classify(door, TEXTS)
        report = await until(door, lambda report: report["agreement"]["ever"]["rows"] == 2 * len(TEXTS))
        assert report["agreement"]["expected"] == 1
        assert report["agreement"]["alarm"]
        assert report["agreement"]["since"] is not None
        assert report["alarms"] == ["agreement"]
        assert metric(door, "agreement_alarm", **PAIR) == 1

    with caplog.at_level(logging.WARNING, "understudy"):
        visit(folder, act, watch_share=1, watch_queue=500)
    assert [record.message[:40] for record in caplog.records] == ["toy@1: lately it agrees with toy-teacher"]


# --- drift


def test_other_texts_are_noticed_and_said_once(watched: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def act(door: Door) -> None:
        for _ in range(6):
            await classify(door, TEXTS)
        calm = await until(door, lambda report: report["drift"]["rows"] == 6 * len(TEXTS))
        assert calm["alarms"] == []
        assert [each["feature"] for each in calm["drift"]["features"]] == ["tokens", "unknown", "margin"]
        assert (calm["drift"]["dataset"], calm["drift"]["profile_rows"]) == ("toy texts", len(TEXTS))
        assert all(each["rows"] == 1000 and not each["alarm"] for each in calm["drift"]["features"])
        for _ in range(20):
            await classify(door, OTHERS * 7)
        shifted = await until(door, lambda report: report["drift"]["rows"] == 6 * len(TEXTS) + 20 * 7 * len(OTHERS))
        assert "tokens" in shifted["alarms"]
        tokens = shifted["drift"]["features"][0]
        assert tokens["alarm"]
        assert tokens["since"] is not None
        assert tokens["effect"] > 1
        assert tokens["probability"] < 1e-9
        assert metric(door, "drift_alarm", model="toy@1", feature="tokens") == 1
        assert metric(door, "drift_effect", model="toy@1", feature="tokens") == pytest.approx(tokens["effect"])

    with caplog.at_level(logging.WARNING, "understudy"):
        visit(watched, act)
    said = [record.message for record in caplog.records if "by tokens" in record.message]
    assert len(said) == 1
    assert said[0].startswith("toy@1: its texts are unlike the profile by tokens")


# --- what is off


def test_what_is_off_is_said(watched: Path, zoo: Path) -> None:
    async def plain(door: Door) -> None:
        await classify(door, TEXTS[:3])
        report = await oversight(door)
        assert report["agreement"] is report["drift"] is report["capture"] is None
        assert report["off"] == ["agreement: set --watch-share", "drift: set --drift", "capture: set --capture"]
        assert (await oversight(door, "toy-teacher@1"))["off"][0].startswith("everything: it is a teacher")
        async with client_of(door) as client:
            assert (await client.get("/v1/models/nobody/oversight")).status_code == 404

    visit(watched, plain, drift=False)

    async def of_zoo(door: Door) -> None:
        report = await oversight(door, "tags")
        assert "agreement: no teacher" in report["off"][0]
        assert "drift: the bundle has no profile" in report["off"][1]
        await classify(door, TEXTS[:3], model="tags")
        await asyncio.sleep(0.2)
        report = await oversight(door, "tags")
        assert (report["rows"], report["agreement"]) == (3, None)

    visit(zoo, of_zoo, watch_share=1)


def test_a_regression_has_no_labels_to_agree_on(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    toy.publish(folder, "toy", "1", Role.STUDENT, task=Task.REGRESSION, labels=("score",))
    toy.publish(folder, "toy-teacher", "1", Role.TEACHER, task=Task.REGRESSION, labels=("score",))

    async def act(door: Door) -> None:
        await classify(door, TEXTS[:3])
        report = await until(door, lambda report: report["rows"] == 3)
        assert report["agreement"] is None
        assert report["off"][0] == "agreement: numbers, vectors and answers are no labels to agree on"

    visit(folder, act, watch_share=1)


def test_a_fault_of_ours_switches_it_off_and_hurts_nobody(
    watched: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(door: Door) -> None:
        wanted = await classify(door, TEXTS[:3])
        await until(door, lambda report: report["rows"] == 3)
        monkeypatch.setattr("service.oversight.student.unknown_shares", None)
        for _ in range(5):
            assert await classify(door, TEXTS[:3]) == wanted
            await asyncio.sleep(0.06)
        assert (await oversight(door))["off"][0].startswith("everything: a fault of ours")

    with caplog.at_level(logging.WARNING, "understudy"):
        visit(watched, act, watch_share=1)
    assert [record.message for record in caplog.records] == ["the watch over students is off"]


def test_students_that_are_asked_in_turns_are_looked_at_together(
    watched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.oversight.watch.SOON_S", 3600)
    models = Path(shutil.copytree(watched, tmp_path / "models"))
    toy.publish(models, "other", "1", Role.STUDENT)

    async def act(door: Door) -> None:
        for text in TEXTS[:20]:
            for model in ("toy", "other"):
                await classify(door, [text], model=model)
        watch_of(door)._look()
        assert [(await oversight(door, model))["rows"] for model in ("toy", "other")] == [20, 20]

    visit(models, act)


def test_answers_that_come_faster_than_they_are_taken_in_do_not_pile_up(
    watched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"SOON_S": 3600, "BUSY_S": 0, "BLOCK_ROWS": 1, "MOST_ANSWERED": 3}.items():
        monkeypatch.setattr(f"service.oversight.watch.{name}", value)

    async def act(door: Door) -> None:
        for text in TEXTS[:10]:
            await classify(door, [text])
        watch_of(door)._take_in()
        assert len(watch_of(door)._answered) == 3

    visit(watched, act)
