"""Write a stand-in for one of the networks that the vendors' guides build, untrained but alive.

Structure, tensor names and ending are those of the networks that the guides download: YOLOv5s as
its own repository exports it, YOLOv8n as Ultralytics does, Tiny YOLOv3 cut where its decoding
begins, ResNet-18. What they see is nonsense; what a build makes of them, and how long that takes,
is not. Weights: see live_network.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import numpy as np
import onnx
from onnx import TensorProto, helper

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from live_network import Builder, Tensor, anchors, samples, scope
from tpumake.cli import atomic_write, run

__all__ = ["NETWORKS", "Network", "build"]

_STRIDES = (8, 16, 32)
_BINS = 16
_ANCHORS = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
"""Widths and heights in pixels of YOLOv5's anchors, by stride (its models/yolov5s.yaml)."""


class Network:
    """A network as it grows: the builder, the input's size in pixels, and how wide layers are."""

    def __init__(self, size: int, width: float, classes: int) -> None:
        self.size = size
        self.classes = classes
        self._width = width
        self.builder = Builder(samples(4, 64))

    def wide(self, channels: int) -> int:
        """The number of channels at this width, a multiple of eight as the families have it."""
        return max(8, round(channels * self._width / 8) * 8)

    def ints(self, name: str, *values: int) -> str:
        """Store whole numbers and return their name."""
        return self.builder.constant(name, np.array(values, np.int64))

    def floats(self, name: str, values: object) -> str:
        """Store numbers as float32 and return their name."""
        return self.builder.constant(name, np.asarray(values, np.float32))

    def then(self, operator: str, name: str, *inputs: str, **attributes: object) -> str:
        """Append a node behind the last convolution, where nothing is measured any more."""
        return self.builder.node(operator, name, inputs, np.empty(0), **attributes).name

    def c3(self, module: str, x: Tensor, width: int, count: int, residual: bool = True) -> Tensor:
        """Two paths, one through bottlenecks, joined (C3 of YOLOv5)."""
        b = self.builder
        y = b.block(f"{module}.cv1", x, width // 2)
        for index in range(count):
            y = self._bottleneck(f"{module}.m.{index}", y, (1, 3), residual)
        z = b.block(f"{module}.cv2", x, width // 2)
        return b.block(f"{module}.cv3", b.concat(f"{scope(module)}/Concat", [y, z]), width)

    def c2f(self, module: str, x: Tensor, width: int, count: int, residual: bool = True) -> Tensor:
        """Halves, and what each bottleneck makes of the last one, joined (C2f of YOLOv8)."""
        b = self.builder
        parts = list(b.halve(f"{scope(module)}/Split", b.block(f"{module}.cv1", x, width)))
        for index in range(count):
            parts.append(self._bottleneck(f"{module}.m.{index}", parts[-1], (3, 3), residual))
        return b.block(f"{module}.cv2", b.concat(f"{scope(module)}/Concat", parts), width)

    def _bottleneck(
        self, module: str, x: Tensor, kernels: tuple[int, int], residual: bool
    ) -> Tensor:
        width = x.value.shape[1]
        y = self.builder.block(f"{module}.cv1", x, width, kernels[0])
        y = self.builder.block(f"{module}.cv2", y, width, kernels[1])
        return self.builder.add(f"{scope(module)}/Add", x, y) if residual else y


def yolov5s(net: Network) -> dict[str, list[int]]:
    """YOLOv5 release 7.0: ``output0`` is (1, places, 5 + classes)."""
    b, wide = net.builder, net.wide
    x = b.block("model.0", b.images, wide(64), 6, 2)
    x = net.c3("model.2", b.block("model.1", x, wide(128), 3, 2), wide(128), 1)
    p3 = net.c3("model.4", b.block("model.3", x, wide(256), 3, 2), wide(256), 2)
    p4 = net.c3("model.6", b.block("model.5", p3, wide(512), 3, 2), wide(512), 3)
    x = net.c3("model.8", b.block("model.7", p4, wide(1024), 3, 2), wide(1024), 1)
    p5 = b.block("model.10", b.sppf("model.9", x, wide(1024)), wide(512))
    x = b.concat("/model.12/Concat", [b.upsample("model.11", p5), p4])
    middle = b.block("model.14", net.c3("model.13", x, wide(512), 1, False), wide(256))
    x = b.concat("/model.16/Concat", [b.upsample("model.15", middle), p3])
    fine = net.c3("model.17", x, wide(256), 1, False)
    x = b.concat("/model.19/Concat", [b.block("model.18", fine, wide(256), 3, 2), middle])
    middle = net.c3("model.20", x, wide(512), 1, False)
    x = b.concat("/model.22/Concat", [b.block("model.21", middle, wide(512), 3, 2), p5])
    levels = [fine, middle, net.c3("model.23", x, wide(1024), 1, False)]
    heads = [
        b.conv(f"model.24.m.{level}", x, 3 * (5 + net.classes)) for level, x in enumerate(levels)
    ]
    rows = [_decode_anchors(net, level, head) for level, head in enumerate(heads)]
    b.nodes.append(helper.make_node("Concat", rows, ["output0"], "/model.24/Concat_3", axis=1))
    places = sum(3 * (net.size // stride) ** 2 for stride in _STRIDES)
    return {"output0": [1, places, 5 + net.classes]}


def _decode_anchors(net: Network, level: int, head: Tensor) -> str:
    """Boxes in pixels and probabilities from one level of YOLOv5 (its models/yolo.py)."""
    stride, fields = _STRIDES[level], 5 + net.classes
    side = net.size // stride
    at = f"/model.24/level.{level}"
    by_anchor = net.ints(f"{at}/by_anchor", 1, 3, fields, side, side)
    x = net.then("Reshape", f"{at}/Reshape", head.name, by_anchor)
    x = net.then("Transpose", f"{at}/Transpose", x, perm=[0, 1, 3, 4, 2])
    x = net.then("Sigmoid", f"{at}/Sigmoid", x)
    sizes = net.ints(f"{at}/sizes", 2, 2, fields - 4)
    outputs = [f"{at}/Split_output_{index}" for index in range(3)]
    net.builder.nodes.append(helper.make_node("Split", [x, sizes], outputs, f"{at}/Split", axis=4))
    two = net.floats(f"{at}/two", 2)
    y, x = np.mgrid[0:side, 0:side] - 0.5
    grid = np.broadcast_to(np.stack([x, y], axis=-1), (1, 3, side, side, 2))
    anchors = np.array(_ANCHORS[level], np.float32).reshape(1, 3, 1, 1, 2)
    centre = net.then("Mul", f"{at}/Mul", outputs[0], two)
    centre = net.then("Add", f"{at}/Add", centre, net.floats(f"{at}/grid", grid))
    pixels = net.floats(f"{at}/stride", stride)
    centre = net.then("Mul", f"{at}/Mul_1", centre, pixels)
    extent = net.then("Mul", f"{at}/Mul_2", outputs[1], two)
    extent = net.then("Pow", f"{at}/Pow", extent, two)
    wide = np.broadcast_to(anchors, (1, 3, side, side, 2))
    anchor_grid = net.floats(f"{at}/anchors", wide)
    extent = net.then("Mul", f"{at}/Mul_3", extent, anchor_grid)
    rows = net.then("Concat", f"{at}/Concat", centre, extent, outputs[2], axis=4)
    flat = net.ints(f"{at}/flat", 1, 3 * side * side, fields)
    return net.then("Reshape", f"{at}/Reshape_rows", rows, flat)


def yolov8n(net: Network) -> dict[str, list[int]]:
    """YOLOv8: ``output0`` is (1, 4 + classes, places)."""
    b, wide = net.builder, net.wide
    x = b.block("model.0", b.images, wide(64), 3, 2)
    x = net.c2f("model.2", b.block("model.1", x, wide(128), 3, 2), wide(128), 1)
    p3 = net.c2f("model.4", b.block("model.3", x, wide(256), 3, 2), wide(256), 2)
    p4 = net.c2f("model.6", b.block("model.5", p3, wide(512), 3, 2), wide(512), 2)
    x = net.c2f("model.8", b.block("model.7", p4, wide(1024), 3, 2), wide(1024), 1)
    p5 = b.sppf("model.9", x, wide(1024))
    x = b.concat("/model.11/Concat", [b.upsample("model.10", p5), p4])
    middle = net.c2f("model.12", x, wide(512), 1, False)
    x = b.concat("/model.14/Concat", [b.upsample("model.13", middle), p3])
    fine = net.c2f("model.15", x, wide(256), 1, False)
    x = b.concat("/model.17/Concat", [b.block("model.16", fine, wide(256), 3, 2), middle])
    middle = net.c2f("model.18", x, wide(512), 1, False)
    x = b.concat("/model.20/Concat", [b.block("model.19", middle, wide(512), 3, 2), p5])
    levels = [fine, middle, net.c2f("model.21", x, wide(1024), 1, False)]
    boxes, classes = [], []
    for branch, width, outputs, heads in (
        ("cv2", 64, 4 * _BINS, boxes),
        ("cv3", max(levels[0].value.shape[1], min(net.classes, 100)), net.classes, classes),
    ):
        for level, x in enumerate(levels):
            module = f"model.22.{branch}.{level}"
            x = b.block(f"{module}.1", b.block(f"{module}.0", x, width, 3), width, 3)
            heads.append(b.conv(f"{module}.2", x, outputs))
    return _decode_distances(net, boxes, classes)


def _decode_distances(
    net: Network, boxes: Sequence[Tensor], classes: Sequence[Tensor]
) -> dict[str, list[int]]:
    """Boxes in pixels from distributions of distances (Li et al. 2020, arXiv:2006.04388)."""
    at = "/model.22"
    places = sum((net.size // stride) ** 2 for stride in _STRIDES)

    def joined(tag: str, heads: Sequence[Tensor], channels: int) -> str:
        shape = net.ints(f"{at}/{tag}_shape", 1, channels, -1)
        flat = [
            net.then("Reshape", f"{at}/{tag}_{level}", head.name, shape)
            for level, head in enumerate(heads)
        ]
        return net.then("Concat", f"{at}/{tag}", *flat, axis=2)

    bins = joined("boxes", boxes, 4 * _BINS)
    shape = net.ints(f"{at}/dfl/shape", 1, 4, _BINS, places)
    bins = net.then("Reshape", f"{at}/dfl/Reshape", bins, shape)
    bins = net.then("Transpose", f"{at}/dfl/Transpose", bins, perm=[0, 2, 1, 3])
    bins = net.then("Softmax", f"{at}/dfl/Softmax", bins, axis=1)
    ramp = net.floats("model.22.dfl.conv.weight", np.arange(_BINS).reshape(1, _BINS, 1, 1))
    sides = net.then("Conv", f"{at}/dfl/conv/Conv", bins, ramp, kernel_shape=[1, 1])
    shape = net.ints(f"{at}/dfl/flat", 1, 4, places)
    sides = net.then("Reshape", f"{at}/dfl/Reshape_1", sides, shape)
    zero, two, four, axis = (net.ints(f"{at}/int_{n}", n) for n in (0, 2, 4, 1))
    near = net.then("Slice", f"{at}/Slice", sides, zero, two, axis)
    far = net.then("Slice", f"{at}/Slice_1", sides, two, four, axis)
    centres, strides = anchors(net.size, _STRIDES)
    middle = net.floats(f"{at}/centres", centres)
    low = net.then("Sub", f"{at}/Sub", middle, near)
    high = net.then("Add", f"{at}/Add_1", middle, far)
    centre = net.then("Add", f"{at}/Add_2", low, high)
    half = net.floats(f"{at}/half", 2)
    centre = net.then("Div", f"{at}/Div_1", centre, half)
    extent = net.then("Sub", f"{at}/Sub_1", high, low)
    cells = net.then("Concat", f"{at}/Concat_2", centre, extent, axis=1)
    pixels = net.floats(f"{at}/strides", strides)
    rows = net.then("Mul", f"{at}/Mul_2", cells, pixels)
    scores = net.then("Sigmoid", f"{at}/Sigmoid", joined("classes", classes, net.classes))
    net.builder.nodes.append(
        helper.make_node("Concat", [rows, scores], ["output0"], f"{at}/Concat_3", axis=1)
    )
    return {"output0": [1, 4 + net.classes, places]}


def yolov3_tiny(net: Network) -> dict[str, list[int]]:
    """Tiny YOLOv3 up to where its decoding begins: two tensors (1, 3·(5 + classes), h, w)."""
    b, wide = net.builder, net.wide
    x = b.images

    def block(index: int, x: Tensor, channels: int, kernel: int = 3) -> Tensor:
        y = b.conv(f"conv2d_{index}", x, channels, kernel)
        return b.relu(f"/leaky_re_lu_{index}/LeakyRelu", y, 0.1)

    for index, channels in enumerate((16, 32, 64, 128), 1):
        x = block(index, x, wide(channels))
        x = b.max_pool(f"/max_pooling2d_{index}/MaxPool", x, 2, 2, 0, 0)
    p4 = block(5, x, wide(256))
    x = b.max_pool("/max_pooling2d_5/MaxPool", p4, 2, 2, 0, 0)
    x = b.max_pool("/max_pooling2d_6/MaxPool", block(6, x, wide(512)), 2, 1, 0, 1)
    p5 = block(8, block(7, x, wide(1024)), wide(256), 1)
    fields = 3 * (5 + net.classes)
    coarse = b.conv("conv2d_10", block(9, p5, wide(512)), fields)
    x = b.upsample("up_sampling2d_1", block(11, p5, wide(128), 1))
    fine = block(12, b.concat("/concatenate_1/Concat", [x, p4]), wide(256))
    fine = b.conv("conv2d_13", fine, fields)
    # These names belong to the convolutions themselves.
    names = {fine.name: "convolution_output", coarse.name: "convolution_output1"}
    for node in b.nodes:
        node.output[:] = [names.get(name, name) for name in node.output]
    cells = {"convolution_output": net.size // 16, "convolution_output1": net.size // 32}
    return {name: [1, fields, side, side] for name, side in cells.items()}


def resnet18(net: Network) -> dict[str, list[int]]:
    """ResNet-18 (He et al. 2015, arXiv:1512.03385): ``logits`` is (1, classes)."""
    b, wide = net.builder, net.wide
    x = b.relu("/relu/Relu", b.conv("conv1", b.images, wide(64), 7, 2))
    x = b.max_pool("/maxpool/MaxPool", x, 3, 2, 1, 1)
    for stage, channels in enumerate((64, 128, 256, 512), 1):
        for block in (0, 1):
            module = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            y = b.relu(f"{scope(module)}/relu/Relu",
                       b.conv(f"{module}.conv1", x, wide(channels), 3, stride))  # fmt: skip
            y = b.conv(f"{module}.conv2", y, wide(channels), 3)
            if stride > 1:
                x = b.conv(f"{module}.downsample.0", x, wide(channels), 1, stride)
            x = b.relu(f"{scope(module)}/relu_1/Relu", b.add(f"{scope(module)}/Add", x, y))
    mean = x.value.mean(axis=(2, 3), keepdims=True)
    x = b.node("GlobalAveragePool", "/avgpool/GlobalAveragePool", [x.name], mean)
    x = b.conv("fc", x, net.classes)
    b.nodes.append(helper.make_node("Flatten", [x.name], ["logits"], "/Flatten"))
    return {"logits": [1, net.classes]}


NETWORKS: dict[str, tuple[Callable[[Network], dict[str, list[int]]], float, int, int]] = {
    "yolov5s": (yolov5s, 0.5, 640, 80),
    "yolov8n": (yolov8n, 0.25, 640, 80),
    "yolov3_tiny": (yolov3_tiny, 1.0, 416, 80),
    "resnet18": (resnet18, 1.0, 224, 1000),
}
"""By name: what builds it, and the width, input size (pixels) and classes of the published one."""


def build(
    name: str, width: float | None = None, size: int | None = None, classes: int | None = None
) -> onnx.ModelProto:
    """Build a network: float32 ``images`` (1, 3, size, size) to what its own function says.

    :param width: factor on all channels; None for that of the published network, like the others
    :param size: of the input, in pixels, a multiple of 32
    """
    make, own_width, own_size, own_classes = NETWORKS[name]
    net = Network(size or own_size, width or own_width, classes or own_classes)
    outputs = make(net)
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, net.size, net.size])
    graph = helper.make_graph(
        net.builder.nodes,
        "main_graph",
        [images],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        net.builder.initializers,
    )
    model = helper.make_model(
        graph,
        ir_version=8,
        opset_imports=[helper.make_opsetid("", 17)],
        producer_name="tpumake",
        producer_version=name,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


@click.command()
@click.argument("network", type=click.Choice(sorted(NETWORKS)))
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--width", type=float, help="Factor on the channels; 0.125 is a small one.")
@click.option("--size", type=int, help="Of the input, in pixels, a multiple of 32.")
@click.option("--classes", type=int, help="Number of classes.")
def command(
    network: str, target: Path, width: float | None, size: int | None, classes: int | None
) -> None:
    """Write a stand-in for NETWORK to TARGET (.onnx)."""
    content = build(network, width, size, classes).SerializeToString(deterministic=True)
    with atomic_write(target) as path:
        path.write_bytes(content)


if __name__ == "__main__":
    run(command)
