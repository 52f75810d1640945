"""`python -m tests.prove.swaps`: new versions while clients ask, bad versions while clients ask, and kill -9 meanwhile.

Versions with other weights are put in place one after another. Every answer must be that very version's own, and no
older than what anyone knew when the question was sent. Then bad bundles: each is refused and the old version goes on.
Then the service and whoever publishes are killed at random moments; whatever lies there serves, whole, at once.
Any part with the number 0 is left out. Exit code 1 if anything is wrong, 2 if it cannot begin.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from service.bench.machine import these_surroundings
from service.bench.process import Usage
from service.bench.texts import SENTENCES
from tests.prove.activating import Kills, kill_again_and_again
from tests.prove.bounds import Bound, conclude, run
from tests.prove.editions import Press
from tests.prove.history import TOLERANCE, Verdict
from tests.prove.swapping import Place, Refusals, Swaps, swap_again_and_again, tempt_again_and_again

TEXTS = (*SENTENCES[:12], "good", "bad , but not too long", "", "🙂")
MOST_MIB = 20
MOST_SWAP_S, MOST_START_S = 20.0, 15.0
APART = 0.999
ENOUGH = 20
"""So many kills should hit both sides of the rename."""


def main() -> int:
    asked = _arguments()
    surroundings = these_surroundings()
    bounds: list[Bound] = []
    details: dict[str, Any] = {"surroundings": asdict(surroundings), "arguments": vars(asked)}
    if asked.swaps:
        with _place(asked.bundle) as place:
            swaps = swap_again_and_again(place, asked.swaps)
        bounds += bounds_of_swaps(swaps, asked.swaps)
        details["swaps"] = asdict(swaps)
    if asked.defects:
        with _place(asked.bundle) as place:
            refusals = tempt_again_and_again(place, asked.defects, asked.seed)
        bounds += bounds_of_refusals(refusals, asked.defects)
        details["defects"] = asdict(refusals)
    if asked.kills:
        with _place(asked.bundle) as place:
            kills = kill_again_and_again(place, asked.kills, asked.seed)
        bounds += bounds_of_kills(kills, asked.kills)
        details["kills"] = asdict(kills)
    return conclude(bounds, details, asked.json)


def bounds_of_swaps(found: Swaps, wanted: int) -> list[Bound]:
    """What is promised of new versions."""
    return [
        Bound("swaps: versions that took over", found.taken_over, wanted, at_least=True),
        Bound("swaps: slowest, s", max(found.seconds, default=None), MOST_SWAP_S),
        *_of_answers("swaps", found.verdict),
        Bound("swaps: versions that answered", found.verdict.versions, wanted + 1, at_least=True),
        Bound("swaps: answers that tell their version", found.told_apart, APART, at_least=True),
        Bound("swaps: growth of memory since before the first, MiB", _grown(found.cold, found, "rss_mib"), MOST_MIB),
        Bound("swaps: growth of threads since the first few", _grown(found.before, found, "threads"), 0),
        Bound("swaps: growth of open files since the first few", _grown(found.before, found, "files"), 0),
    ]


def bounds_of_refusals(found: Refusals, wanted: int) -> list[Bound]:
    """What is promised of bad bundles."""
    return [
        Bound("defects: tried", len(found.outcomes), wanted, at_least=True),
        Bound("defects: not refused", sum(not outcome.refused for outcome in found.outcomes), 0),
        Bound("defects: not refused in one line without places", sum(not each.discreet for each in found.outcomes), 0),
        Bound("defects: files opened elsewhere", sum(outcome.opened for outcome in found.outcomes), 0),
        Bound("defects: files changed elsewhere, or in the bundle", sum(each.changed for each in found.outcomes), 0),
        *_of_answers("defects", found.verdict),
        Bound("defects: good versions between them that did not take over", found.stuck, 0),
    ]


def bounds_of_kills(found: Kills, wanted: int) -> list[Bound]:
    """What is promised of a service that is killed."""
    bounds = [
        Bound("kills: done", len(found.outcomes), wanted, at_least=True),
        Bound("kills: starts that failed", sum(outcome.ready_s is None for outcome in found.outcomes), 0),
        Bound("kills: slowest start, s", max((o.ready_s or 0 for o in found.outcomes), default=None), MOST_START_S),
        Bound("kills: another version than the folder holds", sum(not o.right_version for o in found.outcomes), 0),
        Bound("kills: wrong answers", sum(outcome.wrong for outcome in found.outcomes), 0),
    ]
    if wanted < ENOUGH:
        return bounds
    new = sum(outcome.published for outcome in found.outcomes)
    return [
        *bounds,
        Bound("kills: after which the new version was there", new, 1, at_least=True),
        Bound("kills: after which it was not", len(found.outcomes) - new, 1, at_least=True),
    ]


def _of_answers(part: str, verdict: Verdict) -> list[Bound]:
    return [
        Bound(f"{part}: requests", verdict.requests, 1, at_least=True),
        Bound(f"{part}: failed, foreign, early, stale, misnamed or wrong", sum(verdict.faults.values()), 0),
        Bound(f"{part}: farthest score", verdict.farthest, TOLERANCE),
    ]


def _grown(before: Usage | None, found: Swaps, what: str) -> float | None:
    if before is None or found.after is None:
        return None
    return float(getattr(found.after, what) - getattr(before, what))


@contextmanager
def _place(source: Path) -> Iterator[Place]:
    with TemporaryDirectory(prefix="understudy-swaps-") as folder:
        yield Place(Path(folder), Press(source, Path(folder) / "waiting", TEXTS))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("models/sst2-bilstm/1"), help="whose weights are changed")
    parser.add_argument("--swaps", type=int, default=200)
    parser.add_argument("--defects", type=int, default=100)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the report here, not to stdout")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
