"""Small cvimodels, made with the flatbuffers package, for tests of what reads them."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

from flatbuffers import Builder

WEIGHTS = bytes(range(64))
COMMANDS = bytes(range(100, 200))
# Types of elements, as cvimodel.fbs numbers them.
FP32, BF16, INT8, UINT8 = 0, 3, 6, 7


def vector(builder: Builder, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _longs(builder: Builder, values: Sequence[int]) -> int:
    builder.StartVector(8, len(values), 8)
    for value in reversed(values):
        builder.PrependInt64(value)
    return builder.EndVector()


def _shape(builder: Builder, dims: Sequence[int]) -> int:
    offset = _longs(builder, dims)
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(0, offset, 0)
    return builder.EndObject()


def _weight(builder: Builder, name: str, start: int, size: int) -> int:
    text, shape = builder.CreateString(name), _shape(builder, (1, size))
    builder.StartObject(5)
    builder.PrependUOffsetTRelativeSlot(0, text, 0)
    builder.PrependInt64Slot(1, (1 << 40) + start, 0)
    builder.PrependUint32Slot(2, size, 0)
    builder.PrependUOffsetTRelativeSlot(3, shape, 0)
    builder.PrependUint8Slot(4, 6, 0)
    return builder.EndObject()


def _tensor(
    builder: Builder,
    dims: Sequence[int],
    name: str,
    offset: int,
    qscale: float,
    own_dims: Sequence[int] | None = None,
    dtype: int = UINT8,
    pixel_format: str = "",
    aligned: bool = True,
) -> int:
    text, shape = builder.CreateString(name), _shape(builder, own_dims or dims)
    pixels = builder.CreateString(pixel_format) if pixel_format else 0
    builder.StartObject(5)
    builder.PrependFloat32Slot(4, qscale, 0.0)
    quant = builder.EndObject()
    builder.StartObject(13)
    builder.PrependUOffsetTRelativeSlot(1, text, 0)
    builder.PrependInt64Slot(2, offset, 0)
    builder.PrependUint8Slot(3, dtype, 0)
    builder.PrependUOffsetTRelativeSlot(4, shape, 0)
    builder.PrependUOffsetTRelativeSlot(6, quant, 0)
    builder.PrependUOffsetTRelativeSlot(10, pixels, 0)
    builder.PrependBoolSlot(11, aligned, False)
    return builder.EndObject()


def _section(builder: Builder, kind: int, name: str, size: int, offset: int) -> int:
    text = builder.CreateString(name)
    builder.StartObject(7)
    builder.PrependUint8Slot(0, kind, 0)
    builder.PrependUOffsetTRelativeSlot(1, text, 0)
    builder.PrependUint32Slot(2, size, 0)
    builder.PrependUint32Slot(3, offset, 0)
    return builder.EndObject()


def _program(
    builder: Builder, tensors: Sequence[tuple], dims: Sequence[int], inputs: int, memory: int
) -> int:
    names = [builder.CreateString(name) for name, *_ in tensors]
    outputs = vector(builder, names[inputs:])
    inputs = vector(builder, names[:inputs])
    tensor_map = vector(builder, [_tensor(builder, dims, *each) for each in tensors])
    text = builder.CreateString("subfunc_0")
    builder.StartObject(2)
    builder.PrependUOffsetTRelativeSlot(0, text, 0)
    tpu = builder.EndObject()
    builder.StartObject(5)
    builder.PrependUOffsetTRelativeSlot(3, tpu, 0)
    routine = builder.EndObject()
    routines = vector(builder, [routine])
    builder.StartObject(8)
    builder.PrependUint32Slot(1, memory, 0)
    for slot, offset in ((2, inputs), (3, outputs), (4, tensor_map), (5, routines)):
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    builder.PrependUint32Slot(6, 4096, 0)
    builder.PrependUint32Slot(7, 512, 0)
    return builder.EndObject()


def flatbuffer(
    name: str = "net",
    build_time: str = "1980-01-01 00:00:00",
    tensors: Sequence[tuple] = (("images", 0, 0.5), ("out", 16, 1.0)),
    weights: Sequence[tuple[str, int, int]] = (("conv.weight", 0, 48), ("conv.bias", 48, 16)),
    sections: Sequence[tuple[int, str, int, int]] = (
        (0, "weight", len(WEIGHTS), 0),
        (1, "subfunc_0", len(COMMANDS), len(WEIGHTS)),
    ),
    dims: Sequence[int] = (1, 3, 8, -1),
    programs: int = 1,
    inputs: int = 1,
    memory: int = 0,
) -> bytes:
    """The fields of a model; what it leaves out has the schema's default.

    A tensor is its name, offset and scale; then, if they matter, its shape, type, form of pictures,
    and whether that is aligned. The first ones are the inputs. ``memory`` is what a program
    computes in, in bytes.
    """
    builder = Builder(0)
    texts = {slot: builder.CreateString(text) for slot, text in
             ((1, name), (2, build_time), (8, "cv181x"), (9, "v1.7"))}  # fmt: skip
    lists = {
        5: vector(builder, [_weight(builder, *each) for each in weights]),
        6: vector(builder, [_program(builder, tensors, dims, inputs, memory)] * programs),
        7: vector(builder, [_section(builder, *each) for each in sections]),
    }
    builder.StartObject(10)
    for slot, offset in (texts | lists).items():
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    builder.Prep(1, 3)
    for part in (0, 4, 1):
        builder.PrependUint8(part)
    builder.PrependStructSlot(0, builder.Offset(), 0)
    builder.Finish(builder.EndObject())
    return bytes(builder.Output())


def cvimodel(
    body: bytes | None = None,
    binary: bytes = WEIGHTS + COMMANDS,
    chip: bytes = b"cv181x",
    version: tuple[int, int] = (1, 4),
    md5: bytes | None = None,
    **fields: object,
) -> bytes:
    """A whole file; ``fields`` are those of ``flatbuffer``."""
    body = flatbuffer(**fields) if body is None else body
    digest = hashlib.md5(body + binary).digest() if md5 is None else md5
    head = b"CviModel" + struct.pack("<IBB", len(body), *version) + digest
    return head + chip.ljust(16, b"\0") + b"Cv" + body + binary


Output = tuple[Sequence[int], int, float]


def outputs_of(shapes: Sequence[Sequence[int]], dtype: int = FP32) -> list[Output]:
    """Outputs of these shapes, all of a type."""
    return [(shape, dtype, 1.0) for shape in shapes]


def camera_model(
    outputs: Sequence[Output],
    picture: Sequence[int] = (1, 640, 640, 3),
    dtype: int = UINT8,
    form: str = "RGB_PACKED",
    aligned: bool = True,
    inputs: int = 1,
    **fields: object,
) -> bytes:
    """A model with inputs of one kind and these outputs: shape, type, scale."""
    tensors = [(f"in{n}", 0, 1.0, picture, dtype, form, aligned) for n in range(inputs)]
    tensors += [(f"out{n}", 0, scale, dims, kind, "", False)
                for n, (dims, kind, scale) in enumerate(outputs)]  # fmt: skip
    return cvimodel(tensors=tensors, inputs=inputs, **fields)
