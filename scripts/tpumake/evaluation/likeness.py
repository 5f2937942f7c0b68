"""How far two networks are apart in what they find in the same pictures.

Objects are matched as ``detections.matches`` does it: of one class, overlapping by half at least.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tpumake.detections import Detections, matches, overlaps

__all__ = ["Likeness", "alike", "alike_classes", "harm", "harm_of_class", "sure"]


class Likeness(NamedTuple):
    """What another network makes of what the reference found.

    ``same`` objects are in both, ``missing`` only in the reference, ``new`` only in the other;
    ``share`` is that of the reference's which are found again, None if it found nothing.
    ``box_shift`` is how far the sides of the same boxes are apart, in pixels of the picture, on
    average, ``most_shift`` the farthest; ``score_shift`` what their scores gained on average,
    ``score_apart`` how far they are apart. None where nothing is the same.
    """

    same: int
    missing: int
    new: int
    share: float | None
    box_shift: float | None
    most_shift: float | None
    score_shift: float | None
    score_apart: float | None


def sure(found: Detections, confidence: float) -> Detections:
    """Those above a score."""
    return Detections(*(part[found.scores > confidence] for part in found))


def alike(
    reference: Sequence[Detections], other: Sequence[Detections], confidence: float
) -> Likeness:
    """Compare what two networks found in the same pictures, above a score."""
    same = missing = new = 0
    shifts, gains = [np.zeros((0, 4))], [np.zeros(0)]
    for one, two in zip(reference, other, strict=True):
        one, two = sure(one, confidence), sure(two, confidence)
        pairs = matches(one, two)
        same += len(pairs)
        missing += len(one.scores) - len(pairs)
        new += len(two.scores) - len(pairs)
        shifts.append(np.abs(one.boxes[pairs[:, 0]] - two.boxes[pairs[:, 1]]))
        gains.append(two.scores[pairs[:, 1]] - one.scores[pairs[:, 0]])
    return _likeness(same, missing, new, np.concatenate(shifts), np.concatenate(gains))


def _likeness(same: int, missing: int, new: int, shifts: np.ndarray, gains: np.ndarray) -> Likeness:
    figures = (shifts.mean(), shifts.max(), gains.mean(), np.abs(gains).mean()) if same else ()
    return Likeness(
        same,
        missing,
        new,
        same / (same + missing) if same + missing else None,
        *(map(float, figures) if same else (None,) * 4),
    )


def alike_classes(reference: Sequence[Detections], other: Sequence[Detections]) -> Likeness:
    """The same of classifiers: an object is a picture, the same where its surest class is."""
    gains = [
        float(two.scores[0] - one.scores[0])
        for one, two in zip(reference, other, strict=True)
        if one.classes[0] == two.classes[0]
    ]
    missing = len(reference) - len(gains)
    like = _likeness(len(gains), missing, missing, np.zeros((1, 4)), np.array(gains))
    return like._replace(box_shift=None, most_shift=None)


def harm(reference: Detections, other: Detections, confidence: float) -> float:
    """How much a picture suffered.

    Objects that went or came count one each; of those that are in both, how far their scores are
    apart, and by how much of their area together their boxes don't overlap.
    """
    one, two = sure(reference, confidence), sure(other, confidence)
    pairs = matches(one, two)
    apart = np.abs(one.scores[pairs[:, 0]] - two.scores[pairs[:, 1]]).sum()
    shared = overlaps(one.boxes[pairs[:, 0]], two.boxes[pairs[:, 1]])
    beside = len(pairs) - np.trace(shared)
    return len(one.scores) + len(two.scores) - 2 * len(pairs) + float(apart) + float(beside)


def harm_of_class(reference: Detections, other: Detections) -> float:
    """Do the same of a classifier: one for another surest class, else how far scores are apart."""
    if reference.classes[0] != other.classes[0]:
        return 1.0
    return abs(float(reference.scores[0] - other.scores[0]))
