"""Reduce*, CumProd: where the axes moved from an attribute to an input."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from tpumake.downgrade.core import Call, adapter

_REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSumSquare",
)  # fmt: skip


@adapter(*_REDUCTIONS, known=28)
def reduce(call: Call) -> str:
    """Opset 18 made ``axes`` an input and added ``noop_with_empty_axes``; 20 added bool.

    Axes that are known become the attribute again. Axes that only exist at run time are given to
    ReduceSum, which has had them as an input since 13, or, for maximum, minimum and product,
    looked up one dimension after the other.
    """
    data, op_type = call.inputs[0], call.node.op_type
    known_bool = op_type in ("ReduceMax", "ReduceMin") and call.elem(0) == TensorProto.BOOL
    if known_bool:
        data = call.cast(data, TensorProto.UINT8)
    axes = call.value(1)
    if call.has(1) and axes is None:
        result = _at_run_time(call, op_type, data)
    elif axes is None or axes.size == 0:
        result = _all_or_none(call, op_type, data)
    else:
        result = call.op(op_type, data, axes=axes.tolist(), keepdims=call.attr("keepdims"))
    return call.cast(result, TensorProto.BOOL) if known_bool else result


def _all_or_none(call: Call, op_type: str, data: str) -> str:
    """No axes: all of them, or with noop_with_empty_axes none, each element for itself."""
    if not call.attr("noop_with_empty_axes"):
        return call.op(op_type, data, keepdims=call.attr("keepdims"))
    if op_type in ("ReduceL1", "ReduceL2"):
        return call.op("Abs", data)
    if op_type == "ReduceSumSquare":
        return call.op("Mul", data, data)
    return _log(call, data) if op_type == "ReduceLogSum" else data


def _at_run_time(call: Call, op_type: str, data: str) -> str:
    keep, noop = call.attr("keepdims"), call.attr("noop_with_empty_axes")
    axes = call.inputs[1]

    def total(name: str, keepdims: int = keep) -> str:
        return call.op("ReduceSum", name, axes, keepdims=keepdims, noop_with_empty_axes=noop)

    if op_type == "ReduceL1":
        return total(call.op("Abs", data))
    if op_type == "ReduceSumSquare":
        return total(call.op("Mul", data, data))
    if op_type == "ReduceL2":
        return _sqrt(call, total(call.op("Mul", data, data)))
    if op_type == "ReduceLogSum":
        return _log(call, total(data))
    if op_type == "ReduceMean":
        one = call.const(1, call.elem(0))
        count = total(call.op("Expand", one, call.dims(0)))
        return call.op("Div", total(data), count)
    if op_type == "ReduceLogSumExp":
        return _log_sum_exp(call, data, total)
    return _one_by_one(call, op_type, data, keep)


def _sqrt(call: Call, name: str) -> str:
    """Square root; integers go through float, as the standard's function body has it."""
    if call.elem(0) in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16):
        return call.op("Sqrt", name)
    return call.cast(call.op("Sqrt", call.cast(name, TensorProto.FLOAT)), call.elem(0))


def _log(call: Call, name: str) -> str:
    if call.elem(0) in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16):
        return call.op("Log", name)
    return call.cast(call.op("Log", call.cast(name, TensorProto.FLOAT)), call.elem(0))


def _log_sum_exp(call: Call, data: str, total: object) -> str:
    """Log Σ exp(x − m) + m with m the largest element of all, so that nothing overflows.

    An m for every slice would need the maximum over axes that aren't known; one for all would
    lose slices that are far smaller. So it is found one dimension after the other.
    """
    if call.elem(0) not in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16):
        call.refuse("integers with axes that are only known at run time")
    top = _one_by_one(call, "ReduceMax", data, keepdims=1)
    spread = call.op("Exp", call.op("Sub", data, top))
    inner = call.op("Add", call.op("Log", total(spread, 1)), top)  # type: ignore[operator]
    return inner if call.attr("keepdims") else _squeeze(call, inner)


