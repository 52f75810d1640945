"""`classify … --out FOLDER/`: big files into parts, on this machine or a cluster, begun anew or gone on with."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from service.bundle.runtime import OpenBundle
from service.commands.asked import STDIN, Input, Output, Work, check_fits, check_one_of, open_chosen
from service.commands.terminal import Failed, Misused, complain, say
from service.host.cores import cores
from service.offline.bulk.crew import WorkerLost, run_here
from service.offline.bulk.parts import KINDS, PARQUET, need_parquet
from service.offline.bulk.plan import PART_ROWS, InputFile, Receipt, Request, Total
from service.offline.bulk.running import Engine, Place, Run, begin
from service.offline.bulk.survey import KINDS as INPUT_KINDS
from service.offline.bulk.survey import find_files
from service.offline.writing import Shape
from service.settings import Settings

if TYPE_CHECKING:
    from rich.progress import Progress

ENGINES = ("local", "ray")
STOP, REJECT = "stop", "reject"
TABLES = {"csv": "csv", "tsv": "csv", PARQUET: PARQUET}
"""Kind of input -> what its parts are, if nothing else is said; of all others JSON lines."""


def classify_folder(given: Input, wanted: Output, work: Work, settings: Settings, threads: int | None) -> None:
    """Score all rows of the files into the folder, and say how many."""
    _check(given, wanted, work)
    files = find_files([str(given.file)] if given.file else given.texts, given.kind)
    bundle = open_chosen(settings)
    manifest = bundle.manifest
    check_fits(manifest, given.columns.pair, wanted.top_k)
    request = _request(given, wanted, work, files, bundle)
    Shape(given.columns.all, manifest.labels, bundle.meaning, wanted.top_k)  # names that clash are refused
    assert wanted.path is not None  # a folder was named
    place = Place(wanted.path, bundle.folder, settings.device, settings.isa, work.bad_rows == REJECT, wanted.overwrite)
    del bundle  # each process opens one of its own
    with begin(request, place) as run:
        total = _run(run, _engine(work, threads))
    rejected = f", {total.rejected:,} rejected" if total.rejected else ""
    say(f"{total.read:,} rows: {total.scored:,} scored{rejected}; {len(run.plan.spans):,} parts in {wanted.path}")


def _check(given: Input, wanted: Output, work: Work) -> None:
    if given.texts and given.file:
        raise Misused("files and --file: give one of them")
    if given.file == STDIN or not (given.texts or given.file):
        raise Misused("--out FOLDER/ is for files, so that it can go on with them: name some; a pipe goes to one file")
    check_one_of("--input-format", given.kind or PARQUET, INPUT_KINDS)
    check_one_of("--format", wanted.format or PARQUET, KINDS)
    check_one_of("--engine", work.engine or ENGINES[0], ENGINES)
    check_one_of("--bad-rows", work.bad_rows or STOP, (STOP, REJECT))
    if work.ray_address and work.engine != "ray":
        raise Misused("--ray-address is for --engine ray")
    if wanted.format == PARQUET:
        need_parquet("--format parquet")


def _request(
    given: Input,
    wanted: Output,
    work: Work,
    files: tuple[InputFile, ...],
    bundle: OpenBundle,
) -> Request:
    manifest = bundle.manifest
    kinds = {TABLES.get(file.kind, "jsonl") for file in files}
    if wanted.format is None and len(kinds) > 1:
        raise Misused(f"the files are of several kinds: choose with --format one of {', '.join(KINDS)}")
    return Request(
        files=files,
        model=f"{manifest.name}@{manifest.version}",
        seal=manifest.seal,
        precision=bundle.precision,
        engine=bundle.chosen.engine,
        text=given.columns.text,
        pair=given.columns.pair,
        kept=given.columns.kept,
        format=wanted.format or kinds.pop(),
        top_k=wanted.top_k,
        part_rows=work.part_rows or PART_ROWS,
    )


def _engine(work: Work, threads: int | None) -> Engine:
    if work.engine != "ray":
        return partial(run_here, processes=threads or cores())
    from service.offline.bulk.cluster import ray_engine

    return ray_engine(work.ray_address, threads)


def _run(run: Run, engine: Engine) -> Total:
    done = len(run.done)
    try:
        for receipt in _watched(run, run.receipts(engine)):
            done += receipt.read >= 0
        return run.finish()
    except WorkerLost as error:
        raise Failed(str(error)) from error
    except (SystemExit, KeyboardInterrupt):
        complain(f"stopped: {done} of {len(run.plan.spans)} parts are complete; the same command goes on")
        raise


def _watched(run: Run, receipts: Iterator[Receipt]) -> Iterator[Receipt]:
    """The same, with a bar on a terminal."""
    with _bar() as bar:
        before = Total.of(run.done).read
        task = bar.add_task("", total=run.plan.rows, completed=before)
        for receipt in receipts:
            bar.update(task, advance=receipt.read)
            yield receipt


@contextmanager
def _bar() -> "Iterator[Progress]":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    columns = (MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        yield bar
