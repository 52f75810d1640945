"""The student's tokenizer.json: the teacher's word pieces, pruned to those that its transfer set uses, or whole words.

Both are ordered by frequency, so that the embedding rows of common words lie together in the caches.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, trainers
from transformers import PreTrainedTokenizerFast

from export.errors import RecipeError
from export.networks.pretrained import plain_tokenizer_json
from export.sections import Student

CHUNK = 10_000
MOST_WORDS = 2**31 - 1


@dataclass(frozen=True)
class Vocabulary:
    """A student's tokenizer, and of which rows of the teacher's embedding table its pieces or words are made."""

    tokenizer_json: str
    kept: NDArray[np.int64]  # (P,) teacher's ids; of pieces, student's id -> teacher's id
    firsts: NDArray[np.int64]  # (V,) where those of each of the student's ids begin
    pad_id: int

    @classmethod
    def whole(cls, tokenizer: PreTrainedTokenizerFast) -> "Vocabulary":
        """A tokenizer as it is, with its special tokens around a text."""
        rows = np.arange(len(tokenizer), dtype=np.int64)
        return cls(plain_tokenizer_json(tokenizer), rows, rows, int(tokenizer.pad_token_id))

    def __len__(self) -> int:
        return len(self.firsts)

    @property
    def pieces(self) -> list[str]:
        """The pieces or words in the order of the student's ids."""
        tokenizer = Tokenizer.from_str(self.tokenizer_json)
        return [tokenizer.id_to_token(i) or "" for i in range(len(self))]

    def rows(self, table: NDArray[np.float32]) -> NDArray[np.float32]:
        """The teacher's embeddings (V_teacher, H) -> (V, H); a word has the mean of its pieces."""
        counts = np.diff(self.firsts, append=len(self.kept)).astype(np.float32)
        rows: NDArray[np.float32] = np.add.reduceat(table[self.kept], self.firsts)
        return rows / counts[:, None]


def vocabulary_of(wanted: Student, teacher: PreTrainedTokenizerFast, texts: Sequence[str]) -> Vocabulary:
    """What the recipe asks for. Raises RecipeError where this teacher's tokenizer can't give it."""
    if wanted.vocabulary == "words":
        return word_vocabulary(teacher, texts, wanted.min_count)
    return student_vocabulary(teacher, texts, wanted.prune)


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
    return Vocabulary(json.dumps(content, ensure_ascii=False), kept, np.arange(len(kept)), int(pad))


def word_vocabulary(teacher: PreTrainedTokenizerFast, texts: Sequence[str], min_count: int) -> Vocabulary:
    """The words that occur `min_count` times at least, as the teacher's tokenizer parts and normalises texts.

    Raises RecipeError for a teacher's tokenizer that knows no words, or has no token for an unknown one.
    """
    content = json.loads(teacher.backend_tokenizer.to_str())
    if content["pre_tokenizer"] is None:
        raise RecipeError(
            "student.vocabulary: the teacher's tokenizer doesn't part texts into words; set it to 'pieces'"
        )
    unknown = _unknown(teacher, content)
    special = [token["content"] for token in sorted(content["added_tokens"], key=lambda token: int(token["id"]))]
    counted = _counted(content, texts, special, min_count)
    words = list(dict.fromkeys([*special, str(teacher.pad_token), unknown, *counted]))
    ids = {word: i for i, word in enumerate(words)}
    added = [token | {"id": ids[token["content"]]} for token in content["added_tokens"]]
    content.update(post_processor=None, decoder=None, truncation=None, padding=None, added_tokens=added)
    content["model"] = {"type": "WordLevel", "vocab": ids, "unk_token": unknown}
    spelt = [_spelling(teacher, word, unknown) for word in words]
    firsts = np.cumsum([0, *map(len, spelt[:-1])])
    return Vocabulary(
        json.dumps(content, ensure_ascii=False), np.concatenate(spelt), firsts.astype(np.int64), ids[teacher.pad_token]
    )


def _unknown(teacher: PreTrainedTokenizerFast, content: dict[str, Any]) -> str:
    """A bundle's tokenizer says it in its model alone, RoBERTa's beside it alone."""
    found = teacher.unk_token or content["model"].get("unk_token")
    if not isinstance(found, str):
        raise RecipeError(
            "student.vocabulary: the teacher's tokenizer has no token for an unknown word; set it to 'pieces'"
        )
    return found


def _counted(content: dict[str, Any], texts: Sequence[str], special: Sequence[str], min_count: int) -> Iterator[str]:
    """Frequent words first; equally frequent ones in the order of their letters."""
    tokenizer = Tokenizer.from_str(json.dumps(content | {"added_tokens": []}))
    tokenizer.model = models.WordLevel()
    trainer = trainers.WordLevelTrainer(vocab_size=MOST_WORDS, min_frequency=min_count, show_progress=False)
    tokenizer.train_from_iterator((_without(text, special) for text in texts), trainer)
    found = tokenizer.get_vocab(with_added_tokens=False)
    yield from sorted(found, key=found.__getitem__)


def _without(text: str, special: Sequence[str]) -> str:
    """A mask is no word, and would be read as three."""
    for token in special:
        text = text.replace(token, " ")
    return text


def _spelling(teacher: PreTrainedTokenizerFast, word: str, unknown: str) -> NDArray[np.int64]:
    """The teacher's ids of a word, one at least."""
    own = teacher.backend_tokenizer.token_to_id(word)
    if own is not None:
        return np.array([own], dtype=np.int64)
    found = [token.id for token in teacher.backend_tokenizer.model.tokenize(word)]
    return np.array(found or [teacher.backend_tokenizer.token_to_id(unknown)], dtype=np.int64)


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
