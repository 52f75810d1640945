"""The service and whoever publishes a version, both killed at some moment; and what serves after the next start."""

import json
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from time import perf_counter, sleep

from service.bench.client import NoService
from service.bench.samples import OK
from service.bench.served import Service, ask, serve_command, started
from service.bench.wire import Caller, Dialect
from tests.prove.askers import read_answer
from tests.prove.editions import Edition
from tests.prove.history import TOLERANCE
from tests.prove.swapping import SWAP_S, Place, flags

COPY = 'cp -r "$1" "$2" && mv -T "$2" "$3"'
POLL_S = 0.005
MARGIN = 1.3
"""Half of the moments are up to so many times what the copy takes, half up to so many times what it all takes."""


@dataclass(frozen=True, slots=True)
class Killed:
    """One kill, and the start after it."""

    moment_s: float  # since the publication began
    published: bool  # was the new version in its place?
    ready_s: float | None
    right_version: bool
    wrong: int  # answers that are not that version's own
    said: str = ""


@dataclass(frozen=True, slots=True)
class Kills:
    """All of them."""

    outcomes: tuple[Killed, ...]
    copy_s: float  # what a publication takes until the rename, and
    activation_s: float  # until it answers, when nobody is killed


def kill_again_and_again(place: Place, count: int, seed: int) -> Kills:
    """So many kills. Each start is both the end of one round and the beginning of the next."""
    chance = random.Random(seed)
    old, new = place.press.make(1), place.press.make(2)
    place.publish(old)
    with _serving(place) as service:
        copy_s, activation_s = _activation(place, service, new)
    old, new = new, place.press.make(3)
    outcomes: list[Killed] = []
    moment, published = 0.0, True
    for number in range(count + 1):
        try:
            with _serving(place) as service:
                ready_s, said = service.ready_s, _asked(place, service)
                if number:
                    outcomes.append(judge(moment, published, ready_s, said, old))
                if number < count:
                    moment = chance.uniform(0, MARGIN * chance.choice((copy_s, activation_s)))
                    _kill_while_publishing(place, service, new, moment, chance)
        except NoService as error:
            outcomes.append(Killed(moment, published, None, False, 0, str(error)))
            break
        published = place.of(new.version).exists()
        if published and number < count:
            _forget(place, old.version - 1)
            old, new = new, place.press.make(new.version + 1)
    return Kills(tuple(outcomes), copy_s, activation_s)


def judge(moment: float, published: bool, ready_s: float | None, said: "Sequence[Said]", due: Edition) -> Killed:
    """`due` is the newest version that lies in the folder."""
    versions = {version for version, _ in said}
    wrong = sum(not _alike(scores, wanted) for (_, scores), wanted in zip(said, due.answers, strict=True))
    return Killed(moment, published, ready_s, versions == {due.version}, wrong, f"versions {sorted(versions)}")


def _alike(scores: Sequence[float], wanted: Sequence[float]) -> bool:
    """So that NaN is like nothing."""
    return len(scores) == len(wanted) and all(
        abs(score - right) <= TOLERANCE for score, right in zip(scores, wanted, strict=True)
    )


Said = tuple[int, tuple[float, ...]]
"""The version that answered, and its scores."""


def _asked(place: Place, service: Service) -> list[Said]:
    """Version and scores for each text; version 0 where there is no answer."""
    caller, found = Caller(service.target, Dialect.CLASSIFY), list[Said]()
    for text in place.press.texts:
        status, body = ask(caller, "POST", *caller.question([text]))
        if status != OK:
            found.append((0, ()))
            continue
        _, version, scores = read_answer(json.loads(body), place.press.labels)
        found.append((version, scores))
    return found


def _activation(place: Place, service: Service, edition: Edition) -> tuple[float, float]:
    begun = perf_counter()
    with _publishing(place, edition) as publisher:
        publisher.wait()
    copied = perf_counter()
    while _asked(place, service)[0][0] != edition.version:
        if perf_counter() - begun > SWAP_S:
            raise NoService(f"version {edition.version} never answered; look at the service's log")
        sleep(POLL_S)
    return copied - begun, perf_counter() - begun


def _kill_while_publishing(
    place: Place, service: Service, edition: Edition, moment: float, chance: random.Random
) -> None:
    assert service.pid is not None
    with _publishing(place, edition) as publisher:
        sleep(moment)
        victims = [(os.kill, service.pid), (os.killpg, publisher.pid)]
        chance.shuffle(victims)
        for kill, victim in victims:
            with suppress(ProcessLookupError):  # it had finished
                kill(victim, signal.SIGKILL)


def _publishing(place: Place, edition: Edition) -> "subprocess.Popen[bytes]":
    """A process that copies the version beside its place and renames it."""
    staging = place.of(edition.version).with_name(f".{edition.version}")
    shutil.rmtree(staging, ignore_errors=True)  # what the one before left
    places = (edition.folder, staging, place.of(edition.version))
    return subprocess.Popen(["/bin/sh", "-c", COPY, "publish", *map(os.fspath, places)], start_new_session=True)


def _forget(place: Place, version: int) -> None:
    place.withdraw(version)
    shutil.rmtree(place.waiting / str(version), ignore_errors=True)


def _serving(place: Place) -> AbstractContextManager[Service]:
    return started(serve_command(place.models, flags(place)))
