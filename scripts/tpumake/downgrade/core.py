"""The engine: walks a graph and hands every operator that is too new to its adapter.

The meaning of "too new" comes from the operator schemas of the ``onnx`` package. An operator whose
schema is the same in both versions stays as it is. For the others, in this order: an adapter
(the functions registered with :func:`adapter`), the list of operators that only gained types
(:data:`TYPES_ONLY`), the function body that the standard gives the operator. What none of these
covers is refused with :class:`CannotExpress`; a wrong result is worse than a refusal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TypeProto,
    ValueInfoProto,
)
from onnx.defs import OpSchema, SchemaError, get_schema
from onnx.reference import ReferenceEvaluator

from tpumake.errors import BadInput
from tpumake.onnx_io import graphs, inferred, outer_names, subgraphs

__all__ = ["BASE", "Call", "CannotExpress", "Engine", "Scope", "adapter", "type_name"]

BASE = 17
"""The opset that adapters write."""

_Adapter = Callable[["Call"], "str | Sequence[str] | None"]
_ADAPTERS: dict[str, tuple[int, _Adapter]] = {}


class CannotExpress(BadInput):
    """An operator that the wanted opset has no words for."""


def adapter(*op_types: str, known: int) -> Callable[[_Adapter], _Adapter]:
    """Register an adapter for operators; ``known`` is the newest schema version it understands.

    An adapter gets a :class:`Call`, emits operators of opset 17 through it and returns the names
    of the results, one for each output of the original. ``None`` means that it has nothing
    better than the function body in the standard.
    """

    def register(function: _Adapter) -> _Adapter:
        for op_type in op_types:
            _ADAPTERS[op_type] = (known, function)
        return function

    return register


TYPES_ONLY: dict[str, int] = {
    name: known
    for known, names in {
        19: "Equal",
        20: "IsNaN",
        22: "Acos Acosh Asin Asinh Atan Atanh Bernoulli Conv ConvTranspose Cos Cosh Det Dropout "
        "Elu GRU GlobalAveragePool GlobalLpPool GlobalMaxPool HardSigmoid HardSwish "
        "InstanceNormalization LSTM LpNormalization MaxRoiPool MaxUnpool Multinomial "
        "NegativeLogLikelihoodLoss RNN RandomNormal RandomNormalLike RandomUniform "
        "RandomUniformLike RoiAlign Round Selu Sin Sinh Softplus Softsign Tan ThresholdedRelu",
        24: "SplitToSequence TopK",
        25: "Constant ConstantOfShape Flatten Identity If Loop Reshape Scan Shape Size Squeeze "
        "Transpose Unsqueeze",
        28: "Celu Compress DepthToSpace Einsum OneHot Optional OptionalGetElement "
        "OptionalHasElement ReduceLogSum ReduceLogSumExp ReverseSequence Unique",
    }.items()
    for name in names.split()
}
"""Operators that changed since opset 17 only in the types they take, with the newest version for
which that was checked in the operator changelog of ONNX 1.23."""

_IN_FLOAT32 = {
    "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Celu", "Conv", "ConvTranspose", "Cos",
    "Cosh", "Det", "Elu", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "HardSigmoid",
    "HardSwish", "InstanceNormalization", "LpNormalization", "Round", "Selu", "Sin", "Sinh",
    "Softplus", "Softsign", "Tan", "ThresholdedRelu",
}  # fmt: skip
"""Operators whose bfloat16 form, where opset 17 lacks it, is computed in float32 and rounded."""


_FOLDED = {
    "Abs", "Add", "And", "Cast", "CastLike", "Ceil", "Clip", "Concat", "ConstantOfShape", "Div",
    "Equal", "Expand", "EyeLike", "Flatten", "Floor", "Gather", "GatherElements", "GatherND",
    "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "MatMul", "Max", "Min", "Mod",
    "Mul", "Neg", "NonZero", "Not", "Or", "Pow", "Range", "Reciprocal", "ReduceMax", "ReduceMin",
    "ReduceProd", "ReduceSum", "Reshape", "ScatterElements", "Shape", "Size", "Slice", "Split",
    "Sqrt", "Squeeze", "Sub", "Transpose", "Trilu", "Unsqueeze", "Where",
}  # fmt: skip
"""Operators whose value is worked out here when all that goes in is known."""

_FOLD_LIMIT = 1 << 20
"""Largest number of elements that is worked out beforehand."""

_FOLD_DEPTH = 100
"""Longest chain of operators that is followed backwards for a value."""


def type_name(elem: int) -> str:
    """``float16`` for 10, and so on."""
    try:
        return TensorProto.DataType.Name(elem).lower()
    except ValueError:
        return f"type {elem}"


# --- what is known about names ----------------------------------------------------------------


@dataclass
class Scope:
    """Types and constants of the names that can be seen from a place, outer scopes included."""

    types: dict[str, TypeProto] = field(default_factory=dict)
    constants: dict[str, TensorProto] = field(default_factory=dict)
    outer: Scope | None = None
    version: int = 0
    producers: dict[str, NodeProto] = field(default_factory=dict)
    values: dict[str, np.ndarray | None] = field(default_factory=dict)

    def type_of(self, name: str) -> TypeProto | None:
        """The type of a tensor, None where it isn't known."""
        if name in self.types:
            return self.types[name]
        return self.outer.type_of(name) if self.outer else None

    def constant(self, name: str) -> TensorProto | None:
        """The tensor behind a name whose value can't change at run time."""
        if name in self.constants:
            return self.constants[name]
        return self.outer.constant(name) if self.outer else None

    def learn(self, graph: GraphProto) -> None:
        """Take in what the graph itself says: inputs, outputs, shapes, weights, constants."""
        for value in (*graph.value_info, *graph.output, *graph.input):
            if value.HasField("type"):
                self.types[value.name] = value.type
        overridable = {value.name for value in graph.input}
        for tensor in graph.initializer:
            self.types.setdefault(
                tensor.name, onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
            )
            if tensor.name not in overridable:
                self.constants[tensor.name] = tensor
        for node in graph.node:
            if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
                tensor = constant_value(node)
                if tensor is not None:
                    self.constants[node.output[0]] = tensor
            elif node.op_type in _FOLDED and node.domain in ("", "ai.onnx"):
                self.producers.update((name, node) for name in node.output)


