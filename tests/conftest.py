"""What several test files share: a folder of small real bundles."""

from pathlib import Path

import pytest

from service.bundle.manifest import Role
from tests import toy


@pytest.fixture(scope="session")
def toy_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a student `toy` (exact and fast) and a teacher `toy-teacher`. Read only."""
    models = tmp_path_factory.mktemp("models")
    toy.publish(models, "toy", "1", Role.STUDENT)
    toy.publish(models, "toy-teacher", "1", Role.TEACHER)
    return models


@pytest.fixture(scope="session")
def toy_student(toy_models: Path) -> Path:
    """The student's folder. Read only."""
    return toy_models / "toy" / "1"


@pytest.fixture(scope="session")
def toy_teacher(toy_models: Path) -> Path:
    """The teacher's folder. Read only."""
    return toy_models / "toy-teacher" / "1"
