"""Every row gets its own answer, budgets hold, and no caller can hurt another."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.batching import (
    Answer,
    Backlog,
    Batcher,
    BatchRun,
    Closed,
    Limits,
    QueueFull,
    RowFailed,
    _Entry,
    _Job,
)

BAD = "bad row"
SOON_S = 20  # only ever waited for when a test fails

rows_of_a_request = st.lists(st.text("ab", max_size=9), min_size=1, max_size=6)


@dataclass
class Model:
    """Upper-cases rows, remembers its batches, and waits at a gate that tests open."""

    batches: list[list[str]] = field(default_factory=list)
    busy: threading.Event = field(default_factory=threading.Event)
    gate: threading.Event = field(default_factory=threading.Event)

    def __call__(self, rows: list[str]) -> list[str]:
        self.batches.append(rows)
        self.busy.set()
        assert self.gate.wait(SOON_S)
        if BAD in rows:
            raise ValueError("cannot read this")
        return [row.upper() for row in rows]


Scenario = Callable[[Batcher[str, str], Model], Coroutine[Any, Any, None]]


def play(scenario: Scenario, limits: Limits | None = None, *, busy: bool = False, workers: int = 1) -> Model:
    """Run a scenario; `busy`: the worker is held by a first row, "held", until the gate opens."""
    model = Model()

    async def act() -> None:
        batcher: Batcher[str, str] = Batcher(model, limits or Limits(), workers=workers)
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


def within(batch: Sequence[str], most_rows: int, most_tokens: int) -> bool:
    padded = len(batch) * max(len(row) or 1 for row in batch)
    return len(batch) <= most_rows and (padded <= most_tokens or len(batch) == 1)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.floats(0, 1)), min_size=1, max_size=80),
    st.integers(1, 9),
    st.integers(1, 120),
)
def test_the_oldest_row_is_in_every_batch_and_no_budget_is_exceeded(
    arrivals: list[tuple[int, float]], most_rows: int, most_tokens: int
) -> None:
    limits = Limits(rows=most_rows, tokens=most_tokens)
    waiting = sorted(arrivals, key=lambda arrival: arrival[1])
    backlog = filled(limits, waiting)
    left = [admitted for _, admitted in waiting]  # the oldest first
    while batch := backlog.take(now=1.0):
        assert within([entry.row for entry in batch], most_rows, most_tokens)
        taken = [entry.job.admitted for entry in batch]
        assert left[0] in taken
        for admitted in taken:
            left.remove(admitted)
    assert (left, backlog.rows) == ([], 0)


def filled(limits: Limits, arrivals: Sequence[tuple[int, float]]) -> Backlog[str, str]:
    """A backlog of single rows with these lengths and times of admission."""
    backlog: Backlog[str, str] = Backlog(limits)
    for length, admitted in arrivals:
        job: _Job[str, str] = _Job(new_future(), 1)
        job.admitted = admitted
        backlog.add(job, ["a" * length])
    return backlog


def new_future() -> asyncio.Future[Answer[str]]:
    async def make() -> asyncio.Future[Answer[str]]:
        return asyncio.get_running_loop().create_future()

    return asyncio.run(make())


def lengths(batch: Sequence[_Entry[str, str]]) -> list[int]:
    return [entry.length for entry in batch]


def test_rows_of_nearest_length_join_the_oldest() -> None:
    arrivals = [(20, 0.90), (40, 0.91), (21, 0.92), (5, 0.93), (19, 0.94)]
    backlog = filled(Limits(rows=3), arrivals)
    assert sorted(lengths(backlog.take(now=0.94))) == [19, 20, 21]
    assert sorted(lengths(backlog.take(now=0.94))) == [5, 40]


def test_rows_of_other_lengths_only_fill_a_small_batch_up() -> None:
    arrivals = [(10, 0.9), *[(30, 0.91)] * 9, *[(11, 0.92)] * 3]
    backlog = filled(Limits(few=6), arrivals)
    assert sorted(lengths(backlog.take(now=0.92))) == [10, 11, 11, 11, 30, 30]


def test_overdue_rows_go_before_all_younger_ones_whatever_their_lengths() -> None:
    arrivals = [(20, 0.0), (40, 0.1), (20, 0.95), (20, 0.96)]
    backlog = filled(Limits(rows=2, age_s=0.5), arrivals)
    assert lengths(backlog.take(now=1.0)) == [20, 40]


def test_a_long_row_is_served_however_many_short_ones_keep_coming() -> None:
    backlog = filled(Limits(rows=4), [(40, 0.5), *[(5, 0.4)] * 3])
    batches = 0
    while 40 not in lengths(backlog.take(now=1.0)):
        batches += 1
        for job in range(10):
            fresh: _Job[str, str] = _Job(new_future(), 1)
            fresh.admitted = 0.9 + job / 100
            backlog.add(fresh, ["a" * 5])
    assert batches <= 1


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
        batcher: Batcher[str, str] = Batcher(lambda rows: [], Limits())
        with pytest.raises(RowFailed) as caught:
            await batcher.submit(["a", "b"])
        assert "0 results for 1 rows" in str(caught.value.__cause__)
        await batcher.close()

    asyncio.run(act())


def test_not_even_an_exit_in_the_model_ends_the_worker() -> None:
    def leave(rows: list[str]) -> list[str]:
        raise SystemExit(1)

    async def act() -> None:
        batcher: Batcher[str, str] = Batcher(leave, Limits())
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
            lambda rows: [len(row) for row in rows], Limits(rows=2), observe=runs.append
        )
        answer = await batcher.submit(["a", "bb", "ccc"])
        assert answer.results == [1, 2, 3]
        assert answer.queue_s >= 0
        assert answer.inference_s == pytest.approx(sum(run.seconds for run in runs))
        await batcher.close()

    asyncio.run(act())
    assert [(run.rows, run.tokens) for run in runs] == [(2, 4), (1, 3)]


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
    async def scenario(batcher: Batcher[str, str], model: Model) -> None:
        waiting = batcher.submit(["a"])
        await batcher.close(patience_s=0)
        with pytest.raises(Closed):
            await waiting

    assert play(scenario, busy=True).batches == [["held"]]


def test_a_dead_worker_is_noticed_and_nobody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(backlog: object, now: float) -> list[object]:
        raise MemoryError

    async def act() -> None:
        batcher: Batcher[str, str] = Batcher(lambda rows: rows, Limits())
        assert (await batcher.submit(["a"])).results == ["a"]
        monkeypatch.setattr(Backlog, "take", break_down)
        async with asyncio.timeout(SOON_S):
            with pytest.raises(Closed):
                await batcher.submit(["b"])
        assert not batcher.alive
        with pytest.raises(Closed):
            batcher.submit(["c"])

    asyncio.run(act())
