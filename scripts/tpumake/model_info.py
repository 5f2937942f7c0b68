"""What a compiled model is, told alike for both kinds of files: chip, tensors, memory, parts.

Memory is reckoned as ``model_tool --info`` does (tpu-mlir ``tools/model_tool``, libsophon
``tpu-bmodel/src/bmodel.cpp``), so that both say the same; but commands count wherever a bmodel has
them, while tpu_mlir 1.7 overlooks those of chips with several cores (BM1690).
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable
from pathlib import Path

from tpumake import bmodel_reader, cvimodel_reader
from tpumake.bmodel_reader import NetParameter
from tpumake.cvimodel_reader import DType, Program, SectionType
from tpumake.errors import BadInput
from tpumake.keys import sha256

__all__ = ["describe", "lines"]

_SCHEMA = "info.schema.json"
# How cvimodels and bmodels number the types of elements.
_CVI_TYPES = {
    DType.FP32: "float32", DType.INT32: "int32", DType.UINT32: "uint32", DType.BF16: "bfloat16",
    DType.INT16: "int16", DType.UINT16: "uint16", DType.INT8: "int8", DType.UINT8: "uint8",
}  # fmt: skip
_BM_TYPES = ("float32", "float16", "int8", "uint8", "int16", "uint16", "int32", "uint32",
             "bfloat16", "int4", "uint4")  # fmt: skip
_BYTES = {DType.FP32: 4, DType.INT32: 4, DType.UINT32: 4, DType.BF16: 2, DType.INT16: 2,
          DType.UINT16: 2, DType.INT8: 1, DType.UINT8: 1}  # fmt: skip
_KINDS = {SectionType.WEIGHT: "weights", SectionType.CMDBUF: "commands",
          SectionType.DMABUF: "commands"}  # fmt: skip
# A cvimodel's tensor has its memory region in its offset, above these bits; inputs and outputs have
# regions from 3 on, and -1 stands for no memory at all.
_REGION, _REGIONS, _FIRST_IO_REGION = 40, 7, 3
# A bmodel's inputs and outputs pass through a buffer that has four bytes for each element.
_WORD = 4
_MOST = 1 << 48
# Networks may share some parts.
_OVERLAPPING = 16


def describe(path: Path) -> dict:
    """Tell all of a model file, as schemas/info.schema.json has it.

    :raises BadInput: it is neither a cvimodel nor a bmodel, or too damaged to be read
    """
    if not path.exists():
        raise BadInput(f"{path}: there is no such file")
    if not path.is_file():
        raise BadInput(f"{path}: not a file")
    with path.open("rb") as file:
        start = file.read(len(cvimodel_reader.MAGIC))
    try:
        if start == cvimodel_reader.MAGIC:
            told = _cvimodel(path)
        elif start.startswith(bmodel_reader.MAGIC):
            told = _bmodel(path)
        else:
            raise BadInput(f"{path}: neither a cvimodel nor a bmodel")
    except _Absurd as error:
        raise BadInput(f"{path}: damaged, {error}") from None
    common = {"file": path.name, "size": path.stat().st_size, "sha256": sha256(path)}
    return {"$schema": _SCHEMA, **common, **told}


class _Absurd(Exception):
    """What the file says can't be."""


def _bounded(sizes: Iterable[int], path: Path) -> None:
    """Refuse parts that together are many times the file: each is read, for its digest."""
    if sum(sizes) > _OVERLAPPING * path.stat().st_size:
        raise _Absurd("its parts together are many times as large as the file")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _product(name: str, dims: tuple[int, ...]) -> int:
    """How many elements a tensor has; 0 where a dimension is known only when the model runs."""
    count = 1
    for dim in dims:
        count *= max(dim, 0)
        if count > _MOST:
            raise _Absurd(f"{name!r} has more elements than any memory")
    return count


# ---------------------------------------------------------------------------------------------
# cvimodels


def _cvimodel(path: Path) -> dict:
    file = cvimodel_reader.read_cvimodel(path)
    model = file.model
    _bounded((each.size for each in model.sections), path)
    md5 = hashlib.md5(file.flatbuffer)
    md5.update(file.binary)
    return {
        "kind": "cvimodel",
        "name": model.name,
        "chip": file.header.chip,
        "format_version": ".".join(map(str, model.version)),
        "tool_version": model.mlir_version or None,
        "built": model.build_time,
        "checksum": {
            "algorithm": "md5",
            "covers": "all after the header",
            "right": md5.digest() == file.header.md5,
        },
        "memory": _ion(file),
        "programs": [
            {
                "name": model.name,
                "stage": index,
                "dynamic": False,
                "inputs": _cvi_tensors(program, program.input_tensors),
                "outputs": _cvi_tensors(program, program.output_tensors),
            }
            for index, program in enumerate(model.programs)
        ],
        "parts": [
            {
                "kind": _KINDS.get(each.type, "host"),
                "name": each.name,
                "offset": each.offset,
                "size": each.size,
                "md5": hashlib.md5(file.section(each)).hexdigest(),
                "encrypted": each.encrypt,
                "compressed": each.compress,
            }
            for each in model.sections
        ],
    }


