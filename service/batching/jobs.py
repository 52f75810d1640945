"""Requests that wait, their bounds, and the ways in which they end."""

import asyncio
from collections.abc import Sized
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar

In = TypeVar("In", bound=Sized)
Out = TypeVar("Out")

NEVER = float("inf")


class Full(StrEnum):
    """What there was no room for."""

    ROWS = "rows"
    TOKENS = "tokens"
    CLIENT = "client"


class QueueFull(Exception):
    """The rows do not fit into the queue; none of them entered. `wait_s` says when there may be room."""

    def __init__(self, reason: Full, wait_s: float) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait_s = wait_s


class Closed(Exception):
    """The batcher takes no rows any more."""


class Expired(Exception):
    """The deadline passed before all rows were answered."""


class RowFailed(Exception):
    """The model failed on a row, also when it ran alone; the cause is chained."""

    def __init__(self, index: int) -> None:
        super().__init__(f"row {index} failed")
        self.index = index


class WorkerLost(Exception):
    """The run hung or its worker died; whether the rows were to blame is not known."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a batch, of the queue and of a run."""

    rows: int = 32
    tokens: int = 8192  # of a batch: rows x longest, so padding counts. A single longer row still runs, alone
    queued: int = 1024
    queued_tokens: int = 1 << 18
    queued_of_one: int = 1024  # rows of one client: nobody shall hold the whole queue
    age_s: float = 0.05  # rows that waited longer are taken before all younger ones, whatever their lengths
    run_s: float = 10.0  # a run that takes longer hangs: its rows fail and another worker takes over
    # What is expected to take less than `here_s` is run on the event loop, but never more rows than these.
    here_s: float = 0.0
    rows_here: int = 4
    # Rows that differ more in length than this share cost much padding: they only fill a batch up to `few`,
    # since a run has a cost of its own. Mixed lengths of 5 to 35 tokens: a quarter more rows a second.
    spread: float = 0.2
    few: int = 8


class Answer(NamedTuple, Generic[Out]):
    """One result a row, in the order of the rows; how long they waited and how long their batches ran."""

    results: list[Out]
    queue_s: float
    inference_s: float


class BatchRun(NamedTuple):
    """What the observer learns of a batch."""

    rows: int
    tokens: int  # rows x longest
    filled: int  # without padding
    seconds: float


@dataclass(frozen=True, slots=True)
class Failure:
    """What a row ended with instead of a result."""

    cause: BaseException


class Finished(NamedTuple):
    """When a batch ended and how long it ran."""

    ended: float
    seconds: float


class Job(Generic[In, Out]):
    """One request. Changed on the event loop only, so it needs no lock; `over` may be asked by any thread."""

    __slots__ = ("admitted", "client", "deadline", "future", "inference_s", "last_batch", "missing", "results")

    def __init__(
        self,
        future: "asyncio.Future[Answer[Out]]",
        rows: int,
        now: float,
        deadline: float = NEVER,
        client: str | None = None,
    ) -> None:
        self.future = future
        self.missing = rows
        self.results: list[Out | Failure | None] = [None] * rows
        self.admitted = now
        self.deadline = deadline
        self.client = client
        self.inference_s = 0.0
        self.last_batch: object = None

    def over(self, now: float) -> bool:
        """Is nobody waiting for it any more: answered, failed, left, or too late?"""
        return self.future.done() or self.deadline <= now

    def put(self, index: int, outcome: Out | Failure, run: Finished) -> None:
        """One row's outcome; the last one answers the request."""
        self.results[index] = outcome
        if self.last_batch is not run:
            self.last_batch = run
            self.inference_s += run.seconds
        self.missing -= 1
        if not self.missing and not self.future.done():
            self._finish(run.ended)

    def fail(self, error: Exception) -> None:
        """End it otherwise."""
        if not self.future.done():
            self.future.set_exception(error)

    def _finish(self, ended: float) -> None:
        done: list[Out] = []
        for index, outcome in enumerate(self.results):
            if isinstance(outcome, Failure):
                error = RowFailed(index)
                error.__cause__ = outcome.cause
                return self.future.set_exception(error)
            done.append(outcome)  # type: ignore[arg-type]  # none is missing now
        queue_s = max(0.0, ended - self.admitted - self.inference_s)
        return self.future.set_result(Answer(done, queue_s, self.inference_s))


class Entry(Generic[In, Out]):
    """One row of a job, as it waits."""

    __slots__ = ("index", "job", "length", "row")

    def __init__(self, job: Job[In, Out], index: int, row: In) -> None:
        self.job = job
        self.index = index
        self.row = row
        self.length = len(row) or 1
