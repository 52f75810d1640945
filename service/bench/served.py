"""The service that is measured: started here, or already running somewhere. Also what it says of itself.

It knows the command line, /metrics and one request at a time. It knows nothing of loads.
"""

import http.client
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, sleep

from prometheus_client.parser import text_string_to_metric_families

from service.bench.client import NoService
from service.bench.wire import Caller, Target
from service.bench.worker import Cpus, pinned
from service.bundle.store import read_manifest
from service.settings import PREFIX

START_S, STOP_S, ASK_S = 120, 60, 30
POLL_S = 0.01
OWN = "understudy_"


@dataclass(frozen=True, slots=True)
class Service:
    """One that answers. `pid` and `ready_s` are known if it was started here."""

    target: Target
    pid: int | None = None
    ready_s: float | None = None


@dataclass(frozen=True, slots=True)
class Meter:
    """One histogram of the service, over all its labels."""

    name: str
    count: float
    total: float

    @property
    def mean(self) -> float:
        return self.total / self.count


class Refused(Exception):
    """The service does not answer a request of this kind with 200."""


@contextmanager
def started(command: Sequence[str], cpus: Cpus = (), folder: Path = Path()) -> Iterator[Service]:
    """Run a command that serves, in a folder; it says where once it is ready. Stopped at the end, whatever it takes."""
    with TemporaryDirectory(prefix="understudy-bench-") as logs:
        # Files, since nobody reads a pipe while the load runs.
        said, complained = Path(logs) / "stdout", Path(logs) / "stderr"
        begun = perf_counter()
        with said.open("wb") as stdout, complained.open("wb") as stderr, pinned(cpus):
            process = subprocess.Popen(
                command, cwd=folder, env=_environment(), stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
            )
        with process:
            try:
                line = _ready_line(process, said, complained)
                yield Service(Target.of(line.split()[0]), process.pid, perf_counter() - begun)
            finally:
                _stop(process)


def serve_command(models: Path, flags: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "service", "serve", "--port", "0", "--models", str(models), *flags]


@contextmanager
def only(bundle: Path) -> Iterator[Path]:
    """A folder of models that holds a copy of this one bundle."""
    manifest = read_manifest(bundle)
    with TemporaryDirectory(prefix="understudy-bench-") as folder:
        shutil.copytree(bundle, Path(folder) / manifest.name / manifest.version)
        yield Path(folder)


def ask(caller: Caller, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """One request, with a client that is thorough and slow."""
    target = caller.target
    headers = dict(line.split(": ", 1) for line in caller.headers)
    connection = http.client.HTTPConnection(target.host, target.port, timeout=ASK_S)
    try:
        connection.request(method, target.prefix + path, body, {"Content-Type": "application/json"} | headers)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise NoService(f"{target.authority}: no answer ({error}); does the service run?") from error
    finally:
        connection.close()


def probe(caller: Caller, texts: Sequence[str]) -> None:
    """Refuse to measure what is not answered at all."""
    path, body = caller.question(texts)
    status, answer = ask(caller, "POST", path, body)
    if status != http.client.OK:
        said = " ".join(answer.decode(errors="replace").split())[:300]
        raise Refused(
            f"{len(texts)} texts a request, {len(body)} bytes: the service answers {status} ({said}); "
            "change the request, or the service's limits"
        )


def read_meters(caller: Caller) -> dict[str, Meter]:
    """The service's own histograms; none if it does not show them to us."""
    status, content = ask(caller, "GET", "/metrics")
    found: dict[str, Meter] = {}
    if status != http.client.OK:
        return found
    for family in text_string_to_metric_families(content.decode(errors="replace")):
        if family.type == "histogram" and family.name.startswith(OWN):
            of = {end: sum(s.value for s in family.samples if s.name.endswith(end)) for end in ("_count", "_sum")}
            name = family.name.removeprefix(OWN)
            found[name] = Meter(name, of["_count"], of["_sum"])
    return found


def between(before: dict[str, Meter], after: dict[str, Meter]) -> tuple[Meter, ...]:
    """What was measured meanwhile."""
    grown = (
        Meter(name, meter.count - before[name].count, meter.total - before[name].total)
        for name, meter in after.items()
        if name in before
    )
    return tuple(meter for meter in grown if meter.count > 0)


def _environment() -> dict[str, str]:
    """Ours without settings of the service, so that the flags in the report are all there is."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}


def _ready_line(process: "subprocess.Popen[bytes]", said: Path, complained: Path) -> str:
    until = perf_counter() + START_S
    while perf_counter() < until:
        lines = said.read_text(encoding="utf-8").splitlines(keepends=True)
        found = [line for line in lines if line.startswith("http://") and " ready" in line and line.endswith("\n")]
        if found:
            return found[0]
        if process.poll() is not None:
            reason = complained.read_text(encoding="utf-8").strip().splitlines() or ["it gave no reason"]
            raise NoService(f"the service ended with {process.returncode}: {reason[-1]}")
        sleep(POLL_S)
    raise NoService(f"the service was not ready after {START_S} s; look at its log")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
