"""Open a bundle, prove it, run it. The only place that touches ONNX Runtime.

It knows rows in and logits out. It knows nothing of HTTP, queues or how the model was made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.bundle.encoder import Encoder, Feeds, Row
from service.bundle.errors import GraphMismatch, ProofFailed, ProviderMissing
from service.bundle.manifest import OUTPUT, TOKENIZER_FILE, Manifest, Precision
from service.bundle.seal import read_manifest, verify
from service.bundle.tasks import TASKS, Logits, Scores

_ERRORS_ONLY = 3  # ONNX Runtime's severities: 0 verbose, 1 info, 2 warning, 3 error


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How ONNX Runtime is set up."""

    threads: int = 1
    spinning: bool = False  # idle threads that spin are quicker to start and take the core from everyone else
    provider: str = "CPUExecutionProvider"


DEFAULT_OPTIONS = EngineOptions()


class OpenGraph:
    """A session, with the one output that we ask for. Threads may share it."""

    def __init__(self, session: onnxruntime.InferenceSession, source: str) -> None:
        self._session = session
        self.source = source

    def run(self, feeds: Feeds) -> Logits:
        """(B, T) -> (B, L)."""
        logits: Logits = self._session.run([OUTPUT], feeds)[0]
        return logits

    def check(self, inputs: tuple[str, ...], width: int) -> None:
        """Refuse a graph that takes other inputs, or gives something other than (B, width) logits."""
        found = {node.name: node.type for node in self._session.get_inputs()}
        if found != dict.fromkeys(inputs, "tensor(int64)"):
            wanted = _listed(dict.fromkeys(inputs, "tensor(int64)"))
            raise GraphMismatch(f"{self.source}: takes {_listed(found)}; the manifest says {wanted}")
        outputs = {node.name: node for node in self._session.get_outputs()}
        if OUTPUT not in outputs or outputs[OUTPUT].type != "tensor(float)":
            raise GraphMismatch(f"{self.source}: has no float32 output named {OUTPUT}; export it again")
        shape = outputs[OUTPUT].shape
        if len(shape) != 2 or (isinstance(shape[1], int) and shape[1] != width):
            raise GraphMismatch(f"{self.source}: gives logits of shape {shape} for {width} labels")


@dataclass(frozen=True, slots=True)
class OpenBundle:
    """A bundle that was verified and proved. Threads may share it."""

    manifest: Manifest
    precision: Precision
    encoder: Encoder
    folder: Path
    graph: OpenGraph

    def run(self, rows: Sequence[Row]) -> Logits:
        """One batch: B rows -> (B, L) logits."""
        return self.graph.run(self.encoder.collate(rows))

    def scores(self, logits: Logits) -> Scores:
        """(B, L) logits -> (B, L) scores, as the task reads them."""
        return TASKS[self.manifest.task].scores(logits)

    def classify(self, texts: Sequence[str]) -> Logits:
        """The logits of a few texts, in one batch."""
        return self.run(self.encoder.encode(texts))


def open_bundle(
    folder: Path, precision: Precision = Precision.EXACT, options: EngineOptions = DEFAULT_OPTIONS
) -> OpenBundle:
    """Read, verify, open, check, prove. A bundle without the graph asked for opens with its exact one."""
    manifest = read_manifest(folder)
    verify(folder, manifest)
    used = precision if precision in manifest.graphs else Precision.EXACT
    encoder = Encoder.from_file(
        folder / TOKENIZER_FILE,
        inputs=manifest.inputs,
        max_tokens=manifest.max_tokens,
        pad_id=manifest.pad_id,
    )
    graph = open_graph(folder / manifest.graphs[used].file, options)
    graph.check(manifest.inputs, TASKS[manifest.task].width(len(manifest.labels)))
    bundle = OpenBundle(manifest, used, encoder, folder, graph)
    prove(bundle)
    return bundle


def open_graph(source: Path | bytes, options: EngineOptions = DEFAULT_OPTIONS) -> OpenGraph:
    """Open an ONNX file, or the bytes of one that is not published yet."""
    if options.provider not in onnxruntime.get_available_providers():
        raise ProviderMissing(f"{options.provider}: not in this ONNX Runtime; install a build that has it")
    name = "graph" if isinstance(source, bytes) else str(source)
    try:
        session = onnxruntime.InferenceSession(
            source if isinstance(source, bytes) else str(source),
            sess_options=_session_options(options),
            providers=[options.provider],
        )
    except Exception as error:  # ONNX Runtime's own classes share nothing else
        problem = f"{name}: ONNX Runtime cannot open it ({_one_line(error)}); export it again"
        raise GraphMismatch(problem) from error
    return OpenGraph(session, name)


def prove(bundle: OpenBundle) -> None:
    """Run the proof's texts alone and together, and compare with what the exporter wrote down.

    Together they are padded to the longest, so a graph that does not mind its lengths is caught here.
    """
    proof, limit = bundle.manifest.proof, bundle.manifest.graphs[bundle.precision].tolerance
    rows = bundle.encoder.encode(proof.texts)
    if len({len(row) for row in rows}) == 1:
        raise ProofFailed(f"{bundle.folder}: its proof has texts of one length only, which proves nothing")
    stored = np.array(proof.logits[bundle.precision])  # (B, L)
    alone = np.concatenate([_run_proof(bundle, [row]) for row in rows])  # B x (1, L) -> (B, L)
    together = _run_proof(bundle, rows)  # (B, L)
    _compare(bundle, "alone, its logits differ from the exporter's", alone, stored, limit)
    _compare(bundle, "batched, its logits differ from those alone", together, alone, limit)


def _run_proof(bundle: OpenBundle, rows: Sequence[Row]) -> Logits:
    try:
        return bundle.run(rows)
    except Exception as error:  # ONNX Runtime's own classes share nothing else
        raise ProofFailed(f"{bundle.graph.source}: cannot run its proof ({_one_line(error)})") from error


def _compare(
    bundle: OpenBundle, what: str, found: NDArray[np.floating], wanted: NDArray[np.floating], limit: float
) -> None:
    if found.shape != wanted.shape:
        raise ProofFailed(f"{bundle.graph.source}: gives logits of shape {found.shape}, not {wanted.shape}")
    distance = float(np.abs(found - wanted).max())
    if not distance <= limit:  # so that NaN fails too
        problem = f"{what} by {distance:.2g} (allowed: {limit:.2g}); export it again"
        raise ProofFailed(f"{bundle.graph.source}: {problem}")


def _session_options(options: EngineOptions) -> onnxruntime.SessionOptions:
    session = onnxruntime.SessionOptions()
    session.intra_op_num_threads = options.threads
    session.inter_op_num_threads = 1
    session.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    session.log_severity_level = _ERRORS_ONLY
    session.enable_mem_pattern = False  # patterns are for fixed shapes; ours change with each batch
    session.enable_cpu_mem_arena = False  # the arena keeps what the largest batch ever needed
    spinning = "1" if options.spinning else "0"
    session.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    session.add_session_config_entry("session.inter_op.allow_spinning", spinning)
    # session.set_denormal_as_zero stays off: it changes the arithmetic of the first thread that opens a session, for
    # good and for all its code, and does nothing for the threads that run batches (seen by running it).
    return session


def _listed(found: dict[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in found.items()) or "nothing"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
