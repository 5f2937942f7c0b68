"""Two builds side by side, of the facts of their reports: as a page, and in lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tpumake.columns import in_columns
from tpumake.page import plots
from tpumake.page.page import COLUMNS, both, fill, own_runs, printable

__all__ = ["comparison", "lines"]

_MB = 1 << 20
_APART = 12


class Figure(NamedTuple):
    """One figure of both; ``how`` is good or bad where B is better or worse, else empty."""

    name: str
    a: str
    b: str
    difference: str
    how: str = ""


def comparison(one: dict, two: dict) -> str:
    """The page of two reports' facts."""
    one, two = printable(one), printable(two)
    pairs = _pairs(one, two)
    a, b = one["target"], two["target"]
    return fill(
        "comparison.html.jinja",
        title=f"{a} beside {b}",
        a=a,
        b=b,
        chip=one["chip"],
        figures=_figures(one, two),
        accuracy=_comparable(one, two),
        shared=len(pairs),
        layer_plot=both(plots.two, pairs, (a, b)) if pairs else None,
        apart=_apart(pairs),
        made=_made(one, two),
    )


def lines(one: dict, two: dict) -> list[str]:
    """The figures for a terminal."""
    rows = [("", one["target"], two["target"], ""), *(row[:4] for row in _figures(one, two))]
    return in_columns(rows, words=1)


def _figures(one: dict, two: dict) -> list[Figure]:
    def row(name: str, of: Callable[[dict], float | None], form: str, better: int = 0) -> Figure:
        a, b = of(one), of(two)
        texts = [format(value, form) if value is not None else "–" for value in (a, b)]
        apart = b - a if a is not None and b is not None else None
        # What is the same as far as it is shown is the same.
        told = "" if apart is None or texts[0] == texts[1] else format(apart, f"+{form}")
        how = ("good" if apart * better > 0 else "bad") if told and better else ""
        return Figure(name, *texts, told, how)

    rows = [
        row("file, MB", lambda each: each["info"]["size"] / 1e6, ".2f", -1),
        row("memory, MB", lambda each: each["info"]["memory"]["total"] / _MB, ".2f", -1),
        row("weights, MB", lambda each: each["info"]["memory"]["weights"] / _MB, ".2f"),
        row("activations, MB", lambda each: each["info"]["memory"]["runtime"] / _MB, ".2f"),
        row("lowest cosine of an output", _lowest, ".6f", 1),
        row("tensors not in INT8", _floats, "d"),
    ]
    if _comparable(one, two):
        rows += [
            row(f"{title}, %", lambda each, name=name: _measured(each, name), ".1f", 1)
            for name, title in COLUMNS[one["accuracy"]["task"]].items()
        ]
    return rows


def _lowest(facts: dict) -> float | None:
    layers = facts["layers"]["layers"] if facts["layers"] else []
    return min((one["cosine"] for one in layers if one["name"] in facts["outputs"]), default=None)


def _floats(facts: dict) -> int | None:
    if not facts["layers"]:
        return None
    return sum(not one["precision"].startswith("INT") for one in facts["layers"]["layers"])


def _comparable(one: dict, two: dict) -> bool:
    """Whether both were evaluated, on the same pictures."""
    both_ = one["accuracy"], two["accuracy"]
    if not all(both_) or not all(map(own_runs, (one, two))):
        return False
    return both_[0]["set"] == both_[1]["set"] and both_[0]["task"] == both_[1]["task"]


def _measured(facts: dict, name: str) -> float | None:
    own = own_runs(facts)
    value = own[-1]["measures"][name] if own else None
    return None if value is None else 100 * value


def _pairs(one: dict, two: dict) -> list[tuple[dict, dict]]:
    """The tensors that both have, in the network's order."""
    if not one["layers"] or not two["layers"]:
        return []
    known = {each["name"]: each for each in two["layers"]["layers"]}
    return [(each, known[each["name"]]) for each in one["layers"]["layers"]
            if each["name"] in known]  # fmt: skip


def _apart(pairs: list[tuple[dict, dict]]) -> list[dict]:
    order = sorted(pairs, key=lambda pair: -abs(pair[0]["cosine"] - pair[1]["cosine"]))
    return [
        {"name": a["name"], "a": a["cosine"], "b": b["cosine"],
         "held": a["precision"] if a["precision"] == b["precision"] else
         f"{a['precision']}, {b['precision']}"}
        for a, b in order[:_APART] if a["cosine"] != b["cosine"]
    ]  # fmt: skip


def _made(one: dict, two: dict) -> list[dict]:
    """Stage by stage, what one was told or given that the other wasn't."""
    first, second = ({each["name"]: each for each in facts["stages"]} for facts in (one, two))
    rows = []
    for name in dict.fromkeys([*first, *second]):
        a, b = first.get(name), second.get(name)
        if not a or not b:
            told = [("only in", one["target"] if a else two["target"])]
        elif a["key"] == b["key"]:
            told = []
        else:
            told = _differences(a, b, one["target"], two["target"])
        key = (a or b)["key"][:12]
        rows.append({"name": name, "same": not told, "key": key, "lines": told})
    return rows


def _differences(a: dict, b: dict, first: str, second: str) -> list[tuple[str, str]]:
    told = []
    for target, mine, others in ((first, a, b), (second, b, a)):
        words = [word for word in mine["parameters"] if word not in others["parameters"]]
        if words:
            told.append((f"parameters of {target}", " ".join(words)))
    for what, of in (("input", _inputs), ("code", lambda stage: stage["code"])):
        mine, others = of(a), of(b)
        names = [name for name in dict.fromkeys([*mine, *others])
                 if mine.get(name) != others.get(name)]  # fmt: skip
        if names:
            told.append((f"other {what}", ", ".join(names)))
    return told or [("key", "made otherwise")]


def _inputs(stage: dict) -> dict[str, str]:
    return {each["name"]: each["sha256"] for each in stage["inputs"]}
