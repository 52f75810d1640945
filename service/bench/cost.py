"""What a text costs: time on a core from text to scores, for several bundles in one run. Knows nothing of tables.

All score the same texts, tokenised, sorted and batched as `classify` does it, on one thread. They take turns, and what
counts is the time that the process had on a core: who else was at work there does not change it much.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from time import process_time

from service.bench.engine import Entry, UnfitWorkload
from service.bundle.manifest import Role, Task
from service.offline.records import Text
from service.offline.scoring import Scorer, Sizes

HOUR_S = 3600
MILLION = 1_000_000


@dataclass(frozen=True)
class Workload:
    """Which texts, and how often."""

    texts: tuple[str, ...]
    rounds: int = 3
    turn_s: float = 1.0  # a turn scores all texts as often as fits, at least once


@dataclass(frozen=True, slots=True)
class Worker:
    """A bundle that scores; one call is all texts once."""

    name: str
    title: str
    role: Role
    once: Callable[[], object]


def hire(entry: Entry, texts: Sequence[str], stack: ExitStack) -> Worker:
    """Open the bundle. Raises BundleError, and UnfitWorkload for one that needs more than texts."""
    bundle = entry.open()
    if bundle.manifest.task is Task.ANSWERING:
        raise UnfitWorkload(f"{entry.folder}: answers questions, and there are none among texts; name other bundles")
    scorer = stack.enter_context(Scorer(bundle, 1))
    windows = _windows(texts, bundle.manifest.texts)

    def once() -> None:
        for window in windows:
            scorer.begin(window).scores()

    name = f"{bundle.manifest.name}@{bundle.manifest.version}"
    return Worker(name, f"{name}:{entry.suffix}", bundle.manifest.role, once)


def turns(workers: Sequence[Worker], workload: Workload) -> Iterator[list[float]]:
    """Round by round: microseconds on a core that a text took each of them. What warms them up does not count."""
    times = [max(1, int(workload.turn_s / _seconds(worker, 1))) for worker in workers]
    for _ in range(workload.rounds):
        yield [
            _seconds(worker, count) / count / len(workload.texts) * 1e6
            for worker, count in zip(workers, times, strict=True)
        ]


def texts_s(us: float) -> float:
    """Of one core."""
    return 1e6 / us


def usd_of_a_million(us: float, core_hour: float) -> float:
    """What a million texts cost on cores that are always busy, at a price in USD for an hour of one."""
    return us / 1e6 * MILLION * core_hour / HOUR_S


def _seconds(worker: Worker, count: int) -> float:
    """On a core."""
    started = process_time()
    for _ in range(count):
        worker.once()
    return process_time() - started


def _windows(texts: Sequence[str], side: int) -> list[list[Text]]:
    """As long as those of files. Who reads pairs gets each text with the next one."""
    size = Sizes().window_rows
    rows: list[Text] = list(texts) if side == 1 else list(zip(texts, [*texts[1:], texts[0]], strict=True))
    return [rows[start : start + size] for start in range(0, len(rows), size)]
