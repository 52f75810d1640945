"""ONNX Runtime: sessions, devices and runs. The only module that imports it.

It knows graphs as bytes, arrays in and logits out. It knows nothing of texts, folders or what logits mean.
"""

from typing import Any

import numpy as np
import onnxruntime

from service.bundle.devices import CPU, CUDA, Device, choose_providers
from service.bundle.engines import DEFAULT_OPTIONS, EngineOptions
from service.bundle.errors import GraphMismatch, ProviderMissing, RunAborted
from service.bundle.manifest import OUTPUT
from service.bundle.outside import wants_outside_data
from service.bundle.protobuf import NotProtobuf
from service.bundle.rows import Buckets, Feeds
from service.bundle.tasks import Logits

GPU_BUCKETS = Buckets(
    rows=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    lengths=(8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512),
)
"""On a GPU each new shape costs memory and a search for kernels, and some more padding costs next to nothing."""

_ERRORS, _FATAL = 3, 4  # ONNX Runtime's severities: 0 verbose, 1 info, 2 warning, 3 error, 4 fatal


class RunHandle:
    """Lets another thread end a run: one handle a run, thrown away with it (making one takes 0.5 µs).

    ONNX Runtime looks at it between two nodes of a graph, so a single node is never interrupted; the native engine
    looks before each step in time.
    """

    __slots__ = ("options", "stop")

    def __init__(self) -> None:
        self.options = onnxruntime.RunOptions()
        self.stop = np.zeros(1, np.uint8)

    @property
    def aborted(self) -> bool:
        """Has `abort` been called?"""
        return bool(self.options.terminate)

    def abort(self) -> None:
        """End the run, or keep it from starting. Returns at once; the run raises RunAborted."""
        self.options.terminate = True
        self.stop[0] = 1


class OpenGraph:
    """A session, with the one output that we ask for. Threads may share it."""

    def __init__(self, session: onnxruntime.InferenceSession, source: str, options: EngineOptions) -> None:
        on_gpu = CUDA in session.get_providers()
        self.device = Device.CUDA if on_gpu else Device.CPU
        self.buckets = options.buckets or (GPU_BUCKETS if on_gpu else None)
        self.source = source
        self._session = session
        self._bound = on_gpu if options.bound is None else options.bound

    def run(self, feeds: Feeds, handle: RunHandle | None = None) -> Logits:
        """(B, T) -> (B, L), or a tagger's (B, T, L). Raises RunAborted, or whatever ONNX Runtime raises."""
        options = None if handle is None else handle.options
        try:
            return self._run_bound(feeds, options) if self._bound else self._run(feeds, options)
        except Exception as error:  # ONNX Runtime's own classes share nothing else
            if handle is not None and handle.aborted:
                raise RunAborted(f"{self.source}: the run was given up") from error
            raise

    def check(self, inputs: tuple[str, ...], width: int, dimensions: int = 2) -> None:
        """Refuse a graph that takes other inputs, or gives something other than (B, width) logits; a tagger's three
        dimensions are (B, T, width)."""
        found = {node.name: node.type for node in self._session.get_inputs()}
        if found != dict.fromkeys(inputs, "tensor(int64)"):
            wanted = _listed(dict.fromkeys(inputs, "tensor(int64)"))
            raise GraphMismatch(f"{self.source}: takes {_listed(found)}; the manifest says {wanted}")
        outputs = {node.name: node for node in self._session.get_outputs()}
        if OUTPUT not in outputs or outputs[OUTPUT].type != "tensor(float)":
            raise GraphMismatch(f"{self.source}: has no float32 output named {OUTPUT}; export it again")
        shape = outputs[OUTPUT].shape
        if len(shape) != dimensions or (isinstance(shape[-1], int) and shape[-1] != width):
            of_each = " of each piece" if dimensions == 3 else ""
            raise GraphMismatch(f"{self.source}: gives logits of shape {shape} for {width} labels{of_each}")

    def _run(self, feeds: Feeds, options: Any) -> Logits:
        logits: Logits = self._session.run([OUTPUT], feeds, options)[0]
        return logits

    def _run_bound(self, feeds: Feeds, options: Any) -> Logits:
        """The binding is made anew each time: threads share the session, and it costs little beside a run."""
        binding = self._session.io_binding()
        for name, array in feeds.items():
            binding.bind_cpu_input(name, array)
        binding.bind_output(OUTPUT, "cpu")
        self._session.run_with_iobinding(binding, options)
        logits: Logits = binding.copy_outputs_to_cpu()[0]
        return logits


