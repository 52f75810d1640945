"""Workers that run batches of rows, and the watch over them.

- No timer: what queued up while the worker was busy is its next batch.
- While nobody is busy, a few short rows are run on the event loop itself, which is quicker than a change of threads.
- The oldest row goes first and brings rows of nearest length with it, since a batch costs rows x longest.
- A request enters as a whole or not at all, and is answered by one future, which belongs to its job.
- A batch that fails is run again row by row, so that a bad row fails alone.
- A request that is cancelled or too late is dropped before it is run.
- A worker that dies or hangs fails the rows in its hands, and another one takes its place. The event loop's own runs
  are watched by the workers, who are idle meanwhile.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Generic, Protocol, TypeVar

from service.batching.backlog import Backlog
from service.batching.jobs import (
    NEVER,
    Answer,
    BatchRun,
    Closed,
    Entry,
    Expired,
    Failure,
    Finished,
    In,
    Job,
    Limits,
    Out,
    QueueFull,
    WorkerLost,
)

logger = logging.getLogger("understudy")

TICK_S = 0.02
"""How often deadlines and workers are looked after while anybody waits."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 10.0
"""Before a lost worker is replaced; doubled for each one lost since the last good batch."""


Taken = TypeVar("Taken", contravariant=True)
Given = TypeVar("Given", covariant=True)


class Runner(Protocol[Taken, Given]):
    """Runs batches for one worker."""

    def run(self, rows: Sequence[Taken]) -> Sequence[Given]:
        """One result a row."""
        ...

    def interrupt(self) -> None:
        """Called from another thread: end the run that hangs, if that is possible."""
        ...


class Worker(Generic[In, Out]):
    """A runner with the batch in its hands."""

    __slots__ = ("batch", "lost", "runner", "started", "thread")

    def __init__(self, runner: Runner[In, Out]) -> None:
        self.runner = runner
        self.batch: list[Entry[In, Out]] = []
        self.started = 0.0
        self.lost = False
        self.thread: threading.Thread | None = None


