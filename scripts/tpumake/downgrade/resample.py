"""Resize, GridSample, DeformConv: reading pictures between their pixels."""

from __future__ import annotations

from itertools import product

import numpy as np
from onnx import TensorProto

from tpumake.downgrade.core import Call, adapter, type_name

_NEW = ["antialias", "axes", "keep_aspect_ratio_policy"]
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


@adapter("Resize", known=19)
def resize(call: Call) -> str | list[str]:
    """Opset 18 added ``axes``, ``antialias``, ``keep_aspect_ratio_policy``; 19 symmetric pixels.

    Without these nothing changed. ``axes`` alone is expressed by ones (or the input's own sizes)
    for the dimensions that aren't named. For the rest the interpolation is written out: it is
    separable, so each dimension is one multiplication with a matrix of weights.
    """
    axes = call.attr("axes")
    keeps = call.has(3) and call.attr("keep_aspect_ratio_policy") != "stretch"
    symmetric = call.attr("coordinate_transformation_mode") == "half_pixel_symmetric"
    if call.attr("antialias") or keeps or symmetric:
        return _written_out(call, axes, keeps)
    if axes is None:
        return call.same(*call.inputs, drop=_NEW)
    return call.same(*_full_inputs(call, axes), drop=_NEW)


def _full_inputs(call: Call, axes: list[int]) -> list[str]:
    """The node's inputs with roi, scales and sizes for every dimension."""
    rank = call.rank(0)
    axes = [axis % rank for axis in axes]
    roi = scales = sizes = ""
    if call.has(1):
        blank = call.const([0.0] * rank + [1.0] * rank, call.elem(1))
        roi = _placed(call, 1, blank, axes + [axis + rank for axis in axes])
    if call.has(2):
        scales = _placed(call, 2, call.const(np.ones(rank), np.float32), axes)
    if call.has(3):
        sizes = _placed(call, 3, call.dims(0), axes)
    return [call.inputs[0], roi, scales, sizes]


def _placed(call: Call, index: int, blank: str, places: list[int]) -> str:
    if call.shape(index) == (0,):
        return call.inputs[index]
    return call.op("ScatterElements", blank, call.ints(*places), call.inputs[index])


# --- Resize written out -----------------------------------------------------------------------


def _written_out(call: Call, axes: list[int] | None, keeps: bool) -> str:
    rank = call.rank(0)
    axes = list(range(rank)) if axes is None else [axis % rank for axis in axes]
    _check(call)
    result = call.inputs[0]
    scales, sizes = _scales_and_sizes(call, axes, keeps)
    for place, axis in enumerate(axes):
        scale = call.op("Gather", scales, call.ints(place))
        size = call.op("Gather", sizes, call.ints(place))
        if _is_unchanged(call, axis, place, keeps):
            continue
        source = _coordinates(call, axis, scale, size)
        if call.attr("mode") == "nearest":
            result = call.op("Gather", result, _nearest(call, source, axis), axis=axis)
        else:
            result = _multiplied(call, result, _weights(call, source, scale, axis), axis)
    return result


def _check(call: Call) -> None:
    mode, coordinates = call.attr("mode"), call.attr("coordinate_transformation_mode")
    if coordinates in ("tf_crop_and_resize", "tf_half_pixel_for_nn"):
        call.refuse(f"{coordinates} together with what opset 18 added")
    if mode == "linear" and call.attr("exclude_outside") and not call.attr("antialias"):
        call.refuse("exclude_outside in linear interpolation")
    if mode != "nearest" and call.elem(0) not in _FLOATS:
        call.refuse(f"interpolation of {type_name(call.elem(0))}")


def _is_unchanged(call: Call, axis: int, place: int, keeps: bool) -> bool:
    """Is it known that this dimension keeps its size?"""
    scales, sizes, shape = call.value(2), call.value(3), call.shape(0)
    if call.has(2):
        return scales is not None and scales[place] == 1
    return sizes is not None and not keeps and sizes[place] == shape[axis]


def _scales_and_sizes(call: Call, axes: list[int], keeps: bool) -> tuple[str, str]:
    """Scale (float32) and size after resizing (int64) of each axis."""
    lengths = call.op("Gather", call.dims(0), call.ints(*axes))
    before = call.cast(lengths, TensorProto.FLOAT)
    if call.has(2) and call.shape(2) != (0,):
        after = call.op("Floor", call.op("Mul", before, call.inputs[2]))
        return call.inputs[2], call.cast(after, TensorProto.INT64)
    scales = call.op("Div", call.cast(call.inputs[3], TensorProto.FLOAT), before)
    if not keeps:
        return scales, call.inputs[3]
    smaller = call.attr("keep_aspect_ratio_policy") == "not_larger"
    one = call.op("ReduceMin" if smaller else "ReduceMax", scales, axes=[0], keepdims=1)
    half = call.const(0.5, np.float32)
    after = call.op("Floor", call.op("Add", call.op("Mul", before, one), half))
    return call.op("Expand", one, call.ints(len(axes))), call.cast(after, TensorProto.INT64)


