"""What the engine does with texts in memory, on several processes at once: what a run over files is divided by."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, process_time

from service.bundle.engines import Engine
from service.bundle.manifest import Precision
from service.bundle.runtime import EngineOptions, OpenBundle, open_bundle
from service.offline.scoring import Scorer, Sizes

WARM_UP = 2


@dataclass(frozen=True, slots=True)
class Alone:
    """What to measure, and for how long."""

    bundle: Path
    precision: Precision
    texts: tuple[str, ...]
    seconds: float
    processes: int

    def open(self) -> OpenBundle:
        """By the engine that `classify` takes if nothing is said."""
        return open_bundle(self.bundle, self.precision, EngineOptions(engine=Engine.AUTO))


@dataclass(frozen=True, slots=True)
class Rate:
    """Of all processes together."""

    rows_s: float
    cpu_us: float  # of a row; the same whatever else the machine does


def rate(alone: Alone) -> Rate:
    """Tokenise, run, make scores, and nothing else."""
    with get_context("spawn").Pool(alone.processes) as pool:
        found = pool.map(_one, [alone] * alone.processes, chunksize=1)
    return Rate(sum(each.rows_s for each in found), sum(each.cpu_us for each in found) / len(found))


def _one(alone: Alone) -> Rate:
    windows = _windows(alone.texts)
    with Scorer(alone.open(), 1) as scorer:
        for window in windows[:WARM_UP]:
            scorer.begin(window).scores()
        rows, started, used = 0, perf_counter(), process_time()
        for window in cycle(windows):
            scorer.begin(window).scores()
            rows += len(window)
            if perf_counter() - started >= alone.seconds:
                break
        return Rate(rows / (perf_counter() - started), (process_time() - used) / rows * 1e6)


def _windows(texts: Sequence[str]) -> list[Sequence[str]]:
    """As large as those of a file."""
    size = Sizes().window_rows
    return [texts[start : start + size] for start in range(0, len(texts), size)]
