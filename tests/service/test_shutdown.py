"""The real service, told to stop in whatever state it is: it ends in time and with 0, and whoever asked is answered."""

import http.client
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from service.bundle.manifest import Role
from tests.prove.shutdown import Record, Rolling, bounds_of, bounds_of_rolling
from tests.running import PATIENCE_S, Running, serving
from tests.service.endings import STOPPING, Ending, State, request, stopped, workers_of
from tests.service.hanging import HANGING_PIECE, HANGS, SLOW, SLOW_PIECE
from tests.service.states import STATES
from tests.toys import toy

CLIENTS = 6
ROUNDS = 2
LOGGED = Ending(1.0, 0, 1, ("logged: Traceback",))


@pytest.mark.parametrize("turn", range(len(STATES)), ids=[state.name for state in STATES])
def test_it_ends_in_time_and_answers_whoever_asked(turn: int, tmp_path: Path) -> None:
    state: State = STATES[turn]
    for version in state.versions:
        toy.publish(tmp_path, "toy", version, Role.STUDENT)
    ending = stopped(state, tmp_path, state.number or STOPPING[turn % 2])
    assert (ending.code, ending.faults) == (0, ())


def test_the_planted_words_are_what_they_should_be(toy_student: Path) -> None:
    reader = toy.encoder(Role.STUDENT, toy.tokenizer(special=False))
    [hangs], [slow] = reader.encode([HANGS]), reader.encode([SLOW])
    assert HANGING_PIECE in hangs
    assert SLOW_PIECE in slow


@pytest.mark.parametrize("broken", [Ending(9.0, 0, 1, ()), Ending(1.0, 0, 0, ("unanswered: 1 of 1",)), LOGGED])
def test_each_promise_about_stops_can_be_broken(broken: Ending) -> None:
    record = Record()
    for _ in STATES:
        record.add(Ending(1.0, 0, 1, ()))
    assert all(bound.kept for bound in bounds_of({"idle": record}))
    record.add(broken)
    assert [bound.kept for bound in bounds_of({"idle": record})].count(False) == 1


@pytest.mark.parametrize("broken", [{"restarts": 0}, {"kept": Counter({200: 9, 503: 1})}, {"new": Counter({-2: 1})}])
def test_each_promise_about_rolling_restarts_can_be_broken(broken: dict[str, Any]) -> None:
    kept = Rolling(restarts=3, kept=Counter({200: 9}), new=Counter({200: 9}))
    assert all(bound.kept for bound in bounds_of_rolling(kept))
    assert [bound.kept for bound in bounds_of_rolling(replace(kept, **broken))].count(False) == 1


@pytest.fixture
def pair(toy_models: Path) -> Iterator[Running]:
    with serving(toy_models, "--workers", "2", "--log-level", "critical", "--reload-seconds", "0") as running:
        yield running


def test_a_rolling_restart_fails_nobody_on_new_connections_or_kept_ones(pair: Running) -> None:
    over = Event()
    with ThreadPoolExecutor(CLIENTS + 2) as threads:
        kept = [threads.submit(_keep_asking, pair, over, new=False) for _ in range(CLIENTS)]
        fresh = [threads.submit(_keep_asking, pair, over, new=True) for _ in range(2)]
        try:
            for _ in range(ROUNDS):
                _replace_all(pair)
        finally:
            over.set()
        outcomes = [sum((each.result() for each in group), Counter()) for group in (kept, fresh)]
    assert [set(outcome) for outcome in outcomes] == [{200}, {200}]


def _replace_all(running: Running) -> None:
    before = _workers(running)
    running.process.send_signal(signal.SIGUSR1)
    until = time.monotonic() + PATIENCE_S
    while before & (now := _workers(running)) or len(now) != 2:
        assert time.monotonic() < until
        time.sleep(0.02)


def _workers(running: Running) -> set[int]:
    return {worker.pid for worker in workers_of(running.process.pid)}


def _keep_asking(running: Running, over: Event, *, new: bool) -> "Counter[int | str]":
    """As a client does that keeps its connection, or takes a new one each time; what became of its requests."""
    found: Counter[int | str] = Counter()
    host, port = running.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE_S)
    body = request("good").partition(b"\r\n\r\n")[2]
    while not over.wait(0.01):
        try:
            connection.request("POST", "/v1/classify", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
            found[response.status] += 1
        except (OSError, http.client.HTTPException) as error:
            found[type(error).__name__] += 1
            connection.close()
        if new:
            connection.close()
    connection.close()
    return found
