"""`python -m export`: init · pretrain · teach · distill · adopt · evaluate · calibrate · promote and more.

Exit codes: 0 done, 1 failed, 2 unusable input, 3 bad bundle, 4 what was measured is not enough and nothing changed,
130 interrupted (run the same command again to go on).
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from export.errors import ExportError, OptionError, Unmet
from export.networks.pooling import Pooled
from export.options import (
    Engine,
    EngineOption,
    LabelColumn,
    Models,
    Overrides,
    PairColumn,
    RayAddress,
    Recipe,
    Relabel,
    Rename,
    Repair,
    SecondColumn,
    TextColumn,
    Work,
    cluster_of,
    command_line,
    relabelled,
)
from export.progress import console, print_done, print_table
from service.bundle.errors import BundleError
from service.bundle.manifest import Precision, Role, Task
from service.release import ShowRelease

app = typer.Typer(add_completion=False, no_args_is_help=True)

INTERRUPTED = 130


@app.callback()
def export(version: ShowRelease = False) -> None:
    """Make students out of teachers."""


@app.command()
def init(
    data: Annotated[str, typer.Argument(help="labelled rows: CSV, TSV, JSONL or CoNLL (.gz too), or hub:NAME?split=…")],
    name: Annotated[str, typer.Option(help="of the recipes and of the student")] = "student",
    dev: Annotated[str | None, typer.Option(help="rows that select; unset: a tenth of DATA")] = None,
    unlabelled: Annotated[list[str], typer.Option(help="texts of the same kind without labels; repeatable")] = [],  # noqa: B006
    teacher: Annotated[str | None, typer.Option(help="an encoder to fine-tune: hub id or folder")] = None,
    fine_tuned: Annotated[
        str | None, typer.Option(help="a teacher that knows the labels already: hub id, folder or bundle")
    ] = None,
    text: Annotated[str | None, typer.Option(help="the column of the text; unset: guessed, like all columns")] = None,
    pair: PairColumn = None,
    label: Annotated[str | None, typer.Option(help="the column of the label")] = None,
    task: Annotated[Task | None, typer.Option(help="unset: guessed from the labels")] = None,
    rename: Rename = [],  # noqa: B006
    into: Annotated[Path, typer.Option(help="the folder of the recipes")] = Path(),
) -> None:
    """Look at one's own data and write two commented recipes for it: of a teacher, and of its student."""
    from export.starter import TEACHER, Wishes, start
    from export.survey import Chosen, survey

    if teacher and fine_tuned:
        raise OptionError("--teacher and --fine-tuned: name one, an encoder to fine-tune or one that knows the task")
    if rename and not fine_tuned:
        raise OptionError("--rename: says what a --fine-tuned teacher calls the labels; name one")
    seen, others = survey(data, Chosen(text, pair, label, task), dev), relabelled(rename, "--rename")
    if fine_tuned:
        from export.teachers.labels import as_known

        seen = as_known(seen, fine_tuned, others)
    wishes = Wishes(name, fine_tuned or teacher or TEACHER, fine_tuned is not None, dev, tuple(unlabelled), others)
    started = start(seen, wishes, into)
    print_table(data, seen.table(), "found")
    for warning in started.warnings:
        console.print(f"note: {warning}", markup=False, highlight=False, soft_wrap=True)
    for file in started.files:
        print_done("written", file)
    for command in started.commands:
        console.print(f"next: {command}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def pretrain(
    recipe: Recipe,
    out: Annotated[Path, typer.Option(help="the folder where the encoder goes")],
    overrides: Overrides = [],  # noqa: B006
    work: Work = Path("runs"),
    engine: EngineOption = Engine.LOCAL,
    ray_address: RayAddress = None,
) -> None:
    """Make a smaller encoder of a larger one on plain text, for no task in particular: `teach` begins with one of
    chen2021, `distill` with one of wu2020."""
    from export.recipe import ExtractRecipe, read_pretraining

    wanted = read_pretraining(recipe, overrides)
    cluster = cluster_of(engine, ray_address)
    if isinstance(wanted, ExtractRecipe):
        if cluster:
            raise OptionError("--engine ray: chen2021 asks its teacher at each step; only wu2020's is asked beforehand")
        from export.pretraining import pretrain

        print_done("encoder", pretrain(wanted, out, work))
    else:
        from export.approximation import approximate

        print_done("encoder", approximate(wanted, out, work, cluster))


