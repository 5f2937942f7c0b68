"""Fit a picture into a network's input, and lead boxes back into the picture.

As Ultralytics' networks are trained and run (``ultralytics/data/augment.py``, LetterBox, and
``ultralytics/utils/ops.py``, scale_boxes): scaled by one factor for both sides, each side rounded,
in the middle of a grey ground (114). Scaling is OpenCV's bilinear one (``cv2.resize`` with
INTER_LINEAR on 8 bits, ``modules/imgproc/src/resize.cpp``) in its whole numbers: it takes the four
nearest pixels and no more, whatever the factor, so another library's would show the network another
picture.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tpumake.network_input import NetworkInput

__all__ = ["GREY", "Fit", "fit", "fit_input", "letterbox", "resize"]

# What the ground around a picture is filled with.
GREY = 114
# OpenCV's weights are fractions of 2048.
_BITS = 11


class Fit(NamedTuple):
    """Where a picture of ``width`` by ``height`` pixels lies in an input of another size.

    It is scaled to ``new_width`` by ``new_height`` and lies ``left``, ``top`` pixels from the
    corner of an input of ``input_width`` by ``input_height``; these may be negative, and what
    stands over is cut off.
    """

    width: int
    height: int
    input_width: int
    input_height: int
    new_width: int
    new_height: int
    left: int
    top: int

    def back(self, boxes: np.ndarray, cut: bool = True) -> np.ndarray:
        """Lead boxes from the input into the picture.

        :param boxes: float [N,4], left, top, right, bottom in pixels of the input
        :param cut: cut off what lies outside of the picture
        :returns: float32 [N,4], the same in pixels of the picture
        """
        corners = boxes.reshape(-1, 2, 2) - (self.left, self.top)
        corners = corners / (self.new_width / self.width, self.new_height / self.height)
        if cut:
            corners = corners.clip(0, (self.width, self.height))
        return corners.reshape(-1, 4).astype(np.float32)


def fit(
    size: tuple[int, int], wanted: tuple[int, int], *, keep_aspect_ratio: bool = True,
    centred: bool = True, covering: bool = False,
) -> Fit:  # fmt: skip
    """Find where a picture goes.

    :param size: the picture's width and height
    :param wanted: the input's width and height
    :param keep_aspect_ratio: scale both sides alike, otherwise to the whole input
    :param centred: put it into the middle, otherwise into the upper left corner
    :param covering: fill the whole input and let stand over what does, as evenly as can be
    """
    if not keep_aspect_ratio:
        return Fit(*size, *wanted, *wanted, 0, 0)
    scale = (max if covering else min)(wanted[0] / size[0], wanted[1] / size[1])
    new = [max(round(side * scale), 1) for side in size]
    # Half of an odd rest: the smaller part comes first.
    left, top = (
        round((outer - inner) / 2 - 0.1) if centred or covering else 0
        for outer, inner in zip(wanted, new, strict=True)
    )
    return Fit(*size, *wanted, *new, left, top)


def fit_input(picture: np.ndarray, wanted: NetworkInput) -> Fit:
    """Find where a picture, uint8 [height,width,3], goes in a network's input."""
    height, width = picture.shape[:2]
    resized = wanted.resized or wanted.size
    found = fit(
        (width, height),
        resized,
        keep_aspect_ratio=wanted.keep_aspect_ratio,
        centred=wanted.centred,
        covering=wanted.covering,
    )
    if resized == wanted.size:
        return found
    middle = [(inner - outer) // 2 for inner, outer in zip(wanted.size, resized, strict=True)]
    return found._replace(
        input_width=wanted.width,
        input_height=wanted.height,
        left=found.left + middle[0],
        top=found.top + middle[1],
    )


def letterbox(picture: np.ndarray, fitted: Fit, ground: int = GREY) -> np.ndarray:
    """Make the input of a picture.

    :param picture: uint8 [height,width,channels]
    :param fitted: where it goes
    :param ground: what surrounds it, 0 to 255
    :returns: uint8 [input_height,input_width,channels]
    """
    made = np.full(
        (fitted.input_height, fitted.input_width, picture.shape[2]), ground, dtype=np.uint8
    )
    inside = resize(picture, (fitted.new_width, fitted.new_height))
    inside = inside[max(-fitted.top, 0) :, max(-fitted.left, 0) :]
    there = made[max(fitted.top, 0) :, max(fitted.left, 0) :]
    height, width = (min(pair) for pair in zip(there.shape[:2], inside.shape[:2], strict=True))
    there[:height, :width] = inside[:height, :width]
    return made


def resize(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale a picture as ``cv2.resize`` does by default, to the last bit.

    :param picture: uint8 [height,width,channels]
    :param size: the new width and height
    :returns: uint8 [size[1],size[0],channels]
    """
    height, width = picture.shape[:2]
    if (width, height) == size:
        return picture
    if (width, height) == (2 * size[0], 2 * size[1]):
        # There OpenCV takes the mean of four.
        parts = picture.reshape(size[1], 2, size[0], 2, -1).astype(np.uint16)
        return ((parts.sum(axis=(1, 3)) + 2) >> 2).astype(np.uint8)
    columns, across = _taps(width, size[0])
    rows, down = _taps(height, size[1])
    # Columns first, on the rows that are needed; both in steps of 1/2048.
    first, second = (
        (
            picture[row][:, columns[0]].astype(np.int32) * across[0][:, None]
            + picture[row][:, columns[1]].astype(np.int32) * across[1][:, None]
        )
        for row in rows
    )
    # Some bits go between the multiplications, so that OpenCV's fit into 16.
    mixed = sum(
        (weight[:, None, None] * (part >> 4)) >> 16
        for weight, part in zip(down, (first, second), strict=True)
    )
    return ((mixed + 2) >> 2).clip(0, 255).astype(np.uint8)


def _taps(old: int, new: int) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """For each new pixel along a side: the two old ones that it is made of, and their weights."""
    # In float32, as there: the last bit of a weight hangs on it.
    places = ((np.arange(new) + 0.5) * (old / new) - 0.5).astype(np.float32)
    low = np.floor(places).astype(np.int64)
    share = places - low
    weights = tuple(np.rint(part * (1 << _BITS)).astype(np.int32) for part in (1 - share, share))
    return (low.clip(0, old - 1), (low + 1).clip(0, old - 1)), weights
