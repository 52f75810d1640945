"""What can go wrong with a request, and the one place where an error becomes a response.

    ServiceError               status
    ├── MalformedJson          400  the body is not JSON
    ├── ChangeRefused          400  the models stay as they are
    ├── Unauthorized           401  no key, or one that is not known
    ├── Forbidden              403  the key may not ask this
    ├── UnknownModel           404  no model of that name is served
    ├── NoTeacher              404  the student has no teacher here
    ├── BodyTooLarge           413  more bytes than max_body_bytes
    ├── WrongMediaType         415  something other than JSON
    ├── InvalidRequest         422  JSON, but not what the route takes
    ├── ClientGone             499  nobody is left to be answered
    ├── InferenceFailed        500  the model failed on a row of this request
    ├── TooBusy                429  the queue has no room; nothing of the request was run
    ├── ChangeIncomplete       503  the models have changed, but not in all workers
    ├── NotReady               503  loading, draining, or a worker is dead: try another replica
    └── DeadlineExceeded       504  the request's time was over before its answer was ready

Whatever else is raised becomes a 500 that only says where to look. No answer ever holds a trace or a path.
"""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from random import getrandbits
from types import MappingProxyType

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from service.call import JSON, REQUEST_ID, Headers, Reply

logger = logging.getLogger("understudy")

PROBLEM_TYPE = "application/problem+json"
_SAFE_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
_MOST_FIELDS = 20
RETRY_SOON = MappingProxyType({"retry-after": "1"})


class FieldProblem(BaseModel):
    """One field that is wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    loc: tuple[str | int, ...]
    msg: str
    type: str


class Problem(BaseModel):
    """The body of every error on our own routes (RFC 9457)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    request_id: str
    errors: tuple[FieldProblem, ...] | None = None


class NativeError(BaseModel):
    """The body of every error on the routes in the Hugging Face shape."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    error: str


class ServiceError(Exception):
    """An answer other than 200. The message is for the client."""

    status: int = 500
    title: str = "Internal error"
    headers: Mapping[str, str] = MappingProxyType({})
    rejected: str | None = None  # why, if nothing was wrong with the request itself
    fields: tuple[FieldProblem, ...] | None = None


class MalformedJson(ServiceError):
    """The body is not JSON."""

    status, title = 400, "Malformed JSON"


class ChangeRefused(ServiceError):
    """The models stay as they are."""

    status, title = 400, "Change refused"


class Unauthorized(ServiceError):
    """No key, or one that is not known."""

    status, title = 401, "Unauthorized"
    headers = MappingProxyType({"www-authenticate": "Bearer"})


class Forbidden(ServiceError):
    """The key may not ask this."""

    status, title = 403, "Forbidden"


class UnknownModel(ServiceError):
    """No model of that name is served."""

    status, title = 404, "Unknown model"


class NoTeacher(ServiceError):
    """The student has no teacher here."""

    status, title = 404, "No teacher"


class BodyTooLarge(ServiceError):
    """More bytes than `max_body_bytes`. The rest is not read, so the connection cannot be used again."""

    status, title = 413, "Body too large"
    headers = MappingProxyType({"connection": "close"})


class WrongMediaType(ServiceError):
    """Something other than JSON."""

    status, title = 415, "Wrong media type"


class InvalidRequest(ServiceError):
    """JSON, but not what the route takes."""

    status, title = 422, "Invalid request"

    def __init__(self, fields: tuple[FieldProblem, ...]) -> None:
        super().__init__("; ".join(f"{'.'.join(map(str, field.loc))}: {field.msg}" for field in fields[:5]))
        self.fields = fields

    @classmethod
    def at(cls, field: str, message: str) -> "InvalidRequest":
        return cls((FieldProblem(loc=(field,), msg=message, type="value_error"),))


class TooBusy(ServiceError):
    """The queue has no room; nothing of the request was run."""

    status, title = 429, "Queue full"

    def __init__(self, why: str, rejected: str, wait_s: float) -> None:
        seconds = max(1, ceil(wait_s))
        super().__init__(f"{why}; try again in {seconds} s")
        self.rejected = rejected
        self.headers = MappingProxyType({"retry-after": str(seconds)})


class ClientGone(ServiceError):
    """Nobody is left to be answered; the status is for the metrics."""

    status, title = 499, "Client gone"


class InferenceFailed(ServiceError):
    """The model failed on a row of this request."""

    status, title = 500, "Inference failed"


class ChangeIncomplete(ServiceError):
    """The models have changed, but not in all workers."""

    status, title = 503, "Change incomplete"


class NotReady(ServiceError):
    """Loading, draining, or a worker is dead: try another replica."""

    status, title = 503, "Not ready"
    headers = RETRY_SOON
    rejected = "not_ready"


class DeadlineExceeded(ServiceError):
    """The request's time was over before its answer was ready."""

    status, title = 504, "Deadline exceeded"
    rejected = "deadline"


