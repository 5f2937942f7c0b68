#!/usr/bin/env python3
"""Show what a detector finds in a picture, run in several ways, side by side."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from tpumake.cli import BadInput, atomic_write, run
from tpumake.detections import (
    CONFIDENCE,
    OVERLAP,
    Agreement,
    Detections,
    agreement,
    recognise,
    suppress,
)
from tpumake.drawing import Panel, side_by_side
from tpumake.labels import class_names, label
from tpumake.letterbox import Fit, fit_input
from tpumake.network_input import read_network_input
from tpumake.pictures import UnusableError, pixels
from tpumake.raw_outputs import read_outputs

_SCHEMA = "detect.schema.json"
_PATH = click.Path(path_type=Path)
_SHARE = click.FloatRange(0, 1)


class Run(NamedTuple):
    """One way of running: its title, what was found, and how that is like the first one's."""

    title: str
    found: Detections
    agreement: Agreement | None


class Settings(NamedTuple):
    """From which score on, and up to which overlap, boxes are kept; what classes are called."""

    confidence: float
    overlap: float
    names: list[str]


def detect(raw: Path, fitted: Fit, settings: Settings) -> Detections:
    """Read raw outputs and find objects in the picture.

    :returns: boxes in pixels of the picture
    :raises BadInput: they are no detector's
    """
    outputs = list(read_outputs(raw).values())
    size = fitted.input_width, fitted.input_height
    try:
        head = recognise([values.shape for values in outputs], size, len(settings.names))
    except BadInput as error:
        raise BadInput(f"{raw}: {error}") from None
    found = suppress(head.decode(outputs), settings.confidence, settings.overlap)
    return found._replace(boxes=fitted.back(found.boxes))


def told(runs: list[Run], settings: Settings) -> str:
    """All that was found, in lines; and how it differs from what the first network found."""
    lines = []
    for each in runs:
        lines.append(f"{each.title}{_compared(each.agreement)}")
        rows = [_row(each.found, index, settings.names) for index in range(len(each.found.scores))]
        # What stands in columns: the name with the score, then four numbers.
        widths = [max(_width(row[column]) for row in rows) for column in range(5)] if rows else []
        for row in rows:
            name = row[0] + " " * (widths[0] - _width(row[0]))
            numbers = zip(("x", "y", "w", "h"), row[1:], widths[1:], strict=True)
            lines.append(f"  {name}  {'  '.join(f'{n} {text:>{w}}' for n, text, w in numbers)}")
        if not rows:
            lines.append(f"  nothing above {100 * settings.confidence:g} %")
    return "\n".join(lines)


def _row(found: Detections, index: int, names: list[str]) -> list[str]:
    left, top, right, bottom = (float(side) for side in found.boxes[index])
    name = label(names, int(found.classes[index]))
    numbers = (left, top, right - left, bottom - top)
    return [f"{name}: {100 * found.scores[index]:.1f} %", *(f"{number:.0f}" for number in numbers)]


def _width(text: str) -> int:
    """Columns of a terminal; Chinese, Japanese and Korean letters take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _compared(like: Agreement | None) -> str:
    if like is None:
        return ""
    parts = [f"{like.same} of {like.same + like.missing} found again"]
    if like.new:
        parts.append(f"{like.new} more")
    if like.same:
        parts.append(f"boxes overlap ≥ {100 * like.overlap:.1f} %")
        parts.append(f"scores within {100 * like.score:.1f} points")
    return f": {', '.join(parts)}"


def document(picture: Path, fitted: Fit, runs: list[Run], settings: Settings) -> dict:
    """The same for machines; see schemas/detect.schema.json."""
    return {
        "$schema": _SCHEMA,
        "picture": {"name": picture.name, "width": fitted.width, "height": fitted.height},
        "confidence": settings.confidence,
        "overlap": settings.overlap,
        "names": settings.names,
        "runs": [
            {
                "title": each.title,
                "detections": [
                    {
                        "class": int(number),
                        "name": label(settings.names, int(number)),
                        "score": round(float(score), 6),
                        "box": [round(float(side), 3) for side in box],
                    }
                    for box, score, number in zip(*each.found, strict=True)
                ],
                "agreement": _as_document(each.agreement),
            }
            for each in runs
        ],
    }


def _as_document(like: Agreement | None) -> dict | None:
    if like is None:
        return None
    return {
        name: round(value, 6) if isinstance(value, float) else value
        for name, value in like._asdict().items()
    }


def read_picture(path: Path) -> np.ndarray:
    """Decode a picture; uint8 [height,width,3], RGB."""
    try:
        return pixels(path.read_bytes())
    except UnusableError as error:
        raise BadInput(f"{path}: {error}") from None


@click.command(help=__doc__)
@click.argument("picture", type=_PATH)
@click.argument("target", type=_PATH)
@click.option("--network", type=_PATH, required=True,
              help="The float network (.mlir), which says what is done to pictures.")  # fmt: skip
@click.option("--run", "raw", type=(str, _PATH), multiple=True, required=True,
              metavar="TITLE NPZ", help="A network's raw outputs for this picture.")  # fmt: skip
@click.option("--names-from", type=_PATH, help="The ONNX whose metadata name the classes.")
@click.option("--labels", type=_PATH, help="The classes' names, one a line, instead.")
@click.option("--confidence", type=_SHARE, default=CONFIDENCE, show_default=True,
              help="Least score.")  # fmt: skip
@click.option("--overlap", type=_SHARE, default=OVERLAP, show_default=True,
              help="Most overlap of two boxes of a class.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one document instead of lines.")
def main(
    picture: Path,
    target: Path,
    network: Path,
    raw: tuple[tuple[str, Path], ...],
    names_from: Path | None,
    labels: Path | None,
    confidence: float,
    overlap: float,
    as_json: bool,
) -> None:
    """Draw what was found in PICTURE into TARGET (.png), and print it."""
    source, wanted = read_picture(picture), read_network_input(network)
    fitted = fit_input(source, wanted)
    settings = Settings(confidence, overlap, class_names(labels, names_from))
    runs: list[Run] = []
    for title, path in raw:
        found = detect(path, fitted, settings)
        runs.append(Run(title, found, agreement(runs[0].found, found) if runs else None))
    drawn = side_by_side(source, [Panel(each.title, each.found) for each in runs], settings.names)
    with atomic_write(target) as temporary:
        drawn.save(temporary, "PNG", optimize=True)
    if as_json:
        click.echo(json.dumps(document(picture, fitted, runs, settings), indent=1,
                              ensure_ascii=False))  # fmt: skip
    else:
        click.echo(f"{told(runs, settings)}\n→ {target}")


if __name__ == "__main__":
    run(main)
