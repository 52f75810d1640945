"""Promises and what was found of them: JSON out, and exit code 1 when one is broken."""

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from service.bench.terminal import FAULTS
from service.catalogue import NoSuchModel
from service.settings import SettingProblem


@dataclass(frozen=True, slots=True)
class Bound:
    """One promise. What could not be found out is a broken one."""

    what: str
    found: float | None
    limit: float
    at_least: bool = False

    @property
    def kept(self) -> bool:
        if self.found is None or math.isnan(self.found):
            return False
        return self.found >= self.limit if self.at_least else self.found <= self.limit

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        found = "unknown" if self.found is None else f"{self.found:.4g}"
        return f"{'kept  ' if self.kept else 'BROKEN'} {self.what}: {found} ({sign} {self.limit:g})"


def run(main: Callable[[], int]) -> NoReturn:
    """End the process with what `main` returns, or with 2 and one line if it cannot even begin."""
    try:
        raise SystemExit(main())
    except (*FAULTS, SettingProblem, NoSuchModel) as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from error


def conclude(bounds: Sequence[Bound], details: Any, out: Path | None) -> int:
    """Say all bounds on stderr, write all that is known as JSON, and return the exit code."""
    for bound in bounds:
        sys.stderr.write(f"{bound}\n")
    kept = all(bound.kept for bound in bounds)
    listed = [asdict(bound) | {"kept": bound.kept} for bound in bounds]
    content = json.dumps({"kept": kept, "bounds": listed, **details}, indent=1, default=str) + "\n"
    if out is None:
        sys.stdout.write(content)
    else:
        out.write_text(content, encoding="utf-8")
    return 0 if kept else 1
