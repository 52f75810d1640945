"""The service over real HTTP: a server process with real bundles."""

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bundle.runtime import OpenBundle, open_bundle
from service.bundle.seal import read_manifest
from tests.running import PATIENCE_S, Running, serving
from tests.toys import toy

ROUTES = ("/v1/classify", "/predict", "/")
MAX_ROWS, MAX_CHARS, MAX_BODY = 8, 300, 4000
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def server(toy_models: Path) -> Iterator[Running]:
    limits = {"rows": MAX_ROWS, "chars": MAX_CHARS, "bytes": MAX_BODY}
    names = {"rows": "--max-request-rows", "chars": "--max-text-chars", "bytes": "--max-body-bytes"}
    flags = [part for limit, value in limits.items() for part in (names[limit], str(value))]
    with serving(toy_models, *flags) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[httpx2.Client]:
    with server.client() as opened:
        yield opened


@pytest.fixture(scope="module")
def student(toy_student: Path) -> OpenBundle:
    return open_bundle(toy_student)


def payload(route: str, texts: Any) -> dict[str, Any]:
    return {"input" if route == "/v1/classify" else "inputs": texts}


def alone(bundle: OpenBundle, text: str) -> list[float]:
    scores: list[float] = bundle.scores(bundle.classify([text]))[0].tolist()
    return scores


def test_it_says_where_it_is_and_what_it_serves(server: Running) -> None:
    assert server.line.startswith("http://127.0.0.1:")
    assert "toy@1 (student, exact), toy-teacher@1 (teacher, exact); default toy" in server.line


def test_one_text_gets_all_scores(client: httpx2.Client, student: OpenBundle) -> None:
    response = client.post("/v1/classify", json={"input": "a good film"})
    answer = response.json()
    assert response.status_code == 200
    assert list(answer) == ["model", "data", "usage", "timing_ms"]
    assert (answer["model"], answer["usage"]) == ("toy@1", {"tokens": 3})
    assert list(answer["timing_ms"]) == ["tokenize", "queue", "inference", "total"]
    [row] = answer["data"]
    assert list(row) == ["index", "label", "score", "scores"]
    assert tuple(row["scores"]) == toy.LABELS
    assert list(row["scores"].values()) == pytest.approx(alone(student, "a good film"), abs=1e-5)
    assert row["label"] == max(row["scores"], key=row["scores"].__getitem__)
    assert row["score"] == row["scores"][row["label"]]


def test_a_list_is_a_batch_in_the_order_of_the_input(client: httpx2.Client, student: OpenBundle) -> None:
    texts = ["good", "", "a very long and dull film . " * 9, "bad"]
    answer = client.post("/v1/classify", json={"input": texts}).json()
    assert [row["index"] for row in answer["data"]] == [0, 1, 2, 3]
    for text, row in zip(texts, answer["data"], strict=True):
        assert list(row["scores"].values()) == pytest.approx(alone(student, text), abs=1e-5)
    assert answer["usage"]["tokens"] == 1 + 0 + toy.MAX_TOKENS + 1


def test_two_strings_are_two_texts_and_never_a_pair(client: httpx2.Client) -> None:
    assert len(client.post("/predict", json={"inputs": ["a", "b"]}).json()) == 2


@pytest.mark.parametrize("name", ["toy-teacher", "toy-teacher@1"])
def test_the_teacher_answers_under_its_own_name(client: httpx2.Client, toy_teacher: Path, name: str) -> None:
    answer = client.post("/v1/classify", json={"model": name, "input": "good"}).json()
    assert answer["model"] == "toy-teacher@1"
    assert list(answer["data"][0]["scores"].values()) == pytest.approx(
        alone(open_bundle(toy_teacher), "good"), abs=1e-5
    )


@pytest.mark.parametrize("route", ["/predict", "/"])
def test_the_hub_shape_is_nested_and_sorted(client: httpx2.Client, student: OpenBundle, route: str) -> None:
    [labels] = client.post(route, json={"inputs": "good", "parameters": {}}).json()
    expected = sorted(zip(alone(student, "good"), toy.LABELS, strict=True), reverse=True)
    assert [label["label"] for label in labels] == [label for _, label in expected]
    assert [label["score"] for label in labels] == pytest.approx([score for score, _ in expected], abs=1e-5)


