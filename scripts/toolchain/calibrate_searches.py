"""Which thresholds tuning tries, and which of them it takes, once it is known what they do.

Of some thresholds between the one that was found and the largest value that is taken whose results
are nearest to what float gives. Each operation has a search of its own for each of its inputs that
had none before; none hangs on another one, so they can be made in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["STEPS", "Search", "best", "searches", "tuned"]

STEPS = 20
# A tensor whose threshold may grow by no more than this is let be.
LEAST = 0.01


class Search(NamedTuple):
    """One search: the operation, by its number, that is run for a tensor's threshold."""

    op: int
    tensor: str
    thresholds: tuple[float, ...]


def searches(
    ops: list[tuple[str, str, tuple[str, ...]]],
    initial: dict[str, float],
    largest: dict[str, float],
) -> list[Search]:
    """All searches that run_calibration makes.

    :param ops: name, type and inputs of each operation, in order
    :param initial: the thresholds to begin with, as the table has them
    :param largest: the largest absolute values
    """
    seen: set[str] = set()
    found = []
    for number, (_, kind, inputs) in enumerate(ops):
        if kind == "top.Input":
            continue
        new = [name for name in dict.fromkeys(inputs) if name not in seen]
        seen.update(new)
        # Where all have had their search already, the first has another one.
        for name in new or inputs[:1]:
            least = initial[name]
            step = (largest[name] - least) / STEPS
            if step > 0 and abs(largest[name] - least) > LEAST:
                steps = tuple(least + step * each for each in range(STEPS + 1))
                found.append(Search(number, name, steps))
    return found


def best(distances: np.ndarray) -> int:
    """Which threshold of a search is best: the first one, unless another is really nearer.

    :param distances: [thresholds, samples] of float32
    """
    means = []
    for row in distances:
        total = 0
        for each in row:
            total += each
        means.append(total / len(row))
    chosen = 0
    for number, each in enumerate(means):
        if each < means[chosen]:
            chosen = number
    return chosen


def tuned(
    initial: dict[str, float], made: Sequence[Search], distances: Sequence[np.ndarray]
) -> dict[str, float]:
    """The thresholds after all searches: of several for one tensor the largest."""
    thresholds = dict(initial)
    for search, found in zip(made, distances, strict=True):
        chosen = search.thresholds[best(found)]
        if chosen > thresholds[search.tensor]:
            thresholds[search.tensor] = chosen
    return thresholds
