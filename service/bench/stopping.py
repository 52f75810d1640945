"""Ctrl-C and SIGTERM while something long is measured: the run under way is ended, and SystemExit is raised.

Python runs its handlers between two steps of its own, and one run of a large model is a single step of a minute. So a
thread hears of a signal at once, and gives the run up. It knows nothing of what is measured.
"""

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from types import FrameType

from service.bundle.runtime import RunHandle

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stoppable() -> Iterator[RunHandle]:
    """Give the handle to every run inside; the exit code is 128 and the signal's number. For the main thread alone."""
    handle = RunHandle()
    hearing, telling = socket.socketpair()
    with hearing, telling:
        telling.setblocking(False)
        listener = Thread(target=_listen, args=(hearing, handle), daemon=True)
        listener.start()
        told_before = signal.set_wakeup_fd(telling.fileno(), warn_on_full_buffer=False)
        before = {number: signal.signal(number, _stop) for number in SIGNALS}
        try:
            yield handle
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(told_before)
            telling.shutdown(socket.SHUT_WR)
            listener.join()


def _listen(hearing: socket.socket, handle: RunHandle) -> None:
    """Until a signal's number comes, or nothing any more."""
    while number := hearing.recv(1):
        if number[0] in SIGNALS:
            handle.abort()


def _stop(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