def constant_value(node: NodeProto) -> TensorProto | None:
    """The tensor that a Constant node makes."""
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if attribute.name == "value":
            return value
        kinds = {"value_float": np.float32, "value_floats": np.float32}
        kinds |= {"value_int": np.int64, "value_ints": np.int64}
        if attribute.name in kinds and not attribute.ref_attr_name:
            return onnx.numpy_helper.from_array(np.array(value, kinds[attribute.name]))
    return None


# --- one operator -----------------------------------------------------------------------------


class Call:
    """One node seen by its adapter: what it says, what is known of its inputs, how to emit."""

    def __init__(self, engine: Engine, node: NodeProto, version: int, scope: Scope) -> None:
        self.engine = engine
        self.node = node
        self.version = version
        self.schema = get_schema(node.op_type, version, "")
        self.scope = scope
        self.emitted: list[NodeProto] = []
        self.inputs = list(node.input)
        self.outputs = list(node.output)
        self._attributes = {item.name: item for item in node.attribute}

    # reading

    def has(self, index: int) -> bool:
        """Is this (optional) input given?"""
        return index < len(self.inputs) and self.inputs[index] != ""

    def wants(self, index: int) -> bool:
        """Is this (optional) output used?"""
        return index < len(self.outputs) and self.outputs[index] != ""

    def attr(self, name: str, default: object = None) -> object:
        """An attribute as given, else ``default``, else the schema's default."""
        if name in self._attributes:
            value = onnx.helper.get_attribute_value(self._attributes[name])
            return value.decode() if isinstance(value, bytes) else value
        if default is None and name in self.schema.attributes:
            proto = self.schema.attributes[name].default_value
            if proto.name:
                value = onnx.helper.get_attribute_value(proto)
                return value.decode() if isinstance(value, bytes) else value
        return default

    def elem(self, index: int) -> int:
        """Element type of an input; refuses where it isn't known."""
        elem = self.elem_of(self.inputs[index])
        if not elem:
            self.refuse(f'the type of its input "{self.inputs[index]}" isn\'t known')
        return elem

    def elem_of(self, name: str) -> int:
        """Element type of a name, 0 where it isn't known."""
        kind = self.scope.type_of(name)
        return kind.tensor_type.elem_type if kind is not None else 0

    def shape(self, index: int) -> tuple[int | None, ...] | None:
        """Shape of an input, None for sizes (or a rank) that aren't known before running."""
        kind = self.scope.type_of(self.inputs[index])
        if kind is None or not kind.tensor_type.HasField("shape"):
            value = self.scope.constant(self.inputs[index])
            return tuple(value.dims) if value is not None else None
        return tuple(
            dim.dim_value if dim.HasField("dim_value") else None
            for dim in kind.tensor_type.shape.dim
        )

    def static_shape(self, index: int) -> tuple[int, ...] | None:
        """Shape of an input if every size is known."""
        shape = self.shape(index)
        if shape is None or any(size is None for size in shape):
            return None
        return shape  # type: ignore[return-value]

    def rank(self, index: int) -> int:
        """Number of dimensions of an input; refuses where it isn't known."""
        shape = self.shape(index)
        if shape is None:
            self.refuse(f'the number of dimensions of "{self.inputs[index]}" isn\'t known')
        return len(shape)

    def value(self, index: int) -> np.ndarray | None:
        """Value of an input if it is constant or computed from constants and known shapes.

        None also where the input isn't given.
        """
        return self.engine.value(self.inputs[index], self.scope) if self.has(index) else None

    def refuse(self, why: str) -> None:
        """Stop: this can't be said in the wanted opset."""
        raise self.engine.refusal(self.node, self.version, why)

    # writing

    def op(
        self, op_type: str, *inputs: str, outputs: int | list[str] = 1, **attributes: object
    ) -> str:
        """Emit an operator of opset 17 with one result and return its name."""
        return self.ops(op_type, *inputs, outputs=outputs, **attributes)[0]

    def ops(
        self, op_type: str, *inputs: str, outputs: int | list[str] = 1, **attributes: object
    ) -> list[str]:
        """Emit an operator with several results and return their names."""
        names = list(inputs)
        while names and not names[-1]:
            names.pop()
        if isinstance(outputs, int):
            outputs = [self.fresh(op_type) for _ in range(outputs)]
        given = {key: value for key, value in attributes.items() if value is not None}
        node = onnx.helper.make_node(op_type, names, outputs, **given)
        known = self.engine.known_results(node, self.scope)
        if known is not None:
            return [self.engine.constant(value) for value in known]
        self.emitted.append(node)
        return outputs

    def same(self, *inputs: str, drop: Iterable[str] = (), **changed: object) -> list[str]:
        """Emit the node itself with other inputs, without some attributes, with some changed."""
        node = NodeProto()
        node.CopyFrom(self.node)
        names = list(inputs)
        while names and not names[-1]:
            names.pop()
        del node.input[:]
        node.input.extend(names)
        kept = [a for a in self.node.attribute if a.name not in {*drop, *changed}]
        del node.attribute[:]
        node.attribute.extend(kept)
        for key, value in changed.items():
            if value is not None:
                node.attribute.append(onnx.helper.make_attribute(key, value))
        self.emitted.append(node)
        return list(node.output)

    def const(self, value: object, dtype: object = None) -> str:
        """A constant (numpy value or TensorProto element type), shared where equal ones exist."""
        if isinstance(dtype, int) and not isinstance(dtype, type):
            try:
                dtype = onnx.helper.tensor_dtype_to_np_dtype(dtype)
            except KeyError:
                self.refuse(f"{dtype} is no type of elements")
        return self.engine.constant(np.asarray(value, dtype))

    def ints(self, *values: int) -> str:
        """A one-dimensional int64 constant."""
        return self.const(values, np.int64)

    def dims(self, index: int) -> str:
        """The shape of an input as an int64 tensor: a constant where it is known."""
        shape = self.static_shape(index)
        if shape is not None:
            return self.ints(*shape)
        return self.op("Shape", self.inputs[index])

    def dim(self, index: int, axis: int) -> str:
        """One size of an input as an int64 tensor of shape [1]."""
        shape = self.shape(index)
        if shape is not None and shape[axis] is not None:
            return self.ints(shape[axis])
        return self.op("Gather", self.op("Shape", self.inputs[index]), self.ints(axis))

    def cast(self, name: str, to: int) -> str:
        """The tensor in another element type."""
        return self.op("Cast", name, to=to)

    def body(
        self,
        build: Callable[[Call], list[tuple[str, int, Sequence | None]]],
        inputs: Sequence[ValueInfoProto] = (),
    ) -> GraphProto:
        """A subgraph of the operators that ``build`` emits; it returns (name, type, shape)s."""
        outer, self.emitted = self.emitted, []
        results = build(self)
        nodes, self.emitted = self.emitted, outer
        outputs = [onnx.helper.make_tensor_value_info(*result) for result in results]
        return onnx.helper.make_graph(nodes, self.fresh("body"), list(inputs), outputs)

    def fresh(self, hint: str) -> str:
        """A name that nothing else has."""
        return self.engine.fresh(f"{self._base()}/{hint}")

    def _base(self) -> str:
        return self.node.name or next((name for name in self.outputs if name), self.node.op_type)