@app.command()
def saving(
    beside: Annotated[Path, typer.Argument(help="an encoder of `pretrain` that began with random weights")],
    runs: Annotated[list[Path], typer.Argument(help="encoders of the same shape that were extracted")],
    plot: Annotated[Path | None, typer.Option(help="an SVG of the curves; needs the extra `report`")] = None,
) -> None:
    """Print how much computing extraction saved (chen2021), and draw loss against computing."""
    from export.saving import check_alike, draw, read_run, table

    check_alike(beside, runs)
    first, others = read_run(beside), [read_run(folder) for folder in runs]
    for line in table(others, first):
        typer.echo(line)
    if plot:
        draw([first, *others], plot)


@app.command()
def teach(recipe: Recipe, out: Annotated[Path, typer.Option()], overrides: Overrides = []) -> None:  # noqa: B006
    """Fine-tune an encoder (hub id or folder) on labelled data; the teacher lies in --out."""
    from export.recipe import TeachRecipe, read_recipe

    wanted = read_recipe(TeachRecipe, recipe, overrides)  # before torch is loaded: a slip is answered at once
    from export.learning.fine_tuning import fine_tune

    print_done("teacher", fine_tune(wanted, out))


@app.command()
def distill(
    recipe: Recipe,
    overrides: Overrides = [],  # noqa: B006
    transfer: Annotated[
        list[str], typer.Option(help="more unlabelled texts, such as a service's capture.db; repeatable")
    ] = [],  # noqa: B006
    work: Work = Path("runs"),
    models: Models = Path("models"),
    engine: EngineOption = Engine.LOCAL,
    ray_address: RayAddress = None,
) -> None:
    """Distil a student from its teacher and publish it as a bundle."""
    from export.recipe import DistillRecipe, read_recipe

    wanted = read_recipe(DistillRecipe, recipe, overrides).with_texts(transfer)
    cluster = cluster_of(engine, ray_address)
    from export.pipeline import Places, distill

    folder = distill(wanted, Places(work, models), command_line(), cluster)
    print_done("student", folder)


@app.command()
def adopt(
    model: Annotated[str, typer.Argument(help="a fine-tuned classifier: hub id or folder")],
    name: Annotated[str, typer.Option(help="the bundle's name")],
    dev: Annotated[list[str], typer.Option(help="labelled data to measure it on; repeatable")],
    version: Annotated[int, typer.Option(help="the bundle's version")] = 1,
    text: Annotated[str | None, typer.Option(help="its column; unset, like others: as `teach` had it, or text")] = None,
    label: Annotated[str | None, typer.Option(help="the column of the label")] = None,
    pair: PairColumn = None,
    relabel: Relabel = [],  # noqa: B006
    repair: Repair = False,
    rename: Rename = [],  # noqa: B006
    pooling: Annotated[
        Pooled | None, typer.Option(help="of an encoder without a head: publish the vectors of texts that it makes")
    ] = None,
    role: Annotated[Role, typer.Option(help="student: a small one, to be served beside a teacher")] = Role.TEACHER,
    models: Models = Path("models"),
) -> None:
    """Publish a Hugging Face classifier as a bundle; or an encoder, which makes vectors of texts."""
    from export.beginnings.encoders import is_encoder
    from export.publishing.publish import Called
    from export.texts.datasets import Columns

    called = Called(name, version, role, relabelled(rename, "--rename"))
    if pooling is not None or is_encoder(model):
        from export.publishing.vectors import adopt_vectors

        likeness = Columns(text or "text", label or "label", pair)
        folder = adopt_vectors(model, called, tuple(dev), likeness, pooling or Pooled.MEAN, models, command_line())
        return print_done("encoder", folder)
    from export.learning.fine_tuning import taught_columns
    from export.pipeline import Judged, adopt

    columns = taught_columns(model, text=text, label=label, pair=pair, relabel=relabelled(relabel), repair=repair)
    folder = adopt(model, called, Judged(tuple(dev), columns, label is not None), models, command_line())
    print_done(role, folder)


