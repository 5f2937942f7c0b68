"""From a detector's raw outputs to boxes: what kind of head it is, decoding, suppression.

Heads are told by the shapes of their outputs, never by names, so that the ONNX, tpu_mlir's networks
and compiled models all go the same way. Sources of the arithmetic:

- box distances and their distribution (DFL): Li et al., Generalized Focal Loss (2020), section 3.2,
  and FCOS (Tian et al., 2019), as in Ultralytics' YOLOv8 to 12; without the distribution as in
  YOLO26 (Ultralytics 8.4, ``nn/modules/head.py``, ``utils/tal.py``)
- YOLOv5's anchors: its repository, ``models/yolov5s.yaml`` and ``models/yolo.py``
- suppression: greedy, per class, as ``torchvision.ops.nms`` and Ultralytics' ``utils/nms.py`` do it

Coordinates are pixels of the network's input; boxes are left, top, right, bottom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tpumake.errors import BadInput

__all__ = [
    "CONFIDENCE",
    "MOST",
    "OVERLAP",
    "Agreement",
    "Candidates",
    "Detections",
    "Head",
    "agreement",
    "matches",
    "overlaps",
    "recognise",
    "suppress",
]

Shape = tuple[int, ...]

# Ultralytics' settings for prediction: least score, most overlap of two boxes of one class, and how
# many boxes are kept.
CONFIDENCE = 0.25
OVERLAP = 0.7
MOST = 300
# And how many boxes suppression looks at.
_MOST_CANDIDATES = 30_000
# A number that is no class may be any; this many scores are 256 MiB.
_MOST_SCORES = 1 << 26
# Overlap from which two boxes of one class count as the same object.
SAME = 0.5

# Bins of the box distribution in the networks that have one.
_BINS = 16
# The strides that heads have; a whole network's number of places tells which of these sets it has.
_STRIDES = ((8, 16, 32), (16, 32), (8, 16, 32, 64), (4, 8, 16, 32))
# YOLOv5's anchors by stride: width and height of three each, in pixels.
_ANCHORS = {
    8: ((10, 13), (16, 30), (33, 23)),
    16: ((30, 61), (62, 45), (59, 119)),
    32: ((116, 90), (156, 198), (373, 326)),
}


class Candidates(NamedTuple):
    """All places of a head with what they say.

    ``boxes`` is float32 [N,4], ``scores`` float32 [N,classes] from 0 to 1. ``chosen`` tells that
    the network has left one box an object by itself, so that nothing is to be suppressed.
    """

    boxes: np.ndarray
    scores: np.ndarray
    chosen: bool = False


class Detections(NamedTuple):
    """What was found, the surest first.

    ``boxes`` is float32 [N,4], ``scores`` float32 [N] from 0 to 1, ``classes`` int64 [N].
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


@dataclass(frozen=True)
class Level:
    """The outputs of a cut head at one stride, by their places among all outputs.

    ``scores`` is None where one output holds boxes and scores.
    """

    stride: int
    boxes: int
    scores: int | None = None


@dataclass(frozen=True)
class Head:
    """A kind of head: how many classes it tells apart, and how its outputs are to be read.

    ``kind`` is one of

    - ``distances``: for each stride [1,4·bins,h,w] distances from the place to the box's sides, as
      a distribution over bins, in strides, and [1,classes,h,w] logits of scores;
    - ``anchors``: for each stride [1,3·(5+classes),h,w], YOLOv5's;
    - ``decoded``: [1,4+classes,places], centre, size in pixels, scores;
    - ``decoded anchors``: [1,places,5+classes], the same with a score of there being an object;
    - ``chosen``: [1,boxes,6], left, top, right, bottom in pixels, score, class.
    """

    kind: str
    classes: int
    levels: tuple[Level, ...] = ()

    def decode(self, outputs: Sequence[np.ndarray]) -> Candidates:
        """Read a network's outputs, which have the shapes that the head was recognised by.

        :param outputs: float, in the order of those shapes; batch 1
        """
        if self.kind == "distances":
            return _joined(_distances(level, outputs) for level in self.levels)
        if self.kind == "anchors":
            return _joined(_anchors(level, outputs) for level in self.levels)
        (whole,) = outputs
        if self.kind == "decoded":
            rows = whole.reshape(4 + self.classes, -1).T
            return Candidates(_corners(rows[:, :4]), rows[:, 4:].astype(np.float32))
        if self.kind == "decoded anchors":
            rows = whole.reshape(-1, 5 + self.classes)
            scores = rows[:, 4:5] * rows[:, 5:]
            return Candidates(_corners(rows[:, :4]), scores.astype(np.float32))
        rows = whole.reshape(-1, 6).astype(np.float32)
        # Quantised, a class may be a little off its number.
        classes = np.rint(rows[:, 5]).astype(np.int64).clip(0)
        columns = max(self.classes, int(classes.max(initial=0)) + 1)
        if columns * len(rows) > _MOST_SCORES:
            raise BadInput(f"{len(rows)} boxes of {columns} classes: no detector gives so many")
        scores = np.zeros((len(rows), columns), "f4")
        scores[np.arange(len(rows)), classes] = rows[:, 4]
        return Candidates(rows[:, :4], scores, chosen=True)


