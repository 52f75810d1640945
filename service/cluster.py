"""Numbered pieces of work on a Ray cluster: Ray Data hands the numbers to actors, and their answers back.

The only module that knows Ray; `service` and `export` both send work through it. What is worked on does not travel,
only numbers and short answers: an actor reads and writes on a file system that all nodes see. So a piece that Ray runs
again, since its node died or its result was lost, is made once more or found there. Nothing here trusts that Ray runs
a piece once.
"""

import logging
import os
import pickle
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any, Protocol, cast

NUMBER, ANSWER, TROUBLE = "number", "answer", "trouble"  # columns of Ray Data's rows
IN_FLIGHT = 2
"""Pieces that an actor has at once: one that it works on, and one so that it need not wait."""

REACHED_S = 10


class ClusterError(Exception):
    """There is no cluster to work with; the message says why in one line."""


class Work(Protocol):
    """What is to be done, pickled on its way to the actors."""

    def begin(self) -> Callable[[int], str]:
        """Once on each actor: what does the piece of a number and says what became of it."""
        ...


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where it is, and how many actors it may have."""

    address: str | None = None  # as for `ray.init`; unset: one that Ray finds, or of this machine
    most: int | None = None  # actors; unset: one a core
    on_gpus: bool = False  # an actor for each GPU instead, if there are any

    def check(self) -> None:
        """Said at once, before anything is read. Raises ClusterError."""
        try:
            import ray.data  # noqa: F401 - an extra; here, so that nothing else needs it
        except ImportError as error:
            raise ClusterError(f"--engine ray: Ray is missing ({error}): pip install 'understudy[ray]'") from error
        _check_reachable(self.address)

    def run(self, work: Work, numbers: Sequence[int]) -> Iterator[str]:
        """The answers, in any order. Raises ClusterError, and what the work raised, as it raised it."""
        self.check()
        with _connected(self.address):
            yield from _answers(self, work, numbers)


class Actor:
    """What Ray starts on some node."""

    def __init__(self, work: Work) -> None:
        # As in `service.commands.cli`: before tokenizers is loaded.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self._work = work
        self._does: Callable[[int], str] | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Errors are results as well: one that was raised would be tried again, or come back as one of Ray's."""
        try:
            if self._does is None:  # not at the start, for what is wrong there would be no result
                self._does = self._work.begin()
            return {NUMBER: row[NUMBER], ANSWER: self._does(int(row[NUMBER])), TROUBLE: b""}
        except Exception as error:
            return {NUMBER: row[NUMBER], ANSWER: "", TROUBLE: pickle.dumps(error)}


def _answers(cluster: Cluster, work: Work, numbers: Sequence[int]) -> Iterator[str]:
    import ray
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    resources: dict[str, float] = cast(Any, ray).cluster_resources()
    gpus = int(resources.get("GPU", 0)) if cluster.on_gpus else 0
    places = gpus or max(1, int(resources.get("CPU", 1)))
    actors = min(len(numbers), places if cluster.most is None else cluster.most)
    # May shrink to one: an actor whose node died waits for a core, and the others must be able to leave theirs to it.
    pool = ray.data.ActorPoolStrategy(
        min_size=1, max_size=actors, initial_size=actors, max_tasks_in_flight_per_actor=IN_FLIGHT
    )
    pieces = ray.data.from_items([{NUMBER: number} for number in numbers], override_num_blocks=len(numbers))
    needs: dict[str, Any] = {"num_cpus": 1} | ({"num_gpus": 1} if gpus else {})
    for row in pieces.map(cast(Any, Actor), fn_constructor_args=(work,), compute=pool, **needs).iter_rows():
        if row[TROUBLE]:
            raise pickle.loads(row[TROUBLE])
        yield row[ANSWER]


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
    with redirect_stdout(sys.stderr):  # Ray says there what happens to its nodes; ours is for answers
        try:
            with _silent():
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray's own share nothing else
            said = " ".join(str(error).split())[:300]
            raise ClusterError(f"{address or 'Ray'}: no Ray cluster to work with ({said})") from error
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
        raise ClusterError(f"{address}: no Ray cluster answers there ({error}); see --ray-address") from error


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
