"""`GET /` and its files: the playground, a page on which people try the models.

Whatever it shows it asks of the API, with the caller's own key. It knows nothing of models.
"""

from collections.abc import Awaitable, Callable
from types import MappingProxyType

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from service.api.exchange import Desk
from service.web.files import PAGE, PATHS, File, read_files

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    )
)
"""Nothing runs, loads or leaves but to and from us; so a text or a label that looks like HTML cannot do harm either."""

HEADERS = MappingProxyType(
    {
        "cache-control": "no-cache",  # kept, but asked for each time: the files of one page must be of one version
        "content-security-policy": POLICY,
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "no-referrer",
    }
)

_UNCHANGED: dict[int | str, dict[str, object]] = {304: {"description": "If-None-Match names the newest one"}}


def router(desk: Desk) -> APIRouter:
    """The routes; the files are read here, once. Raises SettingProblem if one is missing."""
    routes = APIRouter()
    if not desk.settings.playground:
        for path in PATHS:
            routes.get(path, include_in_schema=False)(_absent)
        return routes
    for file in read_files():
        page = file.path == PAGE
        routes.get(
            file.path,
            name=file.path,
            summary="The playground: try the models in a browser",
            response_class=HTMLResponse if page else Response,
            responses=_UNCHANGED,
            include_in_schema=page,
        )(_sender(file))
    return routes


def _sender(file: File) -> Callable[[Request], Awaitable[Response]]:
    headers = {**HEADERS, "etag": file.tag}

    async def send(request: Request) -> Response:
        known = request.headers.get("if-none-match", "").split(",")
        if any(tag.strip().removeprefix("W/") in (file.tag, "*") for tag in known):
            return Response(status_code=304, headers=headers)
        return Response(file.content, headers=headers, media_type=file.media_type)

    return send


async def _absent() -> Response:
    raise HTTPException(404)
