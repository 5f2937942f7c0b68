"""From seconds to what people and programs read: a document, a table, and what is wrong with them.

The document is described by schemas/bench.schema.json, and everything else is made of it.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from tpumake.bench.measure import Cost, paired_ratios, summarize
from tpumake.bench.rows import Ratio, Row

__all__ = [
    "accept",
    "counted",
    "describe_machine",
    "describe_row",
    "duration",
    "left_out",
    "missed",
    "number",
    "regressions",
    "summary",
    "table",
]

# A ratio may be this much lower than the accepted one.
TOLERATED = 0.2


def describe_row(row: Row, samples: Mapping[str, Sequence[float | Cost]]) -> dict:
    """One row of the document.

    :param samples: seconds by contender, in the order of rounds; or all that something took
    """
    seconds = {name: [_seconds(each) for each in samples[name]] for name in row.contenders}
    rounds = min(map(len, seconds.values()), default=0)
    # Interrupted before the first round was done: there is nothing to tell of.
    contenders = row.contenders if rounds else {}
    return {
        "name": row.name,
        "title": row.title,
        "rounds": rounds,
        "times": [
            {
                "tool": name,
                **asdict(summarize(seconds[name])),
                "at_most": row.at_most.get(name),
                "samples": [round(each, 6) for each in seconds[name]],
                **(_describe_costs(samples[name]) if row.heavy else {}),
            }
            for name in contenders
        ],
        "ratios": [
            {
                "slow": ratio.slow,
                "fast": ratio.fast,
                "of": ratio.of,
                **asdict(summarize(_paired(ratio, samples))),
                "at_least": ratio.at_least,
            }
            for ratio in row.ratios
            if contenders
        ],
        "left_out": dict(row.left_out),
    }


def _seconds(sample: float | Cost) -> float:
    return sample.seconds if isinstance(sample, Cost) else sample


# What ratios and tables call what Cost has.
_QUANTITIES = {"time": "seconds", "processor": "cpu", "memory": "memory", "largest": "largest"}


def _paired(ratio: Ratio, samples: Mapping[str, Sequence[float | Cost]]) -> list[float]:
    values = [
        [
            getattr(each, _QUANTITIES[ratio.of]) if isinstance(each, Cost) else each
            for each in samples[name]
        ]
        for name in (ratio.slow, ratio.fast)
    ]
    return paired_ratios(*values)


def _describe_costs(costs: Sequence[Cost]) -> dict:
    """What something took beside wall time."""
    described: dict = {}
    for name in ("processor", "memory", "largest"):
        values = [getattr(cost, _QUANTITIES[name]) for cost in costs]
        described[name] = {
            **asdict(summarize(values)),
            "samples": [round(value, 6) for value in values],
        }
    steps = {name: [cost.steps[name] for cost in costs if name in cost.steps] for name in
             dict.fromkeys(name for cost in costs for name in cost.steps)}  # fmt: skip
    described["loads"] = [round(cost.load, 2) for cost in costs]
    described["steps"] = {
        name: round(summarize(seconds).median, 3) for name, seconds in steps.items()
    }
    return described


def describe_machine() -> dict:
    """What the seconds were measured on."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
    }


def missed(document: dict) -> list[str]:
    """What is slower than it has to be, a line each."""
    lines = []
    for row in document["rows"]:
        for time in row["times"]:
            if time["at_most"] is not None and time["median"] > time["at_most"]:
                limit = duration(time["at_most"], exact)
                lines.append(
                    f"{row['title']}: {time['tool']} took {duration(time['median'])}, "
                    f"and may take {limit}"
                )
        for ratio in row["ratios"]:
            if ratio["at_least"] is not None and ratio["median"] < ratio["at_least"]:
                lines.append(
                    f"{row['title']}: {_name(ratio)} is {number(ratio['median'])}, "
                    f"and has to be {exact(ratio['at_least'])}"
                )
    return lines


def regressions(document: dict, accepted: dict) -> list[str]:
    """Which ratios are more than a fifth lower than the accepted ones, a line each.

    What was measured on one side only is no regression.
    """
    rows = accepted["targets"].get(document["target"], {})
    lines = []
    for row in document["rows"]:
        for ratio in row["ratios"]:
            before = rows.get(row["name"], {}).get(_name(ratio))
            if before is not None and ratio["median"] < (1 - TOLERATED) * before:
                drop = 100 * (1 - ratio["median"] / before)
                lines.append(
                    f"{row['title']}: {_name(ratio)} was {number(before)} and is "
                    f"{number(ratio['median'])}, {drop:.0f} % less than accepted"
                )
    return lines


def accept(document: dict, accepted: dict) -> dict:
    """The accepted ratios, with those of the document in place of the target's earlier ones."""
    targets = {name: dict(rows) for name, rows in accepted["targets"].items()}
    rows = targets.setdefault(document["target"], {})
    for row in document["rows"]:
        ratios = {_name(ratio): round(ratio["median"], 2) for ratio in row["ratios"]}
        if ratios:
            rows[row["name"]] = rows.get(row["name"], {}) | ratios
    return accepted | {"targets": dict(sorted(targets.items()))}


