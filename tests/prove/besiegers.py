"""Clients that mean harm, each in its own way, over and over; and how long a service puts up with each of them.

In a process of their own, which gives way to whoever measures. It knows sockets and clocks, and no HTTP but bad HTTP.
"""

import asyncio
import os
import random
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection as Pipe
from time import perf_counter

ADDRESSES = 16
"""Nobody's limit for one address should be what stops them."""

PAUSE_S = 1.0
NO_LINGER = struct.pack("ii", 1, 0)  # close() sends a reset
HEAD = b"POST /v1/classify HTTP/1.1\r\nHost: a\r\n"

Act = Callable[[socket.socket, random.Random], Awaitable[None]]
"""Does its worst until the service has hung up."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to do harm."""

    name: str
    act: Act
    most_s: float  # so long the service may put up with it
    rests_s: float = PAUSE_S  # between two connections


@dataclass(slots=True)
class Record:
    """What became of the connections of one kind."""

    connections: int = 0
    unopened: int = 0
    late: int = 0
    longest_s: float = 0.0

    def add(self, lasted_s: float, most_s: float) -> None:
        self.connections += 1
        self.late += lasted_s > most_s
        self.longest_s = max(self.longest_s, lasted_s)


@dataclass(frozen=True, slots=True)
class Siege:
    """Where, how many, how long, and what counts as late."""

    host: str
    port: int
    clients: int
    seconds: float
    first_byte_s: float
    head_s: float
    body_s: float
    answer_s: float
    slack_s: float
    large: str = "/openapi.json"  # a path whose answer is
    seed: int = 0

    def kinds(self) -> tuple[Kind, ...]:
        return (
            Kind("silent", silent, self.first_byte_s, rests_s=0),
            Kind("drips its head", drips_head, self.head_s, rests_s=0),
            Kind("drips its body", drips_body, self.body_s, rests_s=0),
            Kind("stops within a large body", hoards, self.body_s),
            Kind("never reads its answers", partial(never_reads, self.large), self.answer_s + self.head_s),
            Kind("resets", resets, self.head_s),
            Kind("sends garbage", sends_garbage, self.head_s),
            Kind("sends a huge head", sends_huge_head, self.head_s),
        )


async def silent(made: socket.socket, _: random.Random) -> None:
    await _until_closed(made)


async def drips_head(made: socket.socket, dice: random.Random) -> None:
    await _send(made, HEAD)
    while not await _closed_within(made, dice.uniform(0.2, 1.2)):
        await _send(made, b"X: y\r\n")


async def drips_body(made: socket.socket, dice: random.Random) -> None:
    await _send(made, HEAD + b"Content-Length: 100000\r\n\r\n")
    while not await _closed_within(made, dice.uniform(0.2, 1.2)):
        await _send(made, b"a")


async def hoards(made: socket.socket, _: random.Random) -> None:
    await _send(made, HEAD + b"Content-Length: 250000\r\n\r\n" + b"a" * 200_000)
    await _until_closed(made)


async def never_reads(path: str, made: socket.socket, dice: random.Random) -> None:
    """Asks for more and more: a few answers alone would fit into the buffers in between."""
    asked = b""
    while True:
        asked = asked or f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode() * 4
        with suppress(BlockingIOError):
            asked = asked[made.send(asked) :]
        await asyncio.sleep(dice.uniform(0.1, 0.3))


async def resets(made: socket.socket, dice: random.Random) -> None:
    request = HEAD + b'Content-Type: application/json\r\nContent-Length: 17\r\n\r\n{"input": "a b c"}'
    await _send(made, request[: dice.randrange(len(request) + 1)])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)


async def sends_garbage(made: socket.socket, dice: random.Random) -> None:
    await _send(made, dice.randbytes(dice.randrange(1, 4000)) + b"\r\n\r\n")
    await _until_closed(made)


async def sends_huge_head(made: socket.socket, _: random.Random) -> None:
    await _send(made, HEAD + b"X: " + b"a" * 500_000)
    await _until_closed(made)


def besiege(siege: Siege, pipe: Pipe) -> None:
    """The whole siege; its records go into the pipe."""
    if hasattr(os, "SCHED_IDLE"):  # what besiegers cost elsewhere must not cost the good clients anything here
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(19)
    pipe.send(asyncio.run(besieged(siege)))


def start(siege: Siege) -> tuple[Pipe, Callable[[], None]]:
    """Begin it in another process: where its records will come from, and what to call after that."""
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=besiege, args=(siege, theirs))
    process.start()
    return ours, process.join


async def besieged(siege: Siege) -> dict[str, Record]:
    """The whole siege, in this process."""
    kinds = siege.kinds()
    records = {kind.name: Record() for kind in kinds}
    end = perf_counter() + siege.seconds
    clients = (
        _harm(siege, kinds[number % len(kinds)], records[kinds[number % len(kinds)].name], number, end)
        for number in range(siege.clients)
    )
    await asyncio.gather(*clients)
    return records


async def _harm(siege: Siege, kind: Kind, record: Record, number: int, end: float) -> None:
    """One connection after the other, until the end."""
    dice = random.Random(siege.seed + number)
    await asyncio.sleep(dice.uniform(0, PAUSE_S))
    while perf_counter() < end:
        with socket.socket() as made:
            try:
                await _connect(made, siege, number)
            except OSError:
                record.unopened += 1
            else:
                record.add(await _acted(kind, made, dice, end), kind.most_s + siege.slack_s)
        await asyncio.sleep(kind.rests_s * dice.uniform(0.5, 1.5))


async def _connect(made: socket.socket, siege: Siege, number: int) -> None:
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    if siege.host.startswith("127."):
        made.bind((f"127.0.2.{1 + number % ADDRESSES}", 0))
    await asyncio.get_running_loop().sock_connect(made, (siege.host, siege.port))


async def _acted(kind: Kind, made: socket.socket, dice: random.Random, end: float) -> float:
    """How long the service put up with it."""
    begun = perf_counter()
    with suppress(TimeoutError, OSError):  # the siege is over; or we were hung up on while we sent
        await asyncio.wait_for(kind.act(made, dice), max(0.1, end - begun))
    return perf_counter() - begun


async def _send(made: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(made, data)


async def _until_closed(made: socket.socket) -> None:
    while await asyncio.get_running_loop().sock_recv(made, 65536):
        pass


async def _closed_within(made: socket.socket, seconds: float) -> bool:
    try:
        await asyncio.wait_for(_until_closed(made), seconds)
    except TimeoutError:
        return False
    return True
