"""`classify`: texts, lines of stdin as they come, or whole files, without a server."""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from service.commands.models import ModelsFlag, places_of
from service.commands.terminal import Misused
from service.environment import load
from service.processes.cores import cores

if TYPE_CHECKING:
    import io
    from typing import TextIO

    from service.bundle.runtime import OpenBundle
    from service.offline.reading import Columns, Source
    from service.offline.records import Answer
    from service.offline.scoring import Scorer
    from service.offline.writing import Render
    from service.settings import Settings

STDIN = Path("-")
ROWS_A_LOOK = 256
"""After so many rows the bar is brought up to date."""


def _option(help: str, panel: str | None = None, metavar: str = "TEXT", **more: Any) -> Any:
    return typer.Option(help=help, rich_help_panel=panel, metavar=metavar, **more)


INPUT, OUTPUT = "Input", "Output"  # panels of the help

Texts = Annotated[list[str] | None, typer.Argument(help="Texts; none, and no --file: the lines of stdin.")]
ModelFlag = Annotated[str | None, _option("NAME, which is its newest version, or NAME@VERSION; unset: as for `serve`.")]
PrecisionFlag = Annotated[str | None, _option("fast: quicker where the model has it.", metavar="CHOICE")]
ThreadsFlag = Annotated[int | None, _option("Batches at once; unset: one a core.", None, "INTEGER", min=1, max=256)]

FileFlag = Annotated[Path | None, _option("A .txt, .csv, .tsv or .jsonl file, .gz or not; - is stdin.", INPUT, "PATH")]
KindFlag = Annotated[str | None, _option("txt, csv, tsv or jsonl; unset: by the ending of --file.", INPUT, "CHOICE")]
TextFlag = Annotated[str, _option("Column of the text.", INPUT)]
PairFlag = Annotated[str | None, _option("Column of the second text, for a model that reads pairs.", INPUT)]
KeepFlag = Annotated[list[str] | None, _option("Column that answers repeat, such as an id; several times.", INPUT)]

OutFlag = Annotated[Path | None, _option("File for the answers, .gz or not; unset: stdout.", OUTPUT, "PATH")]
OverwriteFlag = Annotated[bool, typer.Option("--overwrite", help="Replace that file.", rich_help_panel=OUTPUT)]
FormatFlag = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="jsonl or csv; unset: by the ending of --out, else jsonl.",
        rich_help_panel=OUTPUT,
        metavar="CHOICE",
    ),
]
TopFlag = Annotated[int | None, _option("Only so many scores, the best first.", OUTPUT, "INTEGER", min=1)]


@dataclass(frozen=True, slots=True)
class Input:
    """What is classified: texts, or a file, or else the lines of stdin as they come."""

    texts: Sequence[str]
    file: Path | None
    kind: str | None
    columns: "Columns"


@dataclass(frozen=True, slots=True)
class Output:
    """Where answers go, and as what."""

    path: Path | None
    overwrite: bool
    format: str
    top_k: int | None


def classify(
    texts: Texts = None,
    model: ModelFlag = None,
    models: ModelsFlag = None,
    precision: PrecisionFlag = None,
    threads: ThreadsFlag = None,
    file: FileFlag = None,
    input_format: KindFlag = None,
    text_column: TextFlag = "text",
    pair_column: PairFlag = None,
    keep: KeepFlag = None,
    out: OutFlag = None,
    overwrite: OverwriteFlag = False,
    output_format: FormatFlag = None,
    top_k: TopFlag = None,
) -> None:
    """Classify texts without a server: answers in the order of the input, one a line."""
    from service.offline.reading import Columns
    from service.offline.writing import FORMATS, Shape, format_of

    given = Input(texts or (), file, input_format, Columns(text_column, pair_column, tuple(keep or ())))
    wanted = Output(out, overwrite, output_format or format_of(out), top_k)
    _check(given, wanted)
    settings = load({"models": models, "default": model, "precision": precision}, os.environ).settings
    bundle = _open(settings)
    _check_fits(bundle, given.columns.pair, top_k)
    from service.offline.scoring import Scorer

    columns = given.columns.all if file else ("text",)
    head, render = FORMATS[wanted.format](Shape(columns, bundle.manifest.labels, bundle.meaning, top_k))
    # Where both are a terminal, the answers themselves show how far we are.
    watched = sys.stderr.isatty() and (out is not None or not sys.stdout.isatty())
    with Scorer(bundle, threads or cores()) as scorer, _opened(wanted) as stream:
        _write(_answers(scorer, given, watched=watched), stream, head, render)


