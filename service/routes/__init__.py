"""The table of contents: one module a dialect."""

from fastapi import APIRouter

from service.api.door import HotRoute
from service.api.exchange import Desk
from service.errors import HUB, OIP, OPENAI, OURS, Dialect
from service.routes import (
    answer,
    classify,
    compare,
    embed,
    health,
    hub,
    live,
    metadata,
    models,
    oip,
    oversight,
    playground,
    repository,
)


def hot(desk: Desk) -> list[HotRoute]:
    """The routes where a microsecond counts."""
    own = [classify.route(desk), compare.route(desk), *embed.routes(desk), answer.route(desk)]
    return [*own, *hub.routes(desk), *oip.hot(desk), *repository.hot(desk)]


def plain(desk: Desk) -> list[APIRouter]:
    """All others."""
    modules = (models, oversight, metadata, health, live, playground)
    return [module.router(desk) for module in modules]


def dialect_of(path: str) -> Dialect:
    """How to speak of errors on a path, also on one that no route has."""
    if hub.speaks(path):
        return HUB
    if path == embed.OPENAIS:
        return OPENAI
    return OIP if path == "/v2" or path.startswith("/v2/") else OURS
