"""The network as the compiler will see it: of fixed shapes, cut, in the opset that it reads."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from tpumake import devices, onnx_io, profiles
from tpumake.downgrade import BASE, downgrade, write_defaults
from tpumake.errors import BadInput
from tpumake.onnx_io import Network
from tpumake.preflight.finding import ERROR, Finding
from tpumake.preflight.network import sides
from tpumake.preflight.plan import Plan, Shape, shapes

__all__ = ["Graph", "graph_of"]


@dataclass
class Graph:
    """A network in its last form, with the shapes of its tensors by name, 0 for an unknown side.

    ``cut``: its head is cut off.
    """

    model: onnx.ModelProto
    shapes: dict[str, Shape]
    cut: bool

    def elements(self, name: str) -> int:
        """How many numbers a tensor has; 0 if nobody knows."""
        shape = self.shapes.get(name)
        if shape is None:
            return 0
        count = 1
        for side in shape:
            count *= side
        return count


def graph_of(plan: Plan, network: Network) -> tuple[Graph | None, list[Finding]]:
    """The network in its last form, or why it has none.

    It changes ``network``, as the downgrade stage will.
    """
    model = network.model
    inputs = onnx_io.fed_inputs(model.graph)
    for value, said in zip(inputs, shapes(plan.value("INPUT_SHAPES")), strict=False):
        for dim, side in zip(value.type.tensor_type.shape.dim, said, strict=False):
            dim.dim_value = side
    try:
        cut = _cut(plan, network)
    except BadInput as error:
        what, _, remedy = str(error).partition("; ")
        return None, [Finding("outputs", ERROR, plan.variable("OUTPUTS"), what, remedy)]
    if onnx_io.opset_of(model) > BASE or model.functions:
        try:
            downgrade(network, BASE, 8)
        except BadInput as error:
            what, _, remedy = str(error).partition("; ")
            remedy = remedy or f"export it with opset {BASE}"
            return None, [Finding("opset", ERROR, plan.variable(plan.kind), what, remedy)]
    write_defaults(network.model)
    return Graph(network.model, _shapes(network.model), cut), []


def _cut(plan: Plan, network: Network) -> bool:
    """Cut the network as onnx_downgrade will; False where it stays whole."""
    said = plan.value("OUTPUTS")
    if said in ("", "none"):
        return False
    names = [name.strip() for name in said.split(",") if name.strip()]
    if said == "auto":
        names = devices.automatic(network.model, profiles.read(plan.device)).names() or []
    if names:
        onnx_io.select_outputs(network, names)
    return bool(names)


def _shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    try:
        model = onnx.shape_inference.infer_shapes(model)
    except Exception:
        # What it says then is the business of the checks that run before; sizes are estimates.
        return {}
    values = (*model.graph.value_info, *model.graph.output, *model.graph.input)
    return {value.name: tuple(sides(value)) for value in values}
