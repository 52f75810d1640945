"""The Open Inference Protocol v2, asked by Triton's own client and by hand."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput, InferResult
from tritonclient.utils import InferenceServerException

from service.bundle.encoder import Text
from service.routes.oip import InferResponse
from tests.running import Running
from tests.service.routes.asking import SINGLE, VERSIONS, bundle, expected, serving_zoo, texts_of
from tests.toys import toy

TENSORS = {
    "toy": ("label", "scores", "logits"),
    "same": ("label", "scores", "logits"),
    "tags": ("chosen", "scores", "logits"),
    "stars": ("scores", "logits"),
    "twins": ("scores", "logits"),
}


@pytest.fixture(scope="module")
def server(zoo: Path) -> Iterator[Running]:
    with serving_zoo(zoo) as server:
        yield server


@pytest.fixture(scope="module")
def triton(server: Running) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(server.url.removeprefix("http://")) as client:
        yield client


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[httpx2.Client]:
    with server.client() as client:
        yield client


def tensor(name: str, texts: list[str], shape: list[int] | None = None) -> InferInput:
    array = np.array(texts, dtype=np.object_).reshape(shape or [len(texts)])
    made = InferInput(name, list(array.shape), "BYTES")
    made.set_data_from_numpy(array, binary_data=False)
    return made


def tensors(texts: tuple[Text, ...]) -> list[InferInput]:
    if all(isinstance(text, str) for text in texts):
        return [tensor("text", [str(text) for text in texts])]
    return [tensor(name, [text[side] for text in texts]) for side, name in enumerate(("text", "text_pair"))]


def outputs(*names: str) -> list[InferRequestedOutput]:
    return [InferRequestedOutput(name, binary_data=False) for name in names]


def infer(triton: InferenceServerClient, model: str, **options: Any) -> InferResult:
    """Triton's client asks for binary outputs unless each is named."""
    asked = {"outputs": outputs(*TENSORS[model])} | options
    return triton.infer(model, tensors(texts_of(model)), **asked)


