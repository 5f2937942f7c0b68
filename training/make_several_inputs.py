#!/usr/bin/env python3
"""Write the test networks that take other things than one picture, with samples to build them by.

``pair.onnx`` takes a picture and a vector, ``stereo.onnx`` two pictures, ``vector.onnx`` none: it
is one block of a transformer over feature vectors (Vaswani et al. 2017, arXiv:1706.03762). Weights
are random but scaled by what goes in, so that no output is constant, no input is without effect,
and INT8 has a fair chance. Weights and samples come from a frozen random stream.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from make_shapes import draw
from tpumake.cli import run

__all__ = ["NETWORKS", "build", "samples"]

SIZE = 32
WIDTH = 16
TOKENS = 8
NETWORKS = {
    "pair": {"image": (1, 3, SIZE, SIZE), "vector": (1, WIDTH)},
    "stereo": {"left": (1, 3, SIZE, SIZE), "right": (1, 3, SIZE, SIZE)},
    "vector": {"features": (1, TOKENS, WIDTH)},
}
"""Each network's inputs, all float32: name and shape."""


class Graph:
    """Collects nodes and weights; every layer is named by its output."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._rng = np.random.RandomState(seed)

    def constant(self, name: str, value: np.ndarray) -> str:
        """Store a weight."""
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def add(self, operator: str, output: str, *inputs: str, **attributes: object) -> str:
        """Append a node."""
        self.nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output

    def weight(self, name: str, *shape: int) -> str:
        """A weight that keeps the deviation of what it is multiplied with (He et al. 2015)."""
        fan_in = np.prod(shape[1:]) if len(shape) == 4 else shape[0]
        limit = np.sqrt(3 / fan_in)
        return self.constant(name, self._rng.uniform(-limit, limit, shape).astype(np.float32))

    def conv(self, output: str, x: str, inputs: int, outputs: int, stride: int = 1) -> str:
        """Append a 3x3 convolution and a ReLU."""
        weight = self.weight(f"{output}.weight", outputs, inputs, 3, 3)
        bias = self.constant(f"{output}.bias", np.full(outputs, 0.25, np.float32))
        raw = self.add("Conv", f"{output}.conv", x, weight, bias, kernel_shape=[3, 3],
                       pads=[1, 1, 1, 1], strides=[stride, stride])  # fmt: skip
        return self.add("Relu", output, raw)

    def linear(self, output: str, x: str, inputs: int, outputs: int) -> str:
        """Append a matrix product and a bias."""
        raw = self.add(
            "MatMul", f"{output}.product", x, self.weight(f"{output}.weight", inputs, outputs)
        )
        bias = self._rng.uniform(-0.2, 0.2, outputs).astype(np.float32)
        return self.add("Add", output, raw, self.constant(f"{output}.bias", bias))


def _pair(g: Graph) -> dict[str, tuple[int, ...]]:
    x = g.conv("c1", g.conv("c0", "image", 3, 8, 2), 8, WIDTH, 2)
    gate = g.add("Sigmoid", "gate", g.linear("dense", "vector", WIDTH, WIDTH))
    shape = g.constant("shape", np.array([1, WIDTH, 1, 1], np.int64))
    x = g.add("Mul", "gated", x, g.add("Reshape", "gates", gate, shape))
    g.conv("out", x, WIDTH, 8)
    return {"out": (1, 8, SIZE // 4, SIZE // 4)}


def _stereo(g: Graph) -> dict[str, tuple[int, ...]]:
    left, right = g.conv("l0", "left", 3, 8, 2), g.conv("r0", "right", 3, 8, 2)
    g.conv("out", g.add("Concat", "both", left, right, axis=1), 16, 8, 2)
    return {"out": (1, 8, SIZE // 4, SIZE // 4)}


def _vector(g: Graph) -> dict[str, tuple[int, ...]]:
    q, k, v = (g.linear(name, "features", WIDTH, WIDTH) for name in "qkv")
    scores = g.add("MatMul", "scores", q, g.add("Transpose", "k.t", k, perm=[0, 2, 1]))
    scaled = g.add("Mul", "scaled", scores, g.constant("scale", np.array(0.25, np.float32)))
    heads = g.add("MatMul", "heads", g.add("Softmax", "attention", scaled, axis=-1), v)
    x = g.add("Add", "residual", heads, "features")
    x = g.add("Relu", "hidden", g.linear("up", x, WIDTH, 2 * WIDTH))
    g.linear("out", x, 2 * WIDTH, WIDTH)
    return {"out": (1, TOKENS, WIDTH)}


def build(name: str) -> onnx.ModelProto:
    """Build one of ``NETWORKS``; its output is ``out``."""
    g = Graph(7)
    outputs = {"pair": _pair, "stereo": _stereo, "vector": _vector}[name](g)
    graph = helper.make_graph(
        g.nodes,
        name,
        [helper.make_tensor_value_info(*each) for each in _described(NETWORKS[name])],
        [helper.make_tensor_value_info(*each) for each in _described(outputs)],
        g.weights,
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model, full_check=True)
    return model


def _described(tensors: dict[str, tuple[int, ...]]) -> list[tuple[str, int, tuple[int, ...]]]:
    return [(name, TensorProto.FLOAT, shape) for name, shape in tensors.items()]


def samples(name: str, count: int) -> list[dict[str, np.ndarray]]:
    """Samples for one of ``NETWORKS``, float32: pictures from 0 to 1, others from -1 to 1."""
    rng = np.random.RandomState(11)
    made = []
    for index in range(count):
        sample = {}
        for place, (tensor, shape) in enumerate(NETWORKS[name].items()):
            if len(shape) == 4:
                picture = np.asarray(draw(3, 2 * index + place, SIZE * 5, SIZE * 5)[0])
                blocks = picture.reshape(SIZE, 5, SIZE, 5, 3).mean(axis=(1, 3))
                value = blocks.transpose(2, 0, 1)[None] / 255
            else:
                value = rng.uniform(-1, 1, shape)
            sample[tensor] = value.astype(np.float32)
        made.append(sample)
    return made


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--count", default=12, show_default=True, help="Samples of each network.")
def command(folder: Path, count: int) -> None:
    """Write the test networks of several inputs, and without pictures, into FOLDER.

    Each NAME.onnx has a folder NAME with samples as .npz files.
    """
    for name in NETWORKS:
        (folder / name).mkdir(parents=True, exist_ok=True)
        onnx.save(build(name), folder / f"{name}.onnx")
        for index, sample in enumerate(samples(name, count)):
            np.savez(folder / name / f"{index:02}.npz", **sample)


if __name__ == "__main__":
    run(command)
