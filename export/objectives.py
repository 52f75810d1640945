"""Objectives: pure functions (student's logits, teacher's logits, labels) -> loss. They never see a model.

Each takes logits (B, L), teacher (B, L) and labels (B,) with `UNLABELLED` where a row has none, and returns a scalar.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

UNLABELLED = -100

ObjectiveFunction = Callable[[Tensor, Tensor, Tensor], Tensor]


def logit_mse(logits: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """Mean squared error between logits (Tang et al. 2019, eq. 4, as a mean over rows and labels)."""
    return functional.mse_loss(logits, teacher)


def tempered_kl(logits: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) of distributions softened by T, times T² so that gradients keep their size
    (Hinton et al. 2015, section 2)."""
    target = functional.log_softmax(teacher / temperature, dim=-1)
    ours = functional.log_softmax(logits / temperature, dim=-1)
    return functional.kl_div(ours, target, log_target=True, reduction="batchmean") * temperature**2


def cross_entropy(logits: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy with the labels; rows without one don't count, and a batch without any gives 0."""
    total = functional.cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="sum")
    return total / (labels != UNLABELLED).sum().clamp(min=1)


def cross_entropy_or_argmax(logits: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """As `cross_entropy`, but a row without a label takes the teacher's (Tang et al. 2019, section 3.2)."""
    filled = torch.where(labels == UNLABELLED, teacher.argmax(dim=-1), labels)
    return functional.cross_entropy(logits, filled)


def mixture(alpha: float, hard: ObjectiveFunction, soft: ObjectiveFunction) -> ObjectiveFunction:
    """alpha * hard + (1 - alpha) * soft (Tang et al. 2019, eq. 5). A term of weight 0 is not computed."""
    if alpha == 0:
        return soft
    if alpha == 1:
        return hard

    def mixed(logits: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        return alpha * hard(logits, teacher, labels) + (1 - alpha) * soft(logits, teacher, labels)

    return mixed


SOFT: dict[str, Callable[[float], ObjectiveFunction]] = {
    "mse": lambda temperature: logit_mse,
    "kl": lambda temperature: partial(tempered_kl, temperature=temperature),
}
"""Name in a recipe -> temperature -> objective."""
