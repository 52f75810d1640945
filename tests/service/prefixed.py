"""`python -m tests.service.prefixed serve …`: the real service, as behind a proxy that takes a prefix off each path.

Without the prefix nothing is found, so a page that forgets it breaks.
"""

from typing import Any

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from service import worker
from service.__main__ import main

PREFIX = "/models/nlp"


def behind(app: ASGIApp, _origins: Any) -> ASGIApp:
    """In the place of CORS, which is outside of everything else too."""

    async def proxied(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if not scope["path"].startswith(f"{PREFIX}/"):
                return await PlainTextResponse("nothing is here", 404)(scope, receive, send)
            scope = {**scope, "path": scope["path"].removeprefix(PREFIX)}
        return await app(scope, receive, send)

    return proxied


if __name__ == "__main__":
    setattr(worker, "with_cors", behind)  # noqa: B010 (mypy forbids the assignment)
    main()
