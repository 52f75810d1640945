"""`papers`: the set-ups of Tang et al. 2019 and XtremeDistil on this machine."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from service.bench.http_command import AtLeastOne, Json
from service.bench.pair.command import (
    Seed,
    ShapeModels,
    Shapes,
    Students,
    Teachers,
    TextColumn,
    Threads,
    idle_surroundings,
    threads_of,
)
from service.bench.pair.contenders import SHAPES, Contender, Names, contenders_of
from service.bench.pair.page import page_of
from service.bench.pair.papers import (
    TANG_BATCH,
    XTREME_BATCHES,
    PapersReport,
    Queries,
    WholePass,
    passes_of,
    queries,
    whole_pass,
)
from service.bench.pair.report import Conditions, Data
from service.bench.pair.sweep import token_counts
from service.bench.terminal import FAULTS, check_places, command_line, complaints, give_up, screen, write
from service.offline.reading import Columns, open_file

TrainFile = Annotated[
    Path, typer.Option(help="texts of the whole pass, .tsv, .csv, .jsonl or .txt, .gz too; SST-2's train set")
]
Budget = Annotated[
    float, typer.Option(min=0.1, help="seconds a model for the whole pass; one that needs longer is estimated")
]
Html = Annotated[Path | None, typer.Option(help="write the tables as one page here")]


def papers(
    student: Students,
    train: TrainFile,
    teacher: Teachers = None,
    shape: Shapes = None,
    shape_models: ShapeModels = SHAPES,
    text_column: TextColumn = "text",
    threads: Threads = "1,all",
    budget: Budget = 60.0,
    rounds: AtLeastOne = 20,
    seed: Seed = 0,
    json: Json = None,
    html: Html = None,
) -> None:
    """Time a student beside its teacher as two papers did: the whole of SST-2's train set, and rows of 32 tokens."""
    try:
        check_places(json, html)
        contenders = contenders_of(Names(student, teacher or (), shape or (), shape_models))
        with open_file(train) as source:
            texts = [str(record.text) for record in source.records(Columns(text_column))]
        if not texts:
            raise typer.BadParameter(f"{train}: has no rows; name another file with --train")
        surroundings, counts = idle_surroundings(), threads_of(threads)
        report = PapersReport(
            Conditions(surroundings, command_line(), Data.of(str(train), token_counts(contenders[0], texts))),
            contenders,
            counts,
            _tang(contenders, texts, max(counts), budget, seed),
            _xtreme(contenders, counts, rounds),
        )
    except FAULTS as error:
        give_up(error)
    screen.print(*(sheet.to_table() for sheet in report.sheets()), str(surroundings), sep="\n")
    write(json, report.to_json())
    if html:
        write(html, page_of("Two papers' set-ups", report.conditions, report.sheets(), []))


def _tang(
    contenders: tuple[Contender, ...], texts: list[str], threads: int, budget: float, seed: int
) -> tuple[WholePass, ...]:
    total = -(-len(texts) // TANG_BATCH) * len(contenders)
    batches = track(
        whole_pass(contenders, texts, threads, budget, seed), "whole pass", total, console=complaints, transient=True
    )
    return passes_of(contenders, len(texts), list(batches))


def _xtreme(contenders: tuple[Contender, ...], counts: tuple[int, ...], rounds: int) -> tuple[Queries, ...]:
    setups = [(threads, batch) for threads in counts for batch in XTREME_BATCHES]
    found = [
        queries(contenders, threads, batch, rounds)
        for threads, batch in track(setups, "32 tokens", console=complaints, transient=True)
    ]
    return tuple(line for lines in found for line in lines)
