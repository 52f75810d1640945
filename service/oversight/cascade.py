"""The student answers, and where it is not sure its teacher is asked, as far as there is time for it.

All that goes wrong with the teacher leaves the student's answer, which says so; or the request is refused, as the
settings say. It knows predictors and their batches. It knows nothing of HTTP's requests or of the shape of an answer.
"""

from collections import Counter
from collections.abc import Sequence
from time import perf_counter
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from service.batching.jobs import Answer, Closed, Expired, QueueFull, RowFailed, WorkerLost
from service.bundle.confidence import margins
from service.bundle.encoder import Text
from service.bundle.errors import TextError
from service.bundle.manifest import Role
from service.bundle.tasks import Choice
from service.catalogue import Catalogue
from service.errors import InvalidRequest, NoTeacher, NotReady, TooBusy
from service.oversight.budget import Budget
from service.pairs import Pair, calibration_of, no_teacher, no_threshold, threshold_of
from service.predictors import Outcome, Pending, Predictor
from service.settings import Settings
from service.strategy import Ending, Fate, Server, Strategy, WhenBusy, affordable, unsure
from service.telemetry.metrics import Metrics
from service.telemetry.visits import Stages

SPARE_S = 0.05
"""Of a request's time, kept for the student's answer to go out: deadlines are looked after every 20 ms."""

LONGEST_WAIT_S = 60.0
"""What a client is told at most to wait for the budget."""

NEVER_RAN = (QueueFull, Closed, TextError)
"""After these the teacher has spent nothing. After all else, a client that leaves included, it may have run: what was
reckoned in advance stays spent."""


class Inquiry(NamedTuple):
    """Texts of a request, and how long it may take, as `Predictor.admit` takes them."""

    texts: Sequence[Text]
    deadline: float  # of perf_counter
    client: str | None
    truncate: bool


class Judged(NamedTuple):
    """What is said of the texts, in the order of the labels of the model that was addressed."""

    predictor: Predictor  # that was addressed
    outcomes: list[Outcome]
    stages: Stages
    own: tuple[Pending, Answer[Outcome]] | None  # what that model made of all texts, if it was asked
    fates: list[Fate] | None = None  # None where no strategy was asked for or set
    teacher: Predictor | None = None  # that answered any of them in its place


class Escalation(NamedTuple):
    """What came of asking the teacher about some texts."""

    told: list[Outcome]  # of the first of them
    teacher: Predictor | None = None
    rest: Ending = Ending.ANSWERED  # what became of those that it did not answer
    seconds: float = 0.0


