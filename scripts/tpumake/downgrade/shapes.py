"""Operators that move data about: Split, Pad, CenterCropPad, Cast, SpaceToDepth, Range, …"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tpumake.downgrade.core import Call, adapter, type_name

_KNOWN_TYPES = set(range(1, 17))
"""Element types up to IR 8: everything up to bfloat16, nothing of 8 floating bits or of 4."""


@adapter("Split", known=18)
def split(call: Call) -> list[str]:
    """Opset 18 added ``num_outputs``, with a smaller last part where it doesn't divide evenly."""
    count = len(call.outputs)
    if call.has(1):
        return call.same(*call.inputs, drop=["num_outputs"])
    axis = call.attr("axis")
    shape = call.shape(0)
    size = shape[axis] if shape is not None else None
    if size is not None:
        if size % count == 0:
            return call.same(call.inputs[0], drop=["num_outputs"])
        part = -(-size // count)
        sizes = [part] * (count - 1) + [size - part * (count - 1)]
        return call.same(call.inputs[0], call.ints(*sizes), drop=["num_outputs"])
    whole = call.op("Gather", call.op("Shape", call.inputs[0]), call.ints(axis))
    part = call.op("Div", call.op("Add", whole, call.ints(count - 1)), call.ints(count))
    rest = call.op("Sub", whole, call.op("Mul", part, call.ints(count - 1)))
    sizes = call.op("Concat", *[part] * (count - 1), rest, axis=0) if count > 1 else rest
    return call.same(call.inputs[0], sizes, drop=["num_outputs"])


@adapter("Pad", known=25)
def pad(call: Call) -> str | list[str]:
    """Opset 18 added the input ``axes``, 19 the mode ``wrap``; 21 to 25 added types."""
    pads, known = _full_pads(call)
    value = call.inputs[2] if call.has(2) else ""
    if call.attr("mode") == "wrap":
        return _wrap(call, pads, known)
    return call.same(call.inputs[0], pads, value)


def _full_pads(call: Call) -> tuple[str, np.ndarray | None]:
    """Pads for every dimension, as opset 17 wants them, and their value if it is known."""
    if not call.has(3):
        return call.inputs[1], call.value(1)
    rank = call.rank(0)
    axes, pads = call.value(3), call.value(1)
    if axes is not None and pads is not None:
        full = np.zeros(2 * rank, np.int64)
        ahead = [axis % rank for axis in axes.tolist()]
        full[ahead + [axis + rank for axis in ahead]] = pads
        return call.ints(*full), full
    ahead = call.op("Mod", call.cast(call.inputs[3], TensorProto.INT64), call.ints(rank))
    where = call.op("Concat", ahead, call.op("Add", ahead, call.ints(rank)), axis=0)
    blank = call.ints(*[0] * 2 * rank)
    return call.op("ScatterElements", blank, where, call.inputs[1]), None


def _wrap(call: Call, pads: str, known: np.ndarray | None) -> str:
    """Take element (i − before) mod size for each i, one dimension after the other."""
    rank, shape = call.rank(0), call.shape(0)
    result = call.inputs[0]
    for axis in range(rank):
        if known is not None and not known[axis] and not known[axis + rank]:
            continue
        size = shape[axis] if shape is not None else None
        if known is not None and size is not None:
            index = call.ints(*(np.arange(-known[axis], size + known[axis + rank]) % size))
        else:
            extent = call.dim(0, axis)
            start = call.op("Neg", call.op("Gather", pads, call.ints(axis)))
            end = call.op("Add", extent, call.op("Gather", pads, call.ints(axis + rank)))
            scalars = [call.op("Squeeze", name) for name in (start, end)]
            span = call.op("Range", *scalars, call.const(1, np.int64))
            index = call.op("Mod", span, extent)
        result = call.op("Gather", result, index, axis=axis)
    return result


@adapter("CenterCropPad", known=18)
def center_crop_pad(call: Call) -> str | None:
    """New in opset 18. A Slice and a Pad where sizes are known, else the standard's own body."""
    shape, wanted = call.static_shape(0), call.value(1)
    if shape is None or wanted is None:
        return None
    axes = call.attr("axes", list(range(len(shape))))
    starts, ends, before, after = [], [], [0] * len(shape), [0] * len(shape)
    for axis, target in zip(axes, wanted.tolist(), strict=True):
        size = shape[axis]
        cut, grow = max(size - target, 0), max(target - size, 0)
        starts.append(cut // 2)
        ends.append(cut // 2 + min(size, target))
        before[axis], after[axis] = grow // 2, grow - grow // 2
    result = call.inputs[0]
    cropped = call.op("Slice", result, call.ints(*starts), call.ints(*ends), call.ints(*axes))
    if not any(before + after):
        return cropped
    return call.op("Pad", cropped, call.ints(*before, *after))


@adapter("Cast", known=28)
def cast(call: Call) -> list[str]:
    """Opset 19 to 28 added small types, and ``saturate`` and ``round_mode``, which are for them."""
    for elem in (call.attr("to"), call.elem_of(call.inputs[0])):
        _check_type(call, elem)
    return call.same(*call.inputs, drop=["saturate", "round_mode"])


@adapter("CastLike", known=25)
def cast_like(call: Call) -> str | list[str]:
    """As Cast. Where the type is known a plain Cast says the same, and more tools know it."""
    for name in call.inputs:
        _check_type(call, call.elem_of(name))
    elem = call.elem_of(call.inputs[1])
    if elem:
        return call.cast(call.inputs[0], elem)
    return call.same(*call.inputs, drop=["saturate", "round_mode"])


def _check_type(call: Call, elem: int) -> None:
    if elem and elem not in _KNOWN_TYPES:
        call.refuse(f"IR 8 has no {type_name(elem)}")


@adapter("ConstantOfShape", known=25)
def constant_of_shape(call: Call) -> str | list[str]:
    """Opset 20 added bfloat16, later ones small types. bfloat16 is made as float32 and cast."""
    value = call.attr("value")
    if value is None or value.data_type != TensorProto.BFLOAT16:
        _check_type(call, value.data_type if value is not None else 0)
        return call.same(*call.inputs)
    number = np.asarray(call.engine.read(value), np.float32)
    filled = call.op("Expand", call.const(number.reshape(())), call.inputs[0])
    return call.cast(filled, TensorProto.BFLOAT16)


@adapter("EyeLike", known=22)
def eye_like(call: Call) -> str | list[str]:
    """Opset 22 added bfloat16."""
    wanted = call.attr("dtype", call.elem(0))
    source = call.inputs[0]
    if call.elem(0) == TensorProto.BFLOAT16:
        source = call.cast(source, TensorProto.FLOAT)
    if wanted != TensorProto.BFLOAT16:
        return call.op("EyeLike", source, dtype=wanted, k=call.attr("k"))
    eye = call.op("EyeLike", source, dtype=TensorProto.FLOAT, k=call.attr("k"))
    return call.cast(eye, TensorProto.BFLOAT16)


@adapter("Range", known=27)
def range_(call: Call) -> str | list[str]:
    """Opset 27 added the 16-bit floats, counted in float32 unless ``stash_type`` says otherwise."""
    elem = call.elem(0)
    if elem not in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
        return call.same(*call.inputs, drop=["stash_type"])
    if call.attr("stash_type") != TensorProto.FLOAT:
        call.refuse("counting in 16-bit floats")
    ends = [call.cast(name, TensorProto.FLOAT) for name in call.inputs]
    return call.cast(call.op("Range", *ends), elem)


@adapter("SpaceToDepth", known=28)
def space_to_depth(call: Call) -> str | list[str]:
    """Opset 28 added ``mode``; CRD puts the channel before the place in the block."""
    if call.attr("mode") == "DCR":
        return call.same(*call.inputs, drop=["mode"])
    shape, block = call.shape(0), call.attr("blocksize")
    if shape is None or any(size is None for size in shape[1:]):
        call.refuse("mode CRD with sizes that are only known at run time")
    _, channels, height, width = shape
    rows, columns = height // block, width // block
    split_ = call.ints(-1, channels, rows, block, columns, block)
    six = call.op("Reshape", call.inputs[0], split_)
    turned = call.op("Transpose", six, perm=[0, 1, 3, 5, 2, 4])
    return call.op("Reshape", turned, call.ints(-1, channels * block * block, rows, columns))


@adapter("IsInf", known=20)
def is_inf(call: Call) -> str | list[str]:
    """Opset 20 added the 16-bit floats; they fit into float32 with their infinities."""
    elem = call.elem(0)
    _check_type(call, elem)
    source = call.inputs[0]
    if elem in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
        source = call.cast(source, TensorProto.FLOAT)
    return call.same(source)


@adapter("Mod", known=28)
def mod(call: Call) -> list[str]:
    """Opset 28 lets floats use ``fmod=0``, Python's %; before, only integers could."""
    floats = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
    if call.elem(0) in floats and not call.attr("fmod"):
        call.refuse("fmod=0 on floating-point numbers")
    return call.same(*call.inputs)


@adapter("DFT", known=20)
def dft(call: Call) -> list[str]:
    """Opset 20 made ``axis`` an input, −2 by default, and allowed a one-sided inverse."""
    axis = call.value(2)
    if call.has(2) and axis is None:
        call.refuse("its axis is only known at run time")
    if call.attr("inverse") and call.attr("onesided"):
        call.refuse("a one-sided inverse")
    number = -2 if axis is None else int(axis.reshape(()))
    if number < 0:
        number += call.rank(0)
    return call.same(*call.inputs[:2], axis=number)


@adapter("Col2Im", known=18)
def col2im(call: Call) -> str:
    """New in opset 18. A transposed convolution whose filters each set one pixel of the block.

    Each of the P = ∏ block pixels is a channel; filter p is 1 at pixel p, so that overlapping
    blocks add up as they should. The image's part that no block reaches is padded with zeros.
    """
    block, image = call.value(2), call.value(1)
    columns = call.shape(0)
    spatial = _spatial(call, block, image)
    strides = call.attr("strides", [1] * spatial)
    dilations = call.attr("dilations", [1] * spatial)
    pads = call.attr("pads", [0] * 2 * spatial)
    if call.elem(0) != TensorProto.FLOAT:
        call.refuse(f"sums of {type_name(call.elem(0))}")
    size = call.op("ReduceProd", call.inputs[2], keepdims=1)
    reach = call.op(
        "Mul", call.op("Sub", call.inputs[2], call.ints(*[1] * spatial)), call.ints(*dilations)
    )
    room = call.ints(*(np.add(pads[:spatial], pads[spatial:]) - 1))
    free = call.op("Sub", call.op("Add", call.inputs[1], room), reach)
    steps = call.op("Add", call.op("Div", free, call.ints(*strides)), call.ints(*[1] * spatial))
    data = call.op("Reshape", call.inputs[0], call.op("Concat", call.ints(-1), size, steps, axis=0))
    shape = call.op("Concat", size, size, axis=0)
    eye = call.op("EyeLike", call.op("ConstantOfShape", shape))
    filters = call.op("Reshape", eye, call.op("Concat", size, call.ints(1), call.inputs[2], axis=0))
    kernel = block.tolist() if block is not None else None
    summed = call.op(
        "ConvTranspose", data, filters, kernel_shape=kernel, strides=strides, dilations=dilations
    )
    # Cut the padding off before and after; a negative pad cuts, a positive one fills the rest up.
    made = call.op("Slice", call.op("Shape", summed), call.ints(2), call.ints(2 + spatial))
    lead = call.ints(*pads[:spatial])
    tail = call.op("Sub", call.op("Add", call.inputs[1], lead), made)
    edges = call.op("Concat", call.ints(0, 0, *(-p for p in pads[:spatial]), 0, 0), tail, axis=0)
    placed = call.op("Pad", summed, edges)
    batch = (
        call.dim(0, 0)
        if columns is not None
        else call.op("Slice", call.op("Shape", call.inputs[0]), call.ints(0), call.ints(1))
    )
    final = call.op("Concat", batch, call.ints(-1), call.inputs[1], axis=0)
    return call.op("Reshape", placed, final)


def _spatial(call: Call, block: np.ndarray | None, image: np.ndarray | None) -> int:
    for known in (block, image):
        if known is not None:
            return known.size
    for index in (1, 2):
        shape = call.shape(index)
        if shape is not None and shape[0] is not None:
            return shape[0]
    return call.refuse("the number of dimensions of its image isn't known")  # type: ignore


@adapter("BitCast", known=26)
def bit_cast(call: Call) -> str:
    """New in opset 26. Between integers of one width a Cast keeps the bits; nothing else does.

    Cast: "fixed point to fixed point: when out of range, discard higher bits and reinterpret".
    """
    widths = {
        TensorProto.INT8: 1,
        TensorProto.UINT8: 1,
        TensorProto.INT16: 2,
        TensorProto.UINT16: 2,
        TensorProto.INT32: 4,
        TensorProto.UINT32: 4,
        TensorProto.INT64: 8,
        TensorProto.UINT64: 8,
    }
    source, target = call.elem(0), call.attr("to")
    if source == target:
        return call.inputs[0]
    if widths.get(source, 0) != widths.get(target, -1):
        call.refuse(f"the bits of {type_name(source)} as {type_name(target)}")
    return call.cast(call.inputs[0], target)
