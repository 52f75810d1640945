"""Every student network, in one readable file. A network knows its shape and its forward pass, never its loss.

All students take `input_ids` (B, T) padded on the right and `lengths` (B,), each >= 1, and are blind to the padding.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence


@dataclass(frozen=True)
class Shape:
    """Widths of a student: vocabulary V, embedding E, hidden H per direction, dense D, labels L."""

    vocabulary: int
    embedding: int
    hidden: int
    dense: int
    labels: int
    dropout: float = 0.0


class BiLSTM(nn.Module):
    """Tang et al. 2019, section 3.1: embeddings, one BiLSTM layer, its two last states, a ReLU layer, logits."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.embedding)
        self.lstm = nn.LSTM(shape.embedding, shape.hidden, batch_first=True, bidirectional=True)
        self.dense = nn.Linear(2 * shape.hidden, shape.dense)
        self.output = nn.Linear(shape.dense, shape.labels)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, T), (B,) -> logits (B, L)."""
        embedded = self.dropout(self.embedding(input_ids))  # (B, T) -> (B, T, E)
        states = torch.cat(self._last_states(embedded, lengths), dim=1)  # (B, 2H)
        logits: Tensor = self.output(self.dropout(torch.relu(self.dense(states))))  # (B, 2H) -> (B, D) -> (B, L)
        return logits

    def _last_states(self, embedded: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        if bool((lengths == embedded.shape[1]).all()):  # nothing is padding: the fused kernel, twice as fast
            _, (last, _) = self.lstm(embedded)
        else:
            packed = pack_padded_sequence(embedded, lengths.cpu(), batch_first=True, enforce_sorted=False)
            _, (last, _) = self.lstm(packed)
        return last[0], last[1]  # (B, H) forward at the last word, (B, H) backward at the first


STUDENTS: dict[str, Callable[[Shape], nn.Module]] = {"bilstm": BiLSTM}
"""Name in a recipe -> network. To add an architecture, add a class and a row; tests run over the table."""


@dataclass(frozen=True)
class ParameterCount:
    """Trainable weights, with and without the embedding table (papers count differently)."""

    total: int
    without_embeddings: int


def count_parameters(student: nn.Module) -> ParameterCount:
    """Count a student's weights."""
    total = sum(parameter.numel() for parameter in student.parameters())
    tables = sum(m.weight.numel() for m in student.modules() if isinstance(m, nn.Embedding))
    return ParameterCount(total, total - tables)
