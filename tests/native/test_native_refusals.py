"""What the native engine refuses: weights that don't fit or are no numbers, ids and lengths out of range."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.bundle.blueprint import Blueprint
from service.bundle.engines import EngineOptions
from service.bundle.native import NativeGraph, _network
from tests.native.natively import NAMES, NEEDED, PLAIN, Kind, blueprint, feeds_of, native

pytestmark = NEEDED

TEXT = next(Kind(name, PLAIN) for name in NAMES if name[1] == "text")
TAGGER = next(Kind(name, PLAIN) for name in NAMES if name[1] == "pieces")
PAIR = next(Kind(name, PLAIN) for name in NAMES if name[1] == "pair")
ROWS = [[1, 2, 3], [4], [39, 0]]
WEIGHTS = ("scales", "input", "recurrent", "bias")


def opened(found: Blueprint, threads: int = 1) -> NativeGraph:
    return NativeGraph(_network(found, EngineOptions(threads=threads)), found, "graph")


def other(found: Blueprint, name: str, weights: NDArray[Any]) -> Blueprint:
    changed: dict[str, Any] = {name: weights}
    return replace(found, **changed)


@pytest.mark.parametrize("kind", [TEXT, TAGGER, PAIR], ids=lambda kind: str(kind.name[1]))
@pytest.mark.parametrize("id_", [-1, 40, 2**31, 2**62, -(2**63)])
def test_ids_that_no_vocabulary_has_are_refused(kind: Kind, id_: int) -> None:
    graph = native(kind.graph())
    with pytest.raises(ValueError, match=f"token id {id_} is not in a vocabulary of 40"):
        graph.run(feeds_of(kind, [[1, 2], [3, id_, 4]]))
    assert np.isfinite(graph.run(feeds_of(kind, ROWS))).all()


def test_what_stands_in_the_padding_is_never_read() -> None:
    graph = native(TEXT.graph())
    wanted = graph.run(feeds_of(TEXT, ROWS))
    assert np.array_equal(graph.run(feeds_of(TEXT, ROWS, more=3, pad=-(2**60))), wanted)


@pytest.mark.parametrize("length", [0, -1, 4, 2**62, -(2**63)])
def test_lengths_out_of_range_are_refused(length: int) -> None:
    graph = native(TEXT.graph())
    feeds = {"input_ids": np.zeros((2, 3), np.int64), "lengths": np.array([1, length])}
    with pytest.raises(ValueError, match=f"row 1 has length {length} in a block of 3"):
        graph.run(feeds)


def test_ids_that_change_while_they_are_read_harm_nobody() -> None:
    graph, feeds = native(TEXT.graph()), feeds_of(TEXT, [[1] * 100_000] * 16)
    timer = threading.Timer(0.05, lambda: feeds["input_ids"].fill(2**40))
    timer.start()
    try:
        assert np.isfinite(graph.run(feeds)).all()
    except ValueError as error:  # they changed before they were looked at
        assert "token id" in str(error)
    timer.join()


def test_a_flag_that_could_not_be_seen_is_refused() -> None:
    network = _network(blueprint(TEXT.graph()), EngineOptions())
    for kind in (np.int64, np.bool_, np.float32):
        with pytest.raises(TypeError):
            network.run([tuple(feeds_of(TEXT, ROWS).values())], np.zeros(1, kind))


def test_a_comparison_that_no_layer_reads_is_refused() -> None:
    with pytest.raises(ValueError, match="a dense layer reads the comparison"):
        opened(replace(blueprint(PAIR.graph()), last=()))


def test_a_table_that_would_take_minutes_is_refused() -> None:
    found = blueprint(TEXT.graph())
    wide = np.broadcast_to(found.embedding[:1, :1], (2**16, 2**16))
    with pytest.raises(Exception, match="would take too long"):
        opened(replace(found, embedding=wide))


def test_blocks_of_other_shapes_are_refused() -> None:
    graph, pair = native(TEXT.graph()), native(PAIR.graph())
    ids, lengths = np.zeros((2, 3), np.int64), np.ones(2, np.int64)
    for wrong_ids, wrong_lengths in ((ids, np.ones(3, np.int64)), (ids[0], lengths), (ids, lengths[None])):
        with pytest.raises((ValueError, TypeError)):
            graph.run({"input_ids": wrong_ids, "lengths": wrong_lengths})
    with pytest.raises(ValueError, match="as many first as second"):
        one = {"pair_ids": ids[:1], "pair_lengths": lengths[:1]}
        pair.run({"input_ids": ids, "lengths": lengths, **one})


def test_no_rows_give_no_logits() -> None:
    none = {"input_ids": np.zeros((0, 3), np.int64), "lengths": np.zeros(0, np.int64)}
    assert native(TEXT.graph()).run(none).shape == (0, 3)
    assert native(TAGGER.graph()).run(none).shape == (0, 3, 3)


def test_a_view_is_read_as_what_it_shows() -> None:
    graph = native(TEXT.graph())
    feeds = feeds_of(TEXT, ROWS)
    turned = {"input_ids": np.asfortranarray(feeds["input_ids"]), "lengths": np.repeat(feeds["lengths"], 2)[::2]}
    assert np.array_equal(graph.run(turned), graph.run(feeds))


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_refused(name: str, value: float) -> None:
    found = blueprint(TEXT.graph())
    spoilt = getattr(found, name).copy()
    spoilt.flat[-1] = value
    with pytest.raises(ValueError, match="not finite"):
        opened(other(found, name, spoilt))


def test_dense_weights_that_are_no_numbers_are_refused() -> None:
    found = blueprint(TEXT.graph())
    layer = found.each[0]
    for spoilt in (
        replace(layer, weight=layer.weight * np.nan),
        replace(layer, bias=layer.bias * np.inf),
    ):
        with pytest.raises(ValueError, match="not finite"):
            opened(replace(found, each=(spoilt, *found.each[1:])))


@pytest.mark.parametrize("factor", [0.0, 1e-30, 1e30, 3e38])
@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_of_any_size_make_numbers_or_are_refused(name: str, factor: float) -> None:
    """No sum may leave its 32 bits, no gate its range: logits are numbers whatever the LSTM's weights are."""
    found = blueprint(TEXT.graph())
    largest = np.abs(getattr(found, name)).max()
    with np.errstate(all="ignore"):
        scaled = (getattr(found, name) / largest * np.float32(factor)).astype(np.float32)
    graph = opened(other(found, name, scaled))
    assert np.isfinite(graph.run(feeds_of(TEXT, [*ROWS, [7] * 50]))).all()


