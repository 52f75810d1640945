"""Graphs -> students: what is recognised, and that whatever else a graph may hold is not."""

from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from service.bundle.blueprint import Activation, Pooling, Unrecognised
from service.bundle.onnx_file import OnnxFile, Unreadable
from tests.native.natively import LINEAR, NAMES, OTHER, PLAIN, Kind, blueprint
from tests.running import ROOT
from tests.toys import toy

KINDS = [Kind(name, shape) for name in NAMES for shape in (PLAIN, OTHER, LINEAR)]
GRAPHS = {kind: kind.graph() for kind in KINDS}
TEXT = next(kind for kind in KINDS if not kind.pairs and kind.name[1] == "text")
STUDENTS = {"sst2-bilstm": Pooling.LAST, "voice-intents": Pooling.LAST, "tagger-conll2003": Pooling.PIECES}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.name}-{kind.shape.activation}")
def test_a_students_weights_are_found(kind: Kind) -> None:
    found, shape = blueprint(GRAPHS[kind]), kind.shape
    assert found.embedding.shape == (shape.vocabulary, shape.channels * shape.embedding)
    assert found.recurrent.shape == (2, 4 * shape.hidden, shape.hidden)
    assert found.compare == kind.pairs
    assert found.width == (shape.dense if kind.name[1] == "vector" else shape.labels)
    wanted = Pooling.PIECES if kind.name[1] == "pieces" else Pooling(shape.pooling)
    assert found.pooling is wanted
    activation = {"relu": Activation.RELU, "gelu": Activation.GELU, "linear": Activation.NONE}[shape.activation]
    assert (found.each + found.last)[0].activation is activation
    stored = onnx.load_from_string(GRAPHS[kind]).graph.initializer
    written = {tensor.name: numpy_helper.to_array(tensor) for tensor in stored}
    assert np.array_equal(found.recurrent, written["lstm_recurrent"])
    assert np.array_equal(found.embedding, written["embedding"])


@pytest.mark.parametrize(("name", "pooling"), STUDENTS.items())
def test_the_committed_students_are_recognised(name: str, pooling: Pooling) -> None:
    folder = ROOT / "models" / name / "1"
    assert blueprint((folder / "model.onnx").read_bytes()).pooling is pooling
    with pytest.raises(Unreadable, match="set 17 alone"):
        blueprint((folder / "model_quantized.onnx").read_bytes())


@pytest.mark.parametrize("content", [toy.student_graph(), toy.tagger_graph(), toy.siamese_graph(), toy.teacher_graph()])
def test_other_graphs_are_not(content: bytes) -> None:
    with pytest.raises((Unreadable, Unrecognised)):
        blueprint(content)


Change = Callable[[ModelProto], object]


def spoilt(graph: bytes, change: Change) -> bytes:
    proto = onnx.load_from_string(graph)
    change(proto)
    content: bytes = proto.SerializeToString()
    return content


def changes(graph: bytes) -> Iterator[Change]:
    """Each attribute, each input, each kind of a node by itself; one more attribute, another number."""
    for place, node in enumerate(onnx.load_from_string(graph).graph.node):
        for at, attribute in enumerate(node.attribute):
            if attribute.type == attribute.INT:
                yield partial(_add_one, place, at)
            yield partial(_take_attribute, place, at)
        for at in range(len(node.input)):
            yield partial(_take_input, place, at)
            yield partial(_read_nothing, place, at)
        yield partial(_put_field, place, "op_type", "Tanh")
        yield partial(_put_field, place, "domain", "com.example")
        yield partial(_give_attribute, place, helper.make_attribute("clip", 1.0))
        yield partial(_give_attribute, place, helper.make_attribute("layout", 1))


def _add_one(place: int, at: int, proto: ModelProto) -> None:
    proto.graph.node[place].attribute[at].i += 1


def _take_attribute(place: int, at: int, proto: ModelProto) -> None:
    proto.graph.node[place].attribute.pop(at)


def _give_attribute(place: int, attribute: AttributeProto, proto: ModelProto) -> None:
    proto.graph.node[place].attribute.append(attribute)


def _take_input(place: int, at: int, proto: ModelProto) -> None:
    proto.graph.node[place].input.pop(at)


def _read_nothing(place: int, at: int, proto: ModelProto) -> None:
    proto.graph.node[place].input[at] = "nothing"


