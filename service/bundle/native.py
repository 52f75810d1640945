"""The native engine: BiLSTMs run by code of our own. The only module that imports it, where it is installed.

It knows graphs as bytes, arrays in and logits out, as `engine` does. It knows nothing of texts, folders or what logits
mean.
"""

import importlib
from collections.abc import Iterable
from typing import Any

from service.bundle.blueprint import Blueprint, Dense, Unrecognised, recognise
from service.bundle.devices import Device
from service.bundle.engine import RunHandle, finds_gpu, one_line
from service.bundle.engines import EngineOptions, Isa
from service.bundle.errors import EngineUnfit, GraphMismatch, RunAborted
from service.bundle.manifest import OUTPUT
from service.bundle.onnx_file import OnnxFile, Unreadable
from service.bundle.rows import Feeds, Ids
from service.bundle.tasks import Logits

INTERFACE = 1
"""Of the module: what it takes and gives. Another one is of another version of this repository."""

MOST_TABLE_BYTES = 512 * 2**20
"""The folded table has 2 x 4H numbers of 16 bits for each token: 73 MB for 30,000 tokens and H = 150."""

MOST_FOLDING = 2e11
"""Multiplications that make it: some ten seconds, in which nothing can stop them."""

_LANES = 16  # units come in blocks of as many at most


class NativeGraph:
    """A student that runs natively. Threads may share it."""

    device = Device.CPU
    buckets = None

    def __init__(self, network: Any, blueprint: Blueprint, source: str) -> None:
        self.source = source
        self.isa: str = network.isa
        self._network = network
        self._stopped = _module().Stopped
        self._takes = blueprint.inputs
        self._blocks = tuple(zip(blueprint.inputs[::2], blueprint.inputs[1::2], strict=True))
        self._width, self._dimensions = blueprint.width, blueprint.dimensions

    def run(self, feeds: Feeds, handle: RunHandle | None = None) -> Logits:
        """(B, T) -> (B, L), or a tagger's (B, T, L). Raises RunAborted; ValueError for ids and lengths out of range."""
        blocks: list[tuple[Ids, Ids]] = [(feeds[ids], feeds[lengths]) for ids, lengths in self._blocks]
        try:
            logits: Logits = self._network.run(blocks, None if handle is None else handle.stop)
        except self._stopped as error:
            raise RunAborted(f"{self.source}: the run was given up") from error
        return logits

    def check(self, inputs: tuple[str, ...], width: int, dimensions: int = 2) -> None:
        """Refuse a graph that takes other inputs, or gives something other than the manifest says."""
        if self._takes != inputs:
            raise GraphMismatch(f"{self.source}: takes {', '.join(self._takes)}; the manifest says {', '.join(inputs)}")
        if (self._width, self._dimensions) != (width, dimensions):
            raise GraphMismatch(f"{self.source}: gives {OUTPUT} of {self._width} numbers for {width} labels")


def open_native(content: bytes, options: EngineOptions, source: str = "graph") -> NativeGraph:
    """Open the bytes of an ONNX file. Raises EngineUnfit, with why not."""
    try:
        if finds_gpu(options.device):
            raise _No("it runs on processors, and a graphics card is asked for")
        if _module().INTERFACE != INTERFACE:
            raise _No("it was built for another version; install it anew")
        blueprint = recognise(OnnxFile.read(content))
        return NativeGraph(_network(blueprint, options), blueprint, source)
    except (_No, Unreadable, Unrecognised, ValueError, RuntimeError, MemoryError) as error:  # no more threads, say
        raise EngineUnfit(f"{source}: the native engine cannot run it: {one_line(error) or 'no memory'}") from error


def knows(content: bytes) -> bool:
    """Is it installed, and are these bytes of a graph that it runs?"""
    try:
        _module()
        recognise(OnnxFile.read(content))
    except (_No, Unreadable, Unrecognised):
        return False
    return True


class _No(Exception):
    """Why the native engine does not run a graph."""


def _module() -> Any:
    try:
        return importlib.import_module("understudy_native")
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError)
        raise _No("it is not installed" if missing else f"it does not load ({one_line(error)})") from error


def _network(blueprint: Blueprint, options: EngineOptions) -> Any:
    (vocabulary, embedding), hidden = blueprint.embedding.shape, blueprint.recurrent.shape[-1]
    table = vocabulary * 2 * 4 * -(-hidden // _LANES) * _LANES * 2
    if table > MOST_TABLE_BYTES:
        raise _No(f"its table would take {table / 1e6:.0f} MB of memory (most: {MOST_TABLE_BYTES / 1e6:.0f})")
    if vocabulary * embedding * 8 * hidden > MOST_FOLDING:
        raise _No("to fold its table would take too long")
    return _module().Network(
        blueprint.embedding,
        blueprint.scales.ravel(),
        blueprint.input,
        blueprint.recurrent,
        blueprint.bias,
        pooling=str(blueprint.pooling),
        each=_layers(blueprint.each),
        compare=blueprint.compare,
        last=_layers(blueprint.last),
        threads=options.threads,
        isa=None if options.isa is Isa.AUTO else str(options.isa),
    )


def _layers(layers: Iterable[Dense]) -> list[tuple[Any, Any, str]]:
    return [(layer.weight, layer.bias, str(layer.activation)) for layer in layers]
