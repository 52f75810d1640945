"""From a trained network to a bundle on disk: graphs, measurements, proof, card; written and proved by the service's
own reader (`service.bundle`), all or nothing."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from export.errors import ModelError, RecipeError
from export.measuring.evaluation import Report, Wander, agreement, asked, likeness, report, run_by_length, wander
from export.measuring.profiles import Seen
from export.progress import console
from export.publishing.card import model_card
from export.tasks.metrics import Logits, Targets, pearson
from export.tasks.targets import Marks
from export.texts.answers import Answers
from service.bundle import passages
from service.bundle.encoder import Encoder, Row, Text
from service.bundle.errors import BundleExists
from service.bundle.manifest import (
    FORMAT,
    INPUTS,
    NAME_PATTERN,
    OF_PIECES,
    TOKENIZER_FILE,
    Graph,
    Lineage,
    Manifest,
    Measured,
    Network,
    Precision,
    Profile,
    Proof,
    Role,
    Task,
)
from service.bundle.runtime import of_texts, open_graph
from service.bundle.store import digests, write_bundle
from service.bundle.tasks import unit

LEAST_ALIKE = 0.9
"""Share of dev rows that the exact graph decides as torch does, or nothing is published, and the fast one as the exact
one does, or it isn't; of answers to questions, the share of their characters that both have."""

LEAST_NEAR = 0.99
"""The same of what decides nothing: the correlation of each number, the mean cosine of vectors."""

FILES = {Precision.EXACT: "model.onnx", Precision.FAST: "model_quantized.onnx"}

PROOF_TEXTS = (
    "",
    "good",
    "This is neither the best nor the worst of its kind.",
    "Naïve café-goers paid 12.50 € for it; I wouldn't.",
    "映画は素晴らしい 😀",
    "It began slowly, then it went on slowly, and when it had at last been slow for long enough it ended, slowly.",
)
"""Our own sentences, of very different lengths: an empty one, accents, another script, punctuation."""


@dataclass(frozen=True)
class Reads:
    """What decides how texts become a model's rows."""

    network: Network
    task: Task = Task.SINGLE_LABEL
    texts: int = 1  # in a row


@dataclass(frozen=True)
class Called:
    """What an adopted model is to be."""

    name: str
    version: int = 1
    role: Role = Role.TEACHER  # a transformer that was extracted from a larger one is a student
    rename: Mapping[str, str] = field(default_factory=dict)  # what it calls a label -> what the bundle calls it


@dataclass(frozen=True)
class Trained:
    """All that a bundle is made of, before anything is measured."""

    name: str
    version: int
    role: Role
    network: Network
    task: Task
    labels: tuple[str, ...]
    texts: int  # in a row
    tokenizer_json: str
    max_tokens: int
    pad_id: int
    graphs: Mapping[Precision, bytes]
    lineage: Lineage


@dataclass(frozen=True)
class Reference:
    """What the graphs are measured against on dev: the labels, torch's logits of this network, the teacher's."""

    dataset: str
    texts: Sequence[Text]
    targets: Targets | None  # (N,), (N, L), or of words (W, 2); none where there are none
    torch_logits: Logits | None  # (N, L), a tagger's of all tokens (R, L); none where the graph itself is the original
    teacher_logits: Logits | None  # (N, L), or of words (W, L); none for a teacher itself
    teacher_made_of: str = "torch"  # or as it is served
    marks: Marks | None = None  # of texts with tags, or with answers


def publish(trained: Trained, reference: Reference, models: Path, command: str) -> Path:
    """Measure, prove and write `models/<name>/<version>/`, without a fast graph that answers otherwise than the exact
    one. Raises ModelError where the exact one answers otherwise than torch, BundleExists, ProofFailed."""
    measured: Measurements = {
        precision: _measure(trained, graph, reference) for precision, graph in trained.graphs.items()
    }
    _check_exact(trained, measured[Precision.EXACT], reference)
    trained, measured = _faithful(trained, measured, reference.marks)
    files = {TOKENIZER_FILE: trained.tokenizer_json.encode()}
    files |= {FILES[precision]: graph for precision, graph in trained.graphs.items()}
    manifest = Manifest(
        format=FORMAT,
        name=trained.name,
        version=str(trained.version),
        role=trained.role,
        task=trained.task,
        labels=trained.labels,
        inputs=INPUTS[trained.network, trained.texts],
        texts=trained.texts,
        max_tokens=trained.max_tokens,
        pad_id=trained.pad_id,
        graphs={precision: _declared(precision, of, reference) for precision, of in measured.items()},
        files=digests(files),
        lineage=trained.lineage,
        profile=_profiles(trained, measured, reference),
        results=_results(trained, measured, reference),
        proof=_proof(trained),
    )
    folder = models / manifest.name / manifest.version
    write_bundle(folder, manifest, files, model_card(manifest, files, command))
    return folder


