"""Gelu, Swish: activations that became operators of their own."""

from __future__ import annotations

import math

from tpumake.downgrade.core import Call, adapter


@adapter("Gelu", known=20)
def gelu(call: Call) -> str:
    """New in opset 20: ½x(1 + erf(x/√2)), or the tanh approximation.

    Written as PyTorch's exporter used to write it, which is the form that tpu_mlir and others
    recognise and fuse.
    """
    x, elem = call.inputs[0], call.elem(0)
    half, one = call.const(0.5, elem), call.const(1.0, elem)
    if call.attr("approximate") == "tanh":
        cube = call.op("Mul", call.op("Pow", x, call.const(3.0, elem)), call.const(0.044715, elem))
        scaled = call.op("Mul", call.op("Add", x, cube), call.const(math.sqrt(2 / math.pi), elem))
        gate = call.op("Add", call.op("Tanh", scaled), one)
        return call.op("Mul", call.op("Mul", x, half), gate)
    erf = call.op("Erf", call.op("Div", x, call.const(math.sqrt(2), elem)))
    return call.op("Mul", call.op("Mul", x, call.op("Add", erf, one)), half)


@adapter("Swish", known=24)
def swish(call: Call) -> str:
    """New in opset 24: x · sigmoid(αx)."""
    x, alpha = call.inputs[0], call.attr("alpha")
    inner = x if alpha == 1 else call.op("Mul", x, call.const(alpha, call.elem(0)))
    return call.op("Mul", x, call.op("Sigmoid", inner))


@adapter("Mish", known=22)
def mish(call: Call) -> str:
    """New in opset 18: x · tanh(softplus(x))."""
    x = call.inputs[0]
    return call.op("Mul", x, call.op("Tanh", call.op("Softplus", x)))
