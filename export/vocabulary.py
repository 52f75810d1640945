"""The student's tokenizer.json: the teacher's word pieces, pruned to those that its transfer set uses.

Pieces are ordered by frequency, so that the embedding rows of common words lie together in the caches.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from export.errors import RecipeError

CHUNK = 10_000


@dataclass(frozen=True)
class Vocabulary:
    """A student's tokenizer, and where its pieces stand in the teacher's embedding table."""

    tokenizer_json: str
    kept: NDArray[np.int64]  # (V,) student's id -> teacher's id
    pad_id: int

    @property
    def pieces(self) -> list[str]:
        """The pieces in the order of the student's ids."""
        tokenizer = Tokenizer.from_str(self.tokenizer_json)
        return [tokenizer.id_to_token(i) or "" for i in range(len(self.kept))]


def student_vocabulary(teacher: PreTrainedTokenizerFast, texts: Sequence[str], prune: bool) -> Vocabulary:
    """The teacher's tokenizer, without special tokens around a text. Raises RecipeError if it can't be pruned."""
    content = json.loads(teacher.backend_tokenizer.to_str())
    content.update(post_processor=None, truncation=None, padding=None)
    kept = np.arange(len(teacher), dtype=np.int64)
    if prune:
        if content["model"]["type"] != "WordPiece":
            raise RecipeError(
                f"student.prune: the teacher's tokenizer is {content['model']['type']} and only WordPiece "
                "can be pruned; set prune = false"
            )
        kept = _pieces_to_keep(content, piece_counts(content, texts))
        content = _renumbered(content, kept)
    pad = content["model"]["vocab"][teacher.pad_token] if prune else teacher.pad_token_id
    return Vocabulary(json.dumps(content, ensure_ascii=False), kept, int(pad))


def piece_counts(content: dict[str, Any], texts: Sequence[str]) -> NDArray[np.int64]:
    """How often each piece occurs, (V,)."""
    tokenizer = Tokenizer.from_str(json.dumps(content))
    counts = np.zeros(tokenizer.get_vocab_size(with_added_tokens=True), dtype=np.int64)
    for start in range(0, len(texts), CHUNK):
        for encoding in tokenizer.encode_batch_fast(list(texts[start : start + CHUNK])):
            np.add.at(counts, encoding.ids, 1)
    return counts


def _pieces_to_keep(content: dict[str, Any], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Special tokens first, then by frequency. Single characters stay, so that any word can be spelt."""
    special = [token["id"] for token in content["added_tokens"]]
    taken = set(special)
    prefix = content["model"]["continuing_subword_prefix"]
    letters = {i for piece, i in content["model"]["vocab"].items() if len(piece.removeprefix(prefix)) == 1}
    wanted = [i for i in np.argsort(-counts, kind="stable").tolist() if counts[i] or i in letters]
    return np.asarray(special + [i for i in wanted if i not in taken], dtype=np.int64)


def _renumbered(content: dict[str, Any], kept: NDArray[np.int64]) -> dict[str, Any]:
    new = {int(old): i for i, old in enumerate(kept)}
    vocab = {piece: new[i] for piece, i in content["model"]["vocab"].items() if i in new}
    added = [token | {"id": new[token["id"]]} for token in content["added_tokens"]]
    vocab |= {token["content"]: token["id"] for token in added}  # else tokenizers would number them behind the others
    vocab = dict(sorted(vocab.items(), key=lambda item: item[1]))
    return content | {"added_tokens": added, "model": content["model"] | {"vocab": vocab}}
