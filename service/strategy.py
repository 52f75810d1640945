"""Who answers, and what is said of each answer. Words and pure decisions; it knows nothing of models or requests."""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from itertools import accumulate
from typing import NamedTuple


class Strategy(StrEnum):
    """Who answers."""

    STUDENT = "student"
    TEACHER = "teacher"
    CASCADE = "cascade"  # the student; its teacher where the student is not sure


class WhenBusy(StrEnum):
    """What becomes of a text that the teacher should answer and cannot."""

    DEGRADE = "degrade"  # the student's answer goes out, and says so
    REFUSE = "refuse"  # the request fails


class Server(StrEnum):
    """Whose answer it is."""

    STUDENT = "student"
    TEACHER = "teacher"


class Ending(StrEnum):
    """How the escalation of a text ended."""

    ANSWERED = "answered"  # by the teacher; all others are degraded, or refused
    BUDGET = "budget"  # the teacher's share of time is used up
    FULL = "full"  # the teacher's queue has no room
    LATE = "late"
    FAILED = "failed"  # the teacher failed on a text, or its worker was lost
    CLOSED = "closed"  # the teacher takes nothing any more: it is being replaced
    UNREAD = "unread"  # the teacher cannot read the text as it is
    ABSENT = "absent"  # no teacher is served
    UNCALIBRATED = "uncalibrated"  # nobody knows how sure the student must be


class Fate(NamedTuple):
    """Where a text's answer comes from."""

    served_by: Server
    confidence: float | None  # the margin of whoever answered, from 0 to 1; None where no label is chosen
    escalated: bool = False  # the student was not sure enough: the teacher was to answer
    degraded: bool = False  # the teacher was to answer and could not: this is the student's answer all the same


def served_by(fates: Iterable[Fate]) -> str:
    """Of a whole answer: student, teacher or both."""
    found = {fate.served_by for fate in fates}
    return str(found.pop()) if len(found) == 1 else "both"


def unsure(margins: Sequence[float], threshold: float) -> list[int]:
    """The places of those below the threshold, the least sure first."""
    return sorted((place for place, margin in enumerate(margins) if margin < threshold), key=margins.__getitem__)


def affordable(costs: Sequence[float], left: float) -> int:
    """How many of these, from the first on, may begin: as long as those before have not used up what is left.

    The last one may cost more than there is, and those to come pay for it: else a long text would never begin.
    """
    return sum(spent < left for spent in accumulate(costs[:-1], initial=0.0)) if costs else 0
