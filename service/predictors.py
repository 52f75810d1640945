"""Predictor = bundle + queue + workers: texts -> scores in the order of the model's labels.

A teacher is one more predictor, with a queue and threads of its own, so that it never delays a student.
It knows texts and scores. It knows nothing of HTTP, nor of other models.
"""

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import perf_counter
from types import MappingProxyType
from typing import NamedTuple, TypeVar

import numpy as np

from service.batching.batcher import Batcher
from service.batching.jobs import NEVER, Answer, BatchRun, Expired, Limits
from service.batching.pace import Pace
from service.bundle.encoder import Row, Text
from service.bundle.errors import TextTooLong
from service.bundle.manifest import Role
from service.bundle.passages import AnswerSpan, Parts, Search, answers, of_texts
from service.bundle.rows import Passage, Spanned
from service.bundle.runtime import OpenBundle, RunHandle
from service.bundle.spans import Entity, Tag, entities
from service.bundle.tasks import Choice, Logits, Scores
from service.host.priority import give_way
from service.settings import Settings
from service.telemetry.metrics import Metrics, ModelMeter

INLINE_CHARS = 1000
"""Longest single text that is tokenised on the event loop: handing it to a thread would take longer."""

MODEL_DIGEST = b"x-model-digest"
TEACHER_DIGEST = b"x-teacher-digest"  # where the teacher answered in a student's place
SERVED_BY = b"x-served-by"  # student, teacher or both, where a strategy is asked for or set
SHOWN_DIGITS = 12
"""Of a bundle's seal, in each answer: enough to tell any two of one's bundles apart."""

RowScores = list[float]


class Tagged(NamedTuple):
    """What a tagger found in a text."""

    row: Spanned
    entities: tuple[Entity, ...]  # as its first piece has it of each word


class Outcome(NamedTuple):
    """What the model says of one text, in the order of its labels; a tagger of each piece, one behind the other.

    One that answers questions has no scores of a text, and says it of its parts.
    """

    scores: RowScores
    logits: list[float]
    read: Tagged | Parts | None = None  # where pieces are answered for

    @property
    def tagged(self) -> Tagged:
        """A tagger's; no other model's is asked for it."""
        assert isinstance(self.read, Tagged)
        return self.read

    @property
    def entities(self) -> tuple[Entity, ...]:
        """What was found in the text."""
        return self.read.entities if isinstance(self.read, Tagged) else ()

    def answers(self, search: Search) -> list[AnswerSpan]:
        """To a question, from its text; of another model none."""
        return answers(*self.read, search) if isinstance(self.read, Parts) else []


class Pending(NamedTuple):
    """Texts that were tokenised and entered the queue."""

    future: "asyncio.Future[Answer[Outcome]]"
    tokens: int
    tokenize_s: float
    rows: list[Row]  # as the model reads them