def _ion(file: cvimodel_reader.ModelFile) -> dict:
    """What a cvimodel takes of the ION memory: its sections, and what programs compute in."""
    sizes = {"weights": 0, "commands": 0, "host": 0}
    for section in file.model.sections:
        sizes[_KINDS.get(section.type, "host")] += section.size
    programs = file.model.programs
    parts = {
        "private": sum(each.neuron_size + each.private_gmem for each in programs),
        # One after the other, programs compute in the same memory.
        "shared": max((each.shared_gmem for each in programs), default=0),
        "io": sum(_io_size(each) for each in programs),
    }
    runtime = sum(parts.values())
    total = sum(sizes.values()) + runtime
    return {"total": total, **sizes, "runtime": runtime, **parts}


def _io_size(program: Program) -> int:
    return sum(
        _cvi_size(each)
        for each in program.tensor_map
        if each.offset != -1 and each.offset >> _REGION & _REGIONS >= _FIRST_IO_REGION
    )


def _cvi_size(tensor: cvimodel_reader.Tensor) -> int:
    dims = tensor.shape.dim if tensor.shape else ()
    return _product(tensor.name, dims) * _BYTES.get(tensor.dtype, 0)


def _cvi_tensors(program: Program, names: tuple[str, ...]) -> list[dict]:
    known = {each.name: each for each in program.tensor_map}
    missing = [name for name in names if name not in known]
    if missing:
        raise _Absurd(f"its input or output {missing[0]!r} is not among its tensors")
    return [_cvi_tensor(known[name]) for name in names]


def _cvi_tensor(tensor: cvimodel_reader.Tensor) -> dict:
    quant = tensor.quant
    told = {
        "name": tensor.name,
        "shape": list(tensor.shape.dim) if tensor.shape else [],
        "dtype": _CVI_TYPES.get(tensor.dtype, f"type {int(tensor.dtype)}"),
        # Without a scale the field is 0.
        "scale": (_finite(quant.qscale) or None) if quant else None,
        "zero_point": _finite(quant.zero_point) if quant else None,
        "size": _cvi_size(tensor),
    }
    if tensor.pixel_format:
        told |= {"pixel_format": tensor.pixel_format, "aligned": tensor.aligned}
    return told


# ---------------------------------------------------------------------------------------------
# bmodels


def _bmodel(path: Path) -> dict:
    file = bmodel_reader.read_bmodel(path)
    model = file.model
    version, _, tool = model.version.partition("+")
    parts = file.parts()
    _bounded((part.where.size for part in parts), path)
    return {
        "kind": "bmodel",
        "name": model.net[0].name,
        "chip": model.chip.lower(),
        "format_version": version,
        "tool_version": tool or None,
        "built": _as_cvimodels_have_it(model.time.strip()),
        "checksum": {
            "algorithm": "sha256",
            "covers": "weights",
            "right": _weights_are_right(file, parts),
        },
        "memory": _device_memory(file),
        "programs": [
            {
                "name": net.name,
                "stage": index,
                "dynamic": stage.is_dynamic != 0,
                "inputs": [_bm_tensor(each) for each in stage.input_tensor],
                "outputs": [_bm_tensor(each) for each in stage.output_tensor],
            }
            for net in model.net
            for index, stage in enumerate(net.parameter)
        ],
        "parts": [
            {
                "kind": part.kind,
                "name": part.name,
                "offset": part.where.start,
                "size": part.where.size,
                "md5": hashlib.md5(file.bytes_of(part.where)).hexdigest(),
                "encrypted": part.encrypted,
                "compressed": False,
            }
            for part in parts
        ],
    }


def _as_cvimodels_have_it(text: str) -> str:
    """The time of a build; one that ``ctime`` did not write stays as it is."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.strptime(text, "%a %b %d %H:%M:%S %Y"))
    except ValueError:
        return text


def _weights_are_right(
    file: bmodel_reader.ModelFile, parts: list[bmodel_reader.Part]
) -> bool | None:
    """Whether all that has a digest has the right one; None if nothing has."""
    checked = [
        hashlib.sha256(file.bytes_of(part.where)).digest() == part.check_code
        for part in parts
        if part.check_code and not part.encrypted
    ]
    return all(checked) if checked else None


def _device_memory(file: bmodel_reader.ModelFile) -> dict:
    """What a bmodel takes of its chip's memory; ``host`` is memory of the computer around it."""
    model = file.model
    stages = [stage for net in model.net for stage in net.parameter]
    # The same weights are loaded once, whichever network they are for.
    weights = {
        stage.coeff_mem.check_code: stage.coeff_mem.binary_coeff.size
        for stage in stages
        if stage.coeff_mem
    }
    sizes = {"weights": sum(weights.values()), "commands": sum(map(_commands, stages))}
    passing = [each for stage in stages for each in (*stage.input_tensor, *stage.output_tensor)]
    buffer = _WORD * max(map(_elements, passing), default=0)
    runtime = _neurons(model) + buffer
    constants = {
        each.check_code: each.const_data.size
        for stage in stages
        for subnet in stage.sub_net
        for layer in subnet.cpu_param
        for each in layer.cpu_const
    }
    host = sum(constants.values()) + sum(_WORD * stage.cpu_mem_size for stage in stages)
    return {"total": sum(sizes.values()) + runtime, **sizes, "host": host, "runtime": runtime}


