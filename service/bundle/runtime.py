"""Open a bundle, prove it, run it.

It knows texts in and scores out. It knows nothing of HTTP, queues or how the model was made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.bundle.devices import Device
from service.bundle.encoder import Encoder, Row, Text
from service.bundle.engine import OpenGraph, RunHandle, one_line, open_graph
from service.bundle.engines import DEFAULT_OPTIONS, Chosen, Engine, EngineOptions
from service.bundle.errors import EngineFailed, EngineUnfit, GraphMismatch, ProofFailed, TextError
from service.bundle.manifest import TOKENIZER_FILE, Precision, SealedManifest
from service.bundle.native import open_native
from service.bundle.rows import Buckets, Feeds, numbers
from service.bundle.seal import read_manifest, verified
from service.bundle.tasks import TASKS, Logits, Meaning, Scores

__all__ = ["EngineOptions", "Graph", "OpenBundle", "OpenGraph", "RunHandle", "open_bundle", "open_graph"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How far the logits of a proof's texts may be apart."""

    stored: float  # those of each text alone from what the exporter wrote down
    together: float  # those in one batch from those alone


NATIVE_LIMITS = Limits(stored=0.02, together=1e-6)
"""Its table and states are rounded, so it stands a little off whatever graph; and its batches are nobody's business."""


class Graph(Protocol):
    """A graph that an engine has opened. Threads may share it."""

    @property
    def source(self) -> str: ...
    @property
    def device(self) -> Device: ...
    @property
    def buckets(self) -> Buckets | None: ...

    def run(self, feeds: Feeds, handle: RunHandle | None = None) -> Logits: ...
    def check(self, inputs: tuple[str, ...], width: int, dimensions: int = 2) -> None: ...


@dataclass(frozen=True, slots=True)
class OpenBundle:
    """A bundle that was verified and proved. Threads may share it."""

    manifest: SealedManifest
    precision: Precision
    encoder: Encoder
    folder: Path
    graph: Graph
    chosen: Chosen

    @property
    def meaning(self) -> Meaning:
        """How its task reads logits."""
        return TASKS[self.manifest.task]

    def run(self, rows: Sequence[Row], handle: RunHandle | None = None) -> Logits:
        """One batch: B rows -> (B, L) logits. Another thread may end it through the handle: RunAborted.

        Where pieces are answered for (B, T, L): only the first `len(row)` of T are the row's own, and `apart` cuts the
        rest away.
        """
        feeds = self.encoder.collate(rows, self.graph.buckets)
        return self.graph.run(feeds, handle)[: len(rows)]  # buckets may have added rows

    def apart(self, rows: Sequence[Row], logits: Logits) -> list[Logits]:
        """Each row's own logits of those of its batch: (B, L) -> B x (L,), or of pieces (B, T, L) -> B x (T, L)."""
        if logits.ndim == 2:
            return list(logits)
        return [own[: len(row)] for row, own in zip(rows, logits, strict=True)]

    def scores(self, logits: Logits) -> Scores:
        """(…, L) logits -> (…, L) scores, as the task reads them."""
        return self.meaning.scores(logits)

    def scores_apart(self, own: Sequence[Logits]) -> list[Scores]:
        """The same of rows that were cut apart, in one go: B x (T, L) -> B x (T, L)."""
        ends = np.cumsum([len(logits) for logits in own])
        return np.split(self.scores(np.concatenate(own)), ends[:-1])

    def classify(self, texts: Sequence[Text]) -> Logits:
        """The logits of a few texts or pairs, in one batch."""
        return self.run(self.encoder.encode(texts))


def open_bundle(
    folder: Path, precision: Precision = Precision.EXACT, options: EngineOptions = DEFAULT_OPTIONS
) -> OpenBundle:
    """Read, verify, open, check, prove. A bundle without the graph asked for opens with its exact one."""
    manifest = read_manifest(folder)
    used = precision if precision in manifest.graphs else Precision.EXACT
    file = manifest.graphs[used].file
    contents = verified(folder, manifest, (TOKENIZER_FILE, file))
    meaning = TASKS[manifest.task]
    encoder = Encoder.from_bytes(
        contents[TOKENIZER_FILE],
        str(folder / TOKENIZER_FILE),
        inputs=manifest.inputs,
        max_tokens=manifest.max_tokens,
        pad_id=manifest.pad_id,
        texts=manifest.texts,
        spanned=meaning.of_pieces,
    )
    closed = _Closed(manifest, used, encoder, folder, contents[file])
    if options.engine is Engine.ONNXRUNTIME:
        return closed.by_onnxruntime(options, Chosen(Engine.ONNXRUNTIME, "as the settings say"))
    try:
        return closed.by_native(options)
    except EngineUnfit as error:
        if options.engine is Engine.NATIVE:
            raise
        reason = str(error).removeprefix(f"{closed.source}: ")
        return closed.by_onnxruntime(options, Chosen(Engine.ONNXRUNTIME, reason, failed=error.failed))


