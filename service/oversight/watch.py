"""Looks at a student's answers after they were sent: drift of all, agreement of a sample, and texts worth keeping.

On the way of an answer there is only `notice`, which puts it on a list. Soon after, the event loop takes in what is on
the list, in blocks; a task has the teacher re-score the sample while it has nothing else to do. A fault of ours
switches all of it off, and hurts nobody who asks. It knows nothing of HTTP, nor of how texts are stored.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import NamedTuple
from weakref import ref

from service.batching.jobs import Closed, Expired, QueueFull, RowFailed, WorkerLost
from service.bundle.encoder import Row, Text
from service.bundle.errors import TextError
from service.bundle.manifest import Role
from service.catalogue import NoSuchModel, Shelf
from service.errors import NotReady
from service.lifecycle import Lifecycle
from service.oversight.capture import Capture, Kept, Told, Who
from service.oversight.student import Choices, Noted, Student, scored
from service.pairs import Pair
from service.predictors import Outcome, Predictor
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.telemetry.oversight import OversightMetrics

logger = logging.getLogger("understudy")

BLOCK_ROWS = 256
"""So many rows are taken in together, if they are there."""

BUSY_S = 0.001
"""After so long the event loop does something else before it takes in more."""

MOST_ANSWERED = 4096
"""Answers that may wait to be taken in; more than these are taken in at once, whatever it costs those who ask."""

SOON_S = 0.02
"""How long an answer may wait until it is taken in."""

AT_ONCE = 8
"""Rows that the teacher gets at once: whoever comes meanwhile waits for no more than these."""

PAUSE_S = 0.01
"""How often an answer waits to see whether the teacher is idle."""

PATIENCE_S = 30.0
"""For the teacher's answer."""

MISSED = (QueueFull, Closed, Expired, RowFailed, WorkerLost, TextError, NoSuchModel, NotReady)
"""What may go wrong with one re-scoring."""


Answered = tuple[Predictor, Sequence[Text], Sequence[Row], Sequence[Outcome]]
"""A model's answer to a request; no class, since making one would cost more than all the rest of `notice`."""


class Sampled(NamedTuple):
    """A row that waits for the teacher."""

    student: Student
    text: Text
    outcome: Outcome
    kept: Kept | None  # it is kept too, with what the teacher says


