"""The application in this process: both ways in, and what can be held still only from inside."""

import asyncio
import json
import re
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.types import Message

from service import catalogue
from service.api.door import Door
from service.app import create_app
from service.bundle.encoder import Feeds, Row
from service.bundle.errors import MissingFile
from service.bundle.runtime import Graph, OpenBundle, OpenGraph, RunHandle, open_bundle
from service.bundle.tasks import Logits
from service.call import Call
from service.catalogue import Catalogue
from service.settings import Settings
from tests.running import PATIENCE_S, client_of, opened
from tests.toys import toy

JSON = [(b"content-type", b"application/json")]


class GatedGraph(OpenGraph):
    """The real graph behind a gate, so that a test can hold the worker for as long as it needs."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.buckets = graph.buckets
        self.busy = threading.Event()
        self.gate = threading.Event()

    def run(self, feeds: Feeds, handle: RunHandle | None = None) -> Logits:
        self.busy.set()
        assert self.gate.wait(PATIENCE_S)
        return self._graph.run(feeds, handle)


@dataclass
class Gates:
    """The graphs of the bundles that were opened, by name."""

    of: dict[str, GatedGraph] = field(default_factory=dict)

    def open_bundle(self, *arguments: Any) -> OpenBundle:
        bundle = open_bundle(*arguments)
        gated = self.of[bundle.manifest.name] = GatedGraph(bundle.graph)
        return replace(bundle, graph=gated)

    def open(self) -> None:
        for gated in self.of.values():
            gated.gate.set()


@pytest.fixture
def gates(monkeypatch: pytest.MonkeyPatch) -> Gates:
    gates = Gates()
    monkeypatch.setattr(catalogue, "open_bundle", gates.open_bundle)
    return gates


def visit(models: Path, scenario: Callable[[Door], Coroutine[Any, Any, None]], **settings: Any) -> None:
    """Run a scenario with the models open."""

    async def act() -> None:
        async with opened(Settings(models=models, **settings)) as door:
            await scenario(door)

    asyncio.run(act())


async def held(gates: Gates, client: httpx2.AsyncClient, model: str = "toy") -> "asyncio.Task[httpx2.Response]":
    """A request whose batch runs until the gates open."""
    task = asyncio.create_task(client.post("/v1/classify", json={"input": "held", "model": model}))
    assert await asyncio.to_thread(gates.of[model].busy.wait, PATIENCE_S)
    return task


# Requests that both ways in must answer alike: (method and path, body, headers).
CORPUS: tuple[tuple[str, bytes, dict[str, str]], ...] = tuple(
    (path, body, headers)
    for path in ("/v1/classify", "/predict", "/")
    for body, headers in (
        (b'{"input": "good"}', {}),
        (b'{"input": ["good", ""], "model": "toy-teacher"}', {}),
        (b'{"inputs": ["good", "bad"]}', {}),
        (b'{"inputs": "good", "parameters": {"top_k": 2}}', {}),
        (b'{"inputs": "good", "parameters": {"function_to_apply": "sigmoid"}}', {}),
        (b'{"input": "good", "model": "other"}', {}),
        (b'{"input": [], "inputs": []}', {}),
        (b"{", {}),
        (b"[1]", {}),
        (b" " * 5000, {}),
        (b'{"input": "good"}', {"content-type": "text/plain"}),
    )
)
TIMES = re.compile(rb'"timing_ms":\{[^}]*\}')


def test_both_ways_in_give_the_same_answers_and_errors(toy_models: Path) -> None:
    async def scenario(door: Door) -> None:
        async with client_of(door) as past, client_of(door.api) as through:
            for path, body, more in CORPUS:
                headers = {"content-type": "application/json", "x-request-id": "same"} | more
                answers = [await client.post(path, content=body, headers=headers) for client in (past, through)]
                seen = [
                    (answer.status_code, sorted(answer.headers.items()), TIMES.sub(b"", answer.content))
                    for answer in answers
                    if answer.headers.pop("content-length")
                    and answer.headers.pop("server-timing", "no")  # times differ
                ]
                assert len(seen) == 2
                assert seen[0] == seen[1], (path, body)

    visit(toy_models, scenario, max_body_bytes=4000)


def test_every_hot_route_is_known_to_fastapi_too(toy_models: Path) -> None:
    door = create_app(Settings(models=toy_models))
    posts = {path for path, methods in door.api.openapi()["paths"].items() if "post" in methods}
    assert {path for path in posts if door.hot("POST", path) is not None} >= {"/v1/classify", "/predict", "/"}


@pytest.mark.parametrize("path", ["/v1/classify", "/predict"])
def test_a_full_queue_is_told_to_come_back(toy_models: Path, gates: Gates, path: str) -> None:
    async def scenario(door: Door) -> None:
        async with client_of(door) as client:
            first = await held(gates, client)
            waiting = asyncio.create_task(client.post("/v1/classify", json={"input": ["a"] * 3}))
            await until(lambda: door.lifecycle.catalogue.resolve("toy").queued_rows == 3)
            field = "input" if path == "/v1/classify" else "inputs"
            refused = await client.post(path, json={field: ["a"] * 2})
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            last = asyncio.create_task(client.post("/v1/classify", json={"input": "a"}))
            gates.open()
            statuses = [(await task).status_code for task in (first, waiting, last)]
            assert statuses == [200, 200, 200]

    visit(toy_models, scenario, max_queue_rows=4, max_request_rows=4, max_client_share=1.0)


async def until(condition: Callable[[], bool]) -> None:
    """Let everyone else run until it holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0)


