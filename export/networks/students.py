"""Every student network, in one readable file. A network knows its shape and its forward pass, never its loss.

All students take `input_ids` (B, T) padded on the right and `lengths` (B,), each >= 1, and are blind to the padding;
BiLSTMs of pairs take the same twice. A tagger answers for the pieces of all rows, one behind the other, without
padding.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.objectives.signals import Output


class Form(StrEnum):
    """What a row is, and what is asked of it."""

    TEXT = "text"  # one text, one answer
    PAIR = "pair"  # two texts, one answer
    PIECES = "pieces"  # one text, an answer for each of its pieces
    PASSAGE = "passage"  # a question and a text, and for each piece whether the answer starts or ends there
    VECTOR = "vector"  # one text, and no answer: a vector that stands for it

    @property
    def texts(self) -> int:
        """In a row."""
        return 2 if self in (Form.PAIR, Form.PASSAGE) else 1


class Pooling(StrEnum):
    """How the states of a text become one."""

    LAST = "last"  # forward at the last piece, backward at the first (Tang et al. 2019, section 3.1)
    MAX = "max"  # the greatest over the pieces, unit by unit


class Activation(StrEnum):
    """Of the dense layer."""

    RELU = "relu"  # Tang et al. 2019
    GELU = "gelu"  # XtremeDistil (Mukherjee & Awadallah 2020), eq. 4
    LINEAR = "linear"  # none: for vectors that are to look like BERT's


def unchanged(values: Tensor) -> Tensor:
    return values


ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = MappingProxyType(
    {Activation.RELU: functional.relu, Activation.GELU: functional.gelu, Activation.LINEAR: unchanged}
)


@dataclass(frozen=True)
class Shape:
    """Widths of a student: vocabulary V, embedding E, hidden H per direction, dense D, labels L."""

    vocabulary: int
    embedding: int
    hidden: int
    dense: int
    labels: int
    dropout: float = 0.0
    pooling: Pooling = Pooling.LAST
    activation: Activation = Activation.RELU
    channels: int = 1  # 2: a second table of embeddings that never learns (Kim 2014's multichannel; Tang et al. 2019)


class Recurrent(nn.Module):
    """What the BiLSTM students share: embeddings, one BiLSTM layer, a dense layer, logits."""

    layers: tuple[str, ...] = ("output", "dense", "lstm", "embedding")  # prefixes of its parameters, from the head down
    inputs = 1  # texts in a row
    vectors = 1  # of width 2H, from which the dense layer reads
    compared = 1  # of width D, from which the output layer reads

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.embedding)
        if shape.channels == 2:
            self.register_buffer("static", torch.zeros(shape.vocabulary, shape.embedding))
        self.lstm = nn.LSTM(shape.channels * shape.embedding, shape.hidden, batch_first=True, bidirectional=True)
        self.dense = nn.Linear(self.vectors * 2 * shape.hidden, shape.dense)
        self.output = nn.Linear(self.compared * shape.dense, shape.labels)
        self.dropout = nn.Dropout(shape.dropout)

    @torch.no_grad()
    def begin_with(self, table: Tensor) -> None:
        """Start from these embeddings (V, E), in each channel."""
        self.embedding.weight.copy_(table)
        if self.shape.channels == 2:
            self.get_buffer("static").copy_(table)

    def table(self) -> Tensor:
        """The embeddings of all channels, (V, channels x E)."""
        tuned = self.embedding.weight
        return tuned if self.shape.channels == 1 else torch.cat([self.get_buffer("static"), tuned], dim=1)

    def answer(self, states: Tensor) -> Output:
        """(R, vectors x 2H) -> logits (R, L) and what they are read from (R, D)."""
        dense = self.vector(states)
        return Output(self.output(self.dropout(dense)), dense)

    def vector(self, states: Tensor) -> Tensor:
        """(R, vectors x 2H) -> (R, D)."""
        return ACTIVATIONS[self.shape.activation](self.dense(states))

    def pooled(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, T), (B,) -> (B, 2H)."""
        if self.shape.pooling is Pooling.LAST:
            _, last = self._run(input_ids, lengths)
            return torch.cat([last[0], last[1]], dim=1)
        states, _ = self._run(input_ids, lengths)
        padding = ~real(lengths, states.shape[1]).unsqueeze(2)  # (B, T, 1)
        return states.masked_fill(padding, -torch.inf).amax(dim=1)

    def states(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, T), (B,) -> a state (2H) for each piece that is no padding, row after row."""
        states, _ = self._run(input_ids, lengths)
        return states[real(lengths, states.shape[1])]

    def _run(self, input_ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """-> states (B, T, 2H), of the padding anything, and the two directions' last ones (2, B, H).

        torch's packed sequences would do the same, up to five times slower (docs/results/training.md): they run no
        fused kernel, and their gradient fills a block of zeros as large as the batch at each step of time.
        """
        embedded = self.dropout(self._embed(input_ids))
        if bool((lengths == input_ids.shape[1]).all()):  # nothing is padding
            states, (last, _) = self.lstm(embedded)
            return states, last
        rows, turned = torch.arange(len(lengths), device=lengths.device), backwards(lengths, input_ids.shape[1])
        forth = self._one_way(embedded, "")
        back = self._one_way(embedded[rows[:, None], turned], "_reverse")[rows[:, None], turned]
        return torch.cat([forth, back], dim=2), torch.stack([forth[rows, lengths - 1], back[:, 0]])

    def _one_way(self, embedded: Tensor, direction: str) -> Tensor:
        """One direction of the BiLSTM, from left to right: (B, T, E) -> (B, T, H)."""
        weights = [
            getattr(self.lstm, f"{name}_l0{direction}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ]
        start = embedded.new_zeros(1, len(embedded), self.shape.hidden)
        states: Tensor = torch.lstm(embedded, (start, start), weights, True, 1, 0.0, self.training, False, True)[0]
        return states

    def _embed(self, input_ids: Tensor) -> Tensor:
        """(B, T) -> (B, T, channels x E)."""
        tuned: Tensor = self.embedding(input_ids)
        if self.shape.channels == 1:
            return tuned
        return torch.cat([functional.embedding(input_ids, self.get_buffer("static")), tuned], dim=2)


class BiLSTM(Recurrent):
    """Tang et al. 2019, section 3.1: embeddings, one BiLSTM layer, its states pooled, a dense layer, logits."""

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Output:
        """(B, T), (B,) -> (B, L), (B, D)."""
        return self.answer(self.pooled(input_ids, lengths))


class SiameseBiLSTM(Recurrent):
    """Tang et al. 2019, section 3.1, for pairs: one BiLSTM reads both, and [h1, h2, h1 * h2, |h1 - h2|] decides."""

    inputs = 2
    vectors = 4

    def forward(self, input_ids: Tensor, lengths: Tensor, pair_ids: Tensor, pair_lengths: Tensor) -> Output:
        """(B, T1), (B,), (B, T2), (B,) -> (B, L), (B, D)."""
        return self.answer(compare(self.pooled(input_ids, lengths), self.pooled(pair_ids, pair_lengths)))


class BiLSTMEncoder(Recurrent):
    """Wu et al. 2020: embeddings, one BiLSTM layer, its states pooled, and a dense layer: a vector for the text."""

    layers = ("dense", "lstm", "embedding")

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        del self.output

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Output:
        """(B, T), (B,) -> (B, D) twice."""
        vector = self.vector(self.pooled(input_ids, lengths))
        return Output(vector, vector)


class SiameseEncoder(Recurrent):
    """Wu et al. 2020 for pairs: one encoder makes a vector of each text, and [u, v, u * v, |u - v|] is classified."""

    inputs = 2
    compared = 4

    def forward(self, input_ids: Tensor, lengths: Tensor, pair_ids: Tensor, pair_lengths: Tensor) -> Output:
        """(B, T1), (B,), (B, T2), (B,) -> (B, L), (B, 4D)."""
        first = self.vector(self.pooled(input_ids, lengths))
        second = self.vector(self.pooled(pair_ids, pair_lengths))
        both = compare(first, second)
        return Output(self.output(self.dropout(both)), both)


class BiLSTMTagger(Recurrent):
    """XtremeDistil (Mukherjee & Awadallah 2020), section 3: each piece's state, a dense layer shared by all, logits."""

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Output:
        """(B, T), (B,) -> (R, L), (R, D) with R = the sum of the lengths."""
        return self.answer(self.states(input_ids, lengths))


