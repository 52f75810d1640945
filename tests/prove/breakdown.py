"""`python -m tests.prove.breakdown --models DIR [--precision fast]`: where the microseconds of a request go.

The real application and the real connections in this process, with the sockets left out: bytes are fed to the protocol
and its answers are thrown away, in a closed loop. Named functions are timed on the way; a part's time includes the
parts below it. Sockets cost on top what `peers` calls an echo. Pin it to one core to compare with a server on one.
"""

import argparse
import asyncio
import json
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import uvloop
from uvicorn.server import ServerState

from service.api.door import Door
from service.api.exchange import Desk
from service.app import create_app
from service.batching.batcher import Batcher
from service.bench.texts import SENTENCES, read_texts
from service.bundle.encoder import Encoder
from service.bundle.engine import OpenGraph
from service.bundle.manifest import Precision
from service.bundle.runtime import OpenBundle
from service.server import configure
from service.settings import Settings
from service.wire.connection import Connection
from service.wire.eager import Eager
from tests.prove.bounds import run

PARTS: tuple[tuple[type, str, str], ...] = (
    (Connection, "data_received", "bytes to the first wait: parse, check, tokenise, queue"),
    (Connection, "_take", "  of which after the HTTP parser"),
    (Desk, "receive", "    of which JSON to a request"),
    (Encoder, "encode", "    of which tokenising"),
    (Batcher, "submit", "    of which queueing"),
    (OpenBundle, "run", "padding and running, by the clock"),
    (OpenGraph, "run", "  of which ONNX Runtime"),
    (Batcher, "_deliver", "handing out the results of a batch"),
    (Eager, "_go_on", "everything of the endpoint, before and after its wait"),
)
ROUNDS, PER_ROUND = 5, 6_400


class Sink:
    """A transport without a socket: each answer brings the connection's next request."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, more: Iterator[bytes], left: int, done: Callable[[], None]
    ) -> None:
        self._loop, self._more, self._left, self._done = loop, more, left, done
        self.protocol: Any = None

    def get_extra_info(self, name: str, default: object = None) -> object:
        return {"socket": self, "peername": ("127.0.0.1", 5), "sockname": ("127.0.0.1", 6)}.get(name, default)

    def write(self, data: bytes) -> None:
        if not data.startswith(b"HTTP/1.1 200"):
            raise AssertionError(data[:200])
        self._left -= 1
        if self._left:
            self._loop.call_soon(self.protocol.data_received, next(self._more))
        else:
            self._done()

    def setsockopt(self, *_: object) -> None: ...

    def set_write_buffer_limits(self, *_: object) -> None: ...

    def close(self) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", 6

    def getpeername(self) -> tuple[str, int]:
        return "127.0.0.1", 5

    family = 2


def requests(texts: list[str]) -> Iterator[bytes]:
    """One text a request, in a seeded order."""
    rng = random.Random(1)
    heads = b"POST /predict HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    bodies = [json.dumps({"inputs": text}).encode() for text in texts]
    ready = [heads % len(body) + body for body in bodies]
    while True:
        yield rng.choice(ready)


async def play(door: Door, settings: Settings, connections: int, total: int, more: Iterator[bytes]) -> float:
    """Seconds for so many requests."""
    loop, finished = asyncio.get_running_loop(), asyncio.Event()
    config = configure(door, settings, hot=door.hot)
    config.load()
    state = ServerState()
    open_ones = connections

    def done() -> None:
        nonlocal open_ones
        open_ones -= 1
        if not open_ones:
            finished.set()

    protocols = []
    for _ in range(connections):
        make: Any = config.http_protocol_class
        protocol = make(config=config, server_state=state, app_state={}, _loop=loop)
        sink = Sink(loop, more, total // connections, done)
        sink.protocol = protocol
        protocol.connection_made(sink)
        protocols.append(protocol)
    started = perf_counter()
    for protocol in protocols:
        protocol.data_received(next(more))
    await finished.wait()
    took = perf_counter() - started
    for protocol in protocols:
        protocol.connection_lost(None)
    return took


@contextmanager
def timed(spent: dict[str, float]) -> Iterator[None]:
    """Sum up what each part takes."""
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in PARTS]
    for owner, name, original in originals:
        setattr(owner, name, _timing(original, spent, f"{owner.__name__}.{name}"))
    try:
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


def _timing(original: Callable[..., Any], spent: dict[str, float], key: str) -> Callable[..., Any]:
    def call(*given: Any, **named: Any) -> Any:
        started = perf_counter()
        try:
            return original(*given, **named)
        finally:
            spent[key] = spent.get(key, 0.0) + perf_counter() - started

    return call


async def measure(settings: Settings, texts: list[str]) -> None:
    """Say where the time goes. Raises whatever kept the models from opening."""
    door = create_app(settings)
    async with door.api.router.lifespan_context(door.api):
        await door.lifecycle.opened()
        if door.lifecycle.failure is not None:
            raise door.lifecycle.failure
        more = requests(texts)
        for connections in (64, 1):
            await play(door, settings, connections, PER_ROUND, more)
            whole = sorted([await play(door, settings, connections, PER_ROUND, more) for _ in range(ROUNDS)])
            say(f"{connections} connections: {whole[ROUNDS // 2] / PER_ROUND * 1e6:.0f} us a request, without sockets")
            spent: dict[str, float] = {}
            with timed(spent):
                await play(door, settings, connections, PER_ROUND, more)
            for owner, name, what in PARTS:
                say(f"{spent.get(f'{owner.__name__}.{name}', 0.0) / PER_ROUND * 1e6:8.1f}  {what}")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--precision", type=Precision, default=Precision.FAST)
    parser.add_argument("--texts", type=Path, help="TXT or TSV, .gz too; default: sentences of our own")
    asked = parser.parse_args()
    texts = read_texts(asked.texts) if asked.texts else list(SENTENCES)
    uvloop.install()
    asyncio.run(measure(Settings(models=asked.models, precision=asked.precision, reload_seconds=0), texts))
    return 0


if __name__ == "__main__":
    run(main)
