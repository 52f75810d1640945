"""Where a measurement was made, so that its numbers can be read later. Knows nothing of what was measured."""

import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import onnxruntime

from service.host.cores import cores


@dataclass(frozen=True, slots=True)
class Machine:
    cpu: str
    cores: int  # those that this process may use
    python: str
    onnxruntime: str

    def __str__(self) -> str:
        return f"{self.cpu}, {self.cores} cores, Python {self.python}, ONNX Runtime {self.onnxruntime}"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The machine, what runs on it, and whether it had anything else to do."""

    machine: Machine
    kernel: str
    versions: dict[str, str]
    commit: str | None
    when: str
    load: float | None  # processes that wanted a core, in the minute before

    @property
    def idle(self) -> bool:
        return self.load is None or self.load < IDLE

    def __str__(self) -> str:
        packages = ", ".join(f"{name} {found}" for name, found in self.versions.items())
        return f"{self.machine}; {self.kernel}; {packages}; commit {self.commit}; {self.when}, load {self.load}"


IDLE = 0.3
PACKAGES = ("uvicorn", "uvloop", "httptools", "starlette", "pydantic", "tokenizers", "numpy")


def these_surroundings() -> Surroundings:
    """To be called before anything is measured."""
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None  # missing on Windows
    when = datetime.now(UTC).isoformat(timespec="seconds")
    versions = {name: found for name in PACKAGES if (found := _version(name)) is not None}
    return Surroundings(this_machine(), platform.release(), versions, _commit(), when, load)


def this_machine() -> Machine:
    return Machine(_cpu_model(), cores(), platform.python_version(), onnxruntime.__version__)


def _cpu_model() -> str:
    """Linux says it in a file; elsewhere the platform's own words must do."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """None outside a checkout, or without git."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
