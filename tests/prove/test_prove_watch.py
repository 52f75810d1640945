"""The proofs of the watch, on toys: that they would see what they are there to see."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.running import ROOT
from tests.toys import toy

SHORT = [" ".join(pair) for pair in zip(toy.WORDS * 14, sorted(toy.WORDS * 14), strict=True)]
LONG = [" ".join([word] * 20) for word in toy.WORDS]


def texts(path: Path, lines: list[str]) -> str:
    path.write_text("text\n" + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def proved(module: str, *flags: str) -> tuple[int, Any, str]:
    command = [sys.executable, "-m", f"tests.prove.{module}", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=120, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr


def test_a_shift_is_seen_and_its_absence_too(toy_student: Path, tmp_path: Path) -> None:
    known, other = texts(tmp_path / "known.tsv", SHORT), texts(tmp_path / "other.tsv", LONG)
    flags = ("--student", str(toy_student), "--profile-texts", known, "--unshifted", known, "--seeds", "2")
    few = ("--before", "500", "--answers", "1500")
    code, report, _ = proved("drift", *flags, *few, "--shifted", other)
    assert (code, report["kept"]) == (0, True)
    assert report["files"]["other.tsv"]["alarms"] == 2
    assert report["files"]["other.tsv"]["by"]["tokens"] == 2
    assert report["files"]["unshifted"]["alarms"] == 0
    code, report, said = proved("drift", *flags, *few, "--shifted", known)  # no shift at all
    assert (code, report["kept"]) == (1, False)
    assert "BROKEN known.tsv: runs not noticed" in said
    code, report, said = proved("drift", *flags[:4], "--unshifted", other, *few, "--seeds", "2")  # no calm either
    assert code == 1
    assert "BROKEN unshifted: runs with an alarm" in said


def test_the_cost_is_measured(toy_student: Path, tmp_path: Path) -> None:
    _, report, _ = proved("noticing", "--student", str(toy_student), "--texts", texts(tmp_path / "known.tsv", SHORT))
    assert [cost["rows"] for cost in report["costs"]] == [1, 8, 32, 256]
    assert all(0 < cost["notice_us"] < cost["taken_in_us"] * cost["rows"] for cost in report["costs"])
