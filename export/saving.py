"""What a better beginning saves: computing of extracted encoders beside one that began with random weights.

Chen et al. 2021 say how much less computing Extract Then Distill needs for the same score. Here the score is the loss
on texts that were held out, and the saving is 1 - C / C0: C0 is what the random beginner spent in all, C what the other
one had spent, extraction included, when it was first seen to be as good. This module knows nothing of networks.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from export.errors import DataError, ModelError
from export.networks.pretrained import RECIPE
from export.recipe import ExtractRecipe, read_pretraining

COST = "cost.json"


class Point(NamedTuple):
    """How far a run had come at one evaluation."""

    compute: float  # floating-point operations so far, extraction included
    loss: float  # on the texts that were held out


@dataclass(frozen=True)
class Run:
    """One encoder's way."""

    name: str
    curve: tuple[Point, ...]

    @property
    def compute(self) -> float:
        """In all."""
        return self.curve[-1].compute

    @property
    def best(self) -> float:
        """The least loss, which is that of the encoder that was kept."""
        return min(point.loss for point in self.curve)

    def reaches(self, loss: float) -> float | None:
        """The computing after which it was first seen to be as good; None if it never was."""
        return next((point.compute for point in self.curve if point.loss <= loss), None)

    def at(self, compute: float) -> float | None:
        """The least loss that it had been seen to have when it had spent so much; None before its first evaluation."""
        return min((point.loss for point in self.curve if point.compute <= compute), default=None)


def check_alike(beside: Path, others: Sequence[Path]) -> None:
    """Raises ModelError where a run differs from the first in more than what it began with, or that one began with
    something: then its computing says nothing of the beginning."""
    first = _recipe(beside)
    if first.extraction.by != "nothing":
        raise ModelError(f"{beside}: began by {first.extraction.by}; name one first that began with nothing")
    for folder in others:
        there = _recipe(folder)
        for name in sorted(set(ExtractRecipe.model_fields) - {"name", "extraction"}):
            if getattr(there, name) != getattr(first, name):
                raise ModelError(f"{folder}: has another {name} than {beside}, so they are not to be compared")


def _recipe(folder: Path) -> ExtractRecipe:
    recipe = read_pretraining(folder / RECIPE)
    if not isinstance(recipe, ExtractRecipe):
        raise ModelError(f"{folder}: is of {recipe.method}; costs are counted of chen2021's encoders")
    return recipe


def read_run(folder: Path) -> Run:
    """Of an encoder of `pretrain`. Raises ModelError for a folder without its costs."""
    try:
        found = json.loads((folder / COST).read_text(encoding="utf-8"))
        curve = tuple(Point(float(point["compute"]), float(point["loss"])) for point in found["curve"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder}: no encoder of `pretrain` with its costs ({type(error).__name__})") from error
    if not curve:
        raise ModelError(f"{folder}: was never evaluated; set training.evaluations_per_epoch to 1 or more")
    return Run(folder.name, curve)


def saving(run: Run, beside: Run) -> float | None:
    """1 - C / C0; None where it never became as good."""
    spent = run.reaches(beside.best)
    return None if spent is None else 1 - spent / beside.compute


def table(runs: Sequence[Run], beside: Run) -> list[str]:
    """Markdown: a line for each run, the one that began with random weights first."""
    head = ("encoder", "computing", "least held-out loss", "at the first one's computing", "saving")
    lines = [f"| {' | '.join(head)} |", "|---" + "|--:" * (len(head) - 1) + "|"]
    for run in (beside, *runs):
        then, saved = run.at(beside.compute), saving(run, beside)
        cells = (f"{run.compute:.3g}", f"{run.best:.4f}", "" if then is None else f"{then:.4f}")
        lines.append(f"| {run.name} | {' | '.join(cells)} | {'' if run is beside else _share(saved)} |")
    return lines


def _share(saved: float | None) -> str:
    return "never as good" if saved is None else f"{saved:.0%}"


def draw(runs: Sequence[Run], file: Path) -> None:
    """An SVG of loss against computing. Raises DataError without the extra `report`."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DataError("--plot needs matplotlib; pip install '.[report]'") from error
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "saving"})  # small, and the same each time
    figure = Figure(figsize=(7, 4), layout="constrained")
    panel = figure.subplots()
    for run in runs:
        panel.plot([point.compute for point in run.curve], [point.loss for point in run.curve], ".-", label=run.name)
    panel.set(xlabel="floating-point operations, extraction included", ylabel="loss on held-out texts", yscale="log")
    panel.legend()
    panel.grid(alpha=0.3)
    figure.savefig(file, format="svg", metadata={"Date": None})