def table(document: dict) -> list[str]:
    """The document as tables in Markdown, which are readable as they are."""
    quick = [row for row in document["rows"] if not _heavy(row)]
    heavy = [row for row in document["rows"] if _heavy(row)]
    tables = [_quick_table(quick)] if quick else []
    if heavy:
        tables += [_heavy_table(heavy), [line for row in heavy for line in _steps(row)]]
    return [line for each in tables if each for line in [*each, ""]][:-1]


def _heavy(row: dict) -> bool:
    return any("processor" in time for time in row["times"])


def _quick_table(rows: Sequence[dict]) -> list[str]:
    lines = [("", "", "median", "quartiles", "ratio, quartiles", "must be")]
    for row in rows:
        title = row["title"]
        for time in row["times"]:
            ratios = [ratio for ratio in row["ratios"] if ratio["slow"] == time["tool"]]
            spread = f"{duration(time['low'])} … {duration(time['high'])}"
            drawn = (", ".join(map(_spread, ratios)), ", ".join(_limits(time, ratios)))
            lines.append((title, time["tool"], duration(time["median"]), spread, *drawn))
            title = ""
    return _drawn(lines)


def _heavy_table(rows: Sequence[dict]) -> list[str]:
    lines = [("", "", "time", "quartiles", "ratio, quartiles", "processor", "ratio, quartiles",
              "memory", "ratio", "largest process", "load")]  # fmt: skip
    for row in rows:
        title = f"{row['title']}, {counted(row['rounds'])}"
        for time in row["times"]:
            ratios = {
                each["of"]: _spread(each) for each in row["ratios"] if each["slow"] == time["tool"]
            }
            # Sizes do not vary as times do.
            memory = ratios.get("memory", "").partition(",")[0]
            loads = sorted({f"{load:.1f}" for load in time["loads"]}, key=float)
            lines.append((
                title, time["tool"],
                duration(time["median"]), f"{duration(time['low'])} … {duration(time['high'])}",
                ratios.get("time", ""),
                duration(time["processor"]["median"]), ratios.get("processor", ""),
                size(time["memory"]["median"]), memory, size(time["largest"]["median"]),
                " … ".join(dict.fromkeys([loads[0], loads[-1]])),
            ))  # fmt: skip
            title = ""
    return _drawn(lines)


def _drawn(lines: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    ruled = [lines[0], tuple("-" * width for width in widths), *lines[1:]]
    padded = [map(str.ljust, line, widths) for line in ruled]
    return [f"| {' | '.join(cells)} |" for cells in padded]


def _steps(row: dict) -> list[str]:
    """The seconds of the parts, a line for each who has several."""
    return [
        f"- {time['tool']}: "
        + ", ".join(f"{name} {duration(seconds)}" for name, seconds in time["steps"].items())
        for time in row["times"]
        if len(time["steps"]) > 1
    ]


def summary(document: dict) -> list[str]:
    """What the tables were measured on, in lines of Markdown."""
    machine = document["machine"]
    versions = ", ".join(f"{name} {said}" for name, said in document["versions"].items())
    given = f", with {' '.join(document['settings'])}" if document["settings"] else ""
    return [
        f"{document['target']}{given}; {machine['cores']} cores ({machine['cpu']}, "
        f"{machine['memory_gib']:g} GiB, {machine['system']}); {versions}. Other programs kept "
        f"{machine['others']:.1f} cores busy meanwhile."
        + (" It is not complete." if document["incomplete"] else "")
    ]


def left_out(document: dict) -> list[str]:
    """What could not be measured, a line each."""
    return [
        f"not measured: {row['title']} with {tool}: {reason}"
        for row in document["rows"]
        for tool, reason in row["left_out"].items()
    ]


def _spread(ratio: dict) -> str:
    quartiles = f"{number(ratio['low'])} … {number(ratio['high'])}"
    return f"{number(ratio['median'])} × {ratio['fast']}, {quartiles}"


def _limits(time: dict, ratios: Sequence[dict]) -> list[str]:
    limits = [] if time["at_most"] is None else [f"≤ {duration(time['at_most'], exact)}"]
    bounds = [(ratio["at_least"], ratio["fast"]) for ratio in ratios]
    return limits + [f"≥ {exact(least)} × {fast}" for least, fast in bounds if least is not None]


def _name(ratio: dict) -> str:
    of = "" if ratio["of"] == "time" else f", {ratio['of']}"
    return f"{ratio['slow']} / {ratio['fast']}{of}"


def number(value: float) -> str:
    """A number that was measured: two digits, or all those before the point."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def exact(value: float) -> str:
    """A number that was set."""
    return f"{value:g}"


def duration(seconds: float, write: Callable[[float], str] = number) -> str:
    """Seconds, with the unit that suits them."""
    return f"{write(1000 * seconds)} ms" if seconds < 1 else f"{write(seconds)} s"


def counted(rounds: int) -> str:
    """A number of rounds, in words."""
    return f"{rounds} round" if rounds == 1 else f"{rounds} rounds"


def size(count: float) -> str:
    """Bytes, with the unit that suits them."""
    return f"{count / 1e6:.0f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"
