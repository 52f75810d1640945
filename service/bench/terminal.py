"""Where the benchmarks' commands print, and how they give up."""

from typing import NoReturn

import typer
from rich.console import Console

from service.bench.client import NoService
from service.bench.engine import UnfitWorkload
from service.bench.served import Refused
from service.bench.texts import UnfitTexts
from service.bench.wire import UnfitUrl
from service.bench.worker import WorkerFailed
from service.bundle.errors import BundleError

PAPER = 150
"""Columns of what is not a terminal: piped output has no width of its own, and cells should not be cut there."""

screen = Console() if Console().is_terminal else Console(width=PAPER)
complaints = Console(stderr=True)

FAULTS = (BundleError, UnfitWorkload, UnfitTexts, UnfitUrl, NoService, Refused, WorkerFailed)
"""What a user can mend; anything else is a fault of ours and shows where."""


def give_up(error: Exception) -> NoReturn:
    """One line, and exit code 2."""
    complaints.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(2) from error


def warn(line: str) -> None:
    complaints.print(f"warning: {line}", markup=False, highlight=False, soft_wrap=True)
