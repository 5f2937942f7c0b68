"""What an evaluation came to, as schemas/eval.schema.json has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tpumake.detections import MOST, SAME, Detections
from tpumake.errors import BadInput
from tpumake.evaluation import found as kept
from tpumake.evaluation.found import Found
from tpumake.evaluation.likeness import Likeness, alike, alike_classes, harm, sure
from tpumake.evaluation.measures import measure, top
from tpumake.evaluation.pictures import EvalSet
from tpumake.labels import label

__all__ = ["GATED", "Gate", "Run", "check_labels", "document", "measures_of", "of_variant"]

_SCHEMA = "eval.schema.json"
# The figure whose drop the gate looks at, by the task.
GATED = {"detect": "map50", "classify": "top1"}
# Pictures that are shown.
_WORST = 8
_DIGITS = 6
_TITLES = {"onnx": "ONNX", "cut": "cut ONNX", "float": "float mlir"}
_UPPER = {"int8": "INT8", "int8_asym": "INT8 asym", "mix": "MIX", "bf16": "BF16", "f16": "F16",
          "f32": "F32"}  # fmt: skip


class Run(NamedTuple):
    """What was run: ``kind`` is onnx, cut, float, lowered or model; and what it found.

    ``variant`` is the precision of the two last ones, empty otherwise; ``suffix`` the model's.
    """

    kind: str
    variant: str
    suffix: str
    found: Found

    @property
    def title(self) -> str:
        """What people read."""
        if self.kind in _TITLES:
            return _TITLES[self.kind]
        precision = _UPPER.get(self.variant, self.variant)
        return f"{precision} mlir" if self.kind == "lowered" else f"{precision} {self.suffix}"


class Gate(NamedTuple):
    """By how much the gated figure may drop; ``decides`` is False where the model wasn't run."""

    most: float
    decides: bool


def document(
    target: str, chip: str, chosen: EvalSet, runs: Sequence[Run], confidence: float,
    gate: Gate | None,
) -> dict:  # fmt: skip
    """Put everything together; the first run is what the others are held against.

    :raises BadInput: labels and network don't fit each other, or the gate has no labels to go by
    """
    reference = runs[0].found
    for run in runs:
        _check_same(runs[0], run)
    labelled = check_labels(chosen, reference)
    if gate and not labelled:
        raise BadInput(
            f"MAX_DROP: the pictures in {chosen.source} have no labels, so no drop can be measured"
        )
    rows = [_run(run, runs[0], chosen, labelled, confidence) for run in runs]
    return {
        "$schema": _SCHEMA,
        "target": target,
        "chip": chip,
        "task": reference.kind,
        "quick": all(run.kind != "model" for run in runs),
        "set": {
            "source": chosen.source,
            "layout": chosen.layout,
            "labelled": labelled,
            "pictures": len(chosen.pictures),
            "of": chosen.of,
            "seed": chosen.seed,
            "objects": sum(len(each.objects or ()) for each in chosen.pictures),
            "classes": [label(chosen.classes, number) for number in range(reference.outputs)],
        },
        "settings": {
            "confidence": confidence,
            "least_score": kept.LEAST,
            "overlap": kept.OVERLAP,
            "most": MOST,
            "same": SAME,
        },
        "runs": rows,
        "apart": _apart(runs, rows, confidence),
        "worst": [
            each
            for variant in _variants(runs)
            for each in _worst(_last(runs, variant), runs[0], chosen, confidence)
        ],
        "gates": _gates(runs, rows, gate) if gate else [],
    }


def of_variant(whole: dict, target: str, variant: str) -> dict:
    """The part of a document that is about one variant, and what it is held against."""
    return whole | {"target": target} | {
        part: [each for each in whole[part] if each["variant"] in (variant, None)]
        for part in ("runs", "apart", "worst", "gates")
    }  # fmt: skip


def _check_same(first: Run, run: Run) -> None:
    one, two = ((each.found.kind, each.found.outputs) for each in (first, run))
    if one != two:
        raise BadInput(
            f"{run.title} is a network to {two[0]} {two[1]} classes, {first.title} one to "
            f"{one[0]} {one[1]}"
        )


def check_labels(chosen: EvalSet, found: Found) -> bool:
    """Whether there are labels that the network can be held against.

    :raises BadInput: there are others
    """
    if found.kind == "classify":
        if chosen.layout in ("yolo", "coco"):
            raise BadInput(
                f"{chosen.source}: has labelled objects, but the network is a classifier; it wants "
                "a folder of pictures for each class"
            )
        if chosen.labelled and len(chosen.classes) != found.outputs:
            raise BadInput(
                f"{chosen.source}: has {len(chosen.classes)} folders, the network "
                f"{found.outputs} classes; give their names: LABELS"
            )
        return chosen.labelled
    if chosen.layout == "folders":
        return False
    numbers = [one.number for each in chosen.pictures for one in each.objects or ()]
    if numbers and max(numbers) >= found.outputs:
        raise BadInput(
            f"{chosen.source}: has labels of class {max(numbers)}, the network has {found.outputs} "
            "classes, from 0"
        )
    return chosen.labelled


