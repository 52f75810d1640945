"""Where networks run, in how many processes, and in which arithmetic: bfloat16 where the device is quick at it, fp32
elsewhere.

A processor without instructions for bfloat16 emulates it, many times slower than fp32 (docs/results/training.md), and
torch's fused LSTM does not run in it there at all.
"""

from datetime import timedelta

import torch
from accelerate import PartialState

INSTRUCTIONS = ("avx512_bf16", "amx_bf16")
"""What a processor may be quick with, as torch calls it."""


LONGEST_WAIT = timedelta(days=1)
"""Of one process for another."""


def default_device() -> torch.device:
    """A GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def processes() -> PartialState:
    """Those that train together, started by torchrun or `accelerate launch`; mostly this one alone."""
    # Without being told, accelerate does not see that processes without a GPU belong together. They may wait long: one
    # judges, and some have more to label than others.
    return PartialState(cpu=default_device().type == "cpu", timeout=LONGEST_WAIT)


def quick_at_bfloat16(device: torch.device) -> bool:
    """Has it instructions for bfloat16?"""
    match device.type:
        case "cuda":
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
        case "cpu":
            capable = torch.cpu.get_capabilities()
            return any(capable.get(name, False) for name in INSTRUCTIONS)
        case _:
            return False


def quick(device: torch.device, allowed: bool = True) -> torch.autocast:
    """A context in which networks run in bfloat16 if they may and the device is quick at it; else in fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=allowed and quick_at_bfloat16(device))