class Batcher(Generic[In, Out]):
    """A queue with its workers. All methods belong to one event loop, except those that say otherwise."""

    def __init__(
        self,
        new_runner: Callable[[], Runner[In, Out]],
        limits: Limits,
        *,
        workers: int = 1,
        name: str = "batcher",
        observe: Callable[[BatchRun], None] | None = None,
        prepare: Callable[[], None] | None = None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        """`prepare` is called in each worker's thread before anything else."""
        self._new_runner = new_runner
        self._limits = limits
        self._name = name
        self._observe = observe
        self._prepare = prepare
        self._clock = clock
        self._backlog: Backlog[In, Out] = Backlog(limits)
        self._wake = threading.Condition(threading.Lock())  # guards the backlog and `_closed`
        self._closed = False
        self._jobs: list[Job[In, Out]] = []  # in the order of admission; those that ended leave at the next tick
        self._ticking = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wanted = workers
        self._losses = 0  # since the last good batch
        self._rate = 0.0  # rows a second, lately
        self._row_s = 0.0  # seconds a row in small batches, lately; 0: not known yet
        self._workers: list[Worker[In, Out]] = []
        for _ in range(workers):
            self._hire()
        self._here: Worker[In, Out] = Worker(new_runner())  # for batches that are run on the event loop
        self._glance_due = False

    @property
    def alive(self) -> bool:
        """Do all workers run?"""
        return not self._closed and len(self._workers) == self._wanted and all(map(self._runs, self._workers))

    @property
    def idle(self) -> bool:
        """Does nothing wait and nothing run?"""
        return not self._backlog.rows and self._idle()

    @property
    def queued_rows(self) -> int:
        """Rows that wait for a batch."""
        return self._backlog.rows

    @property
    def reserved_rows(self) -> int:
        """Rows that places are kept for."""
        return self._backlog.reserved

    @property
    def queued_tokens(self) -> int:
        """The tokens of those that wait."""
        return self._backlog.tokens

    @property
    def dropped_rows(self) -> int:
        """Rows that were never run, because their callers had gone or their time was over."""
        return self._backlog.dropped

    def require_room(self, rows: int, client: str | None = None) -> None:
        """Raise QueueFull if so many rows would not fit now."""
        refusal = self._backlog.refusal_of_rows(rows, client)
        if refusal is not None:
            raise QueueFull(refusal, self._wait_s())

    @contextmanager
    def room(self, rows: int, client: str | None = None) -> Iterator[None]:
        """Keep places in the queue for so many rows while they are tokenised. Raises QueueFull."""
        self.require_room(rows, client)
        with self._wake:
            self._backlog.reserve(rows, client)
        try:
            yield
        finally:
            with self._wake:
                self._backlog.reserve(-rows, client)

    def submit(
        self, rows: Sequence[In], deadline: float = NEVER, client: str | None = None
    ) -> "asyncio.Future[Answer[Out]]":
        """Admit all rows or none. Cancelling the future takes its waiting rows out of the queue.

        `deadline` is a time of the clock. The future ends with Expired, RowFailed, WorkerLost or Closed if not with
        an answer. Raises QueueFull or Closed.
        """
        loop = self._loop
        if loop is None:  # asked once: before Python 3.12 each answer costs a system call
            loop = self._loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer[Out]] = loop.create_future()
        if not rows:
            future.set_result(Answer([], 0.0, 0.0))
            return future
        job: Job[In, Out] = Job(future, len(rows), self._clock(), deadline, client)
        with self._wake:
            if self._closed:
                raise Closed("closed")
            refusal = self._backlog.refusal(rows, client)
            if refusal is not None:
                raise QueueFull(refusal, self._wait_s())
            self._backlog.add(job, rows)
            if self._glance_due:
                pass  # it comes with the others that arrived in this turn of the loop
            elif self._may_run_here():
                self._glance_due = True
                loop.call_soon(self._glance)
            else:
                self._wake.notify(len(rows))
        self._jobs.append(job)
        if not self._ticking:
            self._look_after(TICK_S)
        return future

    async def close(self, patience_s: float = 30) -> None:
        """Take nothing new, run what waits, end the workers. What is left after that fails with Closed."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_s
        while loop.time() < deadline and (self._backlog.rows or any(map(self._runs, self._workers))):
            await asyncio.sleep(0.002)
        with self._wake:
            entries = self._backlog.empty()
        in_hands = [entry for worker in self._workers for entry in worker.batch]
        for job in {entry.job for entry in (*entries, *in_hands)}:
            job.fail(Closed("closed before the row was run"))

    def next_batch(self, worker: Worker[In, Out]) -> bool:
        """In the worker's thread: take what waits, if anything."""
        worker.started = self._clock()  # first: whoever looks for hanging runs must not see it older than it is
        worker.batch = self._backlog.take(worker.started)
        return bool(worker.batch)

    def run_batch(self, worker: Worker[In, Out]) -> None:
        """In the worker's thread: run what it holds, and answer on the event loop."""
        batch = worker.batch
        outcomes = _attempt(worker, [entry.row for entry in batch])
        ended = self._clock()
        run = Finished(ended, ended - worker.started)
        _tell(batch[0].job.future.get_loop(), self._deliver, worker, batch, outcomes, run)

    def _may_run_here(self) -> bool:
        """Would a change of threads take longer than running what waits? Only where runs were found to be short."""
        rows = self._backlog.rows
        return rows <= self._limits.rows_here and 0 < rows * self._row_s < self._limits.here_s and self._idle()

    def _idle(self) -> bool:
        return not any(worker.batch for worker in self._workers)

    def _glance(self) -> None:
        """Once the loop has read from all that were ready: few rows are run at once, many go to a worker."""
        self._glance_due = False
        with self._wake:
            if not self._backlog.rows:
                return
            if not self._may_run_here() or not self.next_batch(self._here):
                self._wake.notify(self._backlog.rows)
                return
        here, batch = self._here, self._here.batch
        outcomes = _attempt(here, [entry.row for entry in batch])
        ended = self._clock()
        with self._wake:
            here.batch = []
        if here.lost:
            self._give_up_here(batch, outcomes)
        self._deliver(here, batch, outcomes, Finished(ended, ended - here.started))
        if self._backlog.rows and not self._glance_due:
            self._glance_due = True
            asyncio.get_running_loop().call_soon(self._glance)

    def _watch_here(self) -> None:
        """In a worker's thread: end the event loop's own run if it hangs, since nothing else can."""
        here = self._here
        if here.batch and self._clock() - here.started > self._limits.run_s:
            here.lost = True
            here.runner.interrupt()

    def _give_up_here(self, batch: list[Entry[In, Out]], outcomes: list[Out | Failure]) -> None:
        """The event loop's own run was ended: this model's next ones are a thread's business, until they are short."""
        logger.error("%s: a run on the event loop hung; it was ended", self._name)
        for entry, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Failure):
                entry.job.fail(WorkerLost("the run hung"))
        self._row_s = 10 * self._limits.here_s
        self._here = Worker(self._new_runner())

    def _hire(self) -> None:
        worker: Worker[In, Out] = Worker(self._new_runner())
        worker.thread = threading.Thread(target=self._work, args=(worker,), name=self._name, daemon=True)
        self._workers.append(worker)
        worker.thread.start()

    def _work(self, worker: Worker[In, Out]) -> None:
        try:
            if self._prepare is not None:
                self._prepare()
            while self._wait(worker):
                self.run_batch(worker)
        except BaseException:  # a fault of ours, not of a model: the tick finds the thread dead
            logger.critical("%s: a worker died", self._name, exc_info=True)
            if self._loop is not None:
                _tell(self._loop, self._look_after, 0.0)

    def _wait(self, worker: Worker[In, Out]) -> bool:
        """Wait for a batch. False: lost, or closed and nothing is left."""
        with self._wake:
            while not worker.lost:
                if self.next_batch(worker):
                    return True
                if self._closed:
                    return False
                if not self._wake.wait(self._limits.run_s):
                    self._watch_here()
        return False

    def _deliver(
        self, worker: Worker[In, Out], batch: list[Entry[In, Out]], outcomes: list[Out | Failure], run: Finished
    ) -> None:
        """On the event loop, once a batch."""
        for entry, outcome in zip(batch, outcomes, strict=True):
            entry.job.put(entry.index, outcome, run)
        if worker.lost:
            return
        self._losses = 0
        self._rate = 0.9 * self._rate + 0.1 * len(batch) / max(run.seconds, 1e-6)
        if len(batch) <= self._limits.rows_here:
            row_s = run.seconds / len(batch)
            self._row_s = 0.8 * self._row_s + 0.2 * row_s if self._row_s else row_s
        if self._observe is not None:
            lengths = [entry.length for entry in batch]
            self._observe(BatchRun(len(batch), len(batch) * max(lengths), sum(lengths), run.seconds))

    def _look_after(self, pause_s: float) -> None:
        self._ticking = True
        asyncio.get_running_loop().call_later(pause_s, self._tick)

    def _tick(self) -> None:
        """Fail what is too late, forget what has ended, and look after the workers."""
        now = self._clock()
        waiting: list[Job[In, Out]] = []
        for job in self._jobs:
            if job.deadline <= now:
                job.fail(Expired("the deadline passed"))
            elif not job.future.done():
                waiting.append(job)
        self._jobs = waiting
        with self._wake:
            if self._backlog.rows:
                self._backlog.sweep(now)
        for worker in list(self._workers):
            if not self._runs(worker):
                self._lose(worker, "died")
            elif worker.batch and now - worker.started > self._limits.run_s:
                self._lose(worker, f"hangs for more than {self._limits.run_s:g} s")
        self._ticking = False
        if waiting or any(worker.batch for worker in self._workers):
            self._look_after(TICK_S)

    def _lose(self, worker: Worker[In, Out], how: str) -> None:
        """Fail what it holds, and replace it after a pause."""
        if self._closed and not worker.batch:
            return
        self._workers.remove(worker)
        worker.lost = True
        logger.error("%s: a worker %s; it is replaced", self._name, how)
        for entry in worker.batch:
            entry.job.fail(WorkerLost(f"the worker {how}"))
        worker.runner.interrupt()
        pause_s = min(FIRST_PAUSE_S * 2**self._losses, LONGEST_PAUSE_S)
        self._losses = min(self._losses + 1, 16)
        asyncio.get_running_loop().call_later(pause_s, self._hire)

    def _runs(self, worker: Worker[In, Out]) -> bool:
        return worker.thread is not None and worker.thread.is_alive()

    def _wait_s(self) -> float:
        """When half of what waits will have been run."""
        return self._backlog.rows / self._rate / 2 if self._rate else 1.0


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *details: object) -> None:
    try:
        loop.call_soon_threadsafe(call, *details)
    except RuntimeError:  # the loop is closed: nobody waits any more
        return


def _attempt(worker: Worker[In, Out], rows: list[In]) -> list[Out | Failure]:
    try:
        results = list(worker.runner.run(rows))
        if len(results) != len(rows):
            raise ValueError(f"{len(results)} results for {len(rows)} rows")
        return [*results]
    except BaseException as error:  # whatever it is, it must not end the worker
        if len(rows) == 1 or worker.lost:  # a lost one was interrupted, and nobody waits for it
            return [Failure(error)] * len(rows)
        return [_attempt(worker, [row])[0] for row in rows]
