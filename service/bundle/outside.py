"""Does an ONNX file want data from outside itself? A walk over its protobuf fields; nothing is executed.

ONNX lets a tensor name another file, by any path, or an address in memory. ONNX Runtime checks such paths, but not
against hard links, and its checks have had holes before. A bundle's graph is one file whose digest is known, so here
any tensor with external data is refused, wherever it stands: initialisers, attributes, subgraphs, functions.
"""

from enum import Enum, auto
from types import MappingProxyType

from service.bundle.protobuf import fields


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


def wants_outside_data(model: bytes) -> bool:
    """Raises NotProtobuf."""
    waiting = [(Part.MODEL, memoryview(model))]
    while waiting:
        part, content = waiting.pop()
        inside = _INSIDE[part]
        for number, value in fields(content):
            if part is Part.TENSOR:
                # DEFAULT is 0; an entry of external data without a location is as good as a location.
                if number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0):
                    return True
            elif number in inside and isinstance(value, memoryview):
                waiting.append((inside[number], value))
    return False
