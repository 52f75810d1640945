"""What tests of cascades share: a service in this process, and what its answers say of each text."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import httpx2

from service.api.door import Door
from service.bundle.manifest import Role
from service.settings import Settings
from tests.running import PATIENCE_S, client_of, opened
from tests.toys import toy
from tests.toys.pairing import calibration, publish_student, publish_teacher

PERMUTED = (toy.LABELS[2], toy.LABELS[0], toy.LABELS[1])
Answer = dict[str, Any]
Scenario = Callable[[Door], Coroutine[Any, Any, None]]


def publish_all(folder: Path) -> Path:
    """A calibrated student whose teacher has its labels in another order, and two that cannot be in a cascade."""
    publish_student(folder, calibrated=calibration(0.4))
    publish_student(folder, "raw")
    publish_teacher(folder, labels=PERMUTED)
    toy.publish(folder, "tags", "1", Role.STUDENT, labels=toy.LABELS[:2])
    return folder


def visit(models: Path, scenario: Scenario, **knobs: Any) -> None:
    """Run a scenario in this process."""

    async def act() -> None:
        known = {"models": models, "default": "toy", "reload_seconds": 0, "strategy": "cascade", "escalation_budget": 1}
        async with opened(Settings.model_validate(known | knobs)) as door:
            await scenario(door)

    asyncio.run(act())


async def ask(door: Door, texts: Sequence[str], **more: Any) -> httpx2.Response:
    async with client_of(door) as client:
        return await client.post("/v1/classify", json={"input": list(texts), **more}, timeout=PATIENCE_S)


async def rows_of(door: Door, texts: Sequence[str], **more: Any) -> list[Answer]:
    answer = await ask(door, texts, **more)
    assert answer.status_code == 200, answer.text
    rows: list[Answer] = answer.json()["data"]
    return rows


def fates(rows: Sequence[Answer]) -> set[tuple[str, bool, bool]]:
    return {(row["served_by"], row["escalated"], row["degraded"]) for row in rows}


OWN, TOLD, DEGRADED = ("student", False, False), ("teacher", True, False), ("student", True, True)


async def metric(door: Door, name: str, **labels: str) -> float:
    found = door.desk.metrics.registry.get_sample_value(f"understudy_{name}", labels)
    assert found is not None, (name, labels)
    return found
