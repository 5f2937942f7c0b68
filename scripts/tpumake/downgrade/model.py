"""The steps that lower a whole model."""

from __future__ import annotations

import re
from dataclasses import dataclass

import onnx
import onnx.inliner
import onnx.version_converter
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto

from tpumake import onnx_io
from tpumake.downgrade.core import BASE, Engine, type_name
from tpumake.downgrade.defaults import write_defaults
from tpumake.errors import BadInput
from tpumake.onnx_io import Network

__all__ = ["LOWEST", "Report", "downgrade"]

LOWEST = 11
"""The oldest opset that may be asked for; older ones lack too much (Pad, Clip, Resize)."""

_LAST_TYPE = {3: 16, 4: 16, 5: 16, 6: 16, 7: 16, 8: 16, 9: 20, 10: 22, 11: 23, 12: 24, 13: 26}
"""Newest element type of each IR version (``TensorProto.DataType`` in onnx.proto)."""


_DATES = {"date", "created", "creation_date", "creation_time", "timestamp"}
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d")


@dataclass(frozen=True)
class Report:
    """What was done: versions before and after."""

    opset: tuple[int, int]
    ir: tuple[int, int]


def downgrade(network: Network, opset: int = BASE, ir: int = 8) -> Report:
    """Rewrite the network in place so that it needs at most this opset and IR version.

    What already is as old keeps its versions and its nodes, but for attributes that are written
    down (:mod:`tpumake.downgrade.defaults`). Raises ``CannotExpress`` (a ``BadInput``) for
    operators that the opset has no words for; the network is then unusable.
    """
    model = network.model
    before = onnx_io.opset_of(model), model.ir_version
    newest = onnx.defs.onnx_opset_version()
    if before[0] > newest:
        raise BadInput(
            f"{network.path} is of opset {before[0]}; this onnx knows up to {newest}, update it"
        )
    _tidy(model)
    if model.functions:
        model = network.model = _inlined(network)
    if before[0] > opset:
        _lower(network, before[0], opset)
    elif before[0]:
        _set_opset(model, before[0])
    model = network.model
    write_defaults(model)
    model.ir_version = min(model.ir_version, ir)
    _check_types(network)
    after = onnx_io.opset_of(model)
    return Report((before[0], after), (before[1], model.ir_version))


def _lower(network: Network, version: int, opset: int) -> None:
    target = max(opset, BASE)
    if version > target:
        Engine(network.model, version, target, network.array).run()
        _set_opset(network.model, target)
    if opset < BASE:
        _convert(network, opset)


def _convert(network: Network, opset: int) -> None:
    """Below 17, where onnx's own converter knows every step, it does the work."""
    try:
        network.model = onnx.version_converter.convert_version(network.model, opset)
    except Exception as error:
        # It prefixes its messages with the place in its own source.
        text = " ".join(str(error).split()).rpartition("failed: ")[2][:160]
        raise BadInput(
            f"{network.path} can't be taken below opset {BASE} by onnx's converter: {text}; "
            f"use --opset {BASE}"
        ) from None


def _inlined(network: Network) -> ModelProto:
    """Model-local functions put in place of their calls."""
    model = network.model
    versions = {
        item.version
        for f in model.functions
        for item in f.opset_import
        if item.domain in ("", "ai.onnx")
    }
    mixed = versions - {onnx_io.opset_of(model)}
    try:
        result = onnx.inliner.inline_local_functions(model, convert_version=bool(mixed))
    except Exception as error:
        text = " ".join(str(error).split())[:160]
        raise BadInput(f"{network.path}: its local functions can't be inlined: {text}") from None
    if result.functions:
        names = ", ".join(sorted(f.name for f in result.functions))
        raise BadInput(
            f"{network.path}: local functions of another opset can't be inlined: {names}; "
            "export with one opset"
        )
    return result


def _set_opset(model: ModelProto, version: int) -> None:
    """Import the wanted version, and of other domains those that some node still uses."""
    used = {node.domain for graph in onnx_io.graphs(model.graph) for node in graph.node}
    kept = [
        item
        for item in model.opset_import
        if item.domain not in ("", "ai.onnx") and item.domain in used
    ]
    kept = [(item.domain, item.version) for item in kept]
    del model.opset_import[:]
    model.opset_import.add(domain="", version=version)
    for domain, number in kept:
        model.opset_import.add(domain=domain, version=number)


def _tidy(model: ModelProto) -> None:
    """Drop what only tells how, where and when the file was made.

    Documentation strings and node metadata hold stack traces with the paths of the exporting
    machine, and ultralytics writes the date. The rest of the model's metadata stays: names,
    classes, strides are read by those who use the model.
    """
    kept = [
        (item.key, item.value)
        for item in model.metadata_props
        if item.key.lower() not in _DATES and not _TIME.match(item.value)
    ]
    del model.metadata_props[:]
    for key, value in kept:
        model.metadata_props.add(key=key, value=value)
    model.ClearField("doc_string")
    for function in model.functions:
        _tidy_item(function)
        _tidy_nodes(function.node)
        for value in function.value_info:
            _tidy_item(value)
    _tidy_graph(model.graph)


def _tidy_graph(graph: GraphProto) -> None:
    _tidy_item(graph)
    for items in (graph.input, graph.output, graph.value_info, graph.initializer):
        for item in items:
            _tidy_item(item)
    _tidy_nodes(graph.node)


def _tidy_nodes(nodes: list[NodeProto]) -> None:
    for node in nodes:
        _tidy_item(node)
        if node.DESCRIPTOR.fields_by_name.get("device_configurations"):
            node.ClearField("device_configurations")
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
            if attribute.type == AttributeProto.TENSOR:
                _tidy_item(attribute.t)
        for body in onnx_io.subgraphs(node):
            _tidy_graph(body)


def _tidy_item(item: object) -> None:
    for field in ("doc_string", "metadata_props"):
        if field in item.DESCRIPTOR.fields_by_name:  # type: ignore[attr-defined]
            item.ClearField(field)  # type: ignore[attr-defined]


def _check_types(network: Network) -> None:
    """Refuse element types that the IR version doesn't have."""
    model = network.model
    newest = _LAST_TYPE.get(model.ir_version, 99)
    for graph in onnx_io.graphs(model.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            elem = value.type.tensor_type.elem_type
            if elem > newest:
                raise BadInput(
                    f'{network.path}: "{value.name}" is {type_name(elem)}, which IR '
                    f"{model.ir_version} doesn't have; quantise in another way"
                )
    for tensor in onnx_io.tensors(model):
        if tensor.data_type > newest:
            raise BadInput(
                f'{network.path}: the weight "{tensor.name}" is {type_name(tensor.data_type)}, '
                f"which IR {model.ir_version} doesn't have; quantise in another way"
            )
