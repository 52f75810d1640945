"""A coroutine that begins at once instead of at the next turn of the event loop.

`asyncio.Task` does so from Python 3.12 on (`eager_start`); here it is for 3.11, as far as our endpoints need it: they
wait for futures and nothing else. A turn of the loop costs as much as tokenising a text.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any


class Eager:
    """One coroutine under way. What it raises is raised where it was woken: it should raise nothing."""

    __slots__ = ("_context", "_coroutine", "_on_done", "_waiting_for")

    def __init__(self, coroutine: Coroutine[Any, None, None], on_done: "Callable[[Eager], None]") -> None:
        self._coroutine = coroutine
        self._on_done = on_done
        self._context: Context = copy_context()  # its own, as a task has
        self._waiting_for: asyncio.Future[Any] | None = None

    def begin(self) -> None:
        """Run until it first waits."""
        self._context.run(self._go_on)

    def cancel(self, msg: object = None) -> None:
        """Raise CancelledError where it waits."""
        if self._waiting_for is not None:
            self._waiting_for.cancel(msg)

    def _go_on(self, _: object = None) -> None:
        self._waiting_for = None
        try:
            waited = self._coroutine.send(None)
        except StopIteration:
            return self._on_done(self)
        except BaseException:
            self._on_done(self)
            raise
        # What a task does with what a coroutine yields: the flag says that `await` handed the future over.
        waited._asyncio_future_blocking = False
        self._waiting_for = waited
        waited.add_done_callback(self._go_on, context=self._context)
        return None
