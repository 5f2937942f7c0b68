"""Untrained exports of every family and task, and what is expected of each."""

from __future__ import annotations

import gzip
import random
from typing import NamedTuple

import numpy as np
import onnx
from conftest import ROOT
from onnx import numpy_helper

FOLDER = ROOT / "tests/data/heads"
YOLO11, YOLO26 = "YOLO11", "YOLO26"


class Expected(NamedTuple):
    """The kind of head; on reCamera the decoder, and how many outputs, 0 for all its own."""

    kind: str
    decoder: str | None
    outputs: int


CLASSIFIER = Expected("", "IMCLS", 0)
EXPECTED = {
    "yolov5": Expected("dfl", YOLO11, 6),
    "yolov6": Expected("dfl", YOLO11, 6),
    "yolov8": Expected("dfl", YOLO11, 6),
    "yolov8-seg": Expected("dfl-segment", "YOLO11_SEG", 0),
    "yolov8-pose": Expected("dfl-pose", "YOLO11_POSE", 0),
    "yolov8-obb": Expected("dfl-obb", None, 9),
    "yolov8-cls": CLASSIFIER,
    "yolov9": Expected("dfl", YOLO11, 6),
    "yolov9c-seg": Expected("dfl-segment", "YOLO11_SEG", 0),
    "yolov10": Expected("dfl", YOLO11, 6),
    "yolov10-e2e": Expected("dfl", YOLO11, 6),
    "yolo11": Expected("dfl", YOLO11, 6),
    "yolo11-seg": Expected("dfl-segment", "YOLO11_SEG", 0),
    "yolo11-pose": Expected("dfl-pose", "YOLO11_POSE", 0),
    "yolo11-obb": Expected("dfl-obb", None, 9),
    "yolo11-cls": CLASSIFIER,
    "yolo12": Expected("dfl", YOLO11, 6),
    "yolo12-seg": Expected("dfl-segment", "YOLO11_SEG", 0),
    "yolo12-pose": Expected("dfl-pose", "YOLO11_POSE", 0),
    "yolo12-obb": Expected("dfl-obb", None, 9),
    "yolo12-cls": CLASSIFIER,
    "yolo26": Expected("distances", YOLO26, 6),
    "yolo26-e2e": Expected("distances", YOLO26, 6),
    "yolo26-seg": Expected("distances-segment", "YOLO11_SEG", 0),
    "yolo26-seg-e2e": Expected("distances-segment", None, 10),
    "yolo26-pose": Expected("distances-pose", "YOLO11_POSE", 0),
    "yolo26-pose-e2e": Expected("distances-pose", None, 9),
    "yolo26-obb": Expected("distances-obb", None, 9),
    "yolo26-obb-e2e": Expected("distances-obb", None, 9),
    "yolo26-cls": CLASSIFIER,
}


def load(name: str) -> onnx.ModelProto:
    """The network, with weights of zero."""
    return onnx.load_model_from_string(gzip.decompress((FOLDER / f"{name}.onnx.gz").read_bytes()))


def alive(model: onnx.ModelProto, seed: int = 0) -> onnx.ModelProto:
    """The network with weights that let something through."""
    draw = np.random.default_rng(seed)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size > 256 and not values.any():
            wide = np.sqrt(2.5 / np.prod(values.shape[1:])) * draw.standard_normal(values.shape)
            tensor.CopyFrom(numpy_helper.from_array(wide.astype(np.float32), tensor.name))
    return model


def renamed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with meaningless names."""
    names: dict[str, str] = {}

    def new(name: str) -> str:
        return names.setdefault(name, f"t{len(names)}") if name else ""

    graph = model.graph
    for node in graph.node:
        node.name = ""
        node.input[:] = [new(name) for name in node.input]
        node.output[:] = [new(name) for name in node.output]
    for value in [*graph.input, *graph.output, *graph.initializer]:
        value.name = new(value.name)
    del graph.value_info[:]
    return model


def reordered(model: onnx.ModelProto, seed: int = 0) -> onnx.ModelProto:
    """The same network with its nodes in another order that is as good."""
    waiting = list(model.graph.node)
    random.Random(seed).shuffle(waiting)
    makers = {name: node for node in waiting for name in node.output}
    order: list[onnx.NodeProto] = []
    done: set[int] = set()
    for root in waiting:
        stack = [root]
        while stack:
            node = stack[-1]
            before = [makers[n] for n in node.input if n in makers and id(makers[n]) not in done]
            if before:
                stack += before
                continue
            stack.pop()
            if id(node) not in done:
                done.add(id(node))
                order.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in order]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    return model
