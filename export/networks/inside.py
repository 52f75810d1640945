"""A transformer of BERT's make that says what stands inside it while it runs.

It knows encoders, not objectives (`export.objectives.relations`) or data.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from export.objectives.relations import Inside


class Watched(nn.Module):
    """An encoder whose forward pass gives queries, keys and values of some layers, and hidden states if asked for.

    `width`: of a linear map that brings its states to another width (TinyBERT's W_h, one for all layers); unset, they
    come as they are. `states`: those of the embeddings and of the watched layers; else none.
    """

    def __init__(
        self, encoder: PreTrainedModel, layers: Sequence[int], *, states: bool, width: int | None = None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.layers = tuple(layers)
        self.states = states
        self.to_width = None if width is None else nn.Linear(int(encoder.config.hidden_size), width)

    def forward(self, input_ids: Tensor, mask: Tensor) -> Inside:
        """(B, T), (B, T) -> states (B, T, width), queries, keys and values (B, T, H)."""
        with self._listening() as (queries, keys, values):
            found = self.encoder(input_ids=input_ids, attention_mask=mask, output_hidden_states=self.states)
        states = []
        if self.states:
            states = [found.hidden_states[place] for place in (0, *(layer + 1 for layer in self.layers))]
        if self.to_width is not None:
            states = [self.to_width(part) for part in states]
        return Inside(mask, tuple(states), tuple(queries), tuple(keys), tuple(values))

    @contextmanager
    def _listening(self) -> Iterator[tuple[list[Tensor], ...]]:
        """While it lasts, the watched layers' projections are noted down."""
        encoder: Any = self.encoder
        seen: dict[str, list[Tensor]] = {"query": [], "key": [], "value": []}
        handles = [
            getattr(encoder.encoder.layer[layer].attention.self, name).register_forward_hook(
                lambda _module, _given, output, kept=kept: kept.append(output)
            )
            for layer in self.layers
            for name, kept in seen.items()
        ]
        try:
            yield tuple(seen.values())
        finally:
            for handle in handles:
                handle.remove()


@torch.no_grad()
def put_back(to_width: nn.Linear, hidden: Sequence[int]) -> None:
    """Let the map bring each hidden dimension of an extract to where it stood in the teacher; nothing else."""
    to_width.weight.zero_()
    to_width.bias.zero_()
    to_width.weight[list(hidden), range(len(hidden))] = 1
