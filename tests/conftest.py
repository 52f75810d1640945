"""What several test files share: a folder of small real bundles."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from service.bundle.manifest import Role
from service.bundle.runtime import OpenBundle, open_bundle
from tests.toys import toy

if TYPE_CHECKING:  # the workshop brings torch, which the service's tests do without
    from tests.running import Running
    from tests.service.web.browsing import Page
    from tests.toys.pairing import Beside
    from tests.toys.workshop import Distilled, Shop

# The same examples in every run, however slow the machine is.
settings.register_profile("understudy", derandomize=True, deadline=None)
settings.load_profile("understudy")


LONGEST = (
    "several_processes",
    "pipeline",
    "cluster",
    "hugging_face",
    "shutdown",
    "schema",
    "other_tasks",
    "changes",
    "transformer_students",
    "processes",
    "prove_bulk",
    "prove_watch",
    "answering_way",
    "bench_pair",
    "bulk_command",
    "approximation",
)
"""Files that take half a minute and more, the longest first: begun last, one of them would keep one worker busy while
the other has nothing left. `make test` lets xdist keep this order."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Stable: within a file nothing changes places."""
    places = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """For toy networks: two wait for each other most of the time, and take minutes where the cores are busy."""
    if "torch" in sys.modules:  # not where the service alone is tested
        sys.modules["torch"].set_num_threads(1)


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
def toy_bundle(toy_student: Path) -> OpenBundle:
    """The same, opened."""
    return open_bundle(toy_student)


@pytest.fixture(scope="session")
def thirteen_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Parquet file of so many. Read only."""
    from tests.service.offline.bulking import thirteen  # which brings pyarrow, an extra

    return thirteen(tmp_path_factory.mktemp("thirteen"))


@pytest.fixture(scope="session")
def toy_teacher(toy_models: Path) -> Path:
    """The teacher's folder. Read only."""
    return toy_models / "toy-teacher" / "1"


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a toy of each task and of each kind of pair. Read only."""
    models = tmp_path_factory.mktemp("zoo")
    toy.publish_zoo(models)
    return models


@pytest.fixture(scope="session")
def cascading(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a calibrated student `toy`, its teacher, and two that cannot be in a cascade. Read only."""
    from tests.toys.cascading import publish_all

    return publish_all(tmp_path_factory.mktemp("cascading"))


@pytest.fixture(scope="session")
def beside(cascading: Path) -> Beside:
    """That student and its teacher, to ask them in this process."""
    from tests.toys.pairing import Beside

    return Beside(cascading / "toy" / "1", cascading / "toy-teacher" / "1")


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a student that has a profile, and its teacher with the labels in another order. Read only."""
    from tests.toys.watching import publish_watched

    return publish_watched(tmp_path_factory.mktemp("watched") / "models")


@pytest.fixture(scope="session")
def taggers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tagger `ner` that has a profile, its teacher, and a pair of classifiers. Read only."""
    from tests.toys.tagging import publish_taggers

    return publish_taggers(tmp_path_factory.mktemp("taggers"))


@pytest.fixture(scope="session")
def page() -> Iterator[Page]:
    """A browser, for tests that are marked as `tests.service.web.browsing.NEEDED`."""
    from tests.service.web.browsing import browsing

    with browsing() as opened:
        yield opened


@pytest.fixture
def opened(page: Page, server: Running) -> Iterator[Page]:
    """The playground of the `server` that the test's own file has."""
    from tests.service.web.browsing import visiting

    with visiting(page, server.url) as visited:
        yield visited


@pytest.fixture
def student(toy_student: Path, tmp_path: Path) -> Path:
    """A copy of the student that a test may spoil."""
    return Path(shutil.copytree(toy_student, tmp_path / "models" / "toy" / "1"))


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Data and an encoder. Read only."""
    from tests.toys import workshop

    return workshop.open_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="session")
def taught(shop: Shop) -> Path:
    """A teacher, fine-tuned from the encoder: a Hugging Face folder. Read only."""
    from export.learning.fine_tuning import fine_tune

    return fine_tune(shop.teach_recipe(), shop.folder / "teacher")


@pytest.fixture(scope="session")
def distilled(shop: Shop, taught: Path) -> Distilled:
    """A student, distilled from that teacher and published. Read only."""
    from export.pipeline import Places, distill
    from tests.toys.workshop import Distilled

    recipe, places = shop.distill_recipe(taught), Places(shop.folder / "runs", shop.folder / "models")
    return Distilled(recipe, places, distill(recipe, places, "a test"))


@pytest.fixture(scope="session")
def adopted(shop: Shop, taught: Path) -> Path:
    """That teacher as a bundle. Read only."""
    from export.pipeline import Judged, adopt
    from export.publishing.publish import Called
    from export.texts.datasets import Columns

    return adopt(str(taught), Called("toy-bert"), Judged(str(shop.dev), Columns()), shop.folder / "models", "a test")
