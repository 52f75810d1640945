"""Toys of a student with its teacher: calibrated, and with the teacher's labels in another order if need be."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.bundle.confidence import margins
from service.bundle.encoder import Row, Text
from service.bundle.manifest import Calibration, Precision, Role, Task
from service.bundle.runtime import OpenBundle, open_bundle
from service.bundle.store import write_bundle
from service.bundle.tasks import Logits
from tests.running import PATIENCE_S
from tests.toys import toy

TEXTS = tuple(
    " ".join((first, second, third))
    for first in toy.WORDS[:6]
    for second in toy.WORDS[5:11]
    for third in (".", "too !")
)
"""Of many margins."""

TEMPERATURE = 1.5


def calibration(threshold: float, teacher: str = "toy-teacher@1") -> Calibration:
    return Calibration(
        teacher=teacher,
        dataset="toy",
        rows=100,
        temperature=TEMPERATURE,
        threshold=threshold,
        target=0.9,
        confidence=0.95,
        bound=0.9,
        agreement=0.95,
        escalation=0.2,
    )


def publish_student(
    models: Path, name: str = "toy", version: str = "1", *, calibrated: Calibration | None = None
) -> Path:
    files = toy.student_files()
    manifest = toy.draft(name, version, Role.STUDENT, files)
    if calibrated is not None:
        manifest = manifest.model_copy(update={"calibration": {Precision.EXACT: calibrated}})
    folder = models / name / version
    write_bundle(folder, manifest, files, card=None)
    return folder


def publish_teacher(
    models: Path,
    name: str = "toy-teacher",
    version: str = "1",
    *,
    labels: Sequence[str] = toy.LABELS,
    task: Task = Task.SINGLE_LABEL,
) -> Path:
    return toy.publish(models, name, version, Role.TEACHER, labels=labels, task=task)


class Beside:
    """A student and a teacher, opened without any service: what a cascade must come to."""

    def __init__(self, student: Path, teacher: Path) -> None:
        self.student, self.teacher = open_bundle(student), open_bundle(teacher)

    def margins(self, texts: Sequence[Text]) -> list[float]:
        """Of the student, at its calibration's temperature."""
        calibrated = self.student.manifest.calibration.get(Precision.EXACT)
        temperature = 1.0 if calibrated is None else calibrated.temperature
        found: list[float] = margins(alone(self.student, texts), temperature).tolist()
        return found

    def scores(self, texts: Sequence[Text], by_teacher: bool) -> list[dict[str, float]]:
        """Label -> score of each text."""
        model = self.teacher if by_teacher else self.student
        scores = model.scores(alone(model, texts)).tolist()
        return [dict(zip(model.manifest.labels, row, strict=True)) for row in scores]


def alone(model: OpenBundle, texts: Sequence[Text]) -> NDArray[np.float32]:
    """(B, L): each text in a batch of its own."""
    return np.concatenate([model.classify([text]) for text in texts])


def hold_teachers(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """From now on runs of teachers wait until this is set: planted from outside, as `tests.service.hanging` does."""
    free = threading.Event()
    run = OpenBundle.run

    def running(bundle: OpenBundle, rows: Sequence[Row], *more: Any) -> Logits:
        # Not the proof that opens a bundle, which another thread runs.
        if bundle.manifest.role is Role.TEACHER and threading.current_thread().name.startswith(bundle.manifest.name):
            assert free.wait(PATIENCE_S)
        return run(bundle, rows, *more)

    monkeypatch.setattr(OpenBundle, "run", running)
    return free
