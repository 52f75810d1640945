"""What distillation asks of a teacher, whatever it is made of: a Hugging Face model or a bundle as it is served."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from export.objectives.signals import Signals, StatesShape
from export.sections import HiddenStates, TeacherSource
from export.teachers.hugging_face import Teacher
from export.teachers.served import ServedTeacher, is_bundle
from service.bundle.encoder import Row, Text
from service.bundle.manifest import Task


class AnyTeacher(Protocol):
    """A classifier that is only asked, never changed; each method is described in `export.teachers.hugging_face`."""

    tokenizer: PreTrainedTokenizerFast

    @property
    def made_of(self) -> str: ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def task(self) -> Task: ...

    @property
    def states(self) -> StatesShape: ...

    @property
    def embeddings(self) -> NDArray[np.float32]: ...

    def signals(self, texts: Sequence[Text], hidden: HiddenStates | None) -> Iterator[Signals]: ...

    def read(self, texts: Sequence[Text]) -> Sequence[Row]: ...

    def exact_logits(self, texts: Sequence[Text]) -> NDArray[np.float32]: ...

    def digest(self) -> str: ...


def open_teacher(source: TeacherSource, texts: int) -> AnyTeacher:
    """A bundle where one lies, else the Hugging Face model of this id or folder, for so many texts in a row.

    Raises ModelError, BundleError.
    """
    if is_bundle(source.model):
        return ServedTeacher.load(source.model, texts)
    return Teacher.load(source.model, source.max_tokens)
