"""A few short rows are run on the event loop itself, unless that hangs."""

import asyncio
import threading
from collections.abc import Sequence
from time import sleep

import pytest

from service.batching.batcher import Batcher
from service.batching.jobs import Limits, WorkerLost

SOON_S = 20  # only ever waited for when a test fails
HERE = Limits(here_s=5.0, run_s=0.1)


class Recorder:
    """Upper-cases rows and remembers in which thread; "slow" takes a while, "hang" waits to be interrupted."""

    def __init__(self) -> None:
        self.threads: list[tuple[int, threading.Thread]] = []
        self.interrupted = threading.Event()

    def run(self, rows: Sequence[str]) -> list[str]:
        self.threads.append((len(rows), threading.current_thread()))
        if "slow" in rows:
            sleep(0.01)
        if "hang" in rows:
            assert self.interrupted.wait(SOON_S)
            raise RuntimeError("interrupted")
        return [row.upper() for row in rows]

    def interrupt(self) -> None:
        self.interrupted.set()


def on_the_loop(recorder: Recorder) -> list[bool]:
    return [thread is threading.main_thread() for _, thread in recorder.threads]


async def ask(batcher: Batcher[str, str], *rows: str) -> list[str]:
    """Also wait until the worker has put its batch down: it answers a moment before."""
    async with asyncio.timeout(SOON_S):
        found = (await batcher.submit(rows)).results
        while not batcher.idle:
            await asyncio.sleep(0.001)
        return found


def test_few_rows_that_are_known_to_be_short_run_on_the_event_loop() -> None:
    recorder = Recorder()

    async def act() -> None:
        batcher: Batcher[str, str] = Batcher(lambda: recorder, HERE)
        assert await ask(batcher, "a") == ["A"]  # nobody knows yet how long a run takes
        assert await ask(batcher, "b", "c") == ["B", "C"]
        assert await ask(batcher, *"defgh") == list("DEFGH")  # more than `rows_here`
        await batcher.close()

    asyncio.run(act())
    assert on_the_loop(recorder) == [False, True, False]


@pytest.mark.parametrize("here_s", [0.0, 0.001])
def test_rows_that_take_longer_than_allowed_run_in_a_thread(here_s: float) -> None:
    recorder = Recorder()

    async def act() -> None:
        batcher: Batcher[str, str] = Batcher(lambda: recorder, Limits(here_s=here_s))
        for _ in range(3):
            assert await ask(batcher, "slow") == ["SLOW"]
        await batcher.close()

    asyncio.run(act())
    assert on_the_loop(recorder) == [False, False, False]


def test_a_run_that_hangs_on_the_event_loop_is_ended_and_the_next_ones_run_in_a_thread() -> None:
    recorder = Recorder()

    async def act() -> None:
        batcher: Batcher[str, str] = Batcher(lambda: recorder, HERE)
        await ask(batcher, "a")
        with pytest.raises(WorkerLost, match="hung"):
            await ask(batcher, "hang")
        assert await ask(batcher, "b") == ["B"]
        assert batcher.alive
        await batcher.close()

    asyncio.run(act())
    assert recorder.interrupted.is_set()
    assert on_the_loop(recorder) == [False, True, False]


def test_a_failing_row_fails_alone_on_the_event_loop_too() -> None:
    recorder = Recorder()
    recorder.interrupted.set()  # so that "hang" fails at once

    async def act() -> None:
        batcher: Batcher[str, str] = Batcher(lambda: recorder, HERE)
        await ask(batcher, "a")
        good, bad = batcher.submit(["b"]), batcher.submit(["hang"])
        async with asyncio.timeout(SOON_S):
            assert (await good).results == ["B"]
            with pytest.raises(Exception, match="row 0 failed"):
                await bad
        await batcher.close()

    asyncio.run(act())
    assert on_the_loop(recorder) == [False, True, True, True]  # together, then each alone