def test_the_hub_shape_knows_top_k(client: httpx2.Client) -> None:
    body = {"inputs": ["good", "bad"], "parameters": {"top_k": 1}}
    assert [len(labels) for labels in client.post("/predict", json=body).json()] == [1, 1]


words = st.lists(st.sampled_from(toy.WORDS), max_size=30).map(" ".join).map(lambda text: text[:MAX_CHARS])
requests = st.lists(words | st.lists(words, min_size=1, max_size=MAX_ROWS), min_size=1, max_size=24)


@settings(max_examples=8, deadline=None)
@given(requests)
def test_requests_at_the_same_time_get_the_scores_that_they_get_alone(
    server: Running, student: OpenBundle, requests: list[str | list[str]]
) -> None:
    async def send() -> list[Any]:
        async with httpx2.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as client:
            posts = [client.post("/v1/classify", json={"input": texts}) for texts in requests]
            return [response.json()["data"] for response in await asyncio.gather(*posts)]

    for texts, rows in zip(requests, asyncio.run(send()), strict=True):
        found = np.array([list(row["scores"].values()) for row in rows])
        expected = np.array([alone(student, text) for text in ([texts] if isinstance(texts, str) else texts)])
        assert np.abs(found - expected).max() <= 1e-5


WRONG: tuple[tuple[int, str, dict[str, Any]], ...] = (
    (400, "not JSON", {"content": b"{", "headers": JSON}),
    (400, "nothing", {"content": b"", "headers": JSON}),
    (400, "not UTF-8", {"content": b'{"input": "\xff"}', "headers": JSON}),
    (400, "half a character", {"content": b'{"input": "\\ud800"}', "headers": JSON}),
    (400, "nested too deeply", {"content": b"[" * 3000, "headers": JSON}),
    (413, "too large", {"content": b" " * (MAX_BODY + 1), "headers": JSON}),
    (413, "too large, in pieces", {"content": (b" " * 1000 for _ in range(9)), "headers": JSON}),
    (415, "a form", {"data": {"input": "a"}}),
    (422, "a list as the body", {"json": ["a"]}),
    (422, "no field", {"json": {}}),
    (422, "an unknown field", {"json": {"input": "a", "inputs": "a", "more": 1}}),
    (422, "a number", {"json": {"input": 5, "inputs": 5}}),
    (422, "null", {"json": {"input": None, "inputs": None}}),
    (422, "a number in the list", {"json": {"input": ["a", 5], "inputs": ["a", 5]}}),
    (422, "nested lists", {"json": {"input": [["a"]], "inputs": [["a"]]}}),
    (422, "an empty list", {"json": {"input": [], "inputs": []}}),
)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("status", "what", "request_"), WRONG, ids=[what for _, what, _ in WRONG])
def test_a_wrong_request_is_refused_in_the_dialect_of_its_route(
    client: httpx2.Client, route: str, status: int, what: str, request_: dict[str, Any]
) -> None:
    if what == "too large, in pieces":
        request_ = request_ | {"content": (b" " * 1000 for _ in range(9))}
    response = client.post(route, **request_)
    assert response.status_code == status, response.text
    assert_is_error(response, route)


def assert_is_error(response: httpx2.Response, route: str) -> None:
    body = response.json()
    if route == "/v1/classify":
        assert response.headers["content-type"] == "application/problem+json"
        assert {"type", "title", "status", "detail", "request_id"} <= set(body)
        assert body["status"] == response.status_code
        assert body["request_id"] == response.headers["x-request-id"]
    else:
        assert list(body) == ["error"]
    assert "Traceback" not in response.text
    assert str(Path(__file__).parents[2]) not in response.text


@pytest.mark.parametrize("route", ROUTES)
def test_too_many_or_too_long_texts_are_refused_by_name(client: httpx2.Client, route: str) -> None:
    many = client.post(route, json=payload(route, ["a"] * (MAX_ROWS + 1)))
    long = client.post(route, json=payload(route, ["a", "b" * (MAX_CHARS + 1)]))
    assert (many.status_code, long.status_code) == (422, 422)
    assert f"at most {MAX_ROWS} texts" in many.text
    assert f"at most {MAX_CHARS} characters" in long.text
    assert client.post(route, json=payload(route, ["a" * MAX_CHARS] * MAX_ROWS)).status_code == 200