def recognise(shapes: Sequence[Shape], size: tuple[int, int], classes: int = 0) -> Head:
    """Tell which kind of head a detector has.

    Where a class and a box output have as many channels, the box output is what comes first.

    :param shapes: the outputs' shapes, in the network's order; compiled models fill them up with 1
    :param size: width and height of the network's input, in pixels
    :param classes: how many classes there are, where that is known
    :raises BadInput: it is none of those that can be decoded; one line with the shapes
    """
    read = _cut if len(shapes) > 1 else _whole
    head = read(shapes, size, classes)
    if head:
        return head
    told = ", ".join("×".join(map(str, shape)) for shape in shapes) or "none"
    other = read(shapes, size, 0)
    if other:
        raise BadInput(
            f"the outputs ({told}) are a detector's of {other.classes} classes, but {classes} are "
            "named; what has masks, poses or turned boxes besides can't be decoded"
        )
    raise BadInput(
        f"the outputs ({told}) can't be decoded: they are neither a whole YOLO detector's nor the "
        "box and class convolutions of its head"
    )


def _whole(shapes: Sequence[Shape], size: tuple[int, int], classes: int) -> Head | None:
    """A network that ends in boxes."""
    if not shapes or not shapes[0] or shapes[0][0] != 1:
        return None
    shape = shapes[0][1:]
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != 2:
        return None
    places = {_places(size, strides) for strides in _STRIDES}
    rows, columns = shape
    if columns in places and rows > 4 and classes in (0, rows - 4):
        return Head("decoded", rows - 4)
    if rows in {3 * count for count in places} and columns > 5 and classes in (0, columns - 5):
        return Head("decoded anchors", columns - 5)
    if columns == 6 and columns not in places:
        return Head("chosen", classes)
    return None