@dataclass(frozen=True, slots=True)
class _Closed:
    """A bundle that was verified; its graph is still bytes."""

    manifest: SealedManifest
    precision: Precision
    encoder: Encoder
    folder: Path
    content: bytes

    @property
    def source(self) -> str:
        return str(self.folder / self.manifest.graphs[self.precision].file)

    def by_onnxruntime(self, options: EngineOptions, chosen: Chosen) -> OpenBundle:
        limit = self.manifest.graphs[self.precision].tolerance
        graph = open_graph(self.content, options, self.source)
        return self._proved(graph, Limits(limit, limit), chosen)

    def by_native(self, options: EngineOptions) -> OpenBundle:
        """Raises EngineUnfit, with why not."""
        graph = open_native(self.content, options, self.source)
        reason = "it knows the graph, and proved itself" if options.engine is Engine.AUTO else "as the settings say"
        try:
            return self._proved(graph, NATIVE_LIMITS, Chosen(Engine.NATIVE, reason, graph.isa))
        except (GraphMismatch, ProofFailed) as error:
            told = str(error).removeprefix(f"{self.source}: ")
            raise EngineFailed(f"{self.source}: the native engine fails its proof: {told}") from error

    def _proved(self, graph: Graph, limits: Limits, chosen: Chosen) -> OpenBundle:
        meaning = TASKS[self.manifest.task]
        graph.check(self.manifest.inputs, meaning.width(len(self.manifest.labels)), meaning.dimensions)
        bundle = OpenBundle(self.manifest, self.precision, self.encoder, self.folder, graph, chosen)
        prove(bundle, limits)
        return bundle


def prove(bundle: OpenBundle, limits: Limits) -> None:
    """Run the proof's texts alone and together, and compare with what the exporter wrote down.

    Together they are padded to the longest, so a graph that does not mind its lengths is caught here.
    """
    proof = bundle.manifest.proof
    try:
        rows = bundle.encoder.encode(proof.texts)
    except TextError as error:
        raise ProofFailed(f"{bundle.folder}: a text of its proof: {error}; publish the bundle again") from error
    if len({len(row) for row in rows}) == 1:
        raise ProofFailed(f"{bundle.folder}: its proof has texts of one length only, which proves nothing")
    stored = [np.array(logits) for logits in proof.logits[bundle.precision]]  # B x (L,), of pieces B x (T * L,)
    alone = of_texts(rows, [logits for row in rows for logits in _run_proof(bundle, [row])])
    together = of_texts(rows, _run_proof(bundle, rows))
    _compare(bundle, "alone, its logits differ from the exporter's", alone, stored, limits.stored)
    _compare(bundle, "batched, its logits differ from those alone", together, alone, limits.together)


def of_texts(rows: Sequence[Row], logits: Sequence[Logits]) -> list[Logits]:
    """The flat logits of rows -> those of texts, of which long ones may have several rows, one behind the other."""
    owners = numbers(rows)
    starts = [place for place, owner in enumerate(owners) if place == 0 or owner != owners[place - 1]]
    return [np.concatenate(logits[start:end]) for start, end in pairwise([*starts, len(rows)])]


def _run_proof(bundle: OpenBundle, rows: Sequence[Row]) -> list[Logits]:
    """B rows -> B x (L,) logits; those of all pieces of a row, one behind the other: B x (T * L,)."""
    try:
        return [logits.ravel() for logits in bundle.apart(rows, bundle.run(rows))]
    except Exception as error:  # ONNX Runtime's own classes share nothing else
        raise ProofFailed(f"{bundle.graph.source}: cannot run its proof ({one_line(error)})") from error


def _compare(
    bundle: OpenBundle,
    what: str,
    found: Sequence[NDArray[np.floating]],
    wanted: Sequence[NDArray[np.floating]],
    limit: float,
) -> None:
    for place, (ours, theirs) in enumerate(zip(found, wanted, strict=True)):
        if ours.shape != theirs.shape:
            problem = f"gives {ours.size} logits for text {place} of its proof, not {theirs.size}; export it again"
            raise ProofFailed(f"{bundle.graph.source}: {problem}")
    distance = float(np.abs(np.concatenate(found) - np.concatenate(wanted)).max())
    if not distance <= limit:  # so that NaN fails too
        problem = f"{what} by {distance:.2g} (allowed: {limit:.2g}); export it again"
        raise ProofFailed(f"{bundle.graph.source}: {problem}")
