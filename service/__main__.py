"""`python -m service`: the commands. The only place that reads the environment, prints, or exits.

Exit codes: 0 done, 1 failed while running, 2 wrong usage or settings, 3 a bundle is not valid.
"""

import inspect
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from service.bundle.errors import BundleError
from service.settings import PREFIX, Settings, problem_line

if TYPE_CHECKING:
    import socket

    from service.bundle.manifest import Manifest
    from service.bundle.runtime import OpenBundle
    from service.lifecycle import Lifecycle

RUNTIME, USAGE, BUNDLE = 1, 2, 3

STARTED = perf_counter()

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

ModelsFlag = Annotated[Path | None, typer.Option(help="Folder of bundles.")]


def serve(**flags: Any) -> None:
    """Serve all models of a folder over HTTP. Each flag is also a variable UNDERSTUDY_*; the flag wins."""
    settings = _settings(flags)
    door = _listen(settings)
    # Imported here, since the other commands do not need the HTTP stack.
    from service.app import create_app
    from service.lifecycle import Server, configure, run

    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    app = create_app(settings)
    server = Server(configure(app, settings), app.lifecycle, settings.settle_seconds)

    def loaded(lifecycle: "Lifecycle") -> None:
        if lifecycle.failure is not None:
            server.should_exit = True
        elif lifecycle.unready() is None:
            _say(_started_line(lifecycle, door))

    app.lifecycle.on_loaded = loaded
    run(server, door)
    if app.lifecycle.failure is not None:
        _fail(app.lifecycle.failure)


def classify(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; none: the lines of stdin.")] = None,
    model: Annotated[str | None, typer.Option(help="Name of the model; unset: the default one.")] = None,
    models: ModelsFlag = None,
    precision: Annotated[str | None, typer.Option(help="exact or fast.")] = None,
) -> None:
    """Classify texts without a server: one line of JSON for each."""
    settings = _settings({"models": models, "default": model, "precision": precision})
    bundle = _open(settings)
    # Bytes that are no UTF-8 arrive as surrogates, which no tokenizer takes.
    given = (text.encode(errors="surrogateescape").decode(errors="replace") for text in texts or ())
    for text in given if texts else _lines():
        _say(_classified(bundle, text))


def models(models: ModelsFlag = None) -> None:
    """List the bundles of a folder, with what was measured of them."""
    from rich.console import Console
    from rich.table import Table

    from service.bundle.store import check_place, find_bundles, read_manifest

    table = Table("name", "version", "role", "task", "labels", "precision", "tokens", "teacher", "measured")
    try:
        for place in find_bundles(_settings({"models": models}).models):
            manifest = read_manifest(place.folder)
            check_place(place.folder, manifest)
            table.add_row(*_cells(manifest))
    except (BundleError, OSError) as error:
        _fail(error)
    # Piped output has no width of its own, and cells should not be cut there.
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 240).print(table)


def _flag(name: str, field: FieldInfo) -> inspect.Parameter:
    """A field of the settings -> a parameter that typer understands."""
    default = "unset" if field.default is None else field.default
    help_text = f"{field.description} [{PREFIX}{name.upper()}, default: {default}]"
    option = typer.Option(f"--{name.replace('_', '-')}", help=help_text, metavar="")
    # All are read as text, so that the settings alone decide what a value may be.
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )


def _with_a_flag_per_setting() -> None:
    flags = [_flag(name, field) for name, field in Settings.model_fields.items()]
    serve.__signature__ = inspect.Signature(flags)  # type: ignore[attr-defined]
    serve.__annotations__ = {flag.name: flag.annotation for flag in flags}


def _settings(flags: dict[str, Any]) -> Settings:
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        _exit(USAGE, problem_line(error))


def _listen(settings: Settings) -> "socket.socket":
    """Take the port first: a port that is taken should not cost the time of opening models."""
    import socket

    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        door = socket.socket(family, kind, protocol)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(address)
    except OSError as error:
        place = f"{settings.host}:{settings.port}"
        _exit(RUNTIME, f"{place}: cannot listen there ({error.strerror}); choose another --host or --port")
    return door


def _started_line(lifecycle: "Lifecycle", door: "socket.socket") -> str:
    host, port = door.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    catalogue = lifecycle.catalogue
    listed = ", ".join(
        f"{predictor.name} ({predictor.manifest.role}, {predictor.bundle.precision})"
        for predictor in catalogue.predictors
    )
    return f"{url} ready in {perf_counter() - STARTED:.2f} s: {listed}; default {catalogue.default}"


def _open(settings: Settings) -> "OpenBundle":
    from service.bundle.runtime import EngineOptions, open_bundle
    from service.bundle.store import check_place, read_manifest
    from service.predictors import NoSuchModel, choose_default, newest_bundles

    try:
        places = newest_bundles(settings.models)
        manifests = {name: read_manifest(place.folder) for name, place in places.items()}
        name = choose_default(settings.models, list(manifests.values()), settings.default)
        check_place(places[name].folder, manifests[name])
        return open_bundle(places[name].folder, settings.precision, EngineOptions(threads=settings.student_threads))
    except (BundleError, NoSuchModel, OSError) as error:
        _fail(error)


def _lines() -> Iterator[str]:
    sys.stdin.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    lines: Iterable[str] = sys.stdin
    return (line.rstrip("\r\n") for line in lines)


def _classified(bundle: "OpenBundle", text: str) -> str:
    import json

    # One at a time, so that whoever reads our output has each line as soon as it is there.
    scores = bundle.scores(bundle.classify([text]))[0].tolist()
    labels = bundle.manifest.labels
    best = scores.index(max(scores))
    answer = {
        "text": text,
        "label": labels[best],
        "score": scores[best],
        "scores": dict(zip(labels, scores, strict=True)),
    }
    return json.dumps(answer, ensure_ascii=False)


def _cells(manifest: "Manifest") -> list[str]:
    measured = [f"{result.metric} {result.value:.4g} ({result.what})" for result in manifest.results]
    return [
        manifest.name,
        manifest.version,
        manifest.role,
        manifest.task,
        ", ".join(manifest.labels),
        ", ".join(manifest.graphs),
        str(manifest.max_tokens),
        manifest.lineage.teacher or "-",
        "; ".join(measured) or "-",
    ]


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _fail(error: Exception) -> NoReturn:
    from service.predictors import NoSuchModel

    if isinstance(error, BundleError):
        _exit(BUNDLE, str(error))
    if isinstance(error, NoSuchModel):
        _exit(USAGE, f"{error}; choose one of them")
    if isinstance(error, OSError):
        _exit(RUNTIME, f"{error.filename}: {error.strerror}; may this user read it?")
    _exit(RUNTIME, f"{type(error).__name__}: {error}; this is a fault of ours, please report it")


def _exit(code: int, line: str) -> NoReturn:
    sys.stderr.write(f"understudy: {' '.join(line.split())}\n")
    raise SystemExit(code)


_with_a_flag_per_setting()
cli.command()(serve)
cli.command()(classify)
cli.command()(models)


def main() -> None:
    """Run a command."""
    # Before tokenizers is loaded: its own threads would take cores from those of ONNX Runtime.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        cli(prog_name="python -m service")
    except BrokenPipeError:  # our reader has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
