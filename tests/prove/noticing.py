"""What does the watch cost on the way of an answer, and what afterwards? Real texts, the real student.

    python -m tests.prove.noticing --student models/NAME/VERSION --texts dev.tsv.gz

`notice` is called for each request before its answer is sent; `taken in` is done soon after, on the same event loop.
Time is that of the loop's own thread on its core.
"""

import argparse
import asyncio
import gc
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from time import thread_time

from export.measuring.profiles import Seen
from service.bench.texts import read_texts
from service.bundle.encoder import Row, Text
from service.bundle.manifest import Manifest, Precision
from service.bundle.runtime import open_bundle
from service.bundle.store import write_bundle
from service.oversight.watch import Watch
from service.predictors import Outcome, Predictor
from service.settings import Settings
from tests.prove.bounds import Bound, conclude, run
from tests.running import opened

REQUESTS = 20_000  # or fewer with more rows
ROUNDS = 5
NOTICE_US, TAKEN_IN_US = 2.0, 4.0  # a row


@dataclass(frozen=True)
class Asked:
    """A request that was answered."""

    texts: Sequence[Text]
    rows: Sequence[Row]
    outcomes: Sequence[Outcome]


@dataclass(frozen=True)
class Cost:
    """Of requests with so many rows, the best of several rounds."""

    rows: int
    notice_us: float  # a request
    taken_in_us: float  # a row


def main() -> int:
    options = _options()
    with TemporaryDirectory() as folder:
        costs = asyncio.run(_measure(options, Path(folder)))
    bounds = []
    for cost in costs:
        bounds.append(Bound(f"{cost.rows} rows a request: notice, µs a row", cost.notice_us / cost.rows, NOTICE_US))
        bounds.append(Bound(f"{cost.rows} rows a request: taken in, µs a row", cost.taken_in_us, TAKEN_IN_US))
    return conclude(bounds, {"costs": [asdict(cost) for cost in costs]}, options.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, required=True, help="folder of its bundle")
    parser.add_argument("--texts", type=Path, required=True, help="TXT or TSV, .gz too; the profile is theirs")
    parser.add_argument("--json", type=Path, help="write the report here, not to stdout")
    return parser.parse_args()


async def _measure(options: argparse.Namespace, folder: Path) -> list[Cost]:
    """The application with this student, all that needs no teacher switched on."""
    texts = read_texts(options.texts)
    name = _publish(options.student, texts, folder / "models")
    settings = Settings(models=folder / "models", capture=folder / "capture.db", capture_share=0.01)
    async with opened(settings) as door:
        watch, predictor = door.desk.watch, door.lifecycle.catalogue.resolve(name)
        assert watch is not None
        return [_cost(watch, predictor, _asked(predictor, texts, rows)) for rows in (1, 8, 32, 256)]


def _publish(source: Path, texts: Sequence[str], models: Path) -> str:
    """The student with a profile of these texts."""
    bundle = open_bundle(source)
    rows: list[Row] = [*bundle.encoder.encode(texts)]
    profile = Seen("texts", rows, bundle.encoder.unknown_id).profile(bundle.classify(texts), 1.0, None)
    manifest = Manifest.model_validate(bundle.manifest.model_dump(exclude={"seal"}) | {"calibration": {}})
    manifest = manifest.model_copy(update={"profile": {Precision.EXACT: profile}})
    files = {file: (source / file).read_bytes() for file in manifest.files}
    write_bundle(models / manifest.name / manifest.version, manifest, files, card=None)
    return manifest.name


def _asked(predictor: Predictor, texts: Sequence[str], rows: int) -> Asked:
    bundle, some = predictor.bundle, list(islice(cycle(texts), rows))
    logits = bundle.classify(some)
    outcomes = list(map(Outcome, bundle.scores(logits).tolist(), logits.tolist()))
    return Asked(some, bundle.encoder.encode(some), outcomes)


def _cost(watch: Watch, predictor: Predictor, asked: Asked) -> Cost:
    """Nothing else runs meanwhile: the event loop waits for us."""
    rows, requests = len(asked.rows), max(1, REQUESTS // len(asked.rows))
    noticing, taking = float("inf"), float("inf")
    gc.collect()
    for _ in range(ROUNDS):
        started = thread_time()
        for _ in range(requests):
            watch.notice(predictor, asked.texts, asked.rows, asked.outcomes)
        noticed = thread_time()
        while watch._answered:
            watch._take_in()
        noticing = min(noticing, noticed - started)
        taking = min(taking, thread_time() - noticed)
    return Cost(rows, 1e6 * noticing / requests, 1e6 * taking / requests / rows)


if __name__ == "__main__":
    run(main)
