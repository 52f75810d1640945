"""`python -m tests.prove.fuzz --runs 1_000_000`: bytes of all kinds into what reads bytes of strangers.

Each target of tests/prove/targets.py has a process of its own and gets its share of the runs. No crash, no answer
of 500 or more, nothing that takes longer than a second; else the exit code is 1, and the report has the input.
Guided by coverage with the extra `fuzz` (atheris); without it, mutations by chance.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.prove.bounds import Bound, conclude, run
from tests.prove.guided import Found
from tests.running import ROOT, environment

# The share of each in the runs: a body costs ten times as much as a graph.
SHARES = {
    "native": 8,
    "hub": 8,
    "oip": 10,
    "repository": 4,
    "reader": 20,
    "manifest": 15,
    "graph": 25,
    "keys": 10,
}
SLACK_S = 60  # to open toy models, and to end


def fuzz(target: str, runs: int, seconds: float, seed: int) -> Found:
    """In a process of its own: what kills a process is a find like others."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        asked = [target, str(runs), str(seconds), str(seed), str(report)]
        command = [sys.executable, "-m", "tests.prove.guided", *asked]
        variables = environment() | {"TMPDIR": folder}
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=variables, capture_output=True, timeout=seconds + SLACK_S, check=False
            )
            said = f"ended with {done.returncode}: {done.stderr.decode(errors='replace')[-2000:]}"
        except subprocess.TimeoutExpired:
            said = "did not end"
        if report.exists():
            return Found(**json.loads(report.read_text(encoding="utf-8")))
    return Found(target, guided=False, crash=said)


def bounds_of(found: Sequence[Found], runs: int) -> list[Bound]:
    """What is promised."""
    return [
        Bound("crashes, and answers that are faults", sum(bool(each.crash) for each in found), 0),
        Bound("inputs that took longer than a second", sum(each.hangs for each in found), 0),
        Bound("inputs", sum(each.runs for each in found), runs, at_least=True),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1_000_000, help="of all targets together, or of the one")
    parser.add_argument("--target", choices=SHARES, help="only this one")
    parser.add_argument("--minutes", type=float, default=60, help="at most, of each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the report here, not to stdout")
    asked = parser.parse_args()
    shares = {asked.target: 1} if asked.target else SHARES
    whole = sum(shares.values())
    runs = {target: max(1, round(asked.runs * share / whole)) for target, share in shares.items()}
    found = [fuzz(target, each, asked.minutes * 60, asked.seed) for target, each in runs.items()]
    details = {"runs": asked.runs, "seed": asked.seed, "targets": {each.target: _shown(each) for each in found}}
    return conclude(bounds_of(found, sum(runs.values())), details, asked.json)


def _shown(found: Found) -> dict[str, object]:
    return asdict(found) | {"runs_a_second": round(found.runs / found.seconds) if found.seconds else None}


if __name__ == "__main__":
    run(main)
