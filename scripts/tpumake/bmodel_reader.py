"""The bmodel file, read: its header, the fields of its flatbuffer, and its binary parts.

Layout (little endian), from tpu-mlir's ``lib/Builder/bmodel.cpp``: a header of 64 bytes, the
flatbuffer, and the binary part that ``Binary`` fields point into. The tables are those of the
schema that ``model_tool`` of tpu_mlir 1.7 carries as text (``strings model_tool``; published as
``tpu-bmodel/model/model.fbs`` of sophgo/libsophon, whose later versions only add fields at the
end). All of a file is read at once into plain values; nothing here writes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

from flatbuffers import number_types as numbers

from tpumake.errors import BadInput
from tpumake.flat_tables import (
    F32,
    I32,
    U32,
    U64,
    Text,
    U8s,
    U64s,
    Unread,
    inline,
    listed,
    number,
    read_root,
    table,
)

__all__ = [
    "MAGIC",
    "Binary",
    "CmdGroup",
    "CoeffMem",
    "ModelFile",
    "Net",
    "NetParameter",
    "Part",
    "SubNet",
    "Tensor",
    "read_bmodel",
]

MAGIC = struct.pack("<I", 0xFF55AAEE)
_HEADER = struct.Struct("<4I48x")


class Binary(NamedTuple):
    """A run of bytes of the binary part."""

    start: int = 0
    size: int = 0


_NOTHING = Binary()
_BINARY = inline("<QQ", Binary)
Bytes = Annotated[Binary, _BINARY]
ManyBytes = Annotated[tuple[Binary, ...], listed(_BINARY, 16)]


@dataclass(frozen=True)
class Shape:
    """Sizes of a tensor's dimensions."""

    dim: U64s = ()


@dataclass(frozen=True)
class CmdGroup:
    """Commands of the compute engine (bdc, also called tiu) and of the memory engine (gdma)."""

    bdc_num: U32 = 0
    gdma_num: U32 = 0
    binary_bdc: Bytes = _NOTHING
    binary_gdma: Bytes = _NOTHING
    bdc_cmd_byte: U32 = 0
    gdma_cmd_byte: U32 = 0


@dataclass(frozen=True)
class CoreCommands:
    """The commands of one core, on chips that have several."""

    gdma_tiu_commands: Annotated[tuple[CmdGroup, ...], listed(table(CmdGroup))] = ()
    sdma_commands: ManyBytes = ()
    hau_commands: ManyBytes = ()
    cdma_commands: ManyBytes = ()


@dataclass(frozen=True)
class CoeffMem:
    """Weights; ``check_code`` is the SHA-256 of their bytes."""

    address: U64 = 0
    check_code: U8s = b""
    binary_coeff: Bytes = _NOTHING
    location: Unread = None
    encrypt_mode: I32 = 0
    decrypt_size: U64 = 0


@dataclass(frozen=True)
class Tensor:
    """An input or output; ``shape`` has one for each stage of a dynamic network, else one."""

    name: Text = ""
    data_type: U32 = 0
    gmem_stmode: I32 = 0
    device_addr: U64 = 0
    size: U64 = 0
    shape: Annotated[tuple[Shape, ...], listed(table(Shape))] = ()
    mem_type: U32 = 0
    scale: F32 = 1.0
    cpu_addr: U32 = 0
    pad_h: U32 = 0
    zero_point: I32 = 0
    hidden: I32 = 0
    index: I32 = 0


@dataclass(frozen=True)
class CpuConst:
    """Weights of a layer that the host computes."""

    name: Text = ""
    const_data: Bytes = _NOTHING
    check_code: U8s = b""


@dataclass(frozen=True)
class CpuParam:
    """A layer that the host computes."""

    op_type: I32 = 0
    binary_param: Bytes = _NOTHING
    cpu_const: Annotated[tuple[CpuConst, ...], listed(table(CpuConst))] = ()
    is_custom: I32 = 0


_Tensors = Annotated[tuple[Tensor, ...], listed(table(Tensor))]
_CmdGroups = Annotated[tuple[CmdGroup, ...], listed(table(CmdGroup))]


@dataclass(frozen=True)
class SubNet:
    """A part of a network that runs in one place; ``subnet_mode``: 0 the TPU, 1 the host."""

    subnet_mode: I32 = 0
    cmd_group: _CmdGroups = ()
    cpu_param: Annotated[tuple[CpuParam, ...], listed(table(CpuParam))] = ()
    input_tensor: _Tensors = ()
    output_tensor: _Tensors = ()
    is_dynamic: I32 = 0
    ir_offset: U32 = 0
    ir_len: U32 = 0
    n_dynamic: I32 = 0
    h_w_dynamic: I32 = 0
    id: I32 = -1
    next_subnet_ids: Annotated[tuple[int, ...], listed(number(numbers.Int32Flags))] = ()
    merge_param: Unread = None
    switch_param: Unread = None
    core_commands: Annotated[tuple[CoreCommands, ...], listed(table(CoreCommands))] = ()

    def groups(self) -> tuple[CmdGroup, ...]:
        """Its groups of commands, those of all cores."""
        cores = [group for core in self.core_commands for group in core.gdma_tiu_commands]
        return self.cmd_group or tuple(cores)


