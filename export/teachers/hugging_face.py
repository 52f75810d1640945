"""The teacher that `learning.fine_tuning` made, or any other Hugging Face classifier: it is only asked for its signals.

This module knows nothing of students or of training.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BatchEncoding,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from export.errors import ModelError
from export.networks.device import default_device, quick, quick_at_bfloat16
from export.networks.pooling import Pooled
from export.networks.pretrained import (
    check_limit,
    labels_of,
    load_config,
    load_network,
    load_tokenizer,
    plain_tokenizer_json,
    readable,
    task_of,
)
from export.objectives.signals import Pieces, Signals, StatesShape
from export.sections import HiddenStates
from export.texts.answers import passages
from service.bundle.encoder import Encoder, Row, Text
from service.bundle.manifest import TRANSFORMER_INPUTS, Task
from service.bundle.rows import Passage, Spanned


class Teacher:
    """A fine-tuned classifier that is only asked, never changed."""

    made_of = "torch"
    network: Any = AutoModelForSequenceClassification

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, max_tokens: int) -> None:
        self.device = default_device()
        self.bf16 = quick_at_bfloat16(self.device)  # its signals; whether a student learns in it is another question
        self.model = model.eval().to(self.device)
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens

    @classmethod
    def load(cls, source: str, max_tokens: int | None = None) -> "Teacher":
        """Without `max_tokens` it reads as much as `teach` let it, or what it can, at most `SHORT`.

        Raises ModelError when it can't be loaded or is no classifier.
        """
        kind = _KINDS.get(task_of(load_config(source)), cls)
        model, found = load_network(kind.network, source, output_loading_info=True)
        if found["missing_keys"]:
            raise ModelError(
                f"teacher {source}: is no fine-tuned classifier (it lacks {min(found['missing_keys'])}); `teach` makes "
                "one of it, `adopt --pooling mean` publishes the vectors of texts that it makes"
            )
        if max_tokens is None:
            max_tokens = readable(model.config, source)
        check_limit(model.config, source, max_tokens)
        return kind(model, load_tokenizer(source), max_tokens)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the logits."""
        return labels_of(self.model.config)

    @property
    def task(self) -> Task:
        """What its logits mean."""
        return task_of(self.model.config)

    @property
    def states(self) -> StatesShape:
        """Of the hidden states that it can be asked for."""
        return StatesShape(self.model.config.num_hidden_layers, self.model.config.hidden_size)

    @property
    def tokenizer_json(self) -> str:
        """Its tokenizer.json."""
        return plain_tokenizer_json(self.tokenizer)

    @property
    def embeddings(self) -> NDArray[np.float32]:
        """The word-piece embeddings, (V, H)."""
        table: Tensor = self.model.get_input_embeddings().weight
        return table.detach().cpu().float().numpy()

    def signals(self, texts: Sequence[Text], hidden: HiddenStates | None, batch_size: int = 128) -> Iterator[Signals]:
        """Stream the signals of batches in the order of `texts`. Sort the texts by length first: padding costs.

        Raises ModelError for a layer that it hasn't.
        """
        if hidden is not None and hidden.layer > self.states.layers:
            raise ModelError(f"teacher.hidden.layer: it has {self.states.layers} layers, not {hidden.layer}")
        for start in range(0, len(texts), batch_size):
            yield self._batch(texts[start : start + batch_size], hidden)

    @torch.inference_mode()
    def _batch(self, texts: Sequence[Text], hidden: HiddenStates | None) -> Signals:
        inputs = tokenized(self.tokenizer, texts, self.max_tokens, padding=True, return_tensors="pt").to(self.device)
        with quick(self.device, self.bf16):
            found = self.model(**inputs, output_hidden_states=hidden is not None)
        logits = found.logits.float().cpu().numpy()
        if hidden is None:
            return Signals(logits)
        states = pooled(found.hidden_states[hidden.layer].float(), inputs["attention_mask"], hidden.pooling)
        return Signals(logits, states.half().cpu().numpy())

    def digest(self) -> str:
        """What decides its signals: weights, tokeniser, limit, and bfloat16, which moves logits by a hundredth."""
        arithmetic = "bfloat16" if self.bf16 else ""  # of fp32 nothing, so that older caches are still found
        return weights_digest(self.model, f"{self.max_tokens}{self.tokenizer_json}{arithmetic}")

    def read(self, texts: Sequence[Text]) -> Sequence[Row]:
        """The rows that it makes of texts, or of pairs of them."""
        return reader(self.tokenizer, self.max_tokens, 1 if isinstance(texts[0], str) else 2).encode(texts)

    @torch.inference_mode()
    def exact_logits(self, texts: Sequence[Text]) -> NDArray[np.float32]:
        """Logits (N, L) in fp32, beside texts of the same length only, so without padding: what a graph of this teacher
        is held against."""
        inputs = tokenized(self.tokenizer, texts, self.max_tokens)

        def run(places: Sequence[int]) -> Tensor:
            logits: Tensor = self.model(**self._some(inputs, places)).logits
            return logits

        return np.stack(without_padding(list(map(len, inputs["input_ids"])), run))

    def _some(self, inputs: BatchEncoding, places: Sequence[int]) -> dict[str, Tensor]:
        """Rows of one length as a batch."""
        return {name: torch.tensor([rows[i] for i in places]).to(self.device) for name, rows in inputs.items()}


