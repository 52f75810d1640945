"""A teacher's bundle that labels a student's texts as it is served: for those who have no more of it than the bundle.

It answers what `export.teacher.Teacher` answers, in fp32 and with the limit that its manifest states. It knows nothing
of students.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from export.errors import ModelError
from export.pair import name_of
from export.to_onnx import embedding_table
from service.bundle.manifest import TOKENIZER_FILE, Precision, Role, Task
from service.bundle.runtime import EngineOptions, OpenBundle, open_bundle
from service.bundle.seal import MANIFEST_FILE

MASKS = ("[MASK]", "<mask>")


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
    def load(cls, source: str) -> "ServedTeacher":
        """Raises BundleError for a bundle that doesn't open, ModelError for one that is no teacher of single texts."""
        bundle = open_bundle(Path(source), Precision.EXACT, EngineOptions(threads=torch.get_num_threads()))
        if bundle.manifest.role is not Role.TEACHER or bundle.manifest.texts != 1:
            raise ModelError(f"teacher {source}: {name_of(bundle.manifest)} is no teacher of single texts; name one")
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
    def embeddings(self) -> NDArray[np.float32]:
        """The word-piece embeddings, (V, H), as its graph has them. Raises ModelError if they aren't one table."""
        manifest = self._bundle.manifest
        return embedding_table((self._bundle.folder / manifest.graphs[Precision.EXACT].file).read_bytes())

    def logits(self, texts: Sequence[str], batch_size: int = 32) -> Iterator[NDArray[np.float32]]:
        """Stream logits (B, L) in the order of `texts`. Sort the texts by length first: padding costs."""
        for start in range(0, len(texts), batch_size):
            yield self._bundle.classify(texts[start : start + batch_size])

    def exact_logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Logits (N, L), each text alone."""
        return np.concatenate([self._bundle.classify([text]) for text in texts])

    def digest(self) -> str:
        """What decides its logits."""
        return self._bundle.manifest.seal


def _tokenizer(bundle: OpenBundle) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer.from_file(str(bundle.folder / TOKENIZER_FILE))
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=tokenizer.id_to_token(bundle.manifest.pad_id),
        mask_token=next((mask for mask in MASKS if mask in added), None),
    )
