"""Models come, change and go while the service answers; a bad one changes nothing."""

import asyncio
import shutil
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.api.door import Door
from service.bundle.errors import BundleError
from service.bundle.manifest import Role
from service.bundle.store import write_bundle
from service.catalogue import Catalogue, NoSuchModel, StillNeeded
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.running import PATIENCE_S, client_of, opened, serving
from tests.service.bundle.spoiling import edit
from tests.toys import toy


def publish(models: Path, version: str, name: str = "toy") -> Path:
    """Another version: the same files with other weights."""
    files = {**toy.student_files(), "model.onnx": toy.student_graph(int(version) + 10)}
    folder = models / name / version
    write_bundle(folder, toy.draft(name, version, Role.STUDENT, files), files, card=None)
    return folder


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    publish(folder, "1")
    toy.publish(folder, "toy-teacher", "1", Role.TEACHER)
    return folder


Scenario = Callable[[Door, Catalogue], Coroutine[Any, Any, None]]


def visit(models: Path, scenario: Scenario, **settings: Any) -> None:
    """Run a scenario with the models open; the folder is only looked at when asked."""

    async def act() -> None:
        async with opened(Settings(models=models, **{"reload_seconds": 0, **settings})) as door:
            await scenario(door, door.lifecycle.catalogue)

    asyncio.run(act())


async def ask(door: Door, model: str | None = None) -> tuple[str, float]:
    """Who answered, and the score."""
    body = {"input": "good"} if model is None else {"input": "good", "model": model}
    async with client_of(door) as client:
        response = await client.post("/v1/classify", json=body)
        assert response.status_code == 200, response.text
        answer = response.json()
        return answer["model"], answer["data"][0]["scores"][toy.LABELS[0]]


def served(catalogue: Catalogue) -> list[str]:
    return [predictor.name for predictor in catalogue.predictors]


def test_a_new_version_takes_over_and_its_own_weights_answer(models: Path) -> None:
    async def scenario(door: Door, catalogue: Catalogue) -> None:
        name, before = await ask(door)
        assert name == "toy@1"
        publish(models, "2")
        change = await catalogue.refresh()
        assert (change.opened, change.retired, change.refused) == (("toy@2",), ("toy@1",), ())
        name, after = await ask(door)
        assert (name, after != before) == ("toy@2", True)
        assert served(catalogue) == ["toy@2", "toy-teacher@1"]

    visit(models, scenario)


def test_versions_are_numbers_and_several_may_be_served_and_pinned(models: Path) -> None:
    async def scenario(door: Door, catalogue: Catalogue) -> None:
        for version in ("2", "10", "9"):
            publish(models, version)
        await catalogue.refresh()
        assert served(catalogue) == ["toy@9", "toy@10", "toy-teacher@1"]
        assert (await ask(door))[0] == "toy@10"
        assert (await ask(door, "toy@9"))[0] == "toy@9"
        with pytest.raises(NoSuchModel, match="toy@10, toy@9"):
            catalogue.resolve("toy@2")
        assert catalogue.resolve("toy", "9").name == catalogue.resolve(None, "9").name == "toy@9"

    visit(models, scenario, versions=2)


def test_a_pinned_default_stays_whatever_comes(models: Path) -> None:
    async def scenario(door: Door, catalogue: Catalogue) -> None:
        publish(models, "2")
        await catalogue.refresh()
        assert (await ask(door))[0] == "toy@1"
        assert (await ask(door, "toy"))[0] == "toy@2"

    visit(models, scenario, default="toy@1")


def test_a_pinned_default_stays_when_its_folder_goes(models: Path) -> None:
    async def scenario(door: Door, catalogue: Catalogue) -> None:
        shutil.rmtree(models / "toy" / "1")
        publish(models, "3")
        assert (await catalogue.refresh()).opened == ("toy@3",)
        assert served(catalogue) == ["toy@1", "toy@3", "toy-teacher@1"]
        assert (await catalogue.load("toy")).opened == ()
        assert (await ask(door))[0] == "toy@1"
        assert (await ask(door, "toy"))[0] == "toy@3"

    publish(models, "2")
    visit(models, scenario, default="toy@1")


def test_a_version_that_is_taken_away_brings_the_one_before_back(models: Path) -> None:
    async def scenario(door: Door, catalogue: Catalogue) -> None:
        shutil.rmtree(models / "toy" / "2")
        change = await catalogue.refresh()
        assert (change.opened, change.retired) == (("toy@1",), ("toy@2",))
        shutil.rmtree(models / "toy")
        assert (await catalogue.refresh()).retired == ()
        assert (await ask(door))[0] == "toy@1"  # it needs no file any more

    publish(models, "2")
    visit(models, scenario)


def flip_a_bit(folder: Path) -> None:
    file = folder / "model.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut_short(folder: Path) -> None:
    file = folder / "model.onnx"
    file.write_bytes(file.read_bytes()[:-1])


def lose_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def link_the_tokenizer(folder: Path) -> None:
    file = folder / "tokenizer.json"
    elsewhere = folder.parent.parent.parent / "elsewhere.json"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)


