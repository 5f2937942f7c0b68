"""Small bmodels, made with the flatbuffers package, for tests of what reads them."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

from cvimodels import vector
from flatbuffers import Builder

WEIGHTS = bytes(range(64))
COMPUTE = bytes(range(100, 180))
MOVE = bytes(range(200, 230))
MODULE = b"\x7fELF a library"
BINARY = MODULE + WEIGHTS + COMPUTE + MOVE


def _binary(builder: Builder, slot: int, start: int, size: int) -> None:
    builder.Prep(8, 16)
    builder.PrependUint64(size)
    builder.PrependUint64(start)
    builder.PrependStructSlot(slot, builder.Offset(), 0)


def _shape(builder: Builder, dims: Sequence[int]) -> int:
    builder.StartVector(8, len(dims), 8)
    for dim in reversed(dims):
        builder.PrependUint64(dim)
    offset = builder.EndVector()
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(0, offset, 0)
    return builder.EndObject()


def _tensor(
    builder: Builder, name: str, kind: int, dims: Sequence[int], scale: float, zero: int
) -> int:
    text, shapes = builder.CreateString(name), vector(builder, [_shape(builder, dims)])
    builder.StartObject(13)
    builder.PrependUOffsetTRelativeSlot(0, text, 0)
    builder.PrependUint32Slot(1, kind, 0)
    builder.PrependUint64Slot(4, 48, 0)
    builder.PrependUOffsetTRelativeSlot(5, shapes, 0)
    builder.PrependFloat32Slot(7, scale, 1.0)
    builder.PrependInt32Slot(10, zero, 0)
    return builder.EndObject()


def _group(builder: Builder) -> int:
    start = len(MODULE) + len(WEIGHTS)
    builder.StartObject(6)
    builder.PrependUint32Slot(0, 3, 0)
    _binary(builder, 2, start, len(COMPUTE))
    _binary(builder, 3, start + len(COMPUTE), len(MOVE))
    return builder.EndObject()


def _subnet(builder: Builder, cores: int) -> int:
    groups = vector(builder, [_group(builder)])
    if cores:
        builder.StartObject(4)
        builder.PrependUOffsetTRelativeSlot(0, groups, 0)
        core = builder.EndObject()
        groups = vector(builder, [core] * cores)
    builder.StartObject(15)
    builder.PrependUOffsetTRelativeSlot(14 if cores else 1, groups, 0)
    return builder.EndObject()


def _weights(builder: Builder, check_code: bytes) -> int:
    code = builder.CreateByteVector(check_code)
    builder.StartObject(3)
    builder.PrependUOffsetTRelativeSlot(1, code, 0)
    _binary(builder, 2, len(MODULE), len(WEIGHTS))
    return builder.EndObject()


def _stage(builder: Builder, check_code: bytes, cores: int, dims: Sequence[int]) -> int:
    inputs = vector(builder, [_tensor(builder, "images", 3, dims, 0.5, 128)])
    outputs = vector(builder, [_tensor(builder, "out", 0, (1, 2), 1.0, 0)])
    weights = _weights(builder, check_code)
    subnets = vector(builder, [_subnet(builder, cores)])
    builder.StartObject(19)
    for slot, offset in ((0, inputs), (1, outputs), (4, weights), (12, subnets)):
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    builder.PrependUint64Slot(3, 4096, 0)
    return builder.EndObject()


def flatbuffer(
    chip: str = "BM1684X",
    version: str = "2.2+v1.7",
    time: str = "Tue Jan  1 00:00:00 1980\n",
    check_code: bytes = hashlib.sha256(WEIGHTS).digest(),
    cores: int = 0,
    stages: Sequence[Sequence[int]] = ((1, 3, 2, 2),),
) -> bytes:
    """The fields of a model; what it leaves out has the schema's default."""
    builder = Builder(0)
    texts = {slot: builder.CreateString(text) for slot, text in
             ((0, "B"), (1, version), (2, time), (3, chip))}  # fmt: skip
    parameters = vector(builder, [_stage(builder, check_code, cores, dims) for dims in stages])
    name = builder.CreateString("net")
    builder.StartObject(6)
    builder.PrependUOffsetTRelativeSlot(0, name, 0)
    builder.PrependUOffsetTRelativeSlot(3, parameters, 0)
    net = builder.EndObject()
    nets = vector(builder, [net])
    library = builder.CreateString("lib.so")
    builder.StartObject(2)
    builder.PrependUOffsetTRelativeSlot(0, library, 0)
    _binary(builder, 1, 0, len(MODULE))
    module = builder.EndObject()
    builder.StartObject(9)
    for slot, offset in (texts | {4: nets, 6: module}).items():
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    builder.Finish(builder.EndObject())
    return bytes(builder.Output())


def bmodel(
    body: bytes | None = None, binary: bytes = BINARY, header: int = 64, **fields: object
) -> bytes:
    """A whole file; ``fields`` are those of ``flatbuffer``."""
    body = flatbuffer(**fields) if body is None else body
    head = struct.pack("<4I", 0xFF55AAEE, header, len(body), len(binary)).ljust(64, b"\0")
    return head + body + binary
