"""Attributes that ONNX lets a node leave out, and tpu_mlir 1.7 wants written down.

It reads some of them without looking whether they are there, and takes others for something else
than the standard does; which, training/measure_operators.py has measured.
"""

from __future__ import annotations

from onnx import AttributeProto, ModelProto, NodeProto
from onnx.defs import SchemaError, get_schema
from onnx.helper import make_attribute

from tpumake import onnx_io

__all__ = ["write_defaults"]

_WANTED = {
    "Elu": ("alpha",),
    "GridSample": ("mode", "padding_mode"),
    "HardSigmoid": ("alpha", "beta"),
}
_KERNELS = {"Conv", "ConvTranspose"}


def write_defaults(model: ModelProto) -> None:
    """Write these attributes down where a node leaves them out, with the standard's values.

    A kernel's shape is that of the weights, where they are constants of the network.
    """
    version = onnx_io.opset_of(model)
    for graph in onnx_io.graphs(model.graph):
        shapes = {tensor.name: tensor.dims for tensor in graph.initializer}
        for node in graph.node:
            if node.domain in ("", "ai.onnx"):
                node.attribute.extend(_missing(node, version, shapes))


def _missing(node: NodeProto, version: int, shapes: dict[str, list[int]]) -> list[AttributeProto]:
    has = {each.name for each in node.attribute}
    if node.op_type in _KERNELS:
        weights = shapes.get(node.input[1], ()) if len(node.input) > 1 else ()
        if "kernel_shape" in has or len(weights) < 3:
            return []
        return [make_attribute("kernel_shape", list(weights[2:]))]
    wanted = set(_WANTED.get(node.op_type, ())) - has
    if not wanted:
        return []
    try:
        known = get_schema(node.op_type, version).attributes
    except SchemaError:
        # The opset lacks it: that is for the checker to say.
        return []
    return [known[name].default_value for name in sorted(wanted) if name in known]
