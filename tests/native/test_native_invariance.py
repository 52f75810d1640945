"""A row's logits by the native engine are the same bits whatever runs beside it, and by whichever instructions."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.networks.students import Form, Shape
from service.bundle.engine import RunHandle
from service.bundle.errors import RunAborted
from service.bundle.native import NativeGraph
from service.bundle.tasks import Logits
from tests.native.natively import NAMES, NEEDED, OTHER, PLAIN, Kind, feeds_of, isas, native, own

pytestmark = NEEDED

KINDS = [Kind(name, shape) for name in NAMES for shape in (PLAIN, OTHER)]
WIDE = Kind(NAMES[0], Shape(vocabulary=40, embedding=20, hidden=37, dense=21, labels=3))
WIDER = Kind(NAMES[0], Shape(vocabulary=40, embedding=3, hidden=131, dense=5, labels=3))

ids = st.integers(0, 39)
rows_of = st.lists(st.lists(ids, min_size=1, max_size=14), min_size=1, max_size=70)


def by_rows(graph: NativeGraph, kind: Kind, rows: list[list[int]], more: int = 0) -> list[Logits]:
    return own(graph.run(feeds_of(kind, rows, more)), [len(row) for row in rows])


def are_equal(first: list[Logits], second: list[Logits]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.name}-{kind.shape.pooling}")
@settings(max_examples=20)
@given(rows=rows_of, more=st.integers(0, 3), seed=st.integers(0, 9))
def test_company_order_and_padding_change_no_bit(kind: Kind, rows: list[list[int]], more: int, seed: int) -> None:
    graph = OPEN.setdefault(kind, native(kind.graph()))
    together = by_rows(graph, kind, rows, more)
    assert are_equal(together, [logits for row in rows for logits in by_rows(graph, kind, [row])])
    order = np.random.default_rng(seed).permutation(len(rows)).tolist()
    assert are_equal(by_rows(graph, kind, [rows[place] for place in order]), [together[place] for place in order])


OPEN: dict[Kind, NativeGraph] = {}


@pytest.mark.parametrize("threads", [2, 3, 8])
@pytest.mark.parametrize("name", NAMES, ids=str)
def test_the_number_of_threads_changes_no_bit(name: tuple[str, Form], threads: int) -> None:
    kind = Kind(name, PLAIN)
    graph = kind.graph()
    one, several = native(graph), native(graph, threads)
    rng = np.random.default_rng(0)
    for count in (1, 2, 5, 33, 200):
        rows = [rng.integers(0, 40, rng.integers(1, 20)).tolist() for _ in range(count)]
        assert are_equal(by_rows(one, kind, rows), by_rows(several, kind, rows))


@pytest.mark.parametrize("kind", [*KINDS, WIDE, WIDER], ids=lambda kind: f"{kind.name}-{kind.shape.hidden}")
def test_all_sets_of_instructions_give_the_same_bits(kind: Kind) -> None:
    graph = kind.graph(seed=2)
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 40, rng.integers(1, 30)).tolist() for _ in range(37)]
    found = {isa: native(graph, isa=isa) for isa in isas()}
    assert {graph.isa for graph in found.values()} >= {"portable", "emulated"}
    first, *others = (by_rows(graph, kind, rows) for graph in found.values())
    assert all(are_equal(first, other) for other in others)


def test_what_a_thread_does_to_subnormal_numbers_changes_no_bit() -> None:
    """Torch can let a thread take them for zeros. A table of tiny gates is full of them."""
    graph = WIDE.graph(scale=2e-4)
    rows = [[1, 2, 3], [4], [5, 6]]
    for isa in isas():
        wanted = by_rows(native(graph, isa=isa), WIDE, rows)
        torch.set_flush_denormal(True)
        try:
            found = by_rows(native(graph, isa=isa), WIDE, rows)
        finally:
            torch.set_flush_denormal(False)
        assert are_equal(found, wanted)


def test_calls_from_several_threads_share_one_graph() -> None:
    graph = native(WIDE.graph(), threads=2)
    rng = np.random.default_rng(0)
    batches = [[rng.integers(0, 40, rng.integers(1, 30)).tolist() for _ in range(20)] for _ in range(40)]
    wanted = [by_rows(graph, WIDE, rows) for rows in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda rows: by_rows(graph, WIDE, rows), batches))
    assert all(map(are_equal, found, wanted))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_after_a_fork_the_child_runs_without_the_threads() -> None:
    graph = native(KINDS[0].graph(), threads=8)
    rows = [[1, 2, 3], [4], [5, 6]] * 8
    wanted = by_rows(graph, KINDS[0], rows)
    for _ in range(50):  # the fork often comes while a thread holds a lock, which the child has for ever
        by_rows(graph, KINDS[0], rows)
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            os._exit(0 if are_equal(by_rows(graph, KINDS[0], rows), wanted) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_another_thread_can_end_a_run() -> None:
    graph, handle = native(WIDE.graph()), RunHandle()
    feeds = feeds_of(WIDE, [[1] * 200_000] * 32)
    timer = threading.Timer(0.05, handle.abort)
    timer.start()
    with pytest.raises(RunAborted, match="given up"):
        graph.run(feeds, handle)
    timer.join()
    assert handle.aborted


def test_a_run_that_was_given_up_beforehand_does_not_start_and_harms_no_other() -> None:
    graph, handle = native(WIDE.graph(), threads=2), RunHandle()
    feeds = feeds_of(WIDE, [[1, 2, 3]])
    handle.abort()
    with pytest.raises(RunAborted):
        graph.run(feeds, handle)
    assert np.isfinite(graph.run(feeds, RunHandle())).all()