def free_place(models: Path, name: str, version: int) -> Path:
    """Where the bundle will lie; asked before anything dear is done. Raises RecipeError for a name that the format
    refuses, BundleExists for a version that is taken."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise RecipeError(f"name: {name!r} can't name a bundle; use small letters, digits, '.', '_' and '-'")
    folder = models / name / str(version)
    if folder.exists() or folder.is_symlink():
        raise BundleExists(f"{folder}: already there, and versions are immutable; choose the next version")
    return folder


def encoder_of(tokenizer_json: str, reads: Reads, max_tokens: int, pad_id: int) -> Encoder:
    """The encoder that a server will make of this tokenizer."""
    return Encoder(
        Tokenizer.from_str(tokenizer_json),
        inputs=INPUTS[reads.network, reads.texts],
        max_tokens=max_tokens,
        pad_id=pad_id,
        texts=reads.texts,
        spanned=reads.task in OF_PIECES,
    )


def versions() -> dict[str, str]:
    """The libraries that decide the numbers."""
    return {name: version(name) for name in ("torch", "transformers", "tokenizers", "onnx", "onnxruntime")}


@dataclass(frozen=True)
class _Measurement:
    rows: Sequence[Row]  # dev, as the graph reads it
    wander: Wander
    batched: Logits  # (N, L), in batches of similar length; a tagger's (R, L)
    proof_wander: float  # of the proof's texts, which are longer and shorter than dev's


Measurements = Mapping[Precision, _Measurement]


def _measure(trained: Trained, graph: bytes, reference: Reference) -> _Measurement:
    encoder, session = _encoder(trained), open_graph(graph)
    rows = encoder.encode(reference.texts)

    def run(batch: Sequence[Row]) -> Logits:
        return session.run(encoder.collate(batch))

    of_proof = wander(run, encoder.encode(_proof_texts(trained)), trained.task)
    return _Measurement(rows, wander(run, rows, trained.task), run_by_length(run, rows), of_proof.largest)


def _check_exact(trained: Trained, exact: _Measurement, reference: Reference) -> None:
    """Raises ModelError where the exact graph answers too much of dev otherwise than torch."""
    if reference.torch_logits is None:
        return
    found = _alike(trained.task, exact.rows, exact.wander.alone, reference.torch_logits, reference.marks)
    if not found.enough:
        raise ModelError(
            f"{trained.name}: its exact graph beside torch on {reference.dataset}, {found}; export it to ONNX by other "
            "means and `adopt` that"
        )


def _faithful(trained: Trained, measured: Measurements, marks: Marks | None) -> tuple[Trained, Measurements]:
    """Both without the fast graph, if it answers too much of dev otherwise than the exact one."""
    if Precision.FAST not in measured:
        return trained, measured
    fast, exact = measured[Precision.FAST], measured[Precision.EXACT]
    found = _alike(trained.task, exact.rows, fast.batched, exact.batched, marks)
    if found.enough:
        return trained, measured
    console.log(f"no fast graph: beside the exact one on dev, {found}")
    only = Precision.EXACT
    return replace(trained, graphs={only: trained.graphs[only]}), {only: exact}


class _Alike(NamedTuple):
    """How like each other the answers of two networks are: 1 where they are the same."""

    what: str
    value: float | None  # None where there are too few rows to tell
    least: float  # that is enough

    @property
    def enough(self) -> bool:
        return self.value is None or self.value >= self.least

    def __str__(self) -> str:
        return f"{self.what} {self.value:.3f}, and {self.least} is asked"


def _alike(task: Task, rows: Sequence[Row], ours: Logits, theirs: Logits, marks: Marks | None) -> _Alike:
    """Of logits (N, L) for the same rows, of all tokens of all rows (R, L) where pieces are answered for."""
    match task:
        case Task.REGRESSION:
            return _Alike("correlation of numbers", _correlation(ours, theirs), LEAST_NEAR)
        case Task.EMBEDDING:
            cosines = (unit(ours) * unit(theirs)).sum(axis=1)  # (N, L) -> (N,)
            return _Alike("mean cosine of vectors", float(cosines.mean()), LEAST_NEAR)
        case Task.ANSWERING:
            alike = _shared_characters(rows, ours, theirs, marks)
            return _Alike("share of answers' characters alike", alike, LEAST_ALIKE)
        case _:
            return _Alike("share of decisions alike", agreement(task, ours, theirs), LEAST_ALIKE)


def _correlation(ours: Logits, theirs: Logits) -> float | None:
    """Of the number that is least alike, (N, L) twice; of two rows, and where theirs are all one number, none tells."""
    columns = [place for place in range(theirs.shape[1]) if len(theirs) > 2 and np.ptp(theirs[:, place])]
    found = [pearson(ours[:, [place]], theirs[:, [place]]) for place in columns]
    return float(np.min(found)) if found else None


def _shared_characters(rows: Sequence[Row], ours: Logits, theirs: Logits, marks: Marks | None) -> float:
    """Of the best answers to each question, (R, 2) twice: as a mean."""
    search = passages.Search(perhaps_none=any(isinstance(each, Answers) and not each.spans for each in marks or ()))
    ends = np.cumsum([len(row) for row in rows])[:-1]
    asked_both = (passages.of_texts(rows, np.split(logits, ends)) for logits in (ours, theirs))
    best = [[passages.answers(*part, search) for part in parts] for parts in asked_both]
    return float(np.mean([passages.shared(one, other) for one, other in zip(*best, strict=True)]))


def _profiles(trained: Trained, measured: Measurements, reference: Reference) -> dict[Precision, Profile]:
    """What dev looked like to each graph of a student, whose later traffic is held against it."""
    if trained.role is not Role.STUDENT or trained.task not in (Task.SINGLE_LABEL, Task.TAGGING):
        return {}
    unknown_id = _encoder(trained).unknown_id
    seen = {precision: Seen(reference.dataset, of.rows, unknown_id) for precision, of in measured.items()}
    if trained.task is Task.TAGGING:
        return {precision: texts.profile_of_texts() for precision, texts in seen.items()}
    return {
        precision: seen[precision].profile(of.batched, 1.0, reference.teacher_logits)
        for precision, of in measured.items()
    }


def _declared(precision: Precision, measured: _Measurement, reference: Reference) -> Graph:
    moved, original = measured.wander.largest, reference.torch_logits
    return Graph(
        file=FILES[precision],
        parity=0.0 if original is None else float(np.abs(measured.wander.alone - original).max()),
        wander=moved,
        flips=measured.wander.flips,
        # another processor adds up in another order; an int8 graph may besides round differently
        tolerance=1e-3 if precision is Precision.EXACT else leeway(moved, measured.proof_wander),
    )


def leeway(moved: float, of_proof: float) -> float:
    """Of an int8 graph: four times what dev moved, or half as much again as the proof did, which a small dev may not
    foretell."""
    return min(10.0, 0.1 + max(4 * moved, 1.5 * of_proof))


def _results(trained: Trained, measured: Measurements, reference: Reference) -> tuple[Measured, ...]:
    if reference.targets is None:
        return ()
    rows = next(iter(measured.values())).rows
    vectors = trained.task is Task.EMBEDDING  # of pairs of texts, whose likeness people judged
    task = Task.REGRESSION if vectors else trained.task

    def of_what_is_asked(logits: Logits) -> Logits:
        return likeness(logits) if vectors else asked(logits, rows, reference.marks, trained.labels)

    answers = {f"{trained.role}, {precision}": of_what_is_asked(of.batched) for precision, of in measured.items()}
    if reference.torch_logits is not None:
        answers = {f"{trained.role}, torch": of_what_is_asked(reference.torch_logits)} | answers
    if reference.teacher_logits is not None:
        answers = {f"its teacher, {reference.teacher_made_of}": reference.teacher_logits} | answers
    reports = {
        what: report(task, logits, reference.targets, reference.teacher_logits, trained.labels)
        for what, logits in answers.items()
    }
    return tuple(row for what, found in reports.items() for row in _rows(what, found, reference.dataset))


def _rows(what: str, found: Report, dataset: str) -> list[Measured]:
    return [
        Measured(what=what, dataset=dataset, split="dev", rows=found.rows, metric=name, value=value)
        for name, value in found.values().items()
    ]


def _proof(trained: Trained) -> Proof:
    encoder, texts = _encoder(trained), _proof_texts(trained)
    rows = encoder.encode(texts)
    logits = {}
    for precision, graph in trained.graphs.items():
        session = open_graph(graph)
        alone = [session.run(encoder.collate([row]))[0] for row in rows]  # (L,), of pieces (T, L)
        own = [each if each.ndim == 1 else each[: len(row)].ravel() for row, each in zip(rows, alone, strict=True)]
        logits[precision] = tuple(tuple(map(float, each)) for each in of_texts(rows, own))
    return Proof(texts=texts, logits=logits)


def _proof_texts(trained: Trained) -> tuple[Text, ...]:
    if trained.texts == 1:
        return PROOF_TEXTS
    return tuple(zip(PROOF_TEXTS, (*PROOF_TEXTS[1:], PROOF_TEXTS[0]), strict=True))


def _encoder(trained: Trained) -> Encoder:
    reads = Reads(trained.network, trained.task, trained.texts)
    return encoder_of(trained.tokenizer_json, reads, trained.max_tokens, trained.pad_id)
