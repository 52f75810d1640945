"""From a request to texts, and from texts to scores: what all dialects share.

It knows limits, queues and clients that leave. It knows nothing of paths or of the shape of an answer.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from time import perf_counter
from types import MappingProxyType
from typing import Annotated, NamedTuple, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Tag, ValidationError

from service.api.gate import Gate, access_of
from service.api.tensors import BINARY, NO_BINARY
from service.batching.jobs import Closed, Expired, Full, QueueFull, RowFailed, WorkerLost
from service.bundle.encoder import Text
from service.bundle.errors import TextError, WrongKind
from service.bundle.tasks import Choice
from service.call import JSON, REQUEST_ID, TIMEOUT, Call, Headers, Reply
from service.catalogue import NoSuchModel
from service.changes import Changes
from service.errors import (
    BodyTooLarge,
    ClientGone,
    DeadlineExceeded,
    Dialect,
    FieldProblem,
    InferenceFailed,
    InvalidRequest,
    NotReady,
    ServiceError,
    TooBusy,
    UnknownModel,
    WrongMediaType,
    from_validation,
    given_id,
    respond,
    safe_id,
)
from service.lifecycle import Lifecycle
from service.oversight.cascade import Cascade, Inquiry, Judged
from service.oversight.compare import Compared, choose_pair, compare
from service.oversight.watch import open_watch
from service.predictors import SERVED_BY, TEACHER_DIGEST, Predictor, chars
from service.settings import Settings
from service.strategy import Strategy, served_by
from service.telemetry.metrics import Metrics
from service.telemetry.visits import Visit, server_timing
from service.telemetry.witness import Witness

Wanted = TypeVar("Wanted", bound=BaseModel)


class Wire(BaseModel):
    """What goes over the wire: unknown fields are refused, values are not converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class Extensible(BaseModel):
    """The same in a protocol that others extend: unknown fields are left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, hide_input_in_errors=True)


class TextPair(Wire):
    """Two texts that are judged together. This is the only way to write a pair: a list of two texts is two rows."""

    text: str
    text_pair: str


Version = Annotated[
    str | None,
    BeforeValidator(lambda value: str(value) if type(value) is int else value, json_schema_input_type=str | int | None),
]
"""Of a model: a number, as a string or not."""

ONE, PAIR, MANY, PAIRS = TAGS = ("one text", "one pair", "many texts", "many pairs")


def _kind(value: object) -> str:
    if isinstance(value, list | tuple):
        return PAIRS if value and isinstance(value[0], dict | TextPair) else MANY
    return PAIR if isinstance(value, dict | TextPair) else ONE


def _kind_of_plain(value: object) -> str:
    return MANY if isinstance(value, list | tuple) else ONE


# With the tags an error is one message, not four; and no row of a list costs a look at what it is.
Texts = Annotated[
    Annotated[str, Tag(ONE)]
    | Annotated[TextPair, Tag(PAIR)]
    | Annotated[tuple[str, ...], Tag(MANY)]
    | Annotated[tuple[TextPair, ...], Tag(PAIRS)],
    Discriminator(_kind),
]


# The same of models that read no pairs.
PlainTexts = Annotated[Annotated[str, Tag(ONE)] | Annotated[tuple[str, ...], Tag(MANY)], Discriminator(_kind_of_plain)]


class Wants(Enum):
    """What a dialect can say of a text."""

    LABELS = "labels"
    VECTORS = "vectors"
    ANSWERS = "answers"
    ANY = "any"


class Ask(NamedTuple):
    """What a dialect wants to know."""

    texts: str | TextPair | Sequence[str] | Sequence[TextPair]
    field: str  # where the request has them
    model: str | None = None  # name or name@version; None: the default one
    version: str | None = None
    truncate: bool = True  # else a text that is too long is refused
    pairs_by: str = '; write {"text": ..., "text_pair": ...} for each'  # what to say where pairs are needed
    strategy: Strategy | None = None  # None: as the service is set
    wants: Wants = Wants.LABELS


class Desk:
    """What a route needs to answer."""

    def __init__(
        self, settings: Settings, lifecycle: Lifecycle, metrics: Metrics, gate: Gate, witness: Witness | None
    ) -> None:
        self.settings = settings
        self.lifecycle = lifecycle
        self.changes = Changes(lifecycle)
        self.metrics = metrics
        self.gate = gate
        self.witness = witness
        self.watch = open_watch(settings, lifecycle, metrics)
        self._cascade = Cascade(settings, metrics)

    def receive(self, call: Call, wanted: type[Wanted], unsaid: tuple[str, ...] = TAGS) -> Wanted:
        """Validate the body. `unsaid` are parts of a place in it that are ours and not the client's."""
        try:
            return wanted.model_validate_json(call.body)
        except ValidationError as error:
            raise from_validation(error, unsaid) from None  # the cause would hold the text

    async def classify(self, call: Call, ask: Ask) -> Judged:
        """Tokenise, queue, wait. Every refusal is a ServiceError."""
        inquiry = self._inquiry(call, ask)
        try:
            catalogue = self.lifecycle.admitting
            model = catalogue.resolve(ask.model, ask.version)
            _fits(model, ask.wants)
            judged = await self._cascade.judge(catalogue, model, inquiry, ask.strategy)
        except (NoSuchModel, QueueFull, Closed, Expired, RowFailed, WorkerLost) as error:
            raise _as_answer(error) from error
        except TextError as error:
            raise _about(error, ask) from None
        if self.watch is not None and judged.own is not None and model.bundle.meaning.choice is not Choice.ANSWER:
            pending, answer = judged.own
            self.watch.notice(model, inquiry.texts, pending.rows, answer.results)
        call.stages = judged.stages
        return judged

    async def compare(self, call: Call, ask: Ask, teacher: str | None) -> Compared:
        """The model that is asked for and its teacher, or another by name. Every refusal is a ServiceError."""
        inquiry = self._inquiry(call, ask)
        try:
            shelf = self.lifecycle.admitting.shelf
            student = shelf.resolve(ask.model)
            _fits(student, ask.wants)
            done = await compare(student, choose_pair(shelf, student, teacher), inquiry)
        except (NoSuchModel, QueueFull, Closed, Expired, RowFailed, WorkerLost) as error:
            raise _as_answer(error) from error
        except TextError as error:
            raise _about(error, ask) from None
        call.stages = done.our_stages._replace(teacher_s=done.their_stages.spent_s)
        return done

    def _inquiry(self, call: Call, ask: Ask) -> Inquiry:
        """The texts, within their limits, and how long the client and the settings let them take."""
        texts = _within_limits(self.settings, ask)
        patience_s = self.settings.request_seconds
        if call.timeout is not None:
            patience_s = min(patience_s, _seconds(call.timeout))
        return Inquiry(texts, call.started + patience_s, call.key or call.peer, ask.truncate)

    def find(self, name: str, version: str | None = None) -> Predictor:
        """A model that is served. Raises UnknownModel, or NotReady before there are any."""
        try:
            return self.lifecycle.catalogue.resolve(name, version)
        except NoSuchModel as error:
            raise _as_answer(error) from error

    def only(self, choice: Choice, does: str) -> str:
        """The name of the one model of this kind. Raises InvalidRequest where there are several, or none."""
        served = self.lifecycle.catalogue.predictors
        names = sorted({each.manifest.name for each in served if each.bundle.meaning.choice is choice})
        if len(names) == 1:
            return names[0]
        told = f"name one of {', '.join(names)}" if names else f"no model that is served {does}"
        raise InvalidRequest.at("model", told)

    def endpoint(self, work: "Work", dialect: Dialect, route: str) -> "Answering":
        """An endpoint for a route: it always answers, in its own dialect, and is counted."""
        return Answering(work, dialect, route, self)