def body(*texts: str, **more: object) -> dict[str, object]:
    data = {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": list(texts)}
    return {"inputs": [data]} | more


def test_its_client_finds_the_server_and_its_models(triton: InferenceServerClient) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    about = triton.get_server_metadata()
    assert about["name"] == "understudy"
    assert about["extensions"] == ["classification", "model_repository"]
    for model, versions in VERSIONS.items():
        assert triton.is_model_ready(model)
        assert all(triton.is_model_ready(model, version) for version in versions)
        assert not triton.is_model_ready(model, "9")
    assert not triton.is_model_ready("ape")


@pytest.mark.parametrize("model", VERSIONS)
def test_its_client_reads_what_a_model_takes_and_gives(triton: InferenceServerClient, zoo: Path, model: str) -> None:
    manifest, about = bundle(zoo, model).manifest, triton.get_model_metadata(model)
    assert about == triton.get_model_metadata(model, VERSIONS[model][-1])
    assert (about["name"], about["versions"]) == (model, list(VERSIONS[model]))
    assert [taken["name"] for taken in about["inputs"]] == ["text", "text_pair"][: manifest.texts]
    assert {taken["datatype"] for taken in about["inputs"]} == {"BYTES"}
    assert [given["name"] for given in about["outputs"]] == list(TENSORS[model])
    assert about["outputs"][-1] == {"name": "logits", "datatype": "FP32", "shape": [-1, len(manifest.labels)]}
    assert about["parameters"]["labels"] == list(manifest.labels)
    assert about["parameters"]["task"] == manifest.task
    assert about["parameters"]["digest"] == manifest.seal


@pytest.mark.parametrize("model", VERSIONS)
def test_its_client_reads_our_answer(triton: InferenceServerClient, zoo: Path, model: str) -> None:
    result, labels = infer(triton, model), bundle(zoo, model).manifest.labels
    wanted = [expected(zoo, model, text) for text in texts_of(model)]
    scores = result.as_numpy("scores")
    assert scores.dtype == np.float32
    assert scores == pytest.approx(np.array([[row[label] for label in labels] for row in wanted]), abs=1e-5)
    logits = bundle(zoo, model).classify(texts_of(model))
    assert result.as_numpy("logits") == pytest.approx(logits, abs=1e-5)
    if model in ("toy", "same"):
        assert result.as_numpy("label").tolist() == [max(row, key=row.__getitem__) for row in wanted]
    if model == "tags":
        assert result.as_numpy("chosen").dtype == np.bool_
        assert (result.as_numpy("chosen") == (scores >= 0.5)).all()
    said = result.get_response()
    assert (said["model_name"], said["model_version"]) == (model, VERSIONS[model][-1])
    assert "id" not in said


def test_its_client_names_a_version_and_its_request(triton: InferenceServerClient) -> None:
    said = infer(triton, "toy", model_version="1", request_id='a "b" ✓').get_response()
    assert (said["model_version"], said["id"]) == ("1", 'a "b" ✓')
    assert [output["name"] for output in said["outputs"]] == list(TENSORS["toy"])


def test_its_client_chooses_the_outputs(triton: InferenceServerClient) -> None:
    result = infer(triton, "toy", outputs=outputs("scores"))
    assert [output["name"] for output in result.get_response()["outputs"]] == ["scores"]


def test_its_client_asks_for_the_best_labels(triton: InferenceServerClient, zoo: Path) -> None:
    best = InferRequestedOutput("scores", binary_data=False, class_count=2)
    found = infer(triton, "tags", outputs=[best]).as_numpy("scores")
    assert found.shape == (len(SINGLE), 2)
    for row, text in zip(found, SINGLE, strict=True):
        scores = expected(zoo, "tags", text)
        ranked = sorted(scores, key=lambda label: -scores[label])[:2]
        assert [str(cell).split(":", 2)[2] for cell in row] == ranked
        assert [list(scores).index(label) for label in ranked] == [int(str(cell).split(":")[1]) for cell in row]


def test_its_client_hears_what_is_wrong(triton: InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="no such model; there are asks, asks@1, same, same@1") as caught:
        triton.infer("ape", tensors(SINGLE), outputs=outputs("scores"))
    assert caught.value.status() == "404"
    with pytest.raises(InferenceServerException, match="binary tensors are not offered") as caught:
        triton.infer("toy", tensors(SINGLE))  # asks for binary outputs
    assert caught.value.status() == "400"
    array = np.array(["good"], dtype=np.object_)
    binary = InferInput("text", [1], "BYTES")
    binary.set_data_from_numpy(array, binary_data=True)
    with pytest.raises(InferenceServerException, match=r"send and ask for JSON") as caught:
        triton.infer("toy", [binary], outputs=outputs("scores"))
    assert caught.value.status() == "400"


def test_both_ways_to_write_data_and_shapes_are_the_same(client: httpx2.Client) -> None:
    ways: list[tuple[list[int], object]] = [
        ([2], ["good", "bad"]),
        ([2, 1], ["good", "bad"]),
        ([2, 1], [["good"], ["bad"]]),
    ]
    answers = [
        client.post(
            "/v2/models/toy/infer",
            json={"inputs": [{"name": "text", "shape": shape, "datatype": "BYTES", "data": data}]},
        )
        for shape, data in ways
    ]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    found = InferResponse.model_validate_json(answers[0].content)
    assert [(output.name, output.datatype, output.shape) for output in found.outputs] == [
        ("label", "BYTES", (2,)),
        ("scores", "FP32", (2, 2)),
        ("logits", "FP32", (2, 2)),
    ]


def test_what_others_add_does_no_harm(client: httpx2.Client) -> None:
    plain = client.post("/v2/models/toy/infer", json=body("good"))
    more = body("good", model_name="toy", parameters={"priority": 1, "binary_data_output": False}, new=1)
    data: Any = more["inputs"]
    data[0] |= {"parameters": {"content_type": "str"}, "new": 1}
    more["outputs"] = [{"name": name, "parameters": {"binary_data": False}} for name in TENSORS["toy"]]
    assert client.post("/v2/models/toy/infer", json=more).content == plain.content


def test_texts_that_must_not_be_cut(client: httpx2.Client) -> None:
    refused = client.post("/v2/models/toy/infer", json=body("good", "good " * 99, parameters={"truncate": False}))
    assert refused.status_code == 400
    assert refused.json() == {"error": f"text.1: more than the {toy.MAX_TOKENS} tokens that this model reads"}
    assert client.post("/v2/models/toy/infer", json=body("good " * 99)).status_code == 200


def text(**changes: object) -> dict[str, object]:
    whole = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["good"]} | changes
    return {name: value for name, value in whole.items() if value is not ...}