def open_graph(content: bytes, options: EngineOptions = DEFAULT_OPTIONS, source: str = "graph") -> OpenGraph:
    """Open the bytes of an ONNX file; `source` is its name in errors. Raises GraphMismatch and ProviderMissing."""
    try:
        refused = wants_outside_data(content)
    except NotProtobuf as error:
        raise GraphMismatch(f"{source}: not an ONNX file ({error}); export it again") from error
    if refused:
        raise GraphMismatch(f"{source}: wants data from outside its file; export it again with all data inside")
    for provider in choose_providers(options.device, onnxruntime.get_available_providers()):
        try:
            session = _session(content, options, provider)
            break
        except Exception as error:  # ONNX Runtime's own classes share nothing else
            failure = error
    else:
        problem = f"{source}: ONNX Runtime cannot open it ({one_line(failure)}); export it again"
        raise GraphMismatch(problem) from failure
    if options.device is Device.CUDA and CUDA not in session.get_providers():
        raise ProviderMissing(
            f"{CUDA}: ONNX Runtime has it, but cannot start it here; "
            "look at the GPU's driver and at CUDA's and cuDNN's libraries, or choose the device cpu"
        )
    return OpenGraph(session, source, options)


def finds_gpu(device: Device) -> bool:
    """Would a graph be tried on a GPU?"""
    return CUDA in choose_providers(device, onnxruntime.get_available_providers())


def one_line(error: Exception) -> str:
    """What ONNX Runtime says, fit for a message of ours."""
    return " ".join(str(error).split())[:300]


def _session(content: bytes, options: EngineOptions, provider: str) -> onnxruntime.InferenceSession:
    """Where CUDA's libraries are missing, ONNX Runtime goes on with the CPU and says so in its log only."""
    if provider == CUDA and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # finds the libraries of CUDA where pip put them
    session = onnxruntime.InferenceSession(
        content,
        sess_options=_session_options(options, provider),
        providers=[(CUDA, _CUDA_OPTIONS), CPU] if provider == CUDA else [CPU],
        enable_fallback=0,  # which would print, and hide what went wrong
    )
    session._model_bytes = None  # kept for that fallback alone: a second copy of the file for as long as it is open
    return session


_CUDA_OPTIONS = {
    "use_tf32": "0",  # would round the factors to 10 bits: logits would no longer be those of the proof
    "arena_extend_strategy": "kSameAsRequested",  # doubling would take memory from the models beside us
}


def _session_options(options: EngineOptions, provider: str) -> onnxruntime.SessionOptions:
    session = onnxruntime.SessionOptions()
    session.intra_op_num_threads = options.threads
    session.inter_op_num_threads = 1
    session.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # What goes wrong on a CPU is raised as well; why a GPU does not start is only ever logged.
    session.log_severity_level = _FATAL if provider == CPU else _ERRORS
    session.enable_mem_pattern = options.patterns
    session.enable_cpu_mem_arena = options.arena
    session.add_session_config_entry("session.load_model_format", "ONNX")  # never guessed from the bytes
    spinning = "1" if options.spinning else "0"
    session.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    session.add_session_config_entry("session.inter_op.allow_spinning", spinning)
    # session.set_denormal_as_zero stays off: it changes the arithmetic of the first thread that opens a session, for
    # good and for all its code, and does nothing for the threads that run batches (seen by running it).
    return session


def _listed(found: dict[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in found.items()) or "nothing"
