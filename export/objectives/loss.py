"""A loss as the means that it is a sum of, each as a total and the number of what it is taken over.

So that a batch may lie in parts in several processes: where totals and numbers are summed over all parts, the loss is
that of the whole batch, whatever each of its means is taken over (labels that are there, pieces, pairs of tokens).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Mean(NamedTuple):
    """Of so many things, a number or a scalar, that are `total` together, a scalar; of none, 0."""

    total: Tensor
    number: int | Tensor


@dataclass(frozen=True)
class Loss:
    """A sum of means."""

    means: tuple[Mean, ...]

    @classmethod
    def of(cls, total: Tensor, number: int | Tensor) -> "Loss":
        """A mean alone."""
        return cls((Mean(total, number),))

    @property
    def value(self) -> Tensor:
        """A scalar."""
        return self.over(self.numbers)

    @property
    def numbers(self) -> Tensor:
        """Of each mean, (M,)."""
        device = self.means[0].total.device
        return torch.stack([torch.as_tensor(mean.number, dtype=torch.float64, device=device) for mean in self.means])

    def over(self, numbers: Tensor) -> Tensor:
        """The same where each mean is taken over so many, (M,), of which these are a part: a scalar."""
        totals = torch.stack([mean.total for mean in self.means])
        return (totals / numbers.clamp(min=1).to(totals.dtype)).sum()

    @property
    def nothing(self) -> "Loss":
        """The same graph, none of which counts."""
        return Loss(tuple(Mean(0 * mean.total, 0) for mean in self.means))

    def times(self, weight: float) -> "Loss":
        """Each mean times this."""
        return Loss(tuple(Mean(weight * mean.total, mean.number) for mean in self.means))


def added(losses: list[Loss]) -> Loss:
    """Their sum."""
    return Loss(tuple(mean for loss in losses for mean in loss.means))
