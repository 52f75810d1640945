"""Several labels a text, and numbers, the whole way: a teacher, its student, the bundle as it is served."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.learning.fine_tuning import fine_tune
from export.measuring.evaluation import evaluate
from export.pipeline import Judged, Places, adopt, distill
from export.publishing.publish import Called
from export.teachers.hugging_face import Teacher
from export.texts.datasets import Columns
from service.bundle.manifest import Precision, Task
from service.bundle.runtime import open_bundle
from service.bundle.store import read_manifest
from tests.toys.workshop import Shop, sentences

LONGER = {"epochs": 16, "batch_size": 16, "learning_rate": 3e-3, "bf16": False, "average": 0.8}
"""After eight epochs a toy of several labels has hardly left the plateau on which it says yes to everything."""


@dataclass(frozen=True)
class Chore:
    """A task of the toy sentences."""

    task: Task
    labels: tuple[str, ...]
    metric: str  # the one that selects
    least: float  # that a student must reach

    @property
    def data(self) -> dict[str, Any]:
        return {"task": str(self.task), "labels": list(self.labels)}

    def cell(self, text: str, praise: int) -> str:
        """What stands in the column of the label."""
        if self.task is Task.REGRESSION:
            return str(4.0 * praise + 0.5 * sum(word in text for word in ("film", "story")) - 2)
        found = {"praise": praise, "blame": not praise, "said": True}
        return ",".join(label for label, holds in found.items() if holds)


# Wide enough that some of its ReLUs live whatever the last bits of the training are: of 16 too few did, now and then.
STUDENT = {"embedding": 16, "hidden": 12, "dense": 48, "max_tokens": 32}
CHORES = (
    Chore(Task.MULTI_LABEL, ("praise", "blame", "said"), "micro-F1", 0.85),
    Chore(Task.REGRESSION, ("score",), "Pearson", 0.85),
)


@dataclass(frozen=True)
class Made:
    """What went the whole way."""

    chore: Chore
    dev: Path
    taught: Path
    student: Path
    adopted: Path


@pytest.fixture(scope="module", params=CHORES, ids=lambda chore: str(chore.task))
def made(request: pytest.FixtureRequest, shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Made:
    chore: Chore = request.param
    folder = tmp_path_factory.mktemp(str(chore.task))
    rows = [f"{text}\t{chore.cell(text, praise)}\n" for text, praise in sentences()]
    files = folder / "train.tsv", folder / "dev.tsv"
    for file, part in zip(files, (rows[:200], rows[200:]), strict=True):
        file.write_text("text\tlabel\n" + "".join(part))
    data = chore.data | {"train": str(files[0]), "dev": str(files[1])}
    taught = fine_tune(shop.teach_recipe(data=data, training=LONGER), folder / "teacher")
    places = Places(folder / "work", folder / "models")
    student = distill(shop.distill_recipe(taught, data=data, student=STUDENT), places, "a test")
    adopted = adopt(str(taught), Called("toy-teacher"), Judged(str(files[1]), Columns()), places.models, "a test")
    return Made(chore, files[1], taught, student, adopted)


def test_a_teacher_says_what_its_logits_mean(made: Made) -> None:
    teacher = Teacher.load(str(made.taught))
    assert (teacher.task, teacher.labels) == (made.chore.task, made.chore.labels)
    assert read_manifest(made.adopted).task is made.chore.task


def test_a_student_learns_the_task_and_its_bundle_says_how_well(made: Made) -> None:
    chore = made.chore
    for precision in Precision:
        found = evaluate(made.student, precision, str(made.dev), Columns(), made.adopted)
        assert found.metrics[chore.metric] > chore.least
        written = {(row.what, row.metric): row.value for row in read_manifest(made.student).results}
        assert written[f"student, {precision}", chore.metric] == pytest.approx(found.metrics[chore.metric], abs=1e-6)
        assert (found.agreement is None) is (chore.task is Task.REGRESSION)


def test_a_student_answers_alone_as_in_company(made: Made) -> None:
    bundle = open_bundle(made.student)
    texts = [text for text, _ in itertools.islice(sentences(), 40)]
    together, alone = bundle.classify(texts), np.concatenate([bundle.classify([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    scores = bundle.scores(together)
    if made.chore.task is Task.REGRESSION:
        assert np.array_equal(scores, together.astype(np.float64))
    else:
        assert ((scores > 0) & (scores < 1)).all()
