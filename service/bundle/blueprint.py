"""An ONNX graph -> the BiLSTM student that it is, if it is one: its weights, and what is done with its states.

It recognises, node by node, what `export/graphs/student_graphs.py` writes, and says of any other where it differs. It
knows nothing of engines, and computes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike

from service.bundle.manifest import OUTPUT, RECURRENT_INPUTS, SIAMESE_INPUTS
from service.bundle.onnx_file import Attribute, Node, OnnxFile, Weights

_FLOAT, _INT32 = 1, 6  # ONNX's types, as Cast names them


class Unrecognised(ValueError):
    """No student's graph, or none that is known here."""


class Pooling(StrEnum):
    """Which of a text's states are read."""

    LAST = "last"
    MAX = "max"
    PIECES = "pieces"


class Activation(StrEnum):
    """What comes after a dense layer."""

    NONE = "none"
    RELU = "relu"
    GELU = "gelu"


@dataclass(frozen=True, slots=True)
class Dense:
    """A dense layer: weight (outputs, inputs), bias (outputs,)."""

    weight: Weights
    bias: Weights
    activation: Activation


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A student: a BiLSTM over int8 embeddings, dense layers for each text, and for what two of them make together."""

    embedding: Weights  # (V, E) int8
    scales: Weights  # (V, 1)
    input: Weights  # (2, 4H, E), gates in the order input, output, forget, cell
    recurrent: Weights  # (2, 4H, H)
    bias: Weights  # (2, 8H)
    pooling: Pooling
    each: tuple[Dense, ...]
    compare: bool  # two vectors become [u, v, u * v, |u - v|]
    last: tuple[Dense, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        """What its graph takes."""
        return SIAMESE_INPUTS if self.compare else RECURRENT_INPUTS

    @property
    def width(self) -> int:
        """Of its logits."""
        return len((self.each + self.last)[-1].bias)

    @property
    def dimensions(self) -> int:
        """Of its logits: (B, L), or (B, T, L)."""
        return 3 if self.pooling is Pooling.PIECES else 2


def recognise(graph: OnnxFile) -> Blueprint:
    """Raises Unrecognised."""
    return _Walk(graph).blueprint()


@dataclass(frozen=True, slots=True)
class _Tower:
    """The names of one BiLSTM's weights, and which of its states are read. Two texts must have equal ones."""

    embedding: str
    scales: str
    input: str
    recurrent: str
    bias: str
    pooling: Pooling


@dataclass(frozen=True, slots=True)
class _Layer:
    weight: str
    bias: str
    activation: Activation


