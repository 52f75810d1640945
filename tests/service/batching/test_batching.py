"""Every row gets its own answer, budgets hold, and no caller can hurt another."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.batching.backlog import Backlog
from service.batching.batcher import Batcher
from service.batching.jobs import (
    Answer,
    BatchRun,
    Closed,
    Entry,
    Expired,
    Limits,
    QueueFull,
    RowFailed,
    WorkerLost,
)
from tests.service.batching.test_backlog import within

BAD = "bad row"
SOON_S = 20  # only ever waited for when a test fails

rows_of_a_request = st.lists(st.text("ab", max_size=9), min_size=1, max_size=6)


@dataclass
class Model:
    """Upper-cases rows, remembers its batches, and waits at a gate that tests open."""

    batches: list[list[str]] = field(default_factory=list)
    busy: threading.Event = field(default_factory=threading.Event)
    gate: threading.Event = field(default_factory=threading.Event)

    def __call__(self, rows: Sequence[str]) -> list[str]:
        self.batches.append(list(rows))
        self.busy.set()
        assert self.gate.wait(SOON_S)
        if BAD in rows:
            raise ValueError("cannot read this")
        return [row.upper() for row in rows]


@dataclass
class Runner:
    """A function as a worker's runner."""

    run: Callable[[Sequence[str]], Sequence[Any]]
    interrupt: Callable[[], None] = lambda: None


Scenario = Callable[[Batcher[str, str], Model], Coroutine[Any, Any, None]]


def play(scenario: Scenario, limits: Limits | None = None, *, busy: bool = False, workers: int = 1) -> Model:
    """Run a scenario; `busy`: the worker is held by a first row, "held", until the gate opens."""
    model = Model()

    async def act() -> None:
        batcher: Batcher[str, str] = Batcher(lambda: Runner(model), limits or Limits(), workers=workers)
        first = batcher.submit(["held"]) if busy else None
        if busy:
            assert model.busy.wait(SOON_S)
        else:
            model.gate.set()
        async with asyncio.timeout(SOON_S):
            await scenario(batcher, model)
            model.gate.set()
            if first is not None:
                assert (await first).results == ["HELD"]
            await batcher.close()

    asyncio.run(act())
    return model


@settings(max_examples=60, deadline=None)
@given(st.lists(rows_of_a_request, max_size=12), st.integers(1, 7), st.integers(1, 30), st.integers(1, 3))
def test_every_request_gets_its_own_answers(
    requests: list[list[str]], most_rows: int, most_tokens: int, workers: int
) -> None:
    async def scenario(batcher: Batcher[str, str], model: Model) -> None:
        answers = await asyncio.gather(*(batcher.submit(rows) for rows in requests))
        assert [answer.results for answer in answers] == [[row.upper() for row in rows] for rows in requests]
        assert batcher.queued_rows == 0

    model = play(scenario, Limits(rows=most_rows, tokens=most_tokens), workers=workers)
    assert sum(map(len, model.batches)) == sum(map(len, requests))
    assert all(within(batch, most_rows, most_tokens) for batch in model.batches)


def test_what_waits_while_the_worker_is_busy_is_one_batch() -> None:
    async def scenario(batcher: Batcher[str, str], model: Model) -> None:
        futures = [batcher.submit([row]) for row in ("a", "b", "c")]
        assert batcher.queued_rows == 3
        model.gate.set()
        assert [(await future).results for future in futures] == [["A"], ["B"], ["C"]]

    assert play(scenario, busy=True).batches == [["held"], ["a", "b", "c"]]


def test_a_batch_costs_the_event_loop_one_call() -> None:
    async def scenario(batcher: Batcher[str, str], model: Model) -> None:
        loop = asyncio.get_running_loop()
        calls: list[object] = []
        original = loop.call_soon_threadsafe

        def counted(callback: Callable[..., object], *details: Any) -> asyncio.Handle:
            calls.append(callback)
            return original(callback, *details)

        loop.call_soon_threadsafe = counted  # type: ignore[method-assign,assignment]
        futures = [batcher.submit(["a", "b"]) for _ in range(5)]
        model.gate.set()
        await asyncio.gather(*futures)
        loop.call_soon_threadsafe = original  # type: ignore[method-assign]
        assert len(calls) == 2  # the held row's batch and this one

    play(scenario, busy=True)


def test_rows_of_a_caller_that_left_are_never_run_and_its_neighbours_are() -> None:
    async def scenario(batcher: Batcher[str, str], model: Model) -> None:
        before, gone, after = (batcher.submit([row, row]) for row in ("a", "b", "c"))
        gone.cancel()
        model.gate.set()
        assert ((await before).results, (await after).results) == (["A", "A"], ["C", "C"])
        assert (batcher.dropped_rows, batcher.queued_rows) == (2, 0)

    assert play(scenario, busy=True).batches == [["held"], ["a", "a", "c", "c"]]


