"""How often a student says what its teacher says, since the start and lately.

It knows rows that both have answered. It knows nothing of how they were asked.
"""

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from service.oversight.intervals import Interval, wilson

FEWEST = 200
"""Rows in the window before it can raise an alarm."""

MARGIN = 0.02
"""So much less agreement than the profile's is no matter for an alarm."""


class Scored(NamedTuple):
    """One row that both have answered."""

    agrees: bool
    distance: float  # mean |p - p'| over the labels; of taggers the share of entities that only one has found


@dataclass(frozen=True, slots=True)
class Count:
    """Rows and how many of them agree."""

    rows: int
    agreed: int

    @property
    def share(self) -> float | None:
        return self.agreed / self.rows if self.rows else None

    @property
    def interval(self) -> Interval:
        """Wilson's, for 95 %."""
        return wilson(self.agreed, self.rows)


class Agreement:
    """Counts of one pair of student and teacher."""

    def __init__(self, window: int, expected: float | None) -> None:
        """`expected`: what the profile recorded, if it did."""
        self._recent: deque[Scored] = deque(maxlen=window)
        self._recently_agreed = 0
        self._recent_distance = 0.0
        self._rows = 0
        self._agreed = 0
        self.expected = expected

    def add(self, scored: Scored) -> None:
        """Count a row."""
        recent = self._recent
        if len(recent) == recent.maxlen:
            self._recently_agreed -= recent[0].agrees
            self._recent_distance -= recent[0].distance
        recent.append(scored)
        self._recently_agreed += scored.agrees
        self._recent_distance += scored.distance
        self._rows += 1
        self._agreed += scored.agrees

    @property
    def ever(self) -> Count:
        """Since the start."""
        return Count(self._rows, self._agreed)

    @property
    def lately(self) -> Count:
        """In the window."""
        return Count(len(self._recent), self._recently_agreed)

    @property
    def distance(self) -> float | None:
        """The mean |p - p'| in the window."""
        return max(0.0, self._recent_distance / len(self._recent)) if self._recent else None

    @property
    def alarm(self) -> bool:
        """Is the agreement of late surely lower than the profile's, by more than MARGIN?"""
        if self.expected is None or len(self._recent) < FEWEST:
            return False
        return self.lately.interval.high < self.expected - MARGIN
