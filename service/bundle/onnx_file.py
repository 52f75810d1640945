"""An ONNX file's nodes and weights, read without the library `onnx`, which the service does not have.

It reads what `export` writes and refuses everything else: other types, weights in other forms, subgraphs. It knows
nothing of what a graph computes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from service.bundle.protobuf import NotProtobuf, Value, fields, signed, varint

Weights = NDArray[Any]
Attribute = int | str | tuple[int, ...]

OPSET = 17
_MOST_DIMENSIONS = 8
_FLOAT, _INT8, _INT64 = 1, 3, 7
_TYPES: Mapping[int, np.dtype[Any]] = MappingProxyType(
    {_FLOAT: np.dtype("<f4"), _INT8: np.dtype("<i1"), _INT64: np.dtype("<i8")}
)


class Unreadable(ValueError):
    """The file has something that `export` does not write, or is none."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operation."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A graph with its weights. Names are told apart: each is given once."""

    nodes: tuple[Node, ...]
    weights: Mapping[str, Weights]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @classmethod
    def read(cls, content: bytes) -> Self:
        """Raises Unreadable."""
        try:
            return cls._read(content)
        except (NotProtobuf, UnicodeDecodeError) as error:
            raise Unreadable(f"not an ONNX file ({error})") from error

    @classmethod
    def _read(cls, content: bytes) -> Self:
        model = _Message(memoryview(content), {1, 2, 3, 4, 5, 6, 7, 8, 14})
        opsets = [(each.text(1), each.number(2)) for each in model.messages(8, {1, 2})]
        if opsets != [("", OPSET)]:
            raise Unreadable(f"its operations are not those of ONNX's set {OPSET} alone")
        graphs = list(model.messages(7, {1, 2, 5, 10, 11, 12, 13}))
        if len(graphs) != 1:
            raise Unreadable("it has not one graph")
        graph = graphs[0]
        nodes = tuple(map(_node, graph.messages(1, {1, 2, 3, 4, 5, 6})))
        weights = dict(map(_tensor, graph.messages(5, {1, 2, 8, 9})))
        # A value's description is not read: the nodes say what it is.
        inputs, outputs = ([_Message(each).text(1) for each in graph.each_bytes(number)] for number in (11, 12))
        made = [name for node in nodes for name in node.outputs if name]
        if len({*made, *weights, *inputs}) < len(made) + len(graph.found.get(5, [])) + len(inputs):
            raise Unreadable("it gives one name twice")
        return cls(nodes, weights, tuple(inputs), tuple(outputs))


class _Message:
    """The fields of one message, by their numbers."""

    def __init__(self, content: memoryview, known: set[int] | None = None) -> None:
        self.found: dict[int, list[Value]] = {}
        for number, value in fields(content):
            if known is not None and number not in known:
                raise Unreadable(f"it has a part (number {number}) that is not written for a student")
            self.found.setdefault(number, []).append(value)

    def each_bytes(self, number: int) -> Iterator[memoryview]:
        for value in self.found.get(number, []):
            if isinstance(value, int):
                raise NotProtobuf("a number where a message is due")
            yield value

    def messages(self, number: int, known: set[int]) -> Iterator["_Message"]:
        return (_Message(value, known) for value in self.each_bytes(number))

    def texts(self, number: int) -> tuple[str, ...]:
        return tuple(bytes(value).decode() for value in self.each_bytes(number))

    def text(self, number: int) -> str:
        return (self.texts(number) or ("",))[-1]

    def numbers(self, number: int) -> tuple[int, ...]:
        """Of a repeated field, packed or not."""
        found: list[int] = []
        for value in self.found.get(number, []):
            if isinstance(value, int):
                found.append(signed(value))
                continue
            place = 0
            while place < len(value):
                unsigned, place = varint(value, place)
                found.append(signed(unsigned))
        return tuple(found)

    def number(self, number: int) -> int:
        return (self.numbers(number) or (0,))[-1]


def _node(message: _Message) -> Node:
    attributes = dict(map(_attribute, message.messages(5, {1, 2, 3, 4, 8, 20})))
    return Node(message.text(4), message.texts(1), message.texts(2), MappingProxyType(attributes))


def _attribute(message: _Message) -> tuple[str, Attribute]:
    """Only those of whole numbers and texts; a field that is not known was refused."""
    name, kind = message.text(1), message.number(20)
    match kind:
        case 2:
            return name, message.number(3)
        case 3:
            return name, message.text(4)
        case 7:
            return name, message.numbers(8)
        case _:
            raise Unreadable(f"its attribute {name} is of a kind ({kind}) that no student's has")


def _tensor(message: _Message) -> tuple[str, Weights]:
    name, dims, content = message.text(8), message.numbers(1), b"".join(message.each_bytes(9))
    kind = _TYPES.get(message.number(2))
    if kind is None:
        raise Unreadable(f"{name} is of a type that no student's weights have")
    # Python's whole numbers don't overflow, so this holds whatever the dimensions are.
    fits = len(dims) <= _MOST_DIMENSIONS and min(dims, default=0) >= 0 and prod(dims) * kind.itemsize == len(content)
    if not fits:
        raise Unreadable(f"{name} has {len(content)} bytes for dimensions {list(dims)}")
    return name, np.frombuffer(content, kind).reshape(dims)
