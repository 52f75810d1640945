"""Which services are measured: from what the command line names to services that answer. Measures nothing."""

import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from service.bench.engine import Entry, natively
from service.bench.http import Variant
from service.bench.served import Service, only, serve_command, started
from service.bench.wire import Caller, Dialect, Target
from service.bench.worker import Cpus
from service.bundle.manifest import Precision, Role
from service.bundle.store import find_bundles, read_manifest


@dataclass(frozen=True, slots=True)
class Lineup:
    """Each bundle with each set of flags in each checkout of the code is one service."""

    entries: tuple[Entry, ...]
    flags: tuple[str, ...] = ("",)
    checkouts: tuple[Path, ...] = (Path(),)
    dialect: Dialect = Dialect.PREDICT
    headers: tuple[str, ...] = ()
    cpus: Cpus = ()


@contextmanager
def all_started(lineup: Lineup) -> Iterator[list[Variant]]:
    """All of them run at once, and rest while another is measured."""
    with ExitStack() as stack:
        yield [
            _start(stack, lineup, entry, flags, checkout)
            for entry, flags, checkout in product(lineup.entries, lineup.flags, lineup.checkouts)
        ]


def attached(url: str, pid: int | None, lineup: Lineup) -> Variant:
    """One that runs already; the first entry, if any, is what it is said to serve."""
    target = Target.of(url)
    entry = lineup.entries[0] if lineup.entries else None
    return Variant(url, Service(target, pid), Caller(target, lineup.dialect, lineup.headers), entry)


def first_student(models: Path) -> Entry | None:
    """The newest version of what a service would serve by default, by the engine that it would take."""
    newest = {place.name: read_manifest(place.folder) for place in find_bundles(models)}
    names = [name for name, manifest in newest.items() if manifest.role is Role.STUDENT]
    if not names:
        return None
    folder = models / names[0] / newest[names[0]].version
    return next(iter(natively(folder, newest[names[0]])), Entry(folder, Precision.EXACT))


def _start(stack: ExitStack, lineup: Lineup, entry: Entry, flags: str, checkout: Path) -> Variant:
    manifest = read_manifest(entry.folder)
    # Other code may be older than the choice of an engine.
    own = entry.flags if checkout == Path() else ["--precision", entry.precision]
    command = serve_command(stack.enter_context(only(entry.folder)), [*own, *shlex.split(flags)])
    service = stack.enter_context(started(command, lineup.cpus, checkout))
    parts = [f"{manifest.name}@{manifest.version}:{entry.suffix}", flags]
    parts += [f"in {checkout}"] if len(lineup.checkouts) > 1 else []
    title = " ".join(filter(None, parts))
    return Variant(title, service, Caller(service.target, lineup.dialect, lineup.headers), entry)
