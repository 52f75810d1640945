"""What the service's processes use, as /proc says; nothing where there is no /proc. Knows nothing of loads."""

import os
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one process, or of several together (memory that they share counts more than once)."""

    cpu_s: float
    rss_mib: float
    threads: int
    files: int  # open ones, connections among them


@dataclass(frozen=True, slots=True)
class _Stat:
    parent: int
    cpu_s: float
    reaped_cpu_s: float  # of children that have ended
    rss_mib: float
    threads: int


def usage(pid: int | None) -> Usage | None:
    """Of a process with all that it started. None if that cannot be known."""
    of_each = usage_of_each(pid)
    stat = _stat(pid) if pid is not None else None
    if not of_each or stat is None:
        return None
    return Usage(
        cpu_s=stat.reaped_cpu_s + sum(one.cpu_s for one in of_each.values()),
        rss_mib=sum(one.rss_mib for one in of_each.values()),
        threads=sum(one.threads for one in of_each.values()),
        files=sum(one.files for one in of_each.values()),
    )


def usage_of_each(pid: int | None) -> dict[int, Usage]:
    """pid -> what it uses, for a process and all that it started; empty if that cannot be known."""
    if pid is None or not PROC.is_dir():
        return {}
    stats = {number: stat for number in _numbers() if (stat := _stat(number)) is not None}
    family, before = {pid} & stats.keys(), 0
    while len(family) > before:
        before = len(family)
        family |= {number for number, stat in stats.items() if stat.parent in family}
    return {
        number: Usage(stats[number].cpu_s, stats[number].rss_mib, stats[number].threads, _files(number))
        for number in sorted(family)
    }


def _numbers() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]


def _stat(pid: int) -> _Stat | None:
    try:
        line = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:  # it has ended
        return None
    # The name before this may hold anything, spaces and brackets too. What follows: state, parent, ...
    fields = line.rpartition(")")[2].split()
    tick, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    return _Stat(
        parent=int(fields[1]),
        cpu_s=(int(fields[11]) + int(fields[12])) / tick,
        reaped_cpu_s=(int(fields[13]) + int(fields[14])) / tick,
        rss_mib=int(fields[21]) * page / MIB,
        threads=int(fields[17]),
    )


def _files(pid: int) -> int:
    try:
        return sum(1 for _ in (PROC / str(pid) / "fd").iterdir())
    except OSError:  # it has ended, or is somebody else's
        return 0