class Transformer(nn.Module):
    """A BERT-shaped classifier of any size, such as Chen et al. 2021 extract: it reads a pair in one sequence."""

    def __init__(self, model: nn.Module, separator: int | None) -> None:
        """`model` is a Hugging Face classifier; `separator` the id of the token between the texts of a pair, None where
        the model does not tell them apart by token types."""
        super().__init__()
        self.model = model
        self.separator = separator

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Output:
        """(B, T), (B,) -> (B, L), (B, H)."""
        found = self._run(input_ids, real(lengths, input_ids.shape[1]))
        return Output(found.logits, found.hidden_states[-1][:, 0])

    def _run(self, input_ids: Tensor, mask: Tensor) -> Any:
        """(B, T) twice -> what the model gives, with its hidden states."""
        types = torch.zeros_like(input_ids)
        if self.separator is not None:
            ends = (input_ids == self.separator).long()
            types = (ends.cumsum(dim=1) - ends).clamp(max=1)  # (B, T): 1 behind the first separator
        return self.model(
            input_ids=input_ids, attention_mask=mask.long(), token_type_ids=types, output_hidden_states=True
        )


class TransformerReader(Transformer):
    """The same of a Hugging Face model for question answering: each piece's logits, of the answer's start and end."""

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Output:
        """(B, T), (B,) -> (R, 2), (R, H) with R = the sum of the lengths."""
        mask = real(lengths, input_ids.shape[1])
        found = self._run(input_ids, mask)
        logits = torch.stack([found.start_logits, found.end_logits], dim=2)  # (B, T, 2)
        return Output(logits[mask], found.hidden_states[-1][mask])


def compare(first: Tensor, second: Tensor) -> Tensor:
    """(B, D) twice -> (B, 4D)."""
    return torch.cat([first, second, first * second, (first - second).abs()], dim=1)


def real(lengths: Tensor, width: int) -> Tensor:
    """(B,) -> (B, width): True where a piece is no padding."""
    places = torch.arange(width, device=lengths.device)
    return places < lengths.unsqueeze(1)


def backwards(lengths: Tensor, width: int) -> Tensor:
    """(B,) -> (B, width): the places of each row's pieces from the last to the first, then those of its padding."""
    places = torch.arange(width, device=lengths.device).expand(len(lengths), width)
    return torch.where(real(lengths, width), lengths.unsqueeze(1) - 1 - places, places)


STUDENTS: Mapping[tuple[str, Form], Callable[[Shape], Recurrent]] = MappingProxyType(
    {
        ("bilstm", Form.TEXT): BiLSTM,
        ("bilstm", Form.PAIR): SiameseBiLSTM,
        ("bilstm", Form.PIECES): BiLSTMTagger,
        ("encoder", Form.VECTOR): BiLSTMEncoder,
        ("encoder", Form.TEXT): BiLSTM,  # a vector, classified
        ("encoder", Form.PAIR): SiameseEncoder,
    }
)
"""Name in a recipe and form of its data -> network. To add one, add a class and a row; tests run over the table."""


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
