"""A graph that wants data from outside its file is found wherever the wish stands, and no bytes break the search."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper

from service.bundle.outside import _INSIDE, Part, wants_outside_data
from service.bundle.protobuf import NotProtobuf
from tests.toys import toy

GRAPHS = (toy.student_graph(), toy.siamese_graph(), toy.teacher_graph())
MESSAGES = {
    "ModelProto": Part.MODEL,
    "TrainingInfoProto": Part.TRAINING,
    "FunctionProto": Part.FUNCTION,
    "GraphProto": Part.GRAPH,
    "NodeProto": Part.NODE,
    "AttributeProto": Part.ATTRIBUTE,
    "SparseTensorProto": Part.SPARSE_TENSOR,
    "TensorProto": Part.TENSOR,
}


def away() -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="weights.bin")
    return tensor


def subgraph() -> onnx.GraphProto:
    return helper.make_graph([], "inner", [], [], [away()])


def in_attribute(**attribute: Any) -> Callable[[ModelProto], object]:
    return lambda model: model.graph.node.append(helper.make_node("Constant", [], ["c"], **attribute))


def nested(model: ModelProto) -> None:
    inner = subgraph()
    for _ in range(20):  # protobuf allows some hundred levels, of which each takes three
        inner = helper.make_graph([helper.make_node("If", ["c"], ["d"], then_branch=inner)], "outer", [], [])
    model.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=inner))


def sparse() -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=away(), dims=[1])


HIDING: dict[str, Callable[[ModelProto], object]] = {
    "initialiser": lambda model: model.graph.initializer.append(away()),
    "sparse initialiser": lambda model: model.graph.sparse_initializer.append(sparse()),
    "attribute": in_attribute(value=away()),
    "attribute with several": in_attribute(values=[away()]),
    "attribute with a sparse one": in_attribute(value=sparse()),
    "subgraph": in_attribute(body=subgraph()),
    "several subgraphs": in_attribute(bodies=[subgraph()]),
    "deep subgraph": nested,
    "function": lambda model: model.functions.add().node.append(helper.make_node("Constant", [], ["c"], value=away())),
    "training": lambda model: model.training_info.add().initialization.initializer.append(away()),
    "location alone": lambda model: model.graph.initializer.append(TensorProto(data_location=TensorProto.EXTERNAL)),
    "name alone": lambda model: model.graph.initializer.add().external_data.add(key="location", value="w"),
}


def parts(message: Any, seen: set[str]) -> Iterator[tuple[str, int, str]]:
    """Every field below a message through which a tensor can be reached, as onnx's own schema has it."""
    if message.name in seen:
        return
    seen.add(message.name)
    for field in message.fields:
        if field.message_type is not None:
            yield message.name, field.number, field.message_type.name
            yield from parts(field.message_type, seen)


def test_the_walk_knows_every_way_to_a_tensor() -> None:
    edges = set(parts(ModelProto.DESCRIPTOR, set()))
    reaching = {"TensorProto"}
    while found := {start for start, _, end in edges if end in reaching} - reaching:
        reaching |= found
    wanted = {(start, number, end) for start, number, end in edges if end in reaching}
    names = {part: name for name, part in MESSAGES.items()}
    known = {(names[part], number, names[end]) for part, inside in _INSIDE.items() for number, end in inside.items()}
    assert known == wanted


@pytest.mark.parametrize("content", GRAPHS)
def test_a_graph_of_ours_wants_nothing(content: bytes) -> None:
    assert not wants_outside_data(content)


@pytest.mark.parametrize("place", HIDING)
def test_the_wish_is_found(place: str) -> None:
    model = onnx.load_from_string(GRAPHS[0])
    HIDING[place](model)
    assert wants_outside_data(model.SerializeToString())


@pytest.mark.parametrize(
    "content",
    [
        b"not a graph",
        b"\x0b\x0c",  # a group
        b"\x3a",  # a field without its length
        b"\x3a\x05\x00",  # longer than what is there
        b"\x08",
        b"\x00\x00",  # field number 0
        b"\xff" * 20,
        b"\x09\x01",  # eight bytes, of which one is there
    ],
)
def test_other_bytes_are_no_model(content: bytes) -> None:
    with pytest.raises(NotProtobuf):
        wants_outside_data(content)


@settings(max_examples=300)
@given(content=st.binary(max_size=200))
def test_any_bytes_are_judged(content: bytes) -> None:
    with contextlib.suppress(NotProtobuf):
        wants_outside_data(content)


@settings(max_examples=300)
@given(place=st.integers(0, len(GRAPHS[0]) - 1), bit=st.integers(0, 7))
def test_whatever_a_flipped_bit_makes_of_a_graph_nothing_outside_is_read(place: int, bit: int) -> None:
    """If onnx's own parser then sees external data, so do we."""
    content = bytearray(GRAPHS[0])
    content[place] ^= 1 << bit
    try:
        model = onnx.load_from_string(bytes(content))
    except Exception:  # protobuf's own class depends on its build
        return
    outside = any(tensor.data_location or tensor.external_data for tensor in model.graph.initializer)
    with contextlib.suppress(NotProtobuf):  # stricter than protobuf: refused anyway
        assert wants_outside_data(bytes(content)) >= outside
