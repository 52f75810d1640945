"""The table of contents: one module a dialect."""

from fastapi import APIRouter

from service.door import HotRoute
from service.exchange import Desk
from service.routes import classify, health, hub, models


def hot(desk: Desk) -> list[HotRoute]:
    """The routes where a microsecond counts."""
    return [classify.route(desk), *hub.routes(desk)]


def plain(desk: Desk) -> list[APIRouter]:
    """All others."""
    return [models.router(desk), health.router(desk)]
