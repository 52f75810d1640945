"""What a task asks of the workshop, one row of `LEARNING` a task: what is learnt from its labels.

What labels become stands in `export.tasks.targets`, what logits mean in `service.bundle.tasks`, how a file writes its
labels in `export.texts.datasets`, how good logits are in `export.tasks.metrics`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from export.objectives.outputs import (
    ObjectiveFunction,
    binary_cross_entropy,
    binary_cross_entropy_or_teacher,
    cross_entropy,
    cross_entropy_or_argmax,
    squared_error,
    squared_error_or_teacher,
)
from service.bundle.manifest import Task


@dataclass(frozen=True)
class Learning:
    """How a task is learnt."""

    hard: ObjectiveFunction  # from the labels that there are
    hard_or_teacher: ObjectiveFunction  # a row without labels takes what the teacher decides
    problem_type: str | None  # transformers' name of it; None where the architecture says it


LEARNING: Mapping[Task, Learning] = MappingProxyType(
    {
        Task.SINGLE_LABEL: Learning(cross_entropy, cross_entropy_or_argmax, "single_label_classification"),
        Task.MULTI_LABEL: Learning(binary_cross_entropy, binary_cross_entropy_or_teacher, "multi_label_classification"),
        Task.REGRESSION: Learning(squared_error, squared_error_or_teacher, "regression"),
        Task.TAGGING: Learning(cross_entropy, cross_entropy_or_argmax, None),
        Task.ANSWERING: Learning(cross_entropy, cross_entropy_or_argmax, None),  # logits alone are learnt
    }
)
