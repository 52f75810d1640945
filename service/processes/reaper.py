"""Ends the process when it was told to stop and does not, whatever hangs in it.

Handlers of signals run in the main thread, so a model that hangs there would keep the process for ever. But the
interpreter writes the number of a signal to a socket at once, whatever its threads do; one of ours listens to that.
It knows signals and clocks. It knows nothing of what it ends.
"""

import logging
import os
import signal
import socket
import threading
import time
from contextlib import suppress

logger = logging.getLogger("understudy")

STOPS = frozenset((signal.SIGTERM, signal.SIGINT))

LAST_WORDS_S = 0.2
"""For the log line that says why."""


class Reaper:
    """One for a process."""

    def __init__(self, patience_s: float) -> None:
        """`patience_s` is how long after the first signal the process may still be there."""
        self._patience_s = patience_s
        self._former = self._next = -1
        self._mouth: socket.socket | None = None  # held, or it would be closed

    def start(self) -> None:
        """In the main thread, while its event loop runs: that may listen to the same, and goes on hearing it."""
        ears, self._mouth = socket.socketpair()
        self._mouth.setblocking(False)
        self._former = signal.set_wakeup_fd(self._mouth.fileno(), warn_on_full_buffer=False)
        if self._former >= 0:
            self._next = os.dup(self._former)  # ours, so that it never becomes another file
        threading.Thread(target=self._listen, args=(ears,), name="reaper", daemon=True).start()

    def stop_listening(self) -> None:
        """Before the event loop ends. If a signal came before, the process still has its time only."""
        signal.set_wakeup_fd(self._former)

    def _listen(self, ears: socket.socket) -> None:
        due: float | None = None
        while True:
            ears.settimeout(None if due is None else max(0.001, due - time.monotonic()))
            try:
                numbers = ears.recv(64)
            except TimeoutError:
                self._end()
            if self._next >= 0:
                with suppress(OSError):
                    os.write(self._next, numbers)
            if due is None and STOPS.intersection(numbers):
                due = time.monotonic() + self._patience_s

    def _end(self) -> None:
        # In a thread, since whatever hangs may hold the lock of the log.
        words = "the service hangs; it ends without having answered everyone"
        threading.Thread(target=logger.error, args=(words,), daemon=True).start()
        time.sleep(LAST_WORDS_S)
        os._exit(0)
