"""Which rows run next: the oldest, with those of nearest length, within every budget."""

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from service.batching.backlog import Backlog
from service.batching.jobs import NEVER, Answer, Entry, Job, Limits


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
        job: Job[str, str] = Job(new_future(), 1, admitted)
        backlog.add(job, ["a" * length])
    return backlog


def new_future() -> asyncio.Future[Answer[str]]:
    async def make() -> asyncio.Future[Answer[str]]:
        return asyncio.get_running_loop().create_future()

    return asyncio.run(make())


def lengths(batch: Sequence[Entry[str, str]]) -> list[int]:
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
            fresh: Job[str, str] = Job(new_future(), 1, 0.9 + job / 100)
            backlog.add(fresh, ["a" * 5])
    assert batches <= 1


def test_without_a_deadline_nothing_expires() -> None:
    job: Job[str, str] = Job(new_future(), 1, 0.0, NEVER)
    assert not job.over(1e12)
