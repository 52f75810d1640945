"""`python -m tests.prove.leaking BYTES serve …`: the real service, except that each request leaves BYTES behind.

A check for leaks that has never seen one proves nothing. This one is planted from outside: the service has no switch.
"""

import os
import sys

from service.__main__ import main
from service.telemetry.metrics import RouteMeter

SIZE = "LEAK_BYTES"  # for workers, which are processes of their own
LEFT_BEHIND: list[bytearray] = []


def plant(size: int) -> None:
    """Every answer of every route is counted once, so that is where to leave something behind."""
    count = RouteMeter.count

    def leaving(meter: RouteMeter, code: int, seconds: float) -> None:
        LEFT_BEHIND.append(bytearray(size))  # written, not only reserved
        count(meter, code, seconds)

    setattr(RouteMeter, "count", leaving)  # noqa: B010 (mypy forbids the assignment)


if __name__ == "__main__":
    os.environ[SIZE] = sys.argv.pop(1)
    plant(int(os.environ[SIZE]))
    main()
elif __name__ == "__mp_main__":  # as multiprocessing calls it in a worker
    plant(int(os.environ[SIZE]))
