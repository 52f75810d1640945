"""What may be told of a request: its times and sizes, never its text, its headers or its key.

Access log, traces, the header Server-Timing and metrics say this much. It knows nothing of HTTP or models.
"""

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import NamedTuple

Headers = Sequence[tuple[bytes, bytes]]


class Stages(NamedTuple):
    """Where the time of an answer went, and how large it was."""

    model: str
    rows: int
    tokens: int
    tokenize_s: float
    queue_s: float
    inference_s: float
    teacher_s: float = 0.0  # of waiting for a teacher too

    @property
    def spent_s(self) -> float:
        """On the model's own answer."""
        return self.tokenize_s + self.queue_s + self.inference_s


@dataclass(frozen=True, slots=True)
class Visit:
    """One request, as far as it may be written down."""

    method: str
    route: str  # as registered, not as sent
    status: int
    seconds: float
    request_id: str | None = None
    key: str | None = None  # the public name
    stages: Stages | None = None


@dataclass(frozen=True, slots=True)
class SpanIds:
    """Which trace a line belongs to."""

    trace_id: str
    span_id: str


current_span: ContextVar[SpanIds | None] = ContextVar("current_span", default=None)
"""Set while a traced request is worked on, so that its log lines can say so."""


def server_timing(stages: Stages, total_s: float) -> bytes:
    """The value of the header Server-Timing, in milliseconds."""
    timing = b"tokenize;dur=%.3f, queue;dur=%.3f, inference;dur=%.3f, total;dur=%.3f" % (
        stages.tokenize_s * 1e3,
        stages.queue_s * 1e3,
        stages.inference_s * 1e3,
        total_s * 1e3,
    )
    return timing if not stages.teacher_s else b"%b, teacher;dur=%.3f" % (timing, stages.teacher_s * 1e3)