# --- the whole graph --------------------------------------------------------------------------


class Engine:
    """Rewrites one model for one target opset (17 or more)."""

    def __init__(
        self,
        model: ModelProto,
        version: int,
        target: int,
        read: Callable[[TensorProto], np.ndarray],
    ) -> None:
        self.model = model
        self.version = version
        self.target = target
        self.read = read
        self.used = _all_names(model)
        self._constants: dict[tuple, str] = {}
        self._made: dict[str, np.ndarray] = {}
        self._new: list[TensorProto] = []

    def run(self) -> None:
        """Rewrite the model in place."""
        typed = self._typed()
        before = {
            name for graph in graphs(self.model.graph) for node in graph.node for name in node.input
        }
        # Types come from the inferred copy, nodes go into the model itself: shapes that only the
        # inference knows are not written out.
        self._graph(self.model.graph, typed.graph, Scope())
        used = {name for node in self.model.graph.node for name in outer_names(node)}
        self.model.graph.initializer.extend(item for item in self._new if item.name in used)
        _drop_orphans(self.model.graph, before)
        for graph in graphs(self.model.graph):
            _drop_shapes(graph)

    def _typed(self) -> ModelProto:
        """A copy of the model with types and shapes filled in.

        With sizes left open, what the file says of inner shapes isn't trusted: often someone
        opened the inputs' sizes by hand and left the rest as it was. It is used only for tensors
        of which inference knows nothing (results of other domains' operators).
        """
        source = ModelProto()
        source.CopyFrom(self.model)
        said: list[ValueInfoProto] = []
        if any(_is_open(value) for value in source.graph.input):
            for graph in graphs(source.graph):
                said += [_copied(value) for value in (*graph.value_info, *graph.output)]
                del graph.value_info[:]
            for value in source.graph.output:
                value.type.tensor_type.ClearField("shape")
        typed = inferred(source)
        known = {
            value.name
            for graph in graphs(typed.graph)
            for value in (*graph.value_info, *graph.input)
        }
        typed.graph.value_info.extend(value for value in said if value.name not in known)
        return typed

    def _graph(self, graph: GraphProto, typed: GraphProto, outer: Scope) -> None:
        scope = Scope(outer=outer, version=self.version)
        scope.learn(typed)
        nodes: list[NodeProto] = []
        for node, twin in zip(graph.node, typed.node, strict=True):
            for body, typed_body in zip(subgraphs(node), subgraphs(twin), strict=True):
                self._graph(body, typed_body, scope)
            nodes += self.lower(node, self.version, scope)
        del graph.node[:]
        graph.node.extend(nodes)

    def lower(self, node: NodeProto, version: int, scope: Scope) -> list[NodeProto]:
        """The operators of the target opset that mean what this node means."""
        if node.domain not in ("", "ai.onnx"):
            return [node]
        try:
            schema = get_schema(node.op_type, version, "")
        except SchemaError:
            raise self.refusal(node, version, "no such operator in the standard") from None
        old = _schema_or_none(node.op_type, self.target)
        if old is not None and old.since_version == schema.since_version and not old.deprecated:
            return [node]
        return self._rewrite(node, version, schema, old, scope)

    def _rewrite(
        self, node: NodeProto, version: int, schema: OpSchema, old: OpSchema | None, scope: Scope
    ) -> list[NodeProto]:
        since = schema.since_version
        if node.op_type in _ADAPTERS:
            known, function = _ADAPTERS[node.op_type]
            if since > known:
                raise self.refusal(node, version, f"changed in opset {since}, not known here")
            call = Call(self, node, version, scope)
            result = function(call)
            if result is not None:
                return self._wire(call, [result] if isinstance(result, str) else list(result))
        why = "this version has nothing of that meaning"
        if old is not None and since <= TYPES_ONLY.get(node.op_type, 0):
            bad = _bad_types(node, old, scope)
            if not bad:
                return [node]
            if bad <= {TensorProto.BFLOAT16, TensorProto.FLOAT16} and node.op_type in _IN_FLOAT32:
                call = Call(self, node, version, scope)
                return self._wire(call, _in_float32(call, bad))
            names = ", ".join(sorted(type_name(elem) for elem in bad))
            why = f"opset {old.since_version} has it, but not for {names}"
        function = self._function(node, version, schema, scope)
        if function is None:
            raise self.refusal(node, version, why)
        return self._expand(node, function, scope)

    def _wire(self, call: Call, results: list[str]) -> list[NodeProto]:
        """Give the results the names that the original's outputs had."""
        made = {name for node in call.emitted for name in node.output}
        renames: dict[str, str] = {}
        for result, output in zip(results, call.outputs, strict=False):
            if not output or result == output:
                continue
            if result in made and result not in renames and result not in call.outputs:
                renames[result] = output
            else:
                source = renames.get(result, result)
                call.emitted.append(onnx.helper.make_node("Identity", [source], [output]))
        for node in call.emitted:
            _rename(node, renames)
        self._name(call)
        if self.target > BASE:
            call.emitted = [_raised(self, node) for node in call.emitted]
        return call.emitted

    def _name(self, call: Call) -> None:
        base = call.node.name
        if not base:
            return
        if len(call.emitted) == 1:
            call.emitted[0].name = base
            return
        for node in call.emitted:
            node.name = self.fresh(f"{base}/{node.op_type}")

    # functions of the standard

    def _function(
        self, node: NodeProto, version: int, schema: OpSchema, scope: Scope
    ) -> FunctionProto | None:
        if schema.function_opset_versions:
            chosen = min(schema.function_opset_versions)
            text = schema.get_function_with_opset_version(chosen)
        elif schema.context_dependent_function_opset_versions:
            chosen = min(schema.context_dependent_function_opset_versions)
            types = [self._input_type(node, name, version, scope) for name in node.input]
            text = schema.get_context_dependent_function_with_opset_version(
                chosen, node.SerializeToString(), types
            )
        else:
            return None
        if not text:
            return None
        function = FunctionProto()
        function.ParseFromString(text)
        return function

    def _input_type(self, node: NodeProto, name: str, version: int, scope: Scope) -> bytes:
        kind = scope.type_of(name) if name else TypeProto()
        if kind is None:
            raise self.refusal(node, version, f'the type of its input "{name}" isn\'t known')
        return kind.SerializeToString()

    def _expand(self, node: NodeProto, function: FunctionProto, scope: Scope) -> list[NodeProto]:
        """The function's body in place of the node; what is known beforehand becomes constant."""
        nodes = self._instantiate(node, function)
        version = max(item.version for item in function.opset_import if item.domain == "")
        while True:
            inside, twins = self._infer(nodes, function, version, scope)
            chosen = self._with_chosen_branches(nodes, inside)
            if chosen is None:
                break
            nodes = chosen
        outputs = set(node.output)
        result: list[NodeProto] = []
        for item, twin in zip(nodes, twins, strict=True):
            if not outputs.intersection(item.output) and self._is_known(item, inside):
                continue
            for body, typed in zip(subgraphs(item), subgraphs(twin), strict=True):
                keep, self.version = self.version, version
                self._graph(body, typed, inside)
                self.version = keep
            result += self.lower(item, version, inside)
        made = {name for item in nodes for name in item.output if name}
        return self._with_constants(_needed(result, outputs), made, inside)

    def _is_known(self, node: NodeProto, scope: Scope) -> bool:
        return all(not name or self.value(name, scope) is not None for name in node.output)

    def _with_constants(
        self, nodes: list[NodeProto], made: set[str], scope: Scope
    ) -> list[NodeProto]:
        for node in nodes:
            names = [name for name in outer_names(node) if name in made]
            values = {name: self.value(name, scope) for name in names}
            known = {name: value for name, value in values.items() if value is not None}
            _rename(node, {name: self.constant(value) for name, value in known.items()})
        return nodes

    def _with_chosen_branches(self, nodes: list[NodeProto], scope: Scope) -> list[NodeProto] | None:
        """The nodes with the branch that an If always takes in place of it; None if no If is."""
        for place, node in enumerate(nodes):
            if node.op_type != "If":
                continue
            condition = self.value(node.input[0], scope)
            if condition is None:
                continue
            wanted = "then_branch" if condition.reshape(-1)[0] else "else_branch"
            body = next(item.g for item in node.attribute if item.name == wanted)
            ends = [
                onnx.helper.make_node("Identity", [value.name], [name])
                for value, name in zip(body.output, node.output, strict=True)
                if name
            ]
            return [*nodes[:place], *body.node, *ends, *nodes[place + 1 :]]
        return None

    def _instantiate(self, node: NodeProto, function: FunctionProto) -> list[NodeProto]:
        base = node.name or next(name for name in node.output if name)
        renames = dict.fromkeys((*function.input, *function.output), "")
        renames.update(zip(function.input, node.input, strict=False))
        outputs = {
            name: new for name, new in zip(function.output, node.output, strict=False) if new
        }
        renames.update(outputs)
        attributes = _attributes_of(node, function)
        nodes: list[NodeProto] = []
        for item in function.node:
            copy = NodeProto()
            copy.CopyFrom(item)
            self._instantiate_node(copy, renames, attributes, base)
            nodes.append(copy)
        # An input handed straight on to an output has no node that makes it.
        return _needed(nodes, {name for name in node.output if name})

    def _instantiate_node(
        self,
        node: NodeProto,
        renames: dict[str, str],
        attributes: dict[str, AttributeProto],
        base: str,
    ) -> None:
        kept: list[AttributeProto] = []
        for attribute in node.attribute:
            if attribute.ref_attr_name:
                if attribute.ref_attr_name not in attributes:
                    continue
                name = attribute.name
                attribute.CopyFrom(attributes[attribute.ref_attr_name])
                attribute.name = name
            kept.append(attribute)
        kept = [_copy(attribute) for attribute in kept]
        del node.attribute[:]
        node.attribute.extend(kept)
        node.name = self.fresh(f"{base}/{node.op_type}")
        for index, name in enumerate(node.input):
            node.input[index] = renames.get(name, name)
        for body in subgraphs(node):
            inner = dict(renames)
            for inside in body.node:
                self._instantiate_node(inside, inner, attributes, base)
            for value in body.output:
                value.name = inner.get(value.name, value.name)
        for index, name in enumerate(node.output):
            if name and not renames.get(name):
                renames[name] = self.fresh(f"{base}/{name}")
            node.output[index] = renames.get(name, "")

    def _infer(
        self, nodes: list[NodeProto], function: FunctionProto, version: int, scope: Scope
    ) -> tuple[Scope, list[NodeProto]]:
        """Types inside an expanded function, and the nodes with their bodies typed."""
        graph = GraphProto(name="function")
        graph.node.extend(nodes)
        made = {name for item in nodes for name in item.output}
        names = dict.fromkeys(n for item in nodes for n in outer_names(item) if n not in made)
        for name in names:
            tensor = scope.constant(name)
            if tensor is not None and tensor.data_location == TensorProto.EXTERNAL:
                tensor = None  # Its type is enough; no shape depends on a large weight.
            if tensor is not None:
                copy = graph.initializer.add()
                copy.CopyFrom(tensor)
                copy.name = name
            kind = scope.type_of(name)
            if tensor is None and kind is not None:
                graph.input.add(name=name).type.CopyFrom(kind)
        model = ModelProto(ir_version=onnx.IR_VERSION, graph=graph)
        model.opset_import.extend(function.opset_import)
        typed = inferred(model).graph
        inside = Scope(outer=scope, version=version)
        inside.learn(typed)
        return inside, list(typed.node)

    # values known beforehand

    def value(
        self, name: str, scope: Scope, depth: int = 0, limit: int | None = None
    ) -> np.ndarray | None:
        """The value of a tensor, if it follows from constants and known shapes alone.

        Constants of more than ``limit`` elements aren't read.
        """
        place: Scope | None = scope
        while place is not None:
            if name in place.constants:
                tensor = place.constants[name]
                small = limit is None or math.prod(tensor.dims) <= limit
                return self.read(tensor) if small else None
            if name in place.values:
                return place.values[name]
            if name in place.producers:
                node = place.producers[name]
                place.values[name] = None  # Stands if anything below can't be worked out.
                self._work_out(node, place, depth)
                return place.values[name]
            place = place.outer
        return None

    def _work_out(self, node: NodeProto, scope: Scope, depth: int) -> None:
        if node.op_type in ("Shape", "Size"):
            kind = scope.type_of(node.input[0])
            dims = kind.tensor_type.shape.dim if kind is not None else []
            if kind is None or not kind.tensor_type.HasField("shape"):
                return
            if not all(dim.HasField("dim_value") for dim in dims):
                return
            inputs = [np.broadcast_to(np.int8(0), [dim.dim_value for dim in dims])]
        else:
            if depth > _FOLD_DEPTH:
                return
            inputs = []
            for name in node.input:
                value = self.value(name, scope, depth + 1, _FOLD_LIMIT) if name else None
                if name and value is None:
                    return
                inputs.append(value)
        results = _evaluate(node, inputs, scope.version)
        if results is not None:
            scope.values.update(zip(node.output, results, strict=False))

    def known_results(self, node: NodeProto, scope: Scope) -> list[np.ndarray] | None:
        """What an operator of opset 17 gives, if all its inputs are known beforehand."""
        if node.op_type not in _FOLDED or not node.input:
            return None
        inputs = []
        for name in node.input:
            value = self._made.get(name)
            if name and value is None:
                value = self.value(name, scope, 0, _FOLD_LIMIT)
            if name and value is None:
                return None
            inputs.append(value)
        return _evaluate(node, inputs, BASE)

    # names, constants, refusals

    def fresh(self, hint: str) -> str:
        """A name that nothing in the model has, the same in every run."""
        name, number = hint, 1
        while name in self.used:
            name, number = f"{hint}_{number}", number + 1
        self.used.add(name)
        return name

    def constant(self, value: np.ndarray) -> str:
        """The name of a weight of this value; equal ones are stored once."""
        key = (value.dtype.str, value.dtype.name, value.shape, value.tobytes())
        if key not in self._constants:
            name = self.fresh(f"const/{value.dtype.name}")
            self._constants[key] = name
            self._made[name] = value
            self._new.append(onnx.numpy_helper.from_array(value, name))
        return self._constants[key]

    def refusal(self, node: NodeProto, version: int, why: str) -> CannotExpress:
        """The one line that says which operator can't be expressed and what to do."""
        name = node.name or next((name for name in node.output if name), "")
        return CannotExpress(
            f'can\'t express {node.op_type} "{name}" of opset {version} in opset {self.target}: '
            f"{why}; cut the graph before it (--outputs) or export without it"
        )


