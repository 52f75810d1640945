"""`python -m service bench`: the benchmarks' commands. Each prints a table and may write the same as JSON."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import typer
from rich.progress import track

from service.bench.cost_command import cost
from service.bench.engine import Entry, Workload, prepare, race
from service.bench.flags import Against, AtLeastOne, Graphs, Json, Models, entries_of, flat, places_of
from service.bench.http_command import http
from service.bench.machine import this_machine
from service.bench.pair.command import pair
from service.bench.pair.papers_command import papers
from service.bench.report import Report, summarise
from service.bench.terminal import FAULTS, check_places, complaints, give_up, screen, write

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for command in (pair, http, papers, cost):
    app.command()(flat(command))


@app.callback()
def bench() -> None:
    """Measure students beside their teachers, and services under load."""


@app.command()
def engine(
    bundle: Graphs = None,
    models: Models = Path("models"),
    against: Against = None,
    rows: AtLeastOne = Workload.rows,
    tokens: AtLeastOne = Workload.tokens,
    threads: AtLeastOne = Workload.threads,
    rounds: AtLeastOne = Workload.rounds,
    json: Json = None,
) -> None:
    """Microseconds a row of the engine alone, all bundles in turns in one run."""
    try:
        check_places(json)
        entries = entries_of(bundle, models)
        report = measure(entries, Workload(rows, tokens, threads, rounds), against or [])
    except FAULTS as error:
        give_up(error)
    screen.print(report.to_table())
    write(json, report.to_json())


def measure(entries: Sequence[Entry], workload: Workload, against: Sequence[str]) -> Report:
    subjects = [prepare(entry, workload) for entry in entries]
    yardsticks = places_of(against, subjects)
    rounds = track(race(subjects, workload), "measuring", workload.rounds, console=complaints, transient=True)
    return summarise(this_machine(), workload, subjects, np.array(list(rounds)), yardsticks)


if __name__ == "__main__":
    app()
