"""Flags that several benchmarks have, in groups; and how a command takes a group of them as one value.

It knows typer and what a load is. It measures nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, Protocol, get_type_hints

import typer

from service.bench.client import Pool
from service.bench.engine import Entry, natively, parse_entry
from service.bench.http import Course, Loads, Pace
from service.bundle.manifest import Role
from service.bundle.store import find_bundles, read_manifest

Connections = Annotated[str, typer.Option(help="of the closed loops, which find each service's own peak")]
Shares = Annotated[str, typer.Option(help="Poisson arrivals, in per cent of that peak")]
Seconds = Annotated[float, typer.Option(min=0.1, help="of each load")]
Warmup = Annotated[float, typer.Option(min=0, help="seconds before that, which do not count")]
AtLeastOne = Annotated[int, typer.Option(min=1)]
Spin = Annotated[bool, typer.Option(help="send to the microsecond; wants a core for the client alone")]
ClientCpu = Annotated[str, typer.Option(help="cores of the client")]
ServerCpu = Annotated[str, typer.Option(help="cores of the services that are started, and of the model alone")]
Seed = Annotated[int, typer.Option(min=0, help="of whatever is left to chance: texts, their order, arrivals")]
TextsFile = Annotated[Path | None, typer.Option(help="TXT or TSV, .gz too. Default: sentences of our own")]
Json = Annotated[Path | None, typer.Option(help="write everything here too")]
Graphs = Annotated[
    list[str] | None,
    typer.Option(help="DIR, DIR:fast, DIR:exact or DIR:native; several times. Default: every graph in --models"),
]
Models = Annotated[Path, typer.Option(help="where bundles are found when none is named")]
Against = Annotated[list[str] | None, typer.Option(help="compare with this name; several times. Default: each teacher")]


@dataclass(frozen=True)
class LoadFlags:
    """The load on a service."""

    connections: Connections = "1,16,64"
    shares: Shares = "25,50,75,90,200"
    seconds: Seconds = Pace.seconds
    warmup: Warmup = Pace.warmup_s
    rounds: AtLeastOne = Pace.rounds
    spin: Spin = True
    client_cpu: ClientCpu = ""
    server_cpu: ServerCpu = ""
    seed: Seed = Pace.seed

    def course(self) -> Course:
        """What they ask for. Raises BadParameter."""
        return Course(
            Loads(connections=whole(self.connections), shares=numbers(self.shares)),
            Pace(self.seconds, self.warmup, self.rounds, self.seed),
            Pool(spin=self.spin),
            client_cpus=whole(self.client_cpu),
            server_cpus=whole(self.server_cpu),
        )


def flat(command: Callable[..., None]) -> Callable[..., None]:
    """The same command as typer reads one: where it takes a dataclass, with each field of it as a flag."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}

    @wraps(command)
    def call(**given: Any) -> None:
        taken = {
            name: kind(**{each.name: given.pop(each.name) for each in fields(kind)}) for name, kind in groups.items()
        }
        command(**taken, **given)

    flags = [flag for each in signature(command).parameters.values() for flag in _flags(each, hints[each.name])]
    call.__signature__ = Signature(flags)  # type: ignore[attr-defined]  # which functions may have, says `inspect`
    return call


def _flags(parameter: Parameter, kind: Any) -> Iterator[Parameter]:
    if not is_dataclass(kind):
        yield parameter.replace(annotation=kind, kind=Parameter.KEYWORD_ONLY)
        return
    hints = get_type_hints(kind, include_extras=True)
    for each in fields(kind):
        default = Parameter.empty if each.default is MISSING else each.default
        yield Parameter(each.name, Parameter.KEYWORD_ONLY, default=default, annotation=hints[each.name])


def numbers(text: str) -> tuple[float, ...]:
    """A list as the command line writes it: 1,16,64."""
    try:
        found = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise typer.BadParameter(f"{text}: not a list of numbers like 1,16,64") from error
    if any(not 0 <= number < float("inf") for number in found):
        raise typer.BadParameter(f"{text}: no number may be negative or endless")
    return found


def whole(text: str) -> tuple[int, ...]:
    """The same, of whole numbers."""
    found = numbers(text)
    if any(number % 1 for number in found):
        raise typer.BadParameter(f"{text}: whole numbers are wanted")
    return tuple(map(int, found))


class Named(Protocol):
    """What is measured and may be a yardstick."""

    @property
    def name(self) -> str: ...  # name@version

    @property
    def title(self) -> str: ...  # and what runs

    @property
    def role(self) -> Role: ...


def entries_of(bundles: Sequence[str] | None, models: Path) -> list[Entry]:
    """Those that are named, else each graph of each bundle's newest version. Raises BadParameter."""
    return [parse_entry(text) for text in bundles] if bundles else _every_graph(models)


def _every_graph(models: Path) -> list[Entry]:
    newest = {place.name: place.folder for place in find_bundles(models)}
    if not newest:
        raise typer.BadParameter(f"{models} holds no bundle; name one with --bundle")
    entries: list[Entry] = []
    for folder in newest.values():
        manifest = read_manifest(folder)
        entries += [Entry(folder, precision) for precision in manifest.graphs] + natively(folder, manifest)
    return entries


def places_of(names: Sequence[str], subjects: Sequence[Named]) -> list[int]:
    """Where the yardsticks stand: those named (as `name`, `name@1` or `name@1:fast`), or every teacher.

    Raises BadParameter.
    """
    for name in names:
        if not any(_is_called(name, subject) for subject in subjects):
            raise typer.BadParameter(f"--against {name}: not among {', '.join(s.title for s in subjects)}")
    return [
        place
        for place, subject in enumerate(subjects)
        if (any(_is_called(name, subject) for name in names) if names else subject.role is Role.TEACHER)
    ]


def _is_called(name: str, subject: Named) -> bool:
    return name in (subject.name.partition("@")[0], subject.name, subject.title)
