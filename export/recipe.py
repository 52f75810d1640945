"""Recipes: read from TOML, strict. A recipe and its overrides say everything that a run depends on.

`TeachRecipe` fine-tunes a teacher, `DistillRecipe` distils a student from one; `ExtractRecipe` makes a smaller encoder
of a larger one before there is a task.
"""

import hashlib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
import tomli_w
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from export.data import Data
from export.errors import DataError, RecipeError
from export.overrides import overrule
from export.sections import (
    Adaptation,
    AnyStudent,
    Comparing,
    Distillation,
    Extraction,
    FineTunedSource,
    Objective,
    Section,
    Seed,
    SelectingLoop,
    StagePlan,
    Student,
    TeacherSource,
    Transfer,
    TransformerStudent,
)
from export.texts import captured
from export.texts.datasets import Columns
from export.texts.sentences import TextSource, shaped_texts
from service.bundle.manifest import OF_PIECES, Name, Network, Task

Version = Annotated[int, Field(ge=1, lt=10**18)]
R = TypeVar("R", bound=Section)


class TeachRecipe(Section):
    """How to make a teacher."""

    name: str
    seed: Seed = 0
    teacher: TeacherSource
    data: Data
    adaptation: Adaptation | None = None
    training: SelectingLoop


class DistillRecipe(Section):
    """How to make a student."""

    name: Name
    version: Version = 1
    method: Literal["tang2019", "mukherjee2020"] = "tang2019"
    seed: Seed = 0
    teacher: FineTunedSource
    data: Data
    transfer: Transfer = Transfer()
    student: AnyStudent
    objective: Objective = Objective()
    training: Distillation
    stages: tuple[StagePlan, ...] = Field(default=(), description="mukherjee2020: what is learnt after what")

    @model_validator(mode="after")
    def _method_reads_it_all(self) -> Self:
        plain = self.method == "tang2019"
        if plain and (self.stages or self.objective.states != Objective().states):
            raise ValueError("tang2019 has no [[stages]] and no objective.states; set method = 'mukherjee2020'")
        if not plain and (not self.stages or not self.stages[-1].answers):
            raise ValueError("the last of [[stages]] teaches the student to answer: give it logits or labels")
        if not plain and self.objective.alpha:
            raise ValueError("objective.alpha is tang2019's; weigh labels, logits and representation in [[stages]]")
        return self

    @model_validator(mode="after")
    def _several_labels_and_numbers_have_no_distribution(self) -> Self:
        soft, task = self.objective.soft, self.data.task
        if soft != "mse" and task in (Task.MULTI_LABEL, Task.REGRESSION):  # of one column softmax is 1, its gradient 0
            raise ValueError(f"objective.soft: {soft} is of one label among several; write 'mse' for {task}")
        return self

    @model_validator(mode="after")
    def _an_encoder_is_begun_with(self) -> Self:
        student = self.student
        if isinstance(student, TransformerStudent):
            return self
        if student.begins is not None and student.architecture != "encoder":
            raise ValueError("student.begins: `pretrain` makes encoders; write student.architecture = 'encoder'")
        if student.architecture == "encoder" and self.data.task is Task.TAGGING:
            raise ValueError("student.architecture: pieces are tagged, not vectors of texts; write 'bilstm'")
        if student.architecture == "encoder" and self.data.pair is not None and self.learns_states:
            raise ValueError(
                "student.architecture: of a pair an encoder has a vector each, and no representation as wide as the "
                "teacher's states; write 'bilstm', or no representation in [[stages]]"
            )
        return self

    @model_validator(mode="after")
    def _a_transformer_learns_logits(self) -> Self:
        if isinstance(self.student, TransformerStudent):
            if self.method != "tang2019":
                raise ValueError("method: mukherjee2020's stages are a BiLSTM's; a transformer learns by 'tang2019'")
            if self.data.task is Task.TAGGING:
                raise ValueError(
                    "student.architecture: a transformer that tags is fine-tuned; `teach` with teacher.model = its "
                    "folder, then `adopt --role student`"
                )
        elif self.data.task is Task.ANSWERING:
            raise ValueError("student.architecture: a BiLSTM answers no questions; write 'transformer'")
        return self

    @model_validator(mode="after")
    def _answers_are_learnt_from_logits(self) -> Self:
        if self.data.task is Task.ANSWERING and (self.objective.alpha or self.objective.argmax):
            raise ValueError("objective: answers are learnt from the teacher's logits; write alpha = 0")
        if self.data.task is Task.ANSWERING and self.objective.soft != "mse":
            raise ValueError("objective.soft: each piece has a logit, not a distribution; write 'mse'")
        return self

    @model_validator(mode="after")
    def _texts_are_of_one_form(self) -> Self:
        for number, texts in enumerate(self.transfer.texts):
            if texts.paired is not (self.data.pair is not None):
                wanted = (
                    "leave out pair and neighbours"
                    if self.data.pair is None
                    else "pair: name the column of the second text, or set neighbours"
                )
                raise ValueError(f"transfer.texts.{number}: {wanted}: rows are as data.pair says")
        return self

    @property
    def learns_labels_alone(self) -> bool:
        """Does nothing come from the teacher's answers? Then it may be an encoder that knows no task."""
        if self.data.task in OF_PIECES or self.objective.argmax:
            return False
        if self.stages:
            return not any(plan.representation or plan.logits for plan in self.stages)
        unlabelled = self.transfer.texts or self.transfer.augment.copies or self.data.per_label or self.data.rows
        return self.objective.alpha == 1 and not unlabelled

    @property
    def learns_states(self) -> bool:
        """Does a stage need the teacher's hidden states?"""
        return any(plan.representation for plan in self.stages)

    def with_texts(self, sources: Sequence[str]) -> Self:
        """The same with more unlabelled texts, or pairs if rows are pairs, as they are, whatever their lengths."""
        more = tuple(
            TextSource(source=source, column=columns.text, pair=columns.pair)
            for source, columns in ((source, self._columns_of(source)) for source in sources)
        )
        transfer = self.transfer.model_copy(update={"texts": (*self.transfer.texts, *more)})
        return self.model_copy(update={"transfer": transfer})

    def _columns_of(self, source: str) -> Columns:
        if self.data.pair is None:
            return Columns()
        return Columns(captured.TEXT, "", captured.PAIR) if captured.is_store(source) else self.data.columns


