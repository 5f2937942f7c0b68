"""What docs/scale.md says of a fleet: the simulation, and that the document shows what it gives."""

from __future__ import annotations

import json
import re
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "training"))
import simulate_scale as scale

COSTS = json.loads(scale.COSTS.read_text())
FREE = COSTS | {
    "runner": {"seconds": 0}, "asking": {"seconds": 0}, "launch": {"seconds": 0},
    "hashing": {"megabytes": 10**12},
}  # fmt: skip
ENDLESS = {"files": 10.0**12, "cache": 10.0**12, "cores": 10**6}
HEAVY = [stage for stage in scale.graph(8) if stage.cost not in scale.LIGHT]


def seconds(workers: int, hits: int | None = None, costs: dict = COSTS, **site: float) -> float:
    place = scale.Site(workers, hits=hits, **site)
    return scale.simulate(scale.graph(8), place, costs).seconds


def test_one_worker_does_all_the_work_and_nothing_else() -> None:
    work = sum(COSTS["stages"][stage.cost]["seconds"] for stage in HEAVY)
    # Before the first heavy stage there is a check, after the last one a contract, perhaps.
    assert seconds(1, costs=FREE, **ENDLESS) == pytest.approx(work, abs=1.5)


def test_a_thousand_workers_wait_for_the_longest_chain() -> None:
    chain = scale.critical_path(scale.graph(1), COSTS)
    assert chain == pytest.approx(0.7 + 1.3 + 6.5 + 126 + 60 + 60.4)
    assert seconds(1000, costs=FREE, **ENDLESS) == pytest.approx(chain)
    assert seconds(1000) > chain


def test_more_workers_or_hits_take_no_longer_and_slow_links_do() -> None:
    times = [seconds(workers) for workers in (1, 2, 4, 8, 64)]
    assert times == sorted(times, reverse=True)
    hits = [seconds(2, percent) for percent in (0, 50, 100)]
    assert hits == sorted(hits, reverse=True)
    assert seconds(2) < hits[0] < 1.02 * seconds(2)
    assert seconds(64, files=20.0) > seconds(64)
    # All of it goes over one line: no faster than that.
    kept = sum(COSTS["stages"][stage.cost]["keeps"] for stage in scale.graph(8))
    assert seconds(64, 100, cache=1.0) > kept


def test_there_is_no_chance_in_it() -> None:
    assert seconds(5, 50) == seconds(5, 50)
    assert [scale.hit(model, 50) for model in range(4)] == [False, True, False, True]
    assert sum(scale.hit(model, 90) for model in range(1000)) == 900


@pytest.mark.full
def test_the_document_shows_what_is_simulated() -> None:
    found = scale.figures(1000, COSTS)
    document = (ROOT / "docs/scale.md").read_text()
    assert scale.table(found["rows"]) in document
    assert scale.table(found["slower"]) in document
    assert f"{found['stages']:,} stages,\n{found['sent']:,} of which" in document
    assert f"{found['work'] / 3600:.0f} hours of work" in document
    assert re.search(rf"takes {found['critical path']:.0f} s\b", document)
