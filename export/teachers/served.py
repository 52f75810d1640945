"""A teacher's bundle that labels a student's texts as it is served: for those who have no more of it than the bundle.

It answers what `export.teachers.hugging_face.Teacher` answers, in fp32 and with the limit that its manifest states. It
knows nothing of students.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from export.errors import ModelError
from export.graphs.to_onnx import embedding_table
from export.measuring.pair import name_of
from export.objectives.signals import Signals, StatesShape
from export.sections import HiddenStates
from export.teachers.hugging_face import pieces_of
from service.bundle.encoder import Row, Text
from service.bundle.manifest import TOKENIZER_FILE, Precision, Role, Task
from service.bundle.rows import Spanned
from service.bundle.runtime import EngineOptions, OpenBundle, open_bundle
from service.bundle.seal import MANIFEST_FILE

MASKS = ("[MASK]", "<mask>")
_ROWS = {1: "single texts", 2: "pairs"}


def is_bundle(source: str) -> bool:
    """Is this the folder of a bundle, and not a Hugging Face folder or a hub id?"""
    return Path(source, MANIFEST_FILE).is_file()


class ServedTeacher:
    """A bundle that is only asked."""

    made_of = "as served"

    def __init__(self, bundle: OpenBundle) -> None:
        self._bundle = bundle
        self.tokenizer = _tokenizer(bundle)

    @classmethod
    def load(cls, source: str, texts: int = 1) -> "ServedTeacher":
        """Raises BundleError for a bundle that doesn't open, ModelError for one that is no teacher of such rows."""
        bundle = open_bundle(Path(source), Precision.EXACT, EngineOptions(threads=torch.get_num_threads()))
        if bundle.manifest.role is not Role.TEACHER:
            raise ModelError(f"teacher {source}: {name_of(bundle.manifest)} is no teacher; name one")
        if bundle.manifest.task is Task.ANSWERING:
            raise ModelError(f"teacher {source}: of question answering the teacher is a Hugging Face folder; name it")
        if bundle.manifest.texts != texts:
            raise ModelError(
                f"teacher {source}: {name_of(bundle.manifest)} reads {_ROWS[bundle.manifest.texts]}, "
                f"and the data has {_ROWS[texts]}; look at data.pair"
            )
        return cls(bundle)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the logits."""
        return self._bundle.manifest.labels

    @property
    def task(self) -> Task:
        """What its logits mean."""
        return self._bundle.manifest.task

    @property
    def states(self) -> StatesShape:
        """It gives no hidden states."""
        return StatesShape(0, 0)

    @property
    def embeddings(self) -> NDArray[np.float32]:
        """The word-piece embeddings, (V, H), as its graph has them. Raises ModelError if they aren't one table."""
        manifest = self._bundle.manifest
        return embedding_table((self._bundle.folder / manifest.graphs[Precision.EXACT].file).read_bytes())

    def signals(self, texts: Sequence[Text], hidden: HiddenStates | None, batch_size: int = 32) -> Iterator[Signals]:
        """Stream the signals of batches in the order of `texts`. Sort the texts by length first: padding costs.

        Raises ModelError if hidden states are asked for.
        """
        if hidden is not None:
            raise ModelError("teacher.hidden: a bundle gives no hidden states; name the teacher's Hugging Face folder")
        for start in range(0, len(texts), batch_size):
            rows = self.read(texts[start : start + batch_size])
            logits = self._bundle.run(rows)
            yield Signals(logits) if logits.ndim == 2 else _of_pieces(rows, self._bundle.apart(rows, logits))

    def read(self, texts: Sequence[Text]) -> Sequence[Row]:
        """The rows that it makes of texts, or of pairs of them."""
        rows: Sequence[Row] = self._bundle.encoder.encode(texts)
        return rows

    def exact_logits(self, texts: Sequence[Text]) -> NDArray[np.float32]:
        """Logits (N, L), each text alone; a tagger's of all tokens (R, L), also special ones, one behind the other."""
        own = [part for row in self.read(texts) for part in self._bundle.apart([row], self._bundle.run([row]))]
        return np.concatenate([np.atleast_2d(part) for part in own])

    def digest(self) -> str:
        """What decides its logits."""
        return self._bundle.manifest.seal


def _of_pieces(rows: Sequence[Row], logits: Sequence[NDArray[np.float32]]) -> Signals:
    """Without the special tokens."""
    spanned = [row for row in rows if isinstance(row, Spanned)]
    own = [part[[piece for word in row.words for piece in word]] for row, part in zip(spanned, logits, strict=True)]
    return Signals(np.concatenate(own), None, pieces_of(spanned))


def _tokenizer(bundle: OpenBundle) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer.from_file(str(bundle.folder / TOKENIZER_FILE))
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=tokenizer.id_to_token(bundle.manifest.pad_id),
        mask_token=next((mask for mask in MASKS if mask in added), None),
    )
