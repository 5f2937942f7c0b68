#!/usr/bin/env python3
"""Add layers of your choice to a quantisation table, and check it against the network's layers.

A quantisation table says which layers of a mixed model are computed in float; run_qtable writes
one. A line is the layer's name and a mode, and what tpu_mlir doesn't know it passes over silently.
"""

from __future__ import annotations

import difflib
from fnmatch import fnmatchcase
from pathlib import Path

import click

from tpumake import cli
from tpumake.files import atomic_write

MODES = ("F32", "F16", "BF16", "INT8", "INT4", "W8F16", "W8BF16", "W4F16", "W4BF16")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise cli.BadInput(f"{path}: not a text file in UTF-8") from None


def layers_of(table: Path) -> list[str]:
    """List the layers of a network in their order, from its calibration table.

    :raises BadInput: it has none
    """
    rows = [line.split() for line in _lines(table) if not line.startswith("#")]
    names = [row[0] for row in rows if len(row) == 4]
    if not names:
        raise cli.BadInput(f"{table} is no calibration table")
    return names


def read_table(path: Path, layers: list[str]) -> dict[str, str]:
    """Read a quantisation table: modes by layer.

    :raises BadInput: a line is not a layer and its mode, with the line's number
    """
    modes = {}
    for number, line in enumerate(_lines(path), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        where = f"{path}, line {number}"
        if len(words) != 2 or words[1].upper() not in MODES:
            raise cli.BadInput(f"{where}: must be a layer and one of {', '.join(MODES)}")
        if words[0] not in layers:
            near = difflib.get_close_matches(words[0], layers, 1)
            hint = f'did you mean "{near[0]}"?' if near else "the calibration table names all"
            raise cli.BadInput(f'{where}: the network has no layer "{words[0]}"; {hint}')
        modes[words[0]] = words[1].upper()
    return modes


def chosen(patterns: list[str], layers: list[str]) -> list[str]:
    """List the layers that patterns like ``/model.24/*`` name.

    :raises BadInput: a pattern names none
    """
    for pattern in patterns:
        if not any(fnmatchcase(layer, pattern) for layer in layers):
            raise cli.BadInput(f'FLOAT_LAYERS: no layer is called "{pattern}"; '
                               "the calibration table names all")  # fmt: skip
    return [x for x in layers if any(fnmatchcase(x, pattern) for pattern in patterns)]


@click.command(help=__doc__.splitlines()[0])
@click.argument("calib_table", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--table", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="The quantisation table to start with; none without.")  # fmt: skip
@click.option("--float", "patterns", default="", metavar="PATTERNS",
              help="Layers to compute in float, commas between: /model.24/*,output0*")  # fmt: skip
@click.option("--mode", type=click.Choice(MODES), default="BF16", help="What float is.")
def main(calib_table: Path, target: Path, table: Path | None, patterns: str, mode: str) -> None:
    """Write the quantisation table TARGET for the network whose table CALIB_TABLE is."""
    layers = layers_of(calib_table)
    modes = read_table(table, layers) if table else {}
    before = len(modes)
    for layer in chosen([each for each in patterns.split(",") if each], layers):
        modes.setdefault(layer, mode)
    lines = ["###", "# op_name   quantize_mode"]
    lines += [f"{layer} {modes[layer]}" for layer in layers if layer in modes]
    with atomic_write(target) as temporary:
        temporary.write_text("\n".join(lines) + "\n")
    added = f"{len(modes) - before} more by FLOAT_LAYERS" if patterns else "all exist"
    click.echo(f"{before} layers in the table, {added}")


if __name__ == "__main__":
    cli.run(main)
