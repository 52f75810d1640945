"""`papers`: the set-ups of Tang et al. 2019 and XtremeDistil on this machine.

It may take hours: what is finished is written as it comes, and whoever stops it gets a report of what there is.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from service.bench import terminal
from service.bench.flags import AtLeastOne, Json, Seed
from service.bench.pair.flags import ContenderFlags, TextColumn, Threads, threads_of
from service.bench.pair.page import page_of
from service.bench.pair.papers import Batch, PapersReport, Plan, Queries, passes_of, queries, whole_pass
from service.bench.pair.report import Conditions, Data
from service.bench.pair.sweep import token_counts
from service.bench.stopping import stoppable
from service.bundle.runtime import RunHandle
from service.offline.reading import open_file
from service.offline.records import Columns

TrainFile = Annotated[
    Path, typer.Option(help="texts of the whole pass, .tsv, .csv, .jsonl or .txt, .gz too; SST-2's train set")
]
Budget = Annotated[
    float, typer.Option(min=0.1, help="seconds a model for the whole pass; one that needs longer is estimated")
]
Html = Annotated[Path | None, typer.Option(help="write the tables as one page here")]


@dataclass
class Notes:
    """What has been found so far, and where it is kept."""

    conditions: Conditions
    plan: Plan
    json: Path | None
    html: Path | None
    batches: list[Batch] = field(default_factory=list)
    queries: list[Queries] = field(default_factory=list)

    def take(self, part: Batch | tuple[Queries, ...]) -> None:
        """Another part is finished."""
        if isinstance(part, Batch):
            self.batches.append(part)
        else:
            self.queries.extend(part)

    def report(self, *, complete: bool) -> PapersReport:
        plan = self.plan
        passes = passes_of(plan.contenders, len(plan.texts), self.batches)
        return PapersReport(complete, self.conditions, plan.contenders, plan.threads, passes, tuple(self.queries))

    def keep(self, report: PapersReport) -> None:
        terminal.write(self.json, report.to_json())
        if self.html:
            terminal.write(self.html, page_of("Two papers' set-ups", report.conditions, report.sheets(), []))


def papers(
    who: ContenderFlags,
    train: TrainFile,
    text_column: TextColumn = "text",
    threads: Threads = "1,all",
    budget: Budget = 60.0,
    rounds: AtLeastOne = 20,
    seed: Seed = 0,
    json: Json = None,
    html: Html = None,
) -> None:
    """Time a student beside its teacher as two papers did: the whole of SST-2's train set, and rows of 32 tokens.

    Each finished part is written at once; Ctrl-C (exit code 130) and SIGTERM (143) end it with what there is.
    """
    try:
        terminal.check_places(json, html)
        contenders, texts = who.contenders(), read_texts(train, text_column)
        plan = Plan(contenders, texts, threads_of(threads), budget, rounds, seed)
        surroundings = terminal.idle_surroundings()
        data = Data.of(str(train), token_counts(contenders[0], texts))
        notes = Notes(Conditions(surroundings, terminal.command_line(), data), plan, json, html)
        code = measure(notes)
    except terminal.FAULTS as error:
        terminal.give_up(error)
    report = notes.report(complete=not code)
    notes.keep(report)
    tables = (sheet.to_table() for sheet in report.sheets())
    terminal.screen.print(*tables, str(report.conditions.surroundings), sep="\n")
    if code:
        terminal.warn("stopped before the end; the figures are of what there was")
        raise typer.Exit(code)


def read_texts(train: Path, column: str) -> tuple[str, ...]:
    """Raises OfflineError, BadParameter."""
    with open_file(train) as source:
        texts = tuple(str(record.text) for record in source.records(Columns(column)))
    if not texts:
        raise typer.BadParameter(f"{train}: has no rows; name another file with --train")
    return texts


def measure(notes: Notes) -> int:
    """Both set-ups, kept part by part. Returns 0, or the exit code of whoever was stopped."""
    try:
        with stoppable() as handle:
            for part in _parts(notes.plan, handle):
                notes.take(part)
                notes.keep(notes.report(complete=False))
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def _parts(plan: Plan, handle: RunHandle) -> Iterator[Batch | tuple[Queries, ...]]:
    yield from track(whole_pass(plan, handle), "whole pass", plan.batches, console=terminal.complaints, transient=True)
    yield from track(queries(plan, handle), "32 tokens", len(plan.setups), console=terminal.complaints, transient=True)