@app.command()
def shape(
    shape: Annotated[str, typer.Argument(help="bert-base, bert-large, or LAYERSxHIDDENxHEADSxINTERMEDIATE")],
    like: Annotated[Path, typer.Option(help="a teacher's bundle: its tokenizer, labels and length are taken")],
    version: Annotated[int, typer.Option(help="the bundle's version")] = 1,
    models: Annotated[Path, typer.Option(help="where it goes; not among the models that are served")] = Path(
        "runs/shapes"
    ),
) -> None:
    """Publish a BERT of this shape with random weights, for `python -m service bench pair --shape`."""
    from export.publishing.shape import shape_bundle

    print_done("random classifier", shape_bundle(shape, like, version, models, command_line()))


@app.command()
def evaluate(
    bundle: Annotated[Path, typer.Argument(help="models/<name>/<version>")],
    data: Annotated[list[str], typer.Argument(help="labelled data that nothing was selected with; each by itself")],
    teacher: Annotated[Path | None, typer.Option(help="the teacher's bundle, for the agreement")] = None,
    precision: Annotated[Precision, typer.Option()] = Precision.EXACT,
    text: TextColumn = "text",
    label: LabelColumn = "label",
    pair: PairColumn = None,
    relabel: Relabel = [],  # noqa: B006
    repair: Repair = False,
) -> None:
    """Print a bundle's metrics and its agreement with its teacher; of several data sets also their mean and spread."""
    from export.measuring.evaluation import evaluate_each, side_by_side
    from export.texts.datasets import Columns

    columns = Columns(text, label, pair, relabelled(relabel), repair)
    found = list(evaluate_each(bundle, precision, data, columns, teacher))
    if len(found) == 1:
        values = {name: f"{value:.4f}" for name, value in found[0].values().items()}
        print_table(f"{bundle} ({precision}), {found[0].rows} rows of {data[0]}", values)
    else:
        for line in side_by_side(data, found):
            typer.echo(line)


@app.command()
def calibrate(
    bundle: Annotated[Path, typer.Argument(help="a student: models/<name>/<version>")],
    teacher: Annotated[Path, typer.Option(help="its teacher's bundle")],
    texts: Annotated[str, typer.Option(help="texts like those to come, that nothing was trained on; no labels")],
    text: TextColumn = "text",
    pair: SecondColumn = None,
    profile: Annotated[
        str | None, typer.Option(help="texts like those to come, for the watch over drift; unset: --texts")
    ] = None,
    target: Annotated[float, typer.Option(help="agreement that accepted answers must reach")] = 0.99,
    confidence: Annotated[float, typer.Option(help="of its lower bound, one-sided")] = 0.95,
    into: Annotated[str, typer.Option(help="the version to publish: a number, or next")] = "next",
    replace: Annotated[bool, typer.Option("--replace", help="change this version, which nobody serves yet")] = False,
) -> None:
    """Find how sure a student must be for its answer to be its teacher's; exit code 4 if it never is."""
    from export.measuring.calibrate import Source, measure
    from export.measuring.thresholds import Promise
    from export.publishing.reissue import Into, check_target, reissue

    promise, place = Promise(target, confidence), check_target(bundle, Into.SAME if replace else into)
    traffic = None if profile is None else Source(profile, text, pair)
    found = measure(bundle, teacher, Source(texts, text, pair), promise, traffic)
    print_done("calibrated", reissue(bundle, found, place))


@app.command()
def promote(
    bundle: Annotated[Path, typer.Argument(help="the new student, in a folder that is not served")],
    against: Annotated[Path, typer.Option(help="the old one, beside which it will lie: models/<name>/<version>")],
    teacher: Annotated[Path, typer.Option(help="their teacher's bundle")],
    texts: Annotated[str, typer.Option(help="texts like those to come that neither was trained on; no labels")],
    text: TextColumn = "text",
    pair: SecondColumn = None,
    min_gain: Annotated[float, typer.Option(help="share of rows by which the agreement must rise at least")] = 0.0,
    level: Annotated[float, typer.Option(help="the chance that is taken of promoting one that is no better")] = 0.05,
    precision: Annotated[Precision, typer.Option()] = Precision.EXACT,
) -> None:
    """Publish a new student if it agrees with the teacher more than the old one; exit code 4 if it does not."""
    from export.measuring.calibrate import Source
    from export.publishing.promote import Rule, check_place_for, compare, promote

    rule, target = Rule(level, min_gain), check_place_for(bundle, against)
    found = compare(bundle, against, teacher, Source(texts, text, pair), precision)
    print_table(f"{bundle} against {against}, {found.rows} rows of {texts}", found.table())
    print_done("promoted", promote(bundle, target, found, rule))


