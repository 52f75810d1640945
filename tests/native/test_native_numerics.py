"""The native engine beside ONNX Runtime, over random students of all kinds and widths."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.networks.students import Activation, Form, Pooling, Shape
from tests.native.natively import LINEAR, NAMES, NEEDED, OTHER, PLAIN, Kind, feeds_of, isas, native, own, reference

pytestmark = NEEDED

NEAR = 0.02  # of fp32; the random weights here are several times larger than learned ones
SQUASHED = 2.5e-7  # of sigmoid and tanh from what they should be
VOCABULARY = 40


@st.composite
def kinds(draw: st.DrawFn) -> Kind:
    """Any widths, odd ones and those around whole vectors too."""
    widths = st.one_of(st.integers(1, 20), st.sampled_from([31, 32, 33, 47]))
    name = draw(st.sampled_from(NAMES))
    shape = Shape(
        vocabulary=VOCABULARY,
        embedding=draw(widths),
        hidden=draw(widths),
        dense=draw(widths),
        labels=draw(st.integers(1, 17)),
        pooling=draw(st.sampled_from(Pooling)),
        activation=draw(st.sampled_from(Activation)),
        channels=draw(st.integers(1, 2)),
    )
    return Kind(name, shape)


ids = st.one_of(st.integers(0, VOCABULARY - 1), st.sampled_from([0, VOCABULARY - 1]))
rows_of = st.lists(st.lists(ids, min_size=1, max_size=14), min_size=1, max_size=11)


def distance(kind: Kind, graph: bytes, rows: list[list[int]], more: int, pad: int) -> float:
    feeds = feeds_of(kind, rows, more, pad)
    lengths = [len(row) for row in rows]
    wanted, found = reference(graph, feeds), native(graph).run(feeds)
    assert found.shape == wanted.shape
    assert found.dtype == np.float32
    pairs = zip(own(found, lengths), own(wanted, lengths), strict=True)
    return max(float(np.abs(ours - theirs).max()) for ours, theirs in pairs)


@settings(max_examples=150)
@given(kinds(), st.integers(0, 5), rows_of, st.integers(0, 3), ids)
def test_any_student_answers_as_by_onnxruntime(
    kind: Kind, seed: int, rows: list[list[int]], more: int, pad: int
) -> None:
    assert distance(kind, kind.graph(seed, scale=0.2), rows, more, pad) < NEAR


@pytest.mark.parametrize("shape", [PLAIN, OTHER, LINEAR], ids=["last", "max", "linear"])
@pytest.mark.parametrize("name", NAMES, ids=str)
def test_each_kind_of_student_answers_as_by_onnxruntime(name: tuple[str, Form], shape: Shape) -> None:
    kind = Kind(name, shape)
    rows = [[1, 2, 3], [39], [0, 39, 5, 6, 7, 8, 9, 10], [4, 4]]
    assert distance(kind, kind.graph(), rows, 2, 7) < NEAR


def test_sigmoid_and_tanh_are_exact_to_a_few_units_of_the_last_place() -> None:
    import understudy_native

    largest = np.finfo(np.float32).max
    ends = [0.0, -0.0, 1e-30, -1e-30, 1e4, -1e4, largest, -largest, np.inf, -np.inf]
    values = np.concatenate([np.linspace(-60, 60, 1_000_003), np.linspace(-0.01, 0.01, 10_001), ends]).astype(
        np.float32
    )
    wide = values.astype(np.float64)
    with np.errstate(over="ignore"):
        wanted = 1 / (1 + np.exp(-wide)), np.tanh(wide)
    found = [understudy_native.squash(values, isa) for isa in map(str, isas())]
    assert all(np.array_equal(found[0], each) for each in found)
    for ours, exact in zip(found[0], wanted, strict=True):
        assert np.abs(np.asarray(ours) - exact).max() < SQUASHED


@pytest.mark.parametrize("scale", [1.0, 5.0, 40.0])
def test_gates_far_beyond_one_end_at_their_limits(scale: float) -> None:
    kind = Kind(NAMES[0], PLAIN)
    graph = kind.graph(seed=1, scale=scale)
    feeds = feeds_of(kind, [[3] * 200, [5, 6], [1, 2, 3, 4]])
    wanted, found = reference(graph, feeds), native(graph).run(feeds)
    assert np.isfinite(found).all()
    assert np.abs(found - wanted).max() < NEAR * np.abs(wanted).max()


def test_a_long_text_is_read_to_its_end() -> None:
    kind = Kind(NAMES[0], PLAIN)
    graph = kind.graph(scale=0.2)
    rows = [list(np.random.default_rng(0).integers(0, VOCABULARY, length)) for length in (1500, 3, 700)]
    assert distance(kind, graph, rows, 0, 0) < NEAR


def test_many_rows_are_run_in_parts() -> None:
    kind = Kind(NAMES[0], PLAIN)
    rng = np.random.default_rng(1)
    rows = [list(rng.integers(0, VOCABULARY, rng.integers(1, 12))) for _ in range(150)]
    assert distance(kind, kind.graph(scale=0.2), rows, 0, 0) < NEAR
