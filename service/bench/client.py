"""A load: many connections, each with at most one request under way; a closed loop, or arrivals that wait for nobody.

Lean, since it must outrun what it measures: ready bytes out, a status in, four numbers kept.
It knows connections and clocks. It knows nothing of what is asked or which figures follow.
"""

import asyncio
import socket
import sys
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from time import perf_counter
from typing import cast

import numpy as np

from service.bench.arrivals import Moments
from service.bench.samples import Failure, Samples
from service.bench.wire import MalformedResponse, ResponseReader, Target

NOTHING = -1
RETRY_S = 0.05  # after a connection that could not be opened
PREPARE_S = 5.0  # at most, for the first connections of an open loop
SWEEP_S = 0.2  # how often a load looks for requests that take too long, and for its own end
SPIN_S = 0.002  # an event loop's timers are a millisecond coarse, so the end of a wait is spun

Judge = Callable[[int, int, bytes], int]
"""(number of the request, status, body) -> the status to note, or a Failure."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to send, in turns, and when to give up on an answer."""

    target: Target
    requests: Sequence[bytes]
    timeout_s: float = 10.0
    peers: int = 1  # on this machine's loopback: connections come from so many addresses in turns
    judge: Judge | None = None


@dataclass(frozen=True)
class Pool:
    """The connections of an open loop."""

    most: int = 1000
    ready: int = 256  # are open before the first arrival, as a client's are that has been there for a while
    backlog_s: float = 1.0  # an arrival waits so long for a connection, then it is noted as unsent
    spin: bool = True  # sends to the microsecond, and takes a whole core for it


class NoService(Exception):
    """Nothing answers at an address."""


class Connection(asyncio.Protocol):
    """One connection to the service. `ticket` is the request under way."""

    __slots__ = ("_load", "_reader", "_transport", "ticket")

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._reader = ResponseReader()
        self._transport: asyncio.Transport | None = None
        self.ticket = NOTHING

    @property
    def body(self) -> bytes:
        """Of the last answer."""
        return self._reader.body

    def send(self, request: bytes, ticket: int) -> None:
        assert self._transport is not None
        self.ticket = ticket
        self._transport.write(request)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._load.opened(self)

    def data_received(self, data: bytes) -> None:
        try:
            status = self._reader.feed(data)
        except MalformedResponse:
            status = Failure.GARBLED
        if not status:
            return
        if self.ticket == NOTHING or self._reader.closes or status < 0:
            self._load.ended(self, status)
        else:
            self._load.answered(self, status)

    def connection_lost(self, error: Exception | None) -> None:
        self._load.closed(self)


