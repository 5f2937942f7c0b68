"""What the exporter wrote about the network, beside what the stanza says of it."""

from __future__ import annotations

import re

import onnx

from tpumake.errors import BadInput
from tpumake.labels import names_in, read_labels
from tpumake.onnx_io import fed_inputs, metadata
from tpumake.preflight.finding import ERROR, WARNING, Finding
from tpumake.preflight.graph import Graph
from tpumake.preflight.network import sides
from tpumake.preflight.plan import Plan, numbers, shapes

__all__ = ["check_classes", "check_colours", "check_resolution"]

# Ultralytics feeds its networks with RGB from 0 to 1.
_ULTRALYTICS = {"pixel-format": "rgb", "mean": 0.0, "scale": 1 / 255}
# Means and scales further from each other than that are others, not other roundings.
_NEAR = 0.02
# Who scales with as much or more meant to divide by it.
_DIVISOR = 16


def trained_size(told: dict[str, str]) -> tuple[int, ...]:
    """Height and width that Ultralytics' exporter names, or nothing."""
    found = re.fullmatch(r"\[?\s*(\d+)(?:\s*,\s*(\d+))?\s*\]?", told.get("imgsz", ""))
    return tuple(int(side) for side in (found[1], found[2] or found[1])) if found else ()


def check_resolution(plan: Plan, model: onnx.ModelProto) -> list[Finding]:
    """Is the network built in the size that it was exported, and trained, with?"""
    wanted, inputs = trained_size(metadata(model)), fed_inputs(model.graph)
    said = shapes(plan.value("INPUT_SHAPES"))
    shape = list(said[0]) if said else sides(inputs[0]) if inputs else []
    if not wanted or len(shape) != 4 or 0 in shape or tuple(shape[2:]) == wanted:
        return []
    what = f"{shape[2]}×{shape[3]}, but the network was exported for {wanted[0]}×{wanted[1]}"
    remedy = f"set it to {str([[*shape[:2], *wanted]]).replace(' ', '')}, or export it again"
    return [Finding("resolution", WARNING, plan.variable("INPUT_SHAPES"), what, remedy)]


def check_classes(plan: Plan, model: onnx.ModelProto, graph: Graph | None) -> list[Finding]:
    """Are there as many labels as the network has classes?"""
    names, where = names_in(metadata(model)), plan.variable(plan.kind)
    if plan.labels:
        where = plan.variable("LABELS")
        try:
            given = read_labels(plan.labels)
        except BadInput as error:
            return [Finding("classes", ERROR, where, str(error))]
        if names and len(given) != len(names):
            what = f"{plan.labels} has {len(given)} names, the network {len(names)} classes"
            remedy = f"from {names[0]} to {names[-1]}: a line each, in this order"
            return [Finding("classes", WARNING, where, what, remedy)]
        names = given
    count = _classes(graph) if graph else 0
    if names and count and len(names) != count:
        what = f"{len(names)} names, but the network has {count} classes"
        return [Finding("classes", WARNING, where, what,
                        f"give {plan.variable('LABELS')} a list of {count}")]  # fmt: skip
    if plan.labels or names or not count or not graph.cut:
        return []
    what = f"it doesn't say what its {count} classes are called"
    return [Finding("classes", WARNING, where, what,
                    f"give {plan.variable('LABELS')} a list, one a line")]  # fmt: skip


def _classes(graph: Graph) -> int:
    """How many classes a network has that is cut at box and class branches; 0 if nobody knows."""
    if not graph.cut:
        return 0
    channels: dict[tuple[int, ...], list[int]] = {}
    for value in graph.model.graph.output:
        shape = graph.shapes.get(value.name, ())
        if len(shape) == 4:
            channels.setdefault(shape[2:], []).append(shape[1])
    pairs = {tuple(each) for each in channels.values()}
    # Box and class, the same at every stride; others, such as masks, are not told apart here.
    return next(iter(pairs))[1] if len(pairs) == 1 and len(next(iter(pairs))) == 2 else 0


def check_colours(plan: Plan, told: dict[str, str]) -> list[Finding]:
    """Is MEAN, SCALE and PIXEL_FORMAT what the network was trained with, as far as is known?

    :param told: the exporter's metadata
    """
    if not plan.pictures:
        return []
    scale, mean = numbers(plan.value("SCALE")), numbers(plan.value("MEAN"))
    found = _absurd_scale(plan, scale)
    if told.get("author") != "Ultralytics" or not scale or not mean:
        return found
    # What is absurd needn't be told twice.
    return found + _unlike_ultralytics(plan, () if found else scale, mean, told.get("task", ""))


def _absurd_scale(plan: Plan, scale: tuple[float, ...]) -> list[Finding]:
    where = f"{plan.variable('SCALE')} = {plan.value('SCALE')}"
    if scale and max(scale) >= _DIVISOR:
        right = ",".join(f"{1 / each:.7f}" if each else "0" for each in scale)
        what = "pixels are multiplied by it, not divided"
        return [Finding("scale", ERROR, where, what, f"{plan.variable('SCALE')} = {right}")]
    if scale and not all(scale):
        return [Finding("scale", ERROR, where, "a colour times 0 is no colour", "1 leaves it")]
    return []


def _unlike_ultralytics(
    plan: Plan, scale: tuple[float, ...], mean: tuple[float, ...], task: str
) -> list[Finding]:
    found = []

    def add(name: str, variable: str, right: str) -> None:
        where = f"{plan.variable(variable)} = {plan.value(variable)}"
        what = "its metadata says that Ultralytics exported it, whose networks take another"
        remedy = f"{plan.variable(variable)} = {right}"
        found.append(Finding(name, WARNING, where, what, remedy))

    wanted = float(_ULTRALYTICS["scale"])
    if any(abs(each - wanted) > _NEAR * wanted for each in scale):
        add("scale", "SCALE", ",".join(["0.0039216"] * 3))
    # Classifiers of old versions were trained with other means; theirs are left alone.
    if task != "classify" and any(abs(each) > _NEAR for each in mean):
        add("mean", "MEAN", "0,0,0")
    if plan.value("PIXEL_FORMAT") == "bgr":
        add("pixel-format", "PIXEL_FORMAT", "rgb")
    return found
