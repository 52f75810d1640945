"""Ways in to one endpoint: through FastAPI, which documents it, and past it; `service.wire.quick` skips ASGI as well.

It knows paths. It knows nothing of what an endpoint does.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from re import Pattern
from time import perf_counter
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import document
from service.api.exchange import Answering, Desk, too_large
from service.api.gate import access_of
from service.call import EVERYWHERE, REQUEST_ID, Call, Reply, peer_of
from service.errors import ClientGone, Dialect, ServiceError, given_id, respond
from service.telemetry.visits import Visit

WATCH_AFTER_S = 0.05
"""Whoever waits longer is watched for having gone; watching costs a task, and most need not wait."""

OTHER = "other"
"""Stands in metrics and logs for paths that no route has."""


@dataclass(frozen=True, slots=True)
class HotRoute:
    """A POST endpoint that both ways lead to."""

    path: str  # as in the OpenAPI document
    endpoint: Answering
    summary: str
    request: type[BaseModel]
    response: type[BaseModel]
    pattern: Pattern[str] | None = None  # of the path, where it has parameters
    of_model: bool = False  # the answer is a model's, and says so in its headers


class Door:
    """The outermost ASGI application, but for CORS."""

    def __init__(
        self, api: FastAPI, routes: Sequence[HotRoute], desk: Desk, dialect_of: Callable[[str], Dialect]
    ) -> None:
        self.api = api
        self.desk = desk
        self.lifecycle = desk.lifecycle
        self._app: ASGIApp = api
        self._dialect_of = dialect_of
        self._max_body_bytes = desk.settings.max_body_bytes
        self._plain = {route.path: route.endpoint for route in routes if route.pattern is None}
        self._patterns = [(route.pattern, route.endpoint) for route in routes if route.pattern is not None]
        hot = {route.path for route in routes}
        documented = {route.path for route in api.routes if isinstance(route, APIRoute) and route.include_in_schema}
        paths = documented - hot | {OTHER}
        self._meters = {path: desk.metrics.of_route(path) for path in sorted(paths)}

    def hot(self, method: str, path: str) -> Answering | None:
        """The endpoint behind a hot path."""
        if method != "POST":
            return None
        endpoint = self._plain.get(path)
        if endpoint is not None:
            return endpoint
        return next((endpoint for pattern, endpoint in self._patterns if pattern.fullmatch(path)), None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        endpoint = self.hot(scope["method"], scope["path"])
        if endpoint is None:
            return await self._pass_on(scope, receive, send)
        return await _send(send, await through_asgi(endpoint, scope, receive, self._max_body_bytes))

    @cached_property
    def _document(self) -> bytes:
        """Encoded once: FastAPI would do so for every request, and each slow reader would hold a copy of its own."""
        return to_json(self.api.openapi())

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """To FastAPI, if the gate lets it; counted and told of like the hot routes."""
        call = Call(scope["method"], scope["path"], scope["headers"], b"", None)
        if call.method == "HEAD":
            scope = {**scope, "method": "GET"}  # the server leaves the body away
        witness = self.desk.witness
        trace = None if witness is None else witness.begin(call.method, OTHER, call.headers)
        status = ClientGone.status
        request_id = given_id(call.headers)
        added = EVERYWHERE if request_id is None else [*EVERYWHERE, (REQUEST_ID, request_id.encode())]

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = list(message.get("headers", ()))
                message["headers"] = own + [more for more in added if all(name != more[0] for name, _ in own)]
            await send(message)

        try:
            call.key = self.desk.gate.admit(access_of(call.method, call.path), call.headers)
            if scope["method"] == "GET" and call.path == self.api.openapi_url:
                await _send(sent, Reply(self._document))
            else:
                await self._app(scope, receive, sent)
        except ServiceError as error:  # only the gate's: FastAPI answers those of its routes
            await _send(sent, respond(error, call.headers, self._dialect_of(call.path)))
        finally:
            seconds = perf_counter() - call.started
            route = getattr(scope.get("route"), "path", OTHER)
            self._meters.get(route, self._meters[OTHER]).count(status, seconds)
            if witness is not None:
                witness.end(trace, Visit(call.method, route, status, seconds, request_id, call.key))


async def _send(send: Send, reply: Reply) -> None:
    await send({"type": "http.response.start", "status": reply.status, "headers": reply.all_headers()})
    await send({"type": "http.response.body", "body": reply.body})


async def through_asgi(endpoint: Answering, scope: Scope, receive: Receive, max_body_bytes: int) -> Reply:
    """Read the body within its limit, and answer; a client that leaves cancels the work."""
    client = scope.get("client")
    call = Call(scope["method"], scope["path"], scope["headers"], b"", peer_of(client[0]) if client else None)
    try:
        call.body = await _read_body(scope, receive, max_body_bytes)
    except ServiceError as error:
        return endpoint.refuse(error, call)
    work = asyncio.ensure_future(endpoint(call))
    watch: asyncio.Task[None] | None = None
    try:
        await asyncio.wait({work}, timeout=WATCH_AFTER_S)
        if not work.done():
            watch = asyncio.create_task(_cancel_when_gone(receive, call, work))
        return await work
    except asyncio.CancelledError:
        work.cancel()  # whether we were cancelled ourselves, or it was because the client left
        if not call.left:
            raise
        return Reply(b"", ClientGone.status)  # nobody reads it
    finally:
        if watch is not None:
            watch.cancel()


async def _cancel_when_gone(receive: Receive, call: Call, work: "asyncio.Future[Reply]") -> None:
    while (await receive())["type"] != "http.disconnect":
        pass  # the body is complete, so whatever this is, it is not for us
    call.left = True
    work.cancel()


async def _read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The body, but never more than the limit: its length may be undeclared or a lie."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            raise too_large(limit)
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("the client left before its request was complete")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise too_large(limit)
        chunks.append(chunk)
        more = message.get("more_body", False)
    return b"".join(chunks)


def register(
    api: FastAPI, routes: Sequence[HotRoute], max_body_bytes: int, dialect_of: Callable[[str], Dialect]
) -> None:
    """Let FastAPI route to them too, and describe all routes with the schemas of their own pydantic models."""
    for route in routes:
        api.add_api_route(
            route.path,
            _twin(route.endpoint, max_body_bytes),
            methods=["POST"],
            name=route.path,
            summary=route.summary,
            response_model=None,
            openapi_extra=document.of_hot(
                route.path, route.endpoint.dialect, route.request, route.response, route.of_model
            ),
        )
    found = api.openapi

    def openapi() -> dict[str, Any]:
        if api.openapi_schema is None:
            answers = [model for route in routes for model in (route.response, route.endpoint.dialect.body)]
            document.complete(found(), dialect_of, [route.request for route in routes], answers)
        assert api.openapi_schema is not None
        return api.openapi_schema

    api.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def _twin(endpoint: Answering, max_body_bytes: int) -> Callable[[Request], Awaitable[Response]]:
    """The same endpoint as FastAPI calls it."""

    async def answer(request: Request) -> Response:
        reply = await through_asgi(endpoint, request.scope, request.receive, max_body_bytes)
        response = Response(reply.body, reply.status)
        response.raw_headers = reply.all_headers()
        return response

    return answer
