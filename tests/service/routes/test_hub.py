"""`POST /predict`, `POST /` and `POST /models/{name}`, asked by Hugging Face's own client."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import InferenceClient, constants
from huggingface_hub.errors import HfHubHTTPError

from service.bundle.tasks import Function
from service.routes.hub import PATHS, HubLabels
from tests.running import Running
from tests.service.routes.asking import PAIRS, SINGLE, expected, serving_zoo, spoken


@pytest.fixture(scope="module")
def server(zoo: Path) -> Iterator[Running]:
    with serving_zoo(zoo) as server:
        yield server


@pytest.fixture(scope="module")
def of_pairs(zoo: Path) -> Iterator[httpx2.Client]:
    with serving_zoo(zoo, "--default", "same") as server, server.client() as client:
        yield client


@pytest.fixture(params=[*PATHS, "/models/toy"])
def hub(request: pytest.FixtureRequest, server: Running, monkeypatch: pytest.MonkeyPatch) -> InferenceClient:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # it would take this machine for far away
    return InferenceClient(model=f"{server.url}{request.param}")


def best_first(scores: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(scores.items(), key=lambda pair: -pair[1])


@pytest.mark.parametrize("text", SINGLE)
def test_its_client_reads_our_answer(hub: InferenceClient, zoo: Path, text: str) -> None:
    found = hub.text_classification(text)
    wanted = best_first(expected(zoo, "toy", text))
    assert [row.label for row in found] == [label for label, _ in wanted]
    assert [row.score for row in found] == pytest.approx([score for _, score in wanted], abs=1e-5)


@pytest.mark.parametrize("top_k", [1, 2, 9])
def test_its_client_asks_for_the_best(hub: InferenceClient, zoo: Path, top_k: int) -> None:
    found = hub.text_classification("good", top_k=top_k)
    assert [row.label for row in found] == [label for label, _ in best_first(expected(zoo, "toy", "good"))][:top_k]


@pytest.mark.parametrize("function", ["softmax", "sigmoid", "none", None])
def test_its_client_chooses_the_function(hub: InferenceClient, zoo: Path, function: str | None) -> None:
    found = hub.text_classification("good", function_to_apply=function)  # type: ignore[arg-type]
    wanted = expected(zoo, "toy", "good", None if function is None else Function(function))
    assert {row.label: row.score for row in found} == pytest.approx(wanted, abs=1e-5)


def test_each_model_has_an_address_of_its_own(server: Running, zoo: Path) -> None:
    with server.client() as client:
        other = client.post("/models/tags@1", json={"inputs": "good"})
        wrong = client.post("/models/ape", json={"inputs": "good"})
    [row] = HubLabels.model_validate_json(other.content).root
    assert {found.label: found.score for found in row} == pytest.approx(expected(zoo, "tags", "good"), abs=1e-5)
    assert wrong.status_code == 404
    assert wrong.json()["error"].startswith("no such model; there are ")


def test_its_client_hears_what_is_wrong(server: Running) -> None:
    client = InferenceClient(model=f"{server.url}/predict")
    with pytest.raises(HfHubHTTPError) as caught:
        client.text_classification("good " * 9000)
    assert caught.value.response.status_code == 422
    assert caught.value.response.json() == {"error": "inputs: at most 8192 characters in a text or pair"}


@pytest.mark.parametrize("path", PATHS)
def test_a_list_of_two_texts_is_a_batch(server: Running, zoo: Path, path: str) -> None:
    with server.client() as client:
        answer = client.post(path, json={"inputs": ["good", "a film"]})
    rows = HubLabels.model_validate_json(answer.content).root
    assert len(rows) == 2
    for row, text in zip(rows, ("good", "a film"), strict=True):
        assert {pair.label: pair.score for pair in row} == pytest.approx(expected(zoo, "toy", text), abs=1e-5)


@pytest.mark.parametrize("many", [False, True])
def test_a_pair_is_an_object(of_pairs: httpx2.Client, zoo: Path, many: bool) -> None:
    asked = [spoken(pair) for pair in PAIRS] if many else spoken(PAIRS[0])
    rows = HubLabels.model_validate_json(of_pairs.post("/predict", json={"inputs": asked}).content).root
    assert len(rows) == (len(PAIRS) if many else 1)
    for row, pair in zip(rows, PAIRS, strict=False):
        assert {found.label: found.score for found in row} == pytest.approx(expected(zoo, "same", pair), abs=1e-5)


def test_two_texts_in_a_list_are_never_a_pair(of_pairs: httpx2.Client) -> None:
    answer = of_pairs.post("/predict", json={"inputs": ["good", "a film"]})
    assert answer.status_code == 422
    assert answer.json()["error"].startswith('inputs.0: this model reads pairs of texts; write {"text": ...')


@pytest.mark.parametrize(
    "more",
    [
        {"parameters": None},
        {"parameters": {}},
        {"parameters": {"top_k": None, "function_to_apply": None, "return_all_scores": None}},
        {"options": {"use_cache": False, "wait_for_model": True}},
        {"options": None},
    ],
)
def test_what_other_clients_send_along_does_no_harm(server: Running, more: dict[str, object]) -> None:
    with server.client() as client:
        plain, asked = (client.post("/predict", json={"inputs": "good"} | extra) for extra in ({}, more))
    assert asked.status_code == 200
    assert asked.content == plain.content


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"inputs": [["good", "bad"]]}, "inputs.0: Input should be a valid string"),
        ({"inputs": {"text": "good"}}, "inputs.text_pair: Field required"),
        ({"inputs": []}, "inputs: at least one text"),
        ({"inputs": "good", "parameters": {"topk": 1}}, "parameters.topk: Extra inputs are not permitted"),
        ({"inputs": "good", "parameters": {"top_k": 0}}, "parameters.top_k: Input should be greater than"),
        ({"inputs": "good", "parameters": {"function_to_apply": "relu"}}, "parameters.function_to_apply: Input"),
        ({"inputs": "good", "parameters": 1}, "parameters: Input should be an object"),
        ({"input": "good"}, "inputs: Field required"),
        ({}, "inputs: Field required"),
        ([], "Input should be an object"),
    ],
)
@pytest.mark.parametrize("path", PATHS)
def test_what_makes_no_sense_is_refused_in_its_own_shape(server: Running, path: str, body: object, error: str) -> None:
    with server.client() as client:
        answer = client.post(path, json=body)
    assert answer.status_code == 422
    assert list(answer.json()) == ["error"]
    assert error in answer.json()["error"]
