"""What became of each request of a load, and the figures that follow from it. Arithmetic only."""

from collections import Counter
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

import numpy as np
from numpy.typing import NDArray

OK, TOO_BUSY = 200, 429
WIDTH = 1.1
"""Each bucket's upper bound is so many times the one before: any percentile can be read off within a tenth."""

Values = NDArray[np.float64]


class Failure(IntEnum):
    """What stands in place of a status where no answer came."""

    UNSENT = -1  # no connection was free in time
    LOST = -2  # the connection closed first
    TIMEOUT = -3
    GARBLED = -4  # bytes that are no answer
    WRONG = -5  # an answer, but not the right one; only who knows the right one can say so
    LEFT = -6  # the client hung up, on purpose


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a load that counts, in seconds since it began."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Samples:
    """One entry a request, in seconds since the load began; `status` may be a Failure."""

    planned: Values  # (N,)
    sent: Values  # (N,)
    done: Values  # (N,)
    status: NDArray[np.int16]  # (N,)

    def pick(self, chosen: NDArray[np.bool_]) -> "Samples":
        return Samples(self.planned[chosen], self.sent[chosen], self.done[chosen], self.status[chosen])

    def planned_in(self, window: Window) -> "Samples":
        return self.pick((self.planned >= window.start) & (self.planned < window.end))

    def done_in(self, window: Window) -> "Samples":
        return self.pick((self.done >= window.start) & (self.done < window.end))

    def of(self, status: int) -> "Samples":
        return self.pick(self.status == status)

    @property
    def latency(self) -> Values:
        """From the planned moment, not from that of sending: who waits for a connection waits as well."""
        return self.done - self.planned


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds."""

    p50: float
    p95: float
    p99: float
    p999: float
    max: float

    @classmethod
    def of(cls, seconds: Values) -> Self | None:
        """Each is a value that occurred: the smallest that so large a share does not exceed."""
        if not len(seconds):
            return None
        shares = (50, 95, 99, 99.9, 100)
        return cls(*(np.percentile(seconds, shares, method="inverted_cdf") * 1000).tolist())


@dataclass(frozen=True, slots=True)
class Figures:
    """What one load showed."""

    requests_s: float  # answered with 200 within the window, whenever they were sent
    texts_s: float
    latency_ms: Latency | None  # of these
    refused_ms: Latency | None  # of those answered with 429
    lateness_ms: Latency | None  # from planned to sent, of all: what the client and its connections added
    statuses: dict[str, int]
    errors: dict[str, int]  # anything but an answer


def figures(samples: Samples, counted: Samples, window: Window, rows: int) -> Figures:
    """Rates are those of all answers within the window, so that no overload can borrow from the time after it.
    Everything else is of the requests that count.
    """
    good, found = counted.of(OK), Counter(counted.status.tolist())
    rate = len(samples.of(OK).done_in(window).done) / window.seconds
    return Figures(
        requests_s=rate,
        texts_s=rate * rows,
        latency_ms=Latency.of(good.latency),
        refused_ms=Latency.of(counted.of(TOO_BUSY).latency),
        lateness_ms=Latency.of(counted.sent - counted.planned),
        statuses={str(status): count for status, count in sorted(found.items()) if status > 0},
        errors={Failure(status).name.lower(): count for status, count in sorted(found.items()) if status <= 0},
    )


def histogram(seconds: Values) -> list[tuple[float, int]]:
    """(upper bound in ms, count) of each bucket that has any."""
    if not len(seconds):
        return []
    places = np.ceil(np.log(np.maximum(seconds, 1e-6) * 1000) / np.log(WIDTH)).astype(int)
    found, counts = np.unique(places, return_counts=True)
    return [(round(float(WIDTH**place), 6), int(count)) for place, count in zip(found, counts, strict=True)]
