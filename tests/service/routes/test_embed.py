"""Vectors of texts, asked for in our own dialect, by OpenAI's client, by Hugging Face's, and as tensors."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from huggingface_hub import InferenceClient, constants
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from pydantic import ValidationError

from service.bundle.manifest import Manifest, Role, Task
from service.bundle.runtime import open_bundle
from service.bundle.tasks import TASKS, Choice, unit
from service.routes.embed import EmbeddingsResponse, EmbedResponse
from tests.running import Running, serving
from tests.toys import toy

DIMENSIONS = tuple(map(str, range(5)))
TEXTS = ["", "good", "a very dull film .", "the film is not bad , but " * 20]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    toy.publish(folder, "vectors", "1", Role.STUDENT, task=Task.EMBEDDING, labels=DIMENSIONS)
    toy.publish(folder, "bert-vectors", "1", Role.TEACHER, task=Task.EMBEDDING, labels=DIMENSIONS)
    toy.publish(folder, "toy", "1", Role.STUDENT)
    return folder


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Running]:
    with serving(models, "--default", "toy") as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[httpx2.Client]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def default(models: Path) -> Iterator[Running]:
    """Where the model that makes vectors is the default one."""
    with serving(models, "--default", "vectors") as server:
        yield server


def raw(models: Path, name: str = "vectors") -> NDArray[np.float32]:
    return open_bundle(models / name / "1").classify(TEXTS)


def directions(models: Path, name: str = "vectors") -> NDArray[np.float64]:
    found = raw(models, name).astype(np.float64)
    normal: NDArray[np.float64] = found / np.sqrt((found**2).sum(axis=1, keepdims=True))
    return normal


@pytest.mark.parametrize("name", ["vectors", "bert-vectors"])
def test_vectors_of_length_one_in_the_order_of_the_texts(name: str, client: httpx2.Client, models: Path) -> None:
    answer = client.post("/v1/embed", json={"model": name, "input": TEXTS})
    assert answer.status_code == 200, answer.text
    found = EmbedResponse.model_validate_json(answer.content)
    assert (found.model, found.dimensions) == (f"{name}@1", 5)
    assert [row.index for row in found.data] == [0, 1, 2, 3]
    np.testing.assert_allclose([row.vector for row in found.data], directions(models, name), atol=1e-6)
    assert found.usage.tokens > 4
    assert "x-model-digest" in answer.headers


def test_vectors_as_the_model_gives_them(client: httpx2.Client, models: Path) -> None:
    answer = client.post("/v1/embed", json={"model": "vectors", "input": TEXTS, "normalize": False})
    np.testing.assert_allclose([row["vector"] for row in answer.json()["data"]], raw(models), atol=1e-6)


def test_one_text_alone(client: httpx2.Client, models: Path) -> None:
    (row,) = client.post("/v1/embed", json={"model": "vectors", "input": TEXTS[1]}).json()["data"]
    np.testing.assert_allclose(row["vector"], directions(models)[1], atol=1e-6)


@pytest.mark.parametrize("form", ["float", "base64"])
def test_openais_client_reads_them(form: Any, server: Running, models: Path) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as asking:
        found = asking.embeddings.create(model="vectors", input=TEXTS, encoding_format=form)
        assert found.model == "vectors@1"
        vectors: list[Any] = [row.embedding for row in found.data]
        if form == "base64":
            vectors = [np.frombuffer(base64.b64decode(vector), dtype="<f4") for vector in vectors]
        np.testing.assert_allclose(vectors, directions(models), atol=1e-6)
        assert found.usage.prompt_tokens == found.usage.total_tokens > 4
        unset = asking.embeddings.create(model="vectors", input="good")  # it asks for base64 and unpacks it
        np.testing.assert_allclose(unset.data[0].embedding, directions(models)[1], atol=1e-6)


def test_openais_client_hears_what_is_wrong(server: Running) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as asking:
        with pytest.raises(openai.NotFoundError, match="no such model"):
            asking.embeddings.create(model="nobody", input="good")
        with pytest.raises(openai.BadRequestError, match="toy@1 makes no vectors") as refused:
            asking.embeddings.create(model="toy", input="good")
        assert refused.value.param == "model"
        with pytest.raises(openai.BadRequestError, match="vectors@1 has 5"):
            asking.embeddings.create(model="vectors", input="good", dimensions=2)
        with pytest.raises(openai.BadRequestError, match="at least one text"):
            asking.embeddings.create(model="vectors", input=[])


def test_their_answer_is_as_the_document_says(client: httpx2.Client) -> None:
    for form in ("float", "base64"):
        answer = client.post("/v1/embeddings", json={"model": "vectors", "input": "good", "encoding_format": form})
        assert EmbeddingsResponse.model_validate_json(answer.content).object == "list"


def test_hugging_faces_client_reads_them(default: Running, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # it would take this machine for far away
    asking = InferenceClient(model=f"{default.url}/predict")
    np.testing.assert_allclose(asking.feature_extraction(TEXTS[1]), directions(models)[1:2], atol=1e-6)
    with default.client() as client:
        assert np.shape(client.post("/predict", json={"inputs": TEXTS}).json()) == (4, 5)
        refused = client.post("/predict", json={"inputs": "good", "parameters": {"top_k": 1}})
        assert (refused.status_code, "makes vectors of texts and has no labels" in refused.text) == (422, True)


def test_as_tensors(client: httpx2.Client, models: Path) -> None:
    inputs = [{"name": "text", "shape": [4], "datatype": "BYTES", "data": TEXTS}]
    answer = client.post("/v2/models/vectors/infer", json={"inputs": inputs})
    outputs = {given["name"]: given for given in answer.json()["outputs"]}
    assert outputs["vector"]["shape"] == [4, 5]
    np.testing.assert_allclose(np.reshape(outputs["vector"]["data"], (4, 5)), directions(models), atol=1e-6)
    np.testing.assert_allclose(np.reshape(outputs["logits"]["data"], (4, 5)), raw(models), atol=1e-6)


@pytest.mark.parametrize(
    ("path", "body", "problem"),
    [
        ("/v1/embed", {"input": "good"}, "name one of bert-vectors, vectors"),
        ("/v1/embed", {"model": "toy", "input": "good"}, "toy@1 makes no vectors"),
        ("/v1/embed", {"model": "vectors", "input": TEXTS[3], "truncate": False}, "more than the 48 tokens"),
        ("/v1/embed", {"model": "vectors", "input": {"text": "a", "text_pair": "b"}}, "input"),
        ("/v1/classify", {"model": "vectors", "input": "good"}, "vectors@1 makes vectors of texts and classifies none"),
        (
            "/v1/compare",
            {"student": "vectors", "input": "good"},
            "vectors@1 makes vectors of texts and classifies none",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(path: str, body: dict[str, Any], problem: str, client: httpx2.Client) -> None:
    answer = client.post(path, json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert problem in answer.json()["detail"]


def test_the_only_one_need_not_be_named(tmp_path: Path) -> None:
    toy.publish(tmp_path, "vectors", "1", Role.STUDENT, task=Task.EMBEDDING, labels=DIMENSIONS)
    toy.publish(tmp_path, "toy", "1", Role.STUDENT)
    with serving(tmp_path, "--default", "toy") as server, server.client() as client:
        assert client.post("/v1/embed", json={"input": "good"}).json()["model"] == "vectors@1"
        assert client.post("/v1/embeddings", json={"input": "good"}).json()["model"] == "vectors@1"


def test_no_model_makes_vectors(tmp_path: Path) -> None:
    toy.publish(tmp_path, "toy", "1", Role.STUDENT)
    with serving(tmp_path) as server, server.client() as client:
        answer = client.post("/v1/embed", json={"input": "good"})
        assert (answer.status_code, "no model that is served makes vectors" in answer.text) == (422, True)


@given(arrays(np.float32, (3, 4), elements=st.floats(-1e3, 1e3, width=32)))
def test_a_direction_has_length_one_or_is_nothing(logits: NDArray[np.float32]) -> None:
    lengths = np.linalg.norm(unit(logits), axis=1)
    zero = np.linalg.norm(logits.astype(np.float64), axis=1) == 0
    np.testing.assert_allclose(lengths[~zero], 1, atol=1e-9)
    assert (lengths[zero] == 0).all()


def test_no_label_is_chosen() -> None:
    meaning = TASKS[Task.EMBEDDING]
    assert meaning.choice is Choice.VECTOR
    assert meaning.chosen([0.6, 0.8]) == []


def test_a_vector_is_of_one_text() -> None:
    files = toy.student_files(width=5, pairs=True)
    with pytest.raises(ValidationError, match="embedding must be of single texts"):
        toy.draft("pairs", "1", Role.STUDENT, files, toy.PROOF_PAIRS, task=Task.EMBEDDING, labels=DIMENSIONS)
    assert Manifest.model_fields["texts"].default == 1


def test_what_is_wrong_with_the_input_is_said_of_the_input(client: httpx2.Client) -> None:
    tokens = client.post("/v1/embeddings", json={"model": "vectors", "input": [[1, 2]]})
    assert (tokens.status_code, tokens.json()["error"]["param"]) == (400, "input.0")
    number = client.post("/v1/embed", json={"model": "vectors", "input": 1})
    assert [error["loc"] for error in number.json()["errors"]] == [["input"]]
