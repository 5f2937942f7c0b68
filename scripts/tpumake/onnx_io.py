"""ONNX files: load without their weights, cut at chosen tensors, save reproducibly.

A loaded :class:`Network` keeps every large weight outside the protobuf message: what was stored
in the file is set aside in memory, what was external data stays in its own file. The message is
therefore small whatever the network weighs, and every pass over it (shape inference, the inliner,
the checker) costs little. Weights come back when the network is saved.

The rules for external data are those of the ONNX documentation, ``docs/ExternalData.md``.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from tpumake.errors import BadInput
from tpumake.files import atomic_write

__all__ = [
    "MAX_MESSAGE",
    "Network",
    "check_target",
    "close_inputs",
    "drop_unused",
    "fed_inputs",
    "graphs",
    "inferred",
    "initializer_names",
    "load",
    "metadata",
    "opset_of",
    "outer_names",
    "save",
    "select_outputs",
    "subgraphs",
    "tensors",
]

MAX_MESSAGE = 2**31 - 1
"""Protobuf's limit on one message, bytes; larger networks need external data."""

_SMALL = 1024
"""Weights of at most so many bytes stay in the message: shapes, axes and scales are read often."""

_CHUNK = 1 << 22
"""Bytes copied at a time between data files."""

_ALIGN = 64
"""Alignment of tensors in a data file, bytes: enough for any vector load from a mapped file."""

_ASIDE = "tpumake:aside:"
"""Location that marks a tensor whose bytes are in ``Network.aside``."""


@dataclass
class Network:
    """A model whose large weights are kept aside.

    ``folders`` are the places where external data may lie; ``aside`` maps a tensor's key to its
    raw little-endian bytes; ``external`` says whether the source had external data.
    """

    model: ModelProto
    path: Path
    folders: tuple[Path, ...] = ()
    aside: dict[str, bytes] = field(default_factory=dict)
    external: bool = False

    def array(self, tensor: TensorProto) -> np.ndarray:
        """The tensor's values, read from wherever they are."""
        return onnx.numpy_helper.to_array(self.filled(tensor))

    def filled(self, tensor: TensorProto) -> TensorProto:
        """A copy of the tensor with its values inside."""
        copy = TensorProto()
        copy.CopyFrom(tensor)
        if tensor.data_location == TensorProto.EXTERNAL:
            copy.raw_data = self.raw(tensor)
            copy.data_location = TensorProto.DEFAULT
            del copy.external_data[:]
        return copy

    def is_aside(self, tensor: TensorProto) -> bool:
        """Are the tensor's bytes kept in memory rather than in a data file?"""
        return _location(tensor).startswith(_ASIDE)

    def raw(self, tensor: TensorProto) -> bytes:
        """The raw bytes of a tensor that is kept aside or outside."""
        key = _location(tensor)
        if key.startswith(_ASIDE):
            return self.aside[key]
        file, offset, length = self.extent(tensor)
        with file.open("rb") as handle:
            handle.seek(offset)
            return handle.read(length)

    def extent(self, tensor: TensorProto) -> tuple[Path, int, int]:
        """File, offset and length of external data; ``BadInput`` where it isn't what it says."""
        entry = {item.key: item.value for item in tensor.external_data}
        where = f'{self.path}: the data of "{tensor.name}"'
        file = _data_file(self, entry.get("location", ""), where)
        try:
            offset = int(entry.get("offset", 0))
            length = int(entry["length"]) if "length" in entry else file.stat().st_size - offset
        except ValueError:
            raise BadInput(f"{where} has an offset or length that is no number") from None
        if offset < 0 or length < 0 or offset + length > file.stat().st_size:
            raise BadInput(f"{where} reaches past the end of {file.name}; is the file complete?")
        wanted = _byte_size(tensor)
        if wanted is not None and wanted != length:
            raise BadInput(f"{where} is {length} bytes, but its shape needs {wanted}")
        return file, offset, length


