"""The tables of recipes: frozen and strict. What recipes are made of them stands in `export.recipe`, and how labelled
data are described in `export.data`.

Numbers from papers stand in `export/recipes/*.toml` and nowhere else; the defaults here are only what one has to choose
anyway.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from export.networks.pooling import Pooled
from export.networks.students import Activation, Pooling
from export.texts.sentences import TextSource
from service.bundle.manifest import Label, Network

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what numpy takes
Decay = Literal["linear", "cosine", "constant_with_warmup"]  # transformers' names


class Section(BaseModel):
    """A table of a recipe: unknown keys are refused, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class HiddenStates(Section):
    """Which of the teacher's hidden states a student is to learn."""

    layer: Positive = Field(description="from 1, the lowest")
    pooling: Pooled = Pooled.FIRST


class TeacherSource(Section):
    """Which BERT: a hub id or a local folder; or a teacher's bundle, which keeps to its own limit of tokens."""

    model: str
    max_tokens: Positive = 128
    hidden: HiddenStates | None = Field(default=None, description="recorded only where a method learns from them")

    @property
    def anywhere(self) -> "TeacherSource":
        """The same, as one who works in another folder must call it."""
        folder = Path(self.model)
        return self.model_copy(update={"model": str(folder.resolve())}) if folder.exists() else self


class FineTunedSource(TeacherSource):
    """One that knows the task, and what it calls the labels."""

    rename: dict[Label, Label] = Field(default={}, description="what it calls a label -> what data.labels calls it")


class Loop(Section):
    """What every training loop needs."""

    epochs: Annotated[float, Field(gt=0)]
    batch_size: Positive
    learning_rate: Rate
    warmup: Probability = Field(default=0.06, description="share of the steps in which the rate rises")
    decay: Decay = Field(default="linear", description="of the rate, after the warm-up")
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    bf16: bool = Field(default=True, description="bfloat16 where the device is quick at it; the weights stay fp32")


class Adaptation(Loop):
    """Continued masked-language-model training on in-domain text, before fine-tuning."""

    texts: tuple[TextSource, ...] = Field(min_length=1)
    mask: Probability = 0.15


class SelectingLoop(Loop):
    """A loop that is judged on dev now and then; the best of all evaluations is kept."""

    evaluations_per_epoch: Positive = 4
    average: Probability = Field(default=0.998, description="decay of the weights' moving average; 0 keeps the latest")


class Augmentation(Section):
    """Tang et al. 2019, section 3.3. `copies` is their n_iter; 0 turns augmentation off."""

    copies: Annotated[int, Field(ge=0)] = 0
    p_mask: Probability = 0.1
    p_pos: Probability = 0.1
    p_ngram: Probability = 0.25
    ngram_from: Positive = 1
    ngram_to: Positive = 5
    tagger: str = Field(default="penn", description="or package.module:function, words -> their tags")

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
    """A BiLSTM's shape and what it inherits."""

    architecture: Literal["bilstm", "encoder"] = Field(
        default="bilstm",
        description="of pairs, bilstm compares the LSTM's states, encoder the dense layer's vectors; or transformer",
    )
    embedding: Positive = Field(description="E: width of the embeddings")
    hidden: Positive = Field(description="H: LSTM units per direction")
    dense: Positive = Field(description="D: width of the dense layer; the teacher's to learn its hidden states")
    dropout: Probability = 0.1
    pooling: Pooling = Pooling.LAST
    activation: Activation = Activation.RELU
    channels: Literal[1, 2] = Field(default=1, description="2: a second table of embeddings, which never learns")
    embeddings: str = Field(default="svd", description="'svd' of the teacher's, 'random', or a word-vector file")
    vocabulary: Literal["pieces", "words"] = Field(default="pieces", description="the teacher's, or whole words")
    begins: str | None = Field(
        default=None, description="a folder of `pretrain`, whose words and weights it begins with: architecture encoder"
    )
    min_count: Positive = Field(default=2, description="of words: rarer ones are unknown")
    prune: bool = Field(default=True, description="keep only the word pieces that occur in the transfer set")
    max_tokens: Positive = 128

    @property
    def network(self) -> Network:
        """What reads the tokens."""
        return Network.RECURRENT

    @property
    def begins_with_files(self) -> bool:
        """Does what it begins with lie where another may be put in its place?"""
        return self.begins is not None or self.embeddings not in ("svd", "random")


class TransformerStudent(Section):
    """A small transformer. Its shape and its words are those of the encoder that it begins with."""

    architecture: Literal["transformer"]
    begins: str = Field(description="a folder of `pretrain`, or any encoder: a hub id or a local folder")
    max_tokens: Positive = 128

    @property
    def network(self) -> Network:
        """What reads the tokens."""
        return Network.TRANSFORMER

    @property
    def begins_with_files(self) -> bool:
        """As of a BiLSTM: always."""
        return True


def _network(student: object) -> str:
    told = student.get("architecture") if isinstance(student, dict) else getattr(student, "architecture", None)
    return Network.TRANSFORMER if told == "transformer" else Network.RECURRENT


AnyStudent = Annotated[
    Annotated[Student, Tag(Network.RECURRENT)] | Annotated[TransformerStudent, Tag(Network.TRANSFORMER)],
    Discriminator(_network),
]
"""As its architecture says; a BiLSTM where it says nothing."""


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


class Extraction(Section):
    """chen2021: what a transformer student begins with."""

    by: Literal["importance", "chance", "nothing"] = Field(
        default="importance", description="ETD-Impt, ETD-Rand, or random weights, against which they are measured"
    )
    loss: Literal["states", "masked"] = Field(
        default="states", description="whose first-order change is importance: see export/networks/importance.py"
    )
    texts: Positive = Field(default=512, description="of the plain texts, from which importance is told")
    batch_size: Positive = 8


class Comparing(Section):
    """chen2021: how a transformer student is held against its teacher."""

    by: Literal["minilm", "tinybert"] = "minilm"
    heads: Positive | None = Field(
        default=None, description="relation heads, a divisor of both widths; unset: as many as the teacher has"
    )


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
