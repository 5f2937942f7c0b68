"""The report's plots: Vega-Lite's words for them, drawn as SVG when the page is made.

So the page needs no library to show them. Colours are the style sheet's variables, which SVG in a
page knows, so a plot follows light, dark and print as the text does. What a point tells is its
`aria-label`, which `page.js` shows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import vl_convert

__all__ = ["WIDTHS", "goal", "histogram", "layers", "memory", "two"]

# Pixels of a plot on a screen, and on a phone: each is drawn for both.
WIDTHS = {"wide": 860, "narrow": 300}
_VERSION = "6.1"
_PRECISIONS = ("INT8", "BF16", "F16", "F32", "INT16", "INT4", "INT32")
_COLOURS = ("int", "float", "half", "single", "other", "other", "other")
_SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "cross", "cross")
_MB = 1 << 20
_INK, _FAINT, _LINE = "var(--ink)", "var(--faint)", "var(--line)"
_CONFIG = {
    "background": None,
    # vl-convert has it with it: widths of letters are the same everywhere. The page's own font is
    # put in its place.
    "font": "Liberation Sans",
    "view": {"stroke": None},
    "axis": {
        "labelColor": _FAINT, "titleColor": _FAINT, "titleFontWeight": "normal",
        "titleFontSize": 12, "labelFontSize": 11, "gridColor": _LINE, "domainColor": _LINE,
        "tickColor": _LINE,
        "titlePadding": 8,
    },
    "axisX": {"grid": False},
    "legend": {"labelColor": _INK, "labelFontSize": 12, "titleFontSize": 12, "orient": "top",
               "symbolSize": 70, "symbolOpacity": 1},
}  # fmt: skip


def layers(document: dict, outputs: Sequence[str], width: int) -> str:
    """Signal to noise of each tensor from input to output, and under it the noise that it adds.

    :param document: schemas/layers.schema.json
    :param outputs: the tensors that the network ends in, which get a ring
    """
    rows = [
        {
            "tensor": number,
            # What has no noise at all is as good as the best.
            "sqnr": layer["sqnr_db"],
            "added": max(100 * layer["added_noise"], 0),
            "precision": layer["precision"],
            "text": _told(number, layer, layer["name"] in outputs),
            "output": layer["name"] in outputs,
        }
        for number, layer in enumerate(document["layers"], 1)
    ]
    best = max((row["sqnr"] for row in rows if row["sqnr"] is not None), default=0)
    rows = [row | {"sqnr": best if row["sqnr"] is None else row["sqnr"]} for row in rows]
    used = [each for each in _PRECISIONS if any(row["precision"] == each for row in rows)]
    used += sorted({row["precision"] for row in rows} - set(used))
    x = {"field": "tensor", "type": "quantitative", "scale": {"domain": [0, len(rows) + 1]}}
    y = {"field": "sqnr", "type": "quantitative", "title": "signal to noise, dB"}
    precision = {
        "color": {"field": "precision", "type": "nominal", "title": None,
                  "scale": {"domain": used, "range": [_colour(each) for each in used]}},
        "shape": {"field": "precision", "type": "nominal", "title": None,
                  "scale": {"domain": used, "range": [_shape(each) for each in used]}},
    }  # fmt: skip
    unlabelled = x | {"axis": {"labels": False, "ticks": False, "title": None}}
    above = {
        "width": width,
        "height": 230,
        "encoding": {"x": unlabelled, "y": y},
        "layer": [
            {"mark": {"type": "line", "strokeWidth": 1, "color": _FAINT, "opacity": 0.6,
                      "aria": False}},
            {"mark": {"type": "point", "filled": True, "size": 32 if width > 400 else 16,
                      "opacity": 1},
             "encoding": precision | {"description": {"field": "text"}}},
            {"mark": {"type": "point", "size": 130, "strokeWidth": 1.5, "color": _INK,
                      "aria": False},
             "transform": [{"filter": "datum.output"}]},
        ],
    }  # fmt: skip
    below = {
        "width": width,
        "height": 90,
        "mark": {"type": "bar", "width": max(width / len(rows) - 1, 1), "color": "var(--bad)",
                 "aria": False},
        "encoding": {
            "x": x | {"title": "tensor, from the network's input to its outputs"},
            "y": {"field": "added", "type": "quantitative", "title": "adds noise, %",
                  "axis": {"tickCount": 3}},
        },
    }  # fmt: skip
    return _svg({"data": {"values": rows}, "vconcat": [above, below], "spacing": 12}, "layers")


def two(pairs: Sequence[tuple[dict, dict]], names: tuple[str, str], width: int) -> str:
    """Signal to noise of the tensors that two builds have, one above or below the other."""
    best = max((layer["sqnr_db"] or 0 for pair in pairs for layer in pair), default=0)
    rows = [
        {"tensor": number, "of": name, "sqnr": best if layer["sqnr_db"] is None else
         layer["sqnr_db"], "text": f"{name} · {_told(number, layer, False)}"}
        for number, pair in enumerate(pairs, 1) for name, layer in zip(names, pair, strict=True)
    ]  # fmt: skip
    which = {"field": "of", "type": "nominal", "title": None}
    scale = {"domain": list(names)}
    drawn = {
        "data": {"values": rows},
        "width": width,
        "height": 260,
        "encoding": {
            "x": {"field": "tensor", "type": "quantitative",
                  "scale": {"domain": [0, len(pairs) + 1]},
                  "title": "tensor, from the network's input to its outputs"},
            "y": {"field": "sqnr", "type": "quantitative", "title": "signal to noise, dB"},
            "color": which | {"scale": scale | {"range": ["var(--int)", "var(--float)"]}},
        },
        "layer": [
            {"mark": {"type": "line", "strokeWidth": 1, "opacity": 0.5, "aria": False}},
            {"mark": {"type": "point", "filled": True, "size": 32 if width > 400 else 16,
                      "opacity": 1},
             "encoding": {"shape": which | {"scale": scale | {"range": ["circle", "square"]}},
                          "description": {"field": "text"}}},
        ],
    }  # fmt: skip
    return _svg(drawn, "layers")


def _told(number: int, layer: dict, output: bool) -> str:
    """What a point tells; the name first."""
    parts = [
        layer["name"],
        f"{'output, ' if output else ''}tensor {number}, {layer['type']}, {layer['precision']}",
        f"cosine {layer['cosine']:.6f}",
        "no noise" if layer["sqnr_db"] is None else f"SQNR {layer['sqnr_db']:.1f} dB",
        f"adds {100 * layer['added_noise']:.2f} % noise",
        f"values from {layer['min']:.4g} to {layer['max']:.4g}",
    ]
    if layer["threshold"] is not None:
        parts.append(f"threshold {layer['threshold']:.4g}")
    if layer["clipped"] is not None:
        parts.append(f"{100 * layer['clipped']:.3f} % clipped")
    return " · ".join(parts)


def _colour(precision: str) -> str:
    known = dict(zip(_PRECISIONS, _COLOURS, strict=True))
    return f"var(--{known.get(precision, 'other')})"


def _shape(precision: str) -> str:
    return dict(zip(_PRECISIONS, _SHAPES, strict=True)).get(precision, "cross")


def histogram(layer: dict, counts: Sequence[int]) -> str:
    """A tensor's float values, with the threshold beyond which they are clipped."""
    step = (layer["max"] - layer["min"]) / len(counts)
    rows = [{"value": layer["min"] + number * step, "count": count}
            for number, count in enumerate([*counts, counts[-1]])]  # fmt: skip
    limit = layer["threshold"]
    ends = [layer["min"], layer["max"]] + ([] if limit is None else _limits(layer))
    x = {"type": "quantitative", "title": None, "axis": {"tickCount": 5},
         "scale": {"domain": [min(ends), max(ends)], "nice": False}}  # fmt: skip
    # Few values lie far out, and it is these that the threshold cuts off.
    y = {"field": "count", "type": "quantitative", "title": None, "axis": None,
         "scale": {"type": "symlog"}}  # fmt: skip
    drawn: list[dict] = [
        {"data": {"values": rows}, "encoding": {"x": x | {"field": "value"}, "y": y},
         "mark": {"type": "area", "interpolate": "step-after", "color": "var(--int)",
                  "opacity": 0.55, "aria": False}}
    ]  # fmt: skip
    if limit is not None:
        drawn.append({
            "data": {"values": [{"at": at} for at in _limits(layer)]},
            "encoding": {"x": x | {"field": "at"}},
            "mark": {"type": "rule", "color": "var(--bad)", "strokeWidth": 2,
                     "strokeDash": [5, 3], "aria": False},
        })  # fmt: skip
    return _svg({"width": 270, "height": 90, "layer": drawn}, "histogram")