def add_a_stranger(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(b"?")


def rename_inside(folder: Path) -> None:
    edit(folder, lambda manifest: manifest.update(name="../toy"))


def change_the_manifest(folder: Path) -> None:
    """It keeps all rules, but for the seal."""
    edit(folder, lambda manifest: manifest["lineage"].update(method="another"), reseal=False)


DEFECTS = (
    flip_a_bit,
    cut_short,
    lose_the_manifest,
    link_the_tokenizer,
    add_a_stranger,
    rename_inside,
    change_the_manifest,
)


@pytest.mark.parametrize("spoil", DEFECTS, ids=lambda spoil: spoil.__name__)
def test_a_bad_version_is_refused_and_the_old_one_goes_on(models: Path, spoil: Callable[[Path], None]) -> None:
    async def scenario(door: Door, catalogue: Catalogue) -> None:
        before = await ask(door)
        spoil(publish(models, "2"))
        change = await catalogue.refresh()
        assert (change.opened, change.retired, len(change.refused)) == ((), (), 1)
        assert (await catalogue.refresh()).refused == ()  # not tried again as long as it is the same
        assert await ask(door) == before
        assert door.lifecycle.unready() is None
        shutil.rmtree(models / "toy" / "2")
        publish(models, "2")
        assert (await catalogue.refresh()).opened == ("toy@2",)

    visit(models, scenario)


def test_a_bad_newest_version_at_the_start_leaves_the_one_before_to_serve(models: Path) -> None:
    async def scenario(door: Door, catalogue: Catalogue) -> None:
        assert served(catalogue) == ["toy@1", "toy-teacher@1"]

    cut_short(publish(models, "2"))
    visit(models, scenario)


def test_no_good_version_at_the_start_is_an_error(models: Path) -> None:
    cut_short(models / "toy" / "1")
    with pytest.raises(BundleError, match="toy/1"):
        Catalogue(Settings(models=models), Metrics())


def test_what_is_unloaded_stays_so_until_it_really_loads(models: Path) -> None:
    metrics, settings = Metrics(), Settings(models=models, reload_seconds=0)

    async def scenario() -> None:
        catalogue = Catalogue(settings, metrics, unloaded=["toy-teacher"])
        assert served(catalogue) == ["toy@1"]
        graph = models / "toy-teacher" / "1" / "model.onnx"
        good = graph.read_bytes()
        graph.write_bytes(b"x")
        assert (await catalogue.load("toy-teacher")).refused
        graph.write_bytes(good)
        assert (await catalogue.refresh()).opened == ()
        # Elsewhere it did load, so it is followed from here on.
        graph.write_bytes(b"x")
        assert (await catalogue.load("toy-teacher", elsewhere=True)).refused
        graph.write_bytes(good)
        assert (await catalogue.refresh()).opened == ("toy-teacher@1",)
        # And what another unloads before it has come here does not come.
        publish(models, "1", "newcomer")
        assert (await catalogue.unload("newcomer", elsewhere=True)).retired == ()
        assert (await catalogue.refresh()).opened == ()
        await catalogue.close(1)

    asyncio.run(scenario())


def test_models_are_unloaded_and_loaded_by_name(models: Path) -> None:
    async def scenario(door: Door, catalogue: Catalogue) -> None:
        assert (await catalogue.unload("toy-teacher")).retired == ("toy-teacher@1",)
        assert (await catalogue.refresh()).opened == ()  # it stays away
        with pytest.raises(NoSuchModel):
            await catalogue.unload("toy-teacher")
        with pytest.raises(StillNeeded):
            await catalogue.unload("toy")
        with pytest.raises(NoSuchModel):
            await catalogue.load("other")
        publish(models, "7", "another")
        assert (await catalogue.load("toy-teacher")).opened == ("toy-teacher@1",)
        assert (await ask(door, "toy-teacher"))[0] == "toy-teacher@1"
        assert (await catalogue.refresh()).opened == ("another@7",)

    visit(models, scenario)


def test_what_an_old_version_had_taken_is_answered_by_it(models: Path) -> None:
    async def scenario(door: Door, catalogue: Catalogue) -> None:
        old = catalogue.resolve("toy")
        many = asyncio.create_task(old.admit(["good"] * 200))
        await asyncio.sleep(0)  # it is being tokenised aside
        publish(models, "2")
        await catalogue.refresh()
        pending = await many
        assert len((await pending.future).results) == 200
        async with asyncio.timeout(PATIENCE_S):
            while old.alive:
                await asyncio.sleep(0.001)

    visit(models, scenario)


def test_series_of_models_that_have_gone_do_not_pile_up(models: Path) -> None:
    async def scenario(door: Door, catalogue: Catalogue) -> None:
        async with client_of(door) as client:
            before = len((await client.get("/metrics")).text.splitlines())
            for version in ("2", "3", "4"):
                publish(models, version)
                await catalogue.refresh()
                await ask(door)
            async with asyncio.timeout(PATIENCE_S):
                while len((await client.get("/metrics")).text.splitlines()) > before + 10:
                    await asyncio.sleep(0.005)
            text = (await client.get("/metrics")).text
        assert 'model="toy@4"' in text and 'model="toy@3"' not in text
        assert 'understudy_model_loads_total{outcome="opened"} 5.0' in text

    visit(models, scenario)


@contextmanager
def following(models: Path, *flags: str) -> Iterator[Any]:
    with serving(models, *flags) as running, running.client() as client:
        yield running, client


def until_version(client: Any, version: str) -> None:
    for _ in range(PATIENCE_S * 100):
        if client.post("/v1/classify", json={"input": "good"}).json()["model"] == f"toy@{version}":
            return
    raise AssertionError("the new version never answered")


def test_a_server_follows_its_folder_by_itself(models: Path) -> None:
    with following(models, "--reload-seconds", "0.05", "--log-level", "error") as (_, client):
        publish(models, "2")
        until_version(client, "2")


def test_a_server_looks_again_when_it_gets_a_hangup(models: Path) -> None:
    with following(models, "--reload-seconds", "0", "--log-level", "error") as (running, client):
        publish(models, "2")
        running.process.send_signal(signal.SIGHUP)
        until_version(client, "2")
