"""The shapes of a network's tensors, also where they hang on numbers that the network computes.

PyTorch's exporter writes even fixed sizes as computations: the shape of one tensor, divided, is
where another one is split. onnx's own inference follows few of these; here every node whose inputs
are known numbers is computed, and what it says is used for the nodes behind it.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TypeProto, numpy_helper
from onnx.reference import ReferenceEvaluator

__all__ = ["static_shapes", "values_of"]

_FEW = 1024
"""Numbers in a tensor that may be a shape, or what one is computed from."""

_COMPUTED = {
    "Add", "Cast", "Ceil", "Concat", "Constant", "Div", "Equal", "Floor", "Gather", "Mod", "Mul",
    "Reshape", "Slice", "Squeeze", "Sub", "Unsqueeze", "Where",
}  # fmt: skip
"""What sizes are computed with. Nothing that could make a large tensor of a few numbers."""


def static_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor; 0 for a size that isn't fixed, missing where nothing is known."""
    types = {value.name: value.type for value in model.graph.input}
    numbers: dict[str, np.ndarray] = {}
    for tensor in model.graph.initializer:
        types[tensor.name] = onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
        if np.prod(tensor.dims) <= _FEW and not tensor.external_data:
            found = values_of(tensor)
            if found is not None:
                numbers[tensor.name] = found
    for node in model.graph.node:
        _compute(node, model, types, numbers)
        for name, found in _types(node, model, types, numbers).items():
            types.setdefault(name, found)
    return {name: _shape(found) for name, found in types.items() if found.HasField("tensor_type")}


def values_of(tensor: onnx.TensorProto) -> np.ndarray | None:
    """A weight's numbers; None where it is damaged, which onnx's own check tells of later."""
    try:
        return numpy_helper.to_array(tensor)
    except (KeyError, TypeError, ValueError):
        return None


def _shape(found: TypeProto) -> tuple[int, ...]:
    return tuple(dim.dim_value for dim in found.tensor_type.shape.dim)


def _compute(
    node: onnx.NodeProto,
    model: onnx.ModelProto,
    types: dict[str, TypeProto],
    numbers: dict[str, np.ndarray],
) -> None:
    """Compute a node if all that it takes is known; of Shape, the shape is enough."""
    if node.op_type == "Shape":
        shape = _shape(types[node.input[0]]) if node.input[0] in types else ()
        if not shape or 0 in shape:
            return
        at = {attribute.name: attribute.i for attribute in node.attribute}
        values = [np.array(shape[at.get("start", 0) : at.get("end", len(shape))], np.int64)]
    elif node.op_type in _COMPUTED and all(name in numbers for name in node.input if name):
        try:
            values = ReferenceEvaluator(node).run(None, {n: numbers[n] for n in node.input if n})
        except Exception:
            # What can't be computed is unknown, like most tensors.
            return
    else:
        return
    for name, value in zip(node.output, values, strict=False):
        value = np.asarray(value)
        types[name] = onnx.helper.make_tensor_type_proto(
            onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        if value.size <= _FEW:
            numbers[name] = value


def _types(
    node: onnx.NodeProto,
    model: onnx.ModelProto,
    types: dict[str, TypeProto],
    numbers: dict[str, np.ndarray],
) -> dict[str, TypeProto]:
    """What onnx's rule for one node says of its outputs."""
    if any(name and name not in types for name in node.input):
        return {}
    versions = {each.domain: each.version for each in model.opset_import}
    try:
        return onnx.shape_inference.infer_node_outputs(
            onnx.defs.get_schema(node.op_type, versions[node.domain], node.domain),
            node,
            {name: types[name] for name in node.input if name},
            {n: numpy_helper.from_array(numbers[n], n) for n in node.input if n in numbers},
            opset_imports=list(model.opset_import),
            ir_version=model.ir_version,
        )
    except Exception:
        return {}
