"""`GET /v1/models/{name}/oversight`: how a student does beside its teacher, and on which texts."""

from collections.abc import Iterator
from datetime import UTC, datetime

from fastapi import APIRouter
from pydantic import Field

from service.api.exchange import Desk, Wire
from service.bundle.manifest import Role
from service.bundle.tasks import Choice
from service.oversight.agreement import Count
from service.oversight.capture import Capture
from service.oversight.drift import ALPHA, CALM, SHIFTED, Drift, Feature, Verdict
from service.oversight.store import Reason
from service.oversight.student import Beside, Student
from service.predictors import Predictor
from service.settings import Settings


class Counted(Wire):
    """Answers that the teacher re-scored."""

    rows: int
    agreed: int
    share: float | None = Field(description="None of no rows")
    low: float = Field(description="The share lies from here (Wilson's interval, 95 %)")
    high: float = Field(description="to here")


class AgreementReport(Wire):
    """How often both come to the same label, or the same entities, on a uniform sample of the student's answers."""

    teacher: str = Field(description="name@version")
    teacher_digest: str
    ever: Counted = Field(description="Since this student and this teacher serve together in this worker")
    lately: Counted = Field(description="The last `window` of them at most")
    window: int
    distance: float | None = Field(
        description="Lately the mean |p - p'| over all labels; of taggers the share of entities that only one finds"
    )
    expected: float | None = Field(description="What the bundle's profile recorded with this teacher")
    missed: int = Field(description="Sampled answers that were not re-scored: the teacher was busy, failed, or left")
    alarm: bool = Field(description="Lately's high end is below what is expected, by more than 0.02")
    since: datetime | None


class FeatureReport(Wire):
    """The last rows' values of one feature, beside those of the profile."""

    feature: Feature
    rows: int = Field(description="In the window")
    statistic: float | None = Field(description="Chi-square of homogeneity; None before there are enough rows")
    freedom: int | None = Field(description="Its degrees")
    probability: float | None = Field(description="Of such a statistic where nothing differs, in one look")
    effect: float | None = Field(description="Population stability index without its bias: about 0 if nothing differs")
    alarm: bool = Field(
        description=f"The effect reached {SHIFTED} and no chance explains it: the chance of any such alarm, ever, is "
        f"{ALPHA} while texts are like the profile's. It ends below {CALM}"
    )
    since: datetime | None


class DriftReport(Wire):
    """Are the student's texts like those that it was distilled for? All of them count."""

    rows: int = Field(description="Texts so far in this worker")
    dataset: str = Field(description="Of the profile")
    profile_rows: int
    features: tuple[FeatureReport, ...]


class CaptureReport(Wire):
    """Texts that were kept to learn from, of all students."""

    sampled: int = Field(description="Kept by this worker as a fair sample")
    low_margin: int = Field(description="Kept by this worker since the student was unsure")
    lost: int = Field(description="Not kept by this worker: no room, a redactor failed, or writing has failed")
    bytes: int = Field(description="Of the file with its log; all workers share it")


class Oversight(Wire):
    """All windows and counts are of the worker that answers; /metrics adds the counts of all workers up."""

    model: str = Field(description="name@version")
    digest: str
    workers: int = Field(description="How many there are; each has its own windows")
    rows: int = Field(description="The student's answers that were looked at")
    agreement: AgreementReport | None
    drift: DriftReport | None
    capture: CaptureReport | None
    alarms: tuple[str, ...] = Field(description="`agreement` and features with an alarm")
    off: tuple[str, ...] = Field(description="What is not looked at, and why")


def router(desk: Desk) -> APIRouter:
    """The route."""
    routes = APIRouter()

    @routes.get(
        "/v1/models/{name}/oversight",
        summary="How a student does beside its teacher, and whether its texts have changed",
        responses={404: {"description": "No model of that name is served"}},
    )
    async def oversight(name: str) -> Oversight:
        return _reported(desk, desk.find(name))

    return routes


