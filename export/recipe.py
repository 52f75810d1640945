"""Recipes: frozen, read from TOML, strict. A recipe and its overrides say everything that a run depends on.

`TeachRecipe` fine-tunes a teacher, `DistillRecipe` distils a student from one. Numbers from papers stand in
`export/recipes/*.toml` and nowhere else; the defaults here are only what one has to choose anyway.
"""

import tomllib
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from export import captured, splits
from export.datasets import Columns, Dataset, Example, Names, read_labelled
from export.errors import RecipeError
from export.overrides import overrule
from export.sentences import TextSource
from export.students import Activation, Form, Pooling
from service.bundle.manifest import FEWEST_LABELS, Label, Name, Task, are_tags

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Version = Annotated[int, Field(ge=1, lt=10**18)]
Rate = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what numpy takes
Decay = Literal["linear", "cosine", "constant_with_warmup"]  # transformers' names
R = TypeVar("R", bound="Section")


class Section(BaseModel):
    """A table of a recipe: unknown keys are refused, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


LONGEST_LIST = 400  # characters, for a line of a manifest
Sources = str | tuple[str, ...]
"""One source (see `export.datasets`), or several that are read one after the other."""


class Data(Section):
    """The labelled data: their sources and columns, what is asked of them, the labels in the order of the logits."""

    train: Sources
    dev: Sources | None = Field(default=None, description="selects; unset: a share of train does")
    dev_share: Probability = Field(default=0.1, gt=0, lt=1, description="of train, where dev is unset")
    task: Task = Task.SINGLE_LABEL
    labels: tuple[Label, ...] = Field(min_length=1)
    text: str = "text"
    pair: str | None = Field(default=None, description="the column of the second text, where rows are pairs")
    label: str = "label"
    per_label: Positive | None = Field(default=None, description="learn from so many rows of each label")
    rows: Positive | None = Field(default=None, description="learn from so many rows; the rest lend their texts")
    seed: Seed = Field(default=0, description="of what is held out and left unlabelled; the teacher's and the same")
    relabel: dict[Label, Label] = Field(default={}, description="tagging: an entity's name in the data -> ours, or O")
    repair: bool = Field(default=False, description="tagging: an I- that goes on with nothing is read as a B-")

    metric: str | None = Field(default=None, description="selects on dev, by its name in reports; unset: the first")

    @field_validator("labels")
    @classmethod
    def _labels_differ(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(labels)) < len(labels):
            raise ValueError("labels must differ from each other")
        return labels

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        fewest = FEWEST_LABELS[self.task]
        if len(self.labels) < fewest:
            raise ValueError(f"labels: {self.task} needs {fewest} at least")
        if self.per_label is not None and self.task is not Task.SINGLE_LABEL:
            raise ValueError(f"per_label: a row of a {self.task} task has not one label; set rows instead")
        if self.per_label is not None and self.rows is not None:
            raise ValueError("set per_label or rows, not both")
        if self.task is not Task.TAGGING and (self.relabel or self.repair):
            raise ValueError(f"relabel and repair are of tags; the task is {self.task}")
        if self.metric is not None:
            from export.metrics import METRICS  # here, since it takes a second and few recipes say so

            if self.metric not in METRICS[self.task]:
                raise ValueError(f"metric: of {self.task} tasks there are {', '.join(METRICS[self.task])}")
        if self.task is Task.TAGGING and self.pair is not None:
            raise ValueError("pair: the words of one text are tagged, not of two")
        if self.task is Task.TAGGING and not are_tags(self.labels):
            raise ValueError("labels: of tagging they are O and names, or O, B-names and I-names")
        return self

    @property
    def columns(self) -> Columns:
        return Columns(self.text, self.label, self.pair, self.relabel, self.repair)

    @property
    def names(self) -> Names:
        return Names(self.labels, self.task)

    @property
    def form(self) -> Form:
        """What a row is."""
        if self.task is Task.TAGGING:
            return Form.PIECES
        return Form.TEXT if self.pair is None else Form.PAIR

    def read(self) -> Dataset:
        """Read both splits into memory. Raises DataError with file and line for whatever doesn't fit."""
        train = self._examples(self.train)
        if self.dev is None:
            train, dev = splits.hold_out(train, self.dev_share, self.seed)
        else:
            dev = self._examples(self.dev)
        rest: splits.Examples = ()
        if self.per_label is not None:
            train, rest = splits.few_of_each_label(train, self.per_label, self.seed)
        elif self.rows is not None:
            train, rest = splits.few(train, self.rows, self.seed)
        return Dataset(self.labels, train, dev, tuple(dict.fromkeys(example.text for example in rest)))

    @property
    def selects(self) -> str:
        """What the dev split is, in a word for people."""
        if self.dev is None:
            return f"{self.dev_share:.0%} of {listed(self.train)}"
        return listed(self.dev)

    def _examples(self, sources: Sources) -> tuple[Example, ...]:
        return read_all(sources, self.names, self.columns)