def _evaluate(
    node: NodeProto, inputs: list[np.ndarray | None], version: int
) -> list[np.ndarray] | None:
    """The node's results by the standard's reference implementation; None if it can't."""
    if node.op_type == "Div" and inputs[0].dtype.kind in "iu" and (inputs[0] < 0).any():
        return None  # Implementations differ in how they round.
    if _result_size(node, inputs) > _FOLD_LIMIT:
        return None
    names = [f"i{place}" if value is not None else "" for place, value in enumerate(inputs)]
    outputs = [f"o{place}" for place in range(len(node.output))]
    copy = NodeProto()
    copy.CopyFrom(node)
    del copy.input[:], copy.output[:]
    copy.input.extend(names)
    copy.output.extend(outputs)
    info = onnx.helper.make_empty_tensor_value_info
    graph = onnx.helper.make_graph(
        [copy], "one", [info(n) for n in names if n], [info(n) for n in outputs]
    )
    opset = onnx.helper.make_opsetid("", version)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=onnx.IR_VERSION)
    feeds = {name: value for name, value in zip(names, inputs, strict=True) if name}
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(model).run(None, feeds)
    except Exception:
        return None
    results = [np.asarray(value) for value in results]
    return None if any(value.size > _FOLD_LIMIT for value in results) else results


