"""`python -m service bench`: the benchmarks' commands. Each prints a table and may write the same as JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import track

from service.bench.engine import Entry, Subject, Workload, parse_entry, prepare, race
from service.bench.flags import AtLeastOne, Json, flat
from service.bench.http_command import http
from service.bench.machine import this_machine
from service.bench.pair.command import pair
from service.bench.pair.papers_command import papers
from service.bench.report import Report, summarise
from service.bench.terminal import FAULTS, check_places, complaints, give_up, screen, write
from service.bundle.manifest import Role
from service.bundle.store import find_bundles, read_manifest

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for command in (pair, http, papers):
    app.command()(flat(command))

Bundles = Annotated[
    list[str] | None,
    typer.Option(help="DIR, DIR:fast, DIR:exact or DIR:native; several times. Default: every graph in --models"),
]
Models = Annotated[Path, typer.Option(help="where bundles are found when none is named")]
Against = Annotated[list[str] | None, typer.Option(help="compare with this name; several times. Default: each teacher")]


@app.callback()
def bench() -> None:
    """Measure students beside their teachers, and services under load."""


@app.command()
def engine(
    bundle: Bundles = None,
    models: Models = Path("models"),
    against: Against = None,
    rows: AtLeastOne = Workload.rows,
    tokens: AtLeastOne = Workload.tokens,
    threads: AtLeastOne = Workload.threads,
    rounds: AtLeastOne = Workload.rounds,
    json: Json = None,
) -> None:
    """Microseconds a row of ONNX Runtime alone, all bundles in turns in one run."""
    try:
        check_places(json)
        entries = [parse_entry(text) for text in bundle] if bundle else every_graph(models)
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


def every_graph(models: Path) -> list[Entry]:
    """Each graph of each bundle's newest version."""
    newest = {place.name: place.folder for place in find_bundles(models)}
    if not newest:
        raise typer.BadParameter(f"{models} holds no bundle; name one with --bundle")
    return [Entry(folder, precision) for folder in newest.values() for precision in read_manifest(folder).graphs]


def places_of(names: Sequence[str], subjects: Sequence[Subject]) -> list[int]:
    """Where the yardsticks stand: those named (as `name`, `name@1` or `name@1:fast`), or every teacher."""
    for name in names:
        if not any(is_called(name, subject) for subject in subjects):
            raise typer.BadParameter(f"--against {name}: not among {', '.join(s.title for s in subjects)}")
    return [
        place
        for place, subject in enumerate(subjects)
        if (any(is_called(name, subject) for name in names) if names else subject.role is Role.TEACHER)
    ]


def is_called(name: str, subject: Subject) -> bool:
    return name in (subject.name.partition("@")[0], subject.name, subject.title)


if __name__ == "__main__":
    app()