class TaggingTeacher(Teacher):
    """One that has an answer for each piece of a text."""

    network: Any = AutoModelForTokenClassification

    @cached_property
    def _reader(self) -> Encoder:
        return reader(self.tokenizer, self.max_tokens, of_pieces=True)

    def read(self, texts: Sequence[Text]) -> Sequence[Spanned]:
        """The rows that it makes of texts."""
        return [row for row in self._reader.encode(texts) if isinstance(row, Spanned)]

    @torch.inference_mode()
    def _batch(self, texts: Sequence[Text], hidden: HiddenStates | None) -> Signals:
        rows = self.read(texts)
        ids, mask = self._padded(rows)
        with quick(self.device, self.bf16):
            found = self.model(input_ids=ids, attention_mask=mask, output_hidden_states=hidden is not None)
        own = [np.array([piece for word in row.words for piece in word], dtype=np.int64) for row in rows]
        starts = np.arange(len(rows)) * ids.shape[1]
        flat = np.concatenate([start + pieces for start, pieces in zip(starts, own, strict=True)])  # (R,)
        chosen = torch.from_numpy(flat).to(self.device)
        logits = found.logits.flatten(0, 1)[chosen].float().cpu().numpy()  # (B, T, L) -> (R, L)
        states = None
        if hidden is not None:
            states = found.hidden_states[hidden.layer].flatten(0, 1)[chosen].half().cpu().numpy()  # (R, H)
        return Signals(logits, states, pieces_of(rows))

    @torch.inference_mode()
    def exact_logits(self, texts: Sequence[Text]) -> NDArray[np.float32]:
        """Logits (R, L) in fp32 of all tokens, also special ones, text after text; without padding."""
        rows = self.read(texts)

        def run(places: Sequence[int]) -> Tensor:
            ids, mask = self._padded([rows[i] for i in places])
            logits: Tensor = self.model(input_ids=ids, attention_mask=mask).logits
            return logits

        return np.concatenate(without_padding(list(map(len, rows)), run))

    def _padded(self, rows: Sequence[Spanned]) -> tuple[Tensor, Tensor]:
        """-> ids and mask, (B, T)"""
        ids = [torch.tensor(list(row), dtype=torch.int64) for row in rows]
        padded = pad_sequence(ids, batch_first=True, padding_value=float(self.tokenizer.pad_token_id))
        mask = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
        return padded.to(self.device), mask.to(self.device)


class ReadingTeacher(Teacher):
    """One that says of each piece of a text whether the answer to a question starts or ends there."""

    network: Any = AutoModelForQuestionAnswering

    @cached_property
    def _reader(self) -> Encoder:
        return reader(self.tokenizer, self.max_tokens, 2, of_pieces=True)

    def read(self, texts: Sequence[Text]) -> Sequence[Passage]:
        """The rows that it makes of questions with their texts; of a long text there are several."""
        return passages(self._reader.encode(texts))

    @torch.inference_mode()
    def _batch(self, texts: Sequence[Text], hidden: HiddenStates | None) -> Signals:
        rows = self.read(texts)
        with quick(self.device, self.bf16):
            logits, states = self._run(rows, hidden)
        counts = np.bincount([row.number for row in rows], [len(row) for row in rows], minlength=len(texts))
        places = np.array([place for row in rows for place in row.places], dtype=np.int32).reshape(-1, 2)
        return Signals(logits, states, Pieces(counts.astype(np.int64), places))

    @torch.inference_mode()
    def exact_logits(self, texts: Sequence[Text]) -> NDArray[np.float32]:
        """Logits (R, 2) in fp32 of all tokens of all rows, text after text; without padding."""
        rows = self.read(texts)

        def run(places: Sequence[int]) -> Tensor:
            logits, _ = self._run([rows[i] for i in places], None)
            return torch.from_numpy(logits).view(len(places), -1, 2)

        return np.concatenate(without_padding(list(map(len, rows)), run))

    def _run(
        self, rows: Sequence[Passage], hidden: HiddenStates | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float16] | None]:
        """Of all tokens of all rows: logits (R, 2), and states (R, H) where asked for."""
        ids, types = (self._padded([getattr(row, name) for row in rows]) for name in ("ids", "types"))
        mask = self._padded([[1] * len(row) for row in rows], pad=0)
        found = self.model(
            input_ids=ids, attention_mask=mask, token_type_ids=types, output_hidden_states=hidden is not None
        )
        logits = torch.stack([found.start_logits, found.end_logits], dim=2)[mask.bool()]  # (B, T) twice -> (R, 2)
        states = None if hidden is None else found.hidden_states[hidden.layer][mask.bool()].half().cpu().numpy()
        return logits.float().cpu().numpy(), states

    def _padded(self, rows: Sequence[Sequence[int]], pad: int | None = None) -> Tensor:
        """-> (B, T)"""
        value = self.tokenizer.pad_token_id if pad is None else pad
        padded = pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=float(value))
        return padded.to(self.device)


