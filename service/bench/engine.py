"""Microseconds a row of several bundles, measured in one run. Knows nothing of HTTP, tables or result files.

The bundles take turns, so that whatever else the machine does hits all alike; each turn begins with a call
that is not counted, because the bundle before it has emptied the caches. Ratios are taken within a round.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from service.bundle.encoder import Row
from service.bundle.engines import Engine
from service.bundle.manifest import SIAMESE_INPUTS, TOKENIZER_FILE, Manifest, Precision, Role
from service.bundle.native import knows
from service.bundle.rows import Joined, Twins
from service.bundle.runtime import EngineOptions, OpenBundle, RunHandle, open_bundle

Timings = NDArray[np.float64]  # (rounds, subjects): microseconds a row
SEED = 0


@dataclass(frozen=True)
class Workload:
    """What every bundle does in one call, and how often."""

    rows: int = 32
    tokens: int = 24
    threads: int = 1
    rounds: int = 30
    turn_ms: float = 20  # a turn makes as many calls as fit, at least one


@dataclass(frozen=True, slots=True)
class Entry:
    """A bundle's folder and the graph to open in it."""

    folder: Path
    precision: Precision
    engine: Engine = Engine.ONNXRUNTIME

    @property
    def suffix(self) -> str:
        """What `parse_entry` reads: what runs, in a word."""
        return str(self.engine if self.engine is Engine.NATIVE else self.precision)

    @property
    def flags(self) -> list[str]:
        """Those of a service that is to run it."""
        return ["--precision", self.precision, "--engine", self.engine]

    def open(self, threads: int = 1) -> OpenBundle:
        """Raises BundleError."""
        return open_bundle(self.folder, self.precision, EngineOptions(threads=threads, engine=self.engine))


def natively(folder: Path, manifest: Manifest) -> list[Entry]:
    """The bundle by our own engine, where it is installed and knows the graph."""
    content = (folder / manifest.graphs[Precision.EXACT].file).read_bytes()
    return [Entry(folder, Precision.EXACT, Engine.NATIVE)] if knows(content) else []


@dataclass(frozen=True, slots=True)
class Subject:
    """A bundle that is ready to be measured: `run` is one call."""

    name: str
    precision: Precision
    role: Role
    graph_bytes: int
    run: Callable[[], object]
    engine: Engine = Engine.ONNXRUNTIME

    @property
    def title(self) -> str:
        return f"{self.name}:{self.engine if self.engine is Engine.NATIVE else self.precision}"


class UnfitWorkload(Exception):
    """A bundle can't take rows of this length."""


def parse_entry(text: str) -> Entry:
    """`models/name/1:fast` -> that folder's fast graph; without a suffix the exact one, with :native by our engine."""
    folder, _, suffix = text.rpartition(":")
    if folder and suffix == Engine.NATIVE:
        return Entry(Path(folder), Precision.EXACT, Engine.NATIVE)
    if folder and suffix in set(Precision):
        return Entry(Path(folder), Precision(suffix))
    return Entry(Path(text), Precision.EXACT)


def prepare(entry: Entry, workload: Workload, handle: RunHandle | None = None) -> Subject:
    """Open the bundle and give it its rows: random token ids, the same for each graph of one bundle.

    Whoever holds the handle may end its calls, which then raise RunAborted.
    """
    bundle = entry.open(workload.threads)
    manifest = bundle.manifest
    if workload.tokens > manifest.max_tokens:
        raise UnfitWorkload(f"{entry.folder}: takes at most {manifest.max_tokens} tokens; lower --tokens")
    rows = random_rows(bundle, workload)
    graph = entry.folder / manifest.graphs[bundle.precision].file
    title = f"{manifest.name}@{manifest.version}"
    size = graph.stat().st_size
    return Subject(title, bundle.precision, manifest.role, size, lambda: bundle.run(rows, handle), entry.engine)


def random_rows(bundle: OpenBundle, workload: Workload) -> list[Row]:
    """Any ids of the vocabulary: the time depends on their number, not on what they say. Texts of a pair share them."""
    size = Tokenizer.from_file(str(bundle.folder / TOKENIZER_FILE)).get_vocab_size()
    ids = np.random.default_rng(SEED).integers(0, size, (workload.rows, workload.tokens))
    return [_row(bundle.manifest, row) for row in ids.tolist()]


def _row(manifest: Manifest, ids: list[int]) -> Row:
    half = len(ids) // 2
    if manifest.texts == 1:
        return ids
    if manifest.inputs == SIAMESE_INPUTS:
        return Twins(ids[:half], ids[half:])
    return Joined(ids, [0] * half + [1] * (len(ids) - half))


def race(subjects: Sequence[Subject], workload: Workload) -> Iterator[list[float]]:
    """Yield one round at a time: microseconds a row of each subject. Two rounds of warm-up come first."""
    calls = [max(1, int(workload.turn_ms / 1000 / warm_call(subject))) for subject in subjects]
    for _ in range(workload.rounds):
        turns = [one_turn(subject, count) for subject, count in zip(subjects, calls, strict=True)]
        yield [seconds / workload.rows * 1e6 for seconds in turns]


def warm_call(subject: Subject) -> float:
    """Seconds of the quickest of two calls."""
    return min(one_turn(subject, 1) for _ in range(2))


def one_turn(subject: Subject, calls: int) -> float:
    """Mean seconds of some calls in a row, after one that isn't counted."""
    subject.run()
    start = perf_counter()
    for _ in range(calls):
        subject.run()
    return (perf_counter() - start) / calls


def ratios(timings: Timings, yardstick: int) -> NDArray[np.float64]:
    """How many times faster than the yardstick each subject is: (rounds, subjects) -> (subjects,)."""
    per_round = timings[:, [yardstick]] / timings  # (rounds, 1) / (rounds, subjects)
    return np.asarray(np.median(per_round, axis=0))