class Load:
    """The connections, and what became of each request. Its two kinds say when the next one is sent."""

    def __init__(self, order: Order) -> None:
        self._target = order.target
        self._requests = order.requests
        self._timeout_s = order.timeout_s
        self._judge = order.judge
        self._peers = order.peers
        self._opened = 0
        self._loop = asyncio.get_running_loop()
        self._finished: asyncio.Future[None] = self._loop.create_future()
        self._open: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._planned, self._sent, self._done = array("d"), array("d"), array("d")
        self._status = array("h")
        self._in_flight = 0
        self.begun = 0.0
        self._address = ""

    async def run(self) -> Samples:
        """Send everything, wait for the last answer, close all connections."""
        self._address = await self._resolve()
        await self._prepare()
        self.begun = perf_counter()
        self._begin()
        self._sweep()
        try:
            await self._finished
        finally:
            await self._close()
        if not self._sent:
            raise NoService(f"{self._target.authority}: no connection; does a service listen there?")
        planned, sent, done = (np.array(values) - self.begun for values in (self._planned, self._sent, self._done))
        return Samples(planned, sent, done, np.array(self._status))

    def opened(self, connection: Connection) -> None:
        """It can be sent over."""
        self._open.add(connection)
        self._ready(connection)

    def answered(self, connection: Connection, status: int) -> None:
        """The answer is whole, and the connection can take another request."""
        self._settle(connection, status)
        self._ready(connection)

    def ended(self, connection: Connection, status: int) -> None:
        """The same, but the connection is of no more use. Without a request, the service gave up waiting for one."""
        if connection.ticket != NOTHING:
            self._settle(connection, status)
        connection.abort()

    def closed(self, connection: Connection) -> None:
        """It is gone, with or without a request under way."""
        if connection.ticket != NOTHING:
            self._settle(connection, Failure.LOST)
        self._open.discard(connection)
        if not self._finished.done():
            self._gone(connection)

    async def _prepare(self) -> None:
        """What is not measured."""

    def _begin(self) -> None:
        raise NotImplementedError

    def _ready(self, connection: Connection) -> None:
        raise NotImplementedError

    def _gone(self, connection: Connection) -> None:
        raise NotImplementedError

    def _over(self) -> bool:
        """Is there nothing more to send?"""
        raise NotImplementedError

    def _launch(self, connection: Connection, planned: float | None = None) -> None:
        now = perf_counter()
        ticket = len(self._sent)
        self._planned.append(now if planned is None else planned)
        self._sent.append(now)
        self._done.append(now)
        self._status.append(0)
        self._in_flight += 1
        connection.send(self._requests[ticket % len(self._requests)], ticket)

    def _settle(self, connection: Connection, status: int) -> None:
        ticket, connection.ticket = connection.ticket, NOTHING
        self._done[ticket] = perf_counter()
        if self._judge is not None and status > 0:
            status = self._judge(ticket % len(self._requests), status, connection.body)
        self._status[ticket] = status
        self._in_flight -= 1

    def _sweep(self) -> None:
        """Give up what takes too long, and end when all is sent and answered."""
        if self._over() and not self._in_flight:
            self._finish()
            return
        oldest = perf_counter() - self._timeout_s
        waiting = [connection for connection in self._open if connection.ticket != NOTHING]
        for connection in waiting:
            if self._sent[connection.ticket] < oldest:
                self.ended(connection, Failure.TIMEOUT)
        self._loop.call_later(SWEEP_S, self._sweep)

    def _finish(self) -> None:
        if not self._finished.done():
            self._finished.set_result(None)

    def _open_one(self) -> None:
        task = self._loop.create_task(self._connect())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connect(self) -> None:
        try:
            await self._loop.create_connection(
                lambda: Connection(self), self._address, self._target.port, local_addr=self._source()
            )
        except OSError:
            await asyncio.sleep(RETRY_S)
            if not self._over():
                self._open_one()

    def _source(self) -> tuple[str, int] | None:
        """Linux has a whole network of loopback addresses, so one machine can be many clients of itself."""
        self._opened += 1
        if self._peers == 1 or sys.platform != "linux" or not self._address.startswith("127."):
            return None
        return f"127.0.1.{1 + self._opened % self._peers}", 0

    async def _resolve(self) -> str:
        """Ask for the name once, not for each connection."""
        try:
            found = await self._loop.getaddrinfo(self._target.host, self._target.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise NoService(f"{self._target.authority}: no such host ({error.strerror})") from error
        return str(found[0][4][0])

    async def _close(self) -> None:
        self._finish()
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        for connection in self._open:
            connection.abort()
        while self._open:
            await asyncio.sleep(0)


class ClosedLoop(Load):
    """So many callers, each of whom sends the next request when the last one is answered: finds the peak."""

    def __init__(self, order: Order, connections: int, seconds: float) -> None:
        super().__init__(order)
        self._connections = connections
        self._seconds = seconds
        self._until = 0.0

    def _begin(self) -> None:
        self._until = self.begun + self._seconds
        for _ in range(self._connections):
            self._open_one()

    def _ready(self, connection: Connection) -> None:
        if perf_counter() < self._until:
            self._launch(connection)

    def _gone(self, connection: Connection) -> None:
        if not self._over():
            self._open_one()

    def _over(self) -> bool:
        return perf_counter() >= self._until


class OpenLoop(Load):
    """Requests at moments that were fixed before, however slow the answers are.

    Some connections are open before; more are opened as they are needed, up to a bound. The last one is used first.
    """

    def __init__(self, order: Order, moments: Moments, pool: Pool) -> None:
        super().__init__(order)
        self._moments = array("d", moments.tobytes())
        self._next = 0
        self._pool = pool
        self._idle: list[Connection] = []
        self.begun = inf  # nothing is due while connections are opened

    async def _prepare(self) -> None:
        for _ in range(min(self._pool.ready, self._pool.most, len(self._moments))):
            self._open_one()
        until = perf_counter() + PREPARE_S
        while self._opening and perf_counter() < until:
            await asyncio.sleep(0.001)

    def _begin(self) -> None:
        self._pump()

    def _ready(self, connection: Connection) -> None:
        """Give it the arrival that has waited longest, if one waits."""
        if not self._over() and self._moments[self._next] <= perf_counter() - self.begun:
            self._launch_next(connection)
        else:
            self._idle.append(connection)

    def _gone(self, connection: Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    def _over(self) -> bool:
        return self._next >= len(self._moments)

    def _pump(self) -> None:
        """Send what is due, then see to it that this is called again when the next one is."""
        now = perf_counter() - self.begun
        while not self._over() and self._moments[self._next] <= now:
            if self._idle:
                self._launch_next(self._idle.pop())
            elif now - self._moments[self._next] > self._pool.backlog_s:
                self._give_up_next()
            else:
                self._open_more(now)
                break
        if not self._over():
            self._wait(self._moments[self._next] - (perf_counter() - self.begun))

    def _launch_next(self, connection: Connection) -> None:
        planned = self.begun + self._moments[self._next]
        self._next += 1
        self._launch(connection, planned)

    def _give_up_next(self) -> None:
        moment = self.begun + self._moments[self._next]
        self._next += 1
        for values in (self._planned, self._sent, self._done):
            values.append(moment)
        self._status.append(Failure.UNSENT)

    def _open_more(self, now: float) -> None:
        """A connection for each arrival that waits, as far as the pool allows."""
        waiting = bisect_right(self._moments, now, self._next) - self._next
        room = self._pool.most - len(self._open) - len(self._opening)
        for _ in range(min(waiting - len(self._opening), room)):
            self._open_one()

    def _wait(self, gap: float) -> None:
        if self._pool.spin and gap < SPIN_S:
            self._loop.call_soon(self._pump)
        else:
            self._loop.call_later(max(gap - SPIN_S * self._pool.spin, 0.001), self._pump)
