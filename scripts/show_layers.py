#!/usr/bin/env python3
"""Show what a precision does to a network's layers: which add the noise, and what it comes to."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tpumake.cli import run
from tpumake.documents import read_document

WORST = 10
PLOT = "▁▂▃▄▅▆▇█"
WIDTH = 64
# SQNR in dB that the lowest and the highest bar of the plot stand for.
LOW, HIGH = 0, 50


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("documents", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="The documents, schemas/layers.schema.json.")
def main(documents: tuple[Path, ...], as_json: bool) -> None:
    """Show DOCUMENTS, files `*.layers.json` that a build made.

    Exit code 0; 2: one can't be read.
    """
    found = [read_document(path, "layers.schema.json", "layers") for path in documents]
    if as_json:
        click.echo(json.dumps(found[0] if len(found) == 1 else found, indent=1))
        return
    click.echo("\n\n".join("\n".join(lines(document)) for document in found))


def lines(document: dict) -> list[str]:
    """The network from its input to its outputs as a plot, and the layers that add most noise."""
    layers = document["layers"]
    adding = sorted(layers, key=lambda layer: -layer["added_noise"])[:WORST]
    of = f"{document['pictures']} samples, {len(layers)} tensors"
    return [
        f"{document['target']} on {document['chip']}, {of}; signal to noise from input to output, "
        f"▁ {LOW} dB, █ {HIGH} dB:",
        f"  {plot([layer['sqnr_db'] for layer in layers])}",
        "",
        "noise that a layer adds  SQNR dB    cosine  held in  type         clipped  tensor",
        *(_line(layer, adding[0]["added_noise"]) for layer in adding),
        "",
        f"in the end: {_end(layers)}",
    ]


def plot(values: list[float | None]) -> str:
    """Bars for values in their order, the least of each stretch; none is as good as it gets."""
    width = min(WIDTH, len(values))
    stretches = [values[at * len(values) // width : (at + 1) * len(values) // width]
                 for at in range(width)]  # fmt: skip
    lows = [min(HIGH if value is None else value for value in each) for each in stretches]
    shares = [(min(max(low, LOW), HIGH) - LOW) / (HIGH - LOW) for low in lows]
    return "".join(PLOT[round(share * (len(PLOT) - 1))] for share in shares)


def _line(layer: dict, most: float) -> str:
    """One layer; the bar's length goes by the noise of the one that adds most."""
    clipped = "" if layer["clipped"] is None else f"{100 * layer['clipped']:.2f} %"
    bar = "█" * round(16 * max(layer["added_noise"], 0) / most) if most > 0 else ""
    sqnr = "-" if layer["sqnr_db"] is None else format(layer["sqnr_db"], ".1f")
    return (
        f"{bar:16} {100 * layer['added_noise']:5.2f} %  {sqnr:>7}  {layer['cosine']:.6f}  "
        f"{layer['precision']:7}  {layer['type']:11}  {clipped:>7}  {layer['name']}"
    )


def _end(layers: list[dict]) -> str:
    least = min(layers, key=lambda layer: layer["cosine"])
    return f"least like the float network is {least['name']}, cosine {least['cosine']:.6f}"


if __name__ == "__main__":
    run(main)
