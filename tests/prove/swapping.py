"""A server, clients that never cease to ask, and versions, good and bad, that are put in its folder meanwhile."""

import os
import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, sleep

from service.bench.process import Usage, usage
from service.bench.samples import OK
from service.bench.served import Service, ask, serve_command, started
from service.bench.wire import Caller
from tests.prove.askers import Askers
from tests.prove.bait import Bait, snapshot
from tests.prove.defects import DEFECTS, CannotSpoil, Scene, Spoil
from tests.prove.editions import Edition, Press, told_apart
from tests.prove.history import TOLERANCE, Published, Verdict, check

KEY = "the-admin-key-of-this-proof"
LOOK_S = 0.05
SWAP_S = 20.0
WARM_S, SETTLE_S, POLL_S = 2.0, 5.0, 0.1
WARM_SWAPS = 2  # after which the service has all the threads that following the folder needs
KEPT = 2
PARDON = 10  # defects between two good versions


@dataclass(frozen=True, slots=True)
class Place:
    """A folder for everything, and the press."""

    folder: Path
    press: Press

    @property
    def models(self) -> Path:
        return self.folder / "models"

    @property
    def waiting(self) -> Path:
        """Where the press leaves what it made: on the same disk, so that a rename does it."""
        return self.folder / "waiting"

    def of(self, version: int) -> Path:
        return self.models / self.press.name / str(version)

    def publish(self, edition: Edition) -> None:
        """One rename."""
        self.of(edition.version).parent.mkdir(parents=True, exist_ok=True)
        edition.folder.rename(self.of(edition.version))

    def withdraw(self, version: int) -> None:
        """Take away whatever lies there."""
        path = self.of(version)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Swaps:
    """What became of the good versions."""

    verdict: Verdict
    seconds: tuple[float, ...]  # from each rename to the first answer
    taken_over: int
    told_apart: float
    cold: Usage | None  # before the first swap
    before: Usage | None  # after the first few
    after: Usage | None
    rss_mib: tuple[float, ...]  # after each swap, the old version often not yet closed


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one defect."""

    kind: str
    refused: bool
    discreet: bool
    opened: int  # files elsewhere
    changed: bool
    said: str


@dataclass(frozen=True, slots=True)
class Refusals:
    """What became of all of them."""

    verdict: Verdict
    outcomes: tuple[Outcome, ...]
    skipped: dict[str, str]
    stuck: int
    elsewhere_watched: bool


@dataclass(slots=True)
class _Chronicle:
    """All that was published, for the checker."""

    published: list[Published] = field(default_factory=list)
    editions: list[Edition] = field(default_factory=list)

    def verdict(self, askers: Askers) -> Verdict:
        return check(askers.history, self.published, {each.version: each.answers for each in self.editions})


@dataclass(frozen=True, slots=True)
class _Stand:
    """What a part works with."""

    place: Place
    service: Service
    askers: Askers
    chronicle: _Chronicle

    def put(self, edition: Edition) -> float | None:
        """Publish; every other version is asked for, the rest are found. Seconds until it answers."""
        begun = perf_counter()
        self.place.publish(edition)
        known = float("inf")
        if edition.version % 2:
            status, _ = self.load()
            known = perf_counter() if status == OK else known
        came = self.askers.until(edition.version, SWAP_S)
        self.chronicle.published.append(Published(edition.version, edition.digest, begun, known))
        self.chronicle.editions.append(edition)
        return perf_counter() - begun if came else None

    def load(self) -> tuple[int, str]:
        caller = Caller(self.service.target, headers=(f"Authorization: Bearer {KEY}",))
        status, body = ask(caller, "POST", f"/v2/repository/models/{self.place.press.name}/load", b"{}")
        return status, body.decode(errors="replace")


def swap_again_and_again(place: Place, count: int, warm_s: float = WARM_S) -> Swaps:
    """So many new versions, one after the other."""
    with _stand(place) as stand:
        sleep(warm_s)
        cold = usage(stand.service.pid)
        before, seconds, memory = cold, [], []
        for version in range(2, count + 2):
            seconds.append(stand.put(place.press.make(version)))
            place.withdraw(version - KEPT)
            now = usage(stand.service.pid)
            memory.append(now.rss_mib if now else float("nan"))
            if version == 1 + WARM_SWAPS:
                before = _settled(stand.service, warm_s)
        after = _settled(stand.service, warm_s, before)
    taken = [each for each in seconds if each is not None]
    editions = stand.chronicle.editions
    apart = told_apart(editions, TOLERANCE)
    verdict = stand.chronicle.verdict(stand.askers)
    return Swaps(verdict, tuple(taken), len(taken), apart, cold, before, after, tuple(memory))


def tempt_again_and_again(place: Place, count: int, seed: int, kinds: Sequence[Spoil] = DEFECTS) -> Refusals:
    """So many bad versions, one after the other, and a good one now and then."""
    outside = place.folder / "outside"
    shutil.copytree(place.press.make(0).folder, outside / "good")
    (outside / "secret").write_bytes(b"s" * 5000)
    chance, skipped, outcomes, stuck, version = random.Random(seed), dict[str, str](), list[Outcome](), 0, 1
    bait = Bait(outside)
    kinds = list(kinds)
    with _stand(place) as stand:
        while len(outcomes) < count and kinds:
            version += 1
            spoil = kinds[len(outcomes) % len(kinds)]
            scene = Scene(place.press.make(version).folder, outside, chance)
            try:
                spoil(scene)
            except CannotSpoil as reason:
                skipped[spoil.__name__] = str(reason)
                kinds.remove(spoil)
                shutil.rmtree(scene.folder)
                continue
            outcomes.append(_tempt(stand, spoil.__name__, version, bait))
            if len(outcomes) % PARDON == 0 or len(outcomes) == count:
                version += 1
                stuck += stand.put(place.press.make(version)) is None
    bait.close()
    return Refusals(stand.chronicle.verdict(stand.askers), tuple(outcomes), skipped, stuck, bait.watched)


def _tempt(stand: _Stand, kind: str, version: int, bait: Bait) -> Outcome:
    spoilt, place = stand.place.waiting / str(version), stand.place.of(version)
    before, old = snapshot(spoilt), snapshot(stand.place.models)
    bait.arm()
    spoilt.rename(place)
    status, said = stand.load()
    sleep(2 * LOOK_S)  # it is found by itself, too
    opened = bait.touched()
    changed = bait.changed() or snapshot(place) != before
    stand.place.withdraw(version)
    changed |= snapshot(stand.place.models) != old
    refused = 400 <= status < 500 and stand.askers.newest < version
    return Outcome(kind, refused, os.fspath(stand.place.folder) not in said, opened, changed, said[:300])


@contextmanager
def _stand(place: Place) -> Iterator[_Stand]:
    """A server with version 1, and clients."""
    first, press = place.press.make(1), place.press
    place.publish(first)
    chronicle = _Chronicle([Published(1, first.digest, perf_counter(), perf_counter())], [first])
    with (
        started(serve_command(place.models, flags(place))) as service,
        Askers(service.target, press.name, press.texts, press.labels) as askers,
    ):
        yield _Stand(place, service, askers, chronicle)


def flags(place: Place) -> list[str]:
    """A server that looks often, may be told to look, and writes nothing."""
    keys = place.folder / "keys"
    keys.write_text(f"{KEY}\n", encoding="utf-8")
    return ["--reload-seconds", str(LOOK_S), "--admin-keys-file", str(keys), "--log-level", "critical"]


def _settled(service: Service, warm_s: float, before: Usage | None = None) -> Usage | None:
    """Once the old version has closed."""
    deadline = perf_counter() + SETTLE_S
    sleep(warm_s)
    found = usage(service.pid)
    while found and before and perf_counter() < deadline:
        if (found.threads, found.files) <= (before.threads, before.files):
            break
        sleep(POLL_S)
        found = usage(service.pid)
    return found
