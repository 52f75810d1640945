"""`POST /v2/repository/…`: the model repository extension of the Open Inference Protocol v2, as Triton has it.

Loading and unloading are for admins. A model is always loaded as it lies in the folder.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, RootModel
from pydantic_core import to_json

from service.api.door import HotRoute
from service.api.exchange import Desk, Extensible
from service.bundle.errors import BundleError
from service.bundle.store import BundlePath, find_bundles
from service.call import Call, Reply
from service.catalogue import NoSuchModel, StillNeeded
from service.changes import Deed, NotByAll
from service.errors import OIP, ChangeIncomplete, ChangeRefused, InvalidRequest, NotReady, UnknownModel
from service.processes.crew import NoTurn

INDEX = "/v2/repository/index"
LOAD, UNLOAD = "/v2/repository/models/{name}/load", "/v2/repository/models/{name}/unload"
_NAMED = re.compile("/v2/repository/models/([^/]+)/(?:load|unload)")
_PATH = re.compile(r"(?<![\w.…])/[^\s:,;()'\"]+")

Asked = TypeVar("Asked", bound=Extensible)


class IndexRequest(Extensible):
    """Which models to list."""

    ready: bool = Field(False, description="Only those that are served")


class Indexed(Extensible):
    """One version of a model."""

    name: str
    version: str
    state: str = Field(description="READY or UNAVAILABLE")
    reason: str


class IndexResponse(RootModel[tuple[Indexed, ...]]):
    """Every version in the folder."""


class ChangeRequest(Extensible):
    """Nothing need be said."""

    parameters: dict[str, Any] = Field({}, description="`config` and `file:…` are refused: the bundle says it all")


class ChangeResponse(Extensible):
    """What was done."""

    name: str
    opened: tuple[str, ...] = Field(description="name@version of what is served from now on")
    retired: tuple[str, ...] = Field(description="name@version of what is not served any more")


def hot(desk: Desk) -> list[HotRoute]:
    """The routes. They are POSTs, so they go the way of the others."""

    async def index(call: Call) -> Reply:
        asked = _asked(desk, call, IndexRequest)
        return Reply(to_json(await _index(desk, asked.ready)))

    async def load(call: Call) -> Reply:
        _as_it_lies(_asked(desk, call, ChangeRequest))
        return await _change(desk, call, Deed.LOAD)

    async def unload(call: Call) -> Reply:
        _asked(desk, call, ChangeRequest)
        return await _change(desk, call, Deed.UNLOAD)

    def route(path: str, work: Callable[[Call], Awaitable[Reply]], summary: str) -> HotRoute:
        named = None if path == INDEX else re.compile(path.replace("{name}", "[^/]+"))
        request, response = (IndexRequest, IndexResponse) if path == INDEX else (ChangeRequest, ChangeResponse)
        return HotRoute(path, desk.endpoint(work, OIP, path), summary, request, response, named)

    return [
        route(INDEX, index, "List the models of the folder"),
        route(LOAD, load, "Serve the newest version of a model"),
        route(UNLOAD, unload, "Stop serving a model"),
    ]


def _asked(desk: Desk, call: Call, wanted: type[Asked]) -> Asked:
    """Clients may send no body at all."""
    return desk.receive(call, wanted) if call.body else wanted()


def _as_it_lies(asked: ChangeRequest) -> None:
    for name in asked.parameters:
        if name == "config" or name.startswith("file:"):
            raise InvalidRequest.at("parameters", "a model is loaded as it lies in the folder, with its own manifest")


async def _index(desk: Desk, only_ready: bool) -> list[Indexed]:
    served = [predictor.manifest for predictor in desk.lifecycle.catalogue.predictors]
    known = [Indexed(name=each.name, version=each.version, state="READY", reason="") for each in served]
    if only_ready:
        return known
    names = {(each.name, each.version) for each in served}
    places = await asyncio.to_thread(_places, desk.settings.models)
    return known + [
        Indexed(name=place.name, version=place.version, state="UNAVAILABLE", reason="not loaded")
        for place in places
        if (place.name, place.version) not in names
    ]


def _places(models: Path) -> list[BundlePath]:
    try:
        return find_bundles(models)
    except (BundleError, OSError):  # whoever follows the folder logs it
        return []


async def _change(desk: Desk, call: Call, deed: Deed) -> Reply:
    named = _NAMED.fullmatch(call.path)
    assert named is not None  # it led us here
    name = named[1]
    # A client that leaves does not stop half-way what it has begun.
    task = asyncio.ensure_future(desk.changes.make(deed, name))
    try:
        done = await asyncio.shield(task)
    except NoSuchModel as error:
        raise UnknownModel(str(error)) from error
    except StillNeeded as error:
        raise ChangeRefused(str(error)) from error
    except NoTurn as error:
        raise NotReady(str(error)) from error
    except NotByAll as error:
        raise ChangeIncomplete(_said(str(error), desk.settings.models)) from error
    if done.refused:
        raise ChangeRefused("; ".join(_said(line, desk.settings.models) for line in done.refused))
    return Reply(to_json(ChangeResponse(name=name, opened=done.opened, retired=done.retired)))


def _said(line: str, models: Path) -> str:
    """A line about a bundle without the places of this machine."""
    return _PATH.sub("…", line.replace(f"{models}/", ""))
