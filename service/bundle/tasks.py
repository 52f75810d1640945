"""What logits mean: pure arithmetic, one row of `TASKS` a task. It knows nothing of texts or graphs."""

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from service.bundle.manifest import Task

Logits = NDArray[np.float32]
Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Meaning:
    """How a task reads its logits."""

    scores: Callable[[Logits], Scores]
    width: Callable[[int], int]  # number of labels -> number of logits that the graph must give for a row


def softmax(logits: Logits) -> Scores:
    """(B, L) -> (B, L): probabilities that add up to one in each row."""
    # Shifting by the largest logit leaves the result unchanged and keeps exp() from overflowing.
    wide = logits.astype(np.float64)
    powers: Scores = np.exp(wide - wide.max(axis=1, keepdims=True))
    shares: Scores = powers / powers.sum(axis=1, keepdims=True)
    return shares


def one_logit_a_label(labels: int) -> int:
    """The graph's width where each label has a logit of its own."""
    return labels


TASKS = MappingProxyType({Task.SINGLE_LABEL: Meaning(scores=softmax, width=one_logit_a_label)})
