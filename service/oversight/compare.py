"""Student and teacher on the same texts at the same time, and how far they agree.

It knows predictors and scores. It knows nothing of HTTP or of the shape of an answer.
"""

from collections.abc import Sequence
from typing import NamedTuple

from service.bundle import passages, spans
from service.bundle.passages import BEST_ANSWER
from service.bundle.tasks import Choice, Meaning
from service.catalogue import Shelf
from service.errors import InvalidRequest, NoTeacher
from service.oversight.cascade import Asked, Inquiry, stages_of
from service.pairs import Pair, alike, no_teacher, pair_with
from service.predictors import Outcome, Predictor
from service.telemetry.visits import Stages


class Compared(NamedTuple):
    """What both say, in the order of the student's labels, and what it cost each."""

    student: Predictor
    teacher: Predictor
    ours: list[Outcome]
    theirs: list[Outcome]
    our_stages: Stages
    their_stages: Stages


def choose_pair(shelf: Shelf, student: Predictor, named: str | None) -> Pair:
    """The student's own teacher, or any model by name that says the same of the same texts.

    Raises NoTeacher, NoSuchModel or InvalidRequest.
    """
    if named is None:
        pair = shelf.pair_of(student)
        if pair is None:
            raise NoTeacher(no_teacher(student))
        return pair
    other = shelf.resolve(named)
    if not alike(student.manifest, other.manifest):
        why = f"{other.name} and {student.name} differ in task, in labels or in how many texts they read at once"
        raise InvalidRequest.at("teacher", why)
    return pair_with(student, other)


async def compare(student: Predictor, pair: Pair, inquiry: Inquiry) -> Compared:
    """Ask both. Raises what asking either raises; then the other is not waited for, nor run if it still waits."""
    first = await Asked.by(student, inquiry)
    try:
        second = await Asked.by(pair.teacher, inquiry)
    except BaseException:
        first.give_up()
        raise
    try:
        ours, theirs = await first.answer(), await second.answer()
    except BaseException:
        first.give_up()
        second.give_up()
        raise
    return Compared(
        student,
        pair.teacher,
        ours.results,
        pair.in_order(theirs.results),
        stages_of(student, first.pending, ours),
        stages_of(pair.teacher, second.pending, theirs),
    )


def agreements(meaning: Meaning, ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> list[float]:
    """Of each row the share of decisions in which both agree.

    Where one label is chosen it is the one decision; where each label holds or not, there are as many as labels; where
    entities are marked, as many as either finds; of answers to questions, each character of either.
    """
    return [_agreement(meaning, one, other) for one, other in zip(ours, theirs, strict=True)]


def _agreement(meaning: Meaning, ours: Outcome, theirs: Outcome) -> float:
    if meaning.choice is Choice.SPANS:
        return spans.shared(ours.entities, theirs.entities)
    if meaning.choice is Choice.ANSWER:
        return passages.shared(ours.answers(BEST_ANSWER), theirs.answers(BEST_ANSWER))
    mine, other = set(meaning.chosen(ours.scores)), set(meaning.chosen(theirs.scores))
    if meaning.choice is Choice.BEST:
        return float(mine == other)
    return 1 - len(mine ^ other) / len(ours.scores)
