"""What is fuzzed: each target takes any bytes and raises Broken when the service does what it must not.

A target goes through the service's own functions in this process. Only the batcher of a model is another one, which
gives made-up scores at once. Whatever a target raises besides Broken is a find as well.
"""

import asyncio
import json
import logging
import random
from collections.abc import Callable, Coroutine, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import onnx
from google.protobuf.message import DecodeError, Message

from service.api.gate import SHORTEST, Access, Gate, read_keys
from service.app import create_app
from service.batching.jobs import Answer
from service.bundle.encoder import Row
from service.bundle.errors import BundleError
from service.bundle.outside import wants_outside_data
from service.bundle.protobuf import NotProtobuf
from service.bundle.seal import MANIFEST_FILE, read_manifest, sealed
from service.call import Call, Headers
from service.predictors import Outcome
from service.settings import SettingProblem, Settings
from service.wire.connection import limits_of
from service.wire.heads import Head, Refusal
from service.wire.reader import Reader
from tests.prove.seeds import BODIES, KEY_FILES, REQUESTS, WORDS, graphs
from tests.toys import toy

Done = TypeVar("Done")

MADE_UP = (0.7, 0.2, 0.1, 0.05)


class Broken(Exception):
    """The service did what it must not."""


@dataclass(frozen=True)
class Target:
    """Something that takes bytes."""

    try_out: Callable[[bytes], None]
    seeds: Sequence[bytes]
    words: Sequence[bytes] = field(default=())  # that a mutation may put in


