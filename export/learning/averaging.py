"""The moving average of the weights, which is what dev judges and what is kept: of teachers and students alike."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def moving_average(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """The update of an exponential moving average that warms up, for `AveragedModel`.

    A short run's average must forget the weights that it began with: of the n-th update the decay is
    min(decay, (1 + n) / (10 + n)), as in TensorFlow's ExponentialMovingAverage.
    """

    @torch.no_grad()
    def update(averages: Sequence[Tensor], latest: Sequence[Tensor], updates: Tensor | int) -> None:
        warm = min(decay, (1 + int(updates)) / (10 + int(updates)))
        torch._foreach_lerp_(list(averages), list(latest), 1 - warm)

    return update