Work = Callable[[Call], Awaitable[Reply]]


class Answering:
    """See `Desk.endpoint`."""

    def __init__(self, work: Work, dialect: Dialect, route: str, desk: Desk) -> None:
        self._work = work
        self.dialect = dialect
        self.route = route
        self._meter = desk.metrics.of_route(route)
        self._rejected = desk.metrics.rejected
        self._gate = desk.gate
        self._witness = desk.witness
        self._access = access_of("POST", route)

    async def __call__(self, call: Call) -> Reply:
        trace = None if self._witness is None else self._witness.begin(call.method, self.route, call.headers)
        status = ServiceError.status
        try:
            reply = await self._answer(call)
            status = reply.status
        except asyncio.CancelledError:
            status = self._cut(call)
            raise
        finally:
            seconds = perf_counter() - call.started
            self._meter.count(status, seconds)
            if self._witness is not None:
                request_id = given_id(call.headers)
                visit = Visit(call.method, self.route, status, seconds, request_id, call.key, call.stages)
                self._witness.end(trace, visit)
        if trace is not None and trace.traceparent:
            reply.headers.append((b"traceparent", trace.traceparent))
        return reply

    def _cut(self, call: Call) -> int:
        """Why nothing more is done: the client has left, or the time to drain is over, and whoever cut us says so."""
        if call.left:
            return ClientGone.status
        self._rejected["not_ready"].inc()
        return NotReady.status

    def refuse(self, error: Exception, call: Call) -> Reply:
        """Answer what went wrong before there was a whole request."""
        reply = self._refusal(error, call)
        self._meter.count(reply.status, perf_counter() - call.started)
        return reply

    async def _answer(self, call: Call) -> Reply:
        try:
            call.key = self._gate.admit(self._access, call.headers)
            if call.media_type != JSON:
                _check_media_type(call)
            reply = await self._work(call)
        except Exception as error:  # a fault of ours included: it is logged and answered there
            return self._refusal(error, call)
        if call.stages is not None:
            timing = server_timing(call.stages, perf_counter() - call.started)
            reply.headers.append((b"server-timing", timing))
        if call.request_id is not None and (request_id := safe_id(call.request_id)):
            reply.headers.append((REQUEST_ID, request_id.encode()))
        return reply

    def _refusal(self, error: Exception, call: Call) -> Reply:
        if isinstance(error, ServiceError) and error.rejected is not None:
            self._rejected[error.rejected].inc()
        return respond(error, call.headers, self.dialect)