class Cascade:
    """Answers by strategy. It belongs to one event loop."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._usual = None if settings.strategy is Strategy.STUDENT else settings.strategy
        self._budget = Budget(settings.escalation_budget, perf_counter())
        metrics.watch_budget(lambda: self._budget.left(perf_counter()))

    async def judge(
        self, catalogue: Catalogue, model: Predictor, inquiry: Inquiry, asked: Strategy | None = None
    ) -> Judged:
        """`asked`: by the request itself, which is refused where that strategy cannot be followed.

        A teacher answers for itself whatever the strategy. Raises what `Predictor.admit` and its future raise for the
        model that must answer, and NoTeacher, NotReady, TooBusy and InvalidRequest.
        """
        strategy = asked or self._usual
        if strategy is None:
            own = await ask(model, inquiry)
            return Judged(model, own[1].results, stages_of(model, *own), own)
        judged = await self._by_strategy(strategy, catalogue, model, inquiry, named=asked is not None)
        for server, rows in Counter(fate.served_by for fate in judged.fates or ()).items():
            model.meter.by_strategy[server].inc(rows)
        return judged

    async def _by_strategy(
        self, strategy: Strategy, catalogue: Catalogue, model: Predictor, inquiry: Inquiry, named: bool
    ) -> Judged:
        if strategy is Strategy.STUDENT or model.manifest.role is Role.TEACHER:
            return await _alone(model, inquiry)
        if strategy is Strategy.TEACHER:
            return await _by_teacher(model, require_pair(catalogue, model, named), inquiry)
        if named:
            obstacle = no_threshold(model, self._settings.cascade_threshold)
            if obstacle is not None:
                raise InvalidRequest.at("strategy", obstacle)
            require_pair(catalogue, model, named)
        elif model.bundle.meaning.choice is not Choice.BEST:
            return await _alone(model, inquiry)
        return await self._cascade(catalogue, model, inquiry)

    async def _cascade(self, catalogue: Catalogue, student: Predictor, inquiry: Inquiry) -> Judged:
        own = await ask(student, inquiry)
        pending, answer = own
        stages, outcomes = stages_of(student, pending, answer), list(answer.results)
        sure = sureness(student, outcomes)
        fates = [Fate(Server.STUDENT, margin) for margin in sure]
        threshold = threshold_of(student, self._settings.cascade_threshold)
        if threshold is None:
            self._degrade(student, Ending.UNCALIBRATED, len(fates))
            fates = [fate._replace(degraded=True) for fate in fates]
            return Judged(student, outcomes, stages, own, fates)
        places = unsure(sure, threshold)
        if not places:
            return Judged(student, outcomes, stages, own, fates)
        costs = [len(pending.rows[place]) for place in places]
        asked = inquiry._replace(texts=[inquiry.texts[place] for place in places])
        done = await self._escalate(catalogue, student, asked, costs)
        told, teacher = done.told, done.teacher
        if teacher is not None:
            student.meter.escalations[Ending.ANSWERED].inc(len(told))
            for place, outcome, margin in zip(places, told, sureness(teacher, told), strict=False):
                outcomes[place] = outcome
                fates[place] = Fate(Server.TEACHER, margin, escalated=True)
        if len(told) < len(places):
            self._degrade(student, done.rest, len(places) - len(told))
            for place in places[len(told) :]:
                fates[place] = fates[place]._replace(escalated=True, degraded=True)
        return Judged(student, outcomes, stages._replace(teacher_s=done.seconds), own, fates, teacher)

    async def _escalate(
        self, catalogue: Catalogue, student: Predictor, inquiry: Inquiry, tokens: Sequence[int]
    ) -> Escalation:
        """Ask the teacher about as many texts as its budget allows, from the first on; all of them or none."""
        pair = catalogue.shelf.pair_of(student)  # not before: another may have taken the teacher's place meanwhile
        if pair is None:
            return Escalation([], rest=Ending.ABSENT)
        began = perf_counter()
        until = min(inquiry.deadline - SPARE_S, began + self._settings.escalation_seconds)
        if not pair.teacher.alive:
            return Escalation([], rest=Ending.FAILED)
        if until < began + pair.teacher.backlog_s:  # it would be given up in the queue
            return Escalation([], rest=Ending.LATE)
        costs = [count * pair.teacher.pace.token_s for count in tokens]
        count = self._afford(costs, began)
        if not count:
            return Escalation([], rest=Ending.BUDGET)
        spent = sum(costs[:count])
        self._budget.spend(spent)
        try:
            pending, answer = await ask(pair.teacher, inquiry._replace(texts=inquiry.texts[:count], deadline=until))
        except (QueueFull, Closed, Expired, RowFailed, WorkerLost, TextError) as error:
            if isinstance(error, NEVER_RAN):
                self._budget.spend(-spent)
            return Escalation([], rest=_ending(error), seconds=perf_counter() - began)
        # Its batches may have held rows of others: what its own tokens take is the better guess, if it is less.
        self._budget.spend(min(answer.inference_s, pending.tokens * pair.teacher.pace.token_s) - spent)
        return Escalation(pair.in_order(answer.results), pair.teacher, Ending.BUDGET, perf_counter() - began)

    def _afford(self, costs: Sequence[float], now: float) -> int:
        """How many texts of these costs the teacher may be asked about."""
        if self._budget.unlimited:
            return len(costs)
        left = self._budget.left(now)
        if self._settings.when_teacher_busy is WhenBusy.REFUSE:  # nothing is gained by asking about some of them
            return len(costs) if left > 0 else 0
        return affordable(costs, left)

    def _degrade(self, student: Predictor, ending: Ending, rows: int) -> None:
        """The student's own answers go out; or, as the settings say, nothing does."""
        student.meter.escalations[ending].inc(rows)
        if self._settings.when_teacher_busy is not WhenBusy.REFUSE:
            return
        why = f"the student is not sure, and its teacher cannot be asked: {_WHY[ending]}"
        if ending is Ending.BUDGET:
            raise TooBusy(why, "budget", min(self._budget.wait_s(perf_counter()), LONGEST_WAIT_S))
        if ending is Ending.FULL:
            raise TooBusy(why, "rows", 1.0)
        raise NotReady(why)


