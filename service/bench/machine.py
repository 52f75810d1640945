"""Where a measurement was made, so that its numbers can be read later. Knows nothing of what was measured."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import onnxruntime


@dataclass(frozen=True, slots=True)
class Machine:
    cpu: str
    cores: int  # those that this process may use
    python: str
    onnxruntime: str

    def __str__(self) -> str:
        return f"{self.cpu}, {self.cores} cores, Python {self.python}, ONNX Runtime {self.onnxruntime}"


def this_machine() -> Machine:
    return Machine(_cpu_model(), _usable_cores(), platform.python_version(), onnxruntime.__version__)


def _cpu_model() -> str:
    """Linux says it in a file; elsewhere the platform's own words must do."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _usable_cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # missing on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1