PAIR = text(name="text_pair")
WRONG: dict[str, tuple[object, str]] = {
    "no object": ([], "Input should be an object"),
    "no inputs": ({}, "inputs: Field required"),
    "no input": ({"inputs": []}, "inputs: the inputs are text, or text and text_pair"),
    "no name": ({"inputs": [text(name=...)]}, "inputs.0.name: Field required"),
    "no shape": ({"inputs": [text(shape=...)]}, "inputs.0.shape: Field required"),
    "no datatype": ({"inputs": [text(datatype=...)]}, "inputs.0.datatype: Field required"),
    "no data": ({"inputs": [text(data=...)]}, "inputs.0.data: Field required"),
    "no text": ({"inputs": [text(shape=[0], data=[])]}, "text: at least one text"),
    "another name": ({"inputs": [text(name="input")]}, "the inputs are text, or text and text_pair"),
    "one name twice": ({"inputs": [text(), text()]}, "inputs: each input once"),
    "one too many": ({"inputs": [text(), PAIR, text(name="third")]}, "the inputs are text, or text and text_pair"),
    "second alone": ({"inputs": [PAIR]}, "the inputs are text, or text and text_pair"),
    "pairs for singles": ({"inputs": [text(), PAIR]}, "text.0: this model reads single texts"),
    "unequal pairs": (
        {"inputs": [text(), text(name="text_pair", shape=[2], data=["a", "b"])]},
        "text and text_pair must have the same shape",
    ),
    "numbers": ({"inputs": [text(datatype="FP32", data=[1.0])]}, "inputs.0.data.0: Input should be a valid string"),
    "another datatype": ({"inputs": [text(datatype="INT64")]}, "text: the datatype is BYTES"),
    "small letters": ({"inputs": [text(datatype="bytes")]}, "text: the datatype is BYTES"),
    "a scalar": ({"inputs": [text(shape=[])]}, "text: the shape is [n] or [n, 1]"),
    "a wide shape": ({"inputs": [text(shape=[1, 2], data=["a", "b"])]}, "text: the shape is [n] or [n, 1]"),
    "a deep shape": ({"inputs": [text(shape=[1, 1, 1])]}, "text: the shape is [n] or [n, 1]"),
    "a negative shape": ({"inputs": [text(shape=[-1])]}, "text: the shape is [n] or [n, 1]"),
    "two negatives": ({"inputs": [text(shape=[-1, -1])]}, "text: the shape is [n] or [n, 1]"),
    "too small a shape": ({"inputs": [text(data=["a", "b"])]}, "the shape has 1 elements and the data 2"),
    "too large a shape": ({"inputs": [text(shape=[3])]}, "the shape has 3 elements and the data 1"),
    "a huge shape": ({"inputs": [text(shape=[10**18])]}, "the shape has 1000000000000000000 elements and the data 1"),
    "a shape beyond 64 bits": ({"inputs": [text(shape=[2**70, 1])]}, "elements and the data 1"),
    "a broken shape": ({"inputs": [text(shape=[1.5])]}, "inputs.0.shape.0: Input should be a valid integer"),
    "a true shape": ({"inputs": [text(shape=[True])]}, "inputs.0.shape.0: Input should be a valid integer"),
    "wider data": ({"inputs": [text(shape=[2, 1], data=[["a", "b"], ["c"]])]}, "nested otherwise than the shape"),
    "narrower data": ({"inputs": [text(shape=[2, 1], data=[["a"], []])]}, "nested otherwise than the shape"),
    "nested for flat": ({"inputs": [text(data=[["a"]])]}, "nested otherwise than the shape"),
    "deeper data": ({"inputs": [text(shape=[1, 1], data=[[["a"]]])]}, "inputs.0.data.0.0: Input should be a valid str"),
    "mixed data": ({"inputs": [text(shape=[2, 1], data=["a", ["b"]])]}, "inputs.0.data.1: Input should be a valid str"),
    "data of another kind": ({"inputs": [text(data="good")]}, "inputs.0.data: Input should be a valid array"),
    "binary data": ({"inputs": [text(parameters={"binary_data_size": 8})]}, "binary tensors are not offered"),
    "shared memory": ({"inputs": [text(parameters={"shared_memory_region": "x"})]}, "binary tensors are not offered"),
    "base64": ({"inputs": [text(parameters={"content_type": "base64"})]}, "the content type is str"),
    "binary output": (
        body("good", outputs=[{"name": "label", "parameters": {"binary_data": True}}]),
        "binary tensors are not offered",
    ),
    "binary outputs": (body("good", parameters={"binary_data_output": True}), "binary tensors are not offered"),
    "an unknown output": (body("good", outputs=[{"name": "probs"}]), "toy does not give probs; it gives label, sc"),
    "an output of others": (body("good", outputs=[{"name": "chosen"}]), "toy does not give chosen; it gives label"),
    "an output twice": (body("good", outputs=[{"name": "label"}, {"name": "label"}]), "outputs: each output once"),
    "classes of labels": (
        body("good", outputs=[{"name": "label", "parameters": {"classification": 1}}]),
        "classification is for scores alone",
    ),
    "no classes": (
        body("good", outputs=[{"name": "scores", "parameters": {"classification": 0}}]),
        "classification is a number from 1 on",
    ),
    "a strange truncate": (body("good", parameters={"truncate": "no"}), "truncate is true or false"),
    "a number for an id": (body("good", id=7), "id: Input should be a valid string"),
    "too many texts": (body(*["good"] * 257), "text: at most 256 texts in a request"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_makes_no_sense_is_refused_in_its_own_shape(client: httpx2.Client, wrong: str) -> None:
    sent, error = WRONG[wrong]
    answer = client.post("/v2/models/toy/infer", json=sent)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    assert error in answer.json()["error"]


@pytest.mark.parametrize("kind", ["application/octet-stream", "application/json", None])
def test_a_binary_request_is_refused_before_it_is_read(client: httpx2.Client, kind: str | None) -> None:
    headers = {"Inference-Header-Content-Length": "2"} | ({} if kind is None else {"Content-Type": kind})
    answer = client.post("/v2/models/toy/infer", content=b"{}\x04\x00\x00\x00good", headers=headers)
    assert answer.status_code == 400
    assert "binary tensors are not offered" in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/ape", 404),
        ("GET", "/v2/models/ape/ready", 404),
        ("GET", "/v2/models/toy/versions/9", 404),
        ("GET", "/v2/models/toy/versions/9/ready", 404),
        ("POST", "/v2/models/ape/infer", 404),
        ("POST", "/v2/models/toy/versions/9/infer", 404),
        ("POST", "/v2/models/toy/versions//infer", 404),
        ("POST", "/v2/models/toy@1/infer", 200),
        ("POST", "/v2/models/toy%401/infer", 200),
        ("POST", "/v2/models/../infer", 404),
        ("POST", "/v2/models/toy/config", 404),
        ("GET", "/v2/models/toy/infer", 405),
        ("PUT", "/v2/models/toy/infer", 405),
        ("GET", "/v2/nothing", 404),
    ],
)
def test_every_path_answers_in_the_protocol(client: httpx2.Client, method: str, path: str, status: int) -> None:
    answer = client.request(method, path, json=body("good") if method == "POST" else None)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == (["model_name", "model_version", "outputs"] if status == 200 else ["error"])


def test_pairs_are_two_tensors(client: httpx2.Client) -> None:
    refused = client.post("/v2/models/same/infer", json=body("good"))
    assert refused.status_code == 400
    assert refused.json()["error"] == "text.0: this model reads pairs of texts; give the tensors text and text_pair"


def test_it_is_all_in_the_openapi_document(client: httpx2.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    infer = paths["/v2/models/{name}/versions/{version}/infer"]["post"]
    assert [parameter["name"] for parameter in infer["parameters"]] == ["name", "version"]
    assert {path for path in paths if path.startswith("/v2")} == {
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/{name}",
        "/v2/models/{name}/ready",
        "/v2/models/{name}/infer",
        "/v2/models/{name}/versions/{version}",
        "/v2/models/{name}/versions/{version}/ready",
        "/v2/models/{name}/versions/{version}/infer",
        "/v2/repository/index",
        "/v2/repository/models/{name}/load",
        "/v2/repository/models/{name}/unload",
    }
