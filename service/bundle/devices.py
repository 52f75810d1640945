"""Where graphs run: which of ONNX Runtime's execution providers to try. It knows their names, and imports none."""

from collections.abc import Sequence
from enum import StrEnum

from service.bundle.errors import ProviderMissing

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class Device(StrEnum):
    """Where graphs run."""

    AUTO = "auto"  # on a GPU if ONNX Runtime can use one, else on the CPU
    CPU = "cpu"
    CUDA = "cuda"


def choose_providers(device: Device, available: Sequence[str]) -> tuple[str, ...]:
    """What to try for a device, one after another, with what this ONNX Runtime was built with.

    Raises ProviderMissing.
    """
    if device is Device.CUDA and CUDA not in available:
        raise ProviderMissing(
            f"{CUDA}: not in this ONNX Runtime; install onnxruntime-gpu in the place of onnxruntime, "
            "or choose the device cpu"
        )
    if device is Device.AUTO and CUDA in available:
        return CUDA, CPU  # it may be built for GPUs and find none
    return (CUDA,) if device is Device.CUDA else (CPU,)