def test_a_refusal_names_the_field(client: httpx2.Client) -> None:
    problem = client.post("/v1/classify", json={"input": "a", "modle": "toy"}).json()
    assert problem["errors"] == [{"loc": ["modle"], "msg": "Extra inputs are not permitted", "type": "extra_forbidden"}]


@pytest.mark.parametrize("body", [{"input": [1] * 900}, {f"f{number}": 1 for number in range(300)}])
def test_however_much_is_wrong_the_refusal_is_short(client: httpx2.Client, body: dict[str, Any]) -> None:
    response = client.post("/v1/classify", json=body)
    assert (response.status_code, len(response.content) < 500) == (422, True)


def test_a_refusal_names_the_place_in_the_list(client: httpx2.Client) -> None:
    problem = client.post("/v1/classify", json={"input": ["a", 5]}).json()
    assert problem["detail"] == "input.1: Input should be a valid string"


def test_a_refusal_never_repeats_the_text(client: httpx2.Client) -> None:
    body = json.dumps({"input": ["my secret", 5], "secret": "my secret"})
    assert "my secret" not in client.post("/v1/classify", content=body, headers=JSON).text


def test_an_unknown_model_is_told_which_there_are(client: httpx2.Client) -> None:
    response = client.post("/v1/classify", json={"model": "toy@2", "input": "a"})
    assert response.status_code == 404
    assert "toy, toy-teacher" in response.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/classify", 405), ("GET", "/nowhere", 404), ("POST", "/v1/classify/", 404), ("PUT", "/", 405)],
)
def test_even_errors_of_the_framework_are_problems(client: httpx2.Client, method: str, path: str, status: int) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    assert_is_error(response, "/predict" if path == "/" else "/v1/classify")


def test_the_clients_request_id_comes_back(client: httpx2.Client) -> None:
    headers = {"x-request-id": "mine-1"}
    right = client.post("/v1/classify", json={"input": "a"}, headers=headers)
    wrong = client.post("/v1/classify", json={}, headers=headers)
    assert right.headers["x-request-id"] == wrong.headers["x-request-id"] == "mine-1"
    assert [client.get(path, headers=headers).headers.get_list("x-request-id") for path in ("/livez", "/nowhere")] == [
        ["mine-1"],
        ["mine-1"],
    ]
    assert wrong.json()["request_id"] == "mine-1"


def test_json_of_any_dialect_is_json(client: httpx2.Client) -> None:
    for kind in ("application/json; charset=utf-8", "Application/JSON", "application/vnd.api+json"):
        headers = {"content-type": kind}
        assert client.post("/predict", content=b'{"inputs": "a"}', headers=headers).status_code == 200
    assert client.post("/predict", content=b'{"inputs": "a"}').status_code == 200


def test_models_are_listed_with_what_was_measured(client: httpx2.Client, toy_student: Path) -> None:
    student, teacher = client.get("/v1/models").json()["data"]
    reason = student.pop("engine_reason")
    assert reason.startswith("the native engine cannot run it: ")  # a toy is no student of ours
    assert student == {
        "name": "toy",
        "version": "1",
        "digest": read_manifest(toy_student).seal,
        "role": "student",
        "task": "single-label",
        "default": True,
        "labels": list(toy.LABELS),
        "texts": 1,
        "precision": "exact",
        "engine": "onnxruntime",
        "isa": None,
        "max_tokens": toy.MAX_TOKENS,
        "teacher": "toy-teacher@1",
        "results": [
            {
                "what": "toy, exact",
                "dataset": "toy",
                "split": "dev",
                "rows": 4,
                "metric": "accuracy",
                "value": 0.5,
            }
        ],
    }
    assert (teacher["name"], teacher["role"], teacher["default"]) == ("toy-teacher", "teacher", False)


