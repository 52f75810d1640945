"""What logits mean: pure arithmetic, one row of `TASKS` a task. It knows nothing of texts or graphs.

The scores are those of the `transformers` pipelines on the same logits, label by label; of a tagger piece by piece, and
`spans` makes entities of them, as `passages` makes answers of those of a question's text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from service.bundle.manifest import Task

Logits = NDArray[np.float32]
Scores = NDArray[np.float64]

THRESHOLD = 0.5
"""From this score on, a label of a multi-label task holds: the point where its logit changes sign."""


class Function(StrEnum):
    """What makes scores of logits; named as in Hugging Face's `function_to_apply`."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    NONE = "none"
    UNIT = "unit"  # not Hugging Face's: a vector's direction


class Choice(StrEnum):
    """Which labels the scores of a row speak for."""

    BEST = "best"  # the one with the highest score
    EACH = "each"  # every one whose score reaches THRESHOLD; perhaps none
    NONE = "none"  # no label: the scores themselves are the answer
    VECTOR = "vector"  # no label either: the scores together are a vector
    SPANS = "spans"  # none of the whole row: each of its pieces has scores of its own, and speaks for the best
    ANSWER = "answer"  # none: the scores say of each piece whether the answer to a question starts or ends there


def softmax(logits: Logits) -> Scores:
    """(…, L) -> (…, L): probabilities that add up to one in each row, or in each piece of it."""
    # Shifting by the largest logit leaves the result unchanged and keeps exp() from overflowing.
    wide = logits.astype(np.float64)
    powers: Scores = np.exp(wide - wide.max(axis=-1, keepdims=True))
    shares: Scores = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def sigmoid(logits: Logits) -> Scores:
    """(B, L) -> (B, L): a probability for each label by itself."""
    wide = logits.astype(np.float64)
    powers = np.exp(-np.abs(wide))  # at most one: exp() of a large logit would overflow
    scores: Scores = np.where(wide >= 0, 1, powers) / (1 + powers)
    return scores


def unchanged(logits: Logits) -> Scores:
    """(B, L) -> (B, L): the logits themselves."""
    return logits.astype(np.float64)


def unit(logits: Logits) -> Scores:
    """(B, L) -> (B, L): each row divided by its length, so that a product of two is the cosine between them."""
    wide = logits.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=-1, keepdims=True)
    scores: Scores = wide / np.where(lengths == 0, 1, lengths)
    return scores


def one_logit_a_label(labels: int) -> int:
    """The graph's width where each label has a logit of its own."""
    return labels


FUNCTIONS: MappingProxyType[Function, Callable[[Logits], Scores]] = MappingProxyType(
    {Function.SOFTMAX: softmax, Function.SIGMOID: sigmoid, Function.NONE: unchanged, Function.UNIT: unit}
)


@dataclass(frozen=True, slots=True)
class Meaning:
    """How a task reads its logits."""

    function: Function
    choice: Choice
    width: Callable[[int], int] = one_logit_a_label  # number of labels -> logits that the graph must give for a row

    @property
    def dimensions(self) -> int:
        """Of the graph's logits: (B, L), or (B, T, L) where each piece has its own."""
        return 3 if self.of_pieces else 2

    @property
    def of_pieces(self) -> bool:
        """Has each piece of a text logits of its own?"""
        return self.choice in (Choice.SPANS, Choice.ANSWER)

    def scores(self, logits: Logits) -> Scores:
        """(…, L) logits -> (…, L) scores."""
        return FUNCTIONS[self.function](logits)

    def chosen(self, scores: Sequence[float]) -> list[int]:
        """The labels that a row's scores speak for, by their places."""
        match self.choice:
            case Choice.BEST:
                return [max(range(len(scores)), key=scores.__getitem__)]
            case Choice.EACH:
                return [place for place, score in enumerate(scores) if score >= THRESHOLD]
            case Choice.NONE | Choice.SPANS | Choice.VECTOR | Choice.ANSWER:
                return []


TASKS = MappingProxyType(
    {
        Task.SINGLE_LABEL: Meaning(Function.SOFTMAX, Choice.BEST),
        Task.MULTI_LABEL: Meaning(Function.SIGMOID, Choice.EACH),
        Task.REGRESSION: Meaning(Function.NONE, Choice.NONE),
        Task.TAGGING: Meaning(Function.SOFTMAX, Choice.SPANS),
        Task.EMBEDDING: Meaning(Function.UNIT, Choice.VECTOR),
        Task.ANSWERING: Meaning(Function.NONE, Choice.ANSWER),
    }
)
