"""Runs guest.cpp on a processor that Bochs emulates, without an operating system, and tells what it reports.

    python run.py SHIM GUEST KERNELS

One line of JSON. The exit status is 1 if bits differ, if nothing was compared, or if there was an exception.
"""

import ctypes
import json
import mmap
import os
import struct
import sys
import time
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

PAGE = 1 << 21
MEMORY = 16 * PAGE
BEGIN = 2 * PAGE  # the guest sees no memory below it, so that null pointers and what was not linked are noticed
REPORT = MEMORY - PAGE  # in the last page, with the stack
TABLES = (0x1000, 0x2000, 0x3000)
EXCEPTIONS = {6: "#UD", 13: "#GP", 14: "#PF"}


def load(elf: bytes, memory: mmap.mmap) -> int:
    """Puts a program where it wants to be -> where it begins."""
    entry, headers = struct.unpack_from("<QQ", elf, 24)
    (count,) = struct.unpack_from("<H", elf, 56)
    for header in range(headers, headers + 56 * count, 56):
        kind, _, offset, place, _, size, room, _ = struct.unpack_from("<IIQQQQQQ", elf, header)
        if kind == 1:
            assert place >= BEGIN and place + room <= REPORT, "the guest does not fit its memory"
            memory[place : place + size] = elf[offset : offset + size]
    return int(entry)


def map_pages(memory: mmap.mmap) -> None:
    """Every address means itself."""
    for table, below in pairwise(TABLES):
        struct.pack_into("<Q", memory, table, below | 7)
    for page in range(BEGIN, MEMORY, PAGE):
        struct.pack_into("<Q", memory, TABLES[-1] + 8 * (page // PAGE), page | 0x87)


def long_mode(bochscpu: Any, entry: int) -> Any:
    """A processor in ring 0 of 64-bit mode, that keeps AVX-512's registers."""
    state = bochscpu.State()
    state.rip, state.rdi, state.rsp, state.rflags = entry, REPORT, MEMORY - 8, 2  # as after a call of _start(REPORT)
    state.cr0, state.cr3, state.cr4, state.efer, state.xcr0 = 0x80010033, TABLES[0], 0x40620, 0xD01, 0xE7
    state.mxcsr, state.mxcsr_mask, state.fpcw = 0x1F80, 0xFFFF, 0x37F
    for name, attributes in {"cs": 0xA09B, "ds": 0xC093, "es": 0xC093, "ss": 0xC093, "tr": 0x8B, "ldtr": 0x82}.items():
        segment = bochscpu.Segment()
        segment.present, segment.limit, segment.attr = True, 0xFFFFFFFF, attributes
        setattr(state, name, segment)
    return state


def main(shim: str, guest: str, kernels: str) -> int:
    ctypes.CDLL(shim, ctypes.RTLD_GLOBAL)
    sys.setdlopenflags(os.RTLD_LAZY | os.RTLD_GLOBAL)
    import bochscpu
    import bochscpu.memory

    memory = mmap.mmap(-1, MEMORY)
    for page in range(0, MEMORY, mmap.PAGESIZE):
        bochscpu.memory.page_insert(page, ctypes.addressof(ctypes.c_char.from_buffer(memory, page)))
    map_pages(memory)
    session = bochscpu.Session()
    session.cpu.state = long_mode(bochscpu, load(Path(guest).read_bytes(), memory))
    exceptions = []

    def stop(session: Any, *_: int) -> None:
        session.stop()

    def note(session: Any, _: int, vector: int, __: int) -> None:
        exceptions.append(f"{EXCEPTIONS.get(vector, vector)} before {session.cpu.state.rip:#x}")
        session.stop()

    hook = bochscpu.Hook()
    hook.hlt, hook.exception = stop, note
    begin = time.process_time()
    session.run([hook])
    seconds = time.process_time() - begin
    comparisons, differing, processor = struct.unpack_from("<QQ48s", memory, REPORT)
    found = {
        "kernels": kernels,
        "beside": "emulated",
        "comparisons": comparisons,
        "differing": differing,
        "exceptions": exceptions,
        "processor": processor.rstrip(b"\0").decode(),
        "emulator": f"bochscpu-python {version('bochscpu-python')}",
        "seconds": round(seconds, 1),
    }
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()
    return int(bool(differing or exceptions or not comparisons))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
