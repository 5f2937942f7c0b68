"""Flatbuffers read into plain classes, whatever their bytes are.

A table is a dataclass whose annotations say how each field is read: ``name: Text``. A field's place
in its class is its place in the schema; a field that a file leaves out has the class's default.
Format: https://flatbuffers.dev/internals/. All of a file is read at once, nothing here writes, and
bytes that were made to mislead cost no more than honest ones.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, NamedTuple, TypeVar, get_type_hints

from flatbuffers import number_types as numbers
from flatbuffers.table import Table

__all__ = [
    "F32",
    "I32",
    "I64",
    "U8",
    "U32",
    "U64",
    "F32s",
    "Flag",
    "Text",
    "Texts",
    "U8s",
    "U64s",
    "Unread",
    "enumerated",
    "inline",
    "listed",
    "number",
    "read_root",
    "table",
]

# What the flatbuffers package raises when an offset leads out of the buffer.
_DAMAGED = (struct.error, IndexError, ValueError, OverflowError, TypeError)
# Compilers may refer twice to a table that they wrote once, so a file may tell of some more than it
# holds. A list of lists of one and the same list is no such file.
_SHARING = 16

T = TypeVar("T")


class _Place(Table):
    """A position in a buffer, and how much may still be read there: one number for all places."""

    __slots__ = ("left",)

    def __init__(self, data: bytes, position: int, left: list[int]) -> None:
        super().__init__(data, position)
        self.left = left

    def elsewhere(self, position: int) -> _Place:
        return _Place(self.Bytes, position, self.left)

    def spend(self, size: int) -> None:
        self.left[0] -= size
        if self.left[0] < 0:
            raise ValueError("it holds more than fits into it")


# Reads one value at a position of a table's buffer.
Read = Callable[[_Place, int], Any]


def read_root(kind: type[T], data: bytes) -> T:
    """Read a whole flatbuffer into its class.

    :raises ValueError: it is damaged; one line with what is wrong
    """
    try:
        (root,) = struct.unpack_from("<I", data)
        return _read(kind, _Place(data, root, [_SHARING * len(data)]))
    except _DAMAGED as error:
        raise ValueError(str(error)) from None


def number(flags: type) -> Read:
    """A number of one of the package's ``number_types``."""
    return lambda place, at: place.Get(flags, at)


def enumerated(kind: type[enum.IntEnum]) -> Read:
    """One byte of an enumeration; a number that a later version adds to it stands for itself."""
    known = {int(member): member for member in kind}
    return lambda place, at: known.get(value := place.Get(numbers.Uint8Flags, at), value)


def inline(layout: str, kind: type[NamedTuple] | None = None) -> Read:
    """A struct, which lies in its table itself; ``layout`` is that of the struct module."""
    packed = struct.Struct(layout)

    def read(place: _Place, at: int) -> tuple:
        values = packed.unpack_from(place.Bytes, at)
        return kind(*values) if kind else values

    return read


def table(kind: type) -> Read:
    """Another table."""
    return lambda place, at: _read(kind, place.elsewhere(place.Indirect(at)))


def listed(read: Read, width: int = 4) -> Read:
    """A vector; ``width`` is the size of an element in bytes, 4 for whatever lies elsewhere."""

    def read_all(place: _Place, at: int) -> tuple:
        start = place.Indirect(at)
        count = place.Get(numbers.UOffsetTFlags, start)
        if count * width > len(place.Bytes) - start:
            raise ValueError("a list is longer than the file")
        place.spend(count * width)
        return tuple(read(place, start + 4 + index * width) for index in range(count))

    return read_all


def _string(place: _Place, at: int) -> str:
    start = place.Indirect(at)
    length = place.Get(numbers.UOffsetTFlags, start)
    place.spend(length)
    text = place.Bytes[start + 4 : start + 4 + length]
    if len(text) < length:
        raise ValueError("a text is longer than the file")
    return bytes(text).decode(errors="replace")


def _octets(place: _Place, at: int) -> bytes:
    """A vector of bytes, as one value."""
    return bytes(listed(number(numbers.Uint8Flags), 1)(place, at))


def _read(kind: type[T], place: _Place) -> T:
    """Read a table into its class, field by field in the schema's order."""
    place.spend(4)
    values = {}
    for slot, (name, read) in enumerate(_readers(kind)):
        # A vtable starts with two sizes of two bytes each; then follows where each field lies.
        offset = place.Offset(4 + 2 * slot)
        if offset:
            values[name] = read(place, place.Pos + offset)
    return kind(**values)


@cache
def _readers(kind: type) -> list[tuple[str, Read]]:
    hints = get_type_hints(kind, include_extras=True)
    return [(name, hint.__metadata__[0]) for name, hint in hints.items()]


U8 = Annotated[int, number(numbers.Uint8Flags)]
I32 = Annotated[int, number(numbers.Int32Flags)]
U32 = Annotated[int, number(numbers.Uint32Flags)]
I64 = Annotated[int, number(numbers.Int64Flags)]
U64 = Annotated[int, number(numbers.Uint64Flags)]
F32 = Annotated[float, number(numbers.Float32Flags)]
Flag = Annotated[bool, number(numbers.BoolFlags)]
Text = Annotated[str, _string]
Texts = Annotated[tuple[str, ...], listed(_string)]
F32s = Annotated[tuple[float, ...], listed(number(numbers.Float32Flags))]
U64s = Annotated[tuple[int, ...], listed(number(numbers.Uint64Flags), 8)]
U8s = Annotated[bytes, _octets]
# A field that only keeps its place in the schema.
Unread = Annotated[None, lambda place, at: None]
