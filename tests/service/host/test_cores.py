"""The container's quota bounds the threads, in both versions of control groups."""

import os
from pathlib import Path

import pytest

from service.host.cores import cores

HERE = len(os.sched_getaffinity(0))


def second(folder: Path, line: str) -> None:
    (folder / "cpu.max").write_text(line)


def first(folder: Path, granted: str) -> None:
    (folder / "cpu").mkdir()
    (folder / "cpu" / "cpu.cfs_quota_us").write_text(granted)
    (folder / "cpu" / "cpu.cfs_period_us").write_text("100000\n")


@pytest.mark.parametrize("write", [lambda at: second(at, "100000 100000\n"), lambda at: first(at, "100000\n")])
def test_a_quota_of_one_core_is_one(tmp_path: Path, write: object) -> None:
    write(tmp_path)  # type: ignore[operator]
    assert cores(tmp_path) == 1


@pytest.mark.parametrize(
    ("line", "wanted"), [("50000 100000", 1), ("190000 100000", 1), ("max 100000", HERE), ("x", HERE)]
)
def test_parts_of_a_core_and_no_limit(tmp_path: Path, line: str, wanted: int) -> None:
    second(tmp_path, line)
    assert cores(tmp_path) == min(wanted, HERE)


def test_no_limit_in_the_first_version(tmp_path: Path) -> None:
    first(tmp_path, "-1\n")
    assert cores(tmp_path) == HERE


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert cores(tmp_path) == HERE
