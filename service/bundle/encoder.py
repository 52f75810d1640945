"""Text -> tokens -> padded batch: the only preprocessing in the repository.

It knows which arrays a graph wants. It knows nothing of what the graph computes.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from service.bundle.errors import InvalidTokenizer
from service.bundle.manifest import STUDENT_INPUTS, TEACHER_INPUTS

Row = list[int]
"""The token ids of one text, truncated; an empty text may have none."""

Ids = NDArray[np.int64]
Feeds = dict[str, Ids]
"""What a graph is run with: name of the input -> (B, T), or (B,) for lengths."""


class Encoder:
    """One tokenizer with its limits. Not changed after construction, so threads may share it."""

    def __init__(self, tokenizer: Tokenizer, *, inputs: tuple[str, ...], max_tokens: int, pad_id: int) -> None:
        if inputs not in _FEEDS:
            raise ValueError(f"no graph takes the inputs {', '.join(inputs)}")
        tokenizer.enable_truncation(max_tokens)
        tokenizer.no_padding()  # rows are padded when their batch is known
        self._tokenizer = tokenizer
        self._feeds = _FEEDS[inputs]
        self._pad_id = pad_id
        self.max_tokens = max_tokens

    @classmethod
    def from_file(cls, path: Path, *, inputs: tuple[str, ...], max_tokens: int, pad_id: int) -> Self:
        """Read `tokenizer.json`."""
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises bare Exception
            raise InvalidTokenizer(f"{path}: not a tokenizer ({error}); publish the bundle again") from error
        return cls(tokenizer, inputs=inputs, max_tokens=max_tokens, pad_id=pad_id)

    def encode(self, texts: Sequence[str]) -> list[Row]:
        """The tokens of each text."""
        if len(texts) == 1:
            return [self._tokenizer.encode(texts[0]).ids]
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def collate(self, rows: Sequence[Row]) -> Feeds:
        """Rows of any lengths -> the arrays of one batch, padded to its longest row."""
        # ONNX Runtime refuses length 0: an empty text is one pad token.
        lengths = [len(row) or 1 for row in rows]
        ids = np.full((len(rows), max(lengths)), self._pad_id, dtype=np.int64)  # (B, T)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
        return self._feeds(ids, np.array(lengths, dtype=np.int64))


def _student_feeds(ids: Ids, lengths: Ids) -> Feeds:
    return {"input_ids": ids, "lengths": lengths}


def _teacher_feeds(ids: Ids, lengths: Ids) -> Feeds:
    mask = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)  # (T,) < (B, 1) -> (B, T)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


_FEEDS: MappingProxyType[tuple[str, ...], Callable[[Ids, Ids], Feeds]] = MappingProxyType(
    {STUDENT_INPUTS: _student_feeds, TEACHER_INPUTS: _teacher_feeds}
)
