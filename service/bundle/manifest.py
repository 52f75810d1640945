"""The manifest: everything that a server must know of a bundle, declared and checked.

It knows the rules of the format. It knows nothing of folders, digests on disk, tokenisers or ONNX Runtime.
"""

from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

FORMAT = 1
"""The one format that this code reads and writes."""

TOKENIZER_FILE = "tokenizer.json"
UNTRAINED = "random weights, for timing only"
"""The method of a lineage whose model never learned anything: how long it takes means something, its answers don't."""

RECURRENT_INPUTS = ("input_ids", "lengths")
SIAMESE_INPUTS = ("input_ids", "lengths", "pair_ids", "pair_lengths")
TRANSFORMER_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT = "logits"

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"
VERSION_PATTERN = r"^[0-9]{1,18}$"

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Version = Annotated[str, StringConstraints(pattern=VERSION_PATTERN)]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Label = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Line = Annotated[str, StringConstraints(min_length=1, max_length=500)]
Text = Annotated[str, StringConstraints(max_length=10_000)]
Share = Annotated[float, Field(ge=0, le=1)]
Distance = Annotated[float, Field(ge=0, le=1_000)]
Number = Annotated[float, Field(ge=-1e12, le=1e12)]


class Role(StrEnum):
    """What the bundle is for."""

    STUDENT = "student"
    TEACHER = "teacher"


class Network(StrEnum):
    """What reads the tokens; it decides what a graph takes."""

    RECURRENT = "recurrent"  # is told how long each row is, and reads the texts of a pair each by itself
    TRANSFORMER = "transformer"  # is told by a mask, and reads a pair in one sequence, told apart by token types


class Task(StrEnum):
    """What the logits mean; `tasks.TASKS` has the arithmetic."""

    SINGLE_LABEL = "single-label"  # one label of several is right
    MULTI_LABEL = "multi-label"  # each label holds or not, whatever the others do
    REGRESSION = "regression"  # numbers; a label is the name of one
    TAGGING = "tagging"  # each piece of the text has one tag of several; entities are made of them
    EMBEDDING = "embedding"  # a vector stands for the text; a label is the name of one of its dimensions
    ANSWERING = "question-answering"  # a pair is a question and a text: with which piece the answer starts, and ends


class Precision(StrEnum):
    """Which of a bundle's graphs: the one that is right whatever its neighbours, or the quicker one."""

    EXACT = "exact"
    FAST = "fast"


INPUTS = MappingProxyType(
    {
        (Network.RECURRENT, 1): RECURRENT_INPUTS,
        (Network.RECURRENT, 2): SIAMESE_INPUTS,
        (Network.TRANSFORMER, 1): TRANSFORMER_INPUTS,
        (Network.TRANSFORMER, 2): TRANSFORMER_INPUTS,
    }
)
"""Network and texts in a row -> what the graph takes."""

NETWORKS = MappingProxyType({Role.STUDENT: tuple(Network), Role.TEACHER: (Network.TRANSFORMER,)})
"""Role -> what its bundles may be."""

FEWEST_LABELS = MappingProxyType(
    {
        Task.SINGLE_LABEL: 2,
        Task.MULTI_LABEL: 1,
        Task.REGRESSION: 1,
        Task.TAGGING: 2,
        Task.EMBEDDING: 1,
        Task.ANSWERING: 2,
    }
)

EDGES = ("start", "end")
"""The labels of question answering."""

OF_PIECES = (Task.TAGGING, Task.ANSWERING)
"""Tasks whose graphs give logits for each piece: (B, T, L)."""

OUTSIDE = "O"
"""The tag of a piece that belongs to no entity."""

BEGIN, INSIDE = "B-", "I-"
"""Before the label of an entity: its first word, and each other one (IOB2)."""


_OF_SINGLE_TEXTS = (Task.TAGGING, Task.EMBEDDING)

_TEXTS = MappingProxyType({1: "single texts", 2: "pairs"})


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Graph(_Declared):
    """One ONNX file, and what its exporter measured of it on the dev split."""

    file: FileName
    parity: Distance = Field(description="largest |logit - torch logit|; 0 where it came as a graph")
    wander: Distance = Field(description="largest change of a row's logits between alone and batched")
    flips: Share = Field(description="share of rows whose label changed with their neighbours")
    tolerance: Annotated[float, Field(ge=0, le=10)] = Field(
        description="what opening allows: |alone - stored| and |batched - alone|"
    )


class Measured(_Declared):
    """One number that was measured, with all that is needed to measure it again."""

    what: Line
    dataset: Line
    split: Line
    rows: int = Field(ge=1, le=10**12)
    metric: Line
    value: Number


class Lineage(_Declared):
    """Where the bundle comes from."""

    teacher: Line | None
    method: Line
    recipe: str = Field(max_length=100_000, description="the recipe, as TOML")
    versions: dict[Line, Line]


class Proof(_Declared):
    """A few texts with the exporter's logits: run alone and together each time the bundle is opened."""

    texts: tuple[Text | tuple[Text, Text], ...] = Field(min_length=2, max_length=256)
    logits: dict[Precision, tuple[tuple[Number, ...], ...]] = Field(
        description="of each text, in the order of the labels; where pieces have them, one piece behind the other"
    )


class Calibration(_Declared):
    """How sure a student must be for its answer to be its teacher's: measured on texts that need no labels."""

    teacher: Line = Field(description="name@version of the teacher's bundle")
    dataset: Line
    rows: int = Field(ge=1, le=10**12)
    temperature: float = Field(gt=0, le=100, description="by which logits are divided before the softmax")
    threshold: Share = Field(description="smallest margin whose accepted rows meet the target")
    target: Share = Field(description="agreement that was wanted of accepted rows")
    confidence: Share = Field(description="of the bound, one-sided")
    bound: Share = Field(description="Clopper-Pearson lower bound of the agreement on accepted rows")
    agreement: Share = Field(description="observed on accepted rows")
    escalation: Share = Field(description="share of rows below the threshold, which the teacher is asked for")