def test_it_is_alive_and_ready(client: httpx2.Client) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_openapi_has_the_exact_schemas(client: httpx2.Client) -> None:
    document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    operation = document["paths"]["/v1/classify"]["post"]
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert schemas[reference.rpartition("/")[2]]["required"] == ["input"]
    assert list(schemas["ClassifyResponse"]["properties"]) == ["model", "teacher", "data", "usage", "timing_ms"]
    refusals = "400 401 404 408 413 414 415 417 422 429 431 500 503 504"
    assert list(operation["responses"]) == ["200", *refusals.split()]
    own = {path for path in document["paths"] if not path.startswith("/v2")}  # for those: test_oip.py
    others = {"/v1/answer", "/v1/compare", "/v1/embed", "/v1/embeddings", "/v1/live", "/v1/models/{name}/oversight"}
    assert own == {*ROUTES, *others, "/v1/models", "/models/{name}", "/livez", "/readyz", "/metrics"}
    for name in references(document):
        assert name in schemas
    assert client.get("/docs").status_code == 200


def references(node: Any) -> Iterator[str]:
    """The names of all schemas that are referred to anywhere."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"].removeprefix("#/components/schemas/")
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)


def sample(client: httpx2.Client, line: str) -> float:
    """One value of /metrics."""
    lines = client.get("/metrics").text.splitlines()
    [value] = [found.rpartition(" ")[2] for found in lines if found.startswith(f"{line} ")]
    return float(value)


def test_metrics_count_what_happens(client: httpx2.Client) -> None:
    names = {
        'understudy_requests_total{code="200",route="/predict"}': 1,
        'understudy_requests_total{code="422",route="/predict"}': 1,
        'understudy_rows_total{model="toy@1"}': 2,
        'understudy_tokens_total{model="toy@1"}': 3,
        'understudy_queue_seconds_count{model="toy@1"}': 1,
        'understudy_tokenize_seconds_count{model="toy@1"}': 1,
        'understudy_batch_rows_sum{model="toy@1"}': 2,
    }
    before = {name: sample(client, name) for name in names}
    client.post("/predict", json={"inputs": ["good film", "bad"]})
    client.post("/predict", json={})
    assert {name: sample(client, name) - before[name] for name in names} == names
    assert sample(client, "understudy_ready") == 1
    assert sample(client, 'understudy_queue_rows{model="toy@1"}') == 0


def test_metrics_have_all_their_labels_from_the_start(toy_models: Path) -> None:
    with serving(toy_models) as fresh, fresh.client() as client:
        assert sample(client, 'understudy_requests_total{code="429",route="/predict"}') == 0
        assert sample(client, 'understudy_inference_seconds_count{model="toy-teacher@1"}') == 0


def test_clients_that_leave_hurt_nobody(server: Running, client: httpx2.Client) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    body = json.dumps({"input": ["good film"] * MAX_ROWS}).encode()
    head = f"POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    for sent in (head, head + body[:20], head + body) * 10:
        with socket.create_connection((host, int(port)), PATIENCE_S) as leaving:
            leaving.sendall(sent)
    assert client.post("/v1/classify", json={"input": "good"}).status_code == 200
    assert client.get("/readyz").status_code == 200


def test_sigterm_takes_readiness_away_and_still_answers_what_is_under_way(toy_models: Path) -> None:
    body = b'{"inputs": "good"}'
    with serving(toy_models, "--settle-seconds", "0.5") as leaving:
        host, port = leaving.url.removeprefix("http://").split(":")
        with leaving.client() as client, socket.create_connection((host, int(port)), PATIENCE_S) as slow:
            slow.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 18\r\n\r\n" + body[:9])
            assert client.get("/readyz").status_code == 200
            leaving.process.terminate()
            while (response := client.get("/readyz")).status_code == 200:
                pass
            assert (response.status_code, response.json()["detail"]) == (503, "leaving")
            assert response.headers["retry-after"] == "1"
            assert client.post("/predict", json={"inputs": "good"}).status_code == 200
            slow.sendall(body[9:])
            assert slow.recv(4096).startswith(b"HTTP/1.1 200")
        assert leaving.process.wait(PATIENCE_S) == 0


def test_the_fast_graph_is_served_where_there_is_one(toy_models: Path, toy_student: Path) -> None:
    with serving(toy_models, "--precision", "fast") as quick, quick.client() as client:
        assert [model["precision"] for model in client.get("/v1/models").json()["data"]] == ["fast", "exact"]
        answer = client.post("/v1/classify", json={"input": "good"}).json()
        assert "toy@1 (student, fast)" in quick.line
    fast = open_bundle(toy_student, open_bundle(toy_student).precision.FAST)
    assert list(answer["data"][0]["scores"].values()) == pytest.approx(alone(fast, "good"), abs=1e-5)
