"""A service in some state, told to stop at some moment: how long it took, how it ended, and who got no answer.

It knows processes, sockets and signals. Which states must end how is data: `STATES`.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import psutil

from service.wire.crowd import PARTING_S
from tests.running import PATIENCE_S, ROOT, environment
from tests.service.wire.raw import Client

DRAIN_S = 2
SPARE_S = 5.0
"""The process has ended so long after its drain at the latest, whatever hangs."""

STOPPING = (signal.SIGTERM, signal.SIGINT)
EXCUSES = (
    "Cancel ",  # uvicorn: running tasks, when the drain is over
    "the service hangs",
    " hangs for more than ",
    "now serving",
    " ended with -9; it is started again",
    "; it is killed",  # a worker that somebody stopped
    "log lines were dropped",
)
"""What may be logged at a stop; anything else, and any trace, is a fault."""


@dataclass(frozen=True)
class Debt:
    """Answers that a connection must get: for each request one of these statuses."""

    client: Client
    requests: int
    statuses: frozenset[int]


@dataclass(frozen=True)
class Ending:
    """What became of it."""

    seconds: float  # from the last signal
    code: int | None  # None: it did not end
    answered: int
    faults: tuple[str, ...]


@dataclass
class Scene:
    """A service and those who are connected to it."""

    process: "subprocess.Popen[bytes]"
    models: Path
    port: int = 0
    debts: list[Debt] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    clients: ExitStack = field(default_factory=ExitStack)
    signalled: float = 0.0

    def connect(self, receive_buffer: int = 0) -> Client:
        made = self.clients.enter_context(socket.socket())
        if receive_buffer:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        made.settimeout(PATIENCE_S)
        made.connect(("127.0.0.1", self.port))
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Client(made)

    def ask(self, *texts: str | list[str], also: Iterable[int] = ()) -> Client:
        """Requests on a connection of their own; each must be answered, with 200 or one of these."""
        client = self.connect()
        client.send(b"".join(map(request, texts)))
        self.owe(client, len(texts), also)
        return client

    def owe(self, client: Client, requests: int, also: Iterable[int] = ()) -> None:
        self.debts.append(Debt(client, requests, frozenset((200, *also))))

    def wait_for_the_port(self) -> None:
        until = time.monotonic() + PATIENCE_S
        while True:
            with socket.socket() as made:
                if made.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None and time.monotonic() < until
            time.sleep(0.01)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)
        self.signalled = time.monotonic()

    def refuses_newcomers(self) -> None:
        """Once it drains: no connection, or 503, or it hangs up."""
        time.sleep(max(0.0, self.signalled + PARTING_S + 1.0 - time.monotonic()))
        try:
            client = self.connect()
            client.send(request("good"))
            statuses = client.statuses()
        except OSError:
            return
        if statuses not in ([], [503]):
            self.faults.append(f"a newcomer got {statuses} during the drain")

    def collect(self) -> int:
        """All that is owed; how many answers came."""
        came = 0
        for debt in self.debts:
            try:
                statuses = debt.client.statuses(debt.requests)
            except AssertionError as broken:
                statuses = []
                self.faults.append(f"a broken answer: {str(broken)[:80]}")
            came += len(statuses)
            if len(statuses) < debt.requests:
                self.faults.append(f"unanswered: {debt.requests - len(statuses)} of {debt.requests}")
            if unexpected := set(statuses) - debt.statuses:
                self.faults.append(f"answered with {sorted(unexpected)}")
        return came


Script = Iterator[None]
"""What clients do: up to its `yield` before the signal, then after it."""


@dataclass(frozen=True)
class State:
    """One state to be stopped in."""

    script: object  # Callable[[Scene], Script]; named by it
    flags: tuple[str, ...] = ()
    planted: bool = False  # with the troubles of `tests.service.hanging`
    loads: bool = True  # else it is told to stop before it is ready
    versions: tuple[str, ...] = ("1",)
    deaf: bool = False  # nobody reads its log
    mute: bool = False  # nor its one line on stdout, and there is no room for it
    number: int | None = None  # the one signal that it is about

    @property
    def name(self) -> str:
        return str(getattr(self.script, "__name__", "")) + "".join(f" {flag}" for flag in self.flags).replace(
            " --", " "
        )


def request(texts: str | list[str], path: str = "/v1/classify") -> bytes:
    body = json.dumps({"input": texts}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def workers_of(pid: int) -> list[psutil.Process]:
    """Those that serve, without multiprocessing's own helper."""
    found = []
    for child in psutil.Process(pid).children():
        with suppress(psutil.Error):  # it has just ended
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def stopped(state: State, models: Path, number: int, delay_s: float = 0.0) -> Ending:
    """Start it, bring it into the state, send the signal so much later, and see what happens."""
    with TemporaryDirectory(prefix="understudy-ending-") as folder:
        said, log = Path(folder) / "stdout", Path(folder) / "stderr"
        port = 0 if state.loads else _free_port()
        with _full_pipe() if state.mute else said.open("wb") as stdout, log.open("wb") as stderr:
            process = _start(state, models, port, stdout, stderr)
            with process:
                try:
                    return _stopped(state, Scene(process, models, port), said, log, number, delay_s)
                finally:
                    process.kill()


@contextmanager
def _full_pipe() -> Iterator[IO[bytes]]:
    """Its writing end."""
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writes, bytes(4096))
    os.set_blocking(writes, True)
    with os.fdopen(reads, "rb"), os.fdopen(writes, "wb") as full:
        yield full


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as made:
        port: int = made.getsockname()[1]
        return port


def _start(state: State, models: Path, port: int, stdout: IO[bytes], stderr: IO[bytes]) -> "subprocess.Popen[bytes]":
    module = "tests.service.hanging" if state.planted else "service"
    flags = ["--port", str(port), "--models", str(models), "--drain-seconds", str(DRAIN_S), "--reload-seconds", "0"]
    return subprocess.Popen(
        [sys.executable, "-m", module, "serve", *flags, *state.flags],
        cwd=ROOT,
        env=environment() | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE if state.deaf else stderr,
    )


def _stopped(state: State, scene: Scene, said: Path, log: Path, number: int, delay_s: float) -> Ending:
    with scene.clients:
        if state.loads:
            scene.port = _port(scene.process, said, log)
        script = state.script(scene)  # type: ignore[operator]
        next(script)
        time.sleep(delay_s)
        scene.signal(number)
        next(script, None)
        try:
            code: int | None = scene.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            code = None
            scene.process.kill()
        seconds = time.monotonic() - scene.signalled
        answered = scene.collect()
    if code != 0:
        scene.faults.append("it did not end" if code is None else f"exit code {code}")
    if seconds > DRAIN_S + SPARE_S:
        scene.faults.append(f"it took {seconds:.1f} s")
    scene.faults += _complaints(log.read_text(encoding="utf-8"))
    return Ending(seconds, code, answered, tuple(scene.faults))


def _port(process: "subprocess.Popen[bytes]", said: Path, log: Path) -> int:
    until = time.monotonic() + PATIENCE_S
    while " ready in " not in (line := said.read_text(encoding="utf-8")):
        assert process.poll() is None and time.monotonic() < until, log.read_text(encoding="utf-8")
        time.sleep(0.01)
    return int(line.split()[0].rpartition(":")[2])


def _complaints(log: str) -> Sequence[str]:
    return [f"logged: {line[:160]}" for line in log.splitlines() if not any(excuse in line for excuse in EXCUSES)][:3]
