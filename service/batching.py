"""Rows of many callers -> batches of one worker. Standard library only; generic over rows and results.

- No timer: what queued up while the worker was busy is its next batch.
- The oldest row goes first and brings rows of nearest length with it, since a batch costs rows x longest.
- A request enters as a whole or not at all, and is answered by one future, which belongs to its job.
- A batch that fails is run again row by row, so that a bad row fails alone.

It knows nothing of texts, tokens, models or HTTP.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass
from time import perf_counter
from typing import Generic, TypeVar

logger = logging.getLogger("understudy")

In = TypeVar("In", bound=Sized)
Out = TypeVar("Out")


class QueueFull(Exception):
    """The rows do not fit into the queue; none of them entered."""


class Closed(Exception):
    """The batcher takes no rows any more, or its worker is dead."""


class RowFailed(Exception):
    """The model failed on a row, also when it ran alone; the cause is chained."""

    def __init__(self, index: int) -> None:
        super().__init__(f"row {index} failed")
        self.index = index


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a batch and of the queue."""

    rows: int = 32
    tokens: int = 8192  # of a batch: rows x longest, so padding counts. A single longer row still runs, alone
    queued: int = 1024
    age_s: float = 0.05  # rows that waited longer are taken before all younger ones, whatever their lengths
    # Rows that differ more in length than this share cost much padding: they only fill a batch up to `few`,
    # since a run has a cost of its own. Mixed lengths of 5 to 35 tokens: a quarter more rows a second.
    spread: float = 0.2
    few: int = 8


@dataclass(frozen=True, slots=True)
class Answer(Generic[Out]):
    """One result a row, in the order of the rows; how long they waited and how long their batches ran."""

    results: list[Out]
    queue_s: float
    inference_s: float


@dataclass(frozen=True, slots=True)
class BatchRun:
    """What the observer learns of a batch."""

    rows: int
    tokens: int  # rows x longest
    seconds: float


@dataclass(frozen=True, slots=True)
class _Failure:
    cause: BaseException


class _Job(Generic[In, Out]):
    """One request. Changed on the event loop only, so it needs no lock."""

    __slots__ = ("admitted", "future", "inference_s", "last_batch", "missing", "results")

    def __init__(self, future: "asyncio.Future[Answer[Out]]", rows: int) -> None:
        self.future = future
        self.missing = rows
        self.results: list[Out | _Failure | None] = [None] * rows
        self.admitted = perf_counter()
        self.inference_s = 0.0
        self.last_batch: object = None

    def put(self, index: int, outcome: Out | _Failure, run: "_Finished") -> None:
        self.results[index] = outcome
        if self.last_batch is not run:
            self.last_batch = run
            self.inference_s += run.seconds
        self.missing -= 1
        if not self.missing and not self.future.done():
            self._finish(run.ended)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def _finish(self, ended: float) -> None:
        done: list[Out] = []
        for index, outcome in enumerate(self.results):
            if isinstance(outcome, _Failure):
                error = RowFailed(index)
                error.__cause__ = outcome.cause
                return self.future.set_exception(error)
            done.append(outcome)  # type: ignore[arg-type]  # none is missing now
        queue_s = max(0.0, ended - self.admitted - self.inference_s)
        return self.future.set_result(Answer(done, queue_s, self.inference_s))


class _Entry(Generic[In, Out]):
    """One row of a job, as it waits."""

    __slots__ = ("index", "job", "length", "row")

    def __init__(self, job: _Job[In, Out], index: int, row: In) -> None:
        self.job = job
        self.index = index
        self.row = row
        self.length = len(row) or 1


class _Finished:
    """When a batch ended and how long it ran."""

    __slots__ = ("ended", "seconds")

    def __init__(self, ended: float, seconds: float) -> None:
        self.ended = ended
        self.seconds = seconds


