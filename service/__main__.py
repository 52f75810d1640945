"""`python -m service`: the entry point. Exit codes stand in `service.commands.terminal.Code`.

It knows signals. Everything else is imported when they are taken care of.
"""

import os
import signal
import sys
from types import FrameType

SERVE = "serve"


def main() -> None:
    """Run a command, and end the process with its exit code."""
    # Before the imports, which take a while: process 1 of a container ignores signals that it does not handle.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop_serving if sys.argv[1:2] == [SERVE] else _end)
    from service.commands.cli import run

    raise SystemExit(run())


def _stop_serving(_number: int, _frame: FrameType | None) -> None:
    # Told to stop before there was anything to stop: done. `serve` takes the signals over when there is.
    os._exit(0)


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # and on the way out, files that are half written are removed


if __name__ == "__main__":
    main()
