"""All checks of a plan in one pass."""

from __future__ import annotations

from pathlib import Path

from tpumake.onnx_io import metadata
from tpumake.preflight.exported import check_classes, check_colours, check_resolution
from tpumake.preflight.finding import ERROR, Finding, in_order, kept, unknown
from tpumake.preflight.graph import graph_of
from tpumake.preflight.network import check_file, check_inputs, read
from tpumake.preflight.operators import check_operators
from tpumake.preflight.pictures import check_dataset, check_test_inputs
from tpumake.preflight.plan import Plan
from tpumake.preflight.size import check_ion, ion_pool, needs
from tpumake.preflight.stanza import check_stanza

__all__ = ["check"]

# These say that what follows from the network's shapes would say nothing.
_UNSHAPED = {"dynamic", "shapes", "inputs"}


def check(plan: Plan, schema: dict, build: Path | None = None) -> list[Finding]:
    """All findings of a model that is to be built, the most important first.

    :param schema: schemas/stanza.schema.json
    :param build: the build folder, to look at the machine as well
    """
    found = check_stanza({**plan.stanza, "model": plan.model}, schema)
    found += [
        Finding("variant", ERROR, f"{plan.model}_{variant}", reason)
        for variant, reason in plan.refused.items()
        if reason
    ]
    silenced = plan.value("SILENCE").split()
    found += unknown(silenced, plan.variable("SILENCE"))
    # With a stanza that is wrong in itself, the rest would be guessing at what was meant.
    if not any(one.name == "variable" for one in found):
        found += _network(plan, build)
        found += check_test_inputs(plan)
        found += check_dataset(plan)
    return in_order(kept(found, silenced))


def _network(plan: Plan, build: Path | None) -> list[Finding]:
    found = check_file(plan)
    if (
        plan.kind != "ONNX"
        or not plan.source.is_file()
        or any(one.severity == ERROR for one in found)
    ):
        return found + check_colours(plan, {})
    network, unreadable = read(plan)
    if network is None:
        return found + unreadable
    told = metadata(network.model)
    inputs = check_inputs(plan, network.model)
    found += [*inputs, *check_colours(plan, told)]
    if not any(one.name in _UNSHAPED for one in inputs):
        found += check_resolution(plan, network.model)
    if any(one.name in _UNSHAPED and one.severity == ERROR for one in inputs):
        return found
    graph, cut = graph_of(plan, network)
    found += [*cut, *check_classes(plan, network.model, graph)]
    if graph is None:
        return found
    found += check_operators(plan, graph)
    found += check_ion(plan, graph, ion_pool(plan.device, plan.chip))
    if build is not None:
        from tpumake.preflight.machine import check_room

        # tpu_mlir's own calibration holds the tensors of all pictures at once.
        theirs = plan.value("CALIBRATOR") == "tpu_mlir" or plan.version != "1.7"
        wanted = needs(graph, int(plan.value("INPUT_NUM") or 0) if theirs else 0)
        found += check_room(build, wanted.disk, wanted.memory)
    return found
