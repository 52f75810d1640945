"""Where the benchmarks' commands print, and how they give up."""

import shlex
import sys
from pathlib import Path
from typing import NoReturn

import typer
from rich.console import Console

from service.bench.client import NoService
from service.bench.engine import UnfitWorkload
from service.bench.machine import IDLE, Surroundings, these_surroundings
from service.bench.pair.contenders import UnfitPair
from service.bench.pair.plots import NoPlots
from service.bench.pair.quality import UnfitData
from service.bench.served import Refused
from service.bench.texts import UnfitTexts
from service.bench.wire import UnfitUrl
from service.bench.worker import WorkerFailed
from service.bundle.errors import BundleError
from service.offline.errors import OfflineError
from service.offline.writing import new_file

PAPER = 150
"""Columns of what is not a terminal: piped output has no width of its own, and cells should not be cut there."""

screen = Console() if Console().is_terminal else Console(width=PAPER)
complaints = Console(stderr=True)

FAULTS = (
    *(BundleError, UnfitWorkload, UnfitTexts, UnfitUrl, NoService, Refused, WorkerFailed),
    *(UnfitPair, UnfitData, NoPlots, OfflineError),
)
"""What a user can mend; anything else is a fault of ours and shows where."""


def give_up(error: Exception) -> NoReturn:
    """One line, and exit code 2."""
    complaints.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(2) from error


def warn(line: str) -> None:
    complaints.print(f"warning: {line}", markup=False, highlight=False, soft_wrap=True)


def idle_surroundings() -> Surroundings:
    """To be called before anything is measured; with a warning where others are at work."""
    found = these_surroundings()
    if not found.idle:
        warn(f"the machine is not idle (load {found.load}, {IDLE} is the limit): do not trust these figures")
    return found


def command_line() -> str:
    """What was typed, to be typed again."""
    typed = sys.argv[1:]
    return shlex.join(["python", "-m", "service", "bench", *(typed[1:] if typed[:1] == ["bench"] else typed)])


def check_places(*files: Path | None) -> None:
    """Refuse a file that could not be written, before anything is measured for it."""
    for file in files:
        if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
            raise typer.BadParameter(f"{file}: no file can be written there; name one in a folder that exists")


def write(file: Path | None, content: str) -> None:
    """If a file was asked for: all of it at once, so that whoever looks finds the old content or the new."""
    if file is None:
        return
    if file.exists() and not file.is_file():  # such as /dev/stdout
        file.write_text(content, encoding="utf-8")
        return
    with new_file(file, overwrite=True) as stream:
        stream.write(content)
