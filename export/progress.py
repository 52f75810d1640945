"""One look for every long step: done, rate and remaining time, on standard error; and how what comes of it is told."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

console = Console(stderr=True)


class RateColumn(ProgressColumn):
    """Units per second so far."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:,.0f} {self.unit}/s")


class Bar:
    """A running progress bar."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def advance(self, count: int, note: str = "") -> None:
        """`count` more units are done; `note` is shown beside the bar."""
        self._progress.update(self._task, advance=count, note=note)


@contextmanager
def progress_bar(title: str, total: int, unit: str, done: int = 0) -> Iterator[Bar]:
    """A bar over `total` units; `done` of them were done by an earlier, interrupted run."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), RateColumn(unit))
    with Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=console) as progress:
        yield Bar(progress, progress.add_task(title, total=total, completed=done, note=""))


def print_table(title: str, values: Mapping[str, str], what: str = "metric") -> None:
    """On standard output."""
    table = Table(what, "value", title=Text(title))  # in a str, rich reads a path's [] as markup
    for name, value in values.items():
        table.add_row(name, value)
    Console().print(table)


def print_done(what: str, place: Path) -> None:
    """What was made, and where it lies; a path stays on one line."""
    console.print(f"{what}: {place}", markup=False, highlight=False, soft_wrap=True)
