"""Several processes behind one port: one event loop and one set of sessions each, watched by a parent.

Each worker has a listening socket of its own on the same port, so the kernel shares connections out evenly. The parent
keeps all of these sockets: when a worker goes, what waits in its socket waits for the next one instead of being reset.
SIGTERM and SIGINT stop all, SIGHUP lets all look for new models and keys, SIGUSR1 replaces one worker after the other.
What one worker is asked that all must do is passed on (`relay`).
It knows processes and signals. It knows nothing of requests or models.
"""

import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from service.processes.line import Asked, Held, Line, Ready, Report, Said, Telling, tell_worker
from service.processes.relay import Relay

logger = logging.getLogger("understudy")

HUNG_S = 30.0
"""A worker that says nothing for so long is killed."""

STOPPED = (0, -signal.SIGTERM, -signal.SIGKILL)
"""Exit codes of a worker at a stop: it ended, was told to before it could say how to, or was killed, whoever did it."""

LOOK_S = 0.1
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
"""Before a worker that ended by itself is started again; doubled each time until one of them got ready."""


Work = Callable[[socket.socket, Line], int]
"""A worker's life: serve on the socket, tell what there is to tell; returns the exit code."""


class Worker:
    """One process, as its parent sees it."""

    def __init__(self, work: Work, name: str, slot: int, generation: int, door: socket.socket, held: Held) -> None:
        self.name = name
        self.slot = slot
        self.generation = generation
        self.ready: Ready | None = None
        self.failure: Exception | None = None
        self.leaving = False
        self.heard = time.monotonic()
        context = multiprocessing.get_context("spawn")
        self.pipe, far_end = context.Pipe()
        self._hung_up = False
        life = (work, door, Line(name, held, far_end))
        self.process: BaseProcess = context.Process(target=_live, args=life, name=name)
        self.process.start()
        far_end.close()

    def listen(self) -> list[Asked | Report]:
        """Take in what it said; returns what concerns all."""
        messages = list[Asked | Report]()
        try:
            while not self._hung_up and self.pipe.poll():
                said: Said = self.pipe.recv()
                self.heard = time.monotonic()
                self.ready = said.ready or self.ready
                self.failure = said.failure or self.failure
                if said.message is not None:
                    messages.append(said.message)
        except (EOFError, OSError):
            self._hung_up = True
        return messages

    @property
    def stirs(self) -> "list[Connection | int]":
        """What to wait for: its words, its end."""
        return [self.process.sentinel] if self._hung_up else [self.process.sentinel, self.pipe]

    def leave(self) -> None:
        """Ask it to finish."""
        self.leaving = True
        self.process.terminate()

    @property
    def hung(self) -> bool:
        return time.monotonic() - self.heard > HUNG_S

    @property
    def over(self) -> bool:
        return self.process.exitcode is not None


@dataclass(slots=True)
class Replacement:
    """A worker that gets ready to take another's place."""

    old: Worker
    new: Worker