def _coordinates(call: Call, axis: int, scale: str, size: str) -> str:
    """Where each pixel of the result lies in the input, float32."""
    mode = call.attr("coordinate_transformation_mode")
    half, one = call.const(0.5, np.float32), call.const(1.0, np.float32)
    index = _range(call, call.const(0, np.int64), size)
    before = call.cast(call.dim(0, axis), TensorProto.FLOAT)
    if mode == "asymmetric":
        return call.op("Div", index, scale)
    if mode == "align_corners":
        gaps = call.op("Sub", call.cast(size, TensorProto.FLOAT), one)
        # One pixel has no gaps; its own index is 0, so that any divisor will do.
        gaps = call.op("Max", gaps, one)
        return call.op("Div", call.op("Mul", index, call.op("Sub", before, one)), gaps)
    source = call.op("Sub", call.op("Div", call.op("Add", index, half), scale), half)
    if mode == "pytorch_half_pixel":
        single = call.op("Equal", size, call.ints(1))
        return call.op("Where", single, call.const(0.0, np.float32), source)
    if mode == "half_pixel_symmetric":
        exact = call.op("Mul", before, scale)
        ratio = call.op("Div", call.cast(size, TensorProto.FLOAT), exact)
        offset = call.op("Mul", call.op("Mul", before, half), call.op("Sub", one, ratio))
        return call.op("Add", source, offset)
    return source


def _range(call: Call, start: str, end: str) -> str:
    ends = [call.op("Reshape", name, call.const([], np.int64)) for name in (start, end)]
    return call.cast(call.op("Range", *ends, call.const(1, np.int64)), TensorProto.FLOAT)


def _nearest(call: Call, source: str, axis: int) -> str:
    """Index of the input pixel that is taken for each pixel of the result."""
    half = call.const(0.5, np.float32)
    rounded = {
        "round_prefer_floor": lambda: call.op("Ceil", call.op("Sub", source, half)),
        "round_prefer_ceil": lambda: call.op("Floor", call.op("Add", source, half)),
        "floor": lambda: call.op("Floor", source),
        "ceil": lambda: call.op("Ceil", source),
    }[call.attr("nearest_mode")]()
    index = call.cast(rounded, TensorProto.INT64)
    last = call.op("Sub", call.dim(0, axis), call.ints(1))
    return call.op("Min", call.op("Max", index, call.ints(0)), last)


def _weights(call: Call, source: str, scale: str, axis: int) -> str:
    """The [result, input] matrix of one dimension, float32.

    Row i holds the kernel around the source of pixel i. The kernel reaches beyond the edges;
    what lies there counts for the edge pixel, or with ``exclude_outside`` not at all.
    """
    one = call.const(1.0, np.float32)
    narrow = call.op("Min", scale, one) if call.attr("antialias") else one
    margin = call.op("Ceil", call.op("Div", call.const([2.0], np.float32), narrow))
    margin = call.op("Add", call.cast(margin, TensorProto.INT64), call.ints(2))
    length = call.dim(0, axis)
    place = _range(call, call.op("Neg", margin), call.op("Add", length, margin))
    distance = call.op("Sub", place, call.op("Unsqueeze", source, call.ints(1)))
    kernel = _kernel(call, call.op("Abs", call.op("Mul", distance, narrow)))
    last = call.cast(call.op("Sub", length, call.ints(1)), TensorProto.FLOAT)
    clipped = call.op("Min", call.op("Max", place, call.const(0.0, np.float32)), last)
    if call.attr("exclude_outside"):
        inside = call.cast(call.op("Equal", clipped, place), TensorProto.FLOAT)
        kernel = call.op("Mul", kernel, inside)
    total = call.op("ReduceSum", kernel, call.ints(1), keepdims=1)
    pixels = _range(call, call.const(0, np.int64), length)
    counted = call.op("Equal", call.op("Unsqueeze", clipped, call.ints(1)), pixels)
    fold = call.cast(counted, TensorProto.FLOAT)
    return call.op("MatMul", call.op("Div", kernel, total), fold)


def _kernel(call: Call, distance: str) -> str:
    """Triangle or cubic convolution (Keys 1981) of a distance ≥ 0."""

    def number(value: float) -> str:
        return call.const(value, np.float32)

    if call.attr("mode") == "linear":
        return call.op("Max", call.op("Sub", number(1), distance), number(0))
    a = call.attr("cubic_coeff_a")

    def polynomial(*factors: float) -> str:
        result = number(factors[0])
        for factor in factors[1:]:
            result = call.op("Add", call.op("Mul", result, distance), number(factor))
        return result

    near, far = polynomial(a + 2, -a - 3, 0, 1), polynomial(a, -5 * a, 8 * a, -4 * a)
    far = call.op("Where", call.op("Less", distance, number(2)), far, number(0))
    return call.op("Where", call.op("Less", distance, number(1)), near, far)


