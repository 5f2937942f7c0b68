"""What a search for float layers came to, as schemas/qtable_goal.schema.json has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tpumake.columns import in_columns
from tpumake.evaluation.document import GATED
from tpumake.evaluation.pictures import EvalSet
from tpumake.mixed.search import Layer, Outcome

__all__ = ["Searched", "document", "lines", "summary"]

_MB = 1e6
_DIGITS = 6
_FIGURES = {"map50": "mAP50", "top1": "top-1"}
# The longest bar, in letters.
_WIDTH = 24


class Searched(NamedTuple):
    """What was searched: a target on a chip, until its figure drops by ``goal`` at most.

    ``mode`` is what float is on that chip, ``reference`` the float network's measures.
    """

    target: str
    chip: str
    mode: str
    goal: float
    task: str
    reference: dict


def document(
    searched: Searched, chosen: EvalSet, layers: Sequence[Layer], outcome: Outcome,
    harms: dict[tuple[int, int], float], measures: dict[tuple[int, ...], dict],
) -> dict:  # fmt: skip
    """Put everything together.

    :param harms: of layers from one place to another, the latter not included
    :param measures: by the layers that were float
    """
    figure = GATED[searched.task]
    points = [
        {
            "float_layers": len(tried.layers),
            "cost": sum(layers[index].cost for index in tried.layers),
            "measures": {name: value for name, value in measures[tried.layers].items()
                         if isinstance(value, float)},
            "drop": round(tried.drop, _DIGITS),
            "passed": tried.drop <= searched.goal,
            "chosen": tried == outcome.best,
        }
        for tried in sorted(outcome.tried, key=lambda tried: (len(tried.layers), tried.layers))
    ]  # fmt: skip
    best = outcome.best.layers if outcome.best else ()
    return {
        "$schema": "qtable_goal.schema.json",
        "target": searched.target,
        "chip": searched.chip,
        "mode": searched.mode,
        "figure": figure,
        "goal": searched.goal,
        "set": {"source": chosen.source, "pictures": len(chosen.pictures), "of": chosen.of,
                "seed": chosen.seed},
        "reference": searched.reference[figure],
        "layers": len(layers),
        "points": points,
        "float": [layers[index]._asdict() for index in best],
        "harms": [
            {"first": layers[start].name, "last": layers[stop - 1].name, "layers": stop - start,
             "harm": round(harm, _DIGITS)}
            for (start, stop), harm in sorted(harms.items())
        ],
    }  # fmt: skip


def lines(told: dict) -> list[str]:
    """The curve: what each number of float layers came to."""
    name, drops = _FIGURES[told["figure"]], [point["drop"] for point in told["points"]]
    most = max([*drops, told["goal"], 1e-9])
    rows = [("float layers", "MB more", name, "drop", "")]
    for point in told["points"]:
        bar = "█" * round(_WIDTH * max(point["drop"], 0) / most)
        sign = " ← chosen" if point["chosen"] else "" if point["passed"] else " too much"
        rows.append((
            str(point["float_layers"]), f"{point['cost'] / _MB:.2f}",
            f"{100 * point['measures'][told['figure']]:.2f}", f"{100 * point['drop']:.2f}",
            f"{bar}{sign}",
        ))  # fmt: skip
    figures = in_columns([row[:-1] for row in rows], words=0)
    return [f"{line}  {row[-1]}".rstrip() for line, row in zip(figures, rows, strict=True)]


def summary(told: dict) -> str:
    """What people see of it in one line."""
    name = _FIGURES[told["figure"]]
    best = next((point for point in told["points"] if point["chosen"]), None)
    goal = f"the goal is {100 * told['goal']:g} points at most"
    if best is None:
        last = told["points"][-1]
        return (f"{name} drops by {100 * last['drop']:.2f} points even with {last['float_layers']} "
                f"of {told['layers']} layers in {told['mode']}; {goal}")  # fmt: skip
    drop = f"{name} drops by {100 * best['drop']:.2f} points"
    if not best["float_layers"]:
        return f"INT8 is good enough: {drop}, {goal}"
    return (f"{best['float_layers']} of {told['layers']} layers in {told['mode']}, "
            f"{best['cost'] / _MB:.2f} MB more: {drop}, {goal}")  # fmt: skip