def _byte_size(tensor: TensorProto) -> int | None:
    """Bytes that the tensor's shape and type need; None for strings and packed types."""
    if tensor.data_type == TensorProto.STRING:
        return None
    try:
        item = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, ValueError):
        return None
    packed = {TensorProto.INT4, TensorProto.UINT4, getattr(TensorProto, "FLOAT4E2M1", 0)}
    packed |= {getattr(TensorProto, name, 0) for name in ("INT2", "UINT2")}
    return None if tensor.data_type in packed else item * int(np.prod(tensor.dims, dtype=np.int64))


def _location(tensor: TensorProto) -> str:
    return next((item.value for item in tensor.external_data if item.key == "location"), "")


def _data_file(network: Network, location: str, where: str) -> Path:
    """The file that a location names, which must stay inside the model's own folder.

    A downloaded model must not be able to pull any other file of this machine into its copy.
    """
    posix, windows = PurePosixPath(location), PureWindowsPath(location)
    escapes = ".." in posix.parts or ".." in windows.parts
    if not location or posix.is_absolute() or windows.drive or windows.root or escapes:
        raise BadInput(f'{where} is in "{location}", outside the model\'s folder; move it inside')
    allowed = [folder.resolve() for folder in network.folders]
    for folder in network.folders:
        file = folder / location
        if not file.exists():
            continue
        real = file.resolve()
        if not any(real.is_relative_to(place) for place in allowed):
            raise BadInput(f'{where} is in "{location}", a link out of the model\'s folder')
        if not real.is_file():
            raise BadInput(f'{where} is in "{location}", which is no file')
        return real
    raise BadInput(f'{where} is in "{location}", which is missing; put it beside the model')


def load(path: Path) -> Network:
    """Read an ONNX file and set its large weights aside.

    Raises ``BadInput`` for everything that is no readable model: missing, a folder, empty, cut
    short, another kind of file, external data that is missing or lies outside the folder.
    """
    if path.is_dir():
        raise BadInput(f"{path} is a folder; name an .onnx file")
    if not path.exists():
        raise BadInput(f"{path} doesn't exist; check the name")
    size = path.stat().st_size
    if size == 0:
        raise BadInput(f"{path} is empty; export or download it again")
    if size > MAX_MESSAGE:
        raise BadInput(f"{path} is larger than 2 GB in one file; export it with external data")
    model = ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError:
        raise BadInput(f"{path} isn't a complete ONNX file; export or download it again") from None
    if not model.graph.node and not model.graph.output:
        raise BadInput(f"{path} holds no ONNX graph; is it another kind of file?")
    if not model.ir_version or not model.opset_import:
        raise BadInput(f"{path} names no IR or opset version; is it another kind of file?")
    if not _is_text(model):
        raise BadInput(f"{path}: a name in it is no UTF-8; export it again")
    folders = (path.parent, path.resolve().parent)
    network = Network(model, path, tuple(dict.fromkeys(folders)))
    _set_aside(network)
    return network


def _is_text(model: ModelProto) -> bool:
    """Whether metadata and names are text; protobuf takes any bytes, and gives them out as such."""
    try:
        names = [text for entry in model.metadata_props for text in (entry.key, entry.value)]
        for graph in graphs(model.graph):
            values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
            names += [each.name for each in values]
            for node in graph.node:
                names += [node.name, node.op_type, node.domain, *node.input, *node.output]
    except UnicodeDecodeError:
        return False
    return all(isinstance(name, str) for name in names)


def _set_aside(network: Network) -> None:
    for tensor in tensors(network.model):
        if tensor.data_location == TensorProto.EXTERNAL:
            network.external = True
            if network.extent(tensor)[2] <= _SMALL:
                tensor.CopyFrom(network.filled(tensor))
            continue
        if not tensor.HasField("raw_data") or len(tensor.raw_data) <= _SMALL:
            continue
        key = f"{_ASIDE}{len(network.aside)}"
        network.aside[key] = tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=key)


# --- walking ----------------------------------------------------------------------------------


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The bodies that a node carries (If, Loop, Scan, …)."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and, depth first, every body inside it."""
    yield graph
    for node in graph.node:
        for body in subgraphs(node):
            yield from graphs(body)


def tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor that holds values: initializers and tensor attributes, bodies included."""

    def of_nodes(nodes: Iterable[NodeProto]) -> Iterator[TensorProto]:
        for node in nodes:
            for attribute in node.attribute:
                if attribute.type == AttributeProto.TENSOR:
                    yield attribute.t
                yield from attribute.tensors
            for body in subgraphs(node):
                yield from of_graph(body)

    def of_graph(graph: GraphProto) -> Iterator[TensorProto]:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        yield from of_nodes(graph.node)

    yield from of_graph(model.graph)
    for function in model.functions:
        yield from of_nodes(function.node)


def initializer_names(graph: GraphProto) -> set[str]:
    """Names of the graph's own weights, dense and sparse."""
    names = {tensor.name for tensor in graph.initializer}
    return names | {sparse.values.name for sparse in graph.sparse_initializer}


def metadata(model: ModelProto) -> dict[str, str]:
    """What the exporter wrote about the network."""
    return {entry.key: entry.value for entry in model.metadata_props}


def fed_inputs(graph: GraphProto) -> list[ValueInfoProto]:
    """The inputs that are fed, without the weights that old files list as well."""
    weights = initializer_names(graph)
    return [value for value in graph.input if value.name not in weights]


def outer_names(node: NodeProto) -> list[str]:
    """Every name that the node reads: its inputs, then what its bodies take from outside."""
    names = list(node.input)
    for body in subgraphs(node):
        names += _free_names(body)
    return [name for name in dict.fromkeys(names) if name]


def _free_names(graph: GraphProto) -> list[str]:
    inside = {value.name for value in graph.input} | initializer_names(graph)
    free: list[str] = []
    for node in graph.node:
        free += [name for name in outer_names(node) if name not in inside]
        inside.update(node.output)
    return free + [value.name for value in graph.output if value.name not in inside]


def opset_of(model: ModelProto) -> int:
    """Version of the default operator set, 0 if the model doesn't use it."""
    versions = [item.version for item in model.opset_import if item.domain in ("", "ai.onnx")]
    return max(versions, default=0)


_NOT_INFERRED = ("GroupNormalization", "MeanVarianceNormalization")
"""Operators without an inference rule in onnx 1.23; their results are typed as their input."""


