"""`http`: what the command line says -> services, a course, a report."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from service.bench.client import Pool
from service.bench.engine import Entry, parse_entry
from service.bench.flags import AtLeastOne, Json, LoadFlags, TextsFile, numbers, whole
from service.bench.http import Course, Variant, check, race, results_of
from service.bench.http_report import HttpReport, summarise
from service.bench.terminal import FAULTS, check_places, complaints, give_up, idle_surroundings, screen, write
from service.bench.texts import SENTENCES, read_texts
from service.bench.variants import Lineup, all_started, attached, first_student
from service.bench.wire import Dialect
from service.bench.worker import Cpus

Bundles = Annotated[
    list[str] | None,
    typer.Option(help="DIR, DIR:fast, DIR:exact or DIR:native; several times. Default: the first student in --models"),
]
Models = Annotated[Path, typer.Option(help="where a bundle is found when none is named")]
ServeArgs = Annotated[
    list[str] | None, typer.Option(help="flags for the service, in quotes; several times: each is a service")
]
Checkouts = Annotated[
    list[Path] | None, typer.Option(help="run the code of this folder; several times: each is a service")
]
Url = Annotated[str | None, typer.Option(help="measure what runs there, and start nothing")]
Pid = Annotated[int | None, typer.Option(help="with --url: whose CPU and memory to watch")]
Headers = Annotated[list[str] | None, typer.Option(help="'name: value' for each request; several times")]
Rows = Annotated[str, typer.Option(help="texts in a request")]
Rates = Annotated[str, typer.Option(help="Poisson arrivals, in requests a second")]
PoolSize = Annotated[int, typer.Option(min=1, help="most connections of an open loop")]
Peers = Annotated[int, typer.Option(min=1, max=200, help="addresses that the load comes from, on Linux's loopback")]


@dataclass(frozen=True)
class ServiceFlags:
    """Which services are measured, and what they are asked."""

    bundle: Bundles = None
    models: Models = Path("models")
    serve_args: ServeArgs = None
    checkout: Checkouts = None
    url: Url = None
    pid: Pid = None
    dialect: Dialect = Dialect.PREDICT
    header: Headers = None
    texts: TextsFile = None

    def lineup(self, cpus: Cpus) -> Lineup:
        """The services that they name. Raises BadParameter."""
        flags, folders = tuple(self.serve_args or [""]), tuple(self.checkout or [Path()])
        return Lineup(self._entries(), flags, folders, self.dialect, tuple(self.header or ()), cpus)

    def _entries(self) -> tuple[Entry, ...]:
        if self.bundle or self.url:
            return tuple(map(parse_entry, self.bundle or ()))
        student = first_student(self.models)
        if student is None:
            raise typer.BadParameter(f"{self.models} holds no student; name a bundle with --bundle")
        return (student,)


@dataclass(frozen=True)
class HttpLoad(LoadFlags):
    """A load with more to choose from."""

    rows: Rows = "1"
    rates: Rates = ""
    pool: PoolSize = Pool.most
    peers: Peers = Course.peers
    threads: AtLeastOne = Course.threads

    def course(self) -> Course:
        """What they ask for. Raises BadParameter."""
        course = super().course()
        return replace(
            course,
            loads=replace(course.loads, rows=whole(self.rows), rates=numbers(self.rates)),
            pool=replace(course.pool, most=self.pool),
            peers=self.peers,
            threads=self.threads,
        )


def http(services: ServiceFlags, load: HttpLoad, json: Json = None) -> None:
    """Requests a second and latencies under load, beside the model alone. Lists are written 1,16,64."""
    try:
        check_places(json)
        course = load.course()
        lineup, url = services.lineup(course.server_cpus), services.url
        with nullcontext([attached(url, services.pid, lineup)]) if url else all_started(lineup) as variants:
            texts = read_texts(services.texts) if services.texts else SENTENCES
            report = measure(variants, course, tuple(texts))
    except FAULTS as error:
        give_up(error)
    screen.print(*report.to_tables(), sep="\n")
    write(json, report.to_json())


def measure(variants: Sequence[Variant], course: Course, texts: tuple[str, ...]) -> HttpReport:
    surroundings = idle_surroundings()
    check(variants, course, texts)
    results = track(
        race(variants, course, texts), "measuring", results_of(variants, course), console=complaints, transient=True
    )
    return summarise(surroundings, course, variants, list(results))
