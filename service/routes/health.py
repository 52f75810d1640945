"""`GET /livez`, `GET /readyz`, `GET /metrics`: what the platform asks."""

import asyncio
from typing import Literal

from fastapi import APIRouter, Response

from service.api.exchange import Desk, Wire
from service.errors import NotReady
from service.telemetry.metrics import MEDIA_TYPE, exposition


class Live(Wire):
    """The event loop runs; whether requests can be answered is another question."""

    status: Literal["alive"] = "alive"


class Ready(Wire):
    """Models are open, their workers run, and nobody has asked us to stop."""

    status: Literal["ready"] = "ready"


def router(desk: Desk) -> APIRouter:
    """The routes."""
    routes = APIRouter()

    @routes.get("/livez", summary="Is the process alive?")
    async def livez() -> Live:
        return Live()

    @routes.get("/readyz", summary="Should it get requests?")
    async def readyz() -> Ready:
        why_not = desk.lifecycle.unready()
        if why_not is not None:
            raise NotReady(why_not)
        return Ready()

    @routes.get(
        "/metrics",
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        collected = desk.metrics.collected()
        # Writing it takes milliseconds, for which requests would wait.
        return Response(await asyncio.to_thread(exposition, collected), media_type=MEDIA_TYPE)

    return routes
