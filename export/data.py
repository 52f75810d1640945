"""How a recipe describes labelled data, and how they are read: their sources and columns, the task, the labels."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from export.networks.students import Form
from export.sections import Positive, Probability, Section, Seed
from export.texts import splits
from export.texts.datasets import Columns, Dataset, Example, Names, read_labelled
from service.bundle.manifest import EDGES, FEWEST_LABELS, Label, Task, are_tags

LONGEST_LIST = 400  # characters, for a line of a manifest
Sources = str | tuple[str, ...]
"""One source (see `export.texts.datasets`), or several that are read one after the other."""


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
        if self.task is Task.EMBEDDING:
            raise ValueError("task: vectors of texts are made by `python -m export pretrain`, not learnt from labels")
        fewest = FEWEST_LABELS[self.task]
        if len(self.labels) < fewest:
            raise ValueError(f"labels: {self.task} needs {fewest} at least")
        if self.per_label is not None and self.task is not Task.SINGLE_LABEL:
            raise ValueError(f"per_label: a row of a {self.task} task has not one label; set rows instead")
        if self.per_label is not None and self.rows is not None:
            raise ValueError("set per_label or rows, not both")
        if self.task is Task.ANSWERING and (self.pair is None or self.labels != EDGES):
            raise ValueError('question-answering: name the column of the text as pair, and labels = ["start", "end"]')
        if self.task is not Task.TAGGING and (self.relabel or self.repair):
            raise ValueError(f"relabel and repair are of tags; the task is {self.task}")
        if self.metric is not None:
            from export.tasks.metrics import METRICS  # here, since it takes a second and few recipes say so

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
        if self.task is Task.ANSWERING:
            return Form.PASSAGE
        return Form.TEXT if self.pair is None else Form.PAIR

    def read(self) -> Dataset:
        """Read both splits into memory. Raises DataError with file and line for whatever doesn't fit."""
        train = self._examples(self.train)
        if self.dev is None:
            train, dev = splits.hold_out(train, self.dev_share, self.seed)
        else:
            dev = self._examples(self.dev)
        train = splits.besides(train, dev)
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
