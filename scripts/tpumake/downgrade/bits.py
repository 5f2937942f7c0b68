"""Bitwise operators, by arithmetic on the single bits."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from tpumake.downgrade.core import Call, adapter


@adapter("BitwiseNot", known=18)
def bitwise_not(call: Call) -> str:
    """New in opset 18. ¬x is −1 − x in two's complement, and modulo 2ⁿ for unsigned types."""
    elem = call.elem(0)
    wide = call.cast(call.inputs[0], TensorProto.INT64)
    return call.cast(call.op("Sub", call.const(-1, np.int64), wide), elem)


@adapter("BitwiseAnd", "BitwiseOr", "BitwiseXor", known=18)
def bitwise(call: Call) -> str:
    """New in opset 18. Both operands are spread into a last dimension of their bits.

    Bit i of x is floor(x / 2ⁱ) mod 2, exact in int64 for negative numbers too; the sign bit comes
    last, with the weight −2ⁿ⁻¹. Casts between integers keep the low bits.
    """
    elem = call.elem(0)
    count = 8 * helper.tensor_dtype_to_np_dtype(elem).itemsize
    first, second = (_bits(call, name, count) for name in call.inputs)
    if call.node.op_type == "BitwiseAnd":
        mixed = call.op("Mul", first, second)
    elif call.node.op_type == "BitwiseOr":
        mixed = call.op("Max", first, second)
    else:
        mixed = call.op("Abs", call.op("Sub", first, second))
    return call.cast(_number(call, mixed, count), elem)


def _number(call: Call, bits: str, count: int) -> str:
    """The int64 number that the bits in the last dimension stand for.

    In halves of 32 bits: onnxruntime sums integers in double precision, exact up to 2⁵³.
    """
    parts = []
    for start in range(0, count, 32):
        end = min(start + 32, count)
        weights = [1 << i for i in range(end - start)]
        if end == 64:
            weights[-1] = -weights[-1]
        part = call.op("Slice", bits, call.ints(start), call.ints(end), call.ints(-1))
        part = call.op("Mul", part, call.ints(*weights))
        parts.append(call.op("ReduceSum", part, call.ints(-1), keepdims=0))
    if len(parts) == 1:
        return parts[0]
    return call.op("Add", parts[0], call.op("Mul", parts[1], call.const(1 << 32, np.int64)))


def _bits(call: Call, name: str, count: int) -> str:
    """int64 zeros and ones, one more dimension than ``name``."""
    wide = call.op("Unsqueeze", call.cast(name, TensorProto.INT64), call.ints(-1))
    powers = call.ints(*(1 << i for i in range(min(count, 63))))
    # Subtracting the remainder first makes the division exact, so it needs no rounding rule.
    whole = call.op("Div", call.op("Sub", wide, call.op("Mod", wide, powers)), powers)
    bits = call.op("Mod", whole, call.const(2, np.int64))
    if count < 64:
        return bits
    sign = call.cast(call.op("Less", wide, call.const(0, np.int64)), TensorProto.INT64)
    return call.op("Concat", bits, sign, axis=-1)


@adapter("BitShift", known=28)
def bit_shift(call: Call) -> list[str]:
    """Opset 28 added signed integers."""
    signed = (TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64)
    if call.elem(0) in signed:
        call.refuse("shifts of signed integers")
    return call.same(*call.inputs)
