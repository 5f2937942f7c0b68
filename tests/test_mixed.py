"""Which layers stay in float: the ranking, the search, the document."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

import jsonschema
import pytest
from conftest import ROOT

from tpumake.evaluation.pictures import EvalSet, Picture
from tpumake.mixed.document import Searched, document, lines, summary
from tpumake.mixed.search import GROUPS, PARTS, WORTH, Layer, Outcome, Tried, ranking, search
from tpumake.mixed.trials import table

SCHEMA = jsonschema.Draft202012Validator(
    json.loads((ROOT / "schemas/qtable_goal.schema.json").read_text())
)


class Network:
    """Layers whose harms add up, of which some spoil everything as long as they are INT8."""

    def __init__(self, harms: Sequence[float], costs: Sequence[int] = (), unfelt: float = 0.0):
        self.harm, self.unfelt = list(harms), unfelt
        costs = costs or [1] * len(harms)
        self.layers = [Layer(f"l{n}", "Conv", cost) for n, cost in enumerate(costs)]
        self.asked: list[tuple[int, int]] = []
        self.tried: list[tuple[int, ...]] = []

    def harms(self, groups: Sequence[Sequence[int]]) -> list[float]:
        self.asked += [(group[0], group[-1] + 1) for group in groups]
        return [sum(self.harm[place] for place in group) for group in groups]

    def drop(self, places: Sequence[int]) -> float:
        self.tried.append(tuple(places))
        left = sum(harm for place, harm in enumerate(self.harm) if place not in places)
        return max(left - self.unfelt, 0.0)

    def search(self, goal: float) -> Outcome:
        return search(self.layers, self.harms, self.drop, goal)


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 63, 64, 65, 230])
def test_layers_come_as_they_do_harm(count: int) -> None:
    network = Network([(7 * place) % count for place in range(count)])
    order = list(ranking(count, network.harms))
    assert sorted(order) == list(range(count))
    assert [network.harm[place] for place in order] == sorted(network.harm, reverse=True)
    assert len(set(network.asked)) == len(network.asked)


def test_harmless_layers_are_not_looked_at_one_by_one() -> None:
    network = Network([0.0] * 100 + [5.0] + [0.0] * 155)
    assert next(ranking(256, network.harms)) == 100
    # Of the worst group of 16 the worst four, and of these the worst one.
    assert len(network.asked) == GROUPS + 2 * PARTS
    assert [each for each in network.asked if 96 <= each[0] < 104][1:3] == [(96, 100), (100, 104)]


def test_where_int8_is_good_enough_nothing_is_measured() -> None:
    network = Network([0.0625] * 16)
    assert network.search(1.0) == Outcome([Tried((), 1.0)], Tried((), 1.0))
    assert network.asked == []


def test_no_more_layers_than_are_needed() -> None:
    network = Network([0.0, 9.0, 0.1, 3.0, 0.2, 4.0, 0.1, 2.0, 0.05, 0.0])
    found = network.search(0.5)
    assert found.best.layers == (1, 3, 5, 7)
    assert found.best.drop == pytest.approx(0.45)
    # Doubled, then halved, and never twice.
    assert len(set(network.tried)) == len(network.tried)
    assert {len(each) for each in network.tried} >= {0, 1, 2, 4, 3}


def test_the_least_count_is_that_of_trying_all() -> None:
    harms = [0.31, 0.02, 0.11, 0.27, 0.05, 0.19, 0.01]
    for goal in (0.0, 0.05, 0.1, 0.3, 0.6, 0.9):
        least = next(
            count for count in range(len(harms) + 1)
            if any(sum(harms) - sum(chosen) <= goal for chosen in
                   itertools.combinations(harms, count))
        )  # fmt: skip
        assert len(Network(harms).search(goal).best.layers) == least


def test_what_costs_much_and_is_not_needed_is_given_back() -> None:
    """Alone the first layer does most harm, but beside the others' noise nobody sees it."""
    network = Network([3.0, 2.0, 1.0], costs=[1000, 40, 40])
    network.drop = lambda places: float(not {1, 2} <= {*places})
    assert network.search(0.5).best.layers == (1, 2)
    assert network.search(0.5).tried[-1].layers != (0, 1, 2)


def test_cheap_layers_are_not_tried_without() -> None:
    costs = [1000, int(WORTH * 1000) - 10, 1]
    network = Network([3.0, 2.0, 1.0], costs)
    network.search(0.0)
    assert (0, 2) not in network.tried
    assert (1, 2) in network.tried


def test_a_goal_that_not_even_float_reaches() -> None:
    network = Network([0.5] * 5)
    network.drop = lambda places: 0.7 - 0.1 * len(places)
    found = network.search(0.1)
    assert found.best is None
    assert max(found.tried, key=lambda tried: len(tried.layers)).layers == (0, 1, 2, 3, 4)


def test_a_table_has_a_line_for_each_float_layer() -> None:
    text = table(["/a/b", "c"], "BF16")
    assert [line for line in text.splitlines() if not line.startswith("#")] == [
        "/a/b BF16", "c BF16",
    ]  # fmt: skip


def told(goal: float) -> dict:
    network = Network([0.0, 0.09, 0.02, 0.0], costs=[1, 2_000_000, 500_000, 1])
    found = network.search(goal)
    measures = {tried.layers: {"map50": 0.9 - tried.drop, "classes": []} for tried in found.tried}
    harms = {(1, 2): 0.25, (0, 1): 0.0}
    picture = Picture("a.jpg", "0" * 64, 4, 4, [], None)
    chosen = EvalSet("shapes", "yolo", 0, 9, 0, 4, ["x"], [picture])
    searched = Searched("m_mix", "cv181x", "BF16", goal, "detect", {"map50": 0.9})
    return document(searched, chosen, network.layers, found, harms, measures)


def test_the_document_and_its_curve() -> None:
    of = told(0.03)
    SCHEMA.validate(of)
    assert [(each["float_layers"], each["cost"], each["chosen"]) for each in of["points"]] == [
        (0, 0, False), (1, 2_000_000, True),
    ]  # fmt: skip
    assert [each["name"] for each in of["float"]] == ["l1"]
    assert [(each["first"], each["harm"]) for each in of["harms"]] == [("l0", 0.0), ("l1", 0.25)]
    head, none, one = lines(of)
    assert none.split() == ["0", "0.00", "79.00", "11.00", "█" * 24, "too", "much"]
    assert one.split()[:4] == ["1", "2.00", "88.00", "2.00"]
    assert one.endswith("← chosen")
    assert head.index("drop") + 4 == none.index("11.00") + 5
    assert summary(of) == ("1 of 4 layers in BF16, 2.00 MB more: mAP50 drops by 2.00 points, "
                           "the goal is 3 points at most")  # fmt: skip


def test_what_a_search_says_of_its_ends() -> None:
    assert summary(told(0.2)).startswith("INT8 is good enough: mAP50 drops by 11.00 points, ")
    assert not told(0.2)["float"]
    lost = told(-0.1)
    assert summary(lost) == ("mAP50 drops by 0.00 points even with 4 of 4 layers in BF16; "
                             "the goal is -10 points at most")  # fmt: skip
    assert not lost["float"]