def _limits(layer: dict) -> list[float]:
    """The thresholds that are worth a line: the lower one where values come near it."""
    limit = layer["threshold"]
    return [-limit, limit] if layer["min"] < -limit / 2 else [limit]


def goal(document: dict, width: int) -> str:
    """How much accuracy each number of float layers loses, and how much may be lost.

    :param document: schemas/qtable_goal.schema.json
    """
    rows = [
        {"floats": point["float_layers"], "drop": 100 * point["drop"],
         "is": "chosen" if point["chosen"] else "tried",
         "text": f"{point['float_layers']} float layers · {point['cost'] / 1e6:.2f} MB more · "
                 f"drops by {100 * point['drop']:.2f} points"}
        for point in document["points"]
    ]  # fmt: skip
    x = {"field": "floats", "type": "quantitative", "title": "float layers",
         "scale": {"type": "symlog"},
         "axis": {"values": sorted({row["floats"] for row in rows}), "format": "d"}}  # fmt: skip
    y = {"type": "quantitative", "title": "drop, points"}
    which = {"field": "is", "type": "nominal", "title": None}
    scale = {"domain": ["tried", "chosen"]}
    colour = which | {"scale": scale | {"range": ["var(--int)", "var(--float)"]}}
    shape = which | {"scale": scale | {"range": ["circle", "square"]}}
    limit = {
        "data": {"values": [{"at": 100 * document["goal"],
                             "text": f"goal · {100 * document['goal']:g} points"}]},
        "mark": {"type": "rule", "strokeWidth": 2, "strokeDash": [5, 3], "color": "var(--bad)"},
        "encoding": {"y": y | {"field": "at"}, "description": {"field": "text"}},
    }  # fmt: skip
    points = {
        "data": {"values": rows},
        "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
        "encoding": {"x": x, "y": y | {"field": "drop"}, "color": colour, "shape": shape,
                     "description": {"field": "text"}},
    }  # fmt: skip
    return _svg({"width": width, "height": 200, "layer": [limit, points]}, "goal")


