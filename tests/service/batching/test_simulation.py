"""Every request gets exactly one answer, and its own, whatever happens: see tests/service/batching/simulation.py."""

from collections import Counter
from typing import Any

import pytest

from service.batching.backlog import Backlog
from service.batching.batcher import Batcher
from service.batching.jobs import Job
from tests.service.batching.simulation import Violation, simulate

KEPT: tuple[int, ...] = ()
"""Seeds that once failed."""

SEEDS = 400


@pytest.mark.parametrize("block", range(4))
def test_every_request_gets_exactly_one_answer_and_its_own(block: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(block, SEEDS, 4):
        seen += simulate(seed)
    ends = ("answered", "cancelled", "Expired", "RowFailed", "WorkerLost", "refused: QueueFull")
    wanted = (*ends, "swapped", "hung", "died")
    assert all(seen[event] for event in wanted), seen  # or the simulation would prove nothing


def test_what_once_failed() -> None:
    for seed in KEPT:
        simulate(seed)


def crossed(job: Job[str, str], index: int, outcome: str, run: object) -> None:
    put(job, -1 - index, outcome, run)


def forgetful(backlog: Backlog[str, str], entry: object) -> None:
    """Counts rows but neither their tokens nor whose they are."""
    backlog.rows -= 1


def careless(batcher: Batcher[str, str], worker: object, how: str) -> None:
    """Does not mind a lost worker."""


put: Any = Job.put
FAULTS = ((Job, "put", crossed), (Backlog, "_leave", forgetful), (Batcher, "_lose", careless))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault[1])
def test_planted_faults_are_caught(fault: tuple[type, str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*fault)
    with pytest.raises((Violation, TimeoutError)):
        for seed in range(SEEDS):
            simulate(seed)


def test_a_seed_replays_exactly() -> None:
    assert simulate(7) == simulate(7)
