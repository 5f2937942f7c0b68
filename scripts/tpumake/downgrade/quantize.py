"""QuantizeLinear, DequantizeLinear, QLinearMatMul."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tpumake.downgrade.core import Call, adapter, type_name

_LIMITS = {
    TensorProto.INT8: (-128, 127), TensorProto.UINT8: (0, 255),
    TensorProto.INT16: (-32768, 32767), TensorProto.UINT16: (0, 65535),
}  # fmt: skip
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


@adapter("QuantizeLinear", known=28)
def quantize(call: Call) -> str | list[str]:
    """Opset 19 added other floats; 21 blocks, ``output_dtype``, more integers; 23 ``precision``.

    What opset 17 has stays one operator. The rest is clip(round(x / scale) + zero point), with
    Round's half to even.
    """
    target = call.elem(2) if call.has(2) else call.attr("output_dtype") or TensorProto.UINT8
    if target not in _LIMITS:
        call.refuse(f"IR 8 has no {type_name(target)}" if target > 16 else type_name(target))
    precision = call.attr("precision") or call.elem(1)
    plain = call.elem(0) == call.elem(1) == precision == TensorProto.FLOAT
    drop = ["saturate", "block_size", "output_dtype", "precision"]
    eight = target in (TensorProto.INT8, TensorProto.UINT8)
    if plain and eight and not call.attr("block_size"):
        zero = call.inputs[2] if call.has(2) else ""
        if not zero and target == TensorProto.INT8:
            zero = _zero_point(call, target)
        return call.same(*call.inputs[:2], zero, drop=drop)
    if precision not in _FLOATS:
        call.refuse(f"a division in {type_name(precision)}")
    x = _as(call, call.inputs[0], call.elem(0), precision)
    scale = _as(call, _spread(call, 1), call.elem(1), precision)
    level = call.op("Round", call.op("Div", x, scale))
    level = _as(call, level, precision, TensorProto.FLOAT)
    if call.has(2):
        level = call.op("Add", level, call.cast(_spread(call, 2), TensorProto.FLOAT))
    low, high = (call.const(limit, np.float32) for limit in _LIMITS[target])
    return call.cast(call.op("Clip", level, low, high), target)


@adapter("DequantizeLinear", known=28)
def dequantize(call: Call) -> str | list[str]:
    """Opset 19 added other floats; 21 blocks and more integers; 23 ``output_dtype``.

    What opset 17 has stays one operator. The rest is (x − zero point) · scale. Weights of 4 or 2
    bits are stored as int8 and uint8.
    """
    elem = call.elem(0)
    output = call.attr("output_dtype") or call.elem(1)
    eight = elem in (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32)
    if eight and output == call.elem(1) == TensorProto.FLOAT and not call.attr("block_size"):
        return call.same(*call.inputs, drop=["block_size", "output_dtype"])
    if output not in _FLOATS:
        call.refuse(f"a product in {type_name(output)}")
    # Differences of 16-bit integers are exact in float32, those of 32-bit ones aren't.
    level = call.cast(_integers(call, 0), TensorProto.FLOAT)
    if elem == TensorProto.INT32 and call.has(2):
        wide = call.cast(call.inputs[0], TensorProto.INT64)
        zero = call.cast(_spread(call, 2), TensorProto.INT64)
        level = call.cast(call.op("Sub", wide, zero), TensorProto.FLOAT)
    elif call.has(2):
        zero = call.cast(_spread(call, 2), TensorProto.FLOAT)
        level = call.op("Sub", level, zero)
    level = _as(call, level, TensorProto.FLOAT, output)
    scale = _as(call, _spread(call, 1), call.elem(1), output)
    return call.op("Mul", level, scale)


def _as(call: Call, name: str, elem: int, wanted: int) -> str:
    return name if elem == wanted else call.cast(name, wanted)


def _zero_point(call: Call, elem: int) -> str:
    """Zero of the wanted type in the shape of the scale."""
    shape = call.static_shape(1)
    if shape is None:
        call.refuse("the shape of its scale isn't known")
    return call.const(np.zeros(shape), elem)


def _integers(call: Call, index: int) -> str:
    """The input, or, where its type is too small for IR 8, a weight of a larger type."""
    elem = call.elem(index)
    if elem <= TensorProto.BFLOAT16:
        return call.inputs[index]
    small = {
        getattr(TensorProto, name, -1): dtype
        for name, dtype in (
            ("INT4", np.int8),
            ("UINT4", np.uint8),
            ("INT2", np.int8),
            ("UINT2", np.uint8),
        )
    }
    value = call.value(index)
    if elem not in small or value is None:
        call.refuse(f"IR 8 has no {type_name(elem)}")
    return call.const(value.astype(small[elem]))


def _spread(call: Call, index: int) -> str:
    """Scale or zero point in a shape that broadcasts over the data."""
    name = _integers(call, index)
    shape = call.shape(index)
    if shape is None:
        call.refuse(f'the number of dimensions of "{call.inputs[index]}" isn\'t known')
    if not shape:
        return name
    rank = call.rank(0)
    axis = call.attr("axis")
    axis += rank if axis < 0 else 0
    if not call.attr("block_size"):
        if shape == (1,) and rank == 0:
            return call.op("Squeeze", name)
        if len(shape) != 1 or shape == (1,) or rank <= 1:
            return name
        return call.op("Reshape", name, call.ints(*(-1 if i == axis else 1 for i in range(rank))))
    # Repeat each value block_size times along the axis, then cut the last block to size.
    size = call.dim(0, axis)
    index_of = call.op(
        "Range", call.const(0, np.int64), call.op("Squeeze", size), call.const(1, np.int64)
    )
    blocks = call.op("Div", index_of, call.const(call.attr("block_size"), np.int64))
    return call.op("Gather", name, blocks, axis=axis)


@adapter("QLinearMatMul", known=21)
def qlinear_matmul(call: Call) -> list[str]:
    """Opset 21 added scales of 16-bit floats and float8 data. float16 scales fit into float32."""
    for index in (0, 2, 3, 5, 7):
        if call.elem(index) not in (TensorProto.INT8, TensorProto.UINT8):
            call.refuse(f"IR 8 has no {type_name(call.elem(index))}")
    inputs = list(call.inputs)
    for index in (1, 4, 6):
        if call.elem(index) in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
            inputs[index] = call.cast(inputs[index], TensorProto.FLOAT)
    return call.same(*inputs)
