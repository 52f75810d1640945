"""The engine of one machine: processes, each with a bundle of its own, that are handed one span after the other.

Processes and not threads, because tokenising and writing hold Python's lock while batches run. Each talks through a
pipe of its own: when the parent is gone, however it went, the pipe ends and so does its process.
"""

import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from service.offline.bulk.labour import Abandoned, Labourer
from service.offline.bulk.plan import Job, Receipt


class WorkerLost(Exception):
    """A process ended in the middle of a part."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a process could not do."""

    error: Exception


@dataclass(frozen=True, slots=True)
class _Worker:
    process: BaseProcess
    pipe: Connection


def run_here(job: Job, numbers: Sequence[int], processes: int) -> Iterator[Receipt]:
    """Score these spans, and give each receipt as it comes. Raises what a span raises, and WorkerLost."""
    crew = [_start(job) for _ in range(min(processes, len(numbers)))]
    waiting = deque(numbers)
    busy = {worker.pipe: worker for worker in crew}
    try:
        for worker in crew:
            _tell(worker, waiting.popleft())
        while busy:
            for pipe in wait(list(busy)):
                assert isinstance(pipe, Connection)
                yield _receipt(busy[pipe])
                if waiting:
                    _tell(busy[pipe], waiting.popleft())
                else:
                    del busy[pipe]
    finally:
        for worker in crew:
            worker.process.terminate()  # what it had begun is lost, and nothing half is left but in staging
        for worker in crew:
            worker.process.join()
            worker.pipe.close()


def _start(job: Job) -> _Worker:
    context = get_context("spawn")  # ONNX Runtime's threads do not survive a fork
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(job, theirs), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _tell(worker: _Worker, number: int) -> None:
    try:
        worker.pipe.send(number)
    except OSError as error:  # which at the top would mean that nobody reads our stdout
        raise _lost(worker) from error


def _lost(worker: _Worker) -> WorkerLost:
    worker.process.join()
    code = worker.process.exitcode or 0
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    problem = f"a process ended in the middle of a part ({how}; SIGKILL is often a lack of memory)"
    return WorkerLost(f"{problem}; the same command goes on, with fewer --threads if need be")


def _receipt(worker: _Worker) -> Receipt:
    try:
        found = worker.pipe.recv()
    except (EOFError, OSError) as error:
        raise _lost(worker) from error
    if isinstance(found, Trouble):
        raise found.error
    assert isinstance(found, Receipt)
    return found


def _work(job: Job, pipe: Connection) -> None:
    """What such a process does, until nobody is there to tell it more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all of a terminal's processes: the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with Labourer(job) as labourer:
            while True:
                pipe.send(labourer.score(pipe.recv(), lambda: not pipe.poll()))
    except (EOFError, BrokenPipeError, ConnectionResetError, Abandoned):
        return
    except Exception as error:
        with suppress(OSError):  # nobody is there any more
            pipe.send(Trouble(error))
