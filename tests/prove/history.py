"""Who was asked what and when, who answered, and whether a service with one current version could have said so.

The rules of a register: nothing from the future, nothing older than what anyone already knew when the request was
sent, and each answer is that of the version it names, and bears its digest. It knows no clocks and no sockets.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate
from math import inf, isnan

from service.bench.samples import OK, Failure
from service.predictors import SHOWN_DIGITS
from tests.prove.editions import Scores

TOLERANCE = 1e-6
SHOWN = 20


class Fault(StrEnum):
    """What can be wrong with one request."""

    FAILED = "failed"  # no answer, or not 200
    FOREIGN = "foreign"  # from a version that was never published, or never should have been opened
    EARLY = "early"  # from a version that was not there yet
    STALE = "stale"  # from an older version than somebody already knew of
    MISNAMED = "misnamed"  # with the digest of another bundle than that version, or without any
    WRONG = "wrong"  # not what that version says


@dataclass(frozen=True, slots=True)
class Asked:
    """One request; `version`, `scores` and `digest` are those of its answer, if there was one."""

    sent: float
    received: float
    text: int
    status: int  # or a Failure
    version: int = 0
    scores: Scores = ()
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Published:
    """A version, its seal, the moment before it was put in place, and the one when the service said that it had taken
    over.

    Without such a word it is known from the first answer that names it.
    """

    version: int
    digest: str
    begun: float
    acknowledged: float = inf


@dataclass(slots=True)
class Verdict:
    """What a history showed."""

    faults: Counter[Fault] = field(default_factory=Counter)
    shown: list[str] = field(default_factory=list)  # the first few
    requests: int = 0
    identical: int = 0  # to the last bit
    farthest: float = 0.0
    versions: int = 0  # that answered

    def note(self, fault: Fault, asked: Asked, detail: str) -> None:
        self.faults[fault] += 1
        if len(self.shown) < SHOWN:
            self.shown.append(f"{fault}: version {asked.version} to text {asked.text}, {detail}")


def check(history: Sequence[Asked], published: Iterable[Published], answers: Mapping[int, Sequence[Scores]]) -> Verdict:
    """`answers` are those of each version to each text."""
    places = {each.version: each for each in published}
    known = _Known(history, places.values())
    verdict = Verdict(requests=len(history))
    seen = set()
    for asked in history:
        if asked.status != OK:
            verdict.note(Fault.FAILED, asked, _named(asked.status))
        elif asked.version not in places:
            verdict.note(Fault.FOREIGN, asked, "which was never to be served")
        else:
            seen.add(asked.version)
            _judge(verdict, asked, places[asked.version], known)
            _compare(verdict, asked, answers[asked.version][asked.text])
    verdict.versions = len(seen)
    return verdict


class _Known:
    """The newest version that anybody knew of at a moment."""

    def __init__(self, history: Sequence[Asked], published: Iterable[Published]) -> None:
        served = {each.version for each in published}
        told = [(each.acknowledged, each.version) for each in published]
        told += [(asked.received, asked.version) for asked in history if asked.version in served]
        told.sort()
        self._moments = [moment for moment, _ in told]
        self._newest = list(accumulate((version for _, version in told), max))

    def at(self, moment: float) -> int:
        place = bisect_right(self._moments, moment)
        return self._newest[place - 1] if place else 0


def _judge(verdict: Verdict, asked: Asked, place: Published, known: _Known) -> None:
    if asked.received < place.begun:
        verdict.note(Fault.EARLY, asked, f"{place.begun - asked.received:.6f} s before it was published")
    newest = known.at(asked.sent)
    if asked.version < newest:
        verdict.note(Fault.STALE, asked, f"sent when version {newest} was known")
    if len(asked.digest) != SHOWN_DIGITS or not place.digest.startswith(asked.digest):
        verdict.note(Fault.MISNAMED, asked, f"whose seal begins otherwise than {asked.digest!r:.80}")


def _compare(verdict: Verdict, asked: Asked, wanted: Scores) -> None:
    if len(asked.scores) != len(wanted):
        verdict.note(Fault.WRONG, asked, f"{len(asked.scores)} scores for {len(wanted)} labels")
        return
    distances = [abs(score - right) for score, right in zip(asked.scores, wanted, strict=True)]
    distance = inf if any(map(isnan, distances)) else max(distances)
    verdict.farthest = max(verdict.farthest, distance)
    verdict.identical += asked.scores == wanted
    if distance > TOLERANCE:
        verdict.note(Fault.WRONG, asked, f"off by {distance:.3g}")


def _named(status: int) -> str:
    return f"status {status}" if status > 0 else Failure(status).name.lower()
