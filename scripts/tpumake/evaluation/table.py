"""What an evaluation came to, in lines that people read."""

from __future__ import annotations

from collections.abc import Sequence

from tpumake.columns import in_columns

__all__ = ["gate_line", "lines"]

_FIGURES = {"map50": "mAP50", "top1": "top-1"}
_COLUMNS = {
    "detect": (("mAP50", "map50"), ("mAP50-95", "map50_95"), ("precision", "precision"),
               ("recall", "recall"), ("F1", "f1")),
    "classify": (("top-1", "top1"), ("top-5", "top5")),
}  # fmt: skip


def lines(told: dict) -> list[str]:
    """All of a document but its pictures."""
    rows = [_head(told), *(_row(told, run) for run in told["runs"])]
    return [
        _set(told),
        *in_columns(rows, words=1),
        *(_of_class(told, run) for run in told["runs"][-1:] if run["measures"] and _many(run)),
        *map(_apart, told["apart"]),
        *map(gate_line, told["gates"]),
    ]


def _many(run: dict) -> bool:
    return len(run["measures"].get("classes", ())) > 1


def _set(told: dict) -> str:
    chosen = told["set"]
    of = f" of {chosen['of']}" if chosen["of"] > chosen["pictures"] else ""
    objects = f", {chosen['objects']} objects" if chosen["objects"] else ""
    labelled = "" if chosen["labelled"] else ", without labels: agreement only"
    return f"{chosen['pictures']}{of} pictures of {chosen['source']}{objects}{labelled}"


def _head(told: dict) -> list[str]:
    names = [name for name, _ in _COLUMNS[told["task"]]] if told["set"]["labelled"] else []
    shifts = ["boxes shift"] if told["task"] == "detect" else []
    return ["", *names, "found again", "new", *shifts, "scores", "s a picture"]


def _row(told: dict, run: dict) -> list[str]:
    cells = [run["title"]]
    if told["set"]["labelled"]:
        figures = run["measures"] or {}
        cells += [_percent(figures.get(key)) for _, key in _COLUMNS[told["task"]]]
    like = run["agreement"]
    shown = ["", "", "", ""]
    if like:
        shown = [f"{like['same']} of {like['same'] + like['missing']}", str(like["new"]),
                 _pixels(like["box_shift"]), _points(like["score_shift"])]  # fmt: skip
    if told["task"] != "detect":
        del shown[2]
    return [*cells, *shown, f"{run['seconds_a_picture']:.2f}"]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _pixels(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} px"


def _points(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.2f}"


def _of_class(told: dict, run: dict) -> str:
    """The mAP50 of each class, of the last run."""
    each = [f"{one['name']} {_percent(one['map50'])}" for one in run["measures"]["classes"][:12]]
    more = len(run["measures"]["classes"]) - len(each)
    return f"{run['title']}: mAP50 of {', '.join(each)}" + (f", and {more} more" if more else "")


def _apart(apart: dict) -> str:
    total = apart["same"] + apart["missing"]
    parts = [f"{apart['same']} of {total} found again, {apart['new']} new"]
    if apart["box_shift"] is not None:
        parts.append(f"boxes {apart['box_shift']:.2f} px apart")
    if apart["score_apart"] is not None:
        parts.append(f"scores {100 * apart['score_apart']:.2f} points")
    if apart["drop"] == 0:
        parts.append("the same figure")
    elif apart["drop"]:
        parts.append(f"the emulator's figure is {100 * abs(apart['drop']):.2f} points "
                     f"{'lower' if apart['drop'] > 0 else 'higher'}")  # fmt: skip
    return f"{apart['variant']}: the emulator against the lowered mlir: {', '.join(parts)}"


def gate_line(gate: dict, layers: Sequence[str] = ()) -> str:
    """What the gate says of one variant, and which layers suffer most."""
    figure = _FIGURES[gate["figure"]]
    said = (
        f"{figure} drops by {gate['drop']:.4f}, at most {gate['max_drop']:g} is allowed (MAX_DROP)"
    )
    if gate["passed"] is None:
        return f"{gate['variant']}: {said}; not decided, the model itself was not run (QUICK=1)"
    suffering = f"; what suffers most: {', '.join(layers)}" if layers else ""
    return f"{gate['variant']}: {said}{suffering}"
