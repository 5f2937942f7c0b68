#!/usr/bin/env python3
"""Say what tpu_mlir would stumble over in a quantised TFLite network, before it does.

Runs on the host's own python3, with nothing but the standard library: Make asks it, too.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tpumake.errors import BadInput, run_guarded
from tpumake.shapes import read_shapes
from tpumake.tflite import Network, Tensor, read_tflite

# The operators that the TFLite reader of tpu_mlir 1.7 knows (transform/TFLiteConverter.py), by
# their numbers in TFLite's schema.
KNOWN = {0, 1, 2, 3, 4, 6, 9, 14, 17, 18, 22, 25, 34, 36, 39, 40, 41, 45, 49, 53, 60, 74, 82, 83,
         88, 89, 97, 114}  # fmt: skip
SHAPE = 77
# Those that come to mind among the others.
NAMES = {5: "DEPTH_TO_SPACE", 11: "L2_NORMALIZATION", 19: "RELU", 21: "RELU6", 28: "TANH",
         23: "RESIZE_BILINEAR", 32: "CUSTOM", 42: "DIV", 54: "PRELU", 56: "ARG_MAX", 65: "SLICE",
         67: "TRANSPOSE_CONV", SHAPE: "SHAPE", 98: "LEAKY_RELU", 117: "HARD_SWISH",
         126: "BATCH_MATMUL"}  # fmt: skip
FIXED_BATCH = (
    "convert it with a fixed batch: TFLiteConverter.from_concrete_functions, of a tf.function "
    "whose input is tf.TensorSpec([1, height, width, channels])"
)


def check(network: Network, name: str, shapes: list[list[int]]) -> str:
    """Check a network, and describe it in a line.

    :param name: the model's, for messages about its stanza
    :param shapes: what the stanza says of its inputs, channels first; empty if it says nothing
    :raises BadInput: with what to do instead
    """
    unknown = sorted(set(network.operators) - KNOWN)
    if SHAPE in unknown:
        raise BadInput(f"it computes shapes while it runs (operator SHAPE); {FIXED_BATCH}")
    if unknown:
        listed = ", ".join(NAMES.get(number, f"number {number}") for number in unknown)
        raise BadInput(
            f"tpu_mlir's TFLite reader doesn't know the operators {listed}; build from ONNX, with "
            f"{name}_ONNX"
        )
    for tensor in network.inputs:
        if tensor.type in ("int8", "uint8"):
            # Measured: tpu_mlir's reference run and the lowered network then disagree.
            raise BadInput(
                f"its input {tensor.name} is {tensor.type}, which tpu_mlir runs wrongly; convert "
                "it with float inputs (inference_input_type = tf.float32, the converter's "
                "default): the rest stays INT8"
            )
    if shapes and len(shapes) != len(network.inputs):
        raise BadInput(
            f"{name}_INPUT_SHAPES has {len(shapes)} shapes, the network has {len(network.inputs)} "
            "inputs"
        )
    for tensor, shape in zip(network.inputs, shapes or [[]] * len(network.inputs), strict=True):
        _check_shape(tensor, name, shape)
    inputs = ", ".join(f"{_text(t.shape)} {t.type}" for t in network.inputs)
    return f"quantised, {len(network.operators)} operators, input {inputs}"


def _check_shape(tensor: Tensor, name: str, shape: list[int]) -> None:
    wanted = _channels_first(tensor.shape)
    variable = f"{name}_INPUT_SHAPES"
    if not shape:
        if min(wanted[1:], default=1) < 0:
            raise BadInput(
                f"its input {tensor.name} is {_text(tensor.shape)}, of which -1 is open; say what "
                f"it shall be in {variable}, channels first"
            )
        return
    # Any number of pictures will do.
    fits = len(shape) == len(wanted) and all(
        size in (-1, given) for size, given in zip(wanted[1:], shape[1:], strict=True)
    )
    if fits:
        return
    right = "x".join(map(str, wanted))
    if (
        len(shape) == 4
        and tuple(shape) != wanted
        and _channels_first(tuple(shape))[1:] == wanted[1:]
    ):
        given = [shape[0], *wanted[1:]]
        raise BadInput(
            f"{variable} has its channels last, as the file has; tpu_mlir wants them first: "
            f"{variable} = [{json.dumps(given, separators=(',', ':'))}]"
        )
    raise BadInput(f"{variable}: {_text(tuple(shape))} is not what the network takes, {right}")


def _channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != 4:
        return shape
    number, height, width, channels = shape
    return number, channels, height, width


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _shapes(text: str) -> list[list[int]]:
    try:
        return read_shapes(text)
    except ValueError as error:
        raise BadInput(f"--input-shapes {error}") from None


def main() -> None:
    """Check FILE, or only say whether it is quantised."""
    arguments = argparse.ArgumentParser(description=__doc__)
    add = arguments.add_argument
    add("file", type=Path, help="the network, .tflite")
    add("--quantised", action="store_true", help="only print 1 if it is computed in INT8, else 0")
    add("--input-shapes", default="", help="what the stanza says: [[1,3,64,64]]")
    add("--variable", default="M", metavar="MODEL", help="the model, whose variables messages name")
    chosen = arguments.parse_args()
    network = read_tflite(chosen.file)
    if chosen.quantised:
        print(int(network.quantised))
        return
    try:
        line = check(network, chosen.variable, _shapes(chosen.input_shapes))
    except BadInput as error:
        raise BadInput(f"{chosen.file}: {error}") from None
    print(line)


if __name__ == "__main__":
    run_guarded(main)
