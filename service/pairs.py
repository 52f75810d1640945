"""Which teacher belongs to a student, its columns in the student's order, and what a strategy needs of both.

It knows manifests and served models. It knows nothing of requests or of how a model is run.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from service.bundle.manifest import Calibration, Manifest, Role
from service.bundle.tasks import Choice
from service.predictors import Outcome, Predictor
from service.strategy import Strategy


class Pair(NamedTuple):
    """A student's teacher. It holds no student, so that one that has left is not kept in memory by it."""

    teacher: Predictor
    columns: tuple[int, ...] | None  # for each label of the student the teacher's place of it; None: the same order

    def in_order(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """The teacher's outcomes, with scores and logits in the order of the student's labels."""
        if self.columns is None:
            return list(outcomes)
        places = self.columns
        return [
            Outcome(_in_order(scores, places), _in_order(logits, places), tagged) for scores, logits, tagged in outcomes
        ]


def find_pair(student: Predictor, served: Iterable[Predictor], wanted: str | None = None) -> Pair | None:
    """The teacher that stands beside a student; None where none of these fits, or where it is a teacher itself.

    Of several that fit: `wanted`, name or name@version; else the one that the student's calibration names, in that
    version or another; else the first by name. Of a name the newest version.
    """
    if student.manifest.role is not Role.STUDENT:
        return None
    fitting = [
        teacher
        for teacher in served
        if teacher.manifest.role is Role.TEACHER and alike(student.manifest, teacher.manifest)
    ]
    if not fitting:
        return None
    calibration = calibration_of(student)
    known = "" if calibration is None else calibration.teacher
    return pair_with(student, min(fitting, key=lambda teacher: _order(teacher, wanted, known)))


def pair_with(student: Predictor, teacher: Predictor) -> Pair:
    """Of two models that are alike."""
    return Pair(teacher, columns(student.manifest.labels, teacher.manifest.labels))


def alike(one: Manifest, other: Manifest) -> bool:
    """Do they say the same of the same texts: may one be held against the other?"""
    return one.task is other.task and one.texts == other.texts and set(one.labels) == set(other.labels)


def columns(wanted: Sequence[str], given: Sequence[str]) -> tuple[int, ...] | None:
    """For each wanted label its place among the given ones; None where it is the same place for all."""
    if tuple(wanted) == tuple(given):
        return None
    return tuple(map(given.index, wanted))


def calibration_of(student: Predictor) -> Calibration | None:
    """How sure the student must be, measured of the graph that is served."""
    return student.manifest.calibration.get(student.bundle.precision)


def threshold_of(student: Predictor, override: float | None) -> float | None:
    """The smallest margin with which its answer stands; None where nobody knows."""
    calibration = calibration_of(student)
    return calibration.threshold if override is None and calibration is not None else override


def no_threshold(student: Predictor, override: float | None) -> str | None:
    """Why it cannot be in a cascade, whatever teacher there is; None if it can."""
    if student.bundle.meaning.choice is not Choice.BEST:
        return f"a cascade is for models that choose one label of several, and {student.name} does not"
    if threshold_of(student, override) is None:
        return (
            f"{student.name} has no calibration for its {student.bundle.precision} graph; "
            "run `python -m export calibrate`, or serve with --cascade-threshold"
        )
    return None


def no_teacher(student: Predictor) -> str:
    """What to do where none is served."""
    return (
        f"no teacher of {student.name} is served; put one with the same labels into the folder of models, "
        "for instance with `python -m export adopt`"
    )


def obstacle(student: Predictor, pair: Pair | None, strategy: Strategy, override: float | None) -> str | None:
    """Why a student cannot answer by this strategy; None if it can."""
    if strategy is Strategy.STUDENT or student.manifest.role is Role.TEACHER:
        return None
    missing = no_threshold(student, override) if strategy is Strategy.CASCADE else None
    return missing or (no_teacher(student) if pair is None else None)


def _in_order(row: Sequence[float], places: Sequence[int]) -> list[float]:
    """A tagger's row has one piece behind the other."""
    return [row[start + place] for start in range(0, len(row), len(places)) for place in places]


def _order(teacher: Predictor, wanted: str | None, known: str) -> tuple[bool, bool, bool, str, int]:
    name, version = teacher.manifest.name, int(teacher.manifest.version)
    unwanted = wanted not in (teacher.name, name)
    return unwanted, teacher.name != known, name != known.partition("@")[0], name, -version
