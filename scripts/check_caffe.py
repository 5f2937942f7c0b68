#!/usr/bin/env python3
"""Say what Caffe would pass over in silence: layers whose weights are not in the caffemodel."""

from __future__ import annotations

import json
from pathlib import Path

import click
from google.protobuf.message import Message

from tpumake import cli
from tpumake.caffe import input_shapes, read_caffemodel, read_prototxt
from tpumake.shapes import read_shapes

# Layers that compute with weights of their own.
WEIGHTED = ("Convolution", "ConvolutionDepthwise", "DepthwiseConvolution", "Deconvolution",
            "InnerProduct", "BatchNorm", "BN", "Scale", "PReLU", "LSTM", "Lstm", "Embed",
            "Normalize")  # fmt: skip


def check(net: Message, weights: Message, name: str, shapes: list[list[int]]) -> str:
    """Check a network, and describe it in a line.

    :param net: its structure
    :param weights: what belongs to it
    :param name: the model's, for messages about its stanza
    :param shapes: what the stanza says of its inputs
    :raises cli.BadInput: with what doesn't fit
    """
    there = {layer.name for layer in [*weights.layer, *weights.layers] if layer.blobs}
    # Caffe goes by names, and starts what it finds no weights for with zeros.
    missing = [layer.name for layer in net.layer if _weighted(layer) and layer.name not in there]
    if missing:
        more = f", nor for {len(missing) - 1} others" if len(missing) > 1 else ""
        raise cli.BadInput(
            f"{name}_CAFFEMODEL has no weights for layer {missing[0]}{more}, and Caffe would take "
            f"zeros: does it belong to {name}_PROTOTXT?"
        )
    for given, own in zip(shapes, input_shapes(net), strict=False):
        if len(given) != len(own) or given[1:2] != own[1:2]:
            text = json.dumps(own, separators=(",", ":"))
            raise cli.BadInput(
                f"{name}_INPUT_SHAPES: {name}_PROTOTXT says {text}, so it has {len(own)} "
                f"sizes and {own[1] if len(own) > 1 else own[0]} channels, these second"
            )
    layers = len(net.layer) or len(net.layers)
    return f"{layers} layers, {len(there)} with weights"


def _weighted(layer: Message) -> bool:
    # With two inputs, scale takes the second one for its weights.
    return layer.type in WEIGHTED and not (layer.type == "Scale" and len(layer.bottom) > 1)


@click.command(help=__doc__)
@click.argument("prototxt", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("caffemodel", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--input-shapes", default="", help="What the stanza says: [[1,3,224,224]].")
@click.option("--variable", default="M", help="The model, whose variables messages name.")
def main(prototxt: Path, caffemodel: Path, input_shapes: str, variable: str) -> None:
    """Check PROTOTXT and CAFFEMODEL."""
    try:
        shapes = read_shapes(input_shapes)
    except ValueError as error:
        raise cli.BadInput(f"--input-shapes {error}") from None
    net = read_prototxt(prototxt)
    print(check(net, read_caffemodel(caffemodel), variable, shapes))


if __name__ == "__main__":
    cli.run(main)