def _raised(engine: Engine, node: NodeProto) -> NodeProto:
    """An operator as adapters write it, for opset 17, in the form of a newer target."""
    old = _schema_or_none(node.op_type, engine.target)
    if old is None or node.domain or old.since_version <= BASE:
        return node
    names = {item.name for item in node.attribute}
    if "axes" in names - set(old.attributes):
        axes = next(item for item in node.attribute if item.name == "axes")
        node.input.append(engine.constant(np.array(axes.ints, np.int64)))
        node.attribute.remove(axes)
    if node.op_type == "Split" and len(node.input) < 2:
        node.attribute.append(onnx.helper.make_attribute("num_outputs", len(node.output)))
    if node.op_type == "GridSample" and engine.target >= 20:
        for item in node.attribute:
            item.s = {b"bilinear": b"linear", b"bicubic": b"cubic"}.get(item.s, item.s)
    return node


def _result_size(node: NodeProto, inputs: list[np.ndarray | None]) -> float:
    """Elements of the result for operators that make much out of little."""
    if node.op_type == "ConstantOfShape":
        return math.prod(inputs[0].tolist())
    if node.op_type == "Expand":
        return math.prod(inputs[1].tolist()) * inputs[0].size
    if node.op_type == "Range":
        start, end, step = (float(value.reshape(())) for value in inputs)
        return abs(end - start) / abs(step) if step else math.inf
    return 0


