"""`classify`: texts, lines of stdin as they come, or whole files, without a server."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from service.commands.asked import Input, Output, Work
from service.commands.models import ModelsFlag
from service.environment import load
from service.host.cores import cores


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
    from service.offline.records import Columns

    given = Input(texts or (), file, input_format, Columns(text_column, pair_column, tuple(keep or ())))
    wanted = Output(Path(out) if out else None, overwrite, output_format, top_k)
    work = Work(done_by, ray_address, bad_rows, part_rows)
    settings = load({"models": models, "default": model, "precision": precision}, os.environ).settings
    if out and (out.endswith(os.sep) or Path(out).is_dir()):
        from service.commands.bulk import classify_folder

        classify_folder(given, wanted, work, settings, threads)
    else:
        from service.commands.stream import check_no_folder, classify_stream

        check_no_folder(given, work)
        classify_stream(given, wanted, settings, threads or cores())
