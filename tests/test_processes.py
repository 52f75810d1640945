"""Several workers behind one port: shared out, watched, replaced without a failed request, and stopped."""

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import psutil
import pytest

from tests.running import PATIENCE_S, Running, command, serving

FLAGS = ("--workers", "2", "--log-level", "critical", "--reload-seconds", "0")


@pytest.fixture
def pair(toy_models: Path) -> Iterator[Running]:
    with serving(toy_models, *FLAGS) as running:
        yield running


def workers(running: Running) -> list[psutil.Process]:
    """Those that serve, without multiprocessing's own helper."""
    return [child for child in psutil.Process(running.process.pid).children() if serves(child)]


def serves(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return False


def until(condition: object, running: Running) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline and running.process.poll() is None
        time.sleep(0.02)


def ask(running: Running) -> int:
    """One request on a connection of its own."""
    return httpx2.post(f"{running.url}/predict", json={"inputs": "good"}, timeout=PATIENCE_S).status_code


def test_both_answer_and_their_metrics_add_up(pair: Running) -> None:
    assert len(workers(pair)) == 2
    before = {process.pid: process.cpu_times().user for process in workers(pair)}
    asked = 0

    def both_worked() -> bool:
        nonlocal asked
        with ThreadPoolExecutor(8) as threads:
            assert Counter(threads.map(lambda _: ask(pair), range(120))) == {200: 120}
        asked += 120
        return all(process.cpu_times().user > before[process.pid] for process in workers(pair))

    until(both_worked, pair)
    # Each takes over what it counted about once a second.
    line = 'understudy_requests_total{{code="200",route="/predict"}} {}.0'
    until(lambda: line.format(asked) in httpx2.get(f"{pair.url}/metrics").text, pair)
    until(lambda: "understudy_ready 2.0" in httpx2.get(f"{pair.url}/metrics").text, pair)


def test_one_that_is_killed_comes_back_and_the_other_answers_meanwhile(pair: Running) -> None:
    victim, other = workers(pair)
    victim.kill()
    until(lambda: len(workers(pair)) == 2 and victim.pid not in {process.pid for process in workers(pair)}, pair)
    assert other.is_running()
    until(lambda: "understudy_ready 2.0" in httpx2.get(f"{pair.url}/metrics").text, pair)
    assert Counter(ask(pair) for _ in range(20)) == {200: 20}


def test_they_are_replaced_one_by_one_without_a_failed_request(pair: Running) -> None:
    old = {process.pid for process in workers(pair)}
    statuses: Counter[int] = Counter()
    with ThreadPoolExecutor(1) as thread:
        pair.process.send_signal(signal.SIGUSR1)
        replaced = thread.submit(until, lambda: not old & {process.pid for process in workers(pair)}, pair)
        while not replaced.done():
            statuses[ask(pair)] += 1
        replaced.result()
    until(lambda: len(workers(pair)) == 2, pair)
    assert set(statuses) == {200}


def test_all_end_with_their_parent_even_if_it_is_killed(toy_models: Path) -> None:
    with serving(toy_models, *FLAGS) as running:
        left = workers(running)
        os.kill(running.process.pid, signal.SIGKILL)
        running.process.wait(PATIENCE_S)
        gone, alive = psutil.wait_procs(left, PATIENCE_S)
        assert (len(gone), alive) == (2, [])


def test_what_keeps_them_from_serving_is_said_once(tmp_path: Path) -> None:
    done = command("serve", "--port", "0", "--workers", "2", "--models", str(tmp_path / "nowhere"))
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "nowhere" in done.stderr
