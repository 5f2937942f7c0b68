"""The cvimodel file, read: its header, the fields of its flatbuffer, and its binary sections.

Layout (little endian), from cviruntime (``include/runtime/model.hpp``) and tpu-mlir
(``MlirToCvimodel.cpp``): a header of 48 bytes, the flatbuffer, and the sections that the flatbuffer
lists, their offsets counted from its end. The tables are those of tpu-mlir's ``cvimodel.fbs``,
version 1.4: a field's place in its class is its place in the schema, so fields are only ever added
at the end. All of a file is read at once into plain values; nothing here writes.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

from flatbuffers import number_types as numbers
from flatbuffers.table import Table

from tpumake.errors import BadInput

__all__ = [
    "DType",
    "Header",
    "Model",
    "ModelFile",
    "Program",
    "Section",
    "SectionType",
    "Tensor",
    "Weight",
    "read_cvimodel",
]

_MAGIC = b"CviModel"
_HEADER = struct.Struct("<8sIBB16s16s2s")
# Weights' offsets carry the memory region that they are in above these bits.
_REGION = 40
# What the flatbuffers package raises when an offset leads out of the buffer.
_DAMAGED = (struct.error, IndexError, ValueError, OverflowError, TypeError)

T = TypeVar("T")
# Reads one value at a position of a table's buffer.
Read = Callable[[Table, int], Any]


class SectionType(enum.IntEnum):
    """What a section holds."""

    WEIGHT = 0
    CMDBUF = 1
    FUNC_X86 = 2
    FUNC_AARCH64 = 3
    DMABUF = 4


class DType(enum.IntEnum):
    """Type of a tensor's or weight's elements."""

    FP32 = 0
    INT32 = 1
    UINT32 = 2
    BF16 = 3
    INT16 = 4
    UINT16 = 5
    INT8 = 6
    UINT8 = 7


# ---------------------------------------------------------------------------------------------
# How fields are read. Each annotation below says so itself; a field that a file leaves out has the
# schema's default.


def _number(flags: type) -> Read:
    return lambda table, at: table.Get(flags, at)


def _enum(kind: type[enum.IntEnum]) -> Read:
    known = {int(member): member for member in kind}
    # Later versions may know more; their number then stands for itself.
    return lambda table, at: known.get(number := table.Get(numbers.Uint8Flags, at), number)


def _string(table: Table, at: int) -> str:
    return table.String(at).decode(errors="replace")


def _struct(size: int) -> Read:
    """A struct of so many bytes, which lies in the table itself."""
    return lambda table, at: tuple(table.Bytes[at : at + size])


def _table(kind: type) -> Read:
    return lambda table, at: _read(kind, Table(table.Bytes, table.Indirect(at)))


def _list(read: Read, width: int = 4) -> Read:
    """A vector; ``width`` is the size of an element in bytes, 4 for whatever lies elsewhere."""

    def read_all(table: Table, at: int) -> tuple:
        start = table.Indirect(at)
        count = table.Get(numbers.UOffsetTFlags, start)
        if count * width > len(table.Bytes) - start:
            raise ValueError("a list is longer than the file")
        return tuple(read(table, start + 4 + index * width) for index in range(count))

    return read_all


def _read(kind: type[T], table: Table) -> T:
    """Read a table into its class, field by field in the schema's order."""
    values = {}
    for slot, (name, read) in enumerate(_readers(kind)):
        # A vtable starts with two sizes of two bytes each; then follows where each field lies.
        offset = table.Offset(4 + 2 * slot)
        if offset:
            values[name] = read(table, table.Pos + offset)
    return kind(**values)


@cache
def _readers(kind: type) -> list[tuple[str, Read]]:
    hints = get_type_hints(kind, include_extras=True)
    return [(name, hint.__metadata__[0]) for name, hint in hints.items()]


U8 = Annotated[int, _number(numbers.Uint8Flags)]
U32 = Annotated[int, _number(numbers.Uint32Flags)]
I64 = Annotated[int, _number(numbers.Int64Flags)]
F32 = Annotated[float, _number(numbers.Float32Flags)]
Flag = Annotated[bool, _number(numbers.BoolFlags)]
Text = Annotated[str, _string]
Texts = Annotated[tuple[str, ...], _list(_string)]
F32s = Annotated[tuple[float, ...], _list(_number(numbers.Float32Flags))]
# A number where a later version knows more types than this one.
Type = Annotated[DType | int, _enum(DType)]

# ---------------------------------------------------------------------------------------------
# The tables


@dataclass(frozen=True)
class Shape:
    """Sizes of a tensor's dimensions; -1 where it is known only when the model runs."""

    dim: Annotated[tuple[int, ...], _list(_number(numbers.Int64Flags), 8)] = ()


@dataclass(frozen=True)
class QuantInfo:
    """How a tensor is quantised; ``type``: 0 not, 1 BF16, 2 INT8 symmetric, 3 INT8 asymmetric."""

    type: U8 = 0
    max_value: F32 = 0.0
    min_value: F32 = 0.0
    zero_point: F32 = 0.0
    qscale: F32 = 0.0


@dataclass(frozen=True)
class Tensor:
    """A tensor of a program: where it lies in memory, its type and what it means."""

    tensor_id: U32 = 0
    name: Text = ""
    offset: I64 = 0
    dtype: Type = DType.FP32
    shape: Annotated[Shape | None, _table(Shape)] = None
    stride: Annotated[Shape | None, _table(Shape)] = None
    quant: Annotated[QuantInfo | None, _table(QuantInfo)] = None
    overwrote: Flag = False
    scale: F32s = ()
    mean: F32s = ()
    pixel_format: Text = ""
    aligned: Flag = False
    size: U32 = 0