def _all_names(model: ModelProto) -> set[str]:
    names: set[str] = set()
    for graph in graphs(model.graph):
        names.update(value.name for value in (*graph.input, *graph.output, *graph.value_info))
        names.update(tensor.name for tensor in graph.initializer)
        for node in graph.node:
            names.update((node.name, *node.input, *node.output))
    return names


def _is_open(value: ValueInfoProto) -> bool:
    """Does an input leave a size open?"""
    kind = value.type.tensor_type
    return not kind.HasField("shape") or any(
        not dim.HasField("dim_value") for dim in kind.shape.dim
    )


def _copied(value: ValueInfoProto) -> ValueInfoProto:
    copy = ValueInfoProto()
    copy.CopyFrom(value)
    return copy


def _copy(attribute: AttributeProto) -> AttributeProto:
    copy = AttributeProto()
    copy.CopyFrom(attribute)
    return copy


def _schema_or_none(op_type: str, version: int) -> OpSchema | None:
    try:
        return get_schema(op_type, version, "")
    except SchemaError:
        return None


def _attributes_of(node: NodeProto, function: FunctionProto) -> dict[str, AttributeProto]:
    """The node's attributes, defaults of the function and of the schema filled in."""
    attributes = {item.name: item for item in function.attribute_proto}
    schema = _schema_or_none(node.op_type, max(item.version for item in function.opset_import))
    if schema is not None:
        for name, item in schema.attributes.items():
            if item.default_value.name:
                attributes.setdefault(name, item.default_value)
    attributes.update({item.name: item for item in node.attribute})
    return attributes


