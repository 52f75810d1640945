"""One request through ASGI, and what is said where the application says nothing.

It knows uvicorn's cycle. It knows nothing of how requests arrive or in which order they are answered.
"""

import asyncio
import logging
from collections.abc import Callable

from uvicorn._types import ASGI3Application, ASGIReceiveEvent
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service.call import Headers, Reply
from service.errors import Dialect, NotReady, respond

logger = logging.getLogger("understudy")

DialectOf = Callable[[str], Dialect]
"""How a path speaks of errors."""


class Cycle(RequestResponseCycle):
    """uvicorn's, except for the ends that are not the application's."""

    dialect_of: DialectOf
    taken = False

    async def receive(self) -> ASGIReceiveEvent:
        """The body, all of which is here; after that, word that the client has gone or has its answer."""
        if not self.taken and not self.disconnected:
            self.taken = True
            return {"type": "http.request", "body": bytes(self.body), "more_body": False}
        if not self.disconnected and not self.response_complete:
            await self.message_event.wait()
        return {"type": "http.disconnect"}

    def leave(self) -> None:
        """The client has gone: whoever waits for its message is told."""
        self.disconnected = True
        self.message_event.set()

    async def run_asgi(self, app: ASGI3Application) -> None:
        try:
            await app(self.scope, self.receive, self.send)
            if not self.response_complete and not self.disconnected:
                raise RuntimeError("the application returned without an answer")
        except asyncio.CancelledError:  # the time to drain is over
            await self._end(NotReady("the service stopped before the answer was ready; ask another replica"))
        except BaseException as error:  # a panic of Rust code is no Exception
            fault = RuntimeError("a request failed outside of its endpoint")
            fault.__cause__ = error
            await self._end(fault)
        finally:
            self.on_response = lambda: None

    async def _end(self, error: Exception) -> None:
        """Answer if nobody did yet. Half an answer is cut, so that nobody takes it for a whole one."""
        if not self.response_started:
            reply = respond(error, list(self.scope["headers"]), self.dialect_of(self.scope["path"]))
            await self.send({"type": "http.response.start", "status": reply.status, "headers": and_close(reply)})
            await self.send({"type": "http.response.body", "body": reply.body})
            return
        if not isinstance(error, NotReady):
            logger.error("an answer broke off: a fault of ours", exc_info=error)
        if not self.response_complete:
            self.transport.abort()


def and_close(reply: Reply) -> Headers:
    """The headers of an answer after which the connection is closed."""
    return [*reply.all_headers(), (b"connection", b"close")]
