"""Each answer says which bundle it is of: the first digits of the bundle's seal, whatever the dialect."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service.bundle.seal import read_manifest
from tests.running import serving

HEADER = "x-model-digest"
OIP = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["good"]}]}

ASKED: dict[str, tuple[str, dict[str, Any], str]] = {
    "native": ("/v1/classify", {"input": "good"}, "toy/2"),
    "native, many": ("/v1/classify", {"input": ["good"] * 7}, "toy/2"),
    "native, by version": ("/v1/classify", {"input": "good", "model": "toy@1"}, "toy/1"),
    "native, by name": ("/v1/classify", {"input": "good", "model": "tags"}, "tags/1"),
    "Hugging Face": ("/predict", {"inputs": "good"}, "toy/2"),
    "Hugging Face, at the root": ("/", {"inputs": ["good", "bad"]}, "toy/2"),
    "OIP": ("/v2/models/stars/infer", OIP, "stars/1"),
    "OIP, by version": ("/v2/models/toy/versions/1/infer", OIP, "toy/1"),
}


@pytest.fixture(scope="module")
def client(zoo: Path) -> Iterator[httpx2.Client]:
    with serving(zoo, "--versions", "2", "--default", "toy") as server, server.client() as opened:
        yield opened


@pytest.mark.parametrize(("path", "body", "bundle"), ASKED.values(), ids=ASKED)
def test_an_answer_bears_the_digest_of_its_bundle(
    client: httpx2.Client, zoo: Path, path: str, body: dict[str, Any], bundle: str
) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == 200
    assert answer.headers.get_list(HEADER) == [read_manifest(zoo / bundle).seal[:12]]


def test_whoever_refuses_is_no_model(client: httpx2.Client) -> None:
    for path, body in (("/v1/classify", {"input": 7}), ("/predict", {}), ("/v2/models/none/infer", OIP)):
        answer = client.post(path, json=body)
        assert (answer.status_code >= 400, HEADER in answer.headers) == (True, False)
    assert HEADER not in client.post("/v2/repository/index", json={}).headers


def test_the_whole_seal_is_told_of_each_model(client: httpx2.Client, zoo: Path) -> None:
    for model in client.get("/v1/models").json()["data"]:
        assert model["digest"] == read_manifest(zoo / model["name"] / model["version"]).seal


def test_the_document_has_the_header_where_a_model_answers(client: httpx2.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    done = {path: methods["post"]["responses"]["200"] for path, methods in paths.items() if "post" in methods}
    told = {path for path, answer in done.items() if HEADER in answer.get("headers", {})}
    assert told == {path for path in done if "repository" not in path}
    assert done["/predict"]["headers"][HEADER]["required"]
