"""Find where the device's share of a detection network begins.

YOLO exports end in arithmetic that turns the last convolutions' results into boxes. INT8 ruins it
(boxes reach 640, scores end at 1, and one scale serves both), and the camera's firmware does it by
itself. So the network is cut at those convolutions. They are found by structure, not by name.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference

__all__ = ["Branch", "find_branches", "interleaved"]

LEARNED = {"Conv", "ConvTranspose", "Gemm"}


@dataclass(frozen=True)
class Branch:
    """One convolution at the end of the network.

    ``output`` is its tensor, of shape (1, ``channels``, ``height``, ``width``); ``box`` tells the
    box branches (4 × bins of the box distribution) from the class branches.
    """

    output: str
    channels: int
    height: int
    width: int
    box: bool


def find_branches(model: onnx.ModelProto) -> list[Branch]:
    """Find the box and class convolutions of an anchor-free YOLO head.

    Walks back from the graph's outputs, through the arithmetic, to the first convolution on every
    path, passing the one that only takes the mean of the box distribution (DFL).

    :returns: the branches in graph order; empty when there is no such head, as in a classifier
    """
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    found: set[str] = set()
    bins = 0
    waiting, seen = [value.name for value in graph.output], set()
    while waiting:
        name = waiting.pop()
        node = makers.get(name)
        # A tensor's sizes, which anchors of any input are made from, are none of its values.
        if node is None or name in seen or node.op_type == "Shape":
            continue
        seen.add(name)
        if node.op_type in LEARNED:
            size = _distribution_bins(node, weights)
            if not size:
                found.add(name)
                continue
            bins = size
        waiting.extend(node.input)
    if not bins:
        return []
    return _branches(model, [n for node in graph.node for n in node.output if n in found], 4 * bins)


def interleaved(branches: list[Branch]) -> list[str] | None:
    """Order the branches as reCamera's YOLO11 decoder wants them: box, class, for each stride.

    Source: SSCMA-Micro, ma_model_yolo11.cpp, which goes by shape and order and knows no names.

    :returns: tensor names, finest stride first; None unless every stride has one box and one class
        branch
    """
    strides = sorted({(b.height, b.width) for b in branches}, reverse=True)
    names = []
    for size in strides:
        here = [b for b in branches if (b.height, b.width) == size]
        if [b.box for b in sorted(here, key=lambda b: not b.box)] != [True, False]:
            return None
        names += [b.output for b in sorted(here, key=lambda b: not b.box)]
    return names or None


def _distribution_bins(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> int:
    """The number of bins if this convolution is DFL's mean: one output, weights 0, 1, 2, …"""
    tensor = weights.get(node.input[1])
    if node.op_type != "Conv" or tensor is None or tensor.dims[0] != 1 or len(tensor.dims) != 4:
        return 0
    values = numpy_helper.to_array(tensor).ravel().astype(np.float32)
    return len(values) if np.array_equal(values, np.arange(len(values))) and len(values) > 1 else 0


def _branches(model: onnx.ModelProto, names: list[str], box_channels: int) -> list[Branch]:
    inferred = shape_inference.infer_shapes(model)
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*inferred.graph.value_info, *inferred.graph.output]
    }
    branches: list[Branch] = []
    for name in names:
        shape = shapes.get(name, [])
        if len(shape) != 4 or 0 in shape[1:]:
            return []
        # With as many classes as a box has channels, the box branch is the one that comes first.
        taken = any(b.box and [b.height, b.width] == shape[2:] for b in branches)
        branches.append(Branch(name, *shape[1:], box=shape[1] == box_channels and not taken))
    return branches
