"""Protobuf messages, field by field. It knows how bytes are cut into fields, and no message's meaning."""

from collections.abc import Iterator

Value = int | memoryview
"""Of a field: a whole number, or the bytes of what has a length. Nobody asks for fixed-size ones, which are 0."""

_VARINT, _EIGHT_BYTES, _DELIMITED, _FOUR_BYTES = 0, 1, 2, 5  # wire types; groups (3, 4) are never written any more


class NotProtobuf(ValueError):
    """The bytes are not a protobuf message that a current library would write."""


def fields(content: memoryview) -> Iterator[tuple[int, Value]]:
    """Number and value of each field. Raises NotProtobuf."""
    place, end = 0, len(content)
    while place < end:
        key, place = varint(content, place, longest=5)
        number, wire_type = key >> 3, key & 7
        value: Value = 0
        if wire_type == _VARINT:
            value, place = varint(content, place, longest=10)
        elif wire_type == _DELIMITED:
            size, place = varint(content, place, longest=5)
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


def varint(content: memoryview, place: int, longest: int = 10) -> tuple[int, int]:
    """The number that starts at `place`, and the place behind it. Raises NotProtobuf."""
    number = 0
    for shift, byte in enumerate(content[place : place + longest]):
        number |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return number, place + shift + 1
    raise NotProtobuf("a number that does not end")


def signed(number: int) -> int:
    """An int64 as a varint has it: the same 64 bits, without a sign."""
    return number - 2**64 if number >= 2**63 else number
