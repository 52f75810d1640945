"""`python -m export`: teach · distill · adopt · evaluate. Exit codes: 0 done, 1 failed, 2 unusable input, 3 bad bundle,
130 interrupted (run the same command again to go on)."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from export.errors import ExportError
from export.progress import console
from service.bundle.errors import BundleError
from service.bundle.manifest import Precision

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Make students out of teachers.")

INTERRUPTED = 130

Overrides = Annotated[list[str], typer.Option("--set", help="override the recipe: table.key=value; repeatable")]
Work = Annotated[Path, typer.Option(help="checkpoints and the teacher's cached logits")]
Models = Annotated[Path, typer.Option(help="the repository of bundles to publish into")]
Recipe = Annotated[Path, typer.Argument(help="a recipe, TOML")]
TextColumn = Annotated[str, typer.Option(help="the column of the text")]
LabelColumn = Annotated[str, typer.Option(help="the column of the label")]


@app.command()
def teach(recipe: Recipe, out: Annotated[Path, typer.Option()], overrides: Overrides = []) -> None:  # noqa: B006
    """Fine-tune an encoder (hub id or folder) on labelled data; the teacher lies in --out."""
    from export.recipe import TeachRecipe, read_recipe

    wanted = read_recipe(TeachRecipe, recipe, overrides)  # before torch is loaded: a slip is answered at once
    from export.teacher import fine_tune

    _done("teacher", fine_tune(wanted, out))


@app.command()
def distill(
    recipe: Recipe,
    overrides: Overrides = [],  # noqa: B006
    work: Work = Path("runs"),
    models: Models = Path("models"),
) -> None:
    """Distil a student from its teacher and publish it as a bundle."""
    from export.recipe import DistillRecipe, read_recipe

    wanted = read_recipe(DistillRecipe, recipe, overrides)
    from export.pipeline import Places, distill

    folder = distill(wanted, Places(work, models), _command())
    _done("student", folder)


@app.command()
def adopt(
    model: Annotated[str, typer.Argument(help="a fine-tuned classifier: hub id or folder")],
    name: Annotated[str, typer.Option(help="the bundle's name")],
    dev: Annotated[str, typer.Option(help="data to measure it on; labelled, if it chooses one label")],
    version: Annotated[int, typer.Option(help="the bundle's version")] = 1,
    text: TextColumn = "text",
    label: LabelColumn = "label",
    models: Models = Path("models"),
) -> None:
    """Publish a Hugging Face classifier as a teacher bundle."""
    from export.datasets import Columns
    from export.pipeline import adopt

    folder = adopt(model, name, version, dev, Columns(text, label), models, _command())
    _done("teacher", folder)


@app.command()
def randomise(
    model: Annotated[str, typer.Argument(help="hub id or folder with config.json and a tokenizer")],
    out: Annotated[Path, typer.Option(help="where the random classifier goes")],
    labels: Annotated[str, typer.Option(help="comma separated")] = "negative,positive",
) -> None:
    """Make a classifier of this shape with random weights, to time it: `adopt` it afterwards."""
    from export.pipeline import random_teacher

    _done("random classifier", random_teacher(model, tuple(labels.split(",")), out))


@app.command()
def evaluate(
    bundle: Annotated[Path, typer.Argument(help="models/<name>/<version>")],
    data: Annotated[str, typer.Argument(help="labelled data that nothing was selected with")],
    teacher: Annotated[Path | None, typer.Option(help="the teacher's bundle, for the agreement")] = None,
    precision: Annotated[Precision, typer.Option()] = Precision.EXACT,
    text: TextColumn = "text",
    label: LabelColumn = "label",
) -> None:
    """Print a bundle's accuracy, macro-F1 and agreement with its teacher."""
    from rich.table import Table
    from rich.text import Text

    from export.datasets import Columns
    from export.evaluation import evaluate

    found = evaluate(bundle, precision, data, Columns(text, label), teacher)
    title = Text(f"{bundle} ({precision}), {found.rows} rows of {data}")  # in a str, rich reads a path's [] as markup
    table = Table("metric", "value", title=title)
    agreement = {} if found.agreement is None else {"agreement with the teacher": found.agreement}
    for name, value in (found.metrics | agreement).items():
        table.add_row(name, f"{value:.4f}")
    console.__class__().print(table)


@app.command()
def results(models: Annotated[Path, typer.Argument(help="a repository of bundles")]) -> None:
    """Print what was measured of each bundle when it was published, as a Markdown table."""
    from export.card import results_table
    from service.bundle.store import find_bundles, read_manifest

    for line in results_table([read_manifest(found.folder) for found in find_bundles(models)]):
        typer.echo(line)


def _done(what: str, place: Path) -> None:
    console.print(f"{what}: {place}", markup=False, highlight=False, soft_wrap=True)  # a path stays on one line


def _command() -> str:
    return shlex.join(["python", "-m", "export", *sys.argv[1:]])


def main(run: Callable[[], None] = app) -> None:
    """Run a command; what the user can mend is one line on standard error."""
    try:
        run()
    except ExportError as error:
        _fail(error, 2)
    except BundleError as error:
        _fail(error, 3)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:  # what typer makes of a KeyboardInterrupt
            _fail("interrupted; run the same command again to go on", INTERRUPTED)
        raise


def _fail(reason: object, code: int) -> None:
    sys.stderr.write(f"export: {reason}\n")
    raise SystemExit(code)


if __name__ == "__main__":
    main()
