"""From a request to texts, and from texts to scores: what all dialects share.

It knows limits, queues and clients that leave. It knows nothing of paths or of the shape of an answer.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Annotated, TypeVar

from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Discriminator, Tag, ValidationError
from starlette.types import Receive

from service.batching import Answer, Closed, QueueFull, RowFailed
from service.errors import (
    REQUEST_ID,
    BodyTooLarge,
    ClientGone,
    InferenceFailed,
    InvalidRequest,
    NotReady,
    Render,
    ServiceError,
    TooBusy,
    UnknownModel,
    Work,
    WrongMediaType,
    from_validation,
    given_id,
    respond,
)
from service.lifecycle import Lifecycle
from service.metrics import Metrics, RouteMeter
from service.predictors import NoSuchModel, Predictor, RowScores
from service.settings import Settings

WATCH_AFTER_S = 0.05
"""Whoever waits longer is watched for having gone; watching costs a task, and most need not wait."""

Result = TypeVar("Result")
Wanted = TypeVar("Wanted", bound="Wire")


class Wire(BaseModel):
    """What goes over the wire: unknown fields are refused, values are not converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


ONE, MANY = "one text", "many texts"  # tags of the union below


def _kind(value: object) -> str:
    return MANY if isinstance(value, list | tuple) else ONE


# A list of strings is always a batch, never a pair. With the tags an error is one message, not two.
Texts = Annotated[Annotated[str, Tag(ONE)] | Annotated[tuple[str, ...], Tag(MANY)], Discriminator(_kind)]


@dataclass(frozen=True, slots=True)
class Desk:
    """What a route needs to answer."""

    settings: Settings
    lifecycle: Lifecycle
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Classified:
    """Scores of each text in the order of the model's labels, and what they cost."""

    predictor: Predictor
    scores: list[RowScores]
    tokens: int
    tokenize_s: float
    queue_s: float
    inference_s: float


async def receive(desk: Desk, request: Request, wanted: type[Wanted]) -> Wanted:
    """Read the body within its limit and validate it."""
    body = await read_body(request, desk.settings.max_body_bytes)
    try:
        return wanted.model_validate_json(body)
    except ValidationError as error:
        raise from_validation(error, unsaid=(ONE, MANY)) from None  # the cause would hold the text


async def classify(
    desk: Desk, request: Request, model: str | None, texts: str | Sequence[str], field: str
) -> Classified:
    """Tokenise, queue, wait. Every refusal is a ServiceError."""
    listed = _within_limits(desk.settings, texts, field)
    try:
        predictor = desk.lifecycle.catalogue.resolve(model)
        pending = await predictor.admit(listed)
        answer: Answer[RowScores] = await unless_gone(request.receive, pending.future)
    except (NoSuchModel, QueueFull, Closed, RowFailed) as error:
        raise _as_answer(error) from error
    predictor.record(pending, answer)
    return Classified(predictor, answer.results, pending.tokens, pending.tokenize_s, answer.queue_s, answer.inference_s)


def guarded(work: Work, render: Render, meter: RouteMeter) -> Work:
    """An endpoint that always answers, in its own dialect, and is counted."""

    async def answer(request: Request) -> Response:
        started = perf_counter()
        try:
            response = await work(request)
            if request_id := given_id(request.scope):
                response.raw_headers.append((REQUEST_ID, request_id.encode()))
        except Exception as error:  # a fault of ours included: it is logged and answered there
            response = respond(error, request.scope, render)
        meter.count(response.status_code, perf_counter() - started)
        return response

    return answer


async def read_body(request: Request, limit: int) -> bytes:
    """The body, but never more than the limit: its length may be undeclared or a lie."""
    _check_head(request, limit)
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("the client left before its request was complete")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
        more = message.get("more_body", False)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def unless_gone(receive: Receive, future: "asyncio.Future[Result]") -> Result:
    """Await the future; cancel it, and with it the rows that wait, when the client leaves first."""
    watch = _Watch(receive, future)
    timer = future.get_loop().call_later(WATCH_AFTER_S, watch.start)
    try:
        return await future
    except asyncio.CancelledError:
        if watch.gone:
            raise ClientGone("the client left before its answer was ready") from None
        raise
    finally:
        timer.cancel()
        watch.stop()


class _Watch:
    """Waits for the client to leave."""

    __slots__ = ("_future", "_receive", "_task", "gone")

    def __init__(self, receive: Receive, future: "asyncio.Future[Result]") -> None:
        self._receive = receive
        self._future: asyncio.Future[Result] = future
        self._task: asyncio.Task[None] | None = None
        self.gone = False

    def start(self) -> None:
        self._task = self._future.get_loop().create_task(self._wait())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass  # the body is complete, so whatever this is, it is not for us
        self.gone = self._future.cancel()


def _check_head(request: Request, limit: int) -> None:
    for name, value in request.scope["headers"]:
        if name == b"content-type" and not _is_json(value):
            raise WrongMediaType("send JSON, with Content-Type: application/json")
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            raise _too_large(limit)


def _is_json(value: bytes) -> bool:
    if value == b"application/json":  # nearly always
        return True
    kind = value.partition(b";")[0].strip().lower()
    return kind == b"application/json" or (kind.startswith(b"application/") and kind.endswith(b"+json"))


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"at most {limit} bytes; send fewer texts in a request")


def _within_limits(settings: Settings, texts: str | Sequence[str], field: str) -> Sequence[str]:
    listed = (texts,) if isinstance(texts, str) else texts
    if not listed:
        raise InvalidRequest.at(field, "at least one text")
    if len(listed) > settings.max_request_rows:
        raise InvalidRequest.at(field, f"at most {settings.max_request_rows} texts in a request")
    for text in listed:
        if len(text) > settings.max_text_chars:
            raise InvalidRequest.at(field, f"at most {settings.max_text_chars} characters in a text")
    return listed


def _as_answer(error: NoSuchModel | QueueFull | Closed | RowFailed) -> ServiceError:
    match error:
        case NoSuchModel():
            return UnknownModel(str(error))
        case QueueFull():
            return TooBusy(f"{error}; try again in a second")
        case Closed():
            return NotReady("the model takes no requests any more")
        case RowFailed():
            return InferenceFailed(f"the model failed on text {error.index}")