class _Walk:
    """From the output back to the inputs."""

    def __init__(self, graph: OnnxFile) -> None:
        self._graph = graph
        self._makers = {name: node for node in graph.nodes for name in node.outputs if name}
        self._seen: set[int] = set()

    def blueprint(self) -> Blueprint:
        if self._graph.outputs != (OUTPUT,):
            raise Unrecognised(f"its outputs are {', '.join(self._graph.outputs) or 'none'}, not {OUTPUT}")
        each, compare, last, tower = self._answer()
        wanted = SIAMESE_INPUTS if compare else RECURRENT_INPUTS
        if self._graph.inputs != wanted:
            raise Unrecognised(f"its inputs are {', '.join(self._graph.inputs)}, not {', '.join(wanted)}")
        unread = [node.kind for node in self._graph.nodes if id(node) not in self._seen]
        if unread:
            raise Unrecognised(f"nothing reads its {unread[0]}")
        return self._built(each, compare, last, tower)

    def _answer(self) -> tuple[list[_Layer], bool, list[_Layer], _Tower]:
        maker = self._maker(OUTPUT)
        if maker.kind == "Reshape":
            layers, tower = self._of_pieces()
            return [], False, layers, tower
        last, source = self._layers(self._made(OUTPUT, "Identity")[0] if maker.kind == "Identity" else OUTPUT)
        if self._maker(source).kind != "Concat":
            return last, False, [], self._tower(source, *RECURRENT_INPUTS)
        if not last:
            raise Unrecognised("no layer reads its comparison")
        first, second = self._compared(source)
        (each, one), (again, other) = self._layers(first), self._layers(second)
        towers = self._tower(one, *SIAMESE_INPUTS[:2]), self._tower(other, *SIAMESE_INPUTS[2:])
        if each != again or towers[0] != towers[1]:
            raise Unrecognised("its two texts do not share their weights")
        return each, True, last, towers[0]

    def _of_pieces(self) -> tuple[list[_Layer], _Tower]:
        """Rows of pieces, which were made of those of texts, and become such again."""
        ids, lengths = RECURRENT_INPUTS
        logits, shape = self._made(OUTPUT, "Reshape")
        of_ids, labels = self._made(shape, "Concat", axis=0)
        self._require(self._made(of_ids, "Shape"), (ids,), of_ids)
        layers, source = self._layers(logits)
        states, flat = self._made(source, "Reshape")
        tower = self._tower(states, ids, lengths)
        if tower.pooling is not Pooling.PIECES or not layers:
            raise Unrecognised("it reshapes what are no states of pieces")
        self._require_constant(flat, [-1, 2 * self._hidden(tower)])
        self._require_constant(labels, [len(self._weight(layers[-1].bias, np.float32))])
        return layers, tower

    def _layers(self, name: str) -> tuple[list[_Layer], str]:
        """The dense layers that make a value, the first of them first, and what they read."""
        layers: list[_Layer] = []
        while True:
            activation, inside = self._activation(name)
            if self._maker(inside).kind != "Gemm":
                if activation is not Activation.NONE:
                    raise Unrecognised(f"it applies {activation} to what no dense layer makes")
                return layers, name
            name, weight, bias = self._made(inside, "Gemm", transB=1)
            layers.insert(0, _Layer(weight, bias, activation))
            if len(layers) > len(self._graph.nodes):
                raise Unrecognised("its layers go round in a circle")

    def _activation(self, name: str) -> tuple[Activation, str]:
        kind = self._maker(name).kind
        if kind == "Relu":
            return Activation.RELU, self._made(name, "Relu")[0]
        if kind != "Mul":
            return Activation.NONE, name
        product, half = self._made(name, "Mul")
        value, whole = self._made(product, "Mul")
        share, one = self._made(whole, "Add")
        scaled, root = self._made(self._made(share, "Erf")[0], "Div")
        self._require((scaled,), (value,), name)
        for constant, number in ((half, 0.5), (one, 1), (root, 2**0.5)):
            self._require_constant(constant, np.float32(number))
        return Activation.GELU, value

    def _compared(self, name: str) -> tuple[str, str]:
        first, second, product, distance = self._made(name, "Concat", count=4, axis=1)
        self._require(self._made(product, "Mul"), (first, second), product)
        difference = self._made(distance, "Abs")[0]
        self._require(self._made(difference, "Sub"), (first, second), difference)
        return first, second

    def _tower(self, name: str, ids: str, lengths: str) -> _Tower:
        if self._maker(name).kind == "ReduceMax":
            by_row = self._masked(self._made(name, "ReduceMax", axes=(1,), keepdims=0)[0], ids, lengths)
            return self._lstm(by_row, Pooling.MAX, ids, lengths)
        turned = self._maker(self._made(name, "Reshape")[0])
        last = turned.attributes == {"perm": (1, 0, 2)}
        return self._lstm(name, Pooling.LAST if last else Pooling.PIECES, ids, lengths)

    def _masked(self, name: str, ids: str, lengths: str) -> str:
        """The states in whose place those of padding become the lowest number there is."""
        mask, states, lowest = self._made(name, "Where")
        self._require_constant(lowest, np.finfo(np.float32).min)
        real, last_axis = self._made(mask, "Unsqueeze")
        self._require_constant(last_axis, [2])
        places, column = self._made(real, "Less")
        told, first_axis = self._made(column, "Unsqueeze")
        self._require((told,), (lengths,), column)
        self._require_constant(first_axis, [1])
        start, width, step = self._made(places, "Range")
        shape, place = self._made(width, "Gather")
        self._require(self._made(shape, "Shape"), (ids,), shape)
        for constant, number in ((start, 0), (step, 1), (place, 1)):
            self._require_constant(constant, np.int64(number))
        return states

    def _lstm(self, name: str, pooling: Pooling, ids: str, lengths: str) -> _Tower:
        turned, shape = self._made(name, "Reshape")
        perm = (1, 0, 2) if pooling is Pooling.LAST else (2, 0, 1, 3)
        state = self._made(turned, "Transpose", perm=perm)[0]
        node = self._maker(state)
        hidden = node.attributes.get("hidden_size")
        inputs = self._made(state, "LSTM", hidden_size=hidden, direction="bidirectional")
        embedded, given, recurrent, bias, short = inputs
        slot = 1 if pooling is Pooling.LAST else 0  # Y, Y_h, Y_c
        if [bool(output) for output in node.outputs] != [place == slot for place in range(3)]:
            raise Unrecognised("its LSTM has other outputs than a student's")
        embedding, scales = self._embedding(embedded, ids)
        tower = _Tower(embedding, scales, given, recurrent, bias, pooling)
        self._require(self._made(short, "Cast", to=_INT32), (lengths,), short)
        if hidden != self._hidden(tower):
            raise Unrecognised("its LSTM's states are not as wide as its weights")
        self._require_constant(shape, [0] * (1 if pooling is Pooling.LAST else 2) + [2 * self._hidden(tower)])
        return tower

    def _embedding(self, name: str, ids: str) -> tuple[str, str]:
        wide, scaled = self._made(name, "Mul")
        rows = self._made(wide, "Cast", to=_FLOAT)[0]
        embedding, turned = self._made(rows, "Gather")
        scales, again = self._made(scaled, "Gather")
        self._require((again,), (turned,), name)
        self._require(self._made(turned, "Transpose", perm=(1, 0)), (ids,), turned)
        return embedding, scales

    def _made(self, name: str, kind: str, count: int | None = None, **attributes: Attribute | None) -> tuple[str, ...]:
        """The inputs of the node that makes a value: it must be of this kind, with just these attributes."""
        node = self._maker(name)
        if node.kind != kind or node.attributes != attributes:
            told = ", ".join(f"{key}={value}" for key, value in node.attributes.items())
            raise Unrecognised(f"its {name} is made by {node.kind}({told}), which no student has there")
        if len(node.inputs) != (_INPUTS[kind] if count is None else count) or "" in node.inputs:
            raise Unrecognised(f"its {kind} has {len(node.inputs)} inputs")
        self._seen.add(id(node))
        return node.inputs

    def _maker(self, name: str) -> Node:
        node = self._makers.get(name)
        if node is None:
            raise Unrecognised(f"no operation makes its {name or 'missing input'}")
        return node

    def _require(self, found: tuple[str, ...], wanted: tuple[str, ...], where: str) -> None:
        if found != wanted:
            raise Unrecognised(f"its {where} is made of {', '.join(found)} and not of {', '.join(wanted)}")

    def _require_constant(self, name: str, wanted: ArrayLike) -> None:
        found = self._graph.weights.get(name)
        value = np.atleast_1d(wanted)  # as `export` writes a single number, too
        if found is None or found.dtype != value.dtype or not np.array_equal(found, value):
            raise Unrecognised(f"its {name} is not {value.tolist()}")

    def _weight(self, name: str, kind: type[np.generic]) -> Weights:
        found = self._graph.weights.get(name)
        if found is None or found.dtype != kind:
            raise Unrecognised(f"its {name or 'missing input'} is no weight of the type {kind.__name__}")
        return found

    def _hidden(self, tower: _Tower) -> int:
        shape = self._weight(tower.recurrent, np.float32).shape
        return int(shape[-1]) if shape else 0

    def _built(self, each: list[_Layer], compare: bool, last: list[_Layer], tower: _Tower) -> Blueprint:
        blueprint = Blueprint(
            embedding=self._weight(tower.embedding, np.int8),
            scales=self._weight(tower.scales, np.float32),
            input=self._weight(tower.input, np.float32),
            recurrent=self._weight(tower.recurrent, np.float32),
            bias=self._weight(tower.bias, np.float32),
            pooling=tower.pooling,
            each=tuple(map(self._dense, each)),
            compare=compare,
            last=tuple(map(self._dense, last)),
        )
        _check_shapes(blueprint)
        return blueprint

    def _dense(self, layer: _Layer) -> Dense:
        weight, bias = self._weight(layer.weight, np.float32), self._weight(layer.bias, np.float32)
        return Dense(weight, bias, layer.activation)


