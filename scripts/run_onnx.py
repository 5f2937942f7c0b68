#!/usr/bin/env python3
"""Run a detector's ONNX on a picture of its own size, in float, with onnxruntime."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import onnxruntime

from tpumake import bounded_run
from tpumake.cli import BadInput, atomic_write, run
from tpumake.detections import recognise
from tpumake.labels import names_in, read_labels
from tpumake.network_input import NetworkInput, read_network_input
from tpumake.onnx_io import load
from tpumake.pictures import UnusableError, pixels

_PATH = click.Path(path_type=Path)


def open_network(path: Path) -> onnxruntime.InferenceSession:
    """Make a network ready to run, on one thread.

    :raises BadInput: onnxruntime can't, or weights lie outside its folder; one line with the reason
    """
    # It says itself where its weights are; onnxruntime would go wherever that leads.
    load(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    # Errors come as exceptions; what it writes besides is for its own developers.
    options.log_severity_level = 4
    onnxruntime.set_default_logger_severity(4)
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # Its exceptions have no common base of their own.
        raise BadInput(f"{path}: {' '.join(str(error).split())}") from None


def run_on(session: onnxruntime.InferenceSession, wanted: NetworkInput, picture: Path) -> list:
    """Run a network on a picture; its outputs, float32."""
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type != "tensor(float)":
        raise BadInput(f"the network has {len(inputs)} inputs ({inputs[0].type}); one of floats "
                       "can be fed")  # fmt: skip
    try:
        seen = pixels(picture.read_bytes())
    except UnusableError as error:
        raise BadInput(f"{picture}: {error}") from None
    if seen.shape[:2] != (wanted.height, wanted.width):
        raise BadInput(f"{picture}: is not {wanted.width}×{wanted.height}")
    try:
        return bounded_run.run(session, None, {inputs[0].name: wanted.of(seen)})
    except Exception as error:
        raise BadInput(f"the network doesn't run: {' '.join(str(error).split())}") from None


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
    found = run_on(session, wanted, picture)
    recognise([values.shape for values in found], wanted.size, len(names))
    # Given a name instead of a file, NumPy adds a suffix to one that has none.
    with atomic_write(target) as temporary, temporary.open("wb") as file:
        called = [output.name for output in session.get_outputs()]
        np.savez(file, **dict(zip(called, found, strict=True)))
    click.echo(f"{len(found)} output{'s' if len(found) > 1 else ''}")


if __name__ == "__main__":
    run(main)