class PlainTeacher(Teacher):
    """An encoder that was tuned for no task: it has hidden states and no logits."""

    network: Any = AutoModel

    @classmethod
    def load(cls, source: str, max_tokens: int | None = None) -> "PlainTeacher":
        """Raises ModelError when it can't be loaded, or reads fewer tokens."""
        model = load_network(cls.network, source)
        limit = max_tokens or readable(model.config, source)
        check_limit(model.config, source, limit)
        return cls(model, load_tokenizer(source), limit)

    @property
    def task(self) -> Task:
        """It makes vectors of texts."""
        return Task.EMBEDDING

    @torch.inference_mode()
    def _batch(self, texts: Sequence[Text], hidden: HiddenStates | None) -> Signals:
        nothing = np.zeros((len(texts), 0), dtype=np.float32)
        if hidden is None:
            return Signals(nothing)
        inputs = tokenized(self.tokenizer, texts, self.max_tokens, padding=True, return_tensors="pt").to(self.device)
        with quick(self.device, self.bf16):
            found = self.model(**inputs, output_hidden_states=True).hidden_states[hidden.layer]
        states = pooled(found.float(), inputs["attention_mask"], hidden.pooling)
        return Signals(nothing, states.half().cpu().numpy())

    @torch.inference_mode()
    def vectors(self, texts: Sequence[str], pooling: Pooled) -> NDArray[np.float32]:
        """Of the last layer's states (N, H), in fp32 and without padding: what a graph is held against."""
        inputs = tokenized(self.tokenizer, texts, self.max_tokens)

        def run(places: Sequence[int]) -> Tensor:
            batch = self._some(inputs, places)
            return pooled(self.model(**batch).last_hidden_state, batch["attention_mask"], pooling)

        return np.stack(without_padding(list(map(len, inputs["input_ids"])), run))


def without_padding(
    lengths: Sequence[int], run: Callable[[Sequence[int]], Tensor], most: int = 32
) -> list[NDArray[np.float32]]:
    """Run rows in batches of one length each, which needs no padding and so is not disturbed by any.

    `run` takes the places of a batch's rows and gives one slice a row; all of them come back in the rows' order.
    """
    by_length: dict[int, list[int]] = {}
    for place, length in enumerate(lengths):
        by_length.setdefault(length, []).append(place)
    found: dict[int, NDArray[np.float32]] = {}
    for places in by_length.values():
        for batch in (places[start : start + most] for start in range(0, len(places), most)):
            found.update(zip(batch, run(batch).float().cpu().numpy(), strict=True))
    return [found[place] for place in range(len(lengths))]


def weights_digest(model: nn.Module, beside: str = "") -> str:
    """Of all its weights and their names, and of what else decides."""
    digest = hashlib.sha256(beside.encode())
    for name, weights in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weights.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def pieces_of(rows: Sequence[Spanned]) -> Pieces:
    """All tokens of these rows that stand for text."""
    places = [row.places[piece] for row in rows for word in row.words for piece in word]
    counts = [sum(len(word) for word in row.words) for row in rows]
    return Pieces(np.array(counts, dtype=np.int64), np.array(places, dtype=np.int32).reshape(-1, 2))


_KINDS: MappingProxyType[Task, type[Teacher]] = MappingProxyType(
    {Task.TAGGING: TaggingTeacher, Task.ANSWERING: ReadingTeacher}
)
"""Of what is answered piece by piece."""


def reader(tokenizer: PreTrainedTokenizerFast, max_tokens: int, texts: int = 1, *, of_pieces: bool = False) -> Encoder:
    """What reads texts, or pairs of them, as a server will do for this teacher."""
    return Encoder(
        Tokenizer.from_str(plain_tokenizer_json(tokenizer)),
        inputs=TRANSFORMER_INPUTS,
        max_tokens=max_tokens,
        pad_id=int(tokenizer.pad_token_id),
        texts=texts,
        spanned=of_pieces,
    )


def tokenized(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[Text], max_tokens: int, **options: Any
) -> BatchEncoding:
    """Texts, or pairs of them in one sequence, the longer of the two cut first."""
    firsts = [text if isinstance(text, str) else text[0] for text in texts]
    seconds = [text[1] for text in texts if not isinstance(text, str)]
    encoding: BatchEncoding = tokenizer(firsts, seconds or None, truncation=True, max_length=max_tokens, **options)
    return encoding


def pooled(states: Tensor, mask: Tensor, pooling: Pooled) -> Tensor:
    """(B, T, H), (B, T) -> (B, H)."""
    if pooling is Pooled.FIRST:
        return states[:, 0]
    real = mask.unsqueeze(2).to(states.dtype)  # (B, T, 1)
    return (states * real).sum(dim=1) / real.sum(dim=1)
