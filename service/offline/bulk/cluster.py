"""The engine of a cluster: Ray Data hands the numbers of spans to actors, each with a bundle of its own.

The only module that knows Ray. Not the rows travel but their numbers: an actor reads its span and writes its part where
the plan says, on a file system that all nodes see. So a task that Ray runs again, since its node died or its result was
lost, makes the same part once more, or finds it there. Nothing here trusts that Ray runs a task once.
"""

import logging
import os
import pickle
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, cast

from service.offline.bulk.plan import Job, Receipt
from service.offline.bulk.running import Engine
from service.offline.errors import OfflineError

if TYPE_CHECKING:
    from service.offline.bulk.labour import Labourer

NUMBER, RECEIPT, TROUBLE = "number", "receipt", "trouble"  # columns of Ray Data's rows
IN_FLIGHT = 2
"""Spans that an actor has at once: one that it scores, and one so that it need not wait."""

REACHED_S = 10


def ray_engine(address: str | None, most: int | None) -> Engine:
    """An engine on the cluster of this address: an actor a core, or at most so many. Raises OfflineError."""
    try:
        import ray.data  # noqa: F401 - an extra; here, so that it is said at once
    except ImportError as error:
        raise OfflineError(f"--engine ray: Ray is missing ({error}): pip install 'understudy[ray]'") from error

    def run(job: Job, numbers: Sequence[int]) -> Iterator[Receipt]:
        with _connected(address):
            yield from _receipts(job, numbers, most)

    return run


class Actor:
    """What Ray starts on some node: scores a span when it is told its number."""

    def __init__(self, job: Job) -> None:
        # As in `service.commands.cli`: before tokenizers is loaded.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self._job = job
        self._labourer: Labourer | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Errors are results as well: one that was raised would be tried again, or come back as one of Ray's."""
        try:
            receipt = self._at_work().score(int(row[NUMBER])).model_dump_json()
        except Exception as error:
            return {NUMBER: row[NUMBER], RECEIPT: "", TROUBLE: pickle.dumps(error)}
        return {NUMBER: row[NUMBER], RECEIPT: receipt, TROUBLE: b""}

    def _at_work(self) -> "Labourer":
        """Not at the start, for what is wrong with the bundle would be no result."""
        if self._labourer is None:
            from service.offline.bulk.labour import Labourer

            self._labourer = Labourer(self._job)
        return self._labourer


def _receipts(job: Job, numbers: Sequence[int], most: int | None) -> Iterator[Receipt]:
    import ray
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    resources: dict[str, float] = cast(Any, ray).cluster_resources()
    cores = max(1, int(resources.get("CPU", 1)))
    actors = min(len(numbers), cores if most is None else most)
    # May shrink to one: an actor whose node died waits for a core, and the others must be able to leave theirs to it.
    pool = ray.data.ActorPoolStrategy(
        min_size=1, max_size=actors, initial_size=actors, max_tasks_in_flight_per_actor=IN_FLIGHT
    )
    spans = ray.data.from_items([{NUMBER: number} for number in numbers], override_num_blocks=len(numbers))
    for row in spans.map(cast(Any, Actor), fn_constructor_args=(job,), compute=pool, num_cpus=1).iter_rows():
        if row[TROUBLE]:
            raise pickle.loads(row[TROUBLE])
        yield Receipt.model_validate_json(row[RECEIPT])


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """To a cluster that is there, or to one of this machine that ends with us. One that we are in already stays."""
    import ray

    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that we start tells nobody of itself
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what goes wrong is raised as well
    os.environ.setdefault("RAY_worker_niceness", "0")  # of its nodes: else 15, and whatever else runs here goes first
    handler = signal.getsignal(signal.SIGTERM)
    _check_reachable(address)
    with redirect_stdout(sys.stderr):  # Ray says there what happens to its nodes; ours is for answers
        try:
            with _silent():
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray's own share nothing else
            said = " ".join(str(error).split())[:300]
            raise OfflineError(f"{address or 'Ray'}: no Ray cluster to work with ({said})") from error
        signal.signal(signal.SIGTERM, handler)  # Ray's would end us with another exit code
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        try:
            yield
        finally:
            ray.shutdown()


def _check_reachable(address: str | None) -> None:
    """Ray itself would try for two minutes."""
    host, _, port = (address or "").rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        return  # a name of Ray's own, such as auto
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACHED_S).close()
    except OSError as error:
        raise OfflineError(f"{address}: no Ray cluster answers there ({error}); see --ray-address") from error


@contextmanager
def _silent() -> Iterator[None]:
    """Ray's other half, which is no Python, says on stderr what it was told about its logging."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
