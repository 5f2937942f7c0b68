"""The document of a measurement as a picture: bars, in SVG."""

from __future__ import annotations

from html import escape

from tpumake.bench.report import duration, number

__all__ = ["chart"]

# All in pixels. The bars of one row share a scale; rows differ by orders of magnitude.
WIDTH, LEFT, BAR_WIDTH = 760, 120, 460
BAR, GAP, HEAD, MARGIN = 18, 8, 34, 16
# What is green: tpumake's own, under the names that the rows give it.
OURS = ".make, .cold, .variant, .tpumake, .j1, .j2"
STYLE = """
 text { font: 13px system-ui, sans-serif; fill: #24292f }
 .title { font-weight: 600 }
 .tool { text-anchor: end }
 .bar { fill: #8c959f }
 @OURS { fill: #1a7f37 }
 .whisker { stroke: #24292f; stroke-width: 1.5 }
 .back { fill: #ffffff }
 @media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .whisker { stroke: #e6edf3 }
  @OURS { fill: #3fb950 }
  .back { fill: #0d1117 }
 }
""".replace("@OURS", OURS)


def chart(document: dict) -> str:
    """Draw each row's medians as bars, with the quartiles as whiskers."""
    parts: list[str] = []
    top = MARGIN
    for row in document["rows"]:
        if row["times"]:
            parts.append(_text(MARGIN, top + 16, "title", row["title"]))
            top += HEAD
            parts += _bars(row, top)
            top += len(row["times"]) * (BAR + GAP) + MARGIN
    label = f"{document['target']}: {', '.join(row['title'] for row in document['rows'])}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" '
        f'height="{top}" role="img" aria-label="{escape(label)}">\n'
        f"<style>{STYLE}</style>\n"
        f'<rect class="back" width="{WIDTH}" height="{top}"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _bars(row: dict, top: int) -> list[str]:
    longest = max(time["high"] for time in row["times"])
    parts = []
    for number_in_row, time in enumerate(row["times"]):
        y = top + number_in_row * (BAR + GAP)
        low, median, high = (BAR_WIDTH * time[name] / longest for name in ("low", "median", "high"))
        parts += [
            _text(LEFT - 8, y + 14, "tool", time["tool"]),
            f'<rect class="bar {escape(time["tool"])}" x="{LEFT}" y="{y}" height="{BAR}" '
            f'width="{max(median, 1):.1f}"/>',
            f'<line class="whisker" x1="{LEFT + low:.1f}" x2="{LEFT + high:.1f}" '
            f'y1="{y + BAR / 2}" y2="{y + BAR / 2}"/>',
            _text(LEFT + high + 8, y + 14, "time", _label(row, time)),
        ]
    return parts


def _label(row: dict, time: dict) -> str:
    ratios = [
        ratio for ratio in row["ratios"] if ratio["slow"] == time["tool"] and ratio["of"] == "time"
    ]
    times = [f"{number(ratio['median'])} × {ratio['fast']}" for ratio in ratios]
    return ", ".join([duration(time["median"]), *times])


def _text(x: float, y: float, kind: str, text: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y}">{escape(text)}</text>'