def read_all(sources: Sources, names: Names, columns: Columns) -> tuple[Example, ...]:
    """The examples of one source or several. Raises DataError."""
    each = (sources,) if isinstance(sources, str) else sources
    return tuple(example for source in each for example in read_labelled(source, names, columns))


def listed(sources: Sources) -> str:
    """Their names, for people: of very many only the first and the last."""
    if isinstance(sources, str):
        return sources
    whole = ", ".join(sources)
    return whole if len(whole) <= LONGEST_LIST else f"{sources[0]} … {sources[-1]} ({len(sources)} sources)"


class Pooled(StrEnum):
    """How a teacher's states of a text become one."""

    FIRST = "first"  # [CLS], from which BERT's classifiers read
    MEAN = "mean"


class HiddenStates(Section):
    """Which of the teacher's hidden states a student is to learn."""

    layer: Positive = Field(description="from 1, the lowest")
    pooling: Pooled = Pooled.FIRST


class TeacherSource(Section):
    """Which BERT: a hub id or a local folder; or a teacher's bundle, which keeps to its own limit of tokens."""

    model: str
    max_tokens: Positive = 128
    hidden: HiddenStates | None = Field(default=None, description="recorded only where a method learns from them")


class Loop(Section):
    """What every training loop needs."""

    epochs: Annotated[float, Field(gt=0)]
    batch_size: Positive
    learning_rate: Rate
    warmup: Probability = Field(default=0.06, description="share of the steps in which the rate rises")
    decay: Decay = Field(default="linear", description="of the rate, after the warm-up")
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
    tagger: str = Field(default="export.augment:penn_tags", description="package.module:function, words -> their tags")

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

    architecture: Literal["bilstm"] = Field(default="bilstm", description="the data choose its form")
    embedding: Positive = Field(description="E: width of the embeddings")
    hidden: Positive = Field(description="H: LSTM units per direction")
    dense: Positive = Field(description="D: width of the dense layer; the teacher's to learn its hidden states")
    dropout: Probability = 0.1
    pooling: Pooling = Pooling.LAST
    activation: Activation = Activation.RELU
    channels: Literal[1, 2] = Field(default=1, description="2: a second table of embeddings, which never learns")
    embeddings: str = Field(default="svd", description="'svd' of the teacher's, 'random', or a word-vector file")
    vocabulary: Literal["pieces", "words"] = Field(default="pieces", description="the teacher's, or whole words")
    min_count: Positive = Field(default=2, description="of words: rarer ones are unknown")
    prune: bool = Field(default=True, description="keep only the word pieces that occur in the transfer set")
    max_tokens: Positive = 128


class Objective(Section):
    """How the student is compared with labels and teacher. tang2019: L = alpha * hard + (1 - alpha) * soft (eq. 5)."""

    alpha: Probability = Field(default=0.0, description="tang2019: weight of the labels; 1 trains on them alone")
    soft: Literal["mse", "kl", "logodds"] = Field(
        default="mse", description="MSE of logits, KL of tempered distributions, or MSE from the teacher's log-odds"
    )
    temperature: Rate = Field(default=1.0, description="of kl")
    states: Literal["mse", "kl", "cosine"] = Field(
        default="mse", description="mukherjee2020: how the representation is held against the teacher's hidden states"
    )
    argmax: bool = Field(default=False, description="unlabelled rows take the teacher's label as hard label")


class Distillation(SelectingLoop):
    """The student's loop."""

    patience: Positive = Field(default=8, description="stop after this many evaluations without a better one")
    optimizer: Literal["adamw", "adadelta"] = "adamw"
    rho: Probability = Field(default=0.95, description="adadelta: decay of its averages")


class StagePlan(Section):
    """A stage of mukherjee2020: what is learnt, each by its weight, and how its loop differs from `training`."""

    representation: Weight = Field(default=0.0, description="beta: the teacher's hidden states, of all texts")
    logits: Weight = Field(default=0.0, description="gamma: the teacher's logits, of all texts")
    labels: Weight = Field(default=0.0, description="alpha: the labels, of the texts that have one")
    unfreeze: bool = Field(default=False, description="one layer more learns at each step, from the head down")
    epochs: Rate | None = Field(default=None, description="of each step")
    batch_size: Positive | None = None
    learning_rate: Rate | None = None
    evaluations_per_epoch: Positive | None = None
    patience: Positive | None = None

    @model_validator(mode="after")
    def _something_is_learnt(self) -> Self:
        if not self.name:
            raise ValueError("give representation, logits or labels a weight above 0")
        return self

    @property
    def name(self) -> str:
        """What is learnt, such as `logits+labels`."""
        weights = {"representation": self.representation, "logits": self.logits, "labels": self.labels}
        return "+".join(what for what, weight in weights.items() if weight)

    @property
    def answers(self) -> bool:
        """Does the student's head learn?"""
        return self.logits > 0 or self.labels > 0

    def loop(self, training: Distillation) -> Distillation:
        """`training` with what this stage has of its own."""
        own = self.model_dump(include=set(Distillation.model_fields), exclude_none=True)
        return training.model_copy(update=own)


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
