"""What runs graphs: the names of engines, and what they are set up with. It imports none of them."""

from dataclasses import dataclass
from enum import StrEnum

from service.bundle.devices import Device
from service.bundle.rows import Buckets


class Engine(StrEnum):
    """What runs a bundle's graph."""

    AUTO = "auto"  # the native one where it is installed, knows the graph and proves itself; else ONNX Runtime
    NATIVE = "native"  # our own, of BiLSTMs, in native/
    ONNXRUNTIME = "onnxruntime"


class Isa(StrEnum):
    """Which of a processor's instructions the native engine uses. All give the same bits."""

    AUTO = "auto"  # the quickest that there are
    PORTABLE = "portable"
    AVX2 = "avx2"
    AVX512 = "avx512"  # with VNNI
    AMX = "amx"  # with AVX-512
    EMULATED = "emulated"  # AMX's arithmetic in plain C++, slowly: for tests


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How engines are set up. What is None depends on the device: off on a CPU, on on a GPU."""

    threads: int = 1
    spinning: bool = False  # idle threads that spin are quicker to start and take the core from everyone else
    device: Device = Device.CPU
    buckets: Buckets | None = None
    bound: bool | None = None  # hand arrays over through an IO binding
    arena: bool = False  # an arena is quicker and keeps what the largest batch ever needed
    patterns: bool = False  # memory planned once for each shape; ours change with each batch
    engine: Engine = Engine.ONNXRUNTIME  # the bundle's graph as it is: what `export` measures and publishes
    isa: Isa = Isa.AUTO


DEFAULT_OPTIONS = EngineOptions()


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which engine runs a graph, and why."""

    engine: Engine
    reason: str
    isa: str | None = None  # the native one's
    failed: bool = False  # the native one should have run it, and did not prove itself

    def __str__(self) -> str:
        return f"{self.engine} ({self.isa})" if self.isa else str(self.engine)
