"""Write the tiny test network: a YOLO11 in miniature, 64x64, under 100 kB, never trained.

Names, operators and ending are those of an ultralytics export (opset 19, IR 9), so that whatever
handles real networks is exercised in a fraction of a second. Weights are random but alive, and the
same on every machine: see live_network.py.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import onnx
from onnx import TensorProto, helper

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from live_network import Builder, Tensor, anchors, samples
from make_shapes import CLASSES
from tpumake.cli import atomic_write, run

__all__ = ["build"]

SIZE = 64
STRIDES = (8, 16, 32)
BINS = 16
"""Bins of the distance distribution for each side of a box (Li et al. 2020, arXiv:2006.04388)."""

_SAMPLES = 64


def build() -> onnx.ModelProto:
    """Build the network: float32 ``images`` (1, 3, 64, 64) to ``output0`` (1, 8, 84).

    ``output0`` holds, for each of 84 places, centre x, centre y, width and height in pixels and the
    probabilities of four classes. Before its decoding end there are the six tensors
    ``/model.23/cv2.{0,1,2}/cv2.{0,1,2}.2/Conv_output_0`` (1, 64, h, w) and
    ``/model.23/cv3.…`` (1, 4, h, w), at strides 8, 16 and 32.
    """
    b = Builder(samples(_SAMPLES, SIZE))
    boxes, classes = _head(b, _neck(b, *_backbone(b)))
    _decode(b, boxes, classes)
    graph = helper.make_graph(
        b.nodes,
        "main_graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 4 + len(CLASSES), 84])],
        b.initializers,
    )
    model = helper.make_model(
        graph,
        ir_version=9,
        opset_imports=[helper.make_opsetid("", 19)],
        producer_name="tpumake",
        producer_version="tiny",
    )
    for key, value in _METADATA.items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model, full_check=True)
    return model


_METADATA = {
    "description": "Untrained YOLO11 in miniature, for tests",
    "author": "tpumake",
    "stride": str(STRIDES[-1]),
    "task": "detect",
    "head": "Detect",
    "batch": "1",
    "imgsz": str([SIZE, SIZE]),
    "names": str(dict(enumerate(CLASSES))),
    "channels": "3",
    "end2end": "False",
}


def _backbone(b: Builder) -> tuple[Tensor, Tensor, Tensor]:
    """Append layers 0 to 9 of YOLO11, but for number 8, which would cost too many bytes."""
    x = b.block("model.0", b.images, 8, 3, 2)
    x = b.block("model.1", x, 8, 3, 2)
    x = b.c3k2("model.2", x, 8)
    x = b.block("model.3", x, 8, 3, 2)
    p3 = b.c3k2("model.4", x, 8)
    x = b.block("model.5", p3, 12, 3, 2)
    p4 = b.c3k2("model.6", x, 12)
    x = b.block("model.7", p4, 12, 3, 2)
    return p3, p4, b.sppf("model.9", x, 12)


def _neck(b: Builder, p3: Tensor, p4: Tensor, p5: Tensor) -> list[Tensor]:
    x = b.concat("/model.12/Concat", [b.upsample("model.11", p5), p4])
    middle = b.c3k2("model.13", x, 8, residual=False)
    x = b.concat("/model.15/Concat", [b.upsample("model.14", middle), p3])
    fine = b.c3k2("model.16", x, 8, residual=False)
    x = b.concat("/model.18/Concat", [b.block("model.17", fine, 8, 3, 2), middle])
    middle = b.c3k2("model.19", x, 8, residual=False)
    x = b.concat("/model.21/Concat", [b.block("model.20", middle, 8, 3, 2), p5])
    return [fine, middle, b.c3k2("model.22", x, 8)]


def _head(b: Builder, levels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Append all box branches, then all class branches, as ``Detect`` runs them."""
    boxes, classes = [], []
    for level, x in enumerate(levels):
        module = f"model.23.cv2.{level}"
        x = b.block(f"{module}.0", x, 6, 3)
        x = b.block(f"{module}.1", x, 6, 3)
        boxes.append(b.conv(f"{module}.2", x, 4 * BINS))
    for level, x in enumerate(levels):
        module = f"model.23.cv3.{level}"
        for step in (0, 1):
            width = x.value.shape[1]
            x = b.block(f"{module}.{step}.0", x, width, 3, group=width)
            x = b.block(f"{module}.{step}.1", x, 8)
        classes.append(b.conv(f"{module}.2", x, len(CLASSES)))
    return boxes, classes