class Predictor:
    """One model that answers."""

    def __init__(self, bundle: OpenBundle, settings: Settings, metrics: Metrics) -> None:
        self.bundle = bundle
        self.manifest = manifest = bundle.manifest
        self.name = f"{manifest.name}@{manifest.version}"
        self.name_json = json.dumps(self.name)
        self.digest = (MODEL_DIGEST, manifest.seal[:SHOWN_DIGITS].encode())  # a header of each of its answers
        self.labels_json = tuple(json.dumps(label) for label in manifest.labels)
        self.tags = tuple(map(Tag.of, manifest.labels))  # what they are to a tagger
        self.meter = metrics.of_model(self.name, manifest.role, manifest.task, bundle.precision, bundle.chosen.engine)
        self.pace = Pace()
        student = manifest.role is Role.STUDENT
        prepare = None if student else partial(give_way, settings.teacher_nice)
        # Not a method of ours: a cycle would keep a retired model in memory until Python's collector comes by, and
        # that is seldom, or never for the models of the start; see `worker`.
        observe = partial(_observe, self.meter) if student else partial(_observe_teacher, self.meter, self.pace)
        bounds = limits(settings, manifest.role)
        self._most = min(bounds.queued, bounds.queued_of_one)  # parts of the texts of a request
        self._batcher: Batcher[Row, Outcome] = Batcher(
            partial(_RUNNERS.get(bundle.meaning.choice, _Runner), bundle),
            bounds,
            workers=settings.student_workers if student else 1,
            name=self.name,
            observe=observe,
            prepare=prepare,
        )
        batcher = self._batcher
        self.meter.watch(lambda: self.queued_rows, lambda: batcher.queued_tokens, lambda: batcher.dropped_rows)
        self._tokenizer = ThreadPoolExecutor(1, f"{self.name}-tokenizer", prepare)

    @property
    def alive(self) -> bool:
        """Do its workers run?"""
        return self._batcher.alive

    @property
    def queued_rows(self) -> int:
        """Texts that wait to be tokenised or to be run."""
        return self._batcher.reserved_rows + self._batcher.queued_rows

    @property
    def idle(self) -> bool:
        """Has nobody asked it for anything that is not answered?"""
        return not self._batcher.reserved_rows and self._batcher.idle

    @property
    def backlog_s(self) -> float:
        """How long a teacher will run what waits for it now, as far as that is known."""
        return self._batcher.queued_tokens * self.pace.token_s

    async def admit(
        self, texts: Sequence[Text], deadline: float = NEVER, client: str | None = None, truncate: bool = True
    ) -> Pending:
        """Tokenise and queue all texts or none. Raises QueueFull, Closed, Expired or TextError.

        `deadline` is a time of `perf_counter`; `client` stands for whoever shares a part of the queue.
        """
        started = perf_counter()
        if len(texts) == 1 and chars(texts[0]) <= INLINE_CHARS:
            self._batcher.require_room(1, client)
            rows = self.bundle.encoder.encode(texts, truncate=truncate)
        else:
            with self._batcher.room(len(texts), client):
                rows = await _in_time(self._encode_aside(texts, truncate), deadline)
        elapsed = perf_counter() - started
        answering = self.bundle.meaning.choice is Choice.ANSWER
        if answering and len(rows) > self._most:  # it would never be taken, however long one waits
            raise TextTooLong(f"the texts have {len(rows)} parts, and {self._most} may wait at once; send fewer", None)
        future = self._batcher.submit(rows, deadline, client)
        if answering:
            future = asyncio.ensure_future(_of_texts(future, rows))
        return Pending(future, sum(map(len, rows)), elapsed, rows)

    def record(self, pending: Pending, answer: Answer[Outcome]) -> None:
        """Count an answered request."""
        meter = self.meter
        meter.rows.inc(len(answer.results))
        meter.tokens.inc(pending.tokens)
        meter.tokenize.observe(pending.tokenize_s)
        meter.queue.observe(answer.queue_s)

    async def close(self, patience_s: float) -> None:
        """Run what waits, then end the threads. Nobody may ask it for anything new."""
        deadline = perf_counter() + patience_s
        while self._batcher.reserved_rows and perf_counter() < deadline:  # they are about to enter the queue
            await asyncio.sleep(0.002)
        await self._batcher.close(deadline - perf_counter())
        self._tokenizer.shutdown(wait=False, cancel_futures=True)
        self.meter.forget()

    def _encode_aside(self, texts: Sequence[Text], truncate: bool) -> "asyncio.Future[list[Row]]":
        """Many or long texts would hold up everyone else on the event loop."""
        encode = self.bundle.encoder.encode
        return asyncio.get_running_loop().run_in_executor(self._tokenizer, lambda: encode(texts, truncate=truncate))


Made = TypeVar("Made")


async def _in_time(work: "asyncio.Future[Made]", deadline: float) -> Made:
    """What the work gives. What has not begun when its time is over is never done. Raises Expired."""
    if deadline == NEVER:
        return await work
    late = False

    def give_up() -> None:
        nonlocal late
        late = work.cancel()

    timer = asyncio.get_running_loop().call_later(deadline - perf_counter(), give_up)
    try:
        return await work
    except asyncio.CancelledError:
        if late:  # else the client has left
            raise Expired("the deadline passed") from None
        raise
    finally:
        timer.cancel()