def _multiplied(call: Call, data: str, weights: str, axis: int) -> str:
    """Each line of pixels along the axis times the matrix."""
    rank, elem = call.rank(0), call.elem(0)
    if elem != TensorProto.FLOAT:
        weights = call.cast(weights, elem)
    # The matrix always stands on the right: tpu_mlir wants constants there.
    turned = call.op("Transpose", weights, perm=[1, 0])
    if axis == rank - 1:
        return call.op("MatMul", data, turned)
    swap = list(range(rank))
    swap[axis], swap[-1] = swap[-1], swap[axis]
    lines = call.op("MatMul", call.op("Transpose", data, perm=swap), turned)
    return call.op("Transpose", lines, perm=swap)


# --- GridSample -------------------------------------------------------------------------------


@adapter("GridSample", known=22)
def grid_sample(call: Call) -> str | list[str]:
    """Opset 20 renamed bilinear and bicubic to linear and cubic and added volumes; 22 bfloat16.

    In volumes each of the eight neighbours is gathered and weighted.
    """
    if call.elem_of(call.inputs[0]) == TensorProto.BFLOAT16:
        call.refuse("bfloat16")
    if call.rank(0) == 4:
        names = {"linear": "bilinear", "cubic": "bicubic"}
        mode = call.attr("mode")
        return call.same(*call.inputs, mode=names.get(mode, mode))
    if call.attr("mode") == "cubic":
        call.refuse("cubic interpolation of volumes")
    if call.elem(0) != TensorProto.FLOAT or call.elem(1) != TensorProto.FLOAT:
        call.refuse(f"volumes of {type_name(call.elem(0))}")
    return _sampled(call)


def _sampled(call: Call) -> str:
    count = call.rank(0) - 2
    shape = call.dims(0)
    lengths = [call.op("Gather", shape, call.ints(axis + 2)) for axis in range(count)]
    flat = call.op("Reshape", call.inputs[0], call.ints(0, 0, -1))
    places = [_place(call, axis, count, lengths[axis]) for axis in range(count)]
    if call.attr("mode") == "nearest":
        result = _corner(call, flat, [call.op("Round", place) for place in places], lengths)
    else:
        low = [call.op("Floor", place) for place in places]
        rest = [call.op("Sub", a, b) for a, b in zip(places, low, strict=True)]
        result = ""
        for corner in product((0, 1), repeat=count):
            term = _weighted_corner(call, flat, low, rest, lengths, corner)
            result = call.op("Add", result, term) if result else term
    grid = call.dims(1)
    ends = call.op("Slice", shape, call.ints(0), call.ints(2))
    middle = call.op("Slice", grid, call.ints(1), call.ints(count + 1))
    return call.op("Reshape", result, call.op("Concat", ends, middle, axis=0))


def _place(call: Call, axis: int, count: int, length: str) -> str:
    """Pixel coordinates along an axis, shape [batch, 1, points]; the grid holds x first."""
    grid = call.op("Gather", call.inputs[1], call.ints(count - 1 - axis), axis=count + 1)
    grid = call.op("Reshape", grid, call.ints(0, 1, -1))
    one, half = call.const(1.0, np.float32), call.const(0.5, np.float32)
    span = call.cast(length, TensorProto.FLOAT)
    shifted = call.op("Mul", call.op("Add", grid, one), half)
    if call.attr("align_corners"):
        return call.op("Mul", shifted, call.op("Sub", span, one))
    return call.op("Sub", call.op("Mul", shifted, span), half)


def _weighted_corner(
    call: Call,
    flat: str,
    low: list[str],
    rest: list[str],
    lengths: list[str],
    corner: tuple[int, ...],
) -> str:
    one = call.const(1.0, np.float32)
    places, weight = [], ""
    for base, part, upper in zip(low, rest, corner, strict=True):
        places.append(call.op("Add", base, one) if upper else base)
        share = part if upper else call.op("Sub", one, part)
        weight = call.op("Mul", weight, share) if weight else share
    return call.op("Mul", _corner(call, flat, places, lengths), weight)


