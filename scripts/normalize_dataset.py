#!/usr/bin/env python3
"""Make a calibration folder of any pictures or tensor samples."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from tpumake.cli import BadInput, run
from tpumake.datasets import Choice, make_dataset, printable
from tpumake.samples import parse_inputs

_LINES = 5


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("source", metavar="SRC", type=click.Path(path_type=Path))
@click.argument("target", metavar="DST", type=click.Path(path_type=Path))
@click.option(
    "--count", default=100, show_default=True, type=click.IntRange(1), help="Files to take."
)
@click.option("--min", "least", type=click.IntRange(1), help="Fewer than this are an error.  [10]")
@click.option("--seed", default=0, show_default=True, help="Another seed takes others.")
@click.option("--in-order", is_flag=True, help="Take a list's samples in its order, not by seed.")
@click.option("--input-shapes", metavar="SHAPES", help="Of the model, to check samples by.")
@click.option("--input-names", default="", metavar="A,B", help="Of the model, in the same order.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest instead of a line.")
@click.option("--progress", is_flag=True, help='Print "PROGRESS done total" lines on stderr.')
def command(
    source: Path,
    target: Path,
    count: int,
    least: int | None,
    seed: int,
    in_order: bool,
    input_shapes: str | None,
    input_names: str,
    as_json: bool,
    progress: bool,
) -> None:
    """Fill the folder DST with Calibration1.… to CalibrationN.… and manifest.json.

    SRC is a folder (with those below it) or a text file that lists pictures, one in a line, or one
    for each input with commas between. Files are told by content. Pictures that OpenCV reads as
    8-bit colour are copied, others become PNG. Damaged ones are left out and named. SRC is never
    changed.
    """
    if least is not None and least > count:
        raise BadInput(f"--min {least} is more than --count {count}")
    if in_order and source.is_dir():
        raise BadInput(f"--in-order is for lists, and {printable(source)} is a folder")
    if input_names and not input_shapes:
        raise BadInput("--input-names needs --input-shapes")
    manifest = make_dataset(
        source,
        target,
        Choice(count, min(10, count) if least is None else least, seed, in_order),
        parse_inputs(input_shapes, input_names) if input_shapes else None,
        _Progress().show if progress else lambda done, total: None,
    )
    for line in _left_out(manifest):
        click.echo(line, err=True)
    if as_json:
        click.echo(json.dumps(manifest, indent=1, ensure_ascii=False))
    else:
        click.echo(_summary(manifest, source))


def _left_out(manifest: dict) -> list[str]:
    lines = [f"left out {one['source']}: {one['reason']}" for one in manifest["left_out"]]
    if len(lines) > _LINES:
        lines[_LINES:] = [f"… and {len(lines) - _LINES} more, all named in manifest.json"]
    return lines


def _summary(manifest: dict, source: Path) -> str:
    count, wanted, kind = manifest["count"], manifest["wanted"], manifest["kind"]
    number = f"{count}" if count == wanted else f"{count} of {wanted} wanted"
    line = f"{number} {kind.removesuffix('s') if wanted == 1 else kind} from {printable(source)}"
    if manifest["left_out"]:
        line += f", {len(manifest['left_out'])} left out"
    converted = sum(bool(file["changes"]) for file in manifest["files"])
    if converted:
        line += f", {converted} converted"
    return line


class _Progress:
    """Prints a line whenever another hundredth is done."""

    def __init__(self):
        self._shown = -1

    def show(self, done: int, total: int) -> None:
        hundredths = 100 * done // max(total, 1)
        if hundredths != self._shown:
            self._shown = hundredths
            print(f"PROGRESS {done} {total}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    run(command)
