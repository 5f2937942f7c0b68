"""How good detections are: mean average precision, precision, recall.

Detections are matched with labels by pycocotools' COCOeval (cocodataset.org/#detection-eval): the
surest first, each with the label of its class and picture that it overlaps most, at ten overlaps
from 0.5 to 0.95. Average precision is the area under the best precision at each recall, at 101
recalls. COCO takes it in steps; Ultralytics, whose figures people compare with, along straight
lines (``utils/metrics.py``), and does not cut boxes off at the picture's border. Here it is the
latter, COCO's own figure stands beside it.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tpumake.detections import MOST, Detections
from tpumake.evaluation.truth import Object

__all__ = ["ClassMeasures", "Measures", "measure", "top"]

_RECALLS = np.linspace(0, 1, 101)


class ClassMeasures(NamedTuple):
    """One class: how many labels there are; figures from 0 to 1, None where there are none."""

    number: int
    objects: int
    map50: float | None
    map50_95: float | None
    precision: float | None
    recall: float | None
    f1: float | None


class Measures(NamedTuple):
    """The means over all classes that have labels.

    ``precision``, ``recall`` and ``f1`` count all boxes and labels together, at a threshold of
    score and an overlap of 0.5.
    """

    map50: float
    map50_95: float
    coco_map50: float
    coco_map50_95: float
    precision: float
    recall: float
    f1: float
    classes: list[ClassMeasures]


class _Curve(NamedTuple):
    """A class's detections, surest first: bool [overlaps,N], and its number of labels."""

    scores: np.ndarray
    right: np.ndarray
    ignored: np.ndarray
    objects: int


def measure(
    truth: Sequence[Sequence[Object]],
    found: Sequence[Detections],
    sizes: Sequence[tuple[int, int]],
    confidence: float,
) -> Measures | None:
    """Hold detections against labels; None where there is no label at all.

    :param truth: labels of each picture
    :param found: detections of each picture, in the same pixels, with all scores that there are
    :param sizes: width and height of each picture
    :param confidence: the score from which a box counts for precision and recall
    """
    classes = sorted({each.number for objects in truth for each in objects if not each.crowd})
    if not classes:
        return None
    # What is found of other classes counts for precision, but has no average of its own.
    seen = sorted({*classes, *(int(number) for each in found for number in each.classes)})
    evaluation = _evaluate(truth, found, sizes, seen)
    curves = {number: _curve(evaluation, number) for number in seen}
    coco = evaluation.eval["precision"][:, :, [seen.index(each) for each in classes], 0, -1]
    rows = [_of_class(number, curves[number], confidence) for number in classes]
    right, boxes, objects = np.sum([_counted(curve, confidence) for curve in curves.values()], 0)
    return Measures(
        _mean([row.map50 for row in rows]),
        _mean([row.map50_95 for row in rows]),
        float(coco[0].mean()),
        float(coco.mean()),
        *_rates(int(right), int(boxes), int(objects)),
        rows,
    )


def _mean(values: Sequence[float | None]) -> float:
    return float(np.mean([value or 0.0 for value in values]))


def _evaluate(truth, found, sizes, classes: Sequence[int]):
    """Have pycocotools match everything."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    labels, boxes = [], []
    for picture, (objects, seen) in enumerate(zip(truth, found, strict=True), 1):
        for each in objects:
            left, top_, right, bottom = each.box
            sides = [left, top_, right - left, bottom - top_]
            labels.append({"id": len(labels) + 1, "image_id": picture, "category_id": each.number,
                           "bbox": sides, "area": sides[2] * sides[3],
                           "iscrowd": int(each.crowd)})  # fmt: skip
        for box, score, number in zip(*seen, strict=True):
            left, top_, right, bottom = map(float, box)
            sides = [left, top_, right - left, bottom - top_]
            boxes.append({"id": len(boxes) + 1, "image_id": picture, "category_id": int(number),
                          "bbox": sides, "area": sides[2] * sides[3], "score": float(score),
                          "iscrowd": 0})  # fmt: skip
    shared = {
        "images": [{"id": index, "width": width, "height": height}
                   for index, (width, height) in enumerate(sizes, 1)],
        "categories": [{"id": number, "name": str(number)} for number in classes],
    }  # fmt: skip
    # It prints how it gets on.
    with contextlib.redirect_stdout(io.StringIO()):
        sides_ = []
        for entries in (labels, boxes):
            one = COCO()
            one.dataset = shared | {"annotations": entries}
            one.createIndex()
            sides_.append(one)
        evaluation = COCOeval(*sides_, "bbox")
        evaluation.params.maxDets = [1, 10, MOST]
        # Boxes of all sizes; it would do small, middling and large ones besides.
        evaluation.params.areaRng = evaluation.params.areaRng[:1]
        evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _curve(evaluation, number: int) -> _Curve:
    """Put a class's detections of all pictures in the order of their scores."""
    parts = [each for each in evaluation.evalImgs if each and each["category_id"] == number]
    overlaps = len(evaluation.params.iouThrs)
    scores = np.concatenate([np.zeros(0), *(each["dtScores"] for each in parts)])
    right = np.concatenate([np.zeros((overlaps, 0)), *(each["dtMatches"] for each in parts)], 1) > 0
    ignored = (
        np.concatenate([np.zeros((overlaps, 0)), *(each["dtIgnore"] for each in parts)], 1) > 0
    )
    order = np.argsort(-scores, kind="stable")
    objects = sum(int(np.sum(1 - each["gtIgnore"])) for each in parts)
    return _Curve(scores[order], right[:, order], ignored[:, order], objects)


def _of_class(number: int, curve: _Curve, confidence: float) -> ClassMeasures:
    areas = [
        _area(right[~ignored], curve.objects)
        for right, ignored in zip(curve.right, curve.ignored, strict=True)
    ]
    rates = _rates(*_counted(curve, confidence))
    return ClassMeasures(number, curve.objects, areas[0], float(np.mean(areas)), *rates)


def _area(right: np.ndarray, objects: int) -> float:
    """Average precision of detections, surest first; bool [N]."""
    if not len(right):
        return 0.0
    hits = np.cumsum(right)
    recall, precision = hits / objects, hits / np.arange(1, len(right) + 1)
    recall = np.concatenate([[0.0], recall, [recall[-1], 1.0]])
    precision = np.concatenate([[1.0], precision, [0.0, 0.0]])
    # At each recall the best precision that is to be had at this one or a higher.
    best = np.maximum.accumulate(precision[::-1])[::-1]
    heights = np.interp(_RECALLS, recall, best)
    return float(np.sum((heights[1:] + heights[:-1]) / 2 * np.diff(_RECALLS)))


def _counted(curve: _Curve, confidence: float) -> tuple[int, int, int]:
    """Right boxes, all boxes, labels; at an overlap of 0.5, above a score."""
    sure = (curve.scores > confidence) & ~curve.ignored[0]
    return int(np.sum(curve.right[0] & sure)), int(np.sum(sure)), curve.objects


def _rates(right: int, boxes: int, objects: int) -> tuple[float, float, float]:
    """Precision, recall and their harmonic mean; 0 where there is nothing to divide by."""
    precision = right / boxes if boxes else 0.0
    recall = right / objects if objects else 0.0
    return precision, recall, 2 * right / (boxes + objects) if boxes + objects else 0.0


def top(truth: Sequence[int], found: Sequence[Detections], most: int) -> float:
    """The share of pictures whose class is among the ``most`` surest ones."""
    right = [
        number in seen.classes[:most].tolist() for number, seen in zip(truth, found, strict=True)
    ]
    return float(np.mean(right))
