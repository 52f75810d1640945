"""Several workers behind one port: shared out, watched, replaced without a failed request, and stopped."""

import asyncio
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from service import server as serving_loop
from service.lifecycle import Lifecycle
from service.processes.parent import FIRST_PAUSE_S, LONGEST_PAUSE_S, Workers
from service.settings import Settings
from tests.running import PATIENCE_S, Running, command, serving, until

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


def ask(running: Running) -> int:
    """One request on a connection of its own."""
    return running.post("/predict", {"inputs": "good"}).status_code


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

    until(both_worked, pair.process)
    # Each takes over what it counted about once a second.
    line = 'understudy_requests_total{{code="200",route="/predict"}} {}.0'
    until(lambda: line.format(asked) in pair.get("/metrics").text, pair.process)
    until(lambda: "understudy_ready 2.0" in pair.get("/metrics").text, pair.process)


def test_one_that_is_killed_comes_back_and_the_other_answers_meanwhile(pair: Running) -> None:
    victim, other = workers(pair)
    victim.kill()
    until(
        lambda: len(workers(pair)) == 2 and victim.pid not in {process.pid for process in workers(pair)}, pair.process
    )
    assert other.is_running()
    until(lambda: "understudy_ready 2.0" in pair.get("/metrics").text, pair.process)
    assert Counter(ask(pair) for _ in range(20)) == {200: 20}


def test_they_are_replaced_one_by_one_without_a_failed_request(pair: Running) -> None:
    old = {process.pid for process in workers(pair)}
    statuses: Counter[int] = Counter()
    with ThreadPoolExecutor(1) as thread:
        pair.process.send_signal(signal.SIGUSR1)
        replaced = thread.submit(until, lambda: not old & {process.pid for process in workers(pair)}, pair.process)
        while not replaced.done():
            statuses[ask(pair)] += 1
        replaced.result()
    until(lambda: len(workers(pair)) == 2, pair.process)
    assert set(statuses) == {200}
    # None of what the old ones counted is lost, and the new ones are there.
    counted = f'understudy_requests_total{{code="200",route="/predict"}} {statuses[200]}.0'
    until(lambda: counted in pair.get("/metrics").text, pair.process)
    until(lambda: "understudy_ready 2.0" in pair.get("/metrics").text, pair.process)


def test_where_none_can_be_started_it_is_tried_again(pair: Running) -> None:
    parent, (victim, other) = psutil.Process(pair.process.pid), workers(pair)
    before = parent.rlimit(psutil.RLIMIT_NOFILE)
    parent.rlimit(psutil.RLIMIT_NOFILE, (5, before[1]))  # too few for pipes to another child, enough to wait
    victim.kill()
    until(lambda: not victim.is_running() or victim.status() == psutil.STATUS_ZOMBIE, pair.process)
    pair.process.send_signal(signal.SIGUSR1)  # nor can the other one be replaced
    time.sleep(3 * FIRST_PAUSE_S)
    assert [each.pid for each in workers(pair)] == [other.pid]
    parent.rlimit(psutil.RLIMIT_NOFILE, before)
    until(lambda: len(workers(pair)) == 2, pair.process)
    until(lambda: "understudy_ready 2.0" in pair.get("/metrics").text, pair.process)
    assert Counter(ask(pair) for _ in range(20)) == {200: 20}


def test_why_a_new_one_does_not_get_ready_is_said(tmp_path: Path, toy_models: Path) -> None:
    models = Path(shutil.copytree(toy_models, tmp_path / "models"))
    with serving(models, "--workers", "2", "--reload-seconds", "0") as running:
        (models / "toy" / "1" / "model.onnx").write_bytes(b"other")
        running.process.send_signal(signal.SIGUSR1)
        assert running.process.stderr is not None
        what, why = (running.process.stderr.readline() for _ in range(2))
        assert ask(running) == 200
    assert what.endswith("the new worker 0 did not get ready; the old ones go on\n")
    assert "model.onnx: not what the manifest describes" in why


def test_however_often_none_could_be_started_the_pause_has_an_end() -> None:
    parent = Workers(lambda *_: 0, [], stop_s=1, on_ready=lambda _: None, on_end=lambda _: None)
    parent._losses = 5000
    assert parent._pause_s() == LONGEST_PAUSE_S


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


def test_one_beats_also_while_its_models_open_and_while_it_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its parent, which waits 30 s for the next beat, would kill it in the middle of either."""
    monkeypatch.setattr(serving_loop, "BEAT_S", 0.01)
    beats, ends = [0], []

    async def takes_its_time(_scope: Any, receive: Any, send: Any) -> None:
        for end in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{end}"
            before = beats[0]
            async with asyncio.timeout(PATIENCE_S):
                while beats[0] < before + 3:
                    await asyncio.sleep(0.01)
            ends.append(end)
            await send({"type": f"lifespan.{end}.complete"})

    def beat() -> None:
        beats[0] += 1

    settings = Settings()
    lifecycle = Lifecycle(lambda: pytest.fail("no models are asked for"), settings)
    server = serving_loop.Server(serving_loop.configure(takes_its_time, settings), lifecycle, settings, beat)
    server.should_exit = True  # as soon as it has begun
    thread = threading.Thread(target=server.run, kwargs={"sockets": []})
    thread.start()
    thread.join(PATIENCE_S)
    assert ends == ["startup", "shutdown"]
