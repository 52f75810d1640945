"""`pair`: what the command line says -> contenders, a sweep, a course, a report."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from service.bench.flags import Connections, Json, LoadFlags, Shares, whole
from service.bench.http import Course, Run, check, results_of
from service.bench.http import race as race_services
from service.bench.machine import Surroundings
from service.bench.pair import plots
from service.bench.pair.contenders import Contender
from service.bench.pair.flags import ContenderFlags, TextColumn, Threads, threads_of
from service.bench.pair.page import page_of
from service.bench.pair.quality import Labelled, judge, read_labelled
from service.bench.pair.report import Conditions, Data, PairReport, Served, served_of, speeds_of
from service.bench.pair.sheets import sheets_of
from service.bench.pair.sweep import Lengths, Sweep, Turn, race, token_counts, turns_of
from service.bench.terminal import (
    FAULTS,
    check_places,
    command_line,
    complaints,
    give_up,
    idle_surroundings,
    screen,
    write,
)
from service.bench.variants import Lineup, all_started

DataFile = Annotated[
    Path, typer.Option(help="labelled .tsv, .csv or .jsonl, .gz too: texts for all, labels for accuracy")
]
LabelColumn = Annotated[str, typer.Option(help="column of the label: a name, or a number from 0")]
Batches = Annotated[str, typer.Option(help="rows in a run of the engine")]
Patience = Annotated[
    float, typer.Option(min=0.01, help="seconds: a pass of the engine that would take longer is left out")
]
Engine = Annotated[bool, typer.Option(help="measure the engines alone")]
Http = Annotated[bool, typer.Option(help="measure services over HTTP")]
Html = Annotated[Path | None, typer.Option(help="write one page with tables and plots here; needs the extra `report`")]


@dataclass(frozen=True)
class DataFlags:
    """What the answers are held against."""

    data: DataFile
    text_column: TextColumn = "text"
    label_column: LabelColumn = "label"


@dataclass(frozen=True)
class EngineFlags:
    """What the engines alone are put through."""

    batches: Batches = "1,8,32,128"
    threads: Threads = "1,all"
    patience: Patience = Sweep.patience_s
    engine: Engine = True

    def sweep(self, rounds: int, seed: int) -> Sweep | None:
        """What they ask for; None: nothing. Raises BadParameter."""
        sweep = Sweep(whole(self.batches), threads_of(self.threads), rounds, patience_s=self.patience, seed=seed)
        return sweep if self.engine else None


@dataclass(frozen=True)
class PairLoad(LoadFlags):
    """A load that is over sooner, since there are several services."""

    connections: Connections = "1,16"
    shares: Shares = "25,50,75,90"
    http: Http = True


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured; None: not that."""

    contenders: tuple[Contender, ...]
    data: Labelled
    sweep: Sweep | None
    course: Course | None


def pair(
    who: ContenderFlags,
    what: DataFlags,
    engines: EngineFlags,
    load: PairLoad,
    json: Json = None,
    html: Html = None,
) -> None:
    """A student beside its teacher in one run, in turns: engines, services over HTTP, and how good the answers are."""
    try:
        check_places(json, html)
        if html:
            plots.check()
        contenders = who.contenders()
        labelled = read_labelled(what.data, contenders[0].labels, what.text_column, what.label_column)
        sweep, course = engines.sweep(load.rounds, load.seed), load.course()
        report = measure(Plan(contenders, labelled, sweep, course if load.http else None))
    except FAULTS as error:
        give_up(error)
    _show(report, json, html)


def measure(plan: Plan) -> PairReport:
    """Quality first, then the engines, then the services; each in turns."""
    surroundings = idle_surroundings()
    lengths = token_counts(plan.contenders[0], plan.data.texts)
    facts = Data.of(plan.data.source, lengths)
    return PairReport(
        conditions=Conditions(surroundings, command_line(), facts, plan.sweep, plan.course),
        contenders=plan.contenders,
        qualities=judge(plan.contenders, plan.data),
        speeds=speeds_of(_engines(plan, lengths), plan.contenders),
        served=_services(plan, surroundings),
    )


def _show(report: PairReport, json: Path | None, html: Path | None) -> None:
    sheets = sheets_of(report)
    screen.print(*(sheet.to_table() for sheet in sheets), str(report.conditions.surroundings), sep="\n")
    write(json, report.to_json())
    if html:
        write(html, page_of(_title(report), report.conditions, sheets, plots.plots_of(report)))


def _title(report: PairReport) -> str:
    students = ", ".join(each.title for each in report.contenders if not each.teacher)
    return f"{students} beside {', '.join(each.title for each in report.teachers)}"


def _engines(plan: Plan, lengths: Lengths) -> Sequence[Turn]:
    if plan.sweep is None:
        return ()
    total = turns_of(plan.contenders, plan.sweep, lengths)
    turns = race(plan.contenders, plan.sweep, plan.data.texts, lengths)
    return list(track(turns, "engines", total, console=complaints, transient=True))


def _services(plan: Plan, surroundings: Surroundings) -> Served:
    course = plan.course
    if course is None:
        return Served()
    texts = tuple(text for text in plan.data.texts if text.strip())
    lineup = Lineup(tuple(each.entry for each in plan.contenders), cpus=course.server_cpus)
    with all_started(lineup) as started:
        variants = [replace(variant, entry=None) for variant in started]  # the models alone are the sweep's business
        check(variants, course, texts)
        results = race_services(variants, course, texts)
        runs = track(results, "services", results_of(variants, course), console=complaints, transient=True)
        found = [run for run in runs if isinstance(run, Run)]
    return served_of(surroundings, course, variants, found)
