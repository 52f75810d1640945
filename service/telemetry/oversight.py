"""What is measured of a student and its teacher: agreement, drift, and texts that were kept to learn from.

Counts of several workers add up. Of what cannot be added the worst is shown: the lowest low end, the highest high end
and effect, and any worker's alarm. It knows names of models. It knows nothing of how anything is found out.
"""

import os
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge

from service.telemetry.metrics import SHARED

MISSED = ("busy", "failed", "gone")
"""Why a sampled answer was not re-scored: no room in the queue, the teacher failed on it, one of the two left."""

LOST = ("busy", "redaction", "too_long", "off")
"""Why a chosen text was not kept: no room in queue or file, a redactor failed, more than fits, writing has failed."""


class PairMeter:
    """What is measured of a student beside one teacher."""

    def __init__(self, families: "OversightMetrics", student: str, teacher: str) -> None:
        self.rows = families.rows.labels(student, teacher)
        self.agreed = families.agreed.labels(student, teacher)
        self.low = families.low.labels(student, teacher)
        self.high = families.high.labels(student, teacher)
        self.distance = families.distance.labels(student, teacher)
        self.alarm = families.agreement_alarm.labels(student, teacher)
        self.high.set(1)  # nothing is known yet


class DriftMeter:
    """What is measured of one feature of a student's texts."""

    def __init__(self, families: "OversightMetrics", student: str, feature: str) -> None:
        self.effect = families.effect.labels(student, feature)
        self.statistic = families.statistic.labels(student, feature)
        self.alarm = families.drift_alarm.labels(student, feature)


class OversightMetrics:
    """The families, in the registry of the application."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._shared = SHARED in os.environ
        pair = ("model", "teacher")
        self.rows = self._counter("watched_rows", "Sampled answers that the teacher re-scored.", *pair)
        self.agreed = self._counter("agreed_rows", "Those where it came to the same.", *pair)
        self.low = self._gauge("agreement_low", "Low end of the lately agreement, 95 %.", "livemin", *pair)
        self.high = self._gauge("agreement_high", "High end of the lately agreement, 95 %.", "livemax", *pair)
        self.distance = self._gauge("agreement_distance", "Lately the mean |p - p'|.", "livemax", *pair)
        self.agreement_alarm = self._gauge("agreement_alarm", "1: surely less than recorded.", "livemax", *pair)
        missed = self._counter("watch_missed_rows", "Sampled answers that were not re-scored.", "reason")
        self.missed = {reason: missed.labels(reason) for reason in MISSED}
        of_feature = ("model", "feature")
        self.effect = self._gauge("drift_effect", "Stability index against the profile.", "livemax", *of_feature)
        self.statistic = self._gauge("drift_chi_square", "Of recent texts and the profile.", "livemax", *of_feature)
        self.drift_alarm = self._gauge("drift_alarm", "1: texts are unlike the profile.", "livemax", *of_feature)
        self.captured = self._counter("captured_texts", "Texts that were kept to learn from.", "reason")
        lost = self._counter("capture_lost_texts", "Texts that should have been kept.", "reason")
        self.lost = {reason: lost.labels(reason) for reason in LOST}
        self.capture_bytes = self._gauge("capture_bytes", "Of the kept texts' file, with its log.", "livemax")

    def forget_student(self, student: str) -> None:
        """Drop all series of a model that has gone."""
        self._forget({"model": student}, (*self._of_pairs(), self.effect, self.statistic, self.drift_alarm))

    def forget_pair(self, student: str, teacher: str) -> None:
        """Drop the series of a pair that is one no more."""
        self._forget({"model": student, "teacher": teacher}, self._of_pairs())

    def _of_pairs(self) -> tuple[Counter | Gauge, ...]:
        return self.rows, self.agreed, self.low, self.high, self.distance, self.agreement_alarm

    def _forget(self, labels: dict[str, str], families: Iterable[Counter | Gauge]) -> None:
        if not self._shared:  # values in files cannot be taken back
            for family in families:
                family.remove_by_labels(labels)

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(name, what, labels, namespace="understudy", registry=self._registry)

    def _gauge(self, name: str, what: str, mode: str, *labels: str) -> Gauge:
        return Gauge(
            name,
            what,
            labels,
            namespace="understudy",
            registry=self._registry,
            multiprocess_mode=mode,  # type: ignore[arg-type]  # the library's own names
        )
