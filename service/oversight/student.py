"""What the watch knows of one student: its drift, its agreement with its teacher, and which of its rows to look at.

It knows rows that were answered. It knows nothing of queues, tasks or files.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from time import time
from typing import NamedTuple

import numpy as np

from service.bundle.confidence import Values, margins, unknown_shares
from service.bundle.encoder import Row, Text
from service.bundle.manifest import Precision, SealedManifest
from service.bundle.rows import pieces
from service.bundle.spans import shared
from service.bundle.tasks import Choice as Chooses
from service.bundle.tasks import Meaning
from service.oversight.agreement import Agreement, Scored
from service.oversight.capture import Choice, Who
from service.oversight.drift import Drift, Feature, Sample, Verdict
from service.oversight.sampling import Skips
from service.oversight.store import Reason
from service.pairs import Pair
from service.predictors import Outcome, Predictor
from service.settings import Settings
from service.telemetry.oversight import DriftMeter, OversightMetrics, PairMeter

logger = logging.getLogger("understudy")


@dataclass(frozen=True, slots=True)
class Noted:
    """Answered rows of one student."""

    texts: list[Text]
    rows: list[Row]
    outcomes: list[Outcome]


class Choices(NamedTuple):
    """Which rows to do something about, by their places."""

    sampled: list[int]  # for the teacher
    kept: dict[int, Choice]


class Beside:
    """A student beside one teacher."""

    def __init__(self, teacher: Who, agreement: Agreement, meter: PairMeter) -> None:
        self.teacher = teacher
        self.agreement = agreement
        self.meter = meter
        self.alarm_since: float | None = None


class Student:
    """From its first answer until it leaves."""

    def __init__(self, predictor: Predictor, settings: Settings, metrics: OversightMetrics) -> None:
        manifest, precision = predictor.manifest, predictor.bundle.precision
        self.who = Who(predictor.name, manifest.seal)
        self.meaning = predictor.bundle.meaning
        self.rows = 0
        self.missed = 0
        self.pair: Beside | None = None
        self.drift_since: dict[Feature, float] = {}
        self._settings = settings
        self._metrics = metrics
        self._unknown_id = predictor.bundle.encoder.unknown_id
        self._temperature, self._calibrated_to = _calibration(manifest, precision)
        self._profile = manifest.profile.get(precision)
        self.drift = Drift(self._profile) if settings.drift and self._profile is not None else None
        self._drift_meters = {
            feature: DriftMeter(metrics, self.who.name, feature) for feature in (Feature if self.drift else ())
        }
        self._sampled = Skips(settings.watch_share)
        self._kept = Skips(0 if settings.capture is None else settings.capture_share)
        self._keep_below = 0.0 if settings.capture is None or not self._sure else settings.capture_margin

    def beside(self, pair: Pair | None) -> None:
        """From now on this is its teacher; with another one counting begins anew."""
        watched = None if not self._settings.watch_share or self.meaning.choice is Chooses.NONE else pair
        digest = None if watched is None else watched.teacher.manifest.seal
        if digest == (None if self.pair is None else self.pair.teacher.digest):
            return
        if self.pair is not None:
            self.pair.meter.rest()
            self._metrics.forget_pair(self.who.name, self.pair.teacher.name)
        self.pair = None if watched is None else self._beside(watched.teacher)

    def leave(self) -> None:
        """It is served no more."""
        for meter in self._drift_meters.values():
            meter.rest()
        if self.pair is not None:
            self.pair.meter.rest()
        self._metrics.forget_student(self.who.name)

    def take_in(self, noted: Noted) -> Choices:
        """Look at rows that were answered, and choose."""
        count = len(noted.outcomes)
        self.rows += count
        unsure: list[int] = []
        if self.drift is not None or self._keep_below:
            margin = self._margins(noted.outcomes)
            unsure = np.flatnonzero(margin < self._keep_below).tolist() if self._keep_below else []
            if self.drift is not None and self.drift.add(self._sample(noted.rows, margin)):
                self._publish_drift(self.drift.verdicts())
        sampled = [] if self.pair is None else self._sampled.take(count)
        return Choices(sampled, self._choices(self._kept.take(count), unsure))

    def count(self, teacher: Who, scored: Scored) -> None:
        """A row that the teacher has re-scored."""
        if self.pair is None or self.pair.teacher != teacher:  # another took its place meanwhile
            return
        self.pair.agreement.add(scored)
        self.pair.meter.rows.inc()
        self.pair.meter.agreed.inc(scored.agrees)

    def publish_agreement(self) -> None:
        """Bring the gauges up to date, and say it if the alarm begins or ends."""
        pair = self.pair
        if pair is None:
            return
        agreement, interval = pair.agreement, pair.agreement.lately.interval
        pair.meter.low.set(interval.low)
        pair.meter.high.set(interval.high)
        pair.meter.distance.set(agreement.distance or 0.0)
        alarm = agreement.alarm
        pair.meter.alarm.set(alarm)
        if alarm is (pair.alarm_since is not None):
            return
        pair.alarm_since = time() if alarm else None
        if alarm:
            logger.warning(
                "%s: lately it agrees with %s on at most %.1f %%, %.1f %% were recorded",
                *(self.who.name, pair.teacher.name, 100 * interval.high, 100 * (agreement.expected or 0)),
            )
        else:
            logger.warning("%s: its agreement with %s is no longer too low", self.who.name, pair.teacher.name)

    @property
    def _sure(self) -> bool:
        """Is there a margin to speak of?"""
        return self.meaning.choice is Chooses.BEST

    def _beside(self, teacher: Predictor) -> Beside:
        who = Who(teacher.name, teacher.manifest.seal)
        expected = None if self._profile is None else self._profile.agreement
        if self._calibrated_to not in (None, who.name):  # what was recorded is of another teacher
            expected = None
        agreement = Agreement(self._settings.watch_window, expected)
        return Beside(who, agreement, PairMeter(self._metrics, self.who.name, who.name))

    def _margins(self, outcomes: Sequence[Outcome]) -> Values:
        if not self._sure:
            return np.ones(len(outcomes))
        return margins(np.array([outcome.logits for outcome in outcomes], dtype=np.float32), self._temperature)

    def _sample(self, rows: Sequence[Row], margin: Values) -> Sample:
        tokens = np.fromiter(map(len, rows), dtype=np.float64, count=len(rows))
        return Sample(tokens, unknown_shares(list(map(pieces, rows)), self._unknown_id), margin)

    def _choices(self, sampled: list[int], unsure: list[int]) -> dict[int, Choice]:
        """An unsure row is kept in any case, so that is the probability with which it was chosen."""
        if not sampled and not unsure:
            return {}
        now = time()
        fair = Choice(now, Reason.SAMPLED, self._settings.capture_share)
        return dict.fromkeys(sampled, fair) | dict.fromkeys(unsure, Choice(now, Reason.LOW_MARGIN, 1.0))

    def _publish_drift(self, verdicts: Sequence[Verdict]) -> None:
        for verdict in verdicts:
            if verdict.comparison is None:
                continue
            meter = self._drift_meters[verdict.feature]
            meter.effect.set(verdict.comparison.effect)
            meter.statistic.set(verdict.comparison.statistic)
            meter.alarm.set(verdict.alarm)
            if verdict.alarm is (verdict.feature in self.drift_since):
                continue
            if verdict.alarm:
                self.drift_since[verdict.feature] = time()
                how = "unlike the profile"
            else:
                del self.drift_since[verdict.feature]
                how = "like the profile again"
            logger.warning(
                "%s: its texts are %s by %s (effect %.2f)",
                self.who.name,
                how,
                verdict.feature,
                verdict.comparison.effect,
            )


def scored(meaning: Meaning, ours: Outcome, theirs: Outcome) -> Scored:
    """The student's answer beside the teacher's, both in the student's order of labels."""
    if meaning.choice is Chooses.SPANS:
        share = shared(ours.entities, theirs.entities)
        return Scored(share == 1, 1 - share)
    distance = sum(abs(p - q) for p, q in zip(ours.scores, theirs.scores, strict=True)) / len(ours.scores)
    return Scored(meaning.chosen(ours.scores) == meaning.chosen(theirs.scores), distance)


def _calibration(manifest: SealedManifest, precision: Precision) -> tuple[float, str | None]:
    """The temperature of its margins, and the teacher that it was measured against."""
    found = manifest.calibration.get(precision)
    return (1.0, None) if found is None else (found.temperature, found.teacher)
