"""`pair`: what the command line says -> contenders, a sweep, a course, a report."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from service.bench.client import Pool
from service.bench.http import Course, Loads, Pace, Run, check, results_of
from service.bench.http import race as race_services
from service.bench.http_command import AtLeastOne, ClientCpu, Json, Seconds, ServerCpu, Spin, Warmup, numbers, whole
from service.bench.machine import IDLE, Surroundings, these_surroundings
from service.bench.pair import plots
from service.bench.pair.contenders import SHAPES, Contender, Names, contenders_of
from service.bench.pair.page import page_of
from service.bench.pair.quality import Labelled, judge, read_labelled
from service.bench.pair.report import Conditions, Data, PairReport, Served, served_of, speeds_of
from service.bench.pair.sheets import sheets_of
from service.bench.pair.sweep import Lengths, Sweep, Turn, race, token_counts, turns_of
from service.bench.terminal import FAULTS, check_places, command_line, complaints, give_up, screen, warn, write
from service.bench.variants import Lineup, all_started
from service.processes.cores import cores

Students = Annotated[list[str], typer.Option(help="DIR, DIR:fast or DIR:exact; several times")]
Teachers = Annotated[list[str] | None, typer.Option(help="the same: what the students are held against")]
Shapes = Annotated[
    list[str] | None,
    typer.Option(
        help="a teacher's shape with random weights (`python -m export shape`), such as bert-base; several times"
    ),
]
ShapeModels = Annotated[Path, typer.Option(help="where bundles of such shapes are found")]
DataFile = Annotated[
    Path, typer.Option(help="labelled .tsv, .csv or .jsonl, .gz too: texts for all, labels for accuracy")
]
TextColumn = Annotated[str, typer.Option(help="column of the text")]
LabelColumn = Annotated[str, typer.Option(help="column of the label: a name, or a number from 0")]
Batches = Annotated[str, typer.Option(help="rows in a run of the engine")]
Threads = Annotated[str, typer.Option(help="of the engine; `all` is one a core")]
Patience = Annotated[
    float, typer.Option(min=0.01, help="seconds: a pass of the engine that would take longer is left out")
]
Engine = Annotated[bool, typer.Option(help="measure the engines alone")]
Http = Annotated[bool, typer.Option(help="measure services over HTTP")]
Connections = Annotated[str, typer.Option(help="of the closed loops, which find each service's own peak")]
Shares = Annotated[str, typer.Option(help="Poisson arrivals, in per cent of that peak")]
Seed = Annotated[int, typer.Option(min=0, help="of the choice of texts, their order and the arrivals")]
Html = Annotated[Path | None, typer.Option(help="write one page with tables and plots here; needs understudy[report]")]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured; None: not that."""

    contenders: tuple[Contender, ...]
    data: Labelled
    sweep: Sweep | None
    course: Course | None


def pair(
    student: Students,
    data: DataFile,
    teacher: Teachers = None,
    shape: Shapes = None,
    shape_models: ShapeModels = SHAPES,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    batches: Batches = "1,8,32,128",
    threads: Threads = "1,all",
    patience: Patience = Sweep.patience_s,
    connections: Connections = "1,16",
    shares: Shares = "25,50,75,90",
    seconds: Seconds = 5.0,
    warmup: Warmup = 1.0,
    rounds: AtLeastOne = 3,
    engine: Engine = True,
    http: Http = True,
    spin: Spin = True,
    client_cpu: ClientCpu = "",
    server_cpu: ServerCpu = "",
    seed: Seed = 0,
    json: Json = None,
    html: Html = None,
) -> None:
    """A student beside its teacher in one run, in turns: engines, services over HTTP, and how good the answers are."""
    try:
        check_places(json, html)
        if html:
            plots.check()
        contenders = contenders_of(Names(student, teacher or (), shape or (), shape_models))
        labelled = read_labelled(data, contenders[0].labels, text_column, label_column)
        sweep = Sweep(whole(batches), threads_of(threads), rounds, patience_s=patience, seed=seed)
        loads = Loads(connections=whole(connections), shares=numbers(shares))
        pace, pool = Pace(seconds, warmup, rounds, seed), Pool(spin=spin)
        course = Course(loads, pace, pool, client_cpus=whole(client_cpu), server_cpus=whole(server_cpu))
        report = measure(Plan(contenders, labelled, sweep if engine else None, course if http else None))
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


def idle_surroundings() -> Surroundings:
    """With a warning where others are at work."""
    found = these_surroundings()
    if not found.idle:
        warn(f"the machine is not idle (load {found.load}, {IDLE} is the limit): do not trust these figures")
    return found


def threads_of(text: str) -> tuple[int, ...]:
    """`1,all` -> numbers of threads, each once."""
    found = whole(text.replace("all", str(cores())))
    if not found or 0 in found:
        raise typer.BadParameter(f"{text}: name at least one thread, or `all`")
    return tuple(sorted(set(found)))


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
