"""What several commands may be told, and how it is said on the command line."""

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from export.errors import OptionError
from service.cluster import Cluster, ClusterError

Overrides = Annotated[list[str], typer.Option("--set", help="table.key=VALUE over the recipe's; table.key= for none")]
Work = Annotated[Path, typer.Option(help="checkpoints and the teacher's cached logits")]
Models = Annotated[Path, typer.Option(help="the repository of bundles to publish into")]
Recipe = Annotated[Path, typer.Argument(help="a recipe, TOML")]
TextColumn = Annotated[str, typer.Option(help="the column of the text")]
LabelColumn = Annotated[str, typer.Option(help="the column of the label")]
SecondColumn = Annotated[
    str | None,
    typer.Option("--pair", help="the column of the second text, where the student reads pairs; unset: text2"),
]
PairColumn = Annotated[str | None, typer.Option("--pair", help="the column of the second text, where rows are pairs")]
Relabel = Annotated[list[str], typer.Option(help="tags: NAME=OTHER reads entities so, NAME=O as none; repeatable")]
Rename = Annotated[
    list[str], typer.Option(help="NAME=OTHER: what the teacher calls a label is called otherwise here; repeatable")
]
Repair = Annotated[bool, typer.Option("--repair", help="tags: an I- that goes on with nothing is read as a B-")]


class Engine(StrEnum):
    """What works through many texts."""

    LOCAL = "local"
    RAY = "ray"


EngineOption = Annotated[Engine, typer.Option(help="asks the teacher: local, this machine; ray, a Ray cluster")]
RayAddress = Annotated[str | None, typer.Option(help="of its head; unset: as Ray finds one, or starts it")]


def cluster_of(engine: Engine, address: str | None) -> Cluster | None:
    """Where teachers are asked, if not here. Raises OptionError where there is none."""
    if engine is Engine.LOCAL:
        if address:
            raise OptionError("--ray-address is for --engine ray")
        return None
    found = Cluster(address, on_gpus=True)
    try:
        found.check()
    except ClusterError as error:
        raise OptionError(str(error)) from error
    return found


def relabelled(pairs: list[str], option: str = "--relabel") -> dict[str, str]:
    """NAME=OTHER, each. Raises OptionError."""
    parted = [pair.partition("=") for pair in pairs]
    for name, equals, other in parted:
        if not (name and equals and other):
            more = ", or NAME=O for none" if option == "--relabel" else ""
            raise OptionError(f"{option} {name}{equals}{other}: write NAME=OTHER{more}")
    return {name: other for name, _, other in parted}


def command_line() -> str:
    """As it was called, to be kept with what it makes."""
    return shlex.join(["python", "-m", "export", *sys.argv[1:]])