def _check(given: Input, wanted: Output) -> None:
    """What can be refused is refused before anything is opened."""
    from service.offline.reading import READERS, check_file
    from service.offline.writing import FORMATS, check_new

    if given.texts and given.file:
        raise Misused("texts and --file: give one of them")
    if given.file is None and (given.kind or given.columns.pair or given.columns.kept):
        raise Misused("--input-format, --pair-column and --keep are for files; name one with --file (- is stdin)")
    _check_one_of("--format", wanted.format, FORMATS)
    _check_one_of("--input-format", given.kind or "txt", READERS)
    if given.file and given.file != STDIN:
        check_file(given.file, given.kind)
    if wanted.path:
        check_new(wanted.path, overwrite=wanted.overwrite)


def _check_one_of(flag: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        raise Misused(f"{flag} {value}: unknown; use one of {', '.join(known)}")


def _check_fits(bundle: "OpenBundle", pair: str | None, top_k: int | None) -> None:
    from service.bundle.tasks import Choice

    if bundle.meaning.choice is Choice.ANSWER:
        raise Misused(f"{bundle.manifest.name} answers questions from texts: serve it, and ask /v1/answer")
    name, reads_pairs = bundle.manifest.name, bundle.manifest.texts == 2
    if reads_pairs and pair is None:
        raise Misused(f"{name} reads pairs of texts: name a file with --file, and the second column with --pair-column")
    if pair is not None and not reads_pairs:
        raise Misused(f"{name} reads single texts: leave --pair-column away")
    if top_k is not None and bundle.meaning.choice is Choice.SPANS:
        raise Misused(f"{name} marks entities and has no scores of labels: leave --top-k away")


def _open(settings: "Settings") -> "OpenBundle":
    from service.bundle.store import read_manifest
    from service.catalogue import choose_default, newest_bundles, open_place

    newest = newest_bundles(settings.models).values()
    name = choose_default(settings, [read_manifest(place.folder) for place in newest])
    # Many runs of one thread each are quicker than one after the other of many.
    alone = settings.model_copy(update={"student_threads": 1, "teacher_threads": 1})
    return open_place(places_of([name], settings.models)[0], alone)


def _answers(scorer: "Scorer", given: Input, *, watched: bool) -> "Iterator[Iterable[Answer]]":
    """In groups; each is to be seen before the next is waited for."""
    from service.offline.reading import arriving, from_stream, open_file
    from service.offline.records import Record

    stdin = cast("io.BufferedReader", sys.stdin.buffer)
    if given.file is None and not given.texts:
        for lines in arriving(stdin):
            yield scorer.answers(lines, "stdin")
    elif given.file is None:
        # Bytes that are no UTF-8 arrive as surrogates, which no tokenizer takes.
        texts = (text.encode(errors="surrogateescape").decode(errors="replace") for text in given.texts)
        yield scorer.answers([Record(place, text) for place, text in enumerate(texts, start=1)], "text")
    else:
        with from_stream(stdin, given.kind) if given.file == STDIN else open_file(given.file, given.kind) as source:
            answers = scorer.answers(source.records(given.columns), source.name)
            yield _watched(answers, source) if watched else answers


def _watched(answers: "Iterator[Answer]", source: "Source") -> "Iterator[Answer]":
    """The same, with a bar on stderr: how much of the file was read, and how many rows were answered."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.fields[rows]:,} rows"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=source.size, rows=0)
        rows = 0
        for rows, answer in enumerate(answers, start=1):
            yield answer
            if rows % ROWS_A_LOOK == 0:
                bar.update(task, rows=rows, completed=source.position)
        bar.update(task, rows=rows, completed=source.position)


@contextmanager
def _opened(wanted: Output) -> "Iterator[TextIO]":
    from service.offline.writing import new_file

    if wanted.path:
        with new_file(wanted.path, overwrite=wanted.overwrite) as stream:
            yield stream
    else:
        cast("io.TextIOWrapper", sys.stdout).reconfigure(encoding="utf-8", newline="\n")  # data, whatever the locale
        yield sys.stdout


def _write(groups: "Iterable[Iterable[Answer]]", stream: "TextIO", head: str, render: "Render") -> None:
    stream.write(head)
    for group in groups:
        for answer in group:
            stream.write(render(answer))
        stream.flush()
