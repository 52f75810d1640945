"""The service on one screen."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI

from service import routes
from service.door import Door, register
from service.errors import handle_errors
from service.exchange import Desk
from service.lifecycle import Lifecycle
from service.metrics import Metrics
from service.predictors import open_catalogue
from service.settings import Settings


def create_app(settings: Settings) -> Door:
    """An ASGI application with a registry, queues and threads of its own; the models open when it starts."""
    metrics = Metrics()
    lifecycle = Lifecycle(partial(open_catalogue, settings, metrics), settings.drain_seconds)
    metrics.watch_ready(lambda: lifecycle.unready() is None)
    desk = Desk(settings, lifecycle, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        lifecycle.start()
        yield
        await lifecycle.stop()

    api = FastAPI(title="Understudy", version=_version(), lifespan=lifespan, redoc_url=None, redirect_slashes=False)
    hot = routes.hot(desk)
    register(api, hot)
    for router in routes.plain(desk):
        api.include_router(router)
    handle_errors(api)
    return Door(api, hot, lifecycle)


def _version() -> str:
    try:
        return version("understudy")
    except PackageNotFoundError:  # run from a checkout
        return "0"
