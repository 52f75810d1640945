"""`python -m tests.prove.soak`: the service under an ordinary load for a long time, and what goes wrong meanwhile.

Mixed lengths and numbers of texts; one request in a hundred is bad, one client in a hundred hangs up; new versions are
published and workers killed. Every answer is compared with the model's own. Nothing is wrong, nothing is lost but what
a killed worker held, memory does not grow with the number of requests; else the exit code is 1.

With --plant-leak each request leaves 1 KiB behind, and the exit code is 0 if that is found, and nothing else.
"""

import argparse
import asyncio
import random
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from service.bench.engine import parse_entry
from service.bench.machine import these_surroundings
from service.bench.samples import Failure
from service.bench.served import Service, serve_command, started
from service.bench.texts import SENTENCES, read_texts
from service.bench.wire import Caller, Dialect
from service.bench.worker import pinned, quick_loop
from service.bundle.runtime import OpenBundle
from tests.prove.answers import Exam, examine
from tests.prove.bounds import Bound, conclude, run
from tests.prove.flags import load_parser
from tests.prove.memory import MILLION, Slope, memory_slope
from tests.prove.strain import AFTERMATH_S, Diary, Event, Strain, Troubles, publisher
from tests.prove.versions import Shelf

LEAK = 1024  # bytes a request
MIB = 2**20
EXCUSED = {429, 503, Failure.LOST, Failure.TIMEOUT}
"""What may become of a request while a worker is missing."""


def main() -> int:
    asked = _arguments()
    entry, surroundings = parse_entry(asked.bundle), these_surroundings()
    bundle = entry.open()
    with TemporaryDirectory(prefix="understudy-soak-") as models:
        publish = publisher(Shelf(Path(models) / bundle.manifest.name), entry.folder)
        publish(1)
        command = _command(Path(models), [*entry.flags, *_flags(asked)], leak=asked.plant_leak)
        with started(command, asked.server_cpu) as service, pinned(asked.client_cpu):
            exam = _exam(asked, bundle, service)
            strain = Strain(service, exam, publish, _troubles(asked))
            rate = _strained(asked, strain)
    slope = memory_slope(strain.diary.readings, asked.settle, max(1, asked.workers))
    details = {
        "surroundings": asdict(surroundings) | {"idle": surroundings.idle},
        "arguments": vars(asked),
        "rate": rate,
        "slope": None if slope is None else asdict(slope),
        **_described(strain.diary, exam),
    }
    return conclude(_bounds(asked, strain.diary, slope), details, asked.json)


def _strained(asked: argparse.Namespace, strain: Strain) -> float:
    """Run it all; the rate that it ran at."""
    with asyncio.Runner(loop_factory=quick_loop) as runner:
        rate: float = asked.rate or asked.share * runner.run(strain.peak(asked.connections, seconds=5))
        runner.run(strain.run(rate, asked.minutes * 60, asked.segment))
    return rate


def _bounds(asked: argparse.Namespace, diary: Diary, slope: Slope | None) -> Sequence[Bound]:
    outside = sum(count for status, count in diary.outcomes.items() if status < 0 or status == 429 or status >= 500)
    within = sum(
        count for status, count in diary.aftermath.items() if (status < 0 or status >= 500) and status not in EXCUSED
    )
    wrong = (diary.outcomes + diary.aftermath)[Failure.WRONG]
    bounds = [
        Bound("wrong answers", wrong, 0),
        Bound("requests lost or refused without a reason", outside, 0),
        Bound(f"and within {AFTERMATH_S:g} s of a kill", within, 0),
        *_coping("new versions that never answered", diary.swaps),
        *_coping("killed workers that were not replaced", diary.kills),
    ]
    found = None if slope is None else slope.estimate
    if not asked.plant_leak:
        return [*bounds, Bound("memory, MiB per million requests", found, asked.max_slope)]
    planted = LEAK * MILLION / MIB
    low = None if slope is None else slope.low
    return [
        *bounds,
        Bound("the leak is beyond doubt: lower end of its interval", low, asked.max_slope, at_least=True),
        Bound("the leak found / the leak planted", found and found / planted, 0.7, at_least=True),
        Bound("the leak found / the leak planted", found and found / planted, 1.5),
    ]