class PretrainRecipe(Section):
    """How to make an encoder of a larger one, on plain text, for no task in particular."""

    name: str
    seed: Seed = 0
    teacher: TeacherSource
    texts: tuple[TextSource, ...] = Field(min_length=1)
    training: Distillation
    judging: Annotated[int, Field(ge=1)] = Field(default=1000, description="texts that select, and are not learnt")

    @model_validator(mode="after")
    def _texts_are_single(self) -> Self:
        if any(texts.paired for texts in self.texts):
            raise ValueError("texts: pairs teach a task; leave out pair and neighbours")
        return self

    def read(self) -> tuple[str, ...]:
        """All texts, none twice. Raises DataError where none would be left to learn from."""
        texts = tuple(dict.fromkeys(text for source in self.texts for text in shaped_texts(source)))
        if len(texts) <= self.judging:
            raise DataError(f"texts: {len(texts):,} fit, and judging takes {self.judging:,}; give more texts")
        return texts


class ExtractRecipe(PretrainRecipe):
    """How to cut a smaller transformer out of a larger one, and distil it."""

    method: Literal["chen2021"]
    student: str = Field(description="LAYERSxHIDDENxHEADSxINTERMEDIATE, such as 3x192x6x768")
    extraction: Extraction = Extraction()
    comparing: Comparing = Comparing()

    @model_validator(mode="after")
    def _comparing_says_what_is_learnt(self) -> Self:
        if self.teacher.hidden is not None:
            raise ValueError("teacher.hidden: comparing.by says what is learnt; leave it out")
        return self


class ApproximateRecipe(PretrainRecipe):
    """How to make a BiLSTM that gives an encoder's vectors of sentences; teacher.hidden says which."""

    method: Literal["wu2020"]
    student: Student
    states: Literal["cosine", "mse"] = Field(default="cosine", description="how vectors are compared")

    @model_validator(mode="after")
    def _makes_vectors(self) -> Self:
        if self.teacher.hidden is None:
            raise ValueError("teacher.hidden: say which vector of a text is learnt: its layer and pooling")
        if self.student.architecture != "encoder":
            raise ValueError("student.architecture: write 'encoder'")
        return self


PRETRAINING: Mapping[str, type[ExtractRecipe | ApproximateRecipe]] = MappingProxyType(
    {"chen2021": ExtractRecipe, "wu2020": ApproximateRecipe}
)
"""Method -> its recipes."""


def read_recipe(kind: type[R], path: Path, overrides: Iterable[str] = ()) -> R:
    """Read a recipe; `overrides` are `table.key=value` with a TOML value (or bare text).

    Raises RecipeError with one line that names the file, the key and what is wrong.
    """
    return _validated(kind, path, _content(path, overrides))


def read_pretraining(path: Path, overrides: Iterable[str] = ()) -> ExtractRecipe | ApproximateRecipe:
    """The same of a recipe whose method says of which kind it is."""
    content = _content(path, overrides)
    kind = PRETRAINING.get(str(content.get("method")))
    if kind is None:
        raise RecipeError(f"{path}: method: of an encoder for no task it is one of {', '.join(PRETRAINING)}")
    return _validated(kind, path, content)


def _content(path: Path, overrides: Iterable[str]) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror or error}; give the path of a recipe (TOML)") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not TOML: {error}") from error
    for override in overrides:
        overrule(content, override)
    return content


def _validated(kind: type[R], path: Path, content: dict[str, Any]) -> R:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"{path}: {_first(error)}") from error


def fingerprint(recipe: Section, arrays: Iterable[NDArray[Any]]) -> str:
    """Of all that decides a run: another one at the same place must not find its checkpoints."""
    digest = hashlib.sha256(as_toml(recipe).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)  # not a copy: hidden states are large
    return digest.hexdigest()[:12]


def as_toml(recipe: Section) -> str:
    """The recipe with all defaults and overrides written out."""
    return tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True))


def _first(error: ValidationError) -> str:
    details = error.errors(include_url=False)
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    told = [str(part) for part in details[0]["loc"] if part not in set(Network)]  # which student is meant is not a key
    key = ".".join(told) or "recipe"
    if details[0]["type"] == "extra_forbidden":
        return f"unknown key {key!r}{more}"
    return f"{key}: {details[0]['msg']}{more}"
