"""What distillation asks of a teacher, whatever it is made of: a Hugging Face model or a bundle as it is served."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from export.recipe import TeacherSource
from export.served_teacher import ServedTeacher, is_bundle
from export.teacher import Teacher
from service.bundle.manifest import Task

Logits = NDArray[np.float32]


class AnyTeacher(Protocol):
    """A classifier that is only asked, never changed; each method is described in `export.teacher`."""

    tokenizer: PreTrainedTokenizerFast

    @property
    def made_of(self) -> str: ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def task(self) -> Task: ...

    @property
    def embeddings(self) -> Logits: ...

    def logits(self, texts: Sequence[str]) -> Iterator[Logits]: ...

    def exact_logits(self, texts: Sequence[str]) -> Logits: ...

    def digest(self) -> str: ...


def open_teacher(source: TeacherSource) -> AnyTeacher:
    """A bundle where one lies, else the Hugging Face model of this id or folder. Raises ModelError, BundleError."""
    if is_bundle(source.model):
        return ServedTeacher.load(source.model)
    return Teacher.load(source.model, source.max_tokens)