@dataclass(frozen=True)
class NetParameter:
    """A stage: the network for one set of input shapes."""

    input_tensor: _Tensors = ()
    output_tensor: _Tensors = ()
    ctx_addr: U64 = 0
    ctx_size: U64 = 0
    coeff_mem: Annotated[CoeffMem | None, table(CoeffMem)] = None
    is_dynamic: I32 = 0
    n_dynamic: I32 = 0
    h_w_dynamic: I32 = 0
    cmd_group: _CmdGroups = ()
    net_profile: Bytes = _NOTHING
    stage_ir: Unread = None
    binary_ir: Bytes = _NOTHING
    sub_net: Annotated[tuple[SubNet, ...], listed(table(SubNet))] = ()
    cpu_mem_size: U32 = 0
    ctx_sizes: U64s = ()
    net_stat: Bytes = _NOTHING
    core_num: U32 = 0
    io_addr: U64 = 0
    io_size: U64 = 0


@dataclass(frozen=True)
class Net:
    """A network and its stages. ``cascade`` is for networks that run on several chips."""

    name: Text = ""
    net_static: Unread = None
    net_dynamic: Unread = None
    parameter: Annotated[tuple[NetParameter, ...], listed(table(NetParameter))] = ()
    cascade: Unread = None
    addr_mode: I32 = 0


@dataclass(frozen=True)
class Module:
    """A library that the chip itself runs."""

    file_name: Text = ""
    binary: Bytes = _NOTHING


@dataclass(frozen=True)
class Model:
    """The flatbuffer's root; ``time`` is as ``ctime`` writes it."""

    type: Text = ""
    version: Text = ""
    time: Text = ""
    chip: Text = ""
    net: Annotated[tuple[Net, ...], listed(table(Net))] = ()
    neuron_size: U64 = 0
    kernel_module: Annotated[Module | None, table(Module)] = None
    device_num: U32 = 0
    cpuop_module: Annotated[Module | None, table(Module)] = None


class Part(NamedTuple):
    """A run of bytes that is something: ``kind`` is weights, commands, host or module."""

    kind: str
    name: str
    where: Binary
    check_code: bytes = b""
    encrypted: bool = False


@dataclass(frozen=True)
class ModelFile:
    """A whole file: its flatbuffer as fields, and all that comes after it."""

    model: Model
    binary: memoryview

    def bytes_of(self, where: Binary) -> memoryview:
        """The bytes of a part."""
        return self.binary[where.start : where.start + where.size]

    def parts(self) -> list[Part]:
        """What the binary part is made of, each run of bytes once, in its order."""
        found = {}
        for part in _parts(self.model):
            if part.where.size:
                found.setdefault(part.where, part)
        return sorted(found.values(), key=lambda part: part.where)


def _parts(model: Model) -> Iterator[Part]:
    for module in (model.kernel_module, model.cpuop_module):
        if module:
            yield Part("module", module.file_name, module.binary)
    for net in model.net:
        for stage in net.parameter:
            yield from _parts_of_stage(net.name, stage)


def _parts_of_stage(name: str, stage: NetParameter) -> Iterator[Part]:
    weights = stage.coeff_mem
    if weights:
        encrypted = weights.encrypt_mode != 0
        yield Part("weights", name, weights.binary_coeff, weights.check_code, encrypted)
    yield Part("commands", f"{name} dynamic", stage.binary_ir)
    groups = list(stage.cmd_group)
    for subnet in stage.sub_net:
        groups += subnet.groups()
        for core in subnet.core_commands:
            for engine in ("sdma", "hau", "cdma"):
                for where in getattr(core, f"{engine}_commands"):
                    yield Part("commands", f"{name} {engine}", where)
        for layer in subnet.cpu_param:
            yield Part("host", f"{name} parameters", layer.binary_param)
            for each in layer.cpu_const:
                yield Part("host", each.name, each.const_data, each.check_code)
    for group in groups:
        yield Part("commands", f"{name} bdc", group.binary_bdc)
        yield Part("commands", f"{name} gdma", group.binary_gdma)


def read_bmodel(path: Path) -> ModelFile:
    """Read a bmodel.

    The weights' digests are not checked: whoever asks what a file holds may look for the damage.

    :raises BadInput: it is none, or cut short, or an offset leads nowhere
    """
    data = path.read_bytes()
    if len(data) < _HEADER.size or not data.startswith(MAGIC):
        raise BadInput(f"{path}: not a bmodel")
    _, header, flatbuffer, binary = _HEADER.unpack_from(data)
    if header != _HEADER.size:
        raise BadInput(f"{path}: its header has {header} bytes instead of {_HEADER.size}: damaged")
    if len(data) < header + flatbuffer + binary:
        raise BadInput(f"{path}: cut short; make it again")
    try:
        model = read_root(Model, data[header : header + flatbuffer])
    except ValueError as error:
        raise BadInput(f"{path}: damaged, its flatbuffer can't be read ({error})") from None
    file = ModelFile(model, memoryview(data)[header + flatbuffer :])
    if any(part.where.start + part.where.size > len(file.binary) for part in file.parts()):
        raise BadInput(f"{path}: damaged, a part of it ends outside it; make it again")
    if not any(net.parameter for net in model.net):
        raise BadInput(f"{path}: there is no network in it that this version can read")
    return file
