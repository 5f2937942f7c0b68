"""Resize, GridSample, DeformConv: reading pictures between their pixels."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tpumake.downgrade.core import Call, adapter

_NEW = ["antialias", "axes", "keep_aspect_ratio_policy"]


@adapter("Resize", known=19)
def resize(call: Call) -> str | list[str]:
    """Opset 18 added ``axes``, ``antialias`` and ``keep_aspect_ratio_policy``; 19 the coordinates
    ``half_pixel_symmetric``.

    Without these nothing changed. ``axes`` is expressed by ones (or the input's own sizes) for
    the dimensions that aren't named.
    """
    if call.attr("antialias"):
        call.refuse("antialias")
    if call.attr("coordinate_transformation_mode") == "half_pixel_symmetric":
        call.refuse("half_pixel_symmetric")
    if call.has(3) and call.attr("keep_aspect_ratio_policy") != "stretch":
        call.refuse("keep_aspect_ratio_policy")
    axes = call.attr("axes")
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
    shape = call.shape(index)
    if shape == (0,):
        return call.inputs[index]
    return call.op("ScatterElements", blank, call.ints(*places), call.inputs[index])


@adapter("GridSample", known=22)
def grid_sample(call: Call) -> str | list[str]:
    """Opset 20 renamed bilinear and bicubic to linear and cubic and added volumes; 22 bfloat16."""
    if call.elem_of(call.inputs[0]) == TensorProto.BFLOAT16:
        call.refuse("bfloat16")
    if call.rank(0) == 4:
        names = {"linear": "bilinear", "cubic": "bicubic"}
        mode = call.attr("mode")
        return call.same(*call.inputs, mode=names.get(mode, mode))
    return call.refuse("volumes")  # type: ignore[return-value]
