"""How long a fleet's build takes on how many workers: docs/scale.md's figures, from measured costs.

Every stage goes through what it goes through in a real build, in the same order: it waits for what
it depends on and for one of make's jobs; the runner makes its key on the machine that make runs on
and asks the cache; a heavy stage waits for a worker, reads, computes and writes there; the runner
reads the results once more, for their digests, and sends them to the cache. The same numbers give
the same figures: there is no chance in it.
"""

from __future__ import annotations

import heapq
import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import click

HERE = Path(__file__).resolve().parent
COSTS = HERE / "stage_costs.json"
WORKERS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
# Variants by chip; what has to be searched for mix is searched for each chip.
CHIPS = {"cv181x": ("int8", "mix", "bf16", "again"), "bm1684x": ("int8", "mix", "bf16", "f16")}
LIGHT = ("check", "dataset", "contract")


class Stage(NamedTuple):
    """A stage of a model: its cost's name, and the places of those that it depends on."""

    cost: str
    model: int
    after: tuple[int, ...]


class Site(NamedTuple):
    """Where it is built; links in megabytes a second, ``cores`` those of make's machine."""

    workers: int
    cores: int = 8
    files: float = 1000.0
    cache: float = 125.0
    # Of a hundred models so many are in the cache; None without one.
    hits: int | None = None


@dataclass
class Pool:
    """So many of a kind: whoever comes first is served first."""

    free: int
    waiting: deque = field(default_factory=deque)
    busy: float = 0.0


class Outcome(NamedTuple):
    """Seconds to the end, and for how much of them each thing was busy (0 to 1)."""

    seconds: float
    busy: dict[str, float]


def graph(models: int) -> list[Stage]:
    """All stages, a model after the other, as make comes to them."""
    stages: list[Stage] = []

    def add(cost: str, model: int, *after: int) -> int:
        stages.append(Stage(cost, model, after))
        return len(stages) - 1

    for model in range(models):
        check = add("check", model)
        pictures = add("dataset", model)
        onnx = add("downgrade", model, check)
        network = add("transform", model, onnx, pictures)
        table = add("calibrate", model, network)
        for chip, variants in CHIPS.items():
            for variant in variants:
                needed = [table] if variant in ("int8", "mix", "again") else [network]
                if variant == "mix":
                    needed.append(add("qtable", model, table))
                built = add(chip, model, *needed)
                if chip == "cv181x":
                    add("contract", model, built)
    return stages


def hit(model: int, percent: int) -> bool:
    """Whether a model is one of those in the cache, which are spread evenly."""
    return (model + 1) * percent // 100 > model * percent // 100


def steps(stage: Stage, site: Site, costs: dict) -> Iterator[tuple[str, float]]:
    """What a stage goes through: which pool, and for how many seconds.

    ``+worker`` takes a worker for all that follows, up to ``-worker``.
    """
    cost = costs["stages"][stage.cost]
    heavy = stage.cost not in LIGHT
    runner = costs["runner"]["seconds"]
    if site.hits is not None:
        yield "core", costs["asking"]["seconds"]
        if hit(stage.model, site.hits):
            yield "cache", cost["keeps"] / site.cache
            yield "core", runner + cost["keeps"] / costs["hashing"]["megabytes"]
            yield "files", cost["keeps"] / site.files
            return
    yield "core", runner if heavy else runner + cost["seconds"]
    if heavy:
        yield "+worker", 0.0
        yield "launch", costs["launch"]["seconds"]
        yield "files", cost["reads"] / site.files
        yield "compute", cost["seconds"]
        yield "files", cost["writes"] / site.files
        yield "-worker", 0.0
    yield "files", cost["writes"] / site.files
    yield "core", cost["writes"] / costs["hashing"]["megabytes"]
    if site.hits is not None:
        yield "cache", cost["keeps"] / site.cache


def simulate(stages: list[Stage], site: Site, costs: dict) -> Outcome:
    """Build all of them; make has two jobs a worker, and some for what is light."""
    pools = {"job": Pool(2 * site.workers + site.cores), "worker": Pool(site.workers),
             "core": Pool(site.cores), "files": Pool(1), "cache": Pool(1)}  # fmt: skip
    open_ends = [len(stage.after) for stage in stages]
    followers: list[list[int]] = [[] for _ in stages]
    for number, stage in enumerate(stages):
        for before in stage.after:
            followers[before].append(number)
    now, count = 0.0, 0
    events: list[tuple[float, int, Callable[[], None]]] = []
    # What is ready waits in make's order, not in that in which it became so.
    ready: list[int] = []

    def later(seconds: float, what: Callable[[], None]) -> None:
        nonlocal count
        count += 1
        heapq.heappush(events, (now + seconds, count, what))

    def take(name: str, then: Callable[[], None]) -> None:
        pool = pools[name]
        if pool.free:
            pool.free -= 1
            then()
        else:
            pool.waiting.append(then)

    def give(name: str) -> None:
        pool = pools[name]
        if pool.waiting:
            pool.waiting.popleft()()
        else:
            pool.free += 1

    def start() -> None:
        while ready and pools["job"].free:
            pools["job"].free -= 1
            number = heapq.heappop(ready)
            go_on(number, steps(stages[number], site, costs), 0.0)

    def go_on(number: int, rest: Iterator[tuple[str, float]], since: float) -> None:
        for name, seconds in rest:
            if name == "+worker":
                take("worker", lambda: go_on(number, rest, now))
                return
            if name == "-worker":
                pools["worker"].busy += now - since
                give("worker")
            elif name in pools:
                if seconds:
                    take(
                        name,
                        lambda name=name, seconds=seconds: use(name, seconds, number, rest, since),
                    )
                    return
            else:
                later(seconds, lambda: go_on(number, rest, since))
                return
        pools["job"].free += 1
        for after in followers[number]:
            open_ends[after] -= 1
            if not open_ends[after]:
                heapq.heappush(ready, after)
        start()

    def use(
        name: str, seconds: float, number: int, rest: Iterator[tuple[str, float]], since: float
    ) -> None:
        pools[name].busy += seconds

        def done() -> None:
            give(name)
            go_on(number, rest, since)

        later(seconds, done)

    for number, ends in enumerate(open_ends):
        if not ends:
            heapq.heappush(ready, number)
    start()
    while events:
        now, _, what = heapq.heappop(events)
        what()
    assert not any(open_ends)
    sizes = {"worker": site.workers, "core": site.cores, "files": 1, "cache": 1}
    return Outcome(now, {name: pools[name].busy / size / now for name, size in sizes.items()})