def test_a_busy_teacher_does_not_delay_the_student(toy_models: Path, gates: Gates) -> None:
    async def scenario(door: Door) -> None:
        async with client_of(door) as client:
            slow = await held(gates, client, "toy-teacher")
            gates.of["toy"].gate.set()
            assert (await client.post("/v1/classify", json={"input": "good"})).status_code == 200
            assert not slow.done()
            gates.open()
            assert (await slow).status_code == 200

    visit(toy_models, scenario)


def test_the_rows_of_a_client_that_left_are_never_run(toy_models: Path, gates: Gates) -> None:
    async def scenario(door: Door) -> None:
        async with client_of(door) as client:
            first = await held(gates, client)
            sent: list[Message] = []
            await post_and_leave(door, sent)
            gates.open()
            assert (await first).status_code == 200
            await until(lambda: door.lifecycle.catalogue.resolve("toy").queued_rows == 0)
            metrics = (await client.get("/metrics")).text
        assert sent[0]["status"] == 499
        assert 'understudy_requests_total{code="499",route="/v1/classify"} 1.0' in metrics
        assert 'understudy_dropped_rows{model="toy@1"} 2.0' in metrics
        assert 'understudy_rows_total{model="toy@1"} 1.0' in metrics

    visit(toy_models, scenario)