def test_a_caller_that_leaves_during_its_run_hurts_nobody() -> None:
    async def scenario(batcher: Batcher[str, str], model: Model) -> None:
        model.gate.clear()
        leaving, staying = batcher.submit(["a", "b"]), batcher.submit(["c"])
        assert await asyncio.to_thread(model.busy.wait, SOON_S)
        leaving.cancel()
        model.gate.set()
        assert (await staying).results == ["C"]
        assert (await batcher.submit(["d"])).results == ["D"]

    play(scenario)


def test_a_cancelled_task_cancels_its_rows() -> None:
    async def scenario(batcher: Batcher[str, str], model: Model) -> None:
        async def call() -> Answer[str]:
            return await batcher.submit(["a"])

        task = asyncio.create_task(call())
        await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        model.gate.set()
        assert (await batcher.submit(["b"])).results == ["B"]

    assert play(scenario, busy=True).batches[-1] == ["b"]


def test_a_bad_row_fails_alone() -> None:
    async def scenario(batcher: Batcher[str, str], model: Model) -> None:
        good, bad, also_good = (batcher.submit(rows) for rows in (["a"], ["b", BAD], ["c"]))
        model.gate.set()
        assert ((await good).results, (await also_good).results) == (["A"], ["C"])
        with pytest.raises(RowFailed) as caught:
            await bad
        assert (caught.value.index, str(caught.value.__cause__)) == (1, "cannot read this")
        assert batcher.alive
        assert (await batcher.submit(["d"])).results == ["D"]

    play(scenario, busy=True)


def test_a_model_that_gives_too_few_results_fails_its_rows() -> None:
    async def act() -> None:
        batcher: Batcher[str, str] = Batcher(lambda: Runner(lambda rows: []), Limits())
        with pytest.raises(RowFailed) as caught:
            await batcher.submit(["a", "b"])
        assert "0 results for 1 rows" in str(caught.value.__cause__)
        await batcher.close()

    asyncio.run(act())


def test_not_even_an_exit_in_the_model_ends_the_worker() -> None:
    def leave(rows: Sequence[str]) -> list[str]:
        raise SystemExit(1)

    async def act() -> None:
        batcher: Batcher[str, str] = Batcher(lambda: Runner(leave), Limits())
        for _ in range(2):
            with pytest.raises(RowFailed):
                await batcher.submit(["a"])
        assert batcher.alive
        await batcher.close()

    asyncio.run(act())


def test_a_request_enters_as_a_whole_or_not_at_all() -> None:
    async def scenario(batcher: Batcher[str, str], model: Model) -> None:
        inside = batcher.submit(["a", "b"])
        with pytest.raises(QueueFull):
            batcher.submit(["c", "d"])
        assert batcher.queued_rows == 2
        last = batcher.submit(["e"])
        model.gate.set()
        assert ((await inside).results, (await last).results) == (["A", "B"], ["E"])
        assert (await batcher.submit(["f", "g", "h"])).results == ["F", "G", "H"]

    play(scenario, Limits(queued=3), busy=True)


def test_no_rows_are_answered_at_once() -> None:
    async def scenario(batcher: Batcher[str, str], model: Model) -> None:
        assert batcher.submit([]).result().results == []

    assert play(scenario).batches == []


def test_times_add_up_and_batches_are_reported() -> None:
    runs: list[BatchRun] = []

    async def act() -> None:
        batcher: Batcher[str, int] = Batcher(
            lambda: Runner(lambda rows: [len(row) for row in rows]), Limits(rows=2), observe=runs.append
        )
        answer = await batcher.submit(["a", "bb", "ccc"])
        assert answer.results == [1, 2, 3]
        assert answer.queue_s >= 0
        assert answer.inference_s == pytest.approx(sum(run.seconds for run in runs))
        await batcher.close()

    asyncio.run(act())
    assert [(run.rows, run.tokens, run.filled) for run in runs] == [(2, 6, 5), (1, 1, 1)]


def test_closing_runs_what_waits_and_takes_nothing_new() -> None:
    async def scenario(batcher: Batcher[str, str], model: Model) -> None:
        waiting = [batcher.submit([row]) for row in "abc"]
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0)
        with pytest.raises(Closed):
            batcher.submit(["d"])
        model.gate.set()
        await closing
        assert [future.result().results for future in waiting] == [["A"], ["B"], ["C"]]
        assert not batcher.alive

    play(scenario, busy=True)


def test_closing_without_patience_leaves_nobody_waiting() -> None:
    model = Model()

    async def act() -> None:
        batcher: Batcher[str, str] = Batcher(lambda: Runner(model), Limits())
        running = batcher.submit(["held"])
        assert await asyncio.to_thread(model.busy.wait, SOON_S)
        waiting = batcher.submit(["a"])
        await batcher.close(patience_s=0)
        for future in (running, waiting):
            with pytest.raises(Closed):
                await future
        model.gate.set()

    asyncio.run(act())
    assert model.batches == [["held"]]