def _observe(meter: ModelMeter, run: BatchRun) -> None:
    meter.inference.observe(run.seconds)
    meter.batch_rows.observe(run.rows)
    meter.batch_tokens.observe(run.tokens)
    meter.padding.inc(run.tokens - run.filled)


def _observe_teacher(meter: ModelMeter, pace: Pace, run: BatchRun) -> None:
    pace.learn(run.filled, run.seconds)
    _observe(meter, run)


class _Runner:
    """Runs batches of one bundle for one worker."""

    def __init__(self, bundle: OpenBundle) -> None:
        self._bundle = bundle
        self._handle = RunHandle()

    def run(self, rows: Sequence[Row]) -> list[Outcome]:
        logits = self._bundle.run(rows, self._handle)  # (B, L)
        if not np.isfinite(logits).all():
            raise FloatingPointError("the model gave logits that are not numbers")
        scores = self._bundle.scores(logits)  # (B, L)
        return list(map(Outcome, scores.tolist(), logits.tolist()))

    def interrupt(self) -> None:
        """End the run that hangs, and let no other begin: this worker's time is over."""
        self._handle.abort()


class _Tagger(_Runner):
    """The same of a model that tags each piece of a text."""

    def __init__(self, bundle: OpenBundle) -> None:
        super().__init__(bundle)
        self._tags = tuple(map(Tag.of, bundle.manifest.labels))

    def run(self, rows: Sequence[Row]) -> list[Outcome]:
        bundle = self._bundle
        own = bundle.apart(rows, bundle.run(rows, self._handle))  # (B, T, L) -> B x (T, L)
        if not all(np.isfinite(logits).all() for logits in own):
            raise FloatingPointError("the model gave logits that are not numbers")
        return list(map(self._outcome, rows, bundle.scores_apart(own), own))

    def _outcome(self, row: Row, scores: Scores, logits: Logits) -> Outcome:
        assert isinstance(row, Spanned)  # its encoder gives no others
        tagged = Tagged(row, entities(row, scores, self._tags))
        return Outcome(scores.ravel().tolist(), logits.ravel().tolist(), tagged)


class _Reader(_Runner):
    """The same of a model that looks for answers in texts."""

    def run(self, rows: Sequence[Row]) -> list[Outcome]:
        own = self._bundle.apart(rows, self._bundle.run(rows, self._handle))  # (B, T, 2) -> B x (T, 2)
        if not all(np.isfinite(logits).all() for logits in own):
            raise FloatingPointError("the model gave logits that are not numbers")
        return [Outcome([], [], Parts([_passage(row)], [logits])) for row, logits in zip(rows, own, strict=True)]


_RUNNERS: MappingProxyType[Choice, type[_Runner]] = MappingProxyType({Choice.SPANS: _Tagger, Choice.ANSWER: _Reader})
"""Of what is answered piece by piece."""


def _passage(row: Row) -> Passage:
    assert isinstance(row, Passage)  # the encoder of such a model gives no others
    return row


async def _of_texts(future: "asyncio.Future[Answer[Outcome]]", rows: Sequence[Row]) -> Answer[Outcome]:
    """The outcomes of rows -> those of texts, of which long ones have several rows. Ends as the future ends."""
    answer = await future
    logits: list[Logits] = []
    for outcome in answer.results:
        assert isinstance(outcome.read, Parts)  # of these rows there are no others
        logits += outcome.read.logits
    return answer._replace(results=[Outcome([], [], parts) for parts in of_texts(rows, logits)])


def chars(text: Text) -> int:
    """Of both texts of a pair."""
    return len(text) if isinstance(text, str) else len(text[0]) + len(text[1])


def limits(settings: Settings, role: Role = Role.STUDENT) -> Limits:
    """What the settings say of batches and queues."""
    return Limits(
        rows=settings.max_batch_rows,
        tokens=settings.max_batch_tokens,
        queued=settings.max_queue_rows,
        queued_tokens=settings.max_queue_tokens,
        queued_of_one=max(1, round(settings.max_queue_rows * settings.max_client_share)),
        run_s=settings.max_run_seconds,
        here_s=settings.inline_ms / 1000 if role is Role.STUDENT else 0,  # the event loop gives way to nobody
    )