async def post_and_leave(door: Door, sent: list[Message]) -> None:
    """A request whose connection closes as soon as it was sent."""
    body = json.dumps({"input": ["good", "bad"]}).encode()
    messages: list[Message] = [
        {"type": "http.request", "body": body, "more_body": False},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await door({"type": "http", "method": "POST", "path": "/v1/classify", "headers": JSON}, receive, send)


def test_a_row_that_breaks_the_model_fails_alone(toy_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison = [toy.VOCABULARY["dull"]]
    original = OpenBundle.run

    def run(bundle: OpenBundle, rows: Sequence[Row], handle: RunHandle | None = None) -> Logits:
        if poison in rows:
            raise RuntimeError("/secret/path: out of luck")
        return original(bundle, rows, handle)

    async def scenario(door: Door) -> None:
        monkeypatch.setattr(OpenBundle, "run", run)
        async with client_of(door) as client:
            posts = [client.post("/v1/classify", json={"input": text}) for text in ("good", "dull", "bad")]
            answers = await asyncio.gather(*posts)
            assert [answer.status_code for answer in answers] == [200, 500, 200]
            assert answers[1].json()["title"] == "Inference failed"
            assert "secret" not in answers[1].text
            assert (await client.get("/readyz")).status_code == 200

    visit(toy_models, scenario)


def test_logits_that_are_no_numbers_are_an_error_and_never_an_answer(
    toy_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = OpenBundle.run

    async def scenario(door: Door) -> None:
        monkeypatch.setattr(OpenBundle, "run", lambda bundle, rows, _: original(bundle, rows) * float("nan"))
        async with client_of(door) as client:
            assert (await client.post("/predict", json={"inputs": "good"})).status_code == 500

    visit(toy_models, scenario)


@pytest.mark.parametrize("way", ["past", "through"])
def test_a_fault_of_ours_says_only_where_to_look(toy_models: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("/secret/path")

    async def scenario(door: Door) -> None:
        monkeypatch.setattr(Catalogue, "resolve", fail)
        async with client_of(door if way == "past" else door.api) as client:
            response = await client.post("/v1/classify", json={"input": "good"})
            assert response.status_code == 500
            assert "secret" not in response.text

    visit(toy_models, scenario)


def test_while_models_load_it_is_alive_and_not_ready(toy_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, original = threading.Event(), Catalogue

    def open_later(*arguments: Any) -> Catalogue:
        assert gate.wait(PATIENCE_S)
        return original(*arguments)

    monkeypatch.setattr("service.app.Catalogue", open_later)

    async def act() -> None:
        door = create_app(Settings(models=toy_models))
        async with door.api.router.lifespan_context(door.api), client_of(door) as client:
            assert (await client.get("/livez")).status_code == 200
            assert (await client.get("/readyz")).json()["detail"] == "loading"
            refused = await client.post("/predict", json={"inputs": "good"})
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert (await client.get("/v1/models")).status_code == 503
            assert "understudy_ready 0.0" in (await client.get("/metrics")).text
            gate.set()
            await until(lambda: door.lifecycle.unready() is None)
            assert (await client.post("/predict", json={"inputs": "good"})).status_code == 200

    asyncio.run(act())


def test_models_that_do_not_open_leave_it_unready_with_the_reason(tmp_path: Path) -> None:
    async def act() -> None:
        door = create_app(Settings(models=tmp_path / "nowhere"))
        async with door.api.router.lifespan_context(door.api), client_of(door) as client:
            await until(lambda: door.lifecycle.failure is not None)
            response = await client.get("/readyz")
            assert (response.status_code, response.json()["detail"]) == (503, "failed")
            assert isinstance(door.lifecycle.failure, MissingFile)

    asyncio.run(act())


def test_a_dead_worker_takes_readiness_away(toy_models: Path) -> None:
    async def scenario(door: Door) -> None:
        await door.lifecycle.catalogue.resolve("toy").close(patience_s=PATIENCE_S)
        async with client_of(door) as client:
            response = await client.get("/readyz")
            assert (response.status_code, "toy@1" in response.json()["detail"]) == (503, True)
            assert (await client.post("/predict", json={"inputs": "good"})).status_code == 503
            teacher = {"input": "good", "model": "toy-teacher"}
            assert (await client.post("/v1/classify", json=teacher)).status_code == 200

    visit(toy_models, scenario)


@pytest.mark.parametrize(("left", "counted"), [(True, "499"), (False, "503")], ids=["the client", "nobody"])
def test_a_request_that_is_cut_is_counted_by_who_left(toy_models: Path, gates: Gates, left: bool, counted: str) -> None:
    async def scenario(door: Door) -> None:
        endpoint = door.hot("POST", "/v1/classify")
        assert endpoint is not None
        async with client_of(door) as client:
            first = await held(gates, client)
            call = Call("POST", "/v1/classify", [(b"content-type", b"application/json")], b'{"input":"a"}', None)
            cut = asyncio.create_task(endpoint(call))
            await until(lambda: door.lifecycle.catalogue.resolve("toy").queued_rows == 1)
            call.left = left
            cut.cancel()
            await asyncio.wait({cut})
            gates.open()
            await first
            metrics = (await client.get("/metrics")).text
        assert f'understudy_requests_total{{code="{counted}",route="/v1/classify"}} 1.0' in metrics
        assert f'understudy_rejected_total{{reason="not_ready"}} {float(not left)}' in metrics

    visit(toy_models, scenario)


def test_a_head_is_a_get_without_its_body(toy_models: Path) -> None:
    async def scenario(door: Door) -> None:
        async with client_of(door) as client:
            for path in ("/livez", "/readyz", "/metrics", "/v2/health/ready", "/v1/models", "/"):
                assert (await client.head(path)).status_code == 200, path
            assert (await client.head("/v1/classify")).status_code == 405

    visit(toy_models, scenario)


def test_what_is_watched_is_asked_on_the_event_loop_alone(toy_models: Path) -> None:
    """Budgets and queues are its own; only what was collected is written in a thread."""

    async def scenario(door: Door) -> None:
        asked: list[threading.Thread] = []
        gauge = door.desk.metrics.gauge("asked", "By whom.")

        def value() -> float:
            asked.append(threading.current_thread())
            return 1

        door.desk.metrics.watch(gauge, value)
        async with client_of(door) as client:
            assert "understudy_asked 1.0" in (await client.get("/metrics")).text
            assert (await client.get("/v1/live")).status_code == 200
        assert asked == [threading.current_thread()] * 2

    visit(toy_models, scenario)
