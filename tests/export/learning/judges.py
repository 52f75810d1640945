"""Judges of students for the loop's tests: one who measures, and one who is stopped at it."""

import numpy as np
import torch
from torch import nn

from export.learning.training import Judge
from export.transfer.transfer_set import TransferSet

LENGTHS = range(1, 5)
"""Of the rows in toy transfer sets."""


class Stopped(BaseException):
    """As abrupt as a KeyboardInterrupt."""


def closeness_to(data: TransferSet) -> Judge:
    """Minus the mean squared distance to the teacher's logits; more is better."""

    @torch.inference_mode()
    def judge(student: nn.Module) -> float:
        parts = []
        for length in LENGTHS:
            rows = data.batch(np.flatnonzero(data.lengths == length), torch.device("cpu"))
            parts.append((student(*rows.inputs).logits - rows.target.logits).square().mean(dim=1))
        return -torch.cat(parts).mean().item()

    return judge


def stopping_at(number: int, judge: Judge) -> Judge:
    """The same judge, but the evaluation with this number never returns."""
    calls = []

    def stopping(student: nn.Module) -> float:
        calls.append(1)
        if len(calls) == number:
            raise Stopped
        return judge(student)

    return stopping
