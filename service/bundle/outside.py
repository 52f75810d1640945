"""Does an ONNX file want data from outside itself? A walk over its protobuf fields; nothing is executed.

ONNX lets a tensor name another file, by any path, or an address in memory. ONNX Runtime checks such paths, but not
against hard links, and its checks have had holes before. A bundle's graph is one file whose digest is known, so here
any tensor with external data is refused, wherever it stands: initialisers, attributes, subgraphs, functions.
"""

from collections.abc import Iterator
from enum import Enum, auto
from types import MappingProxyType


class Part(Enum):
    """The messages of `onnx.proto` through which a tensor can be reached."""

    MODEL = auto()
    TRAINING = auto()
    FUNCTION = auto()
    GRAPH = auto()
    NODE = auto()
    ATTRIBUTE = auto()
    SPARSE_TENSOR = auto()
    TENSOR = auto()


_INSIDE: MappingProxyType[Part, MappingProxyType[int, Part]] = MappingProxyType(
    {
        Part.MODEL: MappingProxyType({7: Part.GRAPH, 20: Part.TRAINING, 25: Part.FUNCTION}),
        Part.TRAINING: MappingProxyType({1: Part.GRAPH, 2: Part.GRAPH}),
        Part.FUNCTION: MappingProxyType({7: Part.NODE, 11: Part.ATTRIBUTE}),
        Part.GRAPH: MappingProxyType({1: Part.NODE, 5: Part.TENSOR, 15: Part.SPARSE_TENSOR}),
        Part.NODE: MappingProxyType({5: Part.ATTRIBUTE}),
        Part.ATTRIBUTE: MappingProxyType(
            {
                5: Part.TENSOR,
                6: Part.GRAPH,
                10: Part.TENSOR,
                11: Part.GRAPH,
                22: Part.SPARSE_TENSOR,
                23: Part.SPARSE_TENSOR,
            }
        ),
        Part.SPARSE_TENSOR: MappingProxyType({1: Part.TENSOR, 2: Part.TENSOR}),
        Part.TENSOR: MappingProxyType({}),
    }
)
"""Message -> number of a field -> the message that the field holds."""

_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # fields of a tensor
_VARINT, _EIGHT_BYTES, _DELIMITED, _FOUR_BYTES = 0, 1, 2, 5  # wire types; groups (3, 4) are never written any more


class NotProtobuf(ValueError):
    """The bytes are not a protobuf message that a current library would write."""


def wants_outside_data(model: bytes) -> bool:
    """Raises NotProtobuf."""
    waiting = [(Part.MODEL, memoryview(model))]
    while waiting:
        part, content = waiting.pop()
        inside = _INSIDE[part]
        for number, value in _fields(content):
            if part is Part.TENSOR:
                # DEFAULT is 0; an entry of external data without a location is as good as a location.
                if number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0):
                    return True
            elif number in inside and isinstance(value, memoryview):
                waiting.append((inside[number], value))
    return False


def _fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field; of fixed-size fields the value is never asked for, so it is 0."""
    place, end = 0, len(content)
    while place < end:
        key, place = _varint(content, place, longest=5)
        number, wire_type = key >> 3, key & 7
        value: int | memoryview = 0
        if wire_type == _VARINT:
            value, place = _varint(content, place, longest=10)
        elif wire_type == _DELIMITED:
            size, place = _varint(content, place, longest=5)
            value, place = content[place : place + size], place + size
        elif wire_type == _EIGHT_BYTES:
            place += 8
        elif wire_type == _FOUR_BYTES:
            place += 4
        else:
            raise NotProtobuf(f"wire type {wire_type}")
        if place > end or not 0 < number < 2**29:
            raise NotProtobuf("a field that ends outside its message or has no number")
        yield number, value


def _varint(content: memoryview, place: int, longest: int) -> tuple[int, int]:
    """The number that starts at `place`, and the place behind it."""
    number = 0
    for shift, byte in enumerate(content[place : place + longest]):
        number |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return number, place + shift + 1
    raise NotProtobuf("a number that does not end")
