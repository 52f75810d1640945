"""Something that goes on in a thread of its own, as long as it is open."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Aside:
    """`_over` is set when it shall end."""

    def __init__(self, work: Callable[[], None], name: str) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=work, name=name)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