def _places(size: tuple[int, int], strides: Sequence[int]) -> int:
    return sum((size[0] // stride) * (size[1] // stride) for stride in strides)


def _cut(shapes: Sequence[Shape], size: tuple[int, int], classes: int) -> Head | None:
    """A network that was cut at the convolutions of its head."""
    strides: dict[int, list[int]] = {}
    for index, shape in enumerate(shapes):
        if len(shape) != 4 or shape[0] != 1 or 0 in shape[2:]:
            return None
        stride = size[0] // shape[3]
        if (stride * shape[3], stride * shape[2]) != size:
            return None
        strides.setdefault(stride, []).append(index)
    counts = {len(indices) for indices in strides.values()}
    found = sorted(strides.items())
    if counts == {2}:
        return _cut_distances([(stride, *indices) for stride, indices in found], shapes, classes)
    if counts == {1} and set(strides) == set(_ANCHORS):
        channels = {shapes[index][1] for (index,) in strides.values()}
        width, rest = divmod(channels.pop(), len(_ANCHORS[8]))
        if channels or rest or width < 6 or classes not in (0, width - 5):
            return None
        return Head("anchors", width - 5, tuple(Level(s, index) for s, (index,) in found))
    return None


def _cut_distances(
    pairs: list[tuple[int, int, int]], shapes: Sequence[Shape], classes: int
) -> Head | None:
    """Tell box from class outputs, the same way round at all strides."""
    found = []
    for boxes_first in (True, False):
        levels = [Level(s, *(pair if boxes_first else pair[::-1])) for s, *pair in pairs]
        box = {shapes[level.boxes][1] for level in levels}
        score = {shapes[level.scores][1] for level in levels}
        if len(box) == len(score) == 1 and min(box) % 4 == 0 and classes in (0, *score):
            found.append((box.pop(), score.pop(), tuple(levels)))
    # With the number of classes unknown, or as many as box channels: with a distribution, then
    # without one, then what comes first.
    usual = [each for bins in (_BINS, 1) for each in found if each[0] == 4 * bins]
    if not usual and not classes:
        return None
    for _, count, levels in (*usual, *found):
        return Head("distances", count, levels)
    return None


def _joined(levels) -> Candidates:
    boxes, scores = zip(*levels, strict=True)
    return Candidates(np.concatenate(boxes), np.concatenate(scores))


def _distances(level: Level, outputs: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and scores of one stride, place by place along the rows."""
    raw = outputs[level.boxes][0].astype(np.float32)
    _, height, width = raw.shape
    # [side,bin,place]; with one bin there is no distribution, the number is the distance.
    raw = raw.reshape(4, -1, height * width)
    bins = raw.shape[1]
    if bins > 1:
        weights = np.exp(raw - raw.max(axis=1, keepdims=True))
        mean = np.arange(bins, dtype=np.float32) @ weights / weights.sum(axis=1)
    else:
        mean = raw[:, 0]
    left, top, right, bottom = mean
    y, x = np.indices((height, width), dtype=np.float32).reshape(2, -1) + 0.5
    boxes = np.stack([x - left, y - top, x + right, y + bottom], axis=1) * level.stride
    logits = outputs[level.scores][0].astype(np.float32)
    return boxes.astype(np.float32), _sigmoid(logits.reshape(len(logits), -1).T)


def _anchors(level: Level, outputs: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and scores of one stride of YOLOv5, anchor by anchor, place by place along the rows."""
    anchors = np.array(_ANCHORS[level.stride], np.float32)
    raw = outputs[level.boxes][0].astype(np.float32)
    _, height, width = raw.shape
    # [anchor,number,place]
    numbers = _sigmoid(raw.reshape(len(anchors), -1, height * width))
    grid = np.indices((height, width), dtype=np.float32)[::-1].reshape(2, -1)
    centres = (numbers[:, :2] * 2 - 0.5 + grid) * level.stride
    sizes = (numbers[:, 2:4] * 2) ** 2 * anchors[:, :, None]
    boxes = np.concatenate([centres, sizes], axis=1).transpose(0, 2, 1).reshape(-1, 4)
    scores = (numbers[:, 4:5] * numbers[:, 5:]).transpose(0, 2, 1)
    return _corners(boxes), scores.reshape(-1, scores.shape[-1])


def _sigmoid(values: np.ndarray) -> np.ndarray:
    # One that can't overflow.
    return (0.5 * (1 + np.tanh(0.5 * values))).astype(np.float32)


def _corners(boxes: np.ndarray) -> np.ndarray:
    """Centre and size to left, top, right, bottom; float32."""
    centres, halves = boxes[:, :2], boxes[:, 2:] / 2
    return np.concatenate([centres - halves, centres + halves], axis=1).astype(np.float32)


def suppress(
    candidates: Candidates,
    confidence: float = CONFIDENCE,
    overlap: float = OVERLAP,
    most: int = MOST,
    several: bool = False,
) -> Detections:
    """Keep the boxes that are sure enough and no repetition of a surer one of the same class.

    :param confidence: a score has to be greater than that
    :param overlap: intersection over union of two boxes has to be greater than that for the less
        sure one to go
    :param most: so many boxes are kept at most
    :param several: a place may have several classes, each with a box, as for measuring mean average
        precision; otherwise it has its surest one
    """
    if several and not candidates.chosen:
        places, classes = np.nonzero(candidates.scores > confidence)
    else:
        classes = candidates.scores.argmax(axis=1)
        places = np.flatnonzero(candidates.scores.max(axis=1, initial=0) > confidence)
        classes = classes[places]
    scores = candidates.scores[places, classes]
    # Stable, so that equal scores stay in the network's order.
    order = np.argsort(-scores, kind="stable")[:_MOST_CANDIDATES]
    found = Detections(candidates.boxes[places[order]], scores[order], classes[order])
    kept = np.arange(len(order)) if candidates.chosen else _greedy(found, overlap, most)
    return Detections(*(part[kept[:most]] for part in found))


def _greedy(found: Detections, overlap: float, most: int) -> np.ndarray:
    """Indices of the boxes that stay; ``found`` is in the order of scores."""
    left, kept = np.arange(len(found.scores)), []
    while len(left) and len(kept) < most:
        best, left = left[0], left[1:]
        kept.append(best)
        shared = overlaps(found.boxes[best : best + 1], found.boxes[left])[0]
        left = left[(shared <= overlap) | (found.classes[left] != found.classes[best])]
    return np.array(kept, dtype=np.int64)


def overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of every box with every other.

    :param first: float [N,4]
    :param second: float [M,4]
    :returns: float [N,M] from 0 to 1; 0 for boxes without area
    """
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


class Agreement(NamedTuple):
    """How one set of detections is like a reference.

    ``same`` objects are in both, ``missing`` only in the reference, ``new`` only in the other.
    ``overlap`` is the lowest intersection over union of the same ones and ``score`` the largest
    difference of their scores; None if there are none.
    """

    same: int
    missing: int
    new: int
    overlap: float | None
    score: float | None


def matches(reference: Detections, other: Detections, least: float = SAME) -> np.ndarray:
    """Match detections of one picture: same class, most overlap first, each once.

    :param least: overlap from which two boxes are the same object
    :returns: int64 [N,2], the places of the same objects in both
    """
    shared = overlaps(reference.boxes, other.boxes)
    shared[reference.classes[:, None] != other.classes[None]] = 0
    pairs: list[tuple[int, int]] = []
    while shared.size and shared.max() >= least:
        one, two = divmod(int(shared.argmax()), shared.shape[1])
        pairs.append((one, two))
        shared[one], shared[:, two] = 0, 0
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def agreement(reference: Detections, other: Detections, least: float = SAME) -> Agreement:
    """Tell how detections of one picture are alike, matched as ``matches`` does."""
    both = matches(reference, other, least)
    shared = overlaps(reference.boxes, other.boxes)[both[:, 0], both[:, 1]]
    scores = np.abs(reference.scores[both[:, 0]] - other.scores[both[:, 1]])
    return Agreement(
        len(both),
        len(reference.scores) - len(both),
        len(other.scores) - len(both),
        float(shared.min()) if len(both) else None,
        float(scores.max()) if len(both) else None,
    )
