"""Recipes: frozen, read from TOML, strict. A recipe and its overrides say everything that a run depends on.

`TeachRecipe` fine-tunes a teacher, `DistillRecipe` distils a student from one. Numbers from papers stand in
`export/recipes/*.toml` and nowhere else; the defaults here are only what one has to choose anyway.
"""

import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from export.datasets import Columns, Dataset, read_dataset
from export.errors import RecipeError
from export.sentences import TextSource
from service.bundle.manifest import Label, Name

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Version = Annotated[int, Field(ge=1, lt=10**18)]
Rate = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what numpy takes
R = TypeVar("R", bound="Section")


class Section(BaseModel):
    """A table of a recipe: unknown keys are refused, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Data(Section):
    """The labelled data: two sources (see `export.datasets`), their columns, the labels in the order of the logits."""

    train: str
    dev: str
    labels: tuple[Label, ...] = Field(min_length=2)
    text: str = "text"
    label: str = "label"

    @field_validator("labels")
    @classmethod
    def _labels_differ(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(labels)) < len(labels):
            raise ValueError("labels must differ from each other")
        return labels

    @property
    def columns(self) -> Columns:
        return Columns(self.text, self.label)

    def read(self) -> Dataset:
        """Read both splits into memory."""
        return read_dataset(self.train, self.dev, self.labels, self.columns)


class TeacherSource(Section):
    """Which BERT: a hub id or a local folder; or a teacher's bundle, which keeps to its own limit of tokens."""

    model: str
    max_tokens: Positive = 128


class Loop(Section):
    """What every training loop needs."""

    epochs: Annotated[float, Field(gt=0)]
    batch_size: Positive
    learning_rate: Rate
    warmup: Probability = Field(default=0.06, description="share of the steps in which the rate rises")
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    bf16: bool = Field(default=True, description="bfloat16 autocast; the weights stay fp32")


class Adaptation(Loop):
    """Continued masked-language-model training on in-domain text, before fine-tuning."""

    texts: tuple[TextSource, ...] = Field(min_length=1)
    mask: Probability = 0.15


class SelectingLoop(Loop):
    """A loop that is judged on dev now and then; the best of all evaluations is kept."""

    evaluations_per_epoch: Positive = 4
    average: Probability = Field(default=0.998, description="decay of the weights' moving average; 0 keeps the latest")


class TeachRecipe(Section):
    """How to make a teacher."""

    name: str
    seed: Seed = 0
    teacher: TeacherSource
    data: Data
    adaptation: Adaptation | None = None
    training: SelectingLoop


class Augmentation(Section):
    """Tang et al. 2019, section 3.3. `copies` is their n_iter; 0 turns augmentation off."""

    copies: Annotated[int, Field(ge=0)] = 0
    p_mask: Probability = 0.1
    p_pos: Probability = 0.1
    p_ngram: Probability = 0.25
    ngram_from: Positive = 1
    ngram_to: Positive = 5

    @model_validator(mode="after")
    def _rules_fit(self) -> Self:
        if self.p_mask + self.p_pos > 1:
            raise ValueError("p_mask + p_pos must not exceed 1: one draw per word decides between them")
        if self.ngram_from > self.ngram_to:
            raise ValueError("ngram_from must not exceed ngram_to")
        return self


class Transfer(Section):
    """The transfer set: the training texts, their augmented copies, and unlabelled in-domain texts."""

    augment: Augmentation = Augmentation()
    texts: tuple[TextSource, ...] = ()


class Student(Section):
    """The student's shape and what it inherits."""

    architecture: Literal["bilstm"] = "bilstm"
    embedding: Positive = Field(description="E: width of the embeddings")
    hidden: Positive = Field(description="H: LSTM units per direction")
    dense: Positive = Field(description="D: width of the ReLU layer")
    dropout: Probability = 0.1
    embeddings: str = Field(default="svd", description="'svd' of the teacher's, 'random', or a word-vector file")
    prune: bool = Field(default=True, description="keep only the word pieces that occur in the transfer set")
    max_tokens: Positive = 128


class Objective(Section):
    """L = alpha * hard + (1 - alpha) * soft (Tang et al. 2019, eq. 5)."""

    alpha: Probability = Field(default=0.0, description="weight of the labels; 1 trains on the labels alone")
    soft: Literal["mse", "kl"] = Field(default="mse", description="logit MSE, or KL of tempered distributions")
    temperature: Rate = 1.0
    argmax: bool = Field(default=False, description="unlabelled rows take the teacher's label as hard label")


class Distillation(SelectingLoop):
    """The student's loop."""

    patience: Positive = Field(default=8, description="stop after this many evaluations without a better one")


class DistillRecipe(Section):
    """How to make a student."""

    name: Name
    version: Version = 1
    method: Literal["tang2019"] = "tang2019"
    seed: Seed = 0
    teacher: TeacherSource
    data: Data
    transfer: Transfer = Transfer()
    student: Student
    objective: Objective = Objective()
    training: Distillation

    def with_texts(self, sources: Sequence[str]) -> Self:
        """The same with more unlabelled texts, taken as they are, whatever their lengths."""
        more = tuple(TextSource(source=source, max_words=10**6) for source in sources)
        transfer = self.transfer.model_copy(update={"texts": (*self.transfer.texts, *more)})
        return self.model_copy(update={"transfer": transfer})


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
        _override(content, override)
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"{path}: {_first(error)}") from error


def as_toml(recipe: Section) -> str:
    """The recipe with all defaults and overrides written out."""
    return tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True))


def _override(content: dict[str, Any], override: str) -> None:
    """Set `table.key` (or `array.0.key`) of the parsed TOML."""
    key, equals, value = override.partition("=")
    *tables, last = key.strip().split(".")
    if not equals or not last:
        raise RecipeError(f"--set {override}: write table.key=value")
    place: Any = content
    for table in tables:
        place = _entered(place, table, override)
    if isinstance(place, list):
        raise RecipeError(f"--set {override}: {tables[-1]} is an array; name one of its tables by number")
    place[last] = _toml_value(value)


def _entered(place: Any, table: str, override: str) -> Any:
    if isinstance(place, list) and table.isdecimal() and int(table) < len(place):
        inner = place[int(table)]
    elif isinstance(place, dict):
        inner = place.setdefault(table, {})
    else:
        inner = None
    if not isinstance(inner, dict | list):
        raise RecipeError(f"--set {override}: there is no table {table!r}")
    return inner


def _toml_value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def _first(error: ValidationError) -> str:
    details = error.errors(include_url=False)
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    key = ".".join(str(part) for part in details[0]["loc"]) or "recipe"
    if details[0]["type"] == "extra_forbidden":
        return f"unknown key {key!r}{more}"
    return f"{key}: {details[0]['msg']}{more}"
