"""Which release of Understudy this is, and the option that says so. It knows nothing else."""

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

NAME = "understudy"


def release() -> str:
    """Its version; "0" where it runs from a checkout that was never installed."""
    try:
        return version(NAME)
    except PackageNotFoundError:
        return "0"


def _say(wanted: bool) -> None:
    if wanted:
        typer.echo(release())
        raise typer.Exit


ShowRelease = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_say, help="print the version and leave")
]
"""Of a whole command line, service's or export's."""
