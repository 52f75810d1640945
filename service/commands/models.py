"""`models`: what lies in a folder of bundles: list them, show one, verify all."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.bundle.errors import BundleError
from service.commands.help import Command, CommandGroup
from service.commands.terminal import Code, say, show
from service.environment import load

if TYPE_CHECKING:
    from rich.console import RenderableType

    from service.bundle.manifest import SealedManifest
    from service.bundle.store import BundlePath

FEW = 8
"""More labels than this are counted where models stand in a list."""

ModelsFlag = Annotated[Path | None, typer.Option(help="Folder of bundles, <name>/<version>/.", metavar="PATH")]
JsonFlag = Annotated[bool, typer.Option("--json", help="For machines.")]


class _ListUnlessTold(CommandGroup):
    """`models` alone lists."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        told = args and (args[0] in ctx.help_option_names or not args[0].startswith("-"))
        return super().parse_args(ctx, args if told else ["list", *args])


app = typer.Typer(cls=_ListUnlessTold, help="List, show and verify the bundles of a folder.")


@dataclass(frozen=True, slots=True)
class Check:
    """What became of opening one graph of a bundle; without a precision, of the bundle as a whole."""

    model: str
    precision: str | None
    problem: str | None


@app.command("list", cls=Command)
def list_(models: ModelsFlag = None, as_json: JsonFlag = False) -> None:
    """List the bundles, with what was measured of them. What `models` alone does."""
    from service.bundle.store import find_bundles

    manifests = [_read(place) for place in find_bundles(_folder(models))]
    if as_json:
        # Without the proof, which is long and of no use to anyone but the reader of the bundle.
        listed = [manifest.model_dump(mode="json", exclude={"proof"}) for manifest in manifests]
        say(json.dumps(listed, indent=2, ensure_ascii=False))
    else:
        show(_listed(manifests))