def critical_path(stages: list[Stage], costs: dict) -> float:
    """Seconds of the longest chain of stages, with as many machines as one likes."""
    ends: list[float] = []
    for stage in stages:
        begins = max((ends[each] for each in stage.after), default=0.0)
        ends.append(begins + costs["stages"][stage.cost]["seconds"])
    return max(ends)


SCENARIOS = {"no cache": None, "0 %": 0, "50 %": 50, "90 %": 90}


def figures(models: int, costs: dict) -> dict:
    """All that docs/scale.md shows."""
    stages = graph(models)
    heavy = [stage for stage in stages if stage.cost not in LIGHT]
    work = sum(costs["stages"][stage.cost]["seconds"] for stage in stages)
    rows = []
    for name, hits in SCENARIOS.items():
        for workers in WORKERS:
            outcome = simulate(stages, Site(workers, hits=hits), costs)
            rows.append(_row(name, workers, outcome))
    slower = [
        _row(name, workers, simulate(stages, site, costs))
        for workers in WORKERS
        for name, site in {
            "files at 1 Gbit/s": Site(workers, files=125.0),
            "make on 2 cores": Site(workers, cores=2),
        }.items()
    ]
    return {
        "models": models, "stages": len(stages), "sent": len(heavy), "work": round(work),
        "critical path": round(critical_path(stages, costs), 1), "rows": rows, "slower": slower,
    }  # fmt: skip


def _row(name: str, workers: int, outcome: Outcome) -> dict:
    busy = {key: round(value, 3) for key, value in outcome.busy.items()}
    return {"cache": name, "workers": workers, "seconds": round(outcome.seconds), "busy": busy}


def table(rows: list[dict]) -> str:
    """A line a number of workers, a column a scenario, in Markdown."""
    names = list(dict.fromkeys(row["cache"] for row in rows))
    lines = [f"| workers | {' | '.join(names)} |", f"|{'---:|' * (len(names) + 1)}"]
    for workers in WORKERS:
        cells = {
            row["cache"]: duration(row["seconds"]) for row in rows if row["workers"] == workers
        }
        lines.append(f"| {workers} | {' | '.join(cells[name] for name in names)} |")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def picture(rows: list[dict]) -> str:
    """The table as a plot in SVG, both axes logarithmic; asking a cache in vain costs no line."""
    # Only here: the environment of reports has it.
    import vl_convert

    values = [
        {"cache": row["cache"], "workers": row["workers"], "hours": row["seconds"] / 3600}
        for row in rows
        if row["cache"] != "0 %"
    ]
    alone = next(value["hours"] for value in values if value["workers"] == 1)
    ideal = [{"workers": each, "hours": alone / each} for each in WORKERS]
    scale = {"type": "log", "nice": False}
    hours = [0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200]
    x = {"field": "workers", "type": "quantitative", "scale": scale | {"domain": [1, 500]},
         "axis": {"values": list(WORKERS), "title": "workers"}}  # fmt: skip
    y = {"field": "hours", "type": "quantitative", "scale": scale | {"domain": [0.2, 300]},
         "axis": {"values": hours, "title": "hours"}}  # fmt: skip
    place = {"x": x, "y": y}
    each = place | {"color": {"field": "cache", "type": "nominal", "legend": None}}
    named = [value for value in values if value["workers"] == 5]
    chart = {
        "width": 640, "height": 380, "background": "white",
        "config": {"font": "Liberation Sans", "axis": {"labelFontSize": 12, "titleFontSize": 12}},
        "layer": [
            {"data": {"values": ideal}, "encoding": place,
             "mark": {"type": "line", "strokeDash": [4, 4], "color": "#8c959f"}},
            {"data": {"values": values}, "encoding": each, "mark": {"type": "line", "point": True}},
            {"data": {"values": named}, "encoding": each | {"text": {"field": "cache"}},
             "mark": {"type": "text", "align": "left", "dx": 6, "dy": -10, "fontSize": 13}},
        ],
    }  # fmt: skip
    return vl_convert.vegalite_to_svg(chart, vl_version="6.1")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--models", default=1000, show_default=True, type=click.IntRange(1))
@click.option("--svg", type=click.Path(path_type=Path), help="Draw the picture there.")
@click.option("--json", "document", type=click.Path(path_type=Path), help="Write all of it there.")
def command(models: int, svg: Path | None, document: Path | None) -> None:
    """Print the tables of docs/scale.md."""
    found = figures(models, json.loads(COSTS.read_text()))
    print(f"{found['stages']} stages, {found['sent']} of them sent out; {found['work'] / 3600:.0f}"
          f" h of work, the longest chain {found['critical path']:.0f} s\n")  # fmt: skip
    print(table(found["rows"]))
    print()
    print(table(found["slower"]))
    if document:
        document.write_text(json.dumps(found, indent=1) + "\n")
    if svg:
        svg.write_text(picture(found["rows"]) + "\n")


if __name__ == "__main__":
    command()