@app.command()
def cascade(
    bundle: Annotated[Path, typer.Argument(help="a calibrated student: models/<name>/<version>")],
    data: Annotated[str, typer.Argument(help="data that neither training nor calibration saw")],
    teacher: Annotated[Path, typer.Option(help="its teacher's bundle")],
    precision: Annotated[Precision, typer.Option()] = Precision.EXACT,
    unlabelled: Annotated[bool, typer.Option("--unlabelled", help="only the agreement is of interest")] = False,
    plot: Annotated[Path | None, typer.Option(help="an SVG of the curves; needs the extra `report`")] = None,
    text: TextColumn = "text",
    label: LabelColumn = "label",
    pair: PairColumn = None,
) -> None:
    """Print what student and teacher give together at the calibrated threshold, and draw it for every other."""
    from export.measuring.cascade import calibration_of, draw, summary
    from export.measuring.evaluation import answer_both
    from export.texts.datasets import Columns
    from service.bundle.store import read_manifest

    calibration = calibration_of(read_manifest(bundle), precision)
    answered = answer_both(bundle, precision, teacher, data, Columns(text, label, pair), labelled=not unlabelled)
    title = f"{bundle} ({precision}) beside {teacher}, {len(answered.student)} rows of {data}"
    print_table(title, summary(answered, calibration))
    if plot:
        draw(answered, calibration, title, plot)


@app.command()
def texts(
    source: Annotated[str, typer.Argument(help="a file, or hub:NAME?split=…")],
    text: TextColumn = "text",
    pair: PairColumn = None,
    sentences: Annotated[bool, typer.Option("--sentences", help="cut each document into sentences")] = False,
    treebank: Annotated[bool, typer.Option("--treebank", help="lower-case and split words as in SST-2")] = False,
    min_words: Annotated[int, typer.Option(min=1)] = 1,
    max_words: Annotated[int | None, typer.Option(min=1, help="longer texts are left out; unset: none is")] = None,
    skip: Annotated[int, typer.Option(min=0, help="documents to leave out at the start")] = 0,
    documents: Annotated[int | None, typer.Option(min=1, help="at most so many documents")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="at most so many texts")] = None,
) -> None:
    """Print a source's texts in the shape in which a recipe would take them, none twice, as JSON lines."""
    from export.texts.sentences import TextSource, shaped_rows

    if pair and sentences:
        raise OptionError("--sentences: a pair is not cut into sentences; leave it out, or --pair")
    shape = {
        "sentences": sentences,
        "treebank": treebank,
        "min_words": min_words,
        "max_words": None if max_words is None else max(min_words, max_words),
    }
    wanted = TextSource.model_validate(
        {"source": source, "column": text, "pair": pair, "skip": skip, "documents": documents, "limit": limit} | shape
    )
    for row in dict.fromkeys(shaped_rows(wanted)):
        named = {"text": row} if isinstance(row, str) else {"text": row[0], "text2": row[1]}
        typer.echo(json.dumps(named, ensure_ascii=False))


@app.command()
def results(models: Annotated[Path, typer.Argument(help="a repository of bundles")]) -> None:
    """Print what was measured of each bundle when it was published, as a Markdown table."""
    from export.publishing.card import results_table
    from service.bundle.store import find_bundles, read_manifest

    for line in results_table([read_manifest(found.folder) for found in find_bundles(models)]):
        typer.echo(line)


def main(run: Callable[[], None] = app) -> None:
    """Run a command; what the user can mend is one line on standard error."""
    console.quiet = os.environ.get("RANK", "0") != "0"  # of several processes the first speaks for all
    try:
        run()
    except Unmet as error:
        _fail(error, 4)
    except ExportError as error:
        _fail(error, 2)
    except BundleError as error:
        _fail(error, 3)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:  # what typer makes of a KeyboardInterrupt
            _fail("interrupted; run the same command again to go on", INTERRUPTED)
        raise


def _fail(reason: object, code: int) -> None:
    if not console.quiet:
        sys.stderr.write(f"export: {reason}\n")
    raise SystemExit(code)


if __name__ == "__main__":
    main()
