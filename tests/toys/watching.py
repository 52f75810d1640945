"""A watched student of toys: its bundle with a profile, and what a service says of it."""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from export.measuring.profiles import Seen
from service.api.door import Door
from service.bundle.manifest import Precision, Profile, Role
from service.bundle.runtime import open_bundle
from service.bundle.store import write_bundle
from service.oversight.watch import Watch
from service.settings import Settings
from tests.running import PATIENCE_S, client_of, opened
from tests.toys import toy
from tests.toys.pairing import publish_teacher

Report = dict[str, Any]
Scenario = Callable[[Door], Coroutine[Any, Any, None]]
PERMUTED = (toy.LABELS[2], toy.LABELS[0], toy.LABELS[1])
TEXTS = tuple(" ".join(pair) for pair in zip(toy.WORDS * 14, sorted(toy.WORDS * 14), strict=True))  # 196
OTHERS = tuple(" ".join([word] * 20) for word in toy.WORDS)  # longer ones


def publish_profiled(models: Path, texts: Sequence[str], version: str = "1", agreement: float | None = None) -> None:
    """A student whose bundle says that it was made for these texts."""
    files = toy.student_files()
    reader, draft = toy.encoder(Role.STUDENT, files["tokenizer.json"]), toy.draft("toy", version, Role.STUDENT, files)
    plain = models.parent / f"plain-{version}"
    write_bundle(plain / "toy" / version, draft, files, card=None)
    logits = open_bundle(plain / "toy" / version).classify(texts)
    profile: Profile = Seen("toy texts", reader.encode(texts), reader.unknown_id).profile(logits, 1.0, None)
    profiled = draft.model_copy(
        update={"profile": {Precision.EXACT: profile.model_copy(update={"agreement": agreement})}}
    )
    write_bundle(models / "toy" / version, profiled, files, card=None)


def publish_watched(models: Path) -> Path:
    """A student, and its teacher with the labels in another order."""
    publish_profiled(models, TEXTS)
    publish_teacher(models, labels=PERMUTED)
    return models


def visit(models: Path, scenario: Scenario, **knobs: Any) -> None:
    """Run a scenario in this process."""

    async def act() -> None:
        known = {"models": models, "default": "toy", "reload_seconds": 0}
        async with opened(Settings.model_validate(known | knobs)) as door:
            await scenario(door)

    asyncio.run(act())


async def classify(door: Door, texts: Sequence[str], **more: Any) -> list[Any]:
    async with client_of(door) as client:
        answer = await client.post("/v1/classify", json={"input": list(texts), **more}, timeout=PATIENCE_S)
    assert answer.status_code == 200, answer.text
    rows: list[Any] = answer.json()["data"]
    return rows


async def oversight(door: Door, model: str = "toy") -> Report:
    async with client_of(door) as client:
        answer = await client.get(f"/v1/models/{model}/oversight")
    assert answer.status_code == 200, answer.text
    found: Report = answer.json()
    return found


async def until(door: Door, done: Callable[[Report], bool], model: str = "toy") -> Report:
    deadline = time.monotonic() + PATIENCE_S
    while not done(report := await oversight(door, model)):
        assert time.monotonic() < deadline, report
        await asyncio.sleep(0.01)
    return report


def metric(door: Door, name: str, **labels: str) -> float | None:
    return door.desk.metrics.registry.get_sample_value(f"understudy_{name}", labels)


def watch_of(door: Door) -> Watch:
    assert door.desk.watch is not None
    return door.desk.watch


PAIR = {"model": "toy@1", "teacher": "toy-teacher@1"}


def captured(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as database:
        wanted = "text, student, teacher, student_logits, teacher_logits, reason, probability"
        return database.execute(f"SELECT {wanted} FROM texts ORDER BY id").fetchall()
