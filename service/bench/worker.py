"""The processes that do the measured work, so that they can have a core of their own: one job on stdin, figures out.

    python -m service.bench.worker load|inprocess < JOB

A load's samples go to the file that its job names, the rest to stdout as JSON.
"""

import asyncio
import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

import numpy as np
from pydantic import TypeAdapter

from service.bench.arrivals import Phase, poisson
from service.bench.client import ClosedLoop, Load, NoService, OpenLoop, Order, Pool
from service.bench.inprocess import Alone, Bench, measure
from service.bench.samples import Samples
from service.bench.texts import requests_of
from service.bench.wire import Caller

Cpus = tuple[int, ...]
"""Numbers of cores; none: wherever the system likes."""


@dataclass(frozen=True, slots=True)
class Closed:
    """So many connections that never rest."""

    connections: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Open:
    """Poisson arrivals."""

    phases: tuple[Phase, ...]
    pool: Pool


@dataclass(frozen=True, slots=True)
class LoadJob:
    """One load."""

    caller: Caller
    texts: tuple[str, ...]
    rows: int  # texts in a request
    plan: Closed | Open
    seed: int
    timeout_s: float = 10.0
    peers: int = 1
    out: Path | None = None


@dataclass(frozen=True, slots=True)
class Spent:
    """What a load cost its client, and when it began, by a clock that all processes share."""

    cpu_s: float
    wall_s: float
    begun_s: float


class WorkerFailed(Exception):
    """A process that was to do a part of the work ended without a result."""


def run_load(job: LoadJob, cpus: Cpus) -> tuple[Samples, Spent]:
    """In a process of its own."""
    with TemporaryDirectory(prefix="understudy-bench-") as folder:
        out = Path(folder) / "samples.npy"
        content = TypeAdapter(LoadJob).dump_json(replace(job, out=out))
        spent = TypeAdapter(Spent).validate_json(_in_a_process("load", content, cpus))
        planned, sent, done, status = np.load(out, allow_pickle=False)
    return Samples(planned, sent, done, status.astype(np.int16)), spent


def run_inprocess(job: Bench, cpus: Cpus) -> Alone:
    """In a process of its own."""
    content = TypeAdapter(Bench).dump_json(job)
    return TypeAdapter(Alone).validate_json(_in_a_process("inprocess", content, cpus))


@contextmanager
def pinned(cpus: Cpus) -> Iterator[None]:
    """Processes that are started within run on these cores only."""
    if not cpus:
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        raise WorkerFailed("processes can be pinned to cores on Linux only; leave out --client-cpu and --server-cpu")
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        listed = ", ".join(map(str, cpus))
        raise WorkerFailed(f"core {listed}: {error.strerror}; this process may use {sorted(before)}") from error
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _in_a_process(kind: str, content: bytes, cpus: Cpus) -> bytes:
    command = [sys.executable, "-m", "service.bench.worker", kind]
    with pinned(cpus):
        # Threads of tokenizers would take cores that the service's own process does not give them either.
        process = subprocess.Popen(
            command,
            env=os.environ | {"TOKENIZERS_PARALLELISM": "false"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    with process:
        try:
            out, complaint = process.communicate(content)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        lines = complaint.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise WorkerFailed(lines[-1])
    return out


def _load(content: bytes) -> bytes:
    job = TypeAdapter(LoadJob).validate_json(content)
    assert job.out is not None
    started, cpu = perf_counter(), process_time()
    samples, begun = _sent(job)
    spent = Spent(process_time() - cpu, perf_counter() - started, begun)
    np.save(job.out, np.stack([samples.planned, samples.sent, samples.done, samples.status.astype(np.float64)]))
    return TypeAdapter(Spent).dump_json(spent)


def _sent(job: LoadJob) -> tuple[Samples, float]:
    requests = [job.caller.request(texts) for texts in requests_of(job.texts, job.rows, job.seed)]
    order = Order(job.caller.target, requests, job.timeout_s, job.peers)

    async def work() -> tuple[Samples, float]:
        load = _planned(order, job)
        return await load.run(), load.begun

    gc.disable()  # nothing here makes cycles, and a collection would look like a slow answer
    with asyncio.Runner(loop_factory=quick_loop) as runner:
        return runner.run(work())


def _planned(order: Order, job: LoadJob) -> Load:
    match job.plan:
        case Closed(connections, seconds):
            return ClosedLoop(order, connections, seconds)
        case Open(phases, pool):
            return OpenLoop(order, poisson(phases, job.seed), pool)


def quick_loop() -> asyncio.AbstractEventLoop:
    """uvloop where there is one: it sends twice as much."""
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _inprocess(content: bytes) -> bytes:
    return TypeAdapter(Alone).dump_json(measure(TypeAdapter(Bench).validate_json(content)))


KINDS: dict[str, Callable[[bytes], bytes]] = {"load": _load, "inprocess": _inprocess}


def main() -> None:
    """Do the job on stdin."""
    try:
        result = KINDS[sys.argv[1]](sys.stdin.buffer.read())
    except NoService as error:
        raise SystemExit(str(error)) from error
    sys.stdout.buffer.write(result)


if __name__ == "__main__":
    main()
