"""From a trained network to a bundle on disk: graphs, measurements, proof, card; written and proved by the service's
own reader (`service.bundle`), all or nothing."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from export.card import model_card
from export.errors import RecipeError
from export.evaluation import Labels, Logits, Wander, report, run_by_length, wander
from export.profiles import Seen
from service.bundle.encoder import Encoder, Row
from service.bundle.errors import BundleExists
from service.bundle.manifest import (
    FORMAT,
    INPUTS,
    NAME_PATTERN,
    TOKENIZER_FILE,
    Graph,
    Lineage,
    Manifest,
    Measured,
    Precision,
    Profile,
    Proof,
    Role,
    Task,
)
from service.bundle.runtime import open_graph
from service.bundle.store import digests, write_bundle

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
class Trained:
    """All that a bundle is made of, before anything is measured."""

    name: str
    version: int
    role: Role
    task: Task
    labels: tuple[str, ...]
    tokenizer_json: str
    max_tokens: int
    pad_id: int
    graphs: Mapping[Precision, bytes]
    lineage: Lineage


@dataclass(frozen=True)
class Reference:
    """What the graphs are measured against on dev: the labels, torch's logits of this network, the teacher's."""

    dataset: str
    texts: Sequence[str]
    labels: Labels | None  # (N,); none where the metrics can't use them
    torch_logits: Logits | None  # (N, L); none where the graph itself is the original
    teacher_logits: Logits | None  # (N, L); none for a teacher itself
    teacher_made_of: str = "torch"  # or as it is served


def publish(trained: Trained, reference: Reference, models: Path, command: str) -> Path:
    """Measure, prove and write `models/<name>/<version>/`. Raises BundleExists, ProofFailed."""
    files = {TOKENIZER_FILE: trained.tokenizer_json.encode()}
    files |= {FILES[precision]: graph for precision, graph in trained.graphs.items()}
    measured = {precision: _measure(trained, graph, reference) for precision, graph in trained.graphs.items()}
    manifest = Manifest(
        format=FORMAT,
        name=trained.name,
        version=str(trained.version),
        role=trained.role,
        task=trained.task,
        labels=trained.labels,
        inputs=INPUTS[trained.role, 1],
        max_tokens=trained.max_tokens,
        pad_id=trained.pad_id,
        graphs={precision: _declared(precision, of, reference) for precision, of in measured.items()},
        files=digests(files),
        lineage=trained.lineage,
        profile=_profiles(trained, measured, reference),
        results=() if reference.labels is None else _results(trained.role, measured, reference, reference.labels),
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


def encoder_of(tokenizer_json: str, role: Role, max_tokens: int, pad_id: int) -> Encoder:
    """The encoder that a server will make of this tokenizer."""
    tokenizer = Tokenizer.from_str(tokenizer_json)
    return Encoder(tokenizer, inputs=INPUTS[role, 1], max_tokens=max_tokens, pad_id=pad_id)


def versions() -> dict[str, str]:
    """The libraries that decide the numbers."""
    return {name: version(name) for name in ("torch", "transformers", "tokenizers", "onnx", "onnxruntime")}


@dataclass(frozen=True)
class _Measurement:
    rows: Sequence[Row]  # dev, as the graph reads it
    wander: Wander
    batched: Logits  # (N, L), in batches of similar length


def _measure(trained: Trained, graph: bytes, reference: Reference) -> _Measurement:
    encoder, session = _encoder(trained), open_graph(graph)
    rows = encoder.encode(reference.texts)

    def run(batch: Sequence[Row]) -> Logits:
        return session.run(encoder.collate(batch))

    return _Measurement(rows, wander(run, rows, trained.task), run_by_length(run, rows))


def _profiles(
    trained: Trained, measured: Mapping[Precision, _Measurement], reference: Reference
) -> dict[Precision, Profile]:
    """What dev looked like to each graph of a student, whose later traffic is held against it."""
    if trained.role is not Role.STUDENT or trained.task is not Task.SINGLE_LABEL:
        return {}
    unknown_id = _encoder(trained).unknown_id
    return {
        precision: Seen(reference.dataset, of.rows, unknown_id).profile(of.batched, 1.0, reference.teacher_logits)
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
        tolerance=1e-3 if precision is Precision.EXACT else min(10.0, 0.1 + 4 * moved),
    )


def _results(
    role: Role, measured: Mapping[Precision, _Measurement], reference: Reference, labels: Labels
) -> tuple[Measured, ...]:
    answers = {f"{role}, {precision}": of.batched for precision, of in measured.items()}
    if reference.torch_logits is not None:
        answers = {f"{role}, torch": reference.torch_logits} | answers
    if reference.teacher_logits is not None:
        answers = {f"its teacher, {reference.teacher_made_of}": reference.teacher_logits} | answers
    return tuple(row for what, logits in answers.items() for row in _rows(what, logits, reference, labels))


def _rows(what: str, logits: Logits, reference: Reference, labels: Labels) -> list[Measured]:
    found = report(logits, labels, reference.teacher_logits)
    values = found.metrics | ({} if found.agreement is None else {"agreement with the teacher": found.agreement})
    return [
        Measured(what=what, dataset=reference.dataset, split="dev", rows=found.rows, metric=name, value=value)
        for name, value in values.items()
    ]


def _proof(trained: Trained) -> Proof:
    encoder = _encoder(trained)
    rows = encoder.encode(PROOF_TEXTS)
    logits = {}
    for precision, graph in trained.graphs.items():
        session = open_graph(graph)
        alone: NDArray[np.float32] = np.concatenate([session.run(encoder.collate([row])) for row in rows])
        logits[precision] = tuple(tuple(float(value) for value in row) for row in alone)
    return Proof(texts=PROOF_TEXTS, logits=logits)


def _encoder(trained: Trained) -> Encoder:
    return encoder_of(trained.tokenizer_json, trained.role, trained.max_tokens, trained.pad_id)
