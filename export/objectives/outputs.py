"""Objectives: pure functions (a student's output, its target) -> loss. They never see a model.

Logits are (R, L), representations and hidden states (R, H). Labels are (R,) with `UNLABELLED` where a row has none,
where one label of several is right; else (R, L) with NaN in rows that have none.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from export.objectives.loss import Loss, added
from export.objectives.signals import Output, Target
from export.texts.unlabelled import UNLABELLED

ObjectiveFunction = Callable[[Output, Target], Loss]


def logit_mse(output: Output, target: Target) -> Loss:
    """Mean squared error between logits (Tang et al. 2019, eq. 4, as a mean over rows and labels)."""
    return _squares(output.logits, target.logits)


def tempered_kl(output: Output, target: Target, temperature: float) -> Loss:
    """KL(teacher || student) of distributions softened by T, times T² so that gradients keep their size
    (Hinton et al. 2015, section 2)."""
    theirs = functional.log_softmax(target.logits / temperature, dim=-1)
    ours = functional.log_softmax(output.logits / temperature, dim=-1)
    return _divergence(ours, theirs).times(temperature**2)


def log_odds_mse(output: Output, target: Target) -> Loss:
    """Mean squared error from log(p / (1 - p)), p the teacher's softmax (Mukherjee & Awadallah 2020: their LL, here as
    a mean over rows and labels)."""
    return _squares(output.logits, log_odds(target.logits))


def log_odds(logits: Tensor) -> Tensor:
    """(R, L) -> logit(softmax(z)) (R, L): z of a label minus the logarithm of the summed exp(z) of all others."""
    labels = logits.shape[1]
    own = torch.eye(labels, dtype=torch.bool, device=logits.device)
    others = logits.unsqueeze(1).expand(-1, labels, -1).masked_fill(own, -torch.inf)  # (R, L, L)
    return logits - others.logsumexp(dim=2)


def cross_entropy(output: Output, target: Target) -> Loss:
    """Cross entropy with the labels; rows without one don't count, and a batch without any gives 0."""
    labels = target.labels
    total = functional.cross_entropy(output.logits, labels, ignore_index=UNLABELLED, reduction="sum")
    return Loss.of(total, (labels != UNLABELLED).sum())


def cross_entropy_or_argmax(output: Output, target: Target) -> Loss:
    """As `cross_entropy`, but a row without a label takes the teacher's (Tang et al. 2019, section 3.2)."""
    filled = torch.where(target.labels == UNLABELLED, target.logits.argmax(dim=-1), target.labels)
    return Loss.of(functional.cross_entropy(output.logits, filled, reduction="sum"), len(filled))


def binary_cross_entropy(output: Output, target: Target) -> Loss:
    """Of each label by itself, yes or no; rows without labels don't count."""
    return _decisions(*_labelled(output, target))


def binary_cross_entropy_or_teacher(output: Output, target: Target) -> Loss:
    """The same, but a row without labels takes the teacher's decisions."""
    filled = torch.where(target.labels.isnan(), (target.logits >= 0).float(), target.labels)
    return _decisions(output.logits, filled)


def squared_error(output: Output, target: Target) -> Loss:
    """From the labels, which are numbers; rows without them don't count."""
    return _squares(*_labelled(output, target))


def squared_error_or_teacher(output: Output, target: Target) -> Loss:
    """The same, but a row without numbers takes the teacher's."""
    filled = torch.where(target.labels.isnan(), target.logits, target.labels)
    return _squares(output.logits, filled)


def representation_mse(output: Output, target: Target) -> Loss:
    """Mean squared error between the student's representation and the teacher's hidden states."""
    return _squares(output.representation, _hidden(target))


def representation_kl(output: Output, target: Target) -> Loss:
    """KL(teacher || student) of the two taken as distributions over their units (Mukherjee & Awadallah 2020, eq. 6)."""
    theirs = functional.log_softmax(_hidden(target), dim=-1)
    ours = functional.log_softmax(output.representation, dim=-1)
    return _divergence(ours, theirs)


def representation_cosine(output: Output, target: Target) -> Loss:
    """One minus the cosine between them, as a mean over rows."""
    cosines = functional.cosine_similarity(output.representation, _hidden(target), dim=-1)  # (R,)
    return Loss.of((1 - cosines).sum(), len(cosines))


def weighted(terms: Sequence[tuple[float, ObjectiveFunction]]) -> ObjectiveFunction:
    """The sum of weight * objective. A term of weight 0 is not computed."""
    counted = [(weight, objective) for weight, objective in terms if weight]

    def total(output: Output, target: Target) -> Loss:
        return added([objective(output, target).times(weight) for weight, objective in counted])

    return counted[0][1] if len(counted) == 1 and counted[0][0] == 1 else total


def mixture(alpha: float, hard: ObjectiveFunction, soft: ObjectiveFunction) -> ObjectiveFunction:
    """alpha * hard + (1 - alpha) * soft (Tang et al. 2019, eq. 5)."""
    return weighted([(alpha, hard), (1 - alpha, soft)])


SOFT: Mapping[str, Callable[[float], ObjectiveFunction]] = MappingProxyType(
    {
        "mse": lambda temperature: logit_mse,
        "kl": lambda temperature: partial(tempered_kl, temperature=temperature),
        "logodds": lambda temperature: log_odds_mse,
    }
)
"""Name in a recipe -> temperature -> objective."""

REPRESENTATION: Mapping[str, ObjectiveFunction] = MappingProxyType(
    {"mse": representation_mse, "kl": representation_kl, "cosine": representation_cosine}
)
"""Name in a recipe -> objective."""


def _hidden(target: Target) -> Tensor:
    if target.hidden is None:
        raise ValueError("the teacher's hidden states were not recorded")
    return target.hidden


def _labelled(output: Output, target: Target) -> tuple[Tensor, Tensor]:
    """Logits and labels of the rows that have some: (K, L) twice."""
    known = ~target.labels.isnan().any(dim=1)
    return output.logits[known], target.labels[known]


def _squares(ours: Tensor, theirs: Tensor) -> Loss:
    return Loss.of(functional.mse_loss(ours, theirs, reduction="sum"), ours.numel())


def _decisions(logits: Tensor, labels: Tensor) -> Loss:
    return Loss.of(functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum"), logits.numel())


def _divergence(ours: Tensor, theirs: Tensor) -> Loss:
    """KL(theirs || ours) of logarithms of distributions (R, D), as a mean over rows."""
    return Loss.of(functional.kl_div(ours, theirs, log_target=True, reduction="sum"), len(ours))
