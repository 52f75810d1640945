"""What a worker and its parent say to each other, and the line on which the worker does.

A worker is told things in JSON, since what serves unpickles nothing. An order is for all workers: see `relay` and
`crew`. It knows nothing of what an order says.
"""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

from pydantic import BaseModel, ConfigDict, TypeAdapter


@dataclass(frozen=True)
class Ready:
    """Where it serves, and what."""

    url: str
    what: str
    default: str  # the model that answers where none is named


class Message(BaseModel):
    """What concerns all workers."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Order(Message):
    """What all workers shall do. A later one about the same thing takes its place."""

    about: str
    what: str


class Asked(Message):
    """A worker was asked for something that all should do."""

    ticket: int  # the worker's own, to know its turn by
    order: Order


class Report(Message):
    """A worker is done with an order."""

    number: int
    accepted: bool
    why: str = ""  # not, if it is another worker's order


class Told(Message):
    """A worker shall carry out an order."""

    number: int
    order: Order
    ticket: int | None = None  # it is its own, so it goes first


class Verdict(Message):
    """What became of a worker's own order elsewhere."""

    number: int
    refusals: tuple[str, ...]
    silent: int  # so many others have not answered in time


Telling = Told | Verdict
_TELLING: TypeAdapter[Telling] = TypeAdapter(Telling)


@dataclass(frozen=True)
class Said:
    """What a worker tells its parent: nothing but that it lives, or one of these."""

    ready: Ready | None = None
    failure: Exception | None = None  # why it cannot serve
    message: Asked | Report | None = None


@dataclass(frozen=True)
class Held:
    """What holds among the workers already, for one that starts."""

    orders: tuple[Order, ...] = ()
    default: str | None = None  # as in `Ready`


class Line:
    """To the parent and back, as its worker has it."""

    def __init__(self, name: str, held: Held, pipe: Connection) -> None:
        self.name = name
        self.held = held
        self._pipe = pipe

    def tell(self, said: Said) -> None:
        try:
            self._pipe.send(said)
        except OSError:  # the parent has gone, so nobody would restart or stop us
            os.kill(os.getpid(), signal.SIGTERM)

    def listen(self, hear: Callable[[Telling], None]) -> None:
        """Hand over what the parent tells, on the event loop that runs."""
        asyncio.get_running_loop().add_reader(self._pipe.fileno(), self._take, hear)

    def hang_up(self) -> None:
        """Listen no more."""
        asyncio.get_running_loop().remove_reader(self._pipe.fileno())

    def _take(self, hear: Callable[[Telling], None]) -> None:
        try:
            hear(_TELLING.validate_json(self._pipe.recv_bytes()))
        except (EOFError, OSError):  # the parent has gone, as `tell` finds too
            self.hang_up()


def tell_worker(pipe: Connection, telling: Telling) -> None:
    """In the parent. Whoever has gone need not be told."""
    with suppress(OSError):
        pipe.send_bytes(telling.model_dump_json().encode())