def _run(run: Run, first: Run, chosen: EvalSet, labelled: bool, confidence: float) -> dict:
    measures = measures_of(run.found, chosen, confidence) if labelled else None
    like = None if run is first else _like(first.found, run.found, confidence)
    return {
        "kind": run.kind,
        "variant": run.variant or None,
        "title": run.title,
        "pictures": len(run.found.each),
        "seconds_a_picture": round(run.found.seconds, 3),
        "measures": measures,
        "agreement": _rounded(like._asdict()) if like else None,
    }


def measures_of(found: Found, chosen: EvalSet, confidence: float) -> dict | None:
    """What labelled pictures say of a network; None if no picture has a label."""
    if found.kind == "classify":
        truth = [each.number or 0 for each in chosen.pictures]
        return _rounded({f"top{most}": top(truth, found.each, most) for most in (1, 5)})
    truth = [each.objects or [] for each in chosen.pictures]
    sizes = [(each.width, each.height) for each in chosen.pictures]
    result = measure(truth, found.each, sizes, confidence)
    if result is None:
        return None
    classes = [
        _rounded({"name": label(chosen.classes, each.number)} | each._asdict())
        for each in result.classes
    ]
    return _rounded(result._asdict()) | {"classes": classes}


def _like(one: Found, two: Found, confidence: float) -> Likeness:
    if one.kind == "classify":
        return alike_classes(one.each, two.each)
    return alike(one.each, two.each, confidence)


def _rounded(fields: dict) -> dict:
    return {
        name: round(value, _DIGITS) if isinstance(value, float) else value
        for name, value in fields.items()
    }


def _variants(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(run.variant for run in runs if run.variant))


def _last(runs: Sequence[Run], variant: str) -> Run:
    """The model itself, where that was run."""
    return [run for run in runs if run.variant == variant][-1]


def _apart(runs: Sequence[Run], rows: Sequence[dict], confidence: float) -> list[dict]:
    """How far the lowered network and the model on its emulator are apart."""
    told = []
    for variant in _variants(runs):
        both = {run.kind: (run, row) for run, row in zip(runs, rows, strict=True)
                if run.variant == variant}  # fmt: skip
        if len(both) < 2:
            continue
        (one, row), (two, other) = both["lowered"], both["model"]
        like = _like(one.found, two.found, confidence)
        drop = _drop(row, other, runs[0].found.kind)
        told.append({"variant": variant, "drop": drop} | _rounded(like._asdict()))
    return told


def _drop(before: dict, after: dict, task: str) -> float | None:
    if not before["measures"] or not after["measures"]:
        return None
    figure = GATED[task]
    return round(before["measures"][figure] - after["measures"][figure], _DIGITS)


def _worst(run: Run, first: Run, chosen: EvalSet, confidence: float) -> list[dict]:
    """The pictures that suffered most, the worst first, with what both networks found there."""
    if run.found.kind == "classify":
        return []
    pairs = list(zip(first.found.each, run.found.each, strict=True))
    harms = [harm(*pair, confidence) for pair in pairs]
    order = sorted(range(len(pairs)), key=lambda index: -harms[index])[:_WORST]
    return [
        {
            "variant": run.variant,
            "picture": chosen.pictures[index].name,
            "width": chosen.pictures[index].width,
            "height": chosen.pictures[index].height,
            "harm": round(harms[index], 3),
            "truth": _truth(chosen, index),
            "reference": _boxes(pairs[index][0], chosen, index, confidence),
            "model": _boxes(pairs[index][1], chosen, index, confidence),
        }
        for index in order
        if harms[index] > 0
    ]


def _truth(chosen: EvalSet, index: int) -> list[dict] | None:
    objects = chosen.pictures[index].objects
    if objects is None:
        return None
    return [
        {"class": each.number, "score": None, "box": [round(side, 1) for side in each.box]}
        for each in objects
    ]


def _boxes(found: Detections, chosen: EvalSet, index: int, confidence: float) -> list[dict]:
    """Boxes in the picture, cut off at its borders."""
    picture, shown = chosen.pictures[index], sure(found, confidence)
    boxes = shown.boxes.reshape(-1, 2, 2).clip(0, (picture.width, picture.height)).reshape(-1, 4)
    return [
        {"class": int(number), "score": round(float(score), 4),
         "box": [round(float(side), 1) for side in box]}
        for box, score, number in zip(np.asarray(boxes), shown.scores, shown.classes, strict=True)
    ]  # fmt: skip


def _gates(runs: Sequence[Run], rows: Sequence[dict], gate: Gate) -> list[dict]:
    """Whether each variant's model may be used; None where the model itself wasn't run."""
    task = runs[0].found.kind
    told = []
    for variant in _variants(runs):
        row = rows[list(runs).index(_last(runs, variant))]
        drop = _drop(rows[0], row, task)
        if drop is None:
            raise BadInput("MAX_DROP: no picture that was chosen has a label; EVAL_COUNT = more")
        decided = gate.decides and row["kind"] == "model"
        told.append({
            "variant": variant, "figure": GATED[task], "drop": drop, "max_drop": gate.most,
            "passed": drop <= gate.most if decided else None,
        })  # fmt: skip
    return told
