#!/usr/bin/env python3
"""Run a detector's ONNX on a picture of its own size, in float, with onnxruntime."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from tpumake.cli import BadInput, atomic_write, run
from tpumake.detections import recognise
from tpumake.float_onnx import open_network, run_on
from tpumake.labels import names_in, read_labels
from tpumake.network_input import NetworkInput, read_network_input
from tpumake.pictures import UnusableError, pixels

_PATH = click.Path(path_type=Path)


def read_seen(picture: Path, wanted: NetworkInput) -> np.ndarray:
    """Decode a picture that has the network's size; uint8 [height,width,3], RGB."""
    try:
        seen = pixels(picture.read_bytes())
    except UnusableError as error:
        raise BadInput(f"{picture}: {error}") from None
    if seen.shape[:2] != (wanted.height, wanted.width):
        raise BadInput(f"{picture}: is not {wanted.width}×{wanted.height}")
    return seen


@click.command(help=__doc__)
@click.argument("network", type=_PATH)
@click.argument("picture", type=_PATH)
@click.argument("target", type=_PATH)
@click.option("--input", "described", type=_PATH, required=True,
              help="The float network (.mlir), which says what is done to pictures.")  # fmt: skip
@click.option("--labels", type=_PATH, help="The classes' names, one a line.")
def main(network: Path, picture: Path, target: Path, described: Path, labels: Path | None) -> None:
    """Run NETWORK on PICTURE and write its outputs to TARGET (.npz), if they are a detector's."""
    wanted = read_network_input(described)
    session = open_network(network)
    names = read_labels(labels) if labels else names_in(session.get_modelmeta().custom_metadata_map)
    found = run_on(session, wanted, read_seen(picture, wanted))
    recognise([values.shape for values in found], wanted.size, len(names))
    # Given a name instead of a file, NumPy adds a suffix to one that has none.
    with atomic_write(target) as temporary, temporary.open("wb") as file:
        called = [output.name for output in session.get_outputs()]
        np.savez(file, **dict(zip(called, found, strict=True)))
    click.echo(f"{len(found)} output{'s' if len(found) > 1 else ''}")


if __name__ == "__main__":
    run(main)
