"""The repository routes of the Open Inference Protocol, asked by Triton's own client; and what they refuse."""

import asyncio
import shutil
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tritonclient.http import InferenceServerClient
from tritonclient.utils import InferenceServerException

from service.bundle.manifest import Role
from service.settings import Settings
from tests.running import client_of, opened, serving
from tests.service.routes.asking import KEY
from tests.toys import toy

ADMIN = {"authorization": f"Bearer {KEY}"}


@dataclass(frozen=True)
class Stand:
    """A server whose folder a test may change."""

    models: Path
    triton: InferenceServerClient
    client: httpx2.Client

    def index(self, **body: object) -> dict[tuple[str, str], str]:
        rows = self.client.post("/v2/repository/index", json=body).json()
        return {(row["name"], row["version"]): row["state"] for row in rows}


@pytest.fixture
def stand(tmp_path: Path, toy_models: Path) -> Iterator[Stand]:
    models = Path(shutil.copytree(toy_models, tmp_path / "models"))
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY}\n")
    quiet = ("--reload-seconds", "0", "--log-level", "critical", "--admin-keys-file", str(keys))
    with (
        serving(models, *quiet) as server,
        server.client() as client,
        InferenceServerClient(server.url.removeprefix("http://")) as triton,
    ):
        yield Stand(models, triton, client)


def test_its_client_loads_and_unloads(stand: Stand) -> None:
    assert stand.index() == {("toy", "1"): "READY", ("toy-teacher", "1"): "READY"}
    toy.publish(stand.models, "newcomer", "1", Role.STUDENT)
    assert not stand.triton.is_model_ready("newcomer")
    assert stand.index()["newcomer", "1"] == "UNAVAILABLE"
    stand.triton.load_model("newcomer", headers=ADMIN)
    assert stand.triton.is_model_ready("newcomer")
    assert stand.index()["newcomer", "1"] == "READY"
    stand.triton.unload_model("newcomer", headers=ADMIN)
    assert not stand.triton.is_model_ready("newcomer")
    assert stand.index()["newcomer", "1"] == "UNAVAILABLE"
    assert ("newcomer", "1") not in stand.index(ready=True)
    assert stand.triton.get_model_repository_index()  # which sends no body


def test_loading_takes_the_newest_version(stand: Stand) -> None:
    toy.publish(stand.models, "toy", "3", Role.STUDENT, labels=("a", "b"))
    answer = stand.client.post("/v2/repository/models/toy/load", json={}, headers=ADMIN)
    assert answer.json() == {"name": "toy", "opened": ["toy@3"], "retired": ["toy@1"]}
    assert stand.client.post("/v2/repository/models/toy/load", headers=ADMIN).json()["opened"] == []
    assert stand.index() == {("toy", "3"): "READY", ("toy", "1"): "UNAVAILABLE", ("toy-teacher", "1"): "READY"}


def test_its_client_hears_why_not(stand: Stand) -> None:
    with pytest.raises(InferenceServerException, match="no bundle of that name") as caught:
        stand.triton.load_model("ape", headers=ADMIN)
    assert caught.value.status() == "404"
    with pytest.raises(InferenceServerException, match="no model of that name is served") as caught:
        stand.triton.unload_model("ape", headers=ADMIN)
    assert caught.value.status() == "404"
    with pytest.raises(InferenceServerException, match="answers when no model is named") as caught:
        stand.triton.unload_model("toy", headers=ADMIN)
    assert caught.value.status() == "400"
    with pytest.raises(InferenceServerException, match="loaded as it lies in the folder") as caught:
        stand.triton.load_model("toy", headers=ADMIN, config="{}")
    assert caught.value.status() == "400"
    with pytest.raises(InferenceServerException, match="loaded as it lies in the folder"):
        stand.triton.load_model("toy", headers=ADMIN, config="{}", files={"file:1/model.onnx": b"x"})


