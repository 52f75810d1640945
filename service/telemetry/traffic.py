"""What the metrics say of each model, as a few numbers: for people who watch, where Prometheus is not at hand.

Counters since the start, so that whoever asks twice has rates. It knows the names of metrics, nothing of models.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from prometheus_client import Metric


@dataclass(slots=True)
class Traffic:
    """Of one model, in all workers together."""

    requests: float = 0
    rows: float = 0
    batches: float = 0
    batched_rows: float = 0
    batched_tokens: float = 0  # with padding
    padding_tokens: float = 0
    queue_seconds: float = 0  # of all requests together
    inference_seconds: float = 0  # of all batches together
    queued_rows: float = 0  # now
    strategy_rows: float = 0  # for which a strategy was asked or set
    teacher_rows: float = 0  # those of them that a teacher answered
    watched_rows: float = 0  # that the teacher scored again
    agreed_rows: float = 0
    agreement_alarms: float = 0  # now
    drift_alarms: float = 0  # now


_FIELDS: Mapping[tuple[str, str], tuple[str, ...]] = MappingProxyType(
    {
        ("queue_seconds_count", ""): ("requests",),
        ("queue_seconds_sum", ""): ("queue_seconds",),
        ("rows_total", ""): ("rows",),
        ("batch_rows_count", ""): ("batches",),
        ("batch_rows_sum", ""): ("batched_rows",),
        ("batch_tokens_sum", ""): ("batched_tokens",),
        ("padding_tokens_total", ""): ("padding_tokens",),
        ("inference_seconds_sum", ""): ("inference_seconds",),
        ("queue_rows", ""): ("queued_rows",),
        ("strategy_rows_total", "student"): ("strategy_rows",),
        ("strategy_rows_total", "teacher"): ("strategy_rows", "teacher_rows"),
        ("watched_rows_total", ""): ("watched_rows",),
        ("agreed_rows_total", ""): ("agreed_rows",),
        ("agreement_alarm", ""): ("agreement_alarms",),
        ("drift_alarm", ""): ("drift_alarms",),
    }
)
"""Names without their prefix, and who answered where that is a label."""


def traffic_of(families: Iterable[Metric]) -> dict[str, Traffic]:
    """By model."""
    found: dict[str, Traffic] = {}
    for family in families:
        for sample in family.samples:
            name = sample.name.removeprefix("understudy_")
            for field in _FIELDS.get((name, sample.labels.get("served_by", "")), ()):
                of_model = found.setdefault(sample.labels["model"], Traffic())
                setattr(of_model, field, getattr(of_model, field) + sample.value)
    return found
