"""`python -m tests.service.hanging serve …`: the real service, except that some words and versions are trouble for it.

What hangs hangs for ever in foreign code, as a run of ONNX Runtime would: it lets go of the interpreter's lock, and no
signal wakes it. This is planted from outside: the service has no switch. It knows the words of `tests.toys.toy`.
"""

import ctypes
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service import catalogue
from service.__main__ import main
from service.bundle.runtime import OpenBundle, open_bundle

HANGS = "brightness"  # a run with this text never ends
SLOW, SLOW_S = "shortest", 0.3  # one with this takes so long
STUCK_VERSION = "9"  # never opens

HANGING_PIECE, SLOW_PIECE = 28, 26  # ##ness, ##est in the vocabulary of `tests.toys.toy`
_PTHREAD_MUTEX_BYTES = 128  # more than on any system


def hang() -> None:
    """Take a lock twice."""
    lock = ctypes.create_string_buffer(_PTHREAD_MUTEX_BYTES)
    library = ctypes.CDLL(None)
    library.pthread_mutex_lock(lock)
    library.pthread_mutex_lock(lock)


def plant() -> None:
    """Into this process."""
    run = OpenBundle.run

    def running(bundle: OpenBundle, rows: Sequence[Any], *more: Any) -> Any:
        if any(HANGING_PIECE in row for row in rows):
            hang()
        if any(SLOW_PIECE in row for row in rows):
            time.sleep(SLOW_S)
        return run(bundle, rows, *more)

    def opening(folder: Path, *more: Any) -> OpenBundle:
        if folder.name == STUCK_VERSION:
            hang()
        return open_bundle(folder, *more)

    setattr(OpenBundle, "run", running)  # noqa: B010 (mypy forbids the assignment)
    setattr(catalogue, "open_bundle", opening)  # noqa: B010


if __name__ == "__main__":
    plant()
    main()
elif __name__ == "__mp_main__":  # as multiprocessing calls it in a worker
    plant()