def _one_by_one(call: Call, op_type: str, data: str, keepdims: int) -> str:
    """Reduce over each dimension that turns out to be among the axes.

    Each step asks "is this dimension meant?" and chooses between the reduced and the unreduced
    tensor in an If, so that only tensors of the right size are ever made.
    """
    rank = call.rank(0)
    if rank == 0:
        return data
    axes = call.op("Mod", call.inputs[1], call.ints(rank))
    meant = _is_meant(call, axes)
    current = data
    elem = TensorProto.UINT8 if call.elem(0) == TensorProto.BOOL else call.elem(0)
    for axis in range(rank):
        source = current

        def reduced(c: Call, source: str = source, axis: int = axis) -> list:
            return [(c.op(op_type, source, axes=[axis], keepdims=1), elem, None)]

        def unchanged(c: Call, source: str = source) -> list:
            return [(c.op("Identity", source), elem, None)]

        flag = call.op("Squeeze", call.op("Slice", meant, call.ints(axis), call.ints(axis + 1)))
        current = call.op(
            "If", flag, then_branch=call.body(reduced), else_branch=call.body(unchanged)
        )
    return current if keepdims else _squeeze(call, current)


def _is_meant(call: Call, axes: str) -> str:
    """A bool for each dimension: is it among ``axes``? All are if there are none."""
    rank = call.rank(0)
    column = call.op("Unsqueeze", axes, call.ints(1))
    hits = call.op("Equal", column, call.ints(*range(rank)))
    hits = call.op("ReduceSum", call.cast(hits, TensorProto.INT64), call.ints(0), keepdims=0)
    meant = call.op("Greater", hits, call.ints(0))
    if call.attr("noop_with_empty_axes"):
        return meant
    none = call.op("Equal", call.op("Size", axes), call.const(0, np.int64))
    return call.op("Or", meant, none)


def _squeeze(call: Call, name: str) -> str:
    """Remove the reduced dimensions, which are only known at run time."""
    rank = call.rank(0)
    axes = call.op("Mod", call.inputs[1], call.ints(rank))
    flags = call.cast(_is_meant(call, axes), TensorProto.INT64)
    kept = call.op("NonZero", call.op("Sub", call.ints(*[1] * rank), flags))
    kept = call.op("Squeeze", kept, call.ints(0))
    return call.op("Reshape", name, call.op("Gather", call.op("Shape", name), kept), allowzero=1)


@adapter("CumProd", known=26)
def cum_prod(call: Call) -> str:
    """New in opset 26. The running product of a Scan along the axis.

    The tensor is folded to [before, axis, after] first, so that the axis may be any value that
    turns up at run time.
    """
    elem, rank = call.elem(0), call.rank(0)
    exclusive, reverse = call.attr("exclusive"), call.attr("reverse")
    shape = call.dims(0)
    axis = call.op("Reshape", call.inputs[1], call.ints(1))
    axis = call.op("Mod", call.cast(axis, TensorProto.INT64), call.ints(rank))
    after = call.op("Add", axis, call.ints(1))
    far = call.ints(np.iinfo(np.int64).max)

    def extent(start: str, end: str) -> str:
        # With a 1, as old runtimes don't know the product of nothing.
        sizes = call.op("Concat", call.op("Slice", shape, start, end), call.ints(1), axis=0)
        return call.op("ReduceProd", sizes, keepdims=1)

    middle = call.op("Gather", shape, axis)
    folded = call.op("Concat", extent(call.ints(0), axis), middle, extent(after, far), axis=0)
    data = call.op("Reshape", call.inputs[0], folded, allowzero=1)
    outer = call.op("Gather", folded, call.ints(0, 2))
    start = call.op("Expand", call.const(1, elem), outer)
    state, item = call.fresh("state"), call.fresh("item")

    sizes = ("before", "after")

    def step(c: Call) -> list:
        product = c.op("Mul", state, item)
        out = c.op("Identity", state if exclusive else product)
        return [(product, elem, sizes), (out, elem, sizes)]

    inputs = [helper.make_tensor_value_info(name, elem, sizes) for name in (state, item)]
    body = call.body(step, inputs)
    way = [1 if reverse else 0]
    scanned = call.ops(
        "Scan",
        start,
        data,
        outputs=2,
        body=body,
        num_scan_inputs=1,
        scan_input_axes=[1],
        scan_input_directions=way,
        scan_output_axes=[1],
        scan_output_directions=way,
    )[1]
    return call.op("Reshape", scanned, shape, allowzero=1)