class Backlog(Generic[In, Out]):
    """The waiting rows, by length. Choosing a batch costs by different lengths, not by rows."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._shelves: dict[int, deque[_Entry[In, Out]]] = {}  # length -> rows, the oldest first
        self.rows = 0
        self.dropped = 0

    def add(self, job: _Job[In, Out], rows: Sequence[In]) -> None:
        for index, row in enumerate(rows):
            entry = _Entry(job, index, row)
            shelf = self._shelves.get(entry.length)
            if shelf is None:
                shelf = self._shelves[entry.length] = deque()
            shelf.append(entry)
        self.rows += len(rows)

    def take(self, now: float) -> list[_Entry[In, Out]]:
        """The next batch; empty only if nobody waits."""
        oldest = self._oldest()
        if oldest is None:
            return []
        nearest = sorted(self._shelves, key=lambda length: (abs(length - oldest.length), length))
        batch: list[_Entry[In, Out]] = []
        overdue = now - self._limits.age_s
        longest = 0
        if oldest.job.admitted <= overdue:
            longest = self._fill(batch, nearest, overdue, longest)
        self._fill(batch, nearest, now, longest)
        return batch

    def empty(self) -> list[_Entry[In, Out]]:
        """Give up all rows."""
        entries = [entry for shelf in self._shelves.values() for entry in shelf]
        self._shelves.clear()
        self.rows = 0
        return entries

    def _oldest(self) -> _Entry[In, Out] | None:
        for length in list(self._shelves):
            shelf = self._shelves[length]
            while shelf and shelf[0].job.future.done():
                self._drop(shelf)
            if not shelf:
                del self._shelves[length]
        heads = [shelf[0] for shelf in self._shelves.values()]
        return min(heads, key=lambda entry: entry.job.admitted, default=None)

    def _fill(self, batch: list[_Entry[In, Out]], nearest: list[int], until: float, longest: int) -> int:
        """Add rows admitted until then, shelf by shelf, while the budget lasts. Returns the longest."""
        for length in nearest:
            shelf = self._shelves[length]
            widest = max(longest, length)
            most = self._most(widest, far=abs(length - nearest[0]) > nearest[0] * self._limits.spread)
            while len(batch) < most and shelf and shelf[0].job.admitted <= until:
                if shelf[0].job.future.done():  # its caller has gone, or another row of it has failed
                    self._drop(shelf)
                    continue
                batch.append(shelf.popleft())
                self.rows -= 1
                longest = widest
        return longest

    def _most(self, widest: int, far: bool) -> int:
        rows = min(self._limits.rows, self._limits.few) if far else self._limits.rows
        return min(rows, max(self._limits.tokens // widest, 1))

    def _drop(self, shelf: "deque[_Entry[In, Out]]") -> None:
        shelf.popleft()
        self.rows -= 1
        self.dropped += 1


class Batcher(Generic[In, Out]):
    """Worker threads that run batches. `submit` and `close` belong to one event loop."""

    def __init__(
        self,
        run: Callable[[list[In]], Sequence[Out]],
        limits: Limits,
        *,
        workers: int = 1,
        name: str = "batcher",
        observe: Callable[[BatchRun], None] | None = None,
    ) -> None:
        self._run = run
        self._limits = limits
        self._observe = observe
        self._backlog: Backlog[In, Out] = Backlog(limits)
        self._wake = threading.Condition(threading.Lock())  # guards the backlog and `_closed`
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True) for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Do all workers run?"""
        return not self._closed and all(thread.is_alive() for thread in self._threads)

    @property
    def queued_rows(self) -> int:
        """Rows that wait for a batch, those of callers that have gone included until they are met."""
        return self._backlog.rows

    @property
    def dropped_rows(self) -> int:
        """Rows that were never run, because their callers had gone."""
        return self._backlog.dropped

    def require_room(self, rows: int) -> None:
        """Raise QueueFull if so many rows would not fit now."""
        if self._backlog.rows + rows > self._limits.queued:
            raise QueueFull(f"{self._backlog.rows} rows are waiting")

    def submit(self, rows: Sequence[In]) -> "asyncio.Future[Answer[Out]]":
        """Admit all rows or none. Cancelling the future takes its waiting rows out of the queue."""
        future: asyncio.Future[Answer[Out]] = asyncio.get_running_loop().create_future()
        if not rows:
            future.set_result(Answer([], 0.0, 0.0))
            return future
        job: _Job[In, Out] = _Job(future, len(rows))
        with self._wake:
            if self._closed:
                raise Closed("closed")
            self.require_room(len(rows))
            self._backlog.add(job, rows)
            self._wake.notify(len(rows))
        return future

    async def close(self, patience_s: float = 30) -> None:
        """Take nothing new, run what waits, end the workers. What is left after that fails with Closed."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_s
        for thread in self._threads:
            await loop.run_in_executor(None, thread.join, max(0.0, deadline - loop.time()))
        self._give_up()

    def _work(self) -> None:
        try:
            while batch := self._next():
                self._finish(batch)
        except BaseException:  # a fault of ours, not of a model: let nobody wait for a dead worker
            logger.critical("a worker died", exc_info=True)
            self._closed = True
            self._give_up()

    def _next(self) -> list[_Entry[In, Out]]:
        """Wait for rows. Empty: closed, and nothing is left."""
        with self._wake:
            while True:
                batch = self._backlog.take(perf_counter())
                if batch or self._closed:
                    return batch
                self._wake.wait()

    def _finish(self, batch: list[_Entry[In, Out]]) -> None:
        started = perf_counter()
        outcomes = self._attempt([entry.row for entry in batch])
        ended = perf_counter()
        self._tell(batch[0].job, self._deliver, batch, outcomes, _Finished(ended, ended - started))

    def _attempt(self, rows: list[In]) -> list[Out | _Failure]:
        try:
            results = list(self._run(rows))
            if len(results) != len(rows):
                raise ValueError(f"{len(results)} results for {len(rows)} rows")
            return [*results]
        except BaseException as error:  # whatever it is, it must not end the worker
            if len(rows) == 1:
                return [_Failure(error)]
            return [self._attempt([row])[0] for row in rows]

    def _deliver(self, batch: list[_Entry[In, Out]], outcomes: list[Out | _Failure], run: _Finished) -> None:
        """On the event loop, once a batch."""
        for entry, outcome in zip(batch, outcomes, strict=True):
            entry.job.put(entry.index, outcome, run)
        if self._observe is not None:
            tokens = len(batch) * max(entry.length for entry in batch)
            self._observe(BatchRun(len(batch), tokens, run.seconds))

    def _give_up(self) -> None:
        with self._wake:
            entries = self._backlog.empty()
        for job in {entry.job for entry in entries}:
            self._tell(job, job.fail, Closed("closed before the row was run"))

    @staticmethod
    def _tell(job: _Job[In, Out], call: Callable[..., None], *details: object) -> None:
        try:
            job.future.get_loop().call_soon_threadsafe(call, *details)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return
