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

    from service.bundle.manifest import SealedManifest
    from service.bundle.runtime import OpenBundle
    from service.offline.reading import Columns, Source
    from service.offline.records import Answer
    from service.offline.scoring import Scorer
    from service.offline.writing import Render
    from service.settings import Settings

STDIN = Path("-")
LONGEST_NAME = 255
"""Of a file, in most systems."""

ROWS_A_LOOK = 256
"""After so many rows the bar is brought up to date."""


def _option(help: str, panel: str | None = None, metavar: str = "TEXT", **more: Any) -> Any:
    return typer.Option(help=help, rich_help_panel=panel, metavar=metavar, **more)


INPUT, OUTPUT, BULK = "Input", "Output", "Big files, with --out FOLDER/"  # panels of the help

Texts = Annotated[
    list[str] | None,
    typer.Argument(help="Texts; none, and no --file: stdin's lines. With --out FOLDER/: files, folders, patterns."),
]
ModelFlag = Annotated[str | None, _option("NAME, which is its newest version, or NAME@VERSION; unset: as for `serve`.")]
PrecisionFlag = Annotated[str | None, _option("fast: quicker where the model has it.", metavar="CHOICE")]
ThreadsFlag = Annotated[int | None, _option("Batches at once; unset: one a core.", None, "INTEGER", min=1, max=256)]

FileFlag = Annotated[Path | None, _option("A .txt, .csv, .tsv or .jsonl file, .gz or not; - is stdin.", INPUT, "PATH")]
KindFlag = Annotated[str | None, _option("txt, csv, tsv or jsonl; unset: by the ending of the file.", INPUT, "CHOICE")]
TextFlag = Annotated[str, _option("Column of the text, or of the question.", INPUT)]
PairFlag = Annotated[str | None, _option("Column of the second text, for a model that reads pairs.", INPUT)]
KeepFlag = Annotated[list[str] | None, _option("Column that answers repeat, such as an id; several times.", INPUT)]

OutFlag = Annotated[
    str | None,
    _option("File for the answers, .gz or not; unset: stdout. FOLDER/: parts, for big files.", OUTPUT, "PATH"),
]
OverwriteFlag = Annotated[
    bool, typer.Option("--overwrite", help="Replace that file, or begin that folder anew.", rich_help_panel=OUTPUT)
]
FormatFlag = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="jsonl, csv, in folders parquet too; unset: by the ending of --out, a folder's input; else jsonl.",
        rich_help_panel=OUTPUT,
        metavar="CHOICE",
    ),
]
TopFlag = Annotated[
    int | None, _option("Only so many scores, or so many answers, the best first.", OUTPUT, "INTEGER", min=1)
]

EngineFlag = Annotated[  # not the setting of that name, which says what runs the model: UNDERSTUDY_ENGINE does here
    str | None,
    typer.Option(
        "--engine",
        help="local: processes of this machine (default); ray: a Ray cluster.",
        rich_help_panel=BULK,
        metavar="CHOICE",
    ),
]
RayFlag = Annotated[str | None, _option("Of its head, as for `ray.init`; unset: as Ray finds one, or starts it.", BULK)]
BadFlag = Annotated[
    str | None, _option("stop at the first (default); reject: write them to _rejects-*.jsonl.", BULK, "CHOICE")
]
PartFlag = Annotated[
    int | None, _option("Of each part (default: 65,536); who is killed loses those begun.", BULK, "INTEGER", min=1)
]


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
    format: str | None
    top_k: int | None