class Histogram(_Declared):
    """Counts of values: bin i holds edges[i-1] <= value < edges[i]; the first and the last bin are open."""

    edges: tuple[Number, ...] = Field(min_length=1, max_length=256)
    counts: tuple[Annotated[int, Field(ge=0, le=10**12)], ...]

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if list(self.edges) != sorted(set(self.edges)):
            raise ValueError("edges must ascend")
        if len(self.counts) != len(self.edges) + 1:
            raise ValueError("counts must be one more than edges")
        return self


class Profile(_Declared):
    """What texts looked like to the student when it was made: later traffic is held against it."""

    dataset: Line
    rows: int = Field(ge=1, le=10**12)
    tokens: Histogram = Field(description="tokens of a row")
    unknown: Histogram = Field(description="share of a row's tokens that are the unknown piece")
    margin: Histogram | None = Field(
        description="of the student, at the calibration's temperature; null where no single label is chosen"
    )
    agreement: Share | None = Field(description="with the teacher on these rows")


class Manifest(_Declared):
    """`manifest.json`."""

    format: int
    name: Name
    version: Version
    role: Role
    task: Task
    labels: tuple[Label, ...] = Field(min_length=1, max_length=10_000)
    texts: int = Field(1, ge=1, le=2, description="texts in a row: 2 where the model reads pairs")
    inputs: tuple[str, ...]
    max_tokens: int = Field(ge=1, le=8192)
    pad_id: int = Field(ge=0, lt=2**31)
    graphs: dict[Precision, Graph]
    files: dict[FileName, Digest]
    lineage: Lineage
    results: tuple[Measured, ...]
    calibration: dict[Precision, Calibration] = {}
    profile: dict[Precision, Profile] = {}
    proof: Proof

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        for broken in (*self._of_the_model(), *self._of_the_files(), *self._of_the_proof()):
            raise ValueError(broken)
        return self

    def _of_the_model(self) -> list[str]:
        taken = [INPUTS[network, self.texts] for network in NETWORKS[self.role]]
        wanted, fewest = ", or ".join(map(", ".join, taken)), FEWEST_LABELS[self.task]
        rules = {
            f"format must be {FORMAT}": self.format == FORMAT,
            "labels must differ from each other": len(set(self.labels)) == len(self.labels),
            f"labels of a {self.task} task must be {fewest} or more": len(self.labels) >= fewest,
            "calibration and profile must be of its graphs": self.calibration.keys() | self.profile.keys()
            <= self.graphs.keys(),
            "only a student's single label can be calibrated": not self.calibration
            or (self.role is Role.STUDENT and self.task is Task.SINGLE_LABEL),
            f"inputs of a {self.role} for {_TEXTS[self.texts]} must be {wanted}": self.inputs in taken,
            "graphs must have an exact one": Precision.EXACT in self.graphs,
            f"{self.task} must be of single texts": self.task not in _OF_SINGLE_TEXTS or self.texts == 1,
            f"{Task.ANSWERING} must be of pairs in one sequence": self.task is not Task.ANSWERING
            or (self.texts == 2 and self.inputs == TRANSFORMER_INPUTS),
            f"labels of {Task.ANSWERING} must be {', '.join(EDGES)}": self.task is not Task.ANSWERING
            or self.labels == EDGES,
            f"labels of a tagging task must be {OUTSIDE} and names, or {OUTSIDE}, {BEGIN}names and {INSIDE}names": (
                self.task is not Task.TAGGING or are_tags(self.labels)
            ),
        }
        return [rule for rule, kept in rules.items() if not kept]

    def _of_the_files(self) -> list[str]:
        graphs = [graph.file for graph in self.graphs.values()]
        rules = {
            "each graph must have a file of its own": len(set(graphs)) == len(graphs),
            f"files must list {TOKENIZER_FILE} and the graphs, and nothing else": set(self.files)
            == {TOKENIZER_FILE, *graphs},
        }
        return [rule for rule, kept in rules.items() if not kept]

    def _of_the_proof(self) -> list[str]:
        texts, kind = len(self.proof.texts), str if self.texts == 1 else tuple
        told = "label and piece" if self.task in OF_PIECES else "label"
        rules = {
            f"the proof must be of {_TEXTS[self.texts]}": all(isinstance(text, kind) for text in self.proof.texts),
            "the proof must have logits for each graph": self.proof.logits.keys() == self.graphs.keys(),
            f"each text of the proof must have one logit per {told}": all(
                len(rows) == texts and all(map(self._is_whole, rows)) for rows in self.proof.logits.values()
            ),
        }
        return [rule for rule, kept in rules.items() if not kept]

    def _is_whole(self, logits: tuple[float, ...]) -> bool:
        """Only the tokenizer can tell how many pieces a text has."""
        labels = len(self.labels)
        return len(logits) % labels == 0 if self.task in OF_PIECES else len(logits) == labels


def are_tags(labels: tuple[str, ...]) -> bool:
    """Is there an O, and are all others of one scheme? With E- and S- beside B- entities would be cut wrongly."""
    names = [label for label in labels if label != OUTSIDE]
    marked = [label.startswith((BEGIN, INSIDE)) for label in names]
    return len(names) < len(labels) and (not any(marked) or (all(marked) and not {BEGIN, INSIDE} & {*names}))


class SealedManifest(Manifest):
    """A manifest that was published. It names the files' digests, so its seal stands for the whole bundle."""

    seal: Digest = Field(description="sha256 of all the rest; see `seal.sealed`")
