"""GroupNormalization, RMSNormalization."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tpumake.downgrade.core import Call, adapter


@adapter("GroupNormalization", known=21)
def group_norm(call: Call) -> str:
    """New in opset 18 with a scale for each group; since 21 for each channel, and ``stash_type``.

    Written as PyTorch's exporter used to: an InstanceNormalization over the groups between two
    Reshapes, then scale and bias.
    """
    x, scale, bias = call.inputs
    rank, groups, elem = call.rank(0), call.attr("num_groups"), call.elem(0)
    inner = elem if call.schema.since_version < 21 else call.attr("stash_type")
    if inner not in (TensorProto.FLOAT, elem):
        call.refuse("a stash_type that is neither float nor the input's type")
    wide = x if inner == elem else call.cast(x, inner)
    ones, zeros = call.const(np.ones(groups), inner), call.const(np.zeros(groups), inner)
    folded = call.op("Reshape", wide, call.ints(0, groups, -1))
    normed = call.op("InstanceNormalization", folded, ones, zeros, epsilon=call.attr("epsilon"))
    if inner != elem:
        normed = call.cast(normed, elem)
    per_channel = call.ints(-1, *[1] * (rank - 2))
    if call.schema.since_version < 21:
        # One factor a group: applied while the tensor is still folded into groups.
        column = call.ints(-1, 1)
        normed = call.op("Mul", normed, call.op("Reshape", scale, column))
        normed = call.op("Add", normed, call.op("Reshape", bias, column))
        return call.op("Reshape", normed, call.dims(0))
    normed = call.op("Reshape", normed, call.dims(0))
    normed = call.op("Mul", normed, _column(call, 1, per_channel))
    return call.op("Add", normed, _column(call, 2, per_channel))


def _column(call: Call, index: int, shape: str) -> str:
    """The scale or bias shaped so that it meets the channel dimension."""
    value, elem = call.value(index), call.elem(0)
    if value is not None:
        return call.const(value.reshape(-1, *[1] * (call.rank(0) - 2)), elem)
    return call.op("Reshape", call.inputs[index], shape)


@adapter("RMSNormalization", known=23)
def rms_norm(call: Call) -> str:
    """New in opset 23: x / √(mean(x²) + ε) · scale over the last dimensions, from ``axis`` on."""
    axis, inner, elem = call.attr("axis"), call.attr("stash_type"), call.elem(0)
    axes = list(range(axis, 0)) if axis < 0 else list(range(axis, call.rank(0)))
    x = call.inputs[0] if inner == elem else call.cast(call.inputs[0], inner)
    mean = call.op("ReduceMean", call.op("Mul", x, x), axes=axes, keepdims=1)
    root = call.op("Sqrt", call.op("Add", mean, call.const(call.attr("epsilon"), inner)))
    normed = call.op("Div", x, root)
    if inner != elem:
        normed = call.cast(normed, elem)
    scale_elem = call.elem(1)
    if scale_elem != elem:
        normed = call.cast(normed, scale_elem)
    return call.op("Mul", normed, call.inputs[1])
