"""Clients that never cease to ask while something else happens to the service, and write down every answer.

They live in a thread with an event loop of its own. Each waits a little between two requests, at random.
"""

import asyncio
import json
import random
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter, sleep
from typing import Any

from service.bench.samples import OK, Failure
from service.bench.wire import Caller, Dialect, MalformedResponse, ResponseReader, Target
from service.predictors import MODEL_DIGEST
from tests.prove.aside import Aside
from tests.prove.history import Asked

PAUSE_S = 0.004
ANSWER_S = 15.0
CHUNK = 1 << 16
POLL_S = 0.002

_PATH = "/v1/classify"


class Askers(Aside):
    """So many connections, as long as this is open."""

    def __init__(
        self, target: Target, name: str, texts: Sequence[str], labels: Sequence[str], connections: int = 8
    ) -> None:
        super().__init__(lambda: asyncio.run(self._all()), "askers")
        caller = Caller(target, Dialect.CLASSIFY)
        bodies = [[{"input": text}, {"input": text, "model": name}] for text in texts]
        self._requests = [[caller.post(_PATH, json.dumps(body).encode()) for body in both] for both in bodies]
        self._target, self._name, self._labels = target, name, tuple(labels)
        self._connections = connections
        self.history: list[Asked] = []
        self.newest = 0  # version in any answer

    def until(self, version: int, patience_s: float) -> bool:
        """Wait until it has answered somebody."""
        deadline = perf_counter() + patience_s
        while self.newest < version and perf_counter() < deadline:
            sleep(POLL_S)
        return self.newest >= version

    async def _all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(self._connections):
                group.create_task(self._one(random.Random(number)))

    async def _one(self, chance: random.Random) -> None:
        while not self._over.is_set():
            try:
                reader, writer = await asyncio.open_connection(self._target.host, self._target.port)
            except OSError:
                self.history.append(_nothing(perf_counter(), 0, Failure.LOST))
                await asyncio.sleep(PAUSE_S)
                continue
            try:
                await self._converse(reader, writer, chance)
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, chance: random.Random
    ) -> None:
        """Until the connection is no good any more."""
        answer = ResponseReader()
        while not self._over.is_set() and not answer.closes:
            text = chance.randrange(len(self._requests))
            sent = perf_counter()
            try:
                writer.write(chance.choice(self._requests[text]))
                async with asyncio.timeout(ANSWER_S):
                    status = await _answered(reader, answer)
            except (OSError, TimeoutError, MalformedResponse) as error:
                self.history.append(_nothing(sent, text, _failure(error)))
                return
            self._note(sent, text, status, answer)
            await asyncio.sleep(chance.expovariate(1 / PAUSE_S))

    def _note(self, sent: float, text: int, status: int, answer: ResponseReader) -> None:
        received = perf_counter()
        if status != OK:
            self.history.append(Asked(sent, received, text, status))
            return
        try:
            name, version, scores = read_answer(json.loads(answer.body), self._labels)
            if name != self._name:
                raise ValueError(name)
        except (ValueError, KeyError, TypeError, AttributeError):
            self.history.append(_nothing(sent, text, Failure.WRONG))
            return
        digest = answer.header(MODEL_DIGEST).decode("latin-1")
        self.history.append(Asked(sent, received, text, status, version, scores, digest))
        self.newest = max(self.newest, version)


def read_answer(answer: Any, labels: Sequence[str]) -> tuple[str, int, tuple[float, ...]]:
    """Name, version and scores of the only text."""
    name, _, version = answer["model"].rpartition("@")
    (row,) = answer["data"]
    if len(row["scores"]) != len(labels):
        raise ValueError("other labels")
    return name, int(version), tuple(float(row["scores"][label]) for label in labels)


async def _answered(reader: asyncio.StreamReader, answer: ResponseReader) -> int:
    while True:
        data = await reader.read(CHUNK)
        if not data:
            raise ConnectionResetError
        if status := answer.feed(data):
            return status


def _nothing(sent: float, text: int, failure: Failure) -> Asked:
    return Asked(sent, perf_counter(), text, failure)


def _failure(error: Exception) -> Failure:
    if isinstance(error, TimeoutError):
        return Failure.TIMEOUT
    return Failure.GARBLED if isinstance(error, MalformedResponse) else Failure.LOST
