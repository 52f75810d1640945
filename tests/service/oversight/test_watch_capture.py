"""Texts that a real service keeps to learn from: which, with what beside them, and nowhere else."""

import asyncio
import errno
import json
import os
import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.api.door import Door
from service.settings import SettingProblem
from tests.running import PATIENCE_S, client_of, command, serving
from tests.toys import toy
from tests.toys.pairing import Beside, alone, hold_teachers
from tests.toys.watching import (
    PERMUTED,
    TEXTS,
    captured,
    classify,
    until,
    visit,
)


def test_unsure_texts_are_kept_and_others_by_chance(watched: Path, tmp_path: Path) -> None:
    path, bar = tmp_path / "texts.db", 0.6
    beside = Beside(watched / "toy" / "1", watched / "toy-teacher" / "1")
    unsure = [text for text, margin in zip(TEXTS, beside.margins(TEXTS), strict=True) if margin < bar]

    async def act(door: Door) -> None:
        for _ in range(5):
            await classify(door, TEXTS)
        await until(door, lambda report: report["agreement"]["ever"]["rows"] == 5 * len(TEXTS))

    visit(watched, act, watch_share=1, watch_queue=2000, capture=path, capture_share=0.2, capture_margin=bar)
    rows = captured(path)
    low = [row for row in rows if row[5] == "low-margin"]
    assert sorted(row[0] for row in low) == sorted(unsure * 5)
    assert {row[6] for row in low} == {1}
    sampled = [row for row in rows if row[5] == "sampled"]
    assert {row[6] for row in sampled} == {0.2}
    assert {row[0] for row in sampled}.isdisjoint(unsure)
    others = 5 * (len(TEXTS) - len(unsure))
    assert 0.1 * others < len(sampled) < 0.3 * others
    order = [PERMUTED.index(label) for label in toy.LABELS]
    for text, student, teacher, ours, theirs, _, _ in rows[::20]:
        assert (student, teacher) == ("toy@1", "toy-teacher@1")
        assert np.frombuffer(ours, "<f4") == pytest.approx(alone(beside.student, [text])[0], abs=1e-5)
        assert np.frombuffer(theirs, "<f4") == pytest.approx(alone(beside.teacher, [text])[0][order], abs=1e-5)


def test_what_the_teacher_never_saw_is_kept_all_the_same(
    watched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, path = hold_teachers(monkeypatch), tmp_path / "texts.db"

    async def act(door: Door) -> None:
        asked = asyncio.create_task(classify(door, TEXTS[:3], model="toy-teacher"))
        while door.lifecycle.catalogue.resolve("toy-teacher").idle:
            await asyncio.sleep(0.001)
        await classify(door, TEXTS[:20])
        await until(door, lambda report: report["rows"] == 20)
        free.set()
        await asked

    visit(watched, act, watch_share=1, watch_queue=5, capture=path, capture_share=1, drain_seconds=0)
    assert sorted(row[0] for row in captured(path)) == sorted(TEXTS[:20])


def test_with_a_teacher_or_without_pairs_of_texts_are_kept(zoo: Path, tmp_path: Path) -> None:
    path = tmp_path / "texts.db"

    async def act(door: Door) -> None:
        async with client_of(door) as client:
            asked = {"model": "twins", "input": [{"text": "good", "text_pair": "a film"}]}
            assert (await client.post("/v1/classify", json=asked)).status_code == 200
        await asyncio.sleep(0.1)

    visit(zoo, act, capture=path, capture_share=1)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT text, text_pair, student FROM texts").fetchall() == [
            ("good", "a film", "twins@1")
        ]


def test_a_real_server_keeps_texts_in_that_file_alone(watched: Path, tmp_path: Path) -> None:
    path = tmp_path / "texts.db"
    flags = ("--capture", str(path), "--capture-share", "1", "--capture-redact", "emails", "--default", "toy")
    with serving(watched, *flags, "--watch-share", "1") as running:
        with running.client() as client:
            client.post("/v1/classify", json={"input": ["good qztextzq", "ask joe@mail.example"]})
            deadline = time.monotonic() + PATIENCE_S
            while client.get("/v1/models/toy/oversight").json()["capture"]["sampled"] < 2:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            seen = client.get("/metrics").text + json.dumps(client.get("/v1/models/toy/oversight").json())
        assert "qztextzq" not in seen
        assert running.stop() == 0
    assert sorted(row[0] for row in captured(path)) == ["ask EMAIL", "good qztextzq"]
    assert list(tmp_path.iterdir()) == [path]  # the log went with the last that had it open


def test_workers_share_the_file_and_add_up_their_counts(watched: Path, tmp_path: Path) -> None:
    path, asked = tmp_path / "texts.db", 30
    flags = ("--capture", str(path), "--capture-share", "1", "--watch-share", "1", "--default", "toy")
    with serving(watched, *flags, "--workers", "2") as running:
        for _ in range(asked):
            with running.client() as client:
                client.post("/v1/classify", json={"input": TEXTS[:3]})

        def total(name: str) -> float:
            with running.client() as client:
                found = re.findall(rf"^understudy_{name}{{.*}} (\S+)$", client.get("/metrics").text, re.MULTILINE)
            return sum(map(float, found))

        deadline = time.monotonic() + PATIENCE_S
        while total("captured_texts_total") < 3 * asked or total("watched_rows_total") < 3 * asked:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with running.client() as client:
            assert client.get("/v1/models/toy/oversight").json()["workers"] == 2
        assert running.stop() == 0
    assert len(captured(path)) == 3 * asked


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--capture", "nowhere/texts.db"), "--capture nowhere/texts.db: No such file or directory"),
        (("--capture-redact", "names", "--capture"), "--capture-redact: no redactor names"),
        (("--watch-share", "2"), "--watch-share"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line(watched: Path, tmp_path: Path, flags: tuple[str, ...], said: str) -> None:
    given = (*flags, str(tmp_path / "texts.db")) if flags[-1] == "--capture" else flags
    done = command("serve", "--port", "0", "--models", str(watched), *given)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3


def test_the_application_says_it_too(watched: Path) -> None:
    with pytest.raises(SettingProblem, match="name a file that can be written"):
        visit(watched, lambda _: asyncio.sleep(0), capture=Path("/nowhere/at/all.db"))


def test_a_disk_that_is_full_at_the_start_keeps_nobody_from_serving(
    watched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, open_file = tmp_path / "texts.db", os.open

    def full(place: Any, *how: Any, **more: Any) -> int:
        if place == path:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return open_file(place, *how, **more)

    monkeypatch.setattr("os.open", full)

    async def act(door: Door) -> None:
        await classify(door, TEXTS[:3])
        off = (await until(door, lambda report: report["capture"]["lost"] == 3))["off"]
        assert off[-1].startswith("capture: it has stopped (OSError: No space left on device)")  # and not where

    visit(watched, act, capture=path, capture_share=1)
