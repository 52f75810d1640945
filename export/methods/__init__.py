"""The papers: name in a recipe -> the stages that it trains. To add a paper, add a module and a row."""

from collections.abc import Callable

from export.learning.training import Stage
from export.methods import mukherjee2020, tang2019
from export.recipe import DistillRecipe
from export.transfer.transfer_set import TransferSet

METHODS: dict[str, Callable[[DistillRecipe, TransferSet], list[Stage]]] = {
    "tang2019": tang2019.stages,
    "mukherjee2020": mukherjee2020.stages,
}