def headers_of(judged: Judged) -> Headers:
    """Whose answer it is."""
    headers = [judged.predictor.digest]
    if judged.fates is not None:
        headers.append((SERVED_BY, served_by(judged.fates).encode()))
    if judged.teacher is not None:
        headers.append((TEACHER_DIGEST, judged.teacher.digest[1]))
    return headers


def too_large(limit: int) -> BodyTooLarge:
    """The refusal of a body."""
    return BodyTooLarge(f"at most {limit} bytes; send fewer texts in a request")


def _fits(model: Predictor, wants: Wants) -> None:
    """Raises InvalidRequest where a model gives something else than is wanted of it."""
    gives = _GIVES.get(model.bundle.meaning.choice, Wants.LABELS)
    if wants not in (gives, Wants.ANY):
        raise InvalidRequest.at("model", f"{model.name} {_DOES[gives]}")


_GIVES = MappingProxyType({Choice.VECTOR: Wants.VECTORS, Choice.ANSWER: Wants.ANSWERS})
_DOES = MappingProxyType(
    {
        Wants.LABELS: "makes no vectors and answers no questions; GET /v1/models says which task has which",
        Wants.VECTORS: "makes vectors of texts and classifies none; ask /v1/embed",
        Wants.ANSWERS: "answers questions from texts and classifies none; ask /v1/answer",
    }
)
"""What a model gives -> what is said where something else is wanted of it."""


def _check_media_type(call: Call) -> None:
    if call.media_type is not None and not _is_json(call.media_type):
        if call.header(BINARY) is not None:
            raise InvalidRequest.at(BINARY.decode(), NO_BINARY)
        raise WrongMediaType("send JSON, with Content-Type: application/json")


def _is_json(value: bytes) -> bool:
    kind = value.partition(b";")[0].strip().lower()
    return kind == JSON or (kind.startswith(b"application/") and kind.endswith(b"+json"))


_DURATION = re.compile(rb"(\d{1,6}(?:\.\d{1,6})?)(ms|s)?")


def _seconds(value: bytes) -> float:
    found = _DURATION.fullmatch(value)
    if found is None:
        raise InvalidRequest.at(TIMEOUT.decode(), "seconds such as 1.5, or 250ms")
    return float(found[1]) / (1000 if found[2] == b"ms" else 1)


def _within_limits(settings: Settings, ask: Ask) -> Sequence[Text]:
    texts = ask.texts
    if isinstance(texts, str):
        listed: Sequence[Text] = (texts,)
    elif isinstance(texts, TextPair):
        listed = (_pair(texts),)
    else:
        listed = [text if isinstance(text, str) else _pair(text) for text in texts]
    if not listed:
        raise InvalidRequest.at(ask.field, "at least one text")
    if len(listed) > settings.max_request_rows:
        raise InvalidRequest.at(ask.field, f"at most {settings.max_request_rows} texts in a request")
    for text in listed:
        if chars(text) > settings.max_text_chars:
            raise InvalidRequest.at(ask.field, f"at most {settings.max_text_chars} characters in a text or pair")
    return listed


def _pair(texts: TextPair) -> tuple[str, str]:
    return texts.text, texts.text_pair


def _about(error: TextError, ask: Ask) -> InvalidRequest:
    """A text that the model cannot read as it is, by its place in the request."""
    listed = not isinstance(ask.texts, str | TextPair)
    place = (error.place,) if listed and error.place is not None else ()
    text = ask.texts if isinstance(ask.texts, str | TextPair) else ask.texts[0]
    hint = ask.pairs_by if isinstance(error, WrongKind) and isinstance(text, str) else ""
    return InvalidRequest((FieldProblem(loc=(ask.field, *place), msg=f"{error}{hint}", type="value_error"),))


_FULL = MappingProxyType(
    {
        Full.ROWS: "too many texts are waiting",
        Full.TOKENS: "too many tokens are waiting",
        Full.CLIENT: "too many texts of this client are waiting",
    }
)


def _as_answer(error: NoSuchModel | QueueFull | Closed | Expired | RowFailed | WorkerLost) -> ServiceError:
    match error:
        case NoSuchModel():
            return UnknownModel(str(error))
        case QueueFull():
            return TooBusy(_FULL[error.reason], error.reason, error.wait_s)
        case Closed():
            return NotReady("the model takes no requests any more")
        case Expired():
            return DeadlineExceeded("the texts were not answered in time; nothing more is done about them")
        case RowFailed():
            return InferenceFailed(f"the model failed on text {error.index}")
        case WorkerLost():
            return InferenceFailed("the run of the model was given up; a single text may be the cause")