def test_a_request_that_is_too_late_is_answered_so_and_never_run() -> None:
    async def scenario(batcher: Batcher[str, str], model: Model) -> None:
        late = batcher.submit(["a", "b"], deadline=perf_counter() + 0.05)
        in_time = batcher.submit(["c"], deadline=perf_counter() + SOON_S)
        with pytest.raises(Expired):
            await late
        assert (batcher.queued_rows, batcher.dropped_rows) == (1, 2)
        model.gate.set()
        assert (await in_time).results == ["C"]

    assert play(scenario, busy=True).batches == [["held"], ["c"]]


def test_the_rows_of_those_that_left_make_room_before_they_are_met() -> None:
    async def scenario(batcher: Batcher[str, str], model: Model) -> None:
        leaving = batcher.submit(["a", "b", "c"])
        leaving.cancel()
        async with asyncio.timeout(SOON_S):
            while batcher.queued_rows:
                await asyncio.sleep(0.005)
        assert batcher.queued_tokens == 0
        staying = batcher.submit(["d", "e", "f"])
        model.gate.set()
        assert (await staying).results == ["D", "E", "F"]

    play(scenario, Limits(queued=3), busy=True)


def test_one_client_never_holds_the_whole_queue() -> None:
    async def scenario(batcher: Batcher[str, str], model: Model) -> None:
        mine = [batcher.submit([row], client="greedy") for row in "ab"]
        with pytest.raises(QueueFull, match="client"):
            batcher.submit(["c"], client="greedy")
        with pytest.raises(QueueFull):
            batcher.require_room(1, "greedy")
        other = batcher.submit(["d"], client="modest")
        model.gate.set()
        assert [(await future).results for future in (*mine, other)] == [["A"], ["B"], ["D"]]
        assert (await batcher.submit(["e", "f"], client="greedy")).results == ["E", "F"]

    play(scenario, Limits(queued_of_one=2), busy=True)


def test_waiting_tokens_are_bounded_too_and_a_long_request_still_enters_an_empty_queue() -> None:
    async def scenario(batcher: Batcher[str, str], model: Model) -> None:
        waiting = batcher.submit(["a" * 6])
        with pytest.raises(QueueFull, match="tokens"):
            batcher.submit(["b" * 5])
        model.gate.set()
        assert (await waiting).results == ["A" * 6]
        assert (await batcher.submit(["b" * 50])).results == ["B" * 50]

    play(scenario, Limits(queued_tokens=10), busy=True)


def test_a_refusal_says_when_there_may_be_room() -> None:
    async def scenario(batcher: Batcher[str, str], model: Model) -> None:
        batcher.submit(["a"]).cancel()
        with pytest.raises(QueueFull) as caught:
            batcher.submit(["b"])
        assert caught.value.wait_s > 0

    play(scenario, Limits(queued=1), busy=True)


def alive(batcher: Batcher[str, str]) -> bool:
    """Asked anew each time: a type checker believes what it saw before a pause."""
    return batcher.alive


def test_a_run_that_hangs_fails_its_rows_and_another_worker_takes_over() -> None:
    hanging, interrupted = threading.Event(), threading.Event()

    def run(rows: Sequence[str]) -> list[str]:
        if "hang" in rows:
            hanging.set()
            assert interrupted.wait(SOON_S)
            raise RuntimeError("interrupted")
        return [row.upper() for row in rows]

    async def act() -> None:
        batcher: Batcher[str, str] = Batcher(lambda: Runner(run, interrupted.set), Limits(run_s=0.1))
        with pytest.raises(WorkerLost, match="hangs"):
            await batcher.submit(["hang"])
        assert not alive(batcher)
        async with asyncio.timeout(SOON_S):
            assert (await batcher.submit(["a"])).results == ["A"]
        assert alive(batcher) and interrupted.is_set()
        await batcher.close()

    asyncio.run(act())


def test_a_dead_worker_is_noticed_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = threading.Event()
    take = Backlog.take

    def break_once(backlog: Backlog[str, str], now: float) -> list[Entry[str, str]]:
        if backlog.rows and not broken.is_set():
            broken.set()
            raise MemoryError
        return take(backlog, now)

    async def act() -> None:
        batcher: Batcher[str, str] = Batcher(lambda: Runner(lambda rows: rows), Limits())
        assert (await batcher.submit(["a"])).results == ["a"]
        monkeypatch.setattr(Backlog, "take", break_once)
        waiting = batcher.submit(["b"])
        async with asyncio.timeout(SOON_S):
            while alive(batcher):
                await asyncio.sleep(0.001)
            assert (await waiting).results == ["b"]  # it had not been taken, so the next worker has it
        assert alive(batcher)
        await batcher.close()

    asyncio.run(act())