def _needed(nodes: list[NodeProto], wanted: set[str]) -> list[NodeProto]:
    """The nodes without those that only feed outputs nobody asked for."""
    kept: list[NodeProto] = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(outer_names(node))
            kept.append(node)
    return kept[::-1]


def _bad_types(node: NodeProto, old: OpSchema, scope: Scope) -> set[int]:
    """Element types of the node's inputs and outputs that the old schema doesn't take."""
    bad: set[int] = set()
    for names, formal in ((node.input, old.inputs), (node.output, old.outputs)):
        for index, name in enumerate(names):
            kind = scope.type_of(name) if name else None
            if kind is None or kind.WhichOneof("value") != "tensor_type" or not formal:
                continue
            elem = kind.tensor_type.elem_type
            allowed = formal[min(index, len(formal) - 1)].types
            if elem and f"tensor({type_name(elem)})" not in allowed:
                bad.add(elem)
    return bad


def _in_float32(call: Call, bad: set[int]) -> list[str]:
    """Compute in float32 what the old operator has no kernel type for, and round the results.

    Intermediate precision of the 16-bit types is not prescribed, and float32 holds both exactly.
    """
    inputs = [
        call.cast(name, TensorProto.FLOAT) if name and call.elem_of(name) in bad else name
        for name in call.inputs
    ]
    inner = [call.fresh("float") if name else "" for name in call.outputs]
    node = NodeProto()
    node.CopyFrom(call.node)
    del node.input[:], node.output[:]
    node.input.extend(inputs)
    node.output.extend(inner)
    call.emitted.append(node)
    elem = next(iter(bad))
    return [call.cast(name, elem) if name else "" for name in inner]


def _rename(node: NodeProto, renames: dict[str, str]) -> None:
    for names in (node.input, node.output):
        for index, name in enumerate(names):
            if name in renames:
                names[index] = renames[name]
    for body in subgraphs(node):
        for inside in body.node:
            _rename(inside, renames)
        for value in body.output:
            value.name = renames.get(value.name, value.name)


def _drop_shapes(graph: GraphProto) -> None:
    """Remove what the graph says about tensors that are gone."""
    made = {name for node in graph.node for name in node.output}
    made |= {tensor.name for tensor in graph.initializer}
    for index in reversed(range(len(graph.value_info))):
        if graph.value_info[index].name not in made:
            del graph.value_info[index]


def _drop_orphans(graph: GraphProto, before: set[str]) -> None:
    """Remove weights and nodes that only fed what the rewriting replaced."""
    while True:
        used = {name for node in graph.node for name in outer_names(node)}
        used |= {value.name for value in graph.output}
        orphans = before - used
        doomed = [
            i
            for i, node in enumerate(graph.node)
            if node.output and all(name in orphans or not name for name in node.output)
        ]
        for index in reversed(doomed):
            del graph.node[index]
        if not doomed:
            break
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name in orphans:
            del graph.initializer[index]
