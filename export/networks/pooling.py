"""How a text's states become one vector; apart from what needs torch, so that commands can name it."""

from enum import StrEnum


class Pooled(StrEnum):
    """How a teacher's states of a text become one."""

    FIRST = "first"  # [CLS], from which BERT's classifiers read
    MEAN = "mean"
