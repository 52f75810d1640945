"""A smaller encoder cut out of a larger one of BERT's make: some of its layers, hidden dimensions, heads and neurons.

Chen et al. 2021 (Extract Then Distill) begin a student so. Which units stay is chosen at random (ETD-Rand) or by how
much they count (ETD-Impt, `export.networks.importance`). The hidden dimensions are the same everywhere, since the
residual connections add all layers into one stream. Nothing here trains.
"""

import math
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from export.errors import ModelError
from export.networks.shapes import BertShape

Places = NDArray[np.int64]
"""Which units of the larger encoder, in the order that they have in the smaller one; NEW where it has none."""

NEW = -1
"""A dimension that widens a head: it changes nothing at first, and learns."""


@dataclass(frozen=True)
class Kept:
    """The units that stay. Heads are kept whole, thinned or widened, alike for queries and keys."""

    layers: tuple[int, ...]  # from 0, ascending
    hidden: Places  # (H',)
    queries: tuple[Places, ...]  # of each layer that stays, and of its keys: (A' x d',) of A x d
    values: tuple[Places, ...]  # the same, and what the attention's output reads
    neurons: tuple[Places, ...]  # of each layer that stays: (F',)


@dataclass(frozen=True)
class Importance:
    """How much each unit of an encoder counts; more is more."""

    hidden: NDArray[np.float64]  # (H,), over all layers
    heads: NDArray[np.float64]  # (N, A)
    queries: NDArray[np.float64]  # (N, A, d)
    values: NDArray[np.float64]  # (N, A, d)
    neurons: NDArray[np.float64]  # (N, F)

    @classmethod
    def by_chance(cls, shape: BertShape, rng: Generator) -> Self:
        """ETD-Rand: no unit counts more than another."""
        heads = (shape.layers, shape.heads)
        units = (*heads, shape.hidden // shape.heads)
        return cls(
            hidden=rng.random(shape.hidden),
            heads=rng.random(heads),
            queries=rng.random(units),
            values=rng.random(units),
            neurons=rng.random((shape.layers, shape.intermediate)),
        )


def shape_of(model: nn.Module) -> BertShape:
    """Raises ModelError for a network of another make than BERT's, of which nothing can be cut out."""
    for name in model.state_dict():
        _axes(name)
    config: Any = model.config
    return BertShape(config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.intermediate_size)


def shaped(config: Any, shape: BertShape) -> Any:
    """A teacher's configuration, of another size."""
    other = deepcopy(config)
    other.num_hidden_layers, other.hidden_size = shape.layers, shape.hidden
    other.num_attention_heads, other.intermediate_size = shape.heads, shape.intermediate
    return other


def uniform_layers(teacher: int, student: int) -> tuple[int, ...]:
    """The layers (from 0) that a student begins with: the last one, and below it at even distances.

    Chen et al. 2021's correspondence [0, n/m, 2n/m, ..., n], in which 0 are the embeddings; rounded where m does not
    divide n. Those are the layers that it is held against, too. Raises ModelError where there are too few.
    """
    if student > teacher:
        raise ModelError(f"student: {student} layers cannot be cut out of {teacher}; ask for fewer")
    return tuple(math.floor(number * teacher / student + 0.5) - 1 for number in range(1, student + 1))


def check_part(whole: BertShape, shape: BertShape) -> None:
    """Raises ModelError where an encoder has not as many units as are to be cut out of it."""
    uniform_layers(whole.layers, shape.layers)
    for what, asked, there in (
        ("hidden dimensions", shape.hidden, whole.hidden),
        ("heads", shape.heads, whole.heads),
        ("neurons", shape.intermediate, whole.intermediate),
    ):
        if asked > there:
            raise ModelError(f"student: {asked} {what} cannot be cut out of {there}; ask for fewer")


def choose(counts: Importance, shape: BertShape) -> Kept:
    """The units that count most, in their old order. Raises ModelError where the larger encoder has not as many."""
    layers, heads, width = counts.queries.shape
    own = shape.hidden // shape.heads
    check_part(BertShape(layers, len(counts.hidden), heads, counts.neurons.shape[1]), shape)
    kept = uniform_layers(layers, shape.layers)
    chosen = [_most(counts.heads[layer], shape.heads) for layer in kept]

    def units(scores: NDArray[np.float64]) -> tuple[Places, ...]:
        return tuple(
            np.concatenate([_widened(head * width + _most(scores[layer, head], own), own) for head in of_layer])
            for layer, of_layer in zip(kept, chosen, strict=True)
        )

    return Kept(
        layers=kept,
        hidden=_most(counts.hidden, shape.hidden),
        queries=units(counts.queries),
        values=units(counts.values),
        neurons=tuple(_most(counts.neurons[layer], shape.intermediate) for layer in kept),
    )


def extract(teacher: PreTrainedModel, kept: Kept, heads: int) -> PreTrainedModel:
    """A new encoder with these units' weights, and so many heads in each layer.

    Queries are scaled by sqrt(d'/d), as attention divides by the square root of a head's width: a head attends as
    before when what it lost or won is zero. Raises ModelError for a network of another make than BERT's.
    """
    shape = BertShape(len(kept.layers), len(kept.hidden), heads, len(kept.neurons[0]))
    width = teacher.config.hidden_size // teacher.config.num_attention_heads
    scale = math.sqrt(len(kept.queries[0]) / heads / width)
    weights = teacher.state_dict()
    student: PreTrainedModel = AutoModel.from_config(shaped(teacher.config, shape))
    found = student.state_dict()
    for name, fresh in found.items():
        match = _LAYER.search(name)
        layer = int(match[1]) if match else 0
        source = weights[_LAYER.sub(f".layer.{kept.layers[layer]}.", name)]
        axes = _axes(name)
        new = fresh if _RANDOM & set(axes) else torch.zeros_like(fresh)
        part = _part(source, [PLACES[kind](kept, layer) for kind in axes], new)
        found[name] = part * scale if ".query." in name else part
    student.load_state_dict(found)
    student.eval()
    return student


def _part(source: Tensor, axes: list[Places | None], new: Tensor) -> Tensor:
    """The rows, columns or both of a weight that stay, and what stands in `new` where they are NEW."""
    part = source
    wanted = [None if places is None else torch.from_numpy(places).to(source.device) for places in axes]
    for axis, places in enumerate(wanted):
        if places is not None:
            part = part.index_select(axis, places.clamp(min=0))
    for axis, places in enumerate(wanted):
        if places is not None:
            along = [1] * axis + [-1] + [1] * (part.dim() - axis - 1)
            part = torch.where((places == NEW).view(along), new, part)
    return part


_LAYER = re.compile(r"\.layer\.(\d+)\.")

_AXES = (
    (re.compile(r"^embeddings\.\w+_embeddings\.weight$"), "-h"),
    (re.compile(r"LayerNorm\.(weight|bias)$"), "h"),
    (re.compile(r"\.attention\.self\.query\.weight$"), "qh"),
    (re.compile(r"\.attention\.self\.query\.bias$"), "q"),
    (re.compile(r"\.attention\.self\.key\.weight$"), "kh"),
    (re.compile(r"\.attention\.self\.key\.bias$"), "k"),
    (re.compile(r"\.attention\.self\.value\.weight$"), "vh"),
    (re.compile(r"\.attention\.self\.value\.bias$"), "v"),
    (re.compile(r"\.attention\.output\.dense\.weight$"), "ho"),
    (re.compile(r"\.intermediate\.dense\.weight$"), "nh"),
    (re.compile(r"\.intermediate\.dense\.bias$"), "n"),
    (re.compile(r"\.layer\.\d+\.output\.dense\.weight$"), "hn"),
    (re.compile(r"\.output\.dense\.bias$"), "h"),
    (re.compile(r"^pooler\.dense\.weight$"), "hh"),
    (re.compile(r"^pooler\.dense\.bias$"), "h"),
)
"""A weight's name -> the units along each of its axes: hidden, queries, keys, values, values as they are put out,
neurons, or what is never cut."""

_RANDOM = {"k", "v"}
"""Where a head is widened these begin at random, and what they are multiplied with at 0: then both learn."""

PLACES: MappingProxyType[str, Callable[[Kept, int], Places | None]] = MappingProxyType(
    {
        "-": lambda kept, layer: None,
        "h": lambda kept, layer: kept.hidden,
        "q": lambda kept, layer: kept.queries[layer],
        "k": lambda kept, layer: kept.queries[layer],
        "v": lambda kept, layer: kept.values[layer],
        "o": lambda kept, layer: kept.values[layer],
        "n": lambda kept, layer: kept.neurons[layer],
    }
)
"""A kind of units -> which of them stay in the student's layer."""


def _axes(name: str) -> str:
    found = next((axes for pattern, axes in _AXES if pattern.search(name)), None)
    if found is None:
        raise ModelError(f"teacher: of its weights {name} nothing can be cut out; use an encoder of BERT's make")
    return found


def _widened(places: Places, width: int) -> Places:
    return np.concatenate([places, np.full(width - len(places), NEW)])


def _most(scores: NDArray[np.float64], count: int) -> Places:
    """The places of the greatest, ascending; of equals the first."""
    return np.sort(np.argsort(-scores, kind="stable")[:count])
