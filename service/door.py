"""Two ways in to one endpoint: through FastAPI, which documents it, and past it, which is quicker.

It knows paths and schemas. It knows nothing of what an endpoint does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI, Request
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import PROBLEM_TYPE, Problem, Work
from service.lifecycle import Lifecycle

REF = "#/components/schemas/{model}"

_REFUSALS = MappingProxyType(
    {
        400: "The body is not JSON",
        404: "No model of that name is served",
        413: "More bytes than max_body_bytes",
        415: "Not JSON by its Content-Type",
        422: "JSON, but not what the route takes",
        429: "The queue is full; nothing was run",
        500: "The model failed on a row of this request",
        503: "Loading, draining, or a worker is dead",
    }
)


@dataclass(frozen=True, slots=True)
class HotRoute:
    """A POST endpoint that both ways lead to."""

    path: str
    endpoint: Work
    summary: str
    request: type[BaseModel]
    response: type[BaseModel]
    error: type[BaseModel]


class Door:
    """The outermost ASGI application."""

    def __init__(self, api: FastAPI, routes: Sequence[HotRoute], lifecycle: Lifecycle) -> None:
        self.api = api
        self.lifecycle = lifecycle
        self._app: ASGIApp = api
        self._hot = {("POST", route.path): route.endpoint for route in routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            endpoint = self._hot.get((scope["method"], scope["path"]))
            if endpoint is not None:
                response = await endpoint(Request(scope, receive, send))
                return await response(scope, receive, send)
        return await self._app(scope, receive, send)


def register(api: FastAPI, routes: Sequence[HotRoute]) -> None:
    """Let FastAPI route to them too, and describe them with the schemas of their own pydantic models."""
    for route in routes:
        api.add_api_route(
            route.path,
            route.endpoint,
            methods=["POST"],
            summary=route.summary,
            response_model=None,
            openapi_extra=_described(route),
        )
    document = api.openapi
    schemas = _schemas(routes)

    def openapi() -> dict[str, Any]:
        if api.openapi_schema is None:
            document().setdefault("components", {}).setdefault("schemas", {}).update(schemas)
        assert api.openapi_schema is not None
        return api.openapi_schema

    api.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def _described(route: HotRoute) -> dict[str, Any]:
    media_type = PROBLEM_TYPE if route.error is Problem else "application/json"
    refusals = {
        str(status): {"description": why, "content": _content(route.error, media_type)}
        for status, why in _REFUSALS.items()
    }
    done = {"200": {"description": "Scores", "content": _content(route.response, "application/json")}}
    body = {"required": True, "content": _content(route.request, "application/json")}
    return {"requestBody": body, "responses": done | refusals}


def _content(model: type[BaseModel], media_type: str) -> Mapping[str, Any]:
    return {media_type: {"schema": {"$ref": REF.format(model=model.__name__)}}}


def _schemas(routes: Sequence[HotRoute]) -> dict[str, Any]:
    requests = {(route.request, "validation") for route in routes}
    answers = {(model, "serialization") for route in routes for model in (route.response, route.error)}
    models = sorted(requests | answers, key=lambda pair: pair[0].__name__)
    _, document = models_json_schema(models, ref_template=REF)  # type: ignore[arg-type]
    schemas: dict[str, Any] = document["$defs"]
    return schemas
