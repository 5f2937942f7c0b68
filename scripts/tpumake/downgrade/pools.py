"""AveragePool, LpPool, MaxPool."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tpumake.downgrade.core import Call, adapter


@adapter("MaxPool", known=22)
def max_pool(call: Call) -> list[str]:
    """Opset 22 added bfloat16 and says that windows starting in the end padding don't count.

    Where that rule bites, the padding is lengthened or the rounding left out, so that no reader
    of the older text can come to another number of windows.
    """
    _no_bfloat16(call)
    if not call.attr("ceil_mode") or _is_automatic(call):
        return call.same(*call.inputs)
    extra = _windows_beyond(call)
    if extra is None or all(more for more, rounded in extra if rounded):
        return call.same(*call.inputs)
    return call.same(*call.inputs, ceil_mode=None, pads=_longer(call, extra))


@adapter("AveragePool", known=22)
def average_pool(call: Call) -> str | list[str]:
    """Opset 19 added ``dilations``; 22 added bfloat16 and the rule on windows in the padding.

    A dilated window is a depthwise convolution whose filters are ones, divided by how many of
    the window's elements count. Rounding up is written as padding that doesn't count: runtimes
    read the older text in several ways there, and tpu_mlir 1.7 overlooks ``ceil_mode``.
    """
    _no_bfloat16(call)
    if _is_dilated(call):
        return _dilated_average(call)
    if not call.attr("ceil_mode") or _is_automatic(call):
        return call.same(*call.inputs, drop=["dilations"])
    extra = _windows_beyond(call)
    count = len(call.attr("kernel_shape"))
    pads = call.attr("pads", [0] * 2 * count)
    changed: dict[str, object] = {"ceil_mode": 1 if extra is None else None}
    data = call.inputs[0]
    if (
        call.attr("count_include_pad")
        and any(pads)
        and (extra is None or any(more for more, _ in extra))
    ):
        # The node's own padding counts, what rounding up adds doesn't.
        ends = [0, 0, *pads[:count], 0, 0, *pads[count:]]
        data = call.op("Pad", data, call.ints(*ends))
        pads = [0] * 2 * count
        changed["count_include_pad"] = None
    elif not any(pads):
        changed["count_include_pad"] = None
    changed["pads"] = pads if extra is None else _lengthened(pads, extra)
    return call.same(data, drop=["dilations"], **changed)


def _dilated_average(call: Call) -> str:
    kernel = call.attr("kernel_shape")
    pads = call.attr("pads", [0] * 2 * len(kernel))
    if call.attr("ceil_mode") or call.attr("auto_pad").startswith("SAME"):
        return _dilated_sums(call, lambda x: x, mean=True)
    if call.attr("auto_pad") == "VALID":
        pads = [0] * 2 * len(kernel)
    if not any(pads) or call.attr("count_include_pad"):
        return _depthwise(call, call.inputs[0], 1 / np.prod(kernel), pads)
    return _dilated_sums(call, lambda x: x, mean=True)


@adapter("LpPool", known=22)
def lp_pool(call: Call) -> str | list[str]:
    """Opset 18 added ``dilations`` and ``ceil_mode``; 22 added bfloat16.

    With either, it is (Σ |x|ᵖ)^(1/p) with the sum as a depthwise convolution of ones.
    """
    _no_bfloat16(call)
    if not _is_dilated(call) and not call.attr("ceil_mode"):
        return call.same(*call.inputs, drop=["dilations", "ceil_mode"])
    order, elem = call.attr("p"), call.elem(0)

    def power(name: str) -> str:
        return call.op("Pow", call.op("Abs", name), call.const(order, elem))

    return call.op("Pow", _dilated_sums(call, power, mean=False), call.const(1 / order, elem))


def _no_bfloat16(call: Call) -> None:
    if call.elem_of(call.inputs[0]) == TensorProto.BFLOAT16:
        call.refuse("pooling of bfloat16")


def _is_dilated(call: Call) -> bool:
    return any(step != 1 for step in call.attr("dilations", []))


def _geometry(call: Call) -> list[tuple[int | None, int, int, int, int, int]]:
    """For each spatial dimension: size, kernel, stride, dilation, pad before, pad after."""
    kernel = call.attr("kernel_shape")
    count = len(kernel)
    shape = call.shape(0)
    sizes = shape[2:] if shape is not None else [None] * count
    strides, dilations = call.attr("strides", [1] * count), call.attr("dilations", [1] * count)
    pads = call.attr("pads", [0] * 2 * count)
    return list(zip(sizes, kernel, strides, dilations, pads[:count], pads[count:], strict=True))


def _is_automatic(call: Call) -> bool:
    return call.attr("auto_pad") != "NOTSET"


def _windows_beyond(call: Call) -> list[tuple[int, bool]] | None:
    """For each dimension what rounding up adds: elements beyond the end, and whether it rounds.

    Rounding up makes at most one window more than rounding down, and it counts only if it starts
    before the end padding. None where sizes are open and the window always counts if there is
    one; whether it does is a matter of the size modulo the stride.
    """
    extra = []
    geometry = _geometry(call)
    for size, kernel, stride, dilation, before, after in geometry:
        reach = dilation * (kernel - 1) + 1
        if size is None:
            # With a remainder r, the window starts reach − after + r − stride before that end.
            if stride > 1 and reach - after + 1 - stride <= 0:
                call.refuse("ceil_mode with sizes that are only known at run time")
            continue
        left = (size + before + after - reach) % stride
        start = size + before + after - reach - left + stride
        extra.append((stride - left if left and start < size + before else 0, left > 0))
    if len(extra) < len(geometry):
        sure = all(more for more, rounded in extra if rounded)
        return None if sure else call.refuse("ceil_mode with a size known only at run time")
    return extra


def _longer(call: Call, extra: list[tuple[int, bool]]) -> list[int]:
    count = len(call.attr("kernel_shape"))
    return _lengthened(call.attr("pads", [0] * 2 * count), extra)


def _lengthened(pads: list[int], extra: list[tuple[int, bool]]) -> list[int]:
    """The pads with what rounding up adds at the ends."""
    count = len(extra)
    ends = [pad + more for pad, (more, _) in zip(pads[count:], extra, strict=True)]
    return [*pads[:count], *ends]


def _dilated_sums(call: Call, prepare: object, *, mean: bool) -> str:
    """Sums (or means over what counts) of dilated windows, sizes known before running."""
    shape = call.static_shape(0)
    if shape is None:
        call.refuse("its padding depends on sizes that are only known at run time")
    if call.attr("auto_pad").startswith("SAME"):
        # onnxruntime pads for a window without dilation, the standard's text for one with it.
        call.refuse(f"dilated windows with auto_pad {call.attr('auto_pad')}")
    geometry = _geometry(call)
    before, after, beyond = [], [], []
    for size, kernel, stride, dilation, lead, tail in geometry:
        reach = dilation * (kernel - 1) + 1
        if call.attr("auto_pad") == "VALID":
            lead = tail = 0
        free = size + lead + tail - reach
        extra = 0
        starts_inside = (free // stride + 1) * stride < size + lead
        if call.attr("ceil_mode") and free % stride and starts_inside:
            extra = stride - free % stride
        before.append(lead)
        after.append(tail)
        beyond.append(extra)
    pads = before + [a + b for a, b in zip(after, beyond, strict=True)]
    total = _depthwise(call, prepare(call.inputs[0]), 1.0, pads)  # type: ignore[operator]
    if not mean:
        return total
    counts = _counts(geometry, before, after, beyond, bool(call.attr("count_include_pad")))
    return call.op("Div", total, call.const(counts, call.elem(0)))


def _counts(
    geometry: list, before: list[int], after: list[int], beyond: list[int], include: bool
) -> np.ndarray:
    """How many elements of each window count, as an array that broadcasts over the result."""
    result = np.ones((1, 1), np.float64)
    for axis, (size, kernel, stride, dilation, _, _) in enumerate(geometry):
        line = np.full(before[axis] + size + after[axis] + beyond[axis], float(include))
        line[before[axis] : before[axis] + size] = 1
        # What was added only to round up lies outside even the padding.
        line[line.size - beyond[axis] :] = 0
        starts = range(0, line.size - dilation * (kernel - 1), stride)
        along = np.array(
            [line[s : s + dilation * (kernel - 1) + 1 : dilation].sum() for s in starts]
        )
        result = result[..., None] * along
    return result


def _depthwise(call: Call, data: str, weight: float, pads: list[int]) -> str:
    """A convolution of each channel alone with a filter whose elements all are ``weight``."""
    kernel = call.attr("kernel_shape")
    shape = call.shape(0)
    if shape is None or shape[1] is None:
        call.refuse("the number of its channels isn't known")
    elem = call.elem(0)
    if elem not in (TensorProto.FLOAT, TensorProto.FLOAT16):
        call.refuse("dilated or rounded-up windows in double precision")
    filters = call.const(np.full((shape[1], 1, *kernel), weight), elem)
    return call.op(
        "Conv",
        data,
        filters,
        group=shape[1],
        kernel_shape=kernel,
        pads=pads,
        strides=call.attr("strides", [1] * len(kernel)),
        dilations=call.attr("dilations"),
    )
