"""How much each unit of an encoder counts: the first-order effect of switching it off.

Each unit u is multiplied by a gate g = 1, and its importance is the mean of |dL/dg| over batches of plain text: by how
much L changes, to first order, when the unit goes (Michel et al. 2019; DynaBERT, Hou et al. 2020).

What L is, Chen et al. 2021's abstract leaves open. Here it is either the masked words' cross entropy, for which the
model must still have the head of its pre-training, or a random projection of the last hidden states: then importance is
in expectation proportional to the length of dh/dg, the change that distillation afterwards has to make good.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from export.networks.extraction import Importance, shape_of


@dataclass(frozen=True)
class Gates:
    """All ones: one for each unit."""

    hidden: Tensor  # (H,)
    queries: Tensor  # (N, A x d)
    values: Tensor  # (N, A x d)
    neurons: Tensor  # (N, F)

    @property
    def all(self) -> tuple[Tensor, ...]:
        return self.hidden, self.queries, self.values, self.neurons


Batch = Mapping[str, Tensor]
"""What a model of transformers takes: `input_ids`, `attention_mask`, (B, T) each, and perhaps `labels`."""

Loss = Callable[[PreTrainedModel, Batch, torch.Generator], Tensor]


def projected_states(model: PreTrainedModel, batch: Batch, generator: torch.Generator) -> Tensor:
    """The last hidden states of all real tokens, each along a random direction, added up."""
    states: Tensor = model.base_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])[0]
    real = states[batch["attention_mask"].bool()]  # (R, H)
    return (real * torch.randn(real.shape, generator=generator)).sum()


def masked_words(model: PreTrainedModel, batch: Batch, _generator: torch.Generator) -> Tensor:
    """Their cross entropy; `labels` (B, T) say which words were masked, -100 elsewhere."""
    loss: Tensor = model(**batch).loss
    return loss


LOSSES: Mapping[str, Loss] = MappingProxyType({"states": projected_states, "masked": masked_words})
"""Name in a recipe -> what is differentiated."""


def importance(model: PreTrainedModel, batches: Sequence[Batch], loss: Loss, seed: int) -> Importance:
    """Of the units of a model's encoder. Raises ModelError for a network of another make than BERT's."""
    shape = shape_of(model.base_model)
    generator = torch.Generator().manual_seed(seed)
    units, heads = (shape.layers, shape.hidden), (shape.layers, shape.heads, shape.hidden // shape.heads)
    sums = [
        torch.zeros(size) for size in ((shape.hidden,), units, units, (shape.layers, shape.intermediate), heads[:2])
    ]
    model.eval()
    for batch in batches:
        gates = Gates(*(torch.ones(part.shape, requires_grad=True) for part in sums[:4]))
        with gated(model, gates):
            found = torch.autograd.grad(loss(model, batch, generator), gates.all)
        whole = found[2].view(heads).sum(dim=2)  # a head goes with all its values
        for total, part in zip(sums, (*found, whole), strict=True):
            total += part.abs() / len(batches)
    hidden, queries, values, neurons, of_heads = (part.double().numpy() for part in sums)
    return Importance(hidden, of_heads, queries.reshape(heads), values.reshape(heads), neurons)


@contextmanager
def gated(model: PreTrainedModel, gates: Gates) -> Iterator[None]:
    """While it lasts, each unit of the model is multiplied by its gate.

    Hidden dimensions have one gate for all places where the stream is read: behind the embeddings and each half layer.
    """
    encoder: Any = model.base_model
    with ExitStack() as stack:

        def behind(module: nn.Module, gate: Tensor) -> None:
            stack.enter_context(_hook(module.register_forward_hook(lambda _module, _given, output: output * gate)))

        def before(module: nn.Module, gate: Tensor) -> None:
            stack.enter_context(
                _hook(module.register_forward_pre_hook(lambda _module, given: (given[0] * gate, *given[1:])))
            )

        behind(encoder.embeddings.LayerNorm, gates.hidden)
        for number, layer in enumerate(encoder.encoder.layer):
            behind(layer.attention.output.LayerNorm, gates.hidden)
            behind(layer.output.LayerNorm, gates.hidden)
            behind(layer.attention.self.query, gates.queries[number])
            before(layer.attention.output.dense, gates.values[number])
            before(layer.output.dense, gates.neurons[number])
        yield


@contextmanager
def _hook(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()
