"""How commands speak and end: answers on stdout, one line on stderr when something is wrong, and exit codes.

It knows streams. It knows nothing of what a command does.
"""

import os
import sys
from contextlib import suppress
from enum import IntEnum
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

STARTED = perf_counter()

PIPED_WIDTH = 240
"""Piped output has no width of its own, and cells should not be cut there."""


class Code(IntEnum):
    """The exit codes, and what each means: the one place where they are documented, which `--help` shows."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> "Code":
        """A number with words."""
        code = int.__new__(cls, value)
        code._value_ = value
        code.meaning = meaning
        return code

    DONE = 0, "done; also a server told to stop, and a reader of stdout that went away"
    FAILED = 1, "failed while running: a port that is taken, a full disk, a fault of ours"
    USAGE = 2, "wrong usage, settings or input; the same again would not help"
    BUNDLE = 3, "a bundle is not valid"
    INTERRUPTED = 130, "interrupted by Ctrl-C"
    TERMINATED = 143, "ended by SIGTERM"


class Misused(Exception):
    """The command cannot do what it was asked. One line that says what to ask instead."""


class Failed(Exception):
    """It was asked rightly, and did not work. One line that says what may be done about it."""


def say(text: str) -> None:
    """Write a line, or several, and let it be seen now."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def complain(problem: str) -> None:
    """Write one line to stderr, whatever the problem is written like."""
    with suppress(OSError):  # whoever closed stderr does not want to know
        sys.stderr.write(f"understudy: {' '.join(problem.split())}\n")
        sys.stderr.flush()


def show(*parts: "RenderableType") -> None:
    """Write tables and the like, coloured on a terminal."""
    from rich.console import Console

    screen = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
    with screen.capture() as captured:  # so that it is ours to write: rich would end the process at a broken pipe
        screen.print(*parts, sep="\n")
    say(captured.get().rstrip("\n"))


def have_streams() -> None:
    """Daemons are started with closed streams, which Python shows as None."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))


def forget_stdout() -> None:
    """Its reader has gone: let nothing that is still buffered fail when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
