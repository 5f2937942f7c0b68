"""What a network found in a set of pictures, as a small file.

Of a detector the boxes that are left of the candidates above a score of 0.001, at most 300 a
picture: all that mean average precision looks at, and some kilobytes where raw outputs have
megabytes. Of a classifier the five surest classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tpumake.detections import MOST, Detections, recognise, suppress
from tpumake.errors import BadInput
from tpumake.letterbox import Fit
from tpumake.npz import NpzFile
from tpumake.raw_outputs import read_outputs

__all__ = [
    "LEAST", "OVERLAP", "TOP", "Found", "Seen", "find", "read_found", "read_raw", "read_seen",
    "write",
]  # fmt: skip

# Ultralytics' settings for validation, which are those of COCO's: least score, most overlap of two
# boxes of one class. MOST, how many boxes a picture has, is that of predictions.
LEAST = 0.001
OVERLAP = 0.7
# How many classes of a classifier are kept.
TOP = 5

_KINDS = ("detect", "classify")
_PARTS = ("kind", "counts", "seconds", "boxes", "scores", "classes")
# Of a hundred thousand pictures it is as much (bytes); a file of some kilobytes may claim it.
_MOST = 1 << 30
_MOST_CLASSES = 100_000


class Seen(NamedTuple):
    """What was found in one picture: boxes in its pixels, not cut off at its borders.

    Of a classifier ``boxes`` are zeros. ``outputs``: how many classes the network tells apart.
    """

    kind: str
    outputs: int
    found: Detections
    seconds: float


class Found(NamedTuple):
    """What was found in all pictures of a set, in its order; seconds that one took on average."""

    kind: str
    outputs: int
    each: list[Detections]
    seconds: float


def find(outputs: Sequence[np.ndarray], fitted: Fit, classes: int, seconds: float) -> Seen:
    """Read raw outputs of one picture.

    :param outputs: float32, in the network's order
    :param classes: how many classes there are, where that is known
    :raises BadInput: they are neither a detector's nor a classifier's
    """
    if any(not np.isfinite(values).all() for values in outputs):
        raise BadInput("an output holds NaN or infinity")
    scores = _probabilities(outputs)
    if scores is not None:
        if classes not in (0, len(scores)):
            raise BadInput(f"the network tells {len(scores)} classes apart, {classes} are named")
        best = np.argsort(-scores, kind="stable")[:TOP]
        nowhere = np.zeros((len(best), 4), np.float32)
        return Seen("classify", len(scores), Detections(nowhere, scores[best], best), seconds)
    size = fitted.input_width, fitted.input_height
    head = recognise([values.shape for values in outputs], size, classes)
    left = suppress(head.decode(outputs), LEAST, OVERLAP, MOST, several=True)
    left = left._replace(boxes=fitted.back(left.boxes, cut=False))
    return Seen("detect", head.classes, left, seconds)


def _probabilities(outputs: Sequence[np.ndarray]) -> np.ndarray | None:
    """A classifier's one output, [1,classes] with or without more ones; None of another network."""
    if len(outputs) != 1 or outputs[0].ndim < 2 or outputs[0].size != outputs[0].shape[1]:
        return None
    return outputs[0].reshape(-1).astype(np.float32) if outputs[0].size > 1 else None


def read_raw(path: Path, fitted: Fit, classes: int, seconds: float) -> Seen:
    """Do what ``find`` does with an .npz of raw outputs."""
    try:
        return find(list(read_outputs(path).values()), fitted, classes, seconds)
    except BadInput as error:
        raise BadInput(str(error).removeprefix(f"{path}: ")) from None


def write(path: Path, seen: Sequence[Seen]) -> None:
    """Write what was found in pictures, in their order, uncompressed: all of it is small."""
    counts = [len(each.found.scores) for each in seen]
    with path.open("wb") as file:
        np.savez(
            file,
            kind=np.array([_KINDS.index(seen[0].kind), seen[0].outputs], np.int64),
            counts=np.array(counts, np.int64),
            seconds=np.array([each.seconds for each in seen], np.float64),
            boxes=np.concatenate([each.found.boxes for each in seen]).astype(np.float32),
            scores=np.concatenate([each.found.scores for each in seen]).astype(np.float32),
            classes=np.concatenate([each.found.classes for each in seen]).astype(np.int64),
        )


def read_seen(path: Path) -> list[Seen]:
    """Read what ``write`` wrote.

    :raises BadInput: there is no such file, or it is damaged
    """
    with NpzFile(path, most=_MOST) as archive:
        if not {*_PARTS} <= {*archive.names}:
            raise BadInput(f"{path}: holds {', '.join(archive.names) or 'nothing'}, no detections")
        parts = {name: _numbers(archive, name) for name in _PARTS}
    try:
        return _pictures(**parts)
    except (ValueError, IndexError, OverflowError, TypeError) as error:
        raise BadInput(f"{path}: is damaged ({error}); remove it and run make again") from None


def _numbers(archive: NpzFile, name: str) -> np.ndarray:
    with archive.open(name) as tensor:
        if tensor.dtype.kind not in "biuf":
            raise BadInput(f"{archive.path}: {name} holds {tensor.dtype}, no plain numbers")
        return tensor.read(tensor.size).reshape(tensor.shape)


def _pictures(kind, counts, seconds, boxes, scores, classes) -> list[Seen]:
    """Share out what was found among the pictures. ValueError says what doesn't fit."""
    number, outputs = map(int, kind)
    if counts.ndim != 1 or counts.dtype.kind not in "iu" or counts.min(initial=0) < 0:
        raise ValueError("counts that are none")
    total = int(counts.sum())
    shapes = boxes.shape, scores.shape, classes.shape, seconds.shape
    if shapes != ((total, 4), (total,), (total,), counts.shape):
        raise ValueError(f"shapes {shapes}")
    if not all(np.isfinite(part).all() for part in (boxes, scores, seconds)):
        raise ValueError("NaN or infinity")
    if not 0 < outputs <= _MOST_CLASSES or not 0 <= number < len(_KINDS):
        raise ValueError(f"kind {number}, {outputs} classes")
    if classes.dtype.kind not in "iu" or not ((classes >= 0) & (classes < outputs)).all():
        raise ValueError("classes that the network hasn't")
    ends = np.cumsum(counts)[:-1]
    rows = zip(*(np.split(part, ends) for part in (boxes, scores, classes)), seconds, strict=True)
    return [Seen(_KINDS[number], outputs, Detections(*found), float(took)) for *found, took in rows]


def read_found(path: Path, pictures: int) -> Found:
    """Read what was found in a set of so many pictures."""
    seen = read_seen(path)
    if len(seen) != pictures or not seen:
        raise BadInput(f"{path}: is of {len(seen)} pictures, the set has {pictures}")
    seconds = float(np.mean([each.seconds for each in seen]))
    return Found(seen[0].kind, seen[0].outputs, [each.found for each in seen], seconds)