class Listener(logging.Handler):
    """An error in the log is a find, whatever was answered."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            raise Broken(f"logged as an error: {record.getMessage()}") from (record.exc_info or (None, None))[1]


def listen() -> Listener:
    """From here on, errors in the log are finds."""
    listener = Listener()
    logging.getLogger("understudy").addHandler(listener)
    return listener


class AtOnce:
    """A batcher without workers."""

    alive, queued_rows, reserved_rows, dropped_rows = True, 0, 0, 0

    def __init__(self, labels: int) -> None:
        self._outcome = Outcome(list(MADE_UP[:labels]), list(MADE_UP[:labels]))

    def require_room(self, _rows: int, _client: str | None = None) -> None:
        """There always is."""

    def room(self, _rows: int, _client: str | None = None) -> nullcontext[None]:
        """The same."""
        return nullcontext()

    def submit(self, rows: Sequence[Row], _deadline: float, _client: str | None) -> "asyncio.Future[Answer[Outcome]]":
        done = asyncio.get_running_loop().create_future()
        done.set_result(Answer([self._outcome] * len(rows), 0.0, 0.0))
        return done

    async def close(self, _patience_s: float) -> None:
        """There is nothing to close."""


class Counter:
    """One event loop with the service in it."""

    def __init__(self, models: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self.door = create_app(Settings(models=models, versions=2, default="toy", reload_seconds=0))
        self._lifespan = self.door.api.router.lifespan_context(self.door.api)
        self._run(self._open())
        self._described = self.door.api.openapi()["paths"]

    async def _open(self) -> None:
        loaded = asyncio.Event()
        self.door.lifecycle.on_loaded = lambda _: loaded.set()
        await self._lifespan.__aenter__()
        await loaded.wait()
        for predictor in self.door.lifecycle.catalogue.predictors:
            await predictor._batcher.close(1)
            predictor._batcher = AtOnce(len(predictor.manifest.labels))  # type: ignore[assignment]

    def close(self) -> None:
        self._run(self._lifespan.__aexit__(None, None, None))
        self._run(self._loop.shutdown_default_executor())
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Done]) -> Done:
        return self._loop.run_until_complete(work)

    def ask(self, path: str, route: str, headers: Headers, body: bytes) -> None:
        """The answer must be as the document has it."""
        endpoint = self.door.hot("POST", path)
        assert endpoint is not None
        reply = self._run(endpoint(Call("POST", path, headers, body, "127.0.0.1")))
        if reply.status >= 500 or str(reply.status) not in self._described[route]["post"]["responses"]:
            raise Broken(f"{path}: {reply.status} {reply.body[:300]!r}")
        json.loads(reply.body, parse_constant=_no_number)


def _no_number(name: str) -> NoReturn:
    raise Broken(f"{name} is no JSON")


HEADERS: tuple[Headers, ...] = (
    [],
    [(b"content-type", b"application/json")],
    [(b"content-type", b"text/plain")],
    [(b"x-request-id", b"an-id"), (b"x-request-timeout", b"250ms")],
    [(b"inference-header-content-length", b"10")],
)
PLACES = {
    "native": (("/v1/classify", "/v1/classify"), ("/v1/compare", "/v1/compare")),
    "hub": (("/predict", "/predict"), ("/", "/")),
    "oip": tuple(
        (f"/v2/models/{name}/{rest}", f"/v2/models/{{name}}/{route}")
        for name in ("toy", "tags", "stars", "same", "none")
        for rest, route in (("infer", "infer"), ("versions/1/infer", "versions/{version}/infer"))
    ),
    "repository": (
        ("/v2/repository/index", "/v2/repository/index"),
        ("/v2/repository/models/none/load", "/v2/repository/models/{name}/load"),
    ),
}


def body(dialect: str, counter: Counter) -> Target:
    """The first byte chooses path and headers, the rest is the body."""
    places = [(path, route, headers) for path, route in PLACES[dialect] for headers in HEADERS]

    def try_out(data: bytes) -> None:
        path, route, headers = places[data[0] % len(places) if data else 0]
        counter.ask(path, route, headers, data[1:])

    chosen = range(0, len(places), len(HEADERS))
    return Target(try_out, [bytes([place]) + seed for place in chosen for seed in BODIES[dialect]], WORDS)


def reader(_folder: Path) -> Target:
    """However the bytes are cut into pieces, the same requests must come of them."""
    limits = limits_of(Settings(max_head_bytes=1024, max_body_bytes=1024, max_target_bytes=256, max_headers=16))

    def read(pieces: Sequence[bytes]) -> tuple[list[tuple[Head, bytes, bool]], bool]:
        taken: list[tuple[Head, bytes, bool]] = []
        each = Reader(limits, lambda *request: taken.append(request))
        try:
            for piece in pieces:
                each.feed(piece)
        except Refusal:
            each.asked()
            return taken, True
        finally:
            each.close()
        return taken, False

    def try_out(data: bytes) -> None:
        whole, refused = read([data[4:]])
        cut, cut_refused = read(fragments(data[4:], int.from_bytes(data[:4], "big")))
        known = min(len(whole), len(cut))
        if whole[:known] != cut[:known] or (not refused and not cut_refused and len(whole) != len(cut)):
            raise Broken(f"whole: {whole!r}, in pieces: {cut!r}")

    return Target(try_out, [bytes(4) + seed for seed in REQUESTS], WORDS)


def fragments(data: bytes, dice: int) -> list[bytes]:
    """The same bytes in pieces."""
    rng, pieces, place = random.Random(dice), [], 0
    longest = rng.choice((1, 3, 20, 300))
    while place < len(data):
        size = rng.randint(1, longest)
        pieces.append(data[place : place + size])
        place += size
    return pieces


def manifest(folder: Path) -> Target:
    """A folder whose manifest is whatever it is; sealed, where it can be, lest nothing gets past the seal."""
    toy.publish_zoo(folder / "zoo")
    place = folder / MANIFEST_FILE

    def try_out(data: bytes) -> None:
        for content in (data, _sealed(data)):
            place.write_bytes(content)
            try:
                read_manifest(folder)
            except BundleError as error:
                _one_line(str(error), 1000)

    seeds = [file.read_bytes() for file in sorted((folder / "zoo").rglob(MANIFEST_FILE))]
    return Target(try_out, [json.dumps(json.loads(seed)).encode() for seed in seeds], WORDS)


def _sealed(data: bytes) -> bytes:
    try:
        return sealed(data.decode()).encode()
    except ValueError:
        return data


def graph(_folder: Path) -> Target:
    """Where onnx itself finds a tensor with data from outside, so must we."""

    def try_out(data: bytes) -> None:
        try:
            found = wants_outside_data(data)
        except NotProtobuf:
            return
        if not found:
            try:
                model = onnx.ModelProto.FromString(data)
            except DecodeError:
                return
            if _away(model):
                raise Broken("onnx finds data from outside, and we do not")

    return Target(try_out, graphs())


def _away(message: Message) -> bool:
    waiting: list[Any] = [message]
    while waiting:
        each = waiting.pop()
        if isinstance(each, onnx.TensorProto) and (each.data_location or each.external_data):
            return True
        for described, value in each.ListFields():
            if described.message_type is not None:
                waiting += [value] if isinstance(value, Message) else value
    return False


def keys(folder: Path) -> Target:
    """What a file of keys holds is either told of without showing it, or let in."""
    place = folder / "keys"
    settings = Settings(api_keys_file=place)

    def try_out(data: bytes) -> None:
        place.write_bytes(data)
        try:
            found = read_keys(settings)
            gate = Gate(settings)
        except SettingProblem as problem:
            _one_line(str(problem), 300)
            shown = str(problem).encode().replace(bytes(place), b"")
            if any(len(word) >= SHORTEST and word in shown for word in data.split()):
                raise Broken(f"a key is shown: {problem}") from problem
            return
        lines = [line.strip() for line in data.decode("utf-8-sig").splitlines()]
        given = [line.split(":", 1)[-1] for line in lines if line and not line.startswith("#")]
        names = [gate.admit(Access.INFER, [(b"x-api-key", key.encode())]) for key in given]
        if names != [key.name for key in found]:
            raise Broken(f"{names} were let in, and there are {len(found)} keys")

    return Target(try_out, KEY_FILES)


def _one_line(said: str, most: int) -> None:
    if "\n" in said or len(said) > most:
        raise Broken(f"not one short line: {said[:2000]!r}")


def _alone(dialect: str, folder: Path) -> Target:
    toy.publish_zoo(folder)
    return body(dialect, Counter(folder))


TARGETS: dict[str, Callable[[Path], Target]] = {
    **{dialect: partial(_alone, dialect) for dialect in PLACES},
    "reader": reader,
    "manifest": manifest,
    "graph": graph,
    "keys": keys,
}
"""Each is made of an empty folder of its own."""