class Asked(NamedTuple):
    """A model that was asked and has not answered yet."""

    model: Predictor
    pending: Pending

    @classmethod
    async def by(cls, model: Predictor, inquiry: Inquiry) -> "Asked":
        """Tokenise and queue. Raises what `admit` raises."""
        return cls(model, await model.admit(*inquiry))

    async def answer(self) -> Answer[Outcome]:
        """Wait, and count. Raises what the future raises."""
        answer = await self.pending.future
        self.model.record(self.pending, answer)
        return answer

    def give_up(self) -> None:
        """Nobody waits any more: what still does is not run."""
        future = self.pending.future
        if not future.cancel() and not future.cancelled():
            future.exception()  # it was looked at: else it would be logged as one that nobody saw


async def ask(model: Predictor, inquiry: Inquiry) -> tuple[Pending, Answer[Outcome]]:
    """Both in one go: nearly every request comes by here, so not by way of `Asked`."""
    pending = await model.admit(*inquiry)
    answer = await pending.future
    model.record(pending, answer)
    return pending, answer


def sureness(model: Predictor, outcomes: Sequence[Outcome]) -> list[float]:
    """The margin of each answer of a model that chooses one label, at its calibration's temperature."""
    if not outcomes:
        return []
    calibration = calibration_of(model)
    logits = np.array([outcome.logits for outcome in outcomes], dtype=np.float32)  # (B, L)
    found: list[float] = margins(logits, 1.0 if calibration is None else calibration.temperature).tolist()
    return found


def require_pair(catalogue: Catalogue, student: Predictor, named: bool) -> Pair:
    """Raises NoTeacher where the request itself needs one, NotReady where the settings do."""
    pair = catalogue.shelf.pair_of(student)
    if pair is None:
        raise NoTeacher(no_teacher(student)) if named else NotReady(f"no teacher of {student.name} is served now")
    return pair


async def _alone(model: Predictor, inquiry: Inquiry) -> Judged:
    own = await ask(model, inquiry)
    by = Server.TEACHER if model.manifest.role is Role.TEACHER else Server.STUDENT
    outcomes = own[1].results
    return Judged(model, outcomes, stages_of(model, *own), own, _fates(by, model, outcomes))


async def _by_teacher(model: Predictor, pair: Pair, inquiry: Inquiry) -> Judged:
    done = await ask(pair.teacher, inquiry)
    outcomes = pair.in_order(done[1].results)
    fates = _fates(Server.TEACHER, pair.teacher, outcomes)
    return Judged(model, outcomes, stages_of(pair.teacher, *done), None, fates, pair.teacher)


def _fates(by: Server, model: Predictor, outcomes: Sequence[Outcome]) -> list[Fate]:
    if model.bundle.meaning.choice is Choice.BEST:
        return [Fate(by, margin) for margin in sureness(model, outcomes)]
    return [Fate(by, None)] * len(outcomes)


def stages_of(model: Predictor, pending: Pending, answer: Answer[Outcome]) -> Stages:
    """Where the time of an answer went."""
    times = (pending.tokenize_s, answer.queue_s, answer.inference_s)
    return Stages(model.name, len(answer.results), pending.tokens, *times)


def _ending(error: Exception) -> Ending:
    match error:
        case QueueFull():
            return Ending.FULL
        case Expired():
            return Ending.LATE
        case Closed():
            return Ending.CLOSED
        case TextError():
            return Ending.UNREAD
    return Ending.FAILED


_WHY = MappingProxyType(
    {
        Ending.BUDGET: "its share of time is used up",
        Ending.FULL: "too many texts are waiting for it",
        Ending.LATE: "it does not answer in time",
        Ending.FAILED: "it failed",
        Ending.CLOSED: "it takes nothing any more",
        Ending.UNREAD: "it reads fewer tokens than the student",
        Ending.ABSENT: "none is served now",
        Ending.UNCALIBRATED: "nobody knows how sure the student must be, since it was never calibrated",
    }
)
