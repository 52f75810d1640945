"""What can go wrong with a request, and the one place where an error becomes a response.

    ServiceError               status
    ├── MalformedJson          400  the body is not JSON
    ├── UnknownModel           404  no model of that name is served
    ├── BodyTooLarge           413  more bytes than max_body_bytes
    ├── WrongMediaType         415  something other than JSON
    ├── InvalidRequest         422  JSON, but not what the route takes
    ├── ClientGone             499  nobody is left to be answered
    ├── InferenceFailed        500  the model failed on a row of this request
    ├── TooBusy                429  the queue has no room; nothing of the request was run
    └── NotReady               503  loading, draining, or a worker is dead: try another replica

Whatever else is raised becomes a 500 that only says where to look. No answer ever holds a trace or a path.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from uuid import uuid4

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.types import Scope

logger = logging.getLogger("understudy")

PROBLEM_TYPE = "application/problem+json"
REQUEST_ID = b"x-request-id"
_MAX_ID = 128
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
    fields: tuple[FieldProblem, ...] | None = None


class MalformedJson(ServiceError):
    """The body is not JSON."""

    status, title = 400, "Malformed JSON"


class UnknownModel(ServiceError):
    """No model of that name is served."""

    status, title = 404, "Unknown model"


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
    headers = RETRY_SOON


class ClientGone(ServiceError):
    """Nobody is left to be answered; the status is for the metrics."""

    status, title = 499, "Client gone"


class InferenceFailed(ServiceError):
    """The model failed on a row of this request."""

    status, title = 500, "Inference failed"


class NotReady(ServiceError):
    """Loading, draining, or a worker is dead: try another replica."""

    status, title = 503, "Not ready"
    headers = RETRY_SOON


class HttpError(ServiceError):
    """What starlette raises itself: no such path, wrong method."""

    def __init__(self, error: HTTPException) -> None:
        super().__init__(str(error.detail))
        self.status, self.title = error.status_code, str(error.detail)
        self.headers = dict(error.headers or {})


Work = Callable[[Request], Awaitable[Response]]
Render = Callable[[ServiceError, str], bytes]


def problem(error: ServiceError, request_id: str) -> bytes:
    """Our own dialect."""
    body = Problem(
        title=error.title, status=error.status, detail=str(error), request_id=request_id, errors=error.fields
    )
    return to_json(body, exclude_none=True)


def native(error: ServiceError, _request_id: str) -> bytes:
    """The Hugging Face dialect."""
    return to_json(NativeError(error=str(error)))


def respond(error: Exception, scope: Scope, render: Render) -> Response:
    """Any error -> its response. A surprise is logged with its trace and answered without."""
    request_id = given_id(scope) or uuid4().hex
    if isinstance(error, ServiceError):
        known = error
        if known.status == InferenceFailed.status:
            logger.error("request %s: %s", request_id, error, exc_info=error)
    else:
        logger.error("request %s: a fault of ours", request_id, exc_info=error)
        known = ServiceError("an unexpected error; the log has it under the request id")
    media_type = PROBLEM_TYPE if render is problem else "application/json"
    headers = {"x-request-id": request_id, **known.headers}
    return Response(render(known, request_id), known.status, headers, media_type)


def given_id(scope: Scope) -> str | None:
    """The client's own id of the request, if it sent one that is safe to repeat."""
    for name, value in scope["headers"]:
        if name == REQUEST_ID:
            text: str = value.decode("latin-1")
            return text if len(text) <= _MAX_ID and text.isascii() and text.isprintable() and text else None
    return None


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


def handle_errors(api: FastAPI) -> None:
    """Give FastAPI's own errors (no such path, wrong method, …) the same shape."""

    async def on_error(request: Request, error: Exception) -> Response:
        return respond(error, request.scope, problem)

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return respond(HttpError(error), request.scope, problem)

    async def on_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return respond(from_validation(error), request.scope, problem)

    api.add_exception_handler(ServiceError, on_error)
    api.add_exception_handler(HTTPException, on_http)
    api.add_exception_handler(RequestValidationError, on_validation)
    api.add_exception_handler(Exception, on_error)