def _corner(call: Call, flat: str, places: list[str], lengths: list[str]) -> str:
    """The pixels at whole coordinates, [batch, channels, points], padded as the node says."""
    zero, one = call.const(0.0, np.float32), call.const(1.0, np.float32)
    index = inside = ""
    for place, length in zip(places, lengths, strict=True):
        last = call.op("Sub", call.cast(length, TensorProto.FLOAT), one)
        if call.attr("padding_mode") == "reflection":
            place = _reflected(call, place, last)
        kept = call.op("Min", call.op("Max", place, zero), last)
        same = call.op("Equal", kept, place)
        inside = call.op("And", inside, same) if inside else same
        kept = call.cast(kept, TensorProto.INT64)
        index = call.op("Add", call.op("Mul", index, length), kept) if index else kept
    channels = call.op("Slice", call.op("Shape", flat), call.ints(1), call.ints(2))
    spread = call.op("Concat", call.ints(1), channels, call.ints(1), axis=0)
    index = call.op("Expand", index, spread)
    pixels = call.op("GatherElements", flat, index, axis=2)
    if call.attr("padding_mode") == "zeros":
        return call.op("Where", inside, pixels, zero)
    return pixels


def _reflected(call: Call, place: str, last: str) -> str:
    """Coordinates folded back at the edges: the pixels' centres, or with half a pixel more."""
    edge = call.const(0.0 if call.attr("align_corners") else 0.5, np.float32)
    twice = call.op("Add", edge, edge)
    span = call.op("Add", last, twice)
    # A picture of one pixel has no span to fold into; everything is that pixel.
    span = call.op("Max", span, call.const(1e-6, np.float32))
    away = call.op("Abs", call.op("Add", place, edge))
    turn = call.op("Mod", away, call.op("Add", span, span), fmod=1)
    folded = call.op("Sub", span, call.op("Abs", call.op("Sub", turn, span)))
    return call.op(
        "Min", call.op("Max", call.op("Sub", folded, edge), call.const(0.0, np.float32)), last
    )


# --- DeformConv -------------------------------------------------------------------------------


@adapter("DeformConv", known=22)
def deform_conv(call: Call) -> str:
    """New in opset 19: a convolution whose taps are moved by offsets (and dimmed by a mask).

    Each tap's moved picture is sampled by GridSample, with zeros outside as the operator wants;
    the taps become channels and the filters 1×1.
    """
    x, weight, offset, out = (call.static_shape(i) for i in (0, 1, 2, 2))
    if x is None or weight is None or offset is None or len(x) != 4:
        call.refuse("sizes that are only known at run time, or no picture")
    if call.elem(0) != TensorProto.FLOAT:
        call.refuse(type_name(call.elem(0)))
    (_, channels, height, width), (rows, columns) = x, weight[2:]
    groups, (high, wide), taps = call.attr("offset_group"), out[2:], rows * columns
    grid = _deformed_grid(call, (height, width), (rows, columns), (high, wide))
    pictures = call.op("Reshape", call.inputs[0], call.ints(-1, channels // groups, height, width))
    sampled = call.op(
        "GridSample", pictures, grid, mode="bilinear", padding_mode="zeros", align_corners=0
    )
    if call.has(4):
        parts = call.ints(-1, channels // groups, taps, high, wide)
        sampled = call.op("Reshape", sampled, parts)
        mask = call.op("Reshape", call.inputs[4], call.ints(-1, 1, taps, high, wide))
        sampled = call.op("Mul", sampled, mask)
    stacked = call.op("Reshape", sampled, call.ints(-1, channels * taps, high, wide))
    flat = call.op("Reshape", call.inputs[1], call.ints(weight[0], weight[1] * taps, 1, 1))
    bias = [call.inputs[3]] if call.has(3) else []
    return call.op("Conv", stacked, flat, *bias, kernel_shape=[1, 1], group=call.attr("group"))


def _deformed_grid(
    call: Call, size: tuple[int, int], kernel: tuple[int, int], out: tuple[int, int]
) -> str:
    """Where every tap of every pixel reads, as GridSample wants it: [batch, taps·H, W, xy]."""
    strides, dilations = call.attr("strides", [1, 1]), call.attr("dilations", [1, 1])
    pads = call.attr("pads", [0, 0, 0, 0])
    taps = kernel[0] * kernel[1]
    moved = call.op("Reshape", call.inputs[2], call.ints(-1, taps, 2, *out))
    parts = []
    for axis in (1, 0):
        step = np.arange(out[axis]) * strides[axis] - pads[axis]
        tap = np.indices(kernel)[axis].reshape(-1) * dilations[axis]
        base = tap[:, None, None] + (step[:, None] if axis == 0 else step[None, :])
        offset = call.op("Gather", moved, call.const(axis, np.int64), axis=2)
        place = call.op("Add", offset, call.const(base[None], np.float32))
        # Pixel p has its centre at (2p + 1)/size − 1.
        scaled = call.op("Mul", place, call.const(2 / size[axis], np.float32))
        normal = call.op("Add", scaled, call.const(1 / size[axis] - 1, np.float32))
        parts.append(call.op("Unsqueeze", normal, call.ints(-1)))
    both = call.op("Concat", *parts, axis=-1)
    return call.op("Reshape", both, call.ints(-1, taps * out[0], out[1], 2))
