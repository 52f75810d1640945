"""How many cores this process may use: what the container's quota and its affinity leave of the machine's.

A thread more than that waits for its turn while others wait for it, which is slower than doing without.
"""

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def cores(cgroup: Path = CGROUP) -> int:
    """At least one. A quota of one and a half cores counts as one."""
    affinity = getattr(os, "sched_getaffinity", None)  # missing on macOS and Windows
    allowed = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = _quota(cgroup)
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def _quota(cgroup: Path) -> float | None:
    """Cores of time that the control group grants; None without a limit. Version 2 first, then version 1."""
    try:
        granted, period = (cgroup / "cpu.max").read_text().split()
        return None if granted == "max" else int(granted) / int(period)
    except (OSError, ValueError):
        pass
    try:
        granted = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text()
        period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text()
        return None if int(granted) <= 0 else int(granted) / int(period)
    except (OSError, ValueError):
        return None
