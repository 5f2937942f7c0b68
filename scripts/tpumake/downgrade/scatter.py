"""ScatterElements and ScatterND with max and min, TensorScatter."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from tpumake.downgrade.core import Call, adapter


@adapter("ScatterElements", known=18)
def scatter_elements(call: Call) -> str | list[str]:
    """Opset 18 added the reductions max and min.

    Indices that differ only along the axis may name one place, others never do: so a Loop along
    the axis meets each place at most once a turn and can gather, compare and scatter.
    """
    if call.attr("reduction") not in ("max", "min"):
        return call.same(*call.inputs)
    axis = call.attr("axis")
    data, indices, updates = call.inputs

    def turn(c: Call, state: str, start: str, end: str) -> str:
        place = c.op("Slice", indices, start, end, c.ints(axis))
        value = c.op("Slice", updates, start, end, c.ints(axis))
        old = c.op("GatherElements", state, place, axis=axis)
        best = c.op(_choice(c), old, value)
        return c.op("ScatterElements", state, place, best, axis=axis)

    count = call.op("Gather", call.op("Shape", indices), call.const(axis, np.int64))
    return _loop(call, data, count, turn)


@adapter("ScatterND", known=18)
def scatter_nd(call: Call) -> str | list[str]:
    """Opset 18 added the reductions max and min: a Loop over the updates, one at a time."""
    if call.attr("reduction") not in ("max", "min"):
        return call.same(*call.inputs)
    data, indices, updates = call.inputs
    rank, depth = call.rank(1), call.shape(1)
    depth = depth[-1] if depth else None
    if depth is None:
        call.refuse("the length of its index tuples isn't known")
    places = call.op("Reshape", indices, call.ints(-1, depth))
    window = call.op(
        "Slice", call.op("Shape", updates), call.ints(rank - 1), call.ints(np.iinfo(np.int64).max)
    )
    values = call.op("Reshape", updates, call.op("Concat", call.ints(-1), window, axis=0))

    def turn(c: Call, state: str, start: str, end: str) -> str:
        place = c.op("Slice", places, start, end, c.ints(0))
        value = c.op("Slice", values, start, end, c.ints(0))
        best = c.op(_choice(c), c.op("GatherND", state, place), value)
        return c.op("ScatterND", state, place, best)

    count = call.op("Gather", call.op("Shape", places), call.const(0, np.int64))
    return _loop(call, data, count, turn)


def _choice(call: Call) -> str:
    return {"max": "Max", "min": "Min"}[call.attr("reduction")]  # type: ignore[index]


def _loop(call: Call, data: str, count: str, turn: object) -> str:
    elem = call.elem(0)
    state, number, going = call.fresh("state"), call.fresh("turn"), call.fresh("going")

    def build(c: Call) -> list:
        start = c.op("Unsqueeze", number, c.ints(0))
        end = c.op("Add", start, c.ints(1))
        after = turn(c, state, start, end)  # type: ignore[operator]
        return [(c.op("Identity", going), TensorProto.BOOL, []), (after, elem, None)]

    body = call.body(
        build,
        [
            helper.make_tensor_value_info(number, TensorProto.INT64, []),
            helper.make_tensor_value_info(going, TensorProto.BOOL, []),
            helper.make_tensor_value_info(state, elem, None),
        ],
    )
    return call.op("Loop", count, "", data, body=body)


@adapter("TensorScatter", known=24)
def tensor_scatter(call: Call) -> str:
    """New in opset 24: write a block of each batch element at its own place along ``axis``.

    The places of a block are its start plus 0, 1, …, folded round for the mode ``circular``.
    """
    rank, axis = call.rank(0), call.attr("axis")
    axis += rank if axis < 0 else 0
    cache, update = call.inputs[:2]
    length = call.dim(1, axis)
    steps = call.op(
        "Range", call.const(0, np.int64), call.op("Squeeze", length), call.const(1, np.int64)
    )
    shape = [1] * rank
    shape[axis] = -1
    steps = call.op("Reshape", steps, call.ints(*shape))
    if call.has(2):
        start = call.op("Reshape", call.inputs[2], call.ints(-1, *[1] * (rank - 1)))
        steps = call.op("Add", steps, start)
    if call.attr("mode") == "circular":
        steps = call.op("Mod", steps, call.dim(0, axis))
    places = call.op("Expand", steps, call.dims(1))
    return call.op("ScatterElements", cache, places, update, axis=axis)