def _reported(desk: Desk, predictor: Predictor) -> Oversight:
    watch = desk.watch
    student = None if watch is None else watch.student_of(predictor)
    capture = None if watch is None or student is None else watch.capture
    agreement = None if student is None or student.pair is None else _agreement(student, student.pair, desk.settings)
    drift = None if student is None or student.drift is None else _drift(student, student.drift, predictor)
    broken = [] if watch is None or watch.off is None else [f"everything: {watch.off}"]
    return Oversight(
        model=predictor.name,
        digest=predictor.manifest.seal,
        workers=desk.settings.workers,
        rows=0 if student is None else student.rows,
        agreement=agreement,
        drift=drift,
        capture=None if capture is None else _capture(capture),
        alarms=tuple(_alarms(agreement, drift)),
        off=(*broken, *_off(desk.settings, predictor, student, capture)),
    )


def _agreement(student: Student, pair: Beside, settings: Settings) -> AgreementReport:
    agreement = pair.agreement
    return AgreementReport(
        teacher=pair.teacher.name,
        teacher_digest=pair.teacher.digest,
        ever=_counted(agreement.ever),
        lately=_counted(agreement.lately),
        window=settings.watch_window,
        distance=agreement.distance,
        expected=agreement.expected,
        missed=student.missed,
        alarm=agreement.alarm,
        since=_moment(pair.alarm_since),
    )


def _counted(count: Count) -> Counted:
    low, high = count.interval
    return Counted(rows=count.rows, agreed=count.agreed, share=count.share, low=low, high=high)


def _drift(student: Student, drift: Drift, predictor: Predictor) -> DriftReport:
    profile = predictor.manifest.profile[predictor.bundle.precision]
    return DriftReport(
        rows=drift.rows,
        dataset=profile.dataset,
        profile_rows=profile.rows,
        features=tuple(_feature(verdict, student.drift_since.get(verdict.feature)) for verdict in drift.verdicts()),
    )


def _feature(verdict: Verdict, since: float | None) -> FeatureReport:
    found = verdict.comparison
    return FeatureReport(
        feature=verdict.feature,
        rows=verdict.rows,
        statistic=None if found is None else found.statistic,
        freedom=None if found is None else found.freedom,
        probability=None if found is None else found.probability,
        effect=None if found is None else found.effect,
        alarm=verdict.alarm,
        since=_moment(since),
    )


def _capture(capture: Capture) -> CaptureReport:
    return CaptureReport(
        sampled=capture.kept[Reason.SAMPLED],
        low_margin=capture.kept[Reason.LOW_MARGIN],
        lost=capture.lost,
        bytes=capture.bytes,
    )


def _alarms(agreement: AgreementReport | None, drift: DriftReport | None) -> Iterator[str]:
    if agreement is not None and agreement.alarm:
        yield "agreement"
    for feature in () if drift is None else drift.features:
        if feature.alarm:
            yield feature.feature


def _off(settings: Settings, predictor: Predictor, student: Student | None, capture: Capture | None) -> Iterator[str]:
    if predictor.manifest.role is not Role.STUDENT:
        yield "everything: it is a teacher, and students are what is watched"
        return
    if not settings.watch_share:
        yield "agreement: set --watch-share"
    elif predictor.bundle.meaning.choice in (Choice.NONE, Choice.VECTOR, Choice.ANSWER):
        yield "agreement: numbers, vectors and answers are no labels to agree on"
    elif student is None or student.pair is None:
        yield "agreement: no teacher with the same task and labels is served beside it"
    if not settings.drift:
        yield "drift: set --drift"
    elif predictor.bundle.precision not in predictor.manifest.profile:
        yield "drift: the bundle has no profile of its texts; `python -m export calibrate` records one"
    if settings.capture is None:
        yield "capture: set --capture"
    elif capture is not None and capture.off is not None:
        yield f"capture: {capture.off}"


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