@dataclass(frozen=True)
class Weight:
    """A weight, and where it lies in the section of weights."""

    name: Text = ""
    offset: I64 = 0
    size: U32 = 0
    shape: Annotated[Shape | None, _table(Shape)] = None
    type: Type = DType.FP32

    @property
    def start(self) -> int:
        """Its first byte, counted from the section's."""
        return self.offset & ((1 << _REGION) - 1)


@dataclass(frozen=True)
class PreProcessHints:
    """What is to be done to an input before the model sees it."""

    color: Text = ""
    raw_scale: F32 = 0.0
    mean: Text = ""
    std: Text = ""
    input_scale: F32 = 0.0
    data_format: Text = ""


@dataclass(frozen=True)
class PostProcessHints:
    """What was done to an output already."""

    done_softmax: Flag = False


@dataclass(frozen=True)
class TpuRoutine:
    """The names of the sections with its commands."""

    cmdbuf_section: Text = ""
    dmabuf_section: Text = ""


@dataclass(frozen=True)
class CpuRoutine:
    """A function of the runtime or of a section, and its serialised arguments."""

    function_section: Text = ""
    function_args: Annotated[tuple[int, ...], _list(_number(numbers.Uint8Flags), 1)] = ()


@dataclass(frozen=True)
class Routine:
    """One step of a program; ``type``: 0 on the TPU, 1 on the CPU."""

    type: U8 = 0
    in_tensors: Texts = ()
    out_tensors: Texts = ()
    tpu_routine: Annotated[TpuRoutine | None, _table(TpuRoutine)] = None
    cpu_routine: Annotated[CpuRoutine | None, _table(CpuRoutine)] = None


@dataclass(frozen=True)
class Program:
    """What runs for one batch size: memory in bytes, tensors, and routines in their order."""

    batch_num: U32 = 0
    neuron_size: U32 = 0
    input_tensors: Texts = ()
    output_tensors: Texts = ()
    tensor_map: Annotated[tuple[Tensor, ...], _list(_table(Tensor))] = ()
    routines: Annotated[tuple[Routine, ...], _list(_table(Routine))] = ()
    shared_gmem: U32 = 0
    private_gmem: U32 = 0


@dataclass(frozen=True)
class Section:
    """A run of bytes behind the flatbuffer; ``offset`` counts from its end."""

    type: Annotated[SectionType | int, _enum(SectionType)] = SectionType.WEIGHT
    name: Text = ""
    size: U32 = 0
    offset: U32 = 0
    encrypt: Flag = False
    compress: Flag = False
    decompressed_size: U32 = 0


@dataclass(frozen=True)
class Model:
    """The flatbuffer's root; ``version`` is major, minor and below."""

    version: Annotated[tuple[int, ...], _struct(3)] = ()
    name: Text = ""
    build_time: Text = ""
    preprocess_hints: Annotated[PreProcessHints | None, _table(PreProcessHints)] = None
    postprocess_hints: Annotated[PostProcessHints | None, _table(PostProcessHints)] = None
    weight_map: Annotated[tuple[Weight, ...], _list(_table(Weight))] = ()
    programs: Annotated[tuple[Program, ...], _list(_table(Program))] = ()
    sections: Annotated[tuple[Section, ...], _list(_table(Section))] = ()
    target: Text = ""
    mlir_version: Text = ""


@dataclass(frozen=True)
class Header:
    """The first 48 bytes. ``md5`` is that of all bytes after them."""

    body_size: int
    major: int
    minor: int
    md5: bytes
    chip: str
    padding: bytes


@dataclass(frozen=True)
class ModelFile:
    """A whole file: header, flatbuffer as bytes and as fields, and all that comes after it."""

    header: Header
    flatbuffer: bytes
    model: Model
    binary: bytes

    def section(self, section: Section) -> bytes:
        """The bytes of one of ``model.sections``."""
        return self.binary[section.offset : section.offset + section.size]


def read_cvimodel(path: Path) -> ModelFile:
    """Read a cvimodel of version 1.1 or later.

    Its MD5 is not checked: whoever asks what a file holds may be looking for the damage.

    :raises BadInput: it is none, or cut short, or an offset leads nowhere
    """
    data = path.read_bytes()
    if len(data) < _HEADER.size or not data.startswith(_MAGIC):
        raise BadInput(f"{path}: not a cvimodel")
    _, size, major, minor, md5, chip, padding = _HEADER.unpack_from(data)
    header = Header(size, major, minor, md5, chip.rstrip(b"\0").decode("latin-1"), padding)
    flatbuffer = data[_HEADER.size : _HEADER.size + size]
    if (major, minor) < (1, 1):
        raise BadInput(f"{path}: a cvimodel of version {major}.{minor}; 1.1 is the oldest known")
    if len(flatbuffer) < size:
        raise BadInput(f"{path}: cut short; make it again")
    try:
        model = _read(Model, Table(flatbuffer, struct.unpack_from("<I", flatbuffer)[0]))
    except _DAMAGED as error:
        raise BadInput(f"{path}: damaged, its flatbuffer can't be read ({error})") from None
    binary = data[_HEADER.size + size :]
    if any(each.offset + each.size > len(binary) for each in model.sections):
        raise BadInput(f"{path}: cut short, a section ends outside it; make it again")
    return ModelFile(header, flatbuffer, model, binary)
