"""`http`: what the command line says -> services, a course, a report."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from service.bench.client import Pool
from service.bench.engine import Entry, parse_entry
from service.bench.http import Course, Loads, Pace, Variant, check, race, results_of
from service.bench.http_report import HttpReport, summarise
from service.bench.machine import IDLE, these_surroundings
from service.bench.terminal import FAULTS, complaints, give_up, screen, warn
from service.bench.texts import SENTENCES, read_texts
from service.bench.variants import Lineup, all_started, attached, first_student
from service.bench.wire import Dialect

Bundles = Annotated[
    list[str] | None,
    typer.Option(help="DIR, DIR:fast or DIR:exact; several times. Default: the first student in --models"),
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
TextsFile = Annotated[Path | None, typer.Option(help="TXT or TSV, .gz too. Default: sentences of our own")]
Rows = Annotated[str, typer.Option(help="texts in a request")]
Connections = Annotated[str, typer.Option(help="of the closed loops, which find the peak")]
Shares = Annotated[str, typer.Option(help="Poisson arrivals, in per cent of the peak")]
Rates = Annotated[str, typer.Option(help="Poisson arrivals, in requests a second")]
Seconds = Annotated[float, typer.Option(min=0.1, help="of each load")]
Warmup = Annotated[float, typer.Option(min=0, help="seconds before that, which do not count")]
AtLeastOne = Annotated[int, typer.Option(min=1)]
PoolSize = Annotated[int, typer.Option(min=1, help="most connections of an open loop")]
Spin = Annotated[bool, typer.Option(help="send to the microsecond; wants a core for the client alone")]
Peers = Annotated[int, typer.Option(min=1, max=200, help="addresses that the load comes from, on Linux's loopback")]
ClientCpu = Annotated[str, typer.Option(help="cores of the client")]
ServerCpu = Annotated[str, typer.Option(help="cores of the services that are started, and of the model alone")]
Seed = Annotated[int, typer.Option(min=0, help="of the arrivals and the order of texts")]
Json = Annotated[Path | None, typer.Option(help="write everything here too")]


def http(
    bundle: Bundles = None,
    models: Models = Path("models"),
    serve_args: ServeArgs = None,
    checkout: Checkouts = None,
    url: Url = None,
    pid: Pid = None,
    dialect: Dialect = Dialect.PREDICT,
    header: Headers = None,
    texts: TextsFile = None,
    rows: Rows = "1",
    connections: Connections = "1,16,64",
    shares: Shares = "25,50,75,90,200",
    rates: Rates = "",
    seconds: Seconds = Pace.seconds,
    warmup: Warmup = Pace.warmup_s,
    rounds: AtLeastOne = Pace.rounds,
    pool: PoolSize = Pool.most,
    spin: Spin = True,
    peers: Peers = Course.peers,
    client_cpu: ClientCpu = "",
    server_cpu: ServerCpu = "",
    threads: AtLeastOne = Course.threads,
    seed: Seed = Pace.seed,
    json: Json = None,
) -> None:
    """Requests a second and latencies under load, beside the model alone. Lists are written 1,16,64."""
    try:
        loads = Loads(whole(rows), whole(connections), numbers(shares), numbers(rates))
        pace = Pace(seconds, warmup, rounds, seed)
        cores = whole(client_cpu), whole(server_cpu)
        course = Course(loads, pace, Pool(pool, spin=spin), peers, threads, *cores)
        flags, folders = tuple(serve_args or [""]), tuple(checkout or [Path()])
        entries = _entries(bundle, models, url)
        lineup = Lineup(entries, flags, folders, dialect, tuple(header or ()), course.server_cpus)
        with nullcontext([attached(url, pid, lineup)]) if url else all_started(lineup) as variants:
            report = measure(variants, course, tuple(read_texts(texts) if texts else SENTENCES))
    except FAULTS as error:
        give_up(error)
    _show(report, json)


def measure(variants: Sequence[Variant], course: Course, texts: tuple[str, ...]) -> HttpReport:
    surroundings = these_surroundings()
    if not surroundings.idle:
        warn(f"the machine is not idle (load {surroundings.load}, {IDLE} is the limit): do not trust these figures")
    check(variants, course, texts)
    results = track(
        race(variants, course, texts), "measuring", results_of(variants, course), console=complaints, transient=True
    )
    return summarise(surroundings, course, variants, list(results))


def _show(report: HttpReport, json: Path | None) -> None:
    screen.print(*report.to_tables(), sep="\n")
    if json:
        json.write_text(report.to_json(), encoding="utf-8")


def _entries(bundles: Sequence[str] | None, models: Path, url: str | None) -> tuple[Entry, ...]:
    if bundles or url:
        return tuple(map(parse_entry, bundles or ()))
    student = first_student(models)
    if student is None:
        raise typer.BadParameter(f"{models} holds no student; name a bundle with --bundle")
    return (student,)


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