class Watch:
    """Belongs to one event loop."""

    def __init__(self, settings: Settings, lifecycle: Lifecycle, metrics: Metrics) -> None:
        """Raises SettingProblem where texts cannot be kept as the settings say."""
        self._settings = settings
        self._lifecycle = lifecycle
        self._metrics = OversightMetrics(metrics)
        self.capture = None if settings.capture is None else Capture(settings, self._metrics)
        self._answered: deque[Answered] = deque()
        self._due = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._students: dict[str, Student] = {}
        self._shelf: Callable[[], Shelf | None] = lambda: None  # weakly: a retired model shall leave the memory
        self._sampled: deque[Sampled] = deque()
        self._wanted = asyncio.Event()
        self._scoring: asyncio.Task[None] | None = None
        self.off: str | None = None
        """Why it looks at nothing any more."""

    def notice(
        self, predictor: Predictor, texts: Sequence[Text], rows: Sequence[Row], outcomes: Sequence[Outcome]
    ) -> None:
        """A model's own answer to texts. It never waits and never raises."""
        if self._loop is None:
            return
        self._answered.append((predictor, texts, rows, outcomes))
        if not self._due:
            self._due = True
            self._loop.call_later(SOON_S, self._take_in)

    def start(self) -> None:
        """On the event loop that answers."""
        self._loop = asyncio.get_running_loop()
        if self.capture is not None:
            self.capture.start()
        if self._settings.watch_share:
            self._scoring = self._loop.create_task(self._score())

    async def stop(self, patience_s: float) -> None:
        """Take in what was answered, keep what was chosen; re-score nothing more."""
        if self._scoring is not None:
            self._scoring.cancel()
        self._loop, self._due = None, True
        while self._answered and self.off is None:
            self._take_in()
        if self._scoring is not None:
            await asyncio.wait({self._scoring})
        for sampled in self._sampled:
            self._miss(sampled, "gone")
        self._sampled.clear()
        if self.capture is not None:
            await asyncio.to_thread(self.capture.stop, patience_s)

    def student_of(self, predictor: Predictor) -> Student | None:
        """What is known of a student; None of teachers."""
        if predictor.manifest.role is not Role.STUDENT:
            return None
        shelf = self._lifecycle.catalogue.shelf
        if self._shelf() is not shelf:
            self._shelf = ref(shelf)
            self._forget_all_but({served.name for served in shelf.predictors} | {predictor.name})
        student = self._students.get(predictor.name)
        if student is None or student.who.digest != predictor.manifest.seal:
            student = self._students[predictor.name] = Student(predictor, self._settings, self._metrics)
        student.beside(shelf.pair_of(predictor))
        return student

    def _take_in(self) -> None:
        """On the event loop: look at one block of answers."""
        try:
            until = perf_counter() + BUSY_S
            while self._answered:
                self._look()
                if perf_counter() > until and len(self._answered) <= MOST_ANSWERED:
                    break
            self._due = bool(self._answered)
            if self._due and self._loop is not None:
                self._loop.call_soon(self._take_in)
        except Exception as error:
            self._give_up(error)

    def _look(self) -> None:
        """At a block of rows, or one larger request; each model's together, since a look costs as much as many rows."""
        of_models: dict[Predictor, Noted] = {}
        left = BLOCK_ROWS
        while self._answered and left > 0:
            predictor, texts, rows, outcomes = self._answered.popleft()
            noted = of_models.get(predictor)
            if noted is None:
                noted = of_models[predictor] = Noted([], [], [])
            noted.texts.extend(texts)
            noted.rows.extend(rows)
            noted.outcomes.extend(outcomes)
            left -= len(outcomes)
        for predictor, noted in of_models.items():
            student = self.student_of(predictor)
            if student is not None:
                self._choose(student, noted, student.take_in(noted))

    def _choose(self, student: Student, noted: Noted, choices: Choices) -> None:
        """Queue what the teacher shall see, and hand over what is kept."""
        kept = {
            place: Kept(noted.texts[place], student.who, noted.outcomes[place].logits, choice)
            for place, choice in choices.kept.items()
        }
        for place in choices.sampled:
            sampled = Sampled(student, noted.texts[place], noted.outcomes[place], kept.pop(place, None))
            if len(self._sampled) < self._settings.watch_queue:
                self._sampled.append(sampled)
                self._wanted.set()
            else:
                self._miss(sampled, "busy")
        if self.capture is not None:
            for each in kept.values():
                self.capture.offer(each)

    async def _score(self) -> None:
        """For ever: let the teacher re-score what waits, while it has nothing else to do."""
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                while self._sampled:
                    await self._score_some()
        except Exception as error:
            self._give_up(error)

    async def _score_some(self) -> None:
        student = self._sampled[0].student
        pair = self._pair_by_name(student)
        if pair is None:
            self._miss(self._sampled.popleft(), "gone")
            return
        if not pair.teacher.idle:
            await asyncio.sleep(PAUSE_S)
            return
        batch: list[Sampled] = []
        while len(batch) < AT_ONCE and self._sampled and self._sampled[0].student is student:
            batch.append(self._sampled.popleft())
        began = perf_counter()
        try:
            pending = await pair.teacher.admit([each.text for each in batch], began + PATIENCE_S)
            answer = await pending.future
        except asyncio.CancelledError:
            self._sampled.extendleft(batch)  # `stop` sees to them
            raise
        except MISSED:
            for each in batch:
                self._miss(each, "failed")
        else:
            self._count(student, pair, batch, pair.in_order(answer.results))
        await asyncio.sleep(perf_counter() - began)  # so that it takes no more than half of the teacher's time

    def _count(self, student: Student, pair: Pair, batch: list[Sampled], told: Sequence[Outcome]) -> None:
        """Hold the teacher's answers against the student's."""
        teacher = Who(pair.teacher.name, pair.teacher.manifest.seal)
        for each, outcome in zip(batch, told, strict=True):
            student.count(teacher, scored(student.meaning, each.outcome, outcome))
            if each.kept is not None and self.capture is not None:
                self.capture.offer(each.kept._replace(told=Told(teacher, outcome.logits)))
        student.publish_agreement()

    def _miss(self, sampled: Sampled, reason: str) -> None:
        sampled.student.missed += 1
        self._metrics.missed[reason].inc()
        if sampled.kept is not None and self.capture is not None:
            self.capture.offer(sampled.kept)

    def _pair_by_name(self, student: Student) -> Pair | None:
        """The student's teacher as of now; None where one of them is served no more."""
        try:
            predictor = self._lifecycle.admitting.resolve(student.who.name)
        except (NoSuchModel, NotReady):
            return None
        if predictor.manifest.seal != student.who.digest:
            return None
        pair = self._lifecycle.catalogue.shelf.pair_of(predictor)
        student.beside(pair)
        return pair

    def _forget_all_but(self, served: set[str]) -> None:
        for name in set(self._students) - served:
            self._students.pop(name).leave()

    def _give_up(self, error: Exception) -> None:
        """A fault of ours: it is said once, and the service goes on without us."""
        self.off = "a fault of ours switched it off; the log has it"
        self._loop = None
        self._answered.clear()
        self._sampled.clear()
        logger.error("the watch over students is off", exc_info=error)


def open_watch(settings: Settings, lifecycle: Lifecycle, metrics: Metrics) -> Watch | None:
    """The watch, where anything of it is switched on. Raises SettingProblem."""
    if settings.watch_share or settings.drift or settings.capture is not None:
        return Watch(settings, lifecycle, metrics)
    return None
