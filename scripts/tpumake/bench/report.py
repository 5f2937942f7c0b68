"""From seconds to what people and programs read: a document, a table, and what is wrong with them.

The document is described by schemas/bench.schema.json, and everything else is made of it.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from tpumake.bench.measure import paired_ratios, summarize
from tpumake.bench.rows import Row

__all__ = [
    "accept",
    "describe_machine",
    "describe_row",
    "duration",
    "left_out",
    "missed",
    "number",
    "regressions",
    "table",
]

# A ratio may be this much lower than the accepted one.
TOLERATED = 0.2


def describe_row(row: Row, samples: Mapping[str, Sequence[float]]) -> dict:
    """One row of the document.

    :param samples: seconds by contender, in the order of rounds
    """
    return {
        "name": row.name,
        "title": row.title,
        "times": [
            {
                "tool": name,
                **asdict(summarize(samples[name])),
                "at_most": row.at_most.get(name),
                "samples": [round(seconds, 6) for seconds in samples[name]],
            }
            for name in row.contenders
        ],
        "ratios": [
            {
                "slow": ratio.slow,
                "fast": ratio.fast,
                **asdict(summarize(paired_ratios(samples[ratio.slow], samples[ratio.fast]))),
                "at_least": ratio.at_least,
            }
            for ratio in row.ratios
        ],
        "left_out": dict(row.left_out),
    }


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
    """The document as a table in Markdown, which is readable as it is."""
    lines = [("", "", "median", "quartiles", "ratio, quartiles", "must be")]
    for row in document["rows"]:
        title = row["title"]
        for time in row["times"]:
            ratios = [ratio for ratio in row["ratios"] if ratio["slow"] == time["tool"]]
            spread = f"{duration(time['low'])} … {duration(time['high'])}"
            drawn = (", ".join(map(_spread, ratios)), ", ".join(_limits(time, ratios)))
            lines.append((title, time["tool"], duration(time["median"]), spread, *drawn))
            title = ""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))
    padded = [map(str.ljust, line, widths) for line in lines]
    return [f"| {' | '.join(cells)} |" for cells in padded]


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
    return f"{ratio['slow']} / {ratio['fast']}"


def number(value: float) -> str:
    """A number that was measured: two digits, or all those before the point."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def exact(value: float) -> str:
    """A number that was set."""
    return f"{value:g}"


def duration(seconds: float, write: Callable[[float], str] = number) -> str:
    """Seconds, with the unit that suits them."""
    return f"{write(1000 * seconds)} ms" if seconds < 1 else f"{write(seconds)} s"