@dataclass(frozen=True, slots=True)
class Work:
    """How a big file is done; what is unset is as it is by default, and all is unset where there is none."""

    engine: str | None
    ray_address: str | None
    bad_rows: str | None
    part_rows: int | None


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
    done_by: EngineFlag = None,
    ray_address: RayFlag = None,
    bad_rows: BadFlag = None,
    part_rows: PartFlag = None,
) -> None:
    """Classify texts without a server: answers in the order of the input, one a line. Big files go into a folder of
    parts, --out FOLDER/; there the same command goes on where it was stopped or killed."""
    from service.offline.reading import Columns

    given = Input(texts or (), file, input_format, Columns(text_column, pair_column, tuple(keep or ())))
    wanted = Output(Path(out) if out else None, overwrite, output_format, top_k)
    work = Work(done_by, ray_address, bad_rows, part_rows)
    settings = load({"models": models, "default": model, "precision": precision}, os.environ).settings
    if out and (out.endswith(os.sep) or Path(out).is_dir()):
        from service.commands.bulk import classify_folder

        classify_folder(given, wanted, work, settings, threads)
    else:
        _check_no_folder(given, work)
        _classify_stream(given, wanted, settings, threads or cores())


def _classify_stream(given: Input, wanted: Output, settings: "Settings", threads: int) -> None:
    """Into one file, or to stdout."""
    from service.offline.writing import FORMATS, Shape, format_of

    kind = wanted.format or format_of(wanted.path)
    _check(given, wanted, kind)
    bundle = open_chosen(settings)
    check_fits(bundle.manifest, given.columns.pair, wanted.top_k)
    from service.bundle.passages import Search
    from service.offline.scoring import Scorer

    columns = given.columns.all if given.file else ("text",)
    head, render = FORMATS[kind](Shape(columns, bundle.manifest.labels, bundle.meaning, wanted.top_k))
    # Where both are a terminal, the answers themselves show how far we are.
    watched = sys.stderr.isatty() and (wanted.path is not None or not sys.stdout.isatty())
    with Scorer(bundle, threads, search=Search(wanted.top_k or 1)) as scorer, _opened(wanted) as stream:
        _write(_answers(scorer, given, watched=watched), stream, head, render)


def _check_no_folder(given: Input, work: Work) -> None:
    """What only a folder can be the answer to."""
    from service.offline.reading import READERS, kind_of

    if work != Work(None, None, None, None):
        raise Misused("--engine, --ray-address, --bad-rows and --part-rows are for big files: give --out FOLDER/")
    for text in given.texts:
        known = len(text) < LONGEST_NAME and kind_of(Path(text)) in (*READERS, "parquet")
        if known and Path(text).is_file():
            raise Misused(f"{text}: a file, not a text; give --out FOLDER/, or name it with --file")


def _check(given: Input, wanted: Output, kind: str) -> None:
    """What can be refused is refused before anything is opened."""
    from service.offline.reading import READERS, check_file
    from service.offline.writing import FORMATS, check_new

    if given.texts and given.file:
        raise Misused("texts and --file: give one of them")
    if given.file is None and (given.kind or given.columns.pair or given.columns.kept):
        raise Misused("--input-format, --pair-column and --keep are for files; name one with --file (- is stdin)")
    check_one_of("--format", kind, FORMATS)
    check_one_of("--input-format", given.kind or "txt", READERS)
    if given.file and given.file != STDIN:
        check_file(given.file, given.kind)
    if wanted.path:
        check_new(wanted.path, overwrite=wanted.overwrite)


def check_one_of(flag: str, value: str, known: Iterable[str]) -> None:
    """Refuse what is none of these."""
    if value not in known:
        raise Misused(f"{flag} {value}: unknown; use one of {', '.join(known)}")


def check_fits(manifest: "SealedManifest", pair: str | None, top_k: int | None) -> None:
    """Refuse what this model cannot be asked."""
    from service.bundle.tasks import TASKS, Choice

    choice, name, reads_pairs = TASKS[manifest.task].choice, manifest.name, manifest.texts == 2
    if choice is Choice.ANSWER and pair is None:
        raise Misused(f"{name} answers questions: name a file with --file, and --text-column and --pair-column of it")
    if reads_pairs and pair is None:
        raise Misused(f"{name} reads pairs of texts: name a file with --file, and the second column with --pair-column")
    if pair is not None and not reads_pairs:
        raise Misused(f"{name} reads single texts: leave --pair-column away")
    if top_k is not None and choice is Choice.SPANS:
        raise Misused(f"{name} marks entities and has no scores of labels: leave --top-k away")


def open_chosen(settings: "Settings") -> "OpenBundle":
    """The bundle that answers."""
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
