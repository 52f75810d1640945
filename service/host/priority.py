"""Threads that run when nobody else wants the core. It knows nothing of what they do."""

import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import TypeVar

logger = logging.getLogger("understudy")

Result = TypeVar("Result")

NICEST = 19


def give_way(nice: int) -> None:
    """Make the calling thread, and those that it starts from now on, so much nicer than the process.

    Only Linux has a niceness of threads. There is no way back, so it is for threads of one's own.
    """
    if not nice:
        return
    if sys.platform != "linux":
        return _say_once(f"teacher_nice: {sys.platform} has no priorities of threads; teachers run like students")
    try:
        own = os.getpriority(os.PRIO_PROCESS, os.getpid())
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(NICEST, own + nice))
    except OSError as error:
        _say_once(f"teacher_nice: this system does not allow it ({error.strerror}); teachers run like students")


def giving_way(nice: int, work: Callable[[], Result]) -> Result:
    """Do this in a thread that gives way, and wait for it: what it starts, such as a pool of threads, gives way too."""
    with ThreadPoolExecutor(1, initializer=partial(give_way, nice)) as thread:
        return thread.submit(work).result()


@cache
def _say_once(line: str) -> None:
    logger.warning("%s", line)