Change = Callable[[NDArray[Any]], NDArray[Any]]

CHANGES: dict[str, Change] = {
    "shorter": lambda weights: weights[:-1],
    "narrower": lambda weights: np.ascontiguousarray(weights[..., :-1]),
    "empty": lambda weights: weights[:0],
    "flat": lambda weights: weights.ravel(),
    "deeper": lambda weights: weights[None],
    "wider": lambda weights: np.concatenate([weights, weights], axis=-1),
}


@pytest.mark.parametrize("name", ("embedding", *WEIGHTS))
@pytest.mark.parametrize("change", CHANGES)
def test_weights_of_other_shapes_are_refused(name: str, change: str) -> None:
    found = blueprint(TEXT.graph())
    weights = getattr(found, name)
    if name == "scales" and change in ("flat", "deeper"):
        return  # they are handed over flat
    with pytest.raises((ValueError, TypeError)):
        opened(other(found, name, CHANGES[change](weights)))


@settings(max_examples=60)
@given(st.data())
def test_any_shapes_of_weights_are_run_or_refused(data: st.DataObject) -> None:
    size = st.integers(0, 4)

    def any_of(kind: type[np.generic], dimensions: int) -> NDArray[Any]:
        return np.ones([data.draw(size) for _ in range(dimensions)], kind)

    import understudy_native

    each = [
        (any_of(np.float32, 2), any_of(np.float32, 1), data.draw(st.sampled_from(["none", "relu", "gelu", "tanh"])))
    ]
    weights = [any_of(np.int8, 2), *(any_of(np.float32, count) for count in (1, 3, 3, 2))]
    pooling = data.draw(st.sampled_from(["last", "max", "pieces", "mean"]))
    with pytest.raises(ValueError):
        understudy_native.Network(*weights, pooling=pooling, each=each, compare=False, last=[], threads=1, isa=None)


@pytest.mark.parametrize("threads", [0, -1, 100_000])
def test_any_number_of_threads_is_taken_or_refused(threads: int) -> None:
    with pytest.raises(ValueError, match="threads are 1 to 1024"):
        opened(blueprint(TEXT.graph()), threads)


@pytest.mark.parametrize("size", [1, 7, 8, 4096])
def test_no_rows_are_too_many(size: int) -> None:
    logits = native(TEXT.graph(), threads=2).run(feeds_of(TEXT, [[1]] * size))
    assert logits.shape == (size, 3)
    assert (logits == logits[0]).all()
