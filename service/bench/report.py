"""What a race of engines showed: a table for people, JSON for later. Measures nothing."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from rich.table import Table

from service.bench.engine import Subject, Timings, Workload, ratios
from service.bench.machine import Machine


@dataclass(frozen=True, slots=True)
class Compared:
    """One subject among others: `times` says how many times faster than each yardstick it was."""

    subject: str
    times: dict[str, float]


@dataclass(frozen=True, slots=True)
class Line(Compared):
    """What a subject's graph takes: microseconds a row."""

    role: str
    graph_bytes: int
    median_us: float
    p10_us: float
    p90_us: float


@dataclass(frozen=True, slots=True)
class Report:
    """A whole race."""

    machine: Machine
    workload: Workload
    lines: tuple[Line, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    def to_table(self) -> Table:
        """One row a subject, one column a yardstick."""
        work = self.workload
        batch = f"{work.rows} rows of {work.tokens} tokens, threads {work.threads}"
        table = Table(title=f"µs a row: {batch}, {work.rounds} rounds", caption=str(self.machine))
        table.add_column("bundle")
        yardsticks = list(self.lines[0].times)
        for heading in ("graph MB", "median", "p10", "p90", *(f"× {name}" for name in yardsticks)):
            table.add_column(heading, justify="right")
        for line in self.lines:
            figures = (line.median_us, line.p10_us, line.p90_us, *line.times.values())
            cells = (f"{figure:.1f}" for figure in (line.graph_bytes / 1e6, *figures))
            table.add_row(line.subject, *cells)
        return table


def summarise(
    machine: Machine,
    workload: Workload,
    subjects: Sequence[Subject],
    timings: Timings,
    against: Sequence[int],
) -> Report:
    """(rounds, subjects) of microseconds -> the figures; `against` are the yardsticks' places."""
    middle, low, high = (np.percentile(timings, at, axis=0) for at in (50, 10, 90))  # (subjects,)
    speedups = {subjects[place].title: ratios(timings, place) for place in against}
    lines = tuple(
        Line(
            subject=subject.title,
            times={name: float(speedup[i]) for name, speedup in speedups.items()},
            role=subject.role.value,
            graph_bytes=subject.graph_bytes,
            median_us=float(middle[i]),
            p10_us=float(low[i]),
            p90_us=float(high[i]),
        )
        for i, subject in enumerate(subjects)
    )
    return Report(machine, workload, lines)
