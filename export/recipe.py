"""Recipes: read from TOML, strict. A recipe and its overrides say everything that a run depends on.

`TeachRecipe` fine-tunes a teacher, `DistillRecipe` distils a student from one; `ExtractRecipe` makes a smaller encoder
of a larger one before there is a task.
"""

import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

import tomli_w
from pydantic import Field, ValidationError, model_validator

from export import captured
from export.data import Data
from export.datasets import Columns
from export.errors import RecipeError
from export.overrides import overrule
from export.sections import (
    Adaptation,
    Comparing,
    Distillation,
    Extraction,
    Objective,
    Section,
    Seed,
    SelectingLoop,
    StagePlan,
    Student,
    TeacherSource,
    Transfer,
)
from export.sentences import TextSource
from service.bundle.manifest import Name, Task

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
    teacher: TeacherSource
    data: Data
    transfer: Transfer = Transfer()
    student: Student
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
        if self.objective.soft == "logodds" and self.data.task in (Task.MULTI_LABEL, Task.REGRESSION):
            raise ValueError(f"objective.soft: logodds are of one label among several; set mse for {self.data.task}")
        return self

    @model_validator(mode="after")
    def _texts_are_of_one_form(self) -> Self:
        for number, texts in enumerate(self.transfer.texts):
            if (texts.pair is None) is not (self.data.pair is None):
                wanted = "leave it out" if self.data.pair is None else "name the column of the second text"
                raise ValueError(f"transfer.texts.{number}.pair: {wanted}, as data.pair does")
        return self

    @property
    def learns_states(self) -> bool:
        """Does a stage need the teacher's hidden states?"""
        return any(plan.representation for plan in self.stages)

    def with_texts(self, sources: Sequence[str]) -> Self:
        """The same with more unlabelled texts, or pairs if rows are pairs, as they are, whatever their lengths."""
        more = tuple(
            TextSource(source=source, max_words=10**6, column=columns.text, pair=columns.pair)
            for source, columns in ((source, self._columns_of(source)) for source in sources)
        )
        transfer = self.transfer.model_copy(update={"texts": (*self.transfer.texts, *more)})
        return self.model_copy(update={"transfer": transfer})

    def _columns_of(self, source: str) -> Columns:
        if self.data.pair is None:
            return Columns()
        return Columns(captured.TEXT, "", captured.PAIR) if captured.is_store(source) else self.data.columns


class ExtractRecipe(Section):
    """How to make a smaller encoder of a larger one, on plain text, for no task in particular."""

    name: str
    method: Literal["chen2021"]
    seed: Seed = 0
    teacher: TeacherSource
    texts: tuple[TextSource, ...] = Field(min_length=1)
    student: str = Field(description="LAYERSxHIDDENxHEADSxINTERMEDIATE, such as 3x192x6x768")
    extraction: Extraction = Extraction()
    comparing: Comparing = Comparing()
    training: Distillation
    judging: Annotated[int, Field(ge=1)] = Field(default=1000, description="texts that select, and are not learnt")

    @model_validator(mode="after")
    def _texts_are_single(self) -> Self:
        if any(texts.pair is not None for texts in self.texts):
            raise ValueError("texts: pairs teach a task; leave out pair")
        if self.teacher.hidden is not None:
            raise ValueError("teacher.hidden: comparing.by says what is learnt; leave it out")
        return self


def read_recipe(kind: type[R], path: Path, overrides: Iterable[str] = ()) -> R:
    """Read a recipe; `overrides` are `table.key=value` with a TOML value (or bare text).

    Raises RecipeError with one line that names the file, the key and what is wrong.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror or error}; give the path of a recipe (TOML)") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not TOML: {error}") from error
    for override in overrides:
        overrule(content, override)
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"{path}: {_first(error)}") from error


def as_toml(recipe: Section) -> str:
    """The recipe with all defaults and overrides written out."""
    return tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True))


def _first(error: ValidationError) -> str:
    details = error.errors(include_url=False)
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    key = ".".join(str(part) for part in details[0]["loc"]) or "recipe"
    if details[0]["type"] == "extra_forbidden":
        return f"unknown key {key!r}{more}"
    return f"{key}: {details[0]['msg']}{more}"