def memory(parts: Sequence[tuple[str, str, int]], limits: Sequence[tuple[str, int]], width: int
           ) -> str:  # fmt: skip
    """What a model takes of a device's memory, and what there is.

    :param parts: what it is called, its colour's name, bytes
    :param limits: what they are called, bytes
    """
    rows = [
        {"part": name, "order": number, "size": size / _MB,
         "text": f"{name} · {size / _MB:.2f} MB"}
        for number, (name, _, size) in enumerate(parts)
    ]  # fmt: skip
    names = [name for name, _, _ in parts]
    colours = [f"var(--{colour})" for _, colour, _ in parts]
    most = max([sum(row["size"] for row in rows), *(size / _MB for _, size in limits)])
    x = {"type": "quantitative", "title": "MB", "scale": {"domain": [0, most * 1.02]}}
    bars = {
        "data": {"values": rows},
        "mark": {"type": "bar", "height": 26, "stroke": "var(--paper)", "strokeWidth": 1},
        "encoding": {
            "x": x | {"field": "size", "stack": "zero"},
            "order": {"field": "order", "type": "quantitative"},
            "color": {"field": "part", "type": "nominal", "title": None,
                      "scale": {"domain": names, "range": colours},
                      "legend": {"columns": 2 if width < 400 else 0}},
            "description": {"field": "text"},
        },
    }  # fmt: skip
    lines = {
        "data": {"values": [{"at": size / _MB, "text": f"{name} · {size / _MB:.1f} MB"}
                            for name, size in limits]},
        "mark": {"type": "rule", "strokeWidth": 2, "strokeDash": [5, 3], "color": "var(--bad)"},
        "encoding": {"x": x | {"field": "at"}, "description": {"field": "text"}},
    }  # fmt: skip
    drawn = [bars, lines] if limits else [bars]
    return _svg({"width": width, "height": 46, "layer": drawn}, "memory")


def _svg(spec: dict, kind: str) -> str:
    spec = {"$schema": f"https://vega.github.io/schema/vega-lite/v{_VERSION[0]}.json",
            "config": _CONFIG, "padding": 4, "autosize": {"type": "pad"}} | spec  # fmt: skip
    drawn = vl_convert.vegalite_to_svg(spec, vl_version=_VERSION)
    # It shrinks where there is less room, and the page says what it shows: it is no document.
    return re.sub(r"^<svg [^>]*?viewBox=\"([^\"]+)\"", rf'<svg class="{kind}" viewBox="\1"', drawn)