def _put_field(place: int, field: str, value: str, proto: ModelProto) -> None:
    setattr(proto.graph.node[place], field, value)


def _put_weight(place: int, values: NDArray[Any], proto: ModelProto) -> None:
    tensor = proto.graph.initializer[place]
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.name}-{kind.shape.activation}")
def test_no_node_may_be_otherwise(kind: Kind) -> None:
    graph = GRAPHS[kind]
    for change in changes(graph):
        with pytest.raises((Unreadable, Unrecognised)):
            blueprint(spoilt(graph, change))


def _is_a_number(tensor: TensorProto) -> bool:
    if tensor.name == "last_axes":
        return False  # which nothing reads
    return tensor.data_type == TensorProto.INT64 or tensor.name in ("lowest", "half", "root", "unity")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.name}-{kind.shape.activation}")
def test_no_constant_may_be_another(kind: Kind) -> None:
    graph = GRAPHS[kind]
    for place, tensor in enumerate(onnx.load_from_string(graph).graph.initializer):
        if _is_a_number(tensor):
            other = 7 - numpy_helper.to_array(tensor)
            with pytest.raises(Unrecognised):
                blueprint(spoilt(graph, partial(_put_weight, place, other)))


def test_weights_must_fit_each_other() -> None:
    for place, tensor in enumerate(onnx.load_from_string(GRAPHS[TEXT]).graph.initializer):
        values = numpy_helper.to_array(tensor)
        for other in (values[..., :-1], values[:-1], values.astype(np.float64), values.ravel()[:0]):
            with pytest.raises((Unreadable, Unrecognised)):
                blueprint(spoilt(GRAPHS[TEXT], partial(_put_weight, place, other)))


def test_layers_in_a_circle_end_the_walk() -> None:
    def turn(proto: ModelProto) -> None:
        dense = next(node for node in proto.graph.node if node.op_type == "Gemm")
        dense.input[0] = "logits"

    with pytest.raises(Unrecognised, match="in a circle"):
        blueprint(spoilt(GRAPHS[TEXT], turn))


def test_operations_that_nobody_reads_are_refused() -> None:
    def add(proto: ModelProto) -> None:
        proto.graph.node.append(helper.make_node("Relu", ["logits"], ["more"]))

    with pytest.raises(Unrecognised, match="nothing reads its Relu"):
        blueprint(spoilt(GRAPHS[TEXT], add))


def test_two_texts_must_share_their_weights() -> None:
    kind = next(kind for kind in KINDS if kind.pairs)

    def part(proto: ModelProto) -> None:
        last = [node for node in proto.graph.node if node.op_type == "LSTM"][1]
        copied = TensorProto()
        copied.CopyFrom(next(each for each in proto.graph.initializer if each.name == last.input[2]))
        copied.name = last.input[2] = "of its own"
        proto.graph.initializer.append(copied)

    with pytest.raises(Unrecognised, match="do not share"):
        blueprint(spoilt(GRAPHS[kind], part))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with pytest.raises((Unreadable, Unrecognised)):
        blueprint(content)


@given(st.integers(0, 2**32 - 1))
def test_a_spoilt_file_is_read_or_refused(seed: int) -> None:
    chance = Random(seed)
    content = bytearray(GRAPHS[chance.choice(KINDS)])
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(content))
        match chance.randrange(3):
            case 0:
                content[place] = chance.randrange(256)
            case 1:
                del content[place : place + chance.randint(1, 40)]
            case _:
                content[place:place] = chance.randbytes(chance.randint(1, 12))
    try:
        found = blueprint(bytes(content))
    except (Unreadable, Unrecognised):
        return
    assert found.embedding.ndim == 2


def test_a_tensor_whose_data_lie_elsewhere_is_refused() -> None:
    def move(proto: ModelProto) -> None:
        proto.graph.initializer[0].data_location = TensorProto.EXTERNAL

    with pytest.raises(Unreadable, match="number 14"):
        OnnxFile.read(spoilt(GRAPHS[TEXT], move))


def test_a_name_that_is_given_twice_is_refused() -> None:
    with pytest.raises(Unreadable, match="one name twice"):
        OnnxFile.read(spoilt(GRAPHS[TEXT], lambda proto: proto.graph.initializer.append(proto.graph.initializer[0])))