@pytest.mark.parametrize("what", ["load", "unload"])
def test_nobody_else_changes_anything(stand: Stand, what: str) -> None:
    path = f"/v2/repository/models/toy-teacher/{what}"
    assert stand.client.post(path).status_code == 401
    assert stand.client.post(path, headers={"x-api-key": "some-other-key-0000000000"}).status_code == 401
    assert stand.index()["toy-teacher", "1"] == "READY"


def visit(models: Path, scenario: Callable[[httpx2.AsyncClient], Coroutine[Any, Any, None]]) -> None:
    async def act() -> None:
        settings = Settings.model_validate({"models": models, "reload_seconds": 0, "admin_keys": KEY})
        async with opened(settings) as door, client_of(door) as client:
            client.headers.update(ADMIN)
            await scenario(client)

    asyncio.run(act())


SPOILT: dict[str, Callable[[Path], object]] = {
    "WrongDigest": lambda folder: (folder / "model.onnx").write_bytes(b"x"),
    "MissingFile": lambda folder: (folder / "tokenizer.json").unlink(),
    "InvalidManifest": lambda folder: (folder / "manifest.json").write_text("{"),
    "UnexpectedFile": lambda folder: (folder / "model.onnx").rename(folder / "other.onnx"),
    "a link": lambda folder: (folder / "more").symlink_to("/etc/passwd"),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_a_bad_bundle_is_refused_without_a_word_about_this_machine(
    tmp_path: Path, toy_models: Path, fault: str
) -> None:
    models = Path(shutil.copytree(toy_models, tmp_path / "secret-place" / "models"))

    async def scenario(client: httpx2.AsyncClient) -> None:
        SPOILT[fault](toy.publish(models, "toy", "2", Role.STUDENT))
        answer = await client.post("/v2/repository/models/toy/load")
        assert answer.status_code == 400
        assert list(answer.json()) == ["error"]
        error = answer.json()["error"]
        assert error.startswith("toy/2")
        assert "secret-place" not in error
        assert "/etc" not in error
        assert "\n" not in error
        served = (await client.post("/v1/classify", json={"input": "good"})).json()
        assert served["model"] == "toy@1"

    visit(models, scenario)


def test_a_client_that_leaves_does_not_stop_a_load_half_way(tmp_path: Path, toy_models: Path) -> None:
    models = Path(shutil.copytree(toy_models, tmp_path / "models"))

    async def scenario(client: httpx2.AsyncClient) -> None:
        toy.publish(models, "toy", "2", Role.STUDENT)
        leaving = asyncio.create_task(client.post("/v2/repository/models/toy/load"))
        await asyncio.sleep(0.01)
        leaving.cancel()
        for _ in range(200):
            if (await client.get("/v2/models/toy")).json()["versions"] == ["2"]:
                return
            await asyncio.sleep(0.05)
        pytest.fail("the load was lost with its client")

    visit(models, scenario)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v2/repository/index", b"[]", 400),
        ("/v2/repository/index", b'{"ready": "yes"}', 400),
        ("/v2/repository/index", b"{", 400),
        ("/v2/repository/index", b'{"ready": true, "more": 1}', 200),
        ("/v2/repository/models/toy/load", b'{"parameters": 1}', 400),
        ("/v2/repository/models/toy/load", b'{"parameters": {"new": 1}}', 200),
        ("/v2/repository/models/toy%2F..%2Ftoy/load", b"", 404),
        ("/v2/repository/models/../load", b"", 404),
        ("/v2/repository/models/%2e%2e/load", b"", 404),
        ("/v2/repository/models/Toy/load", b"", 404),
        ("/v2/repository/models/toy-teacher/unload", b'{"parameters": {"unload_dependents": true}}', 200),
    ],
)
def test_odd_requests_have_plain_answers(tmp_path: Path, toy_models: Path, path: str, body: bytes, status: int) -> None:
    models = Path(shutil.copytree(toy_models, tmp_path / "models"))

    async def scenario(client: httpx2.AsyncClient) -> None:
        answer = await client.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == status, answer.text
        assert status == 200 or list(answer.json()) == ["error"]

    visit(models, scenario)