def _coping(what: str, events: Sequence[Event]) -> list[Bound]:
    """One promise, if there were any such events."""
    return [Bound(f"{what}, of {len(events)}", sum(event.coped_s is None for event in events), 0)] if events else []


def _described(diary: Diary, exam: Exam) -> dict[str, Any]:
    """All that happened, for the report."""
    quarter = max(1, len(diary.segments) // 4)
    p99 = [segment.latency_ms.p99 for segment in diary.segments if segment.latency_ms]
    return {
        "requests": sum(segment.requests for segment in diary.segments),
        "answers_compared": exam.judged,
        "farthest_score": exam.farthest,
        "newest_version": exam.newest,
        "faults": exam.faults,
        "outcomes": _named(diary.outcomes),
        "aftermath_of_kills": _named(diary.aftermath),
        "mishaps": list(map(asdict, diary.mishaps)),
        "hang_ups": diary.hang_ups,
        "swaps": list(map(asdict, diary.swaps)),
        "kills": list(map(asdict, diary.kills)),
        "p99_ms_first_quarter": median(p99[:quarter]) if p99 else None,
        "p99_ms_last_quarter": median(p99[-quarter:]) if p99 else None,
        "segments": list(map(asdict, diary.segments)),
        "readings": list(map(asdict, diary.readings)),
    }


def _named(outcomes: Counter[int]) -> dict[str, int]:
    return {
        str(status) if status > 0 else Failure(status).name.lower(): count for status, count in sorted(outcomes.items())
    }


def _exam(asked: argparse.Namespace, bundle: OpenBundle, service: Service) -> Exam:
    texts = read_texts(asked.texts) if asked.texts else SENTENCES
    return examine(bundle, Caller(service.target, Dialect.CLASSIFY), texts, random.Random(asked.seed))


def _command(models: Path, flags: Sequence[str], *, leak: bool) -> list[str]:
    command = serve_command(models, flags)
    if leak:
        command[command.index("service")] = "tests.prove.leaking"
        command.insert(command.index("serve"), str(LEAK))
    return command


def _flags(asked: argparse.Namespace) -> list[str]:
    flags = shlex.split(asked.serve_args)
    flags += ["--reload-seconds", str(asked.reload_seconds)] if asked.swap_every else []
    flags += ["--workers", str(asked.workers)] if asked.workers else []
    return flags


def _troubles(asked: argparse.Namespace) -> Troubles:
    return Troubles(asked.swap_every, asked.kill_every, reload_s=asked.reload_seconds)


def _arguments() -> argparse.Namespace:
    parser = load_parser(__doc__)
    parser.add_argument("--bundle", default="models/sst2-bilstm/1", help="DIR or DIR:exact; its answers are known")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--share", type=float, default=0.7, help="of the peak")
    parser.add_argument("--rate", type=float, help="requests a second instead")
    parser.add_argument("--connections", type=int, default=32, help="of the closed loop that finds the peak")
    parser.add_argument("--swap-every", type=float, default=60, help="seconds; 0: never")
    parser.add_argument("--reload-seconds", type=float, default=2, help="how often the service looks for new versions")
    parser.add_argument("--kill-every", type=float, default=0, help="seconds; 0: never; wants --workers")
    parser.add_argument("--workers", type=int, default=0, help="0: leave it to the service")
    parser.add_argument("--serve-args", default="", help="more flags for the service")
    parser.add_argument("--segment", type=float, default=20, help="seconds after which all connections are closed")
    parser.add_argument("--settle", type=float, default=60, help="seconds of a process that its slope leaves out")
    parser.add_argument("--max-slope", type=float, default=1.0, help="MiB per million requests")
    parser.add_argument("--plant-leak", action="store_true", help="serve with a leak, which has to be found")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
