"""The simulation of several replicas: its cores do one thing at a time, and more of them answer more."""

import pytest

from tests.prove.scale_out import Costs, Load, Replica, bounds, capacity, growth, least_open, offered, outcome
from tests.service.batching.simulation import VirtualLoop

COSTS = Costs(request=100e-6, run=0.0, token=0.0)


def replicas(number: int, loop: VirtualLoop) -> list[Replica]:
    return [Replica(COSTS, loop) for _ in range(number)]


def test_cores_answer_what_fits_into_their_time() -> None:
    loop = VirtualLoop()
    most = {n: loop.run_until_complete(capacity(replicas(n, loop), least_open, 0.3, loop)) for n in (1, 3)}
    loop.close()
    assert most[1] == pytest.approx(1 / COSTS.request, rel=0.02)
    assert [bound.what for bound in growth(most) if not bound.kept] == []


def test_four_are_no_slower_at_four_times_the_load() -> None:
    loop, found = VirtualLoop(), []
    for number in (1, 4):
        load = Load(5000 * number, 0.1, seed=0)
        latencies, refused = loop.run_until_complete(offered(load, replicas(number, loop), least_open, loop))
        assert min(latencies) >= COSTS.request * 0.999
        found.append(outcome(number, "least open", 0.5, load, latencies, refused))
    loop.close()
    assert [bound.what for bound in bounds(found) if not bound.kept] == []
