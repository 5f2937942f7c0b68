"""Operators that this toolchain can't read or compile, from a table that was measured.

``operators-<version>.json`` is what training/measure_operators.py wrote: what came of each operator
in a network of its own, and what can be done about it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from onnx import NodeProto, helper

from tpumake.preflight.finding import ERROR, WARNING, Finding
from tpumake.preflight.graph import Graph
from tpumake.preflight.plan import Plan

__all__ = ["check_operators", "load_table", "trouble", "working_nodes"]

_HERE = Path(__file__).resolve().parent
# What they give is known as soon as shapes are: tpu_mlir computes it, and all from it, beforehand.
_FOLDED = {"Shape", "Size", "Constant", "ConstantOfShape"}
# What replaces an operator, in a few words.
_REMEDIES = json.loads((_HERE / "remedies.json").read_text())
_SHOWN = 3
# What layers of a mixed model are computed in that are not in INT8.
_FLOATS = {"cv18x": ("bf16",), "bm1684x": ("f16",), "bm1684": ("f32",)}


def load_table(version: str) -> dict | None:
    """The table of a version of tpu_mlir; None if nobody measured it."""
    path = _HERE / f"operators-{version}.json"
    return json.loads(path.read_text()) if path.exists() else None


def check_operators(plan: Plan, graph: Graph) -> list[Finding]:
    """What in the network this toolchain can't read, or can't compile for the chip."""
    table = load_table(plan.version)
    if table is None:
        return []
    wanted = plan.precisions
    reasons: dict[str, dict[str, str]] = {}
    places: dict[str, list[str]] = {}
    counts: Counter[str] = Counter()
    for node in working_nodes(graph):
        found = trouble(table, node, plan.chip, wanted)
        # What only fails in precisions that nobody wants isn't worth a word.
        if found and ("read" in found or len(found) == len(wanted) or set(found) & set(plan.told)):
            counts[node.op_type] += 1
            reasons.setdefault(node.op_type, found)
            places.setdefault(node.op_type, []).append(node.name or node.output[0])
    return [
        _finding(plan, kind, counts[kind], places[kind], reasons[kind], wanted) for kind in reasons
    ]


def working_nodes(graph: Graph) -> list[NodeProto]:
    """Nodes that compute something of what is fed in; tpu_mlir folds all others away."""
    fed = {value.name for value in graph.model.graph.input}
    fed -= {tensor.name for tensor in graph.model.graph.initializer}
    working, erf = [], _erf_of_gelu(graph.model.graph.node)
    for node in graph.model.graph.node:
        if node.op_type in _FOLDED or not fed & set(node.input):
            continue
        fed.update(node.output)
        if node.output[0] not in erf:
            working.append(node)
    return working


def _erf_of_gelu(nodes: Iterable[NodeProto]) -> set[str]:
    """What Erf gives in ½x(1 + erf(x/√2)), which tpu_mlir knows as GELU."""
    users: dict[str, list[NodeProto]] = {}
    found = set()
    nodes = list(nodes)
    for node in nodes:
        for name in node.input:
            users.setdefault(name, []).append(node)
    for node in nodes:
        if node.op_type != "Erf":
            continue
        after = users.get(node.output[0], [])
        then = [one for each in after for one in users.get(each.output[0], [])]
        if [each.op_type for each in after] == ["Add"] and {one.op_type for one in then} == {"Mul"}:
            found.add(node.output[0])
    return found


def trouble(table: dict, node: NodeProto, chip: str, precisions: list[str]) -> dict[str, str]:
    """What is known to go wrong with a node, by ``read`` or by precision; empty if all is well.

    Of the measured cases of its operator those count whose attributes the node has; it is all right
    if one of them was.
    """
    has = {each.name: _value(each) for each in node.attribute}
    cases = list(_cases(table, node.op_type, has))
    if not cases:
        known = node.op_type in table["reads"] or node.domain not in ("", "ai.onnx")
        return {} if known else {"read": "tpu_mlir doesn't know it"}
    if all("read" in case["trouble"] for case in cases):
        return {"read": cases[0]["trouble"]["read"]}
    found = {}
    for precision in precisions:
        said = [_said(case["trouble"], table["families"].get(chip), precision) for case in cases]
        if all(said):
            found[precision] = said[0]
    return found


def _said(told: dict[str, str], family: str | None, precision: str) -> str:
    """What went wrong in a case; a mixed model can have either precision."""
    if precision == "mix":
        floats = [told.get(f"{family}:{each}", "") for each in _FLOATS.get(family, ())]
        return told.get(f"{family}:int8", "") if any(floats) else ""
    return told.get(f"{family}:{precision.removesuffix('_asym')}", "")


def _cases(table: dict, kind: str, has: dict) -> Iterator[dict]:
    """The measured cases that a node is one of: the most particular ones."""
    fitting = [
        case
        for case in table["cases"].values()
        if case["operator"] == kind
        and all(has.get(name) == value for name, value in case["attributes"].items())
    ]
    most = max(map(_particular, fitting), default=0)
    yield from (case for case in fitting if _particular(case) == most)


def _particular(case: dict) -> int:
    """One whose attribute is left out, where tpu_mlir has another default, comes first."""
    return len(case["attributes"]) + 100 * (None in case["attributes"].values())


def _value(attribute: object) -> object:
    value = helper.get_attribute_value(attribute)
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _finding(
    plan: Plan, kind: str, count: int, places: list[str], reasons: dict[str, str], wanted: list[str]
) -> Finding:
    nodes = ", ".join(places[:_SHOWN]) + (", …" if count > _SHOWN else "")
    where = plan.variable(plan.kind)
    remedy = _REMEDIES.get(kind) or "replace it, or cut the network before it: OUTPUTS"
    tool = f"tpu_mlir {plan.version}"
    if "read" in reasons:
        if reasons["read"].startswith(("computes", "gives")):
            what = f"{tool} {reasons['read']} for {kind} ({nodes})"
            return Finding("float-operator", WARNING, where, what, remedy)
        return Finding("operator", ERROR, where, f"{tool} can't read {kind} ({nodes})", remedy)
    names = " or ".join(each.upper() for each in reasons)
    what = f"{tool} can't compile {kind} ({nodes}) for {plan.chip} in {names}"
    severity = ERROR if len(reasons) == len(wanted) or plan.strict else WARNING
    return Finding("operator", severity, where, what, remedy)