class HttpError(ServiceError):
    """What starlette raises itself: no such path, wrong method."""

    def __init__(self, error: HTTPException) -> None:
        super().__init__(str(error.detail))
        self.status, self.title = error.status_code, str(error.detail)
        self.headers = dict(error.headers or {})


def problem(error: ServiceError, request_id: str) -> bytes:
    """The body in our own dialect."""
    body = Problem(
        title=error.title, status=error.status, detail=str(error), request_id=request_id, errors=error.fields
    )
    return to_json(body, exclude_none=True)


def native(error: ServiceError, _request_id: str) -> bytes:
    """The body in the dialects of others."""
    return to_json(NativeError(error=str(error)))


class OpenAIProblem(BaseModel):
    """What OpenAI's clients read of an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class OpenAIError(BaseModel):
    """The body of every error on the routes in OpenAI's shape."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    error: OpenAIProblem


def openai(error: ServiceError, _request_id: str) -> bytes:
    """The body in OpenAI's dialect."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    first = error.fields[0].loc if error.fields else ()
    told = OpenAIProblem(message=str(error), type=kind, param=".".join(map(str, first)) or None)
    return to_json(OpenAIError(error=told))


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a family of routes speaks of errors."""

    render: Callable[[ServiceError, str], bytes]
    media_type: bytes
    body: type[BaseModel]
    invalid: int = InvalidRequest.status  # how it calls JSON that the route does not take


OURS = Dialect(problem, PROBLEM_TYPE.encode(), Problem)
HUB = Dialect(native, JSON, NativeError)
OIP = Dialect(native, JSON, NativeError, invalid=400)
OPENAI = Dialect(openai, JSON, OpenAIError, invalid=400)


def respond(error: Exception, headers: Headers, dialect: Dialect) -> Reply:
    """Any error -> its answer. A surprise is logged with its trace and answered without."""
    request_id = given_id(headers) or f"{getrandbits(128):032x}"  # not secret, so it need not cost a system call
    if isinstance(error, ServiceError):
        known = error
        if known.status == InferenceFailed.status:
            logger.error("request %s: %s", request_id, error, exc_info=error, extra={"request_id": request_id})
    else:
        logger.error("request %s: a fault of ours", request_id, exc_info=error, extra={"request_id": request_id})
        known = ServiceError("an unexpected error; the log has it under the request id")
    status = dialect.invalid if isinstance(known, InvalidRequest) else known.status
    more = [(name.lower().encode(), value.encode("latin-1")) for name, value in known.headers.items()]
    body = dialect.render(known, request_id)
    return Reply(body, status, dialect.media_type, [(REQUEST_ID, request_id.encode()), *more])


def given_id(headers: Headers) -> str | None:
    """The client's own id of the request, if it sent one that is safe to repeat."""
    for name, value in headers:
        if name == REQUEST_ID:
            return safe_id(value)
    return None


def safe_id(value: bytes) -> str | None:
    """An id that a client sent, if it may stand in answers and logs."""
    return value.decode() if _SAFE_ID.fullmatch(value) else None


def from_validation(error: ValidationError | RequestValidationError, unsaid: tuple[str, ...] = ()) -> ServiceError:
    """What pydantic found, without the input itself: texts never go into answers or logs.

    `unsaid` are parts of a location that are ours and not the client's.
    """
    if isinstance(error, ValidationError) and error.error_count() > _MOST_FIELDS:
        # Listing them would take longer than validating did, and answer more bytes than were sent.
        return InvalidRequest.at("body", f"{error.error_count()} fields are wrong")
    found = error.errors()
    if found[0]["type"] == "json_invalid":
        return MalformedJson(found[0]["msg"])
    return InvalidRequest(tuple(_field(item["loc"], item["msg"], item["type"], unsaid) for item in found))


def _field(loc: Sequence[str | int], msg: str, kind: str, unsaid: tuple[str, ...]) -> FieldProblem:
    return FieldProblem(loc=tuple(part for part in loc if part not in unsaid), msg=msg, type=kind)


def handle_errors(api: FastAPI, dialect_of: Callable[[str], Dialect]) -> None:
    """Give FastAPI's own errors (no such path, wrong method, …) the shape of the path's dialect."""

    def answer(request: Request, error: Exception) -> Response:
        reply = respond(error, request.scope["headers"], dialect_of(request.scope["path"]))
        headers = {name.decode(): value.decode("latin-1") for name, value in reply.headers}
        return Response(reply.body, reply.status, headers, reply.media_type.decode())

    async def on_error(request: Request, error: Exception) -> Response:
        return answer(request, error)

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return answer(request, HttpError(error))

    async def on_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return answer(request, from_validation(error))

    api.add_exception_handler(ServiceError, on_error)
    api.add_exception_handler(HTTPException, on_http)
    api.add_exception_handler(RequestValidationError, on_validation)
    api.add_exception_handler(Exception, on_error)
