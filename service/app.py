"""The service on one screen."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig

from service import routes
from service.api.door import Door, register
from service.api.exchange import Desk
from service.api.gate import Gate
from service.catalogue import Catalogue
from service.changes import unloaded
from service.errors import handle_errors
from service.lifecycle import Lifecycle
from service.processes.line import Held, Line
from service.release import release
from service.settings import Settings
from service.telemetry.logs import dropped_lines
from service.telemetry.metrics import Metrics
from service.telemetry.witness import open_witness

PATIENCE_S = 2.0
"""For traces that were not sent yet and texts that were not kept yet, at the end."""


NO_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}
"""FastAPI has telemetry of its own, which an environment variable switches on and which sends paths and bodies."""


def create_app(settings: Settings, line: Line | None = None) -> Door:
    """An ASGI application with a registry, queues and threads of its own; the models open when it starts.

    `line` leads to other workers, if there are any. Raises SettingProblem where a setting asks for what is not there.
    """
    metrics = Metrics()
    held = Held() if line is None else line.held
    lifecycle = Lifecycle(partial(Catalogue, settings, metrics, unloaded(held.orders), held.default), settings)
    gate = Gate(settings)
    witness = open_witness(settings, release())
    desk = Desk(settings, lifecycle, metrics, gate, witness)
    if line is not None:
        desk.changes.join(line)
    lifecycle.on_look = gate.reload
    metrics.watch_ready(lambda: lifecycle.unready() is None)
    metrics.watch_log(dropped_lines)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        lifecycle.start()
        desk.changes.start()
        if desk.watch is not None:
            desk.watch.start()
        if settings.workers > 1:  # others answer meanwhile: take no connections from them before we can answer too
            await lifecycle.opened()
        yield
        await lifecycle.stop()
        if desk.watch is not None:
            await desk.watch.stop(PATIENCE_S)
        desk.changes.stop()
        if witness is not None:
            witness.close(PATIENCE_S)

    api = _api(lifespan)
    hot = routes.hot(desk)
    register(api, hot, settings.max_body_bytes, routes.dialect_of)
    for router in routes.plain(desk):
        api.include_router(router)
    handle_errors(api, routes.dialect_of)
    return Door(api, hot, desk, routes.dialect_of)


def _api(lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]]) -> FastAPI:
    return FastAPI(
        title="Understudy",
        version=release(),
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
    )