def _decode(b: Builder, boxes: Sequence[Tensor], classes: Sequence[Tensor]) -> None:
    """Append what makes boxes in pixels and probabilities of the six tensors.

    Distances to the four sides are expectations over bins, the softmax being taken over them
    (Li et al. 2020, arXiv:2006.04388); probabilities are sigmoids.
    """
    scope = "/model.23"
    places = sum((SIZE // stride) ** 2 for stride in STRIDES)

    def ints(name: str, *values: int) -> str:
        return b.constant(f"{scope}/{name}_output_0", np.array(values, np.int64))

    def add(operator: str, name: str, *inputs: str, **attributes: object) -> str:
        # Nothing is measured here any more.
        return b.node(operator, f"{scope}/{name}", inputs, np.empty(0), **attributes).name

    box_shape = ints("Constant", 1, 4 * BINS, -1)
    class_shape = ints("Constant_3", 1, len(CLASSES), -1)
    tags = iter(["Reshape", *(f"Reshape_{index}" for index in range(1, 6))])
    flat = [add("Reshape", next(tags), x.name, box_shape, allowzero=0) for x in boxes]
    sides = add("Concat", "Concat", *flat, axis=-1)
    flat = [add("Reshape", next(tags), x.name, class_shape, allowzero=0) for x in classes]
    scores = add("Concat", "Concat_1", *flat, axis=-1)

    by_bin = ints("dfl/Constant", 1, 4, BINS, places)
    bins = add("Reshape", "dfl/Reshape", sides, by_bin, allowzero=0)
    bins = add("Transpose", "dfl/Transpose", bins, perm=[0, 2, 1, 3])
    bins = add("Softmax", "dfl/Softmax", bins, axis=1)
    ramp = np.arange(BINS, dtype=np.float32).reshape(1, BINS, 1, 1)
    weight = b.constant("model.23.dfl.conv.weight", ramp)
    whole = {"dilations": [1, 1], "group": 1, "pads": [0] * 4, "strides": [1, 1]}
    sides = add("Conv", "dfl/conv/Conv", bins, weight, kernel_shape=[1, 1], **whole)
    by_side = ints("dfl/Constant_1", 1, 4, places)
    sides = add("Reshape", "dfl/Reshape_1", sides, by_side, allowzero=0)

    axis = ints("Constant_6", 1)
    zero, two, four = ints("Constant_7", 0), ints("Mul", 2), ints("Mul_1", 4)
    near = add("Slice", "Slice", sides, zero, two, axis)
    far = add("Slice", "Slice_1", sides, two, four, axis)
    probabilities = add("Sigmoid", "Sigmoid", scores)
    centres, strides = anchors(SIZE, STRIDES)
    low = add("Sub", "Sub", b.constant(f"{scope}/Constant_12_output_0", centres), near)
    high = add("Add", "Add_1", b.constant(f"{scope}/Constant_13_output_0", centres), far)
    total = add("Add", "Add_2", low, high)
    extent = add("Sub", "Sub_1", high, low)
    half = b.constant(f"{scope}/Constant_14_output_0", np.array(2, np.float32))
    middle = add("Div", "Div_1", total, half)
    cells = add("Concat", "Concat_2", middle, extent, axis=1)
    pixels = add("Mul", "Mul_2", cells, b.constant(f"{scope}/Constant_15_output_0", strides))
    node = helper.make_node(
        "Concat", [pixels, probabilities], ["output0"], f"{scope}/Concat_3", axis=1
    )
    b.nodes.append(node)


@click.command()
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
def command(target: Path) -> None:
    """Write the tiny test network to TARGET (.onnx)."""
    content = build().SerializeToString(deterministic=True)
    with atomic_write(target) as path:
        path.write_bytes(content)


if __name__ == "__main__":
    run(command)
