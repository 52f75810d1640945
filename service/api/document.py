"""What the OpenAPI document says of a route beyond what FastAPI finds out by itself.

It knows schemas, dialects and who needs a key. It knows nothing of what a route does.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.api.gate import Access, access_of
from service.call import REQUEST_ID
from service.errors import Dialect, InvalidRequest
from service.predictors import MODEL_DIGEST, SERVED_BY, SHOWN_DIGITS, TEACHER_DIGEST
from service.strategy import Server

REF = "#/components/schemas/{model}"

Schemas = Iterable[type[BaseModel]]

_ANYWHERE = MappingProxyType(
    {
        400: "The request, or its body, is not what it should be",
        408: "The request came too slowly",
        413: "More bytes than max_body_bytes",
        414: "A longer path than max_target_bytes",
        415: "Not JSON by its Content-Type, or compressed",
        417: "Something else than 100-continue is expected of us",
        431: "More headers than max_headers or max_head_bytes",
        500: "The model failed on a row of this request, or the service has a fault",
        503: "Loading, draining, busy with other connections, a worker is dead, or not all workers have changed",
    }
)
_POSTED = MappingProxyType(
    {
        404: "No model of that name is served, or no teacher",
        422: "JSON, but not what the route takes",
        429: "The queue is full; nothing was run",
        504: "The time for the request was over",
    }
)
_KEYED = MappingProxyType({401: "No key, or one that is not known"})
_ADMINS = MappingProxyType({403: "The key does not allow this"})

_OF_MODELS = MappingProxyType(
    {
        "server-timing": {
            "description": "Where the time went, in milliseconds",
            "required": True,
            "schema": {"type": "string"},
        },
        MODEL_DIGEST.decode(): {
            "description": "The first digits of the seal of the model's bundle; `GET /v1/models` has them all",
            "required": True,
            "schema": {"type": "string", "pattern": f"^[0-9a-f]{{{SHOWN_DIGITS}}}$"},
        },
        SERVED_BY.decode(): {
            "description": "Who answered, where a strategy is asked for or set",
            "schema": {"type": "string", "enum": [*Server, "both"]},
        },
        TEACHER_DIGEST.decode(): {
            "description": "The same digits of the teacher's bundle, where it answered any text in the model's place",
            "schema": {"type": "string", "pattern": f"^[0-9a-f]{{{SHOWN_DIGITS}}}$"},
        },
        REQUEST_ID.decode(): {"description": "That of the request, if it had one", "schema": {"type": "string"}},
    }
)
"""Headers of a model's answers."""

_SCHEMES = MappingProxyType(
    {
        "bearer": {"type": "http", "scheme": "bearer"},
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
)
"""Two ways to send the same key."""


def of_hot(
    path: str, dialect: Dialect, request: type[BaseModel], response: type[BaseModel], of_model: bool
) -> dict[str, Any]:
    """A POST that takes and gives these; its refusals are added by `complete`."""
    # A body of which every field may be left out may be left out itself.
    required = any(field.is_required() for field in request.model_fields.values())
    named = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall("{([a-z]+)}", path)
    ]
    done = {"content": _content(response, "application/json"), **({"headers": dict(_OF_MODELS)} if of_model else {})}
    responses = {200: "Done", **_POSTED}
    if dialect.invalid != InvalidRequest.status:
        del responses[InvalidRequest.status]  # called 400 there
    return {
        "parameters": named,
        "requestBody": {"required": required, "content": _content(request, "application/json")},
        "responses": {
            str(status): {"description": why, **(done if status == 200 else {})} for status, why in responses.items()
        },
    }


def complete(
    document: dict[str, Any], dialect_of: Callable[[str], Dialect], requests: Schemas, answers: Schemas
) -> None:
    """Say of every route what it may refuse, in which words, and who needs a key."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            _complete(operation, method.upper(), access_of(method.upper(), path), dialect_of(path))
    parts = document.setdefault("components", {})
    parts["schemas"] = _without_fastapis(parts.get("schemas", {})) | _schemas(requests, answers)
    parts["securitySchemes"] = dict(_SCHEMES)


def _complete(operation: dict[str, Any], method: str, access: Access, dialect: Dialect) -> None:
    responses = operation["responses"]
    if method == "GET":
        responses.pop("422", None)  # FastAPI's own; the parts of our paths are any text
    known = dict(_ANYWHERE)
    if access is not Access.PUBLIC:
        known |= _KEYED
        keys: list[dict[str, list[str]]] = [{name: []} for name in _SCHEMES]
        operation["security"] = keys if access is Access.ADMIN else [{}, *keys]  # {}: where there are no keys
    if access is Access.ADMIN:
        known |= _ADMINS
    for status, why in known.items():
        responses.setdefault(str(status), {"description": why})
    refusal = _content(dialect.body, dialect.media_type.decode())
    for status, response in responses.items():
        if status >= "4":
            response["content"] = refusal
    operation["responses"] = dict(sorted(responses.items()))


def _without_fastapis(schemas: Mapping[str, Any]) -> dict[str, Any]:
    return {name: schema for name, schema in schemas.items() if name not in ("HTTPValidationError", "ValidationError")}


def _content(model: type[BaseModel], media_type: str) -> Mapping[str, Any]:
    return {media_type: {"schema": {"$ref": REF.format(model=model.__name__)}}}


def _schemas(requests: Schemas, answers: Schemas) -> dict[str, Any]:
    wanted = {(model, "validation") for model in requests} | {(model, "serialization") for model in answers}
    models: Sequence[Any] = sorted(wanted, key=lambda pair: pair[0].__name__)
    _, document = models_json_schema(models, ref_template=REF)
    schemas: dict[str, Any] = document["$defs"]
    return schemas
