"""Search the smallest set of float layers with which a network is good enough.

Two questions are asked of the network, both by trying: what is it worth with these layers in float
and the others in INT8 (a metric's drop), and how far is it off with these layers in INT8 and the
others in float (their harm)? Layers are taken into float as they do most harm, until the drop is
small enough; then those are given back that cost much and turn out not to be needed.

Rank by measured harm, then walk the ranking against the real metric: that is how NNCF's
accuracy-aware quantisation does it (docs.openvino.ai, "Quantizing with Accuracy Control"). It
measures a layer's harm by taking it alone back to float. Where one layer spoils everything, such
as a Concat of boxes and scores at the very end, nothing before it then seems to matter; so here a
layer is measured by being quantised alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

__all__ = ["Layer", "Outcome", "Tried", "ranking", "search"]

# Layers are measured together first, in so many groups, and a group is divided into so many parts
# when it is the worst one: what does no harm together needn't be looked at one by one.
GROUPS, PARTS = 16, 4
# Layers that are tried without, and how much of the cost one must have for that.
GIVEN_BACK, WORTH = 8, 0.05

# The harm of each of several groups of layers, given as their places in the network.
Harms = Callable[[Sequence[Sequence[int]]], Sequence[float]]
# The metric's drop with these layers in float.
Drop = Callable[[Sequence[int]], float]


class Layer(NamedTuple):
    """A layer of the float network, and how many bytes more it takes in float than in INT8."""

    name: str
    type: str
    cost: int


class Tried(NamedTuple):
    """A set of float layers, as places in the network in rising order, and the drop with it."""

    layers: tuple[int, ...]
    drop: float


class Outcome(NamedTuple):
    """All that was tried, in that order, and the best; None where not even float is good enough."""

    tried: list[Tried]
    best: Tried | None


def ranking(count: int, harms: Harms) -> Iterator[int]:
    """Layers, the most harmful first, measured no further than they are asked for.

    :param count: how many there are
    """
    heap: list[tuple[float, int, int]] = []

    def measure(start: int, stop: int, parts: int) -> None:
        ends = [start + (stop - start) * part // parts for part in range(parts + 1)]
        groups = [range(*pair) for pair in pairwise(ends) if pair[0] < pair[1]]
        for group, harm in zip(groups, harms(groups), strict=True):
            # What does equal harm comes in the network's order.
            heapq.heappush(heap, (-harm, group.start, group.stop))

    measure(0, count, GROUPS)
    while heap:
        _, start, stop = heapq.heappop(heap)
        if stop - start == 1:
            yield start
        else:
            measure(start, stop, PARTS)


def search(layers: Sequence[Layer], harms: Harms, drop: Drop, goal: float) -> Outcome:
    """Find a cheap set of float layers with which the drop is ``goal`` at most."""
    tried: dict[tuple[int, ...], Tried] = {}
    ranked: list[int] = []
    order = ranking(len(layers), harms)

    def attempt(chosen: Sequence[int]) -> Tried:
        key = tuple(sorted(chosen))
        if key not in tried:
            tried[key] = Tried(key, drop(key))
        return tried[key]

    def first(count: int) -> Tried:
        while len(ranked) < count:
            ranked.append(next(order))
        return attempt(ranked[:count])

    good = _least(first, len(layers), goal)
    best = _without(good, layers, attempt, goal) if good else None
    return Outcome(list(tried.values()), best)


def _least(first: Callable[[int], Tried], most: int, goal: float) -> Tried | None:
    """The shortest beginning of the ranking that is good enough, by doubling and halving."""
    bad, count = -1, 0
    while (found := first(count)).drop > goal:
        if count == most:
            return None
        bad, count = count, min(most, max(1, 2 * count))
    good = found
    while count - bad > 1:
        between = (bad + count) // 2
        found = first(between)
        if found.drop > goal:
            bad = between
        else:
            good, count = found, between
    return good


def _without(
    good: Tried, layers: Sequence[Layer], attempt: Callable[[Sequence[int]], Tried], goal: float
) -> Tried:
    """Give back to INT8 what costs much and isn't needed, the costliest first."""
    total = sum(layers[index].cost for index in good.layers)
    costly = sorted(good.layers, key=lambda index: -layers[index].cost)[:GIVEN_BACK]
    for index in costly:
        if layers[index].cost < WORTH * total:
            break
        found = attempt([each for each in good.layers if each != index])
        if found.drop <= goal:
            good = found
    return good
