"""Flags that `pair` and `papers` have: who takes part, and with how many threads. Measures nothing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from service.bench.flags import whole
from service.bench.pair.contenders import SHAPES, Contender, Names, contenders_of
from service.host.cores import cores

Students = Annotated[list[str], typer.Option(help="DIR, DIR:fast, DIR:exact or DIR:native; several times")]
Teachers = Annotated[list[str] | None, typer.Option(help="the same: what the students are held against")]
Shapes = Annotated[
    list[str] | None,
    typer.Option(
        help="a teacher's shape with random weights (`python -m export shape`), such as bert-base; several times"
    ),
]
ShapeModels = Annotated[Path, typer.Option(help="where bundles of such shapes are found")]
TextColumn = Annotated[str, typer.Option(help="column of the text")]
Threads = Annotated[str, typer.Option(help="of the engine; `all` is one a core")]


@dataclass(frozen=True)
class ContenderFlags:
    """Students and what they are held against."""

    student: Students
    teacher: Teachers = None
    shape: Shapes = None
    shape_models: ShapeModels = SHAPES

    def contenders(self) -> tuple[Contender, ...]:
        """Those that they name. Raises UnfitPair, BundleError."""
        return contenders_of(Names(self.student, self.teacher or (), self.shape or (), self.shape_models))


def threads_of(text: str) -> tuple[int, ...]:
    """`1,all` -> numbers of threads, each once."""
    found = whole(text.replace("all", str(cores())))
    if not found or 0 in found:
        raise typer.BadParameter(f"{text}: name at least one thread, or `all`")
    return tuple(sorted(set(found)))