class Workers:
    """The parent."""

    def __init__(
        self,
        work: Work,
        doors: list[socket.socket],
        *,
        stop_s: float,
        on_ready: Callable[[Ready], None],
        on_end: Callable[[str], None],
    ) -> None:
        self._work = work
        self._doors = doors
        self._stop_s = stop_s
        self._on_ready = on_ready
        self._on_end = on_end
        self._signals: list[int] = []
        self._losses = 0  # of workers that never got ready, in a row
        self._due: dict[int, float] = {}  # slot -> when it is started again
        self._to_replace: list[int] = []
        self._replacement: Replacement | None = None
        self._workers: list[Worker] = []
        self._generation = 0
        self._default: str | None = None  # of the first that was ready, so that all have the same
        self._failure: Exception | None = None
        self._relay = Relay(self._tell)

    def run(self) -> int:
        """Start all and watch them until a signal comes; returns the exit code.

        Raises what a worker told of, if the first ones cannot serve.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, lambda number, _: self._signals.append(number))
        try:
            code = self._watch()
        except BaseException:
            self._stop()  # else they would serve on without us, and nobody could tell them to end
            raise
        stopped = self._stop()
        if self._failure is not None:
            raise self._failure
        return stopped if code is None else code

    def _watch(self) -> int | None:
        """Until a signal comes, or an exit code."""
        for slot in range(len(self._doors)):
            self._start(slot)
        said, code = False, None
        while code is None and not {signal.SIGTERM, signal.SIGINT} & set(self._signals):
            wait([stir for worker in self._workers for stir in worker.stirs], LOOK_S)
            self._obey()
            self._pass_on()
            code = self._look()
            ready = [worker.ready for worker in self._workers if worker.ready is not None]
            if not said and len(ready) == len(self._doors):
                said = True
                self._on_ready(ready[0])
        return code

    def _told_to_stop(self) -> int:
        return self._signals.count(signal.SIGTERM) + self._signals.count(signal.SIGINT)

    def _start(self, slot: int) -> Worker:
        """Raises OSError where there is no room for another process."""
        self._generation += 1
        held = Held(self._relay.held, self._default)
        worker = Worker(self._work, self._free_name(slot), slot, self._generation, self._doors[slot], held)
        self._workers.append(worker)
        return worker

    def _free_name(self, slot: int) -> str:
        """By their names workers write metrics: while one is replaced by another, both do, and neither into the
        other's; then the first name is free again, so that their files do not become more and more."""
        taken = {worker.name for worker in self._workers}
        return next(name for name in (f"{slot}-{number}" for number in count()) if name not in taken)

    def _start_again(self, slot: int) -> None:
        try:
            self._start(slot)
        except OSError as error:
            self._losses += 1
            logger.error("worker %d cannot be started now: %s; it is tried again", slot, error)
            self._due[slot] = time.monotonic() + self._pause_s()

    def _tell(self, generation: int, telling: Telling) -> None:
        for worker in self._workers:
            if worker.generation == generation:
                tell_worker(worker.pipe, telling)

    def _hear(self, worker: Worker) -> None:
        for message in worker.listen():
            self._relay.hear(worker.generation, message)
        if worker.ready is not None and self._default is None:
            self._default = worker.ready.default

    def _pass_on(self) -> None:
        """Hear what all say, and let orders go their way."""
        for worker in self._workers:
            self._hear(worker)
        self._relay.step({worker.generation for worker in self._workers if not worker.over}, time.monotonic())

    def _obey(self) -> None:
        while self._signals and self._signals[0] in (signal.SIGHUP, signal.SIGUSR1):
            if self._signals.pop(0) == signal.SIGUSR1:
                self._to_replace = list(range(len(self._doors)))
                continue
            for worker in self._workers:
                if worker.process.pid is not None and not worker.over:
                    os.kill(worker.process.pid, signal.SIGHUP)

    def _look(self) -> int | None:
        """One round. An exit code if the whole should end: what cannot start the first time will not the second."""
        for worker in list(self._workers):
            if worker.hung and not worker.over:
                logger.error("worker %d says nothing any more; it is killed", worker.slot)
                worker.process.kill()
            if worker.over:
                self._hear(worker)  # its last words
                self._workers.remove(worker)
                self._on_end(worker.name)
                if self._generation <= len(self._doors) and worker.ready is None:
                    self._failure = worker.failure
                    return worker.process.exitcode or 1
                self._bury(worker)
        for slot, due in list(self._due.items()):
            if time.monotonic() >= due:
                del self._due[slot]
                self._start_again(slot)
        self._replace()
        return None

    def _bury(self, worker: Worker) -> None:
        if any(other.slot == worker.slot for other in self._workers) or worker.leaving:
            return  # it was replaced, or its replacement did not get ready
        self._losses = 0 if worker.ready else self._losses + 1
        said = "worker %d ended with %s; it is started again"
        logger.error(said, worker.slot, worker.process.exitcode, exc_info=worker.failure)
        self._due[worker.slot] = time.monotonic() + self._pause_s()

    def _pause_s(self) -> float:
        return min(FIRST_PAUSE_S * 2.0 ** min(self._losses, 16), LONGEST_PAUSE_S)

    def _replace(self) -> None:
        """One slot after the other: the new one gets ready, then the old one leaves, then comes the next slot."""
        change = self._replacement
        if change is None:
            if self._to_replace:
                slot = self._to_replace.pop(0)
                old = next((worker for worker in self._workers if worker.slot == slot), None)
                if old is not None:  # else it is being started again anyway
                    self._begin_to_replace(old)
        elif change.new.over:
            said = "the new worker %d did not get ready; the old ones go on"
            logger.error(said, change.new.slot, exc_info=change.new.failure)
            self._to_replace, self._replacement = [], None
        elif change.old.over:
            self._replacement = None
        elif change.new.ready and not change.old.leaving:
            change.old.leave()

    def _begin_to_replace(self, old: Worker) -> None:
        try:
            self._replacement = Replacement(old, self._start(old.slot))
        except OSError as error:
            logger.error("no new worker %d can be started now: %s; the old ones go on", old.slot, error)
            self._to_replace = []

    def _stop(self) -> int:
        """Ask all to finish; whoever does not in time is killed."""
        told = self._told_to_stop()
        for door in self._doors:
            door.close()  # so that newcomers are refused as soon as the workers close theirs
        for worker in self._workers:
            worker.leave()
        deadline = time.monotonic() + self._stop_s
        while (left := [worker for worker in self._workers if not worker.over]) and time.monotonic() < deadline:
            if self._told_to_stop() > told:  # once more, which ends their settling
                told = self._told_to_stop()
                for worker in left:
                    worker.leave()
            self._pass_on()  # requests that were taken are answered
            wait([stir for worker in left for stir in worker.stirs], LOOK_S)
        for worker in left:
            logger.error("worker %d did not end within %g s; it is killed", worker.slot, self._stop_s)
            worker.process.kill()
            worker.process.join()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # all is over, and with our own exit code
        return 0 if all(worker.process.exitcode in STOPPED for worker in self._workers) else 1


def _live(work: Work, door: socket.socket, line: Line) -> None:
    """In the worker's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent decides
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # until there is anything to stop
    raise SystemExit(work(door, line))
