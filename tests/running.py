"""The service as tests meet it: a real process over real HTTP, or the application in this process."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from service.api.door import Door
from service.app import create_app
from service.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 30  # only ever waited for when a test fails


def until(
    condition: Callable[[], object], process: "subprocess.Popen[str] | None" = None, within_s: float = PATIENCE_S
) -> None:
    """Wait for it. That this process ends meanwhile, or that it takes so long, fails the test."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        assert process is None or process.poll() is None, f"ended with {process.returncode}"
        time.sleep(0.01)


@dataclass(frozen=True)
class Running:
    """A server process that said that it is ready."""

    process: subprocess.Popen[str]
    line: str  # what it said

    @property
    def url(self) -> str:
        return self.line.split()[0]

    def client(self) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=PATIENCE_S, verify=False)  # no certificates are read for http

    def get(self, path: str) -> httpx2.Response:
        """On a connection of its own."""
        with self.client() as client:
            return client.get(path)

    def post(self, path: str, body: object) -> httpx2.Response:
        """The same."""
        with self.client() as client:
            return client.post(path, json=body)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)


def environment() -> dict[str, str]:
    """Ours, without settings of the service."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}


def command(*arguments: str, text: str = "", **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run `python -m service …` to its end, with more variables if need be."""
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        cwd=ROOT,
        env=environment() | variables,
        input=text,
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE_S,
        check=False,
    )


@contextmanager
def serving(models: Path, *flags: str, launcher: tuple[str, ...] = ("service",), **variables: str) -> Iterator[Running]:
    """A server on a free port; it must end with 0, silently."""
    process = subprocess.Popen(
        [sys.executable, "-m", *launcher, "serve", "--port", "0", "--models", str(models), *flags],
        cwd=ROOT,
        env=environment() | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        try:
            line = process.stdout.readline()
            assert "ready" in line, process.stderr.read()
            running = Running(process, line)
            yield running
            if process.poll() is None:
                assert running.stop() == 0
            said = process.stderr.read()
            assert not said, said  # outside pytest an assertion shows nothing by itself
        finally:
            process.kill()


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Door]:
    """The application in this process, with its models open."""
    door = create_app(settings)
    loaded = asyncio.Event()
    door.lifecycle.on_loaded = lambda _: loaded.set()
    async with asyncio.timeout(PATIENCE_S), door.api.router.lifespan_context(door.api):
        await loaded.wait()
        assert door.lifecycle.failure is None
        yield door


def client_of(app: object) -> httpx2.AsyncClient:
    """A client that calls the application without a network."""
    transport = httpx2.ASGITransport(app=app)  # type: ignore[arg-type]
    return httpx2.AsyncClient(transport=transport, base_url="http://here")