def inferred(model: ModelProto) -> ModelProto:
    """A copy of the model with types and shapes filled in, for looking at and not for running.

    Operators that onnx has no rule for are replaced by one that is typed the same. Raises
    ``BadInput`` where the model contradicts itself.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    for graph in graphs(copy.graph):
        for node in graph.node:
            if node.op_type in _NOT_INFERRED and node.domain in ("", "ai.onnx"):
                node.op_type = "Sigmoid"
                del node.input[1:], node.attribute[:]
    try:
        return onnx.shape_inference.infer_shapes(copy, data_prop=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise BadInput(f"the network contradicts itself: {reason}") from None


def close_inputs(network: Network, shapes: list[list[int]]) -> None:
    """Give sizes to what the inputs leave open; sizes that they have, and other ranks, stay.

    :param shapes: one for each input, in their order
    """
    graph = network.model.graph
    open_before = False
    for value, shape in zip(fed_inputs(graph), shapes, strict=False):
        dims = value.type.tensor_type.shape.dim
        if len(dims) == len(shape):
            for dim, size in zip(dims, shape, strict=True):
                if not dim.dim_value:
                    dim.dim_value = size
                    open_before = True
    if open_before:
        # What was known of the tensors between was as open.
        del graph.value_info[:]
        for value in graph.output:
            for dim in value.type.tensor_type.shape.dim:
                dim.ClearField("dim_param")


# --- cutting ----------------------------------------------------------------------------------


def select_outputs(network: Network, names: list[str]) -> None:
    """Cut the graph at these tensors, which become its outputs in this order.

    Nodes are put in depth-first order from the wanted outputs, each node's producers in the order
    of its inputs. That order is a function of the graph alone, and it makes tools that list
    outputs by their place in the graph (tpu_mlir does) list them as they were asked for. Inputs,
    weights, shapes and functions that nothing needs any more are dropped.

    Raises ``BadInput`` for names that no node produces, with the nearest ones that exist.
    """
    graph = network.model.graph
    producer = {name: node for node in graph.node for name in node.output if name}
    _check_names(network, names, producer)
    order = _depth_first(producer, names)
    types = _types(network, names)
    outputs = [types[name] for name in names]
    del graph.node[:]
    graph.node.extend(order)
    del graph.output[:]
    graph.output.extend(outputs)
    drop_unused(network.model, inputs=True)


def _check_names(network: Network, names: list[str], producer: dict[str, NodeProto]) -> None:
    if not names:
        raise BadInput("--outputs names no tensor")
    given = {value.name for value in network.model.graph.input}
    given |= initializer_names(network.model.graph)
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f'--outputs names "{name}" twice')
        if name in given:
            raise BadInput(f'"{name}" in {network.path} is an input, nothing computes it')
        if name not in producer:
            # Tensors near the end are what people cut at, so they come first among equals.
            known = list(reversed(producer))
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            hint = " or ".join(f'"{item}"' for item in near)
            raise BadInput(
                f'no tensor "{name}" in {network.path}'
                + (f"; did you mean {hint}?" if near else f'; its last one is "{known[0]}"')
            )


def _depth_first(producer: dict[str, NodeProto], names: list[str]) -> list[NodeProto]:
    order: list[NodeProto] = []
    seen: set[int] = set()
    for name in names:
        stack: list[tuple[NodeProto, Iterator[str]]] = []
        root = producer[name]
        if id(root) not in seen:
            seen.add(id(root))
            stack.append((root, iter(outer_names(root))))
        while stack:  # By hand: networks are deeper than Python's recursion limit.
            node, rest = stack[-1]
            child = next((producer[n] for n in rest if n in producer), None)
            if child is None:
                order.append(node)
                stack.pop()
            elif id(child) not in seen:
                seen.add(id(child))
                stack.append((child, iter(outer_names(child))))
    return order


def _types(network: Network, names: list[str]) -> dict[str, ValueInfoProto]:
    """Type and shape of tensors, taken from the file where it has them, else inferred."""
    graph = network.model.graph
    known = {value.name: value for value in (*graph.value_info, *graph.output)}
    missing = [name for name in names if not _is_typed(known.get(name))]
    if missing:
        typed = inferred(network.model).graph
        known |= {value.name: value for value in (*typed.value_info, *typed.output)}
    for name in names:
        if not _is_typed(known.get(name)):
            raise BadInput(f'can\'t tell the type of "{name}" in {network.path}; cut elsewhere')
    return {name: known[name] for name in names}


def _is_typed(value: ValueInfoProto | None) -> bool:
    if value is None or not value.HasField("type"):
        return False
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return kind is not None
    return value.type.tensor_type.elem_type != 0 and value.type.tensor_type.HasField("shape")


def drop_unused(model: ModelProto, *, inputs: bool = False) -> None:
    """Remove weights, shapes, functions, and on request inputs, that no node needs."""
    graph = model.graph
    used = {name for node in graph.node for name in outer_names(node)}
    used |= {value.name for value in graph.output}
    _keep(graph.initializer, lambda tensor: tensor.name in used)
    _keep(graph.sparse_initializer, lambda sparse: sparse.values.name in used)
    if inputs:
        _keep(graph.input, lambda value: value.name in used)
    made = {name for node in graph.node for name in node.output} - {o.name for o in graph.output}
    _keep(graph.value_info, lambda value: value.name in made)
    annotated = used | made
    _keep(graph.quantization_annotation, lambda note: note.tensor_name in annotated)
    _drop_functions(model)


def _drop_functions(model: ModelProto) -> None:
    by_name = {(f.domain, f.name, f.overload): f for f in model.functions}
    wanted: set[tuple[str, str, str]] = set()

    def visit(nodes: Iterable[NodeProto]) -> None:
        for node in nodes:
            key = (node.domain, node.op_type, node.overload)
            if key in by_name and key not in wanted:
                wanted.add(key)
                visit(by_name[key].node)
            for body in subgraphs(node):
                visit(body.node)

    visit(model.graph.node)
    _keep(model.functions, lambda f: (f.domain, f.name, f.overload) in wanted)


def _keep(items: object, wanted: Callable[[object], bool]) -> None:
    """Keep the wanted items of a repeated field. Deletes in place: weights must not be copied."""
    for index in reversed(range(len(items))):  # type: ignore[arg-type]
        if not wanted(items[index]):  # type: ignore[index]
            del items[index]  # type: ignore[attr-defined]


# --- saving -----------------------------------------------------------------------------------


def save(network: Network, path: Path, check: Callable[[Path], None] = lambda path: None) -> None:
    """Write the network; same network, same bytes.

    External data stays external, in one file ``<path>.data`` in the order of the tensors; a
    network that had none stays one file. ``check`` is given the finished file before anything
    takes its final name; if it raises, nothing is written.
    """
    check_target(network, path)
    with ExitStack() as stack:
        # The model is entered first so that its data takes its name first: no moment shows a
        # model without its data.
        target = stack.enter_context(atomic_write(path))
        if not network.external:
            target.write_bytes(_message(_inline(network), path))
            check(target)
            return
        data = stack.enter_context(atomic_write(_data_path(path)))
        model = _externalise(network, data, data.name)
        target.write_bytes(_message(model, path))
        check(target)
        for tensor in tensors(model):
            if tensor.data_location == TensorProto.EXTERNAL:
                tensor.external_data[0].value = _data_path(path).name
        target.write_bytes(_message(model, path))


def _data_path(path: Path) -> Path:
    return path.with_name(path.name + ".data")


def check_target(network: Network, path: Path) -> None:
    """Raise ``BadInput`` if the network can't be written there, before any work is done."""
    if path.is_dir():
        raise BadInput(f"{path} is a folder; name the file to write")
    if not path.parent.is_dir():
        raise BadInput(f"{path.parent} doesn't exist; make that folder first")
    if not os.access(path.parent, os.W_OK):
        raise BadInput(f"{path.parent} can't be written to")
    if path.exists() and path.samefile(network.path):
        raise BadInput(f"{path} is the input as well; name another file to write")
    if not network.external or not _data_path(path).exists():
        return
    for tensor in tensors(network.model):
        if tensor.data_location != TensorProto.EXTERNAL or network.is_aside(tensor):
            continue
        if network.extent(tensor)[0].samefile(_data_path(path)):
            raise BadInput(f"{_data_path(path)} is the input's data; name another output")


