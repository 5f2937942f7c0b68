"""What a calibration adds up over samples, merged as if one process had seen them in their order.

Numbers are of the types that run_calibration's own are, so that they round as those do, and ties
are decided as it decides them: between 0.0 and -0.0, of which the table shows the sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["ALL_ZERO", "Range", "capped", "largest", "merged_maxima", "merged_minima", "range_of"]

# A tensor whose values are all nearer to zero than this counts as one that has this range.
ALL_ZERO = 1e-5


class Range(NamedTuple):
    """What the table says of a tensor beside its threshold, and what its histogram ends at."""

    least: float
    most: float
    largest: float


def merged_minima(samples: Sequence[np.ndarray]) -> np.ndarray:
    """The least of each tensor.

    :param samples: an array of the tensors' minima for each sample, in the samples' order
    """
    total = samples[0]
    for each in samples[1:]:
        # Of two that compare as equal the later one counts.
        total = np.where(total < each, total, each)
    return total


def merged_maxima(samples: Sequence[np.ndarray]) -> np.ndarray:
    """The most of each tensor; see ``merged_minima``."""
    total = samples[0]
    for each in samples[1:]:
        total = np.where(total > each, total, each)
    return total


def largest(minima: np.ndarray, maxima: np.ndarray) -> np.ndarray:
    """The largest absolute value of each tensor."""
    below, above = np.abs(minima), np.abs(maxima)
    return np.where(above > below, above, below)


def range_of(least: np.float32, most: np.float32, size: np.float32) -> Range:
    """A tensor's range, which is never empty."""
    if size <= ALL_ZERO:
        return Range(-ALL_ZERO if least < 0 else 0, ALL_ZERO, ALL_ZERO)
    return Range(least, most, size)


def capped(threshold: float, size: float) -> float:
    """A threshold, which has no business beyond the largest value."""
    return size if threshold > size else threshold
