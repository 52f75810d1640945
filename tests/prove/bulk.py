"""`python -m tests.prove.bulk --texts FILE --rows 10_000_000 --kill`: a big Parquet file, scored whole.

Its rows are real texts in a random order, again and again. Beside each run stands what the engine alone does with the
same texts in memory, on as many processes, before and after it. Every row of the output is then held against its input
and against the scores of its text alone: none may be missing, doubled, moved or other than it should be.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from service.bench.machine import these_surroundings
from service.bench.process import usage
from service.bench.texts import SENTENCES, read_texts
from service.bundle.manifest import Precision
from service.bundle.tasks import Scores
from service.host.cores import cores
from service.offline.scoring import Scorer
from tests.prove.alone import Alone, Rate, rate
from tests.prove.bounds import Bound, conclude, run

GROUP = 131_072
LEAST, LEAST_OF_RAY = 0.85, 0.75
MOST_MIB = 1024
LOOK_S, KILL_LOOK_S = 0.5, 0.01  # looking for the part to kill after must be quicker than a part


@dataclass(frozen=True, slots=True)
class Input:
    """A file whose row N is the text at order[N % len(order)]."""

    path: Path
    rows: int
    texts: tuple[str, ...]
    order: NDArray[np.int64]

    def places(self, first: int, last: int) -> NDArray[np.int64]:
        """Which text each of these rows is."""
        found: NDArray[np.int64] = self.order[np.arange(first, last) % len(self.order)]
        return found


@dataclass(frozen=True, slots=True)
class Bulk:
    """One run, or two of which the first was killed."""

    engine: str
    killed_after: int | None  # parts
    seconds: float
    rows_s: float
    peak_mib: float  # of all its processes together
    cpu_us: float  # of a row, all processes together
    alone: tuple[Rate, Rate]  # before and after
    wrong_rows: int

    @property
    def share(self) -> float:
        """Of what the engine alone does."""
        return self.rows_s / mean(each.rows_s for each in self.alone)

    @property
    def cpu_share(self) -> float:
        """The same by time on a core, which other processes do not change."""
        return mean(each.cpu_us for each in self.alone) / self.cpu_us


def main() -> int:
    asked = parse()
    processes = asked.threads or cores()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        texts = tuple(read_texts(asked.texts)) if asked.texts else SENTENCES
        source = write_input(Path(folder) / "in.parquet", texts, asked.rows, asked.seed)
        alone = Alone(asked.bundle, asked.precision, texts, asked.seconds, processes)
        found = []
        for engine in filter(None, asked.engines.split(",")):
            command = classify(asked, engine, processes, source.path, Path(folder) / engine)
            found.append(measured(command, engine, source, alone, None))
        if asked.kill:
            command = classify(asked, "local", processes, source.path, Path(folder) / "killed")
            found.append(measured(command, "local", source, alone, -(-asked.rows // asked.part_rows) // 2))
    details = {"surroundings": asdict(these_surroundings()), "rows": asked.rows, "distinct": len(texts)}
    return conclude(list(bounds(found)), details | {"runs": [asdict(each) for each in found]}, asked.json)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, help="TXT or TSV, .gz too; else some of our own")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--bundle", type=Path, default=Path("models/sst2-bilstm/1"))
    parser.add_argument("--precision", type=Precision, default=Precision.EXACT)
    parser.add_argument("--engines", default="local", help="local, ray or local,ray; empty: none")
    parser.add_argument("--kill", action="store_true", help="once more, killed half-way and begun again")
    parser.add_argument("--threads", type=int, help="processes; else one a core")
    parser.add_argument("--part-rows", type=int, default=65_536)
    parser.add_argument("--seconds", type=float, default=30, help="of the engine alone, each time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work; else where temporary files are")
    parser.add_argument("--json", type=Path, help="write the report here, not to stdout")
    return parser.parse_args()


def bounds(found: Sequence[Bulk]) -> Iterator[Bound]:
    """What must hold."""
    whole = {each.engine: each for each in found if each.killed_after is None}
    for each in found:
        title = each.engine if each.killed_after is None else f"{each.engine}, killed and begun again"
        yield Bound(f"{title}: rows lost, doubled, moved or wrong", each.wrong_rows, 0)
    if local := whole.get("local"):
        yield Bound("local: share of the engine's throughput in memory", local.share, LEAST, at_least=True)
        yield Bound("local: the same by time on a core", local.cpu_share, LEAST, at_least=True)
        yield Bound("local: MiB of all processes, most", local.peak_mib, MOST_MIB)
        if ray := whole.get("ray"):
            share = ray.rows_s / local.rows_s
            yield Bound("ray: share of the local run's throughput", share, LEAST_OF_RAY, at_least=True)


def classify(asked: argparse.Namespace, engine: str, processes: int, source: Path, out: Path) -> list[str]:
    """The command."""
    flags = ["--models", str(asked.bundle.parent.parent), "--model", f"{asked.bundle.parent.name}@{asked.bundle.name}"]
    flags += ["--precision", asked.precision, "--keep", "id", "--engine", engine, "--threads", str(processes)]
    flags += ["--part-rows", str(asked.part_rows), "--out", f"{out}/"]
    return [sys.executable, "-m", "service", "classify", str(source), *flags]


def write_input(path: Path, texts: Sequence[str], rows: int, seed: int) -> Input:
    """Row group by row group: it may be larger than memory."""
    order = np.random.default_rng(seed).permutation(len(texts))
    found, values = Input(path, rows, tuple(texts), order), pa.array(texts)
    schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, rows, GROUP):
            last = min(first + GROUP, rows)
            columns = [pa.array(np.arange(first, last)), values.take(pa.array(found.places(first, last)))]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    return found


def measured(command: list[str], engine: str, source: Input, alone: Alone, kill_after: int | None) -> Bulk:
    """Run it, with the engine alone before and after, and look at all that it wrote."""
    out = Path(command[-1])
    before = rate(alone)
    used = seconds = peak = 0.0
    for killing in (kill_after, None) if kill_after is not None else (None,):
        took, cpu_s, most = finished(command, out, killing)
        seconds, used, peak = seconds + took, used + cpu_s, max(peak, most)
    after = rate(alone)
    wrong = wrong_rows(out, source, reference(alone))
    rows_s, cpu_us = source.rows / seconds, used / source.rows * 1e6
    return Bulk(engine, kill_after, seconds, rows_s, peak, cpu_us, (before, after), wrong)


def finished(command: list[str], out: Path, kill_after: int | None) -> tuple[float, float, float]:
    """Seconds, seconds on a core, and the most MiB; killed as soon as so many parts are there."""
    started, cpu_s, peak = time.perf_counter(), 0.0, 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            used = usage(process.pid)
            if used is not None:  # it has not ended meanwhile
                cpu_s, peak = max(cpu_s, used.cpu_s), max(peak, used.rss_mib)
            if kill_after is not None and len(list(out.glob("part-*"))) >= kill_after:
                os.kill(process.pid, signal.SIGKILL)
            time.sleep(LOOK_S if kill_after is None else KILL_LOOK_S)
    if process.returncode != (0 if kill_after is None else -signal.SIGKILL):
        raise SystemExit(f"error: {' '.join(command)} ended with {process.returncode}")
    return time.perf_counter() - started, cpu_s, peak


def reference(alone: Alone) -> Scores:
    """(N, L): the scores of each text."""
    with Scorer(alone.open(), alone.processes) as scorer:
        return scorer.begin(alone.texts).scores()


def wrong_rows(out: Path, source: Input, scores: Scores) -> int:
    """Rows of the output that are not what stands at their place, and those that it has too many or too few."""
    values, seen, wrong = pa.array(source.texts), 0, 0
    for part in sorted(out.glob("part-*.parquet")):
        for batch in pq.ParquetFile(part).iter_batches():
            last = seen + batch.num_rows
            places = source.places(seen, last)
            said = np.column_stack([batch.column(name) for name in batch.schema.names if name.startswith("score_")])
            good = np.asarray(batch.column("id")) == np.arange(seen, last)
            good &= np.asarray(pc.equal(batch.column("text"), values.take(pa.array(places))))
            good &= np.abs(said - scores[places]).max(axis=1) < 1e-6
            wrong += int((~good).sum())
            seen = last
    return wrong + abs(source.rows - seen)


if __name__ == "__main__":
    run(main)
