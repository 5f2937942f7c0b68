"""How much memory a build needs, and the model on its chip: estimates from the graph.

ION memory is what reCamera's firmware keeps for the TPU. A cvimodel takes it for its weights, its
commands, its inputs and outputs, and the tensors that wait for each other. Estimated with these
rules known models come to within a tenth of what they take; docs/preflight.md has the table.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from onnx import GraphProto

from tpumake import profiles
from tpumake.preflight.finding import ERROR, WARNING, Finding
from tpumake.preflight.graph import Graph
from tpumake.preflight.operators import working_nodes
from tpumake.preflight.plan import Plan

__all__ = ["Needs", "check_ion", "ion_bytes", "needs"]

MEGA = 1 << 20
# Of the pool the camera's own buffers have a share, too: some 20 of 50 MB on one board.
_COMFORTABLE = 0.6
# The estimate may be wrong by so much.
_ERROR = 1.2
# A weight and its share of commands, in bytes; a number between layers.
_WEIGHT = {"int8": 1.13, "mix": 1.5}
_NUMBER = {"int8": 1}
_WIDE_WEIGHT, _WIDE_NUMBER = 2.7, 2
# These write where they read, or are one with the layer before.
_IN_PLACE = {
    "Relu", "LeakyRelu", "PRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Clip", "Mul",
    "Add", "BatchNormalization", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast",
    "Dropout", "Softplus", "Elu", "Exp", "Log", "Sqrt", "Split", "Slice", "Concat", "Erf",
}  # fmt: skip


class Needs(NamedTuple):
    """What a build takes of the host, in bytes: memory at once, and room on the disk."""

    memory: int
    disk: int


def needs(graph: Graph, pictures: int) -> Needs:
    """What building this network takes, where the tensors of so many pictures are held at once."""
    activations = 4 * sum(
        graph.elements(name) for node in graph.model.graph.node for name in node.output
    )
    weights = 4 * weight_count(graph.model.graph)
    # As tpumake/stages.py reckons for its stages, once there is a network to look into.
    memory = 2 * 10**8 + max(pictures * activations // 9, 5 * activations // 2)
    # The network in four forms, its tensors from ONNX Runtime and from tpu_mlir.
    return Needs(memory, 10**8 + 6 * weights + 2 * activations)


def weight_count(graph: GraphProto) -> int:
    """How many numbers a network's weights are."""
    return sum(math.prod(tensor.dims) for tensor in graph.initializer)


def ion_bytes(graph: Graph, precision: str, raw_outputs: bool = False) -> int:
    """What a model takes of the camera's ION memory, estimated, in bytes.

    :param raw_outputs: outputs stay in the model's precision (QUANT_OUTPUT)
    """
    number = _NUMBER.get(precision, _WIDE_NUMBER if precision not in ("int8", "mix") else 1)
    weights = weight_count(graph.model.graph) * _WEIGHT.get(precision, _WIDE_WEIGHT)
    outputs = sum(graph.elements(value.name) for value in graph.model.graph.output)
    fed = sum(graph.elements(value.name) for value in graph.model.graph.input)
    ends = fed + outputs * (number if raw_outputs else 4)
    return int(weights + ends + number * _waiting(graph))


def _waiting(graph: Graph) -> int:
    """The most numbers that are between layers at once."""
    nodes = working_nodes(graph)
    last = {name: place for place, node in enumerate(nodes) for name in node.input}
    alive: dict[str, int] = {}
    most = 0
    for place, node in enumerate(nodes):
        ended = [name for name in alive if last.get(name, -1) <= place]
        # With the multiplication after it this is SiLU, one layer.
        made = sum(graph.elements(name) for name in node.output if node.op_type != "Sigmoid")
        if node.op_type in _IN_PLACE:
            made = max(made - sum(alive[name] for name in ended), 0)
        most = max(most, sum(alive.values()) + made)
        for name in ended:
            del alive[name]
        count = 0 if node.op_type == "Sigmoid" else 1
        alive.update({name: count * graph.elements(name) for name in node.output if name in last})
    return most


def ion_pool(device: str, chip: str) -> int:
    """The ION memory of a device that has this chip, in bytes; 0 if nobody knows."""
    profile = profiles.read(device)
    if chip not in profile["chips"]:
        return 0
    return int((profile["memory"]["ion_pool_mb"] or 0) * MEGA)


def check_ion(plan: Plan, graph: Graph, pool: int) -> list[Finding]:
    """Does the model fit the memory that the device has for it?"""
    if not pool or not weight_count(graph.model.graph):
        return []
    raw = plan.value("QUANT_OUTPUT") == "1"
    sizes = {each: ion_bytes(graph, each, raw) for each in plan.precisions}
    least = min(sizes, key=sizes.__getitem__)
    # One that nobody wants isn't worth a word, unless there is no other.
    wanted = set(plan.told) | {least} if sizes[least] > pool * _ERROR else set(plan.told)
    large = {
        each: sizes[each] for each in sizes if each in wanted and sizes[each] > pool * _COMFORTABLE
    }
    if not large:
        return []
    text = ", ".join(f"{each} about {size / MEGA:.0f} MB" for each, size in large.items())
    hopeless = [each for each, size in sizes.items() if size > pool * _ERROR]
    severity = ERROR if len(hopeless) == len(sizes) else WARNING
    what = f"it takes much of the {pool // MEGA} MB that the device has for models: {text}"
    if severity == ERROR:
        what = f"it doesn't fit the {pool // MEGA} MB that the device has for models: {text}"
    others = [each for each in sizes if each not in large]
    remedy = f"{' or '.join(others)} takes less" if others else "a smaller network, or input, does"
    return [Finding("ion", severity, plan.variable(plan.kind), what, remedy)]
