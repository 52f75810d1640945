"""What is measured of a student and its teacher: agreement, drift, and texts that were kept to learn from.

Counts of several workers add up. Of what cannot be added the worst is shown: the lowest low end, the highest high end
and effect, and any worker's alarm. It knows names of models. It knows nothing of how anything is found out.
"""

from collections.abc import Iterable

from prometheus_client import Counter, Gauge

from service.telemetry.metrics import Metrics

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
        self.rest()

    def rest(self) -> None:
        """Nothing is known, yet or any more: where series cannot be dropped this is their last word."""
        self.high.set(1)
        for gauge in (self.low, self.distance, self.alarm):
            gauge.set(0)


class DriftMeter:
    """What is measured of one feature of a student's texts."""

    def __init__(self, families: "OversightMetrics", student: str, feature: str) -> None:
        self.effect = families.effect.labels(student, feature)
        self.statistic = families.statistic.labels(student, feature)
        self.alarm = families.drift_alarm.labels(student, feature)
        self.rest()

    def rest(self) -> None:
        """As a PairMeter does."""
        for gauge in (self.effect, self.statistic, self.alarm):
            gauge.set(0)


class OversightMetrics:
    """The families, in the registry of the application."""

    def __init__(self, metrics: Metrics) -> None:
        self._shared = metrics.shared
        pair = ("model", "teacher")
        self.rows = metrics.counter("watched_rows", "Sampled answers that the teacher re-scored.", *pair)
        self.agreed = metrics.counter("agreed_rows", "Those where it came to the same.", *pair)
        self.low = metrics.gauge("agreement_low", "Low end of the lately agreement, 95 %.", *pair, mode="livemin")
        self.high = metrics.gauge("agreement_high", "High end of the lately agreement, 95 %.", *pair, mode="livemax")
        self.distance = metrics.gauge("agreement_distance", "Lately the mean |p - p'|.", *pair, mode="livemax")
        self.agreement_alarm = metrics.gauge("agreement_alarm", "1: surely less than recorded.", *pair, mode="livemax")
        missed = metrics.counter("watch_missed_rows", "Sampled answers that were not re-scored.", "reason")
        self.missed = {reason: missed.labels(reason) for reason in MISSED}
        of_feature = ("model", "feature")
        self.effect = metrics.gauge("drift_effect", "Stability index against the profile.", *of_feature, mode="livemax")
        self.statistic = metrics.gauge(
            "drift_chi_square", "Of recent texts and the profile.", *of_feature, mode="livemax"
        )
        self.drift_alarm = metrics.gauge("drift_alarm", "1: texts are unlike the profile.", *of_feature, mode="livemax")
        self.captured = metrics.counter("captured_texts", "Texts that were kept to learn from.", "reason")
        lost = metrics.counter("capture_lost_texts", "Texts that should have been kept.", "reason")
        self.lost = {reason: lost.labels(reason) for reason in LOST}
        self.capture_bytes = metrics.gauge("capture_bytes", "Of the kept texts' file, with its log.", mode="livemax")

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
