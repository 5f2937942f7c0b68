"""What a TFLite file says of its network: inputs, operators, and whether it is quantised.

The file is a flatbuffer; tables and numbers are those of tensorflow/lite/schema/schema.fbs, where
fields keep their places for ever. Only the standard library is used: Make asks before there is any
environment.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from tpumake.errors import BadInput

__all__ = ["Network", "Tensor", "read_tflite"]

_TYPES = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16",
          9: "int8"}  # fmt: skip
_QUANTIZE = 114
# Lists may be shared, so a file may tell of some more than it holds, but not of any number.
_SHARING = 16
# What following an offset out of the file raises.
_DAMAGED = (struct.error, IndexError, ValueError)


@dataclass(frozen=True)
class Tensor:
    """A tensor: its sizes in the file's order, -1 where it is known only when the network runs."""

    name: str
    shape: tuple[int, ...]
    type: str


@dataclass(frozen=True)
class Network:
    """The first graph of a file. ``operators`` are numbers of the schema's BuiltinOperator."""

    inputs: tuple[Tensor, ...]
    operators: tuple[int, ...]
    quantised: bool
    """Computed in INT8, as opposed to weights alone being kept in it."""
    span: tuple[float, float] | None = None
    """The least and the largest number that the first input stands for, where it is quantised."""


def read_tflite(path: Path) -> Network:
    """Read a TFLite file.

    :raises BadInput: if it is none, or damaged
    """
    data = path.read_bytes()
    if data[4:8] != b"TFL3":
        raise BadInput(f"{path}: is no TFLite network")
    try:
        return _network(_Table(data, _u32(data, 0), [_SHARING * len(data)]))
    except _DAMAGED:
        raise BadInput(f"{path}: is damaged, or cut short; export it again") from None


def _network(model: _Table) -> Network:
    (graph, *_) = model.tables(2)
    codes = model.tables(1)
    tensors = graph.tables(0)
    operators = graph.tables(3)
    # The first field only holds numbers up to 127, the newer one is not in old files.
    kinds = [max(code.number(3, "<i"), code.number(0, "<b")) for code in codes]
    results = [index for operator in operators for index in operator.numbers(2)]
    return Network(
        inputs=tuple(_tensor(tensors[index]) for index in graph.numbers(1)),
        operators=tuple(kinds[operator.number(0, "<I")] for operator in operators),
        quantised=any(_tensor(tensors[index]).type in ("int8", "uint8") for index in results),
        span=_span(graph, kinds),
    )


def _span(graph: _Table, kinds: list[int]) -> tuple[float, float] | None:
    """What the numbers of a quantised network's first input, or what is made of it, stand for."""
    tensors, inputs = graph.tables(0), graph.numbers(1)
    index = inputs[0] if inputs else -1
    for operator in graph.tables(3):
        if operator.numbers(1)[:1] == (index,) and kinds[operator.number(0, "<I")] == _QUANTIZE:
            index = operator.numbers(2)[0]
            break
    least = {"int8": -128, "uint8": 0}.get(_tensor(tensors[index]).type) if index >= 0 else None
    for quantisation in [] if least is None else tensors[index].table(4):
        scales, zeros = quantisation.floats(2), quantisation.numbers(3, "q")
        if len(scales) == 1 and scales[0] > 0:
            low = (least - (zeros[0] if zeros else 0)) * scales[0]
            return low, low + 255 * scales[0]
    return None


def _tensor(table: _Table) -> Tensor:
    number = table.number(1, "<b")
    # The signature has what the converter was told; the shape has 1 where it was told nothing.
    shape = table.numbers(7) or table.numbers(0)
    return Tensor(table.text(3), tuple(shape), _TYPES.get(number, f"type {number}"))


class _Table:
    """A table of a flatbuffer; fields are named by their place in the schema.

    ``left``: how much may still be read, one number for all tables.
    """

    def __init__(self, data: bytes, at: int, left: list[int]) -> None:
        self._data = data
        self._left = left
        self._at = at
        (back,) = struct.unpack_from("<i", data, at)
        self._fields = at - back

    def _field(self, place: int) -> int:
        """Where a field lies, 0 if the file leaves it out."""
        size, _ = struct.unpack_from("<HH", self._data, self._fields)
        if 4 + 2 * place >= size:
            return 0
        (offset,) = struct.unpack_from("<H", self._data, self._fields + 4 + 2 * place)
        return self._at + offset if offset else 0

    def number(self, place: int, form: str) -> int:
        """A number, 0 by default, in the form that `struct` has for it."""
        at = self._field(place)
        return struct.unpack_from(form, self._data, at)[0] if at else 0

    def text(self, place: int) -> str:
        start, count = self._list(place)
        return self._data[start : start + count].decode()

    def numbers(self, place: int, form: str = "i") -> tuple[int, ...]:
        """A list of int32, or of what else `struct` calls by a letter."""
        start, count = self._list(place)
        return struct.unpack_from(f"<{count}{form}", self._data, start) if count else ()

    def floats(self, place: int) -> tuple[float, ...]:
        """A list of float32."""
        return self.numbers(place, "f")

    def table(self, place: int) -> list[_Table]:
        """One table, or none where the file leaves it out."""
        at = self._field(place)
        return [_Table(self._data, at + _u32(self._data, at), self._left)] if at else []

    def tables(self, place: int) -> list[_Table]:
        start, count = self._list(place)
        if start + 4 * count > len(self._data):
            raise IndexError
        places = range(start, start + 4 * count, 4)
        return [_Table(self._data, at + _u32(self._data, at), self._left) for at in places]

    def _list(self, place: int) -> tuple[int, int]:
        at = self._field(place)
        if not at:
            return 0, 0
        at += _u32(self._data, at)
        count = _u32(self._data, at)
        self._left[0] -= count
        if self._left[0] < 0:
            raise ValueError
        return at + 4, count


def _u32(data: bytes, at: int) -> int:
    return struct.unpack_from("<I", data, at)[0]