_INPUTS: Mapping[str, int] = MappingProxyType(
    {
        "Abs": 1,
        "Add": 2,
        "Cast": 1,
        "Concat": 2,
        "Div": 2,
        "Erf": 1,
        "Gather": 2,
        "Gemm": 3,
        "Identity": 1,
        "LSTM": 5,
        "Less": 2,
        "Mul": 2,
        "Range": 3,
        "ReduceMax": 1,
        "Relu": 1,
        "Reshape": 2,
        "Shape": 1,
        "Sub": 2,
        "Transpose": 1,
        "Unsqueeze": 2,
        "Where": 3,
    }
)


def _check_shapes(made: Blueprint) -> None:
    """The weights must fit each other: nothing that reads them may have to look again."""
    if made.embedding.ndim != 2 or made.recurrent.ndim != 3 or not (made.each or made.last):
        raise Unrecognised("its weights have other dimensions than a student's")
    (vocabulary, embedding), hidden = made.embedding.shape, made.recurrent.shape[-1]
    wanted = {
        "embedding scales": (made.scales, (vocabulary, 1)),
        "input weights": (made.input, (2, 4 * hidden, embedding)),
        "recurrent weights": (made.recurrent, (2, 4 * hidden, hidden)),
        "bias": (made.bias, (2, 8 * hidden)),
    }
    for name, (weights, shape) in wanted.items():
        if weights.shape != shape or 0 in shape:
            raise Unrecognised(f"its {name} have the shape {weights.shape}, not {shape}")
    width = 2 * hidden
    for place, layer in enumerate(made.each + made.last):
        if made.compare and place == len(made.each):
            width *= 4
        if layer.weight.ndim != 2 or layer.weight.shape != (len(layer.bias), width) or layer.bias.ndim != 1:
            raise Unrecognised(f"a dense layer of it has the shape {layer.weight.shape} and reads {width} numbers")
        width = len(layer.bias)
        if not width:
            raise Unrecognised("a dense layer of it gives nothing")