def _inline(network: Network) -> ModelProto:
    for tensor in tensors(network.model):
        if tensor.data_location == TensorProto.EXTERNAL:
            raw = network.raw(tensor)
            tensor.raw_data = raw
            tensor.ClearField("data_location")
            del tensor.external_data[:]
    return network.model


def _externalise(network: Network, data: Path, location: str) -> ModelProto:
    """Write the large weights to ``data``, one after the other, and point the model at them."""
    with data.open("wb") as sink:
        for tensor in tensors(network.model):
            if tensor.data_location != TensorProto.EXTERNAL:
                continue
            sink.write(bytes(-sink.tell() % _ALIGN))
            offset = sink.tell()
            _copy_bytes(network, tensor, sink)
            length = sink.tell() - offset
            del tensor.external_data[:]
            for key, value in (("location", location), ("offset", offset), ("length", length)):
                tensor.external_data.add(key=key, value=str(value))
    return network.model


def _copy_bytes(network: Network, tensor: TensorProto, sink: BinaryIO) -> None:
    if network.is_aside(tensor):
        sink.write(network.raw(tensor))
        return
    file, offset, length = network.extent(tensor)
    with file.open("rb") as source:
        source.seek(offset)
        end = sink.tell() + length
        while (left := end - sink.tell()) > 0:
            chunk = source.read(min(left, _CHUNK))
            if not chunk:
                raise BadInput(f"{file} became shorter while it was read")
            sink.write(chunk)


def _message(model: ModelProto, path: Path) -> bytes:
    try:
        return model.SerializeToString(deterministic=True)
    except (ValueError, OverflowError):
        raise BadInput(f"{path} would be larger than 2 GB; use external data") from None
