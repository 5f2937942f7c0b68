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
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from flatbuffers import number_types as numbers

from tpumake.errors import BadInput
from tpumake.flat_tables import (
    F32,
    I64,
    U8,
    U32,
    F32s,
    Flag,
    Text,
    Texts,
    enumerated,
    inline,
    listed,
    number,
    read_root,
    table,
)

__all__ = [
    "MAGIC",
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

MAGIC = b"CviModel"
_HEADER = struct.Struct("<8sIBB16s16s2s")
# Weights' offsets carry the memory region that they are in above these bits.
_REGION = 40


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


# A number where a later version knows more types than this one.
Type = Annotated[DType | int, enumerated(DType)]

# ---------------------------------------------------------------------------------------------
# The tables


@dataclass(frozen=True)
class Shape:
    """Sizes of a tensor's dimensions; -1 where it is known only when the model runs."""

    dim: Annotated[tuple[int, ...], listed(number(numbers.Int64Flags), 8)] = ()


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
    shape: Annotated[Shape | None, table(Shape)] = None
    stride: Annotated[Shape | None, table(Shape)] = None
    quant: Annotated[QuantInfo | None, table(QuantInfo)] = None
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
    shape: Annotated[Shape | None, table(Shape)] = None
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
    function_args: Annotated[tuple[int, ...], listed(number(numbers.Uint8Flags), 1)] = ()


@dataclass(frozen=True)
class Routine:
    """One step of a program; ``type``: 0 on the TPU, 1 on the CPU."""

    type: U8 = 0
    in_tensors: Texts = ()
    out_tensors: Texts = ()
    tpu_routine: Annotated[TpuRoutine | None, table(TpuRoutine)] = None
    cpu_routine: Annotated[CpuRoutine | None, table(CpuRoutine)] = None


@dataclass(frozen=True)
class Program:
    """What runs for one batch size: memory in bytes, tensors, and routines in their order."""

    batch_num: U32 = 0
    neuron_size: U32 = 0
    input_tensors: Texts = ()
    output_tensors: Texts = ()
    tensor_map: Annotated[tuple[Tensor, ...], listed(table(Tensor))] = ()
    routines: Annotated[tuple[Routine, ...], listed(table(Routine))] = ()
    shared_gmem: U32 = 0
    private_gmem: U32 = 0


@dataclass(frozen=True)
class Section:
    """A run of bytes behind the flatbuffer; ``offset`` counts from its end."""

    type: Annotated[SectionType | int, enumerated(SectionType)] = SectionType.WEIGHT
    name: Text = ""
    size: U32 = 0
    offset: U32 = 0
    encrypt: Flag = False
    compress: Flag = False
    decompressed_size: U32 = 0


@dataclass(frozen=True)
class Model:
    """The flatbuffer's root; ``version`` is major, minor and below."""

    version: Annotated[tuple[int, ...], inline("<3B")] = ()
    name: Text = ""
    build_time: Text = ""
    preprocess_hints: Annotated[PreProcessHints | None, table(PreProcessHints)] = None
    postprocess_hints: Annotated[PostProcessHints | None, table(PostProcessHints)] = None
    weight_map: Annotated[tuple[Weight, ...], listed(table(Weight))] = ()
    programs: Annotated[tuple[Program, ...], listed(table(Program))] = ()
    sections: Annotated[tuple[Section, ...], listed(table(Section))] = ()
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
    if len(data) < _HEADER.size or not data.startswith(MAGIC):
        raise BadInput(f"{path}: not a cvimodel")
    _, size, major, minor, md5, chip, padding = _HEADER.unpack_from(data)
    header = Header(size, major, minor, md5, chip.rstrip(b"\0").decode("latin-1"), padding)
    flatbuffer = data[_HEADER.size : _HEADER.size + size]
    if (major, minor) < (1, 1):
        raise BadInput(f"{path}: a cvimodel of version {major}.{minor}; 1.1 is the oldest known")
    if len(flatbuffer) < size:
        raise BadInput(f"{path}: cut short; make it again")
    try:
        model = read_root(Model, flatbuffer)
    except ValueError as error:
        raise BadInput(f"{path}: damaged, its flatbuffer can't be read ({error})") from None
    binary = data[_HEADER.size + size :]
    if any(each.offset + each.size > len(binary) for each in model.sections):
        raise BadInput(f"{path}: cut short, a section ends outside it; make it again")
    return ModelFile(header, flatbuffer, model, binary)
