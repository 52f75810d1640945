"""Objectives between two transformers of any widths and head counts: pure functions of what stands inside them.

B rows of T tokens, H wide in the student and in the teacher each its own. Where the head counts differ, both are cut
into the same number of relation heads, which need only divide both widths (MiniLMv2, Wang et al. 2021, section 3.1).
Padding never counts.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional

from export.objectives.loss import Loss, added


class Inside(NamedTuple):
    """What stands inside a transformer: of the embeddings and the layers that are compared, from below."""

    mask: Tensor  # (B, T), 1 for each real token
    states: tuple[Tensor, ...]  # (B, T, H): of the embeddings, then of each layer
    queries: tuple[Tensor, ...]  # (B, T, H): of each layer
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    def exact(self) -> Self:
        """In fp32."""
        parts = (tuple(part.float() for part in parts) for parts in self[1:])
        return type(self)(self.mask, *parts)


Comparison = Callable[[Inside, Inside, int], Loss]
"""A student, its teacher, the number of relation heads -> their distance."""


def tinybert(student: Inside, teacher: Inside, heads: int) -> Loss:
    """Attention scores, hidden states and embeddings, layer by layer (TinyBERT, Jiao et al. 2020, eqs. 7 to 9).

    The student's states must come as wide as the teacher's, through the linear map that the paper calls W_h.
    """
    scores = zip(student.queries, student.keys, teacher.queries, teacher.keys, strict=True)
    attention = [attention_mse(*products, student.mask, heads) for products in scores]
    states = [states_mse(*pair, student.mask) for pair in zip(student.states, teacher.states, strict=True)]
    return added(attention + states)


def minilm(student: Inside, teacher: Inside, heads: int) -> Loss:
    """The last layer's attention distributions and value relations (MiniLM, Wang et al. 2020, eqs. 5 to 8)."""
    ours = student.queries[-1], student.keys[-1], teacher.queries[-1], teacher.keys[-1]
    values = student.values[-1], student.values[-1], teacher.values[-1], teacher.values[-1]
    return added([relation_kl(*ours, student.mask, heads), relation_kl(*values, student.mask, heads)])


def attention_mse(
    queries: Tensor, keys: Tensor, their_queries: Tensor, their_keys: Tensor, mask: Tensor, heads: int
) -> Loss:
    """Mean squared error between scaled products before the softmax, over heads and pairs of real tokens."""
    ours, theirs = products(queries, keys, heads), products(their_queries, their_keys, heads)  # (B, A, T, T)
    both = (mask[:, None, :, None] * mask[:, None, None, :]).to(ours.dtype)
    return Loss.of(((ours - theirs).square() * both).sum(), both.sum() * heads)


def relation_kl(
    queries: Tensor, keys: Tensor, their_queries: Tensor, their_keys: Tensor, mask: Tensor, heads: int
) -> Loss:
    """KL(teacher || student) of each real token's distribution over the real tokens, as a mean over heads and tokens.

    With values as queries and as keys it is MiniLM's value relation.
    """
    padding = ~mask.bool()[:, None, None, :]
    ours = products(queries, keys, heads).masked_fill(padding, -torch.inf).log_softmax(dim=-1)
    theirs = products(their_queries, their_keys, heads).masked_fill(padding, -torch.inf).log_softmax(dim=-1)
    each = (theirs.exp() * (theirs - ours).masked_fill(padding, 0)).sum(dim=-1)  # (B, A, T)
    real = mask[:, None, :].to(each.dtype)
    return Loss.of((each * real).sum(), real.sum() * heads)


def states_mse(ours: Tensor, theirs: Tensor, mask: Tensor) -> Loss:
    """Mean squared error between hidden states (B, T, H) of real tokens."""
    real = mask.bool()
    return Loss.of(functional.mse_loss(ours[real], theirs[real], reduction="sum"), real.sum() * ours.shape[2])


def products(queries: Tensor, keys: Tensor, heads: int) -> Tensor:
    """(B, T, H) twice -> scaled products of each token with each, head by head: (B, heads, T, T)."""
    parted = [part.unflatten(2, (heads, -1)).transpose(1, 2) for part in (queries, keys)]  # (B, A, T, d)
    scaled: Tensor = parted[0] @ parted[1].transpose(2, 3) / math.sqrt(parted[0].shape[-1])
    return scaled


COMPARISONS: Mapping[str, Comparison] = MappingProxyType({"tinybert": tinybert, "minilm": minilm})
"""Name in a recipe -> objective."""
