"""`classify` into one file, or to stdout: answers in the order of the input, each as soon as it is there."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from service.commands.asked import STDIN, Input, Output, Work, check_fits, check_one_of, open_chosen
from service.commands.terminal import Misused

if TYPE_CHECKING:
    import io
    from typing import TextIO

    from service.offline.reading import Source
    from service.offline.records import Answer
    from service.offline.scoring import Scorer
    from service.offline.writing import Render
    from service.settings import Settings

LONGEST_NAME = 255
"""Of a file, in most systems."""

ROWS_A_LOOK = 256
"""After so many rows the bar is brought up to date."""


def classify_stream(given: Input, wanted: Output, settings: "Settings", threads: int) -> None:
    """Score what was given, and write it."""
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


def check_no_folder(given: Input, work: Work) -> None:
    """What only a folder can be the answer to."""
    from service.offline.lines import SPLITS
    from service.offline.reading import kind_of

    if work != Work(None, None, None, None):
        raise Misused("--engine, --ray-address, --bad-rows and --part-rows are for big files: give --out FOLDER/")
    for text in given.texts:
        known = len(text) < LONGEST_NAME and kind_of(Path(text)) in (*SPLITS, "parquet")
        if known and Path(text).is_file():
            raise Misused(f"{text}: a file, not a text; give --out FOLDER/, or name it with --file")


def _check(given: Input, wanted: Output, kind: str) -> None:
    """What can be refused is refused before anything is opened."""
    from service.offline.lines import SPLITS
    from service.offline.reading import check_file
    from service.offline.writing import FORMATS, check_new

    if given.texts and given.file:
        raise Misused("texts and --file: give one of them")
    if given.file is None and (given.kind or given.columns.pair or given.columns.kept):
        raise Misused("--input-format, --pair-column and --keep are for files; name one with --file (- is stdin)")
    check_one_of("--format", kind, FORMATS)
    check_one_of("--input-format", given.kind or "txt", SPLITS)
    if given.file and given.file != STDIN:
        check_file(given.file, given.kind)
    if wanted.path:
        check_new(wanted.path, overwrite=wanted.overwrite)


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