def _neurons(model: bmodel_reader.Model) -> int:
    """What networks compute in: one memory for all that run as a whole, others have their own."""
    together = apart = 0
    for net in model.net:
        size = max((stage.ctx_size for stage in net.parameter), default=0)
        if any(len(stage.sub_net) > 1 for stage in net.parameter):
            apart += size
        else:
            together = max(together, size)
    return together + apart


def _commands(stage: NetParameter) -> int:
    size = 0
    for subnet in stage.sub_net:
        if subnet.is_dynamic:
            size += _WORD * subnet.ir_len
            continue
        size += sum(each.binary_bdc.size + each.binary_gdma.size for each in subnet.groups())
        for core in subnet.core_commands:
            size += sum(each.size for each in (*core.sdma_commands, *core.hau_commands))
    return size


def _elements(tensor: bmodel_reader.Tensor) -> int:
    return _product(tensor.name, tensor.shape[0].dim) if tensor.shape else 0


def _bm_tensor(tensor: bmodel_reader.Tensor) -> dict:
    number = tensor.data_type
    return {
        "name": tensor.name,
        "shape": list(tensor.shape[0].dim) if tensor.shape else [],
        "dtype": _BM_TYPES[number] if number < len(_BM_TYPES) else f"type {number}",
        "scale": _finite(tensor.scale),
        "zero_point": tensor.zero_point,
        "size": tensor.size,
    }


# ---------------------------------------------------------------------------------------------
# For people


def lines(told: dict) -> list[str]:
    """The description as text, a line each, in columns."""
    memory, checksum = told["memory"], told["checksum"]
    where = "ION memory" if told["kind"] == "cvimodel" else "device memory"
    shown = ("weights", "commands", "private", "shared", "io")
    if "private" not in memory:
        shown = ("weights", "commands", "runtime", *(("host",) if memory["host"] else ()))
    right = {True: "right", False: "WRONG", None: "there is none"}[checksum["right"]]
    head = [
        ("file", f"{told['file']}, {told['size']:,} bytes"),
        ("sha256", told["sha256"]),
        ("model", f"{told['name']}, a {told['kind']} of version {told['format_version']}"),
        ("chip", told["chip"]),
        ("built", f"{told['built']}, by tpu_mlir {told['tool_version'] or 'of unknown version'}"),
        ("checksum", f"{right} ({checksum['algorithm'].upper()} of {checksum['covers']})"),
        (where, f"{memory['total'] / 2**20:.2f} MiB: "
                + ", ".join(f"{name} {memory[name]:,}" for name in shown)),
        ("programs", str(len(told["programs"]))),
    ]  # fmt: skip
    text = [f"{name:<13}  {value}" for name, value in head]
    for program in told["programs"]:
        title = f"program {program['name']}, stage {program['stage']}"
        text += ["", title + (", dynamic" if program["dynamic"] else "")]
        rows = [["", "dtype", "shape", "scale", "zero point", "name"]]
        for what in ("input", "output"):
            rows += [_tensor_row(what, each) for each in program[f"{what}s"]]
        text += _columns(rows)
    rows = [["part", "size", "offset", "MD5", "name"]] + [
        [each["kind"], f"{each['size']:,}", f"{each['offset']:,}", each["md5"],
         each["name"] + "".join(f", {how}" for how in ("encrypted", "compressed") if each[how])]
        for each in told["parts"]
    ]  # fmt: skip
    # Names come from the file, and a terminal obeys what is in them.
    return ["".join(c if c.isprintable() else "�" for c in line)
            for line in [*text, "", *_columns(rows)]]  # fmt: skip


def _tensor_row(what: str, tensor: dict) -> list[str]:
    scale, zero = ("-" if tensor[key] is None else f"{tensor[key]:g}"
                   for key in ("scale", "zero_point"))  # fmt: skip
    extra = f" ({tensor['pixel_format']}{', aligned' if tensor['aligned'] else ''})" if (
        "pixel_format" in tensor) else ""  # fmt: skip
    shape = "x".join(map(str, tensor["shape"])) or "scalar"
    return [what, tensor["dtype"], shape, scale, zero, tensor["name"] + extra]


def _columns(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