@app.command("show", cls=Command)
def show_(
    model: Annotated[str, typer.Argument(help="NAME, which is its newest version, or NAME@VERSION.")],
    models: ModelsFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what the manifest of a bundle says, and the sizes of its files."""
    place = places_of([model], _folder(models))[0]
    manifest = _read(place)
    if as_json:
        say(manifest.model_dump_json(indent=2))
    else:
        show(*_shown(place, manifest))


@app.command(cls=Command)
def verify(
    names: Annotated[list[str] | None, typer.Argument(help="NAME or NAME@VERSION; none: every bundle.")] = None,
    models: ModelsFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Open bundles as the service would: digests, graphs, proofs. Goes on after a bad one, and then ends with 3."""
    from service.bundle.store import find_bundles

    folder = _folder(models)
    checks = []
    for place in places_of(names, folder) if names else find_bundles(folder):
        for check in _checks(place):
            checks.append(check)
            if not as_json:
                say(_said(check))
    if as_json:
        say(json.dumps([asdict(check) for check in checks], indent=2, ensure_ascii=False))
    if any(check.problem for check in checks):
        raise typer.Exit(Code.BUNDLE)


def _folder(models: Path | None) -> Path:
    return load({"models": models}, os.environ).settings.models


def _read(place: "BundlePath") -> "SealedManifest":
    from service.bundle.store import check_place, read_manifest

    manifest = read_manifest(place.folder)
    check_place(place.folder, manifest)
    return manifest


def places_of(wanted: Sequence[str], folder: Path) -> list["BundlePath"]:
    """The bundles of these names; a name alone is its newest version."""
    from service.bundle.store import find_bundles
    from service.catalogue import NoSuchModel

    found = find_bundles(folder)
    # Sorted, so that of one name the newest comes last, and stays.
    named = {place.name: place for place in found} | {f"{place.name}@{place.version}": place for place in found}
    for name in wanted:
        if name not in named:
            there = ", ".join(f"{place.name}@{place.version}" for place in found) or "none"
            raise NoSuchModel(f"{folder}: no bundle {name}; there are {there}")
    return [named[name] for name in wanted]


def _checks(place: "BundlePath") -> Iterator[Check]:
    from service.bundle.runtime import open_bundle

    model = f"{place.name}@{place.version}"
    try:
        manifest = _read(place)
    except (BundleError, OSError) as error:
        yield Check(model, None, str(error))
        return
    for precision in manifest.graphs:
        try:
            open_bundle(place.folder, precision)
        except (BundleError, OSError) as error:
            yield Check(model, precision, str(error))
        else:
            yield Check(model, precision, None)


def _said(check: Check) -> str:
    what = f"{check.model} {check.precision}" if check.precision else check.model
    return f"bad  {what}: {check.problem}" if check.problem else f"ok   {what}"


def _listed(manifests: Sequence["SealedManifest"]) -> "RenderableType":
    from rich.table import Table

    table = Table("name", "version", "role", "task", "labels", "precision", "tokens", "teacher", "measured")
    for manifest in manifests:
        table.add_row(
            manifest.name,
            manifest.version,
            manifest.role,
            manifest.task,
            _labels(manifest),
            ", ".join(manifest.graphs),
            str(manifest.max_tokens),
            manifest.lineage.teacher or "-",
            ", ".join(_measured(manifest)) or "-",
        )
    return table


def _labels(manifest: "SealedManifest") -> str:
    """In few words; `show` has them all."""
    listed = ", ".join(manifest.labels)
    return _dimensions(manifest) or (listed if len(manifest.labels) <= FEW else f"{len(manifest.labels)} labels")


def _dimensions(manifest: "SealedManifest") -> str:
    return f"{len(manifest.labels)} dimensions" if manifest.task == "embedding" else ""


def _measured(manifest: "SealedManifest") -> Iterator[str]:
    """The first figure of each graph; `show` has them all."""
    for precision in manifest.graphs:
        for result in manifest.results:
            if result.what.endswith(precision):
                yield f"{result.metric} {result.value:.4g} ({precision})"
                break


def _shown(place: "BundlePath", manifest: "SealedManifest") -> "Iterator[RenderableType]":
    from rich.table import Table

    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(place, manifest):
        facts.add_row(name, value)
    yield facts
    graphs = Table("graph", "file", "parity", "wander", "flips", "tolerance", title="Graphs", title_justify="left")
    for precision, graph in manifest.graphs.items():
        figures = (graph.parity, graph.wander, graph.flips, graph.tolerance)
        graphs.add_row(precision, graph.file, *(f"{figure:.3g}" for figure in figures))
    yield graphs
    results = Table("measured", "data", "split", "rows", "metric", "value", title="Results", title_justify="left")
    for each in manifest.results:
        results.add_row(each.what, each.dataset, each.split, str(each.rows), each.metric, f"{each.value:.4g}")
    yield results
    if manifest.calibration:
        sure = Table(
            *("graph", "teacher", "data", "rows", "temperature", "threshold", "agreement", "to the teacher"),
            title="Calibration",
            title_justify="left",
        )
        for precision, found in manifest.calibration.items():
            figures = (found.temperature, found.threshold, found.agreement, found.escalation)
            known = (precision, found.teacher, found.dataset, str(found.rows))
            sure.add_row(*known, *(f"{figure:.4g}" for figure in figures))
        yield sure
    files = Table("file", "bytes", "sha256", title="Files", title_justify="left")
    for name, digest in manifest.files.items():
        path = place.folder / name
        files.add_row(name, f"{path.stat().st_size:,}" if path.is_file() else "missing", digest)
    yield files


def _facts(place: "BundlePath", manifest: "SealedManifest") -> Iterator[tuple[str, str]]:
    lineage = manifest.lineage
    yield "name", f"{manifest.name}@{manifest.version}"
    yield "folder", str(place.folder)
    yield "digest", manifest.seal
    yield "role", manifest.role
    yield "task", manifest.task
    yield "labels", _dimensions(manifest) or ", ".join(manifest.labels)
    yield "reads", "pairs of texts" if manifest.texts == 2 else "single texts"
    yield "inputs", ", ".join(manifest.inputs)
    yield "tokens", f"at most {manifest.max_tokens}"
    yield "teacher", lineage.teacher or "-"
    yield "method", lineage.method
    yield "made with", ", ".join(f"{name} {version}" for name, version in lineage.versions.items()) or "-"
    yield "recipe", f"{len(lineage.recipe.splitlines())} lines of TOML; --json shows them"
    yield "proof", f"{len(manifest.proof.texts)} texts with logits for {', '.join(manifest.proof.logits)}"
