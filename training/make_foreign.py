#!/usr/bin/env python3
"""Write the small networks of other frameworks that the tests import (tests/data/frameworks).

Run it in the framework's own environment:
`.extras/torch/run training/make_foreign.py torch FOLDER`.
All compute the same: a picture of 64×64 goes through seven convolutions and comes out as 8 channels
of 16×16. The weights are random, but scaled layer by layer so that no output is near a constant:
on one that is, every comparison passes. The tests assert that.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np

SIZE = 64
# Input channels, output channels, kernel, stride, groups; a ReLU follows all but the last.
LAYERS = ((3, 16, 3, 2, 1), (16, 16, 3, 1, 16), (16, 24, 1, 1, 1), (24, 24, 3, 2, 24),
          (24, 32, 1, 1, 1), (32, 32, 3, 1, 1), (32, 8, 1, 1, 1))  # fmt: skip


def weights() -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernel (output, input / groups, height, width) and bias of each layer, float32.

    Scaled as He et al. 2015 (arXiv:1502.01852) do, so that ReLUs keep the spread of values.
    """
    random = np.random.RandomState(4)
    made = []
    for inputs, outputs, kernel, _, groups in LAYERS:
        shape = (outputs, inputs // groups, kernel, kernel)
        spread = np.sqrt(2 / np.prod(shape[1:]))
        made.append((random.normal(0, spread, shape), random.uniform(-0.2, 0.2, outputs)))
    return [(kernel.astype(np.float32), bias.astype(np.float32)) for kernel, bias in made]


def make_torch(folder: Path) -> None:
    """TorchScript; a pickled nn.Sequential; a checkpoint as Ultralytics writes them."""
    import torch

    layers: list[torch.nn.Module] = []
    for (inputs, outputs, size, stride, groups), (kernel, bias) in zip(
        LAYERS, weights(), strict=True
    ):
        layer = torch.nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups)
        layer.weight.data, layer.bias.data = torch.from_numpy(kernel), torch.from_numpy(bias)
        layers += [layer, torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers[:-1]).eval()
    torch.jit.trace(network, torch.rand(1, 3, SIZE, SIZE)).save(str(folder / "net.torchscript"))
    torch.save(network, folder / "sequential.pt")
    torch.save({"model": _tiny_yolo(torch).half(), "ema": None, "epoch": -1}, folder / "yolo.pt")


def _tiny_yolo(torch) -> object:
    """A YOLO11 in miniature, its normalisations warmed up so that it is alive."""
    from ultralytics.nn.tasks import DetectionModel

    os.chdir(tempfile.gettempdir())
    torch.manual_seed(1)
    stem = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [16, 3, 2]], [-1, 1, "C2f", [16, True]],
            [-1, 1, "Conv", [24, 3, 2]], [-1, 1, "C3k2", [24, False]],
            [-1, 1, "Conv", [32, 3, 2]], [-1, 1, "SPPF", [32, 5]]]  # fmt: skip
    head = [[-1, 1, "nn.Upsample", [None, 2, "nearest"]], [[-1, 4], 1, "Concat", [1]],
            [-1, 1, "C2f", [24]], [[9, 6], 1, "Detect", ["nc"]]]  # fmt: skip
    network = DetectionModel({"nc": 3, "reg_max": 4, "backbone": stem, "head": head}, verbose=False)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    network.train()
    with torch.no_grad():
        for _ in range(8):
            pictures = torch.rand(8, 3, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
            network.forward(pictures)
    network.eval()
    detect = network.model[-1]
    for branch in (*detect.cv2, *detect.cv3):
        branch[-1].weight.data *= 4
    network.criterion, network.args = None, None
    return network


def make_tensorflow(folder: Path) -> None:
    """A frozen graph, a SavedModel with an open batch, TensorFlow Lite in float and INT8."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    constants = [(tf.constant(kernel), tf.constant(bias)) for kernel, bias in weights()]

    def network(picture):
        value = picture
        for number, ((_, _, size, stride, groups), (kernel, bias)) in enumerate(
            zip(LAYERS, constants, strict=True)
        ):
            pads = [[0, 0], [size // 2] * 2, [size // 2] * 2, [0, 0]]
            value = tf.pad(value, pads) if size > 1 else value
            if groups > 1:
                kernel = tf.transpose(kernel, [2, 3, 0, 1])
                value = tf.nn.depthwise_conv2d(value, kernel, [1, stride, stride, 1], "VALID")
            else:
                kernel = tf.transpose(kernel, [2, 3, 1, 0])
                value = tf.nn.conv2d(value, kernel, stride, "VALID")
            value = tf.nn.bias_add(value, bias)
            value = tf.nn.relu(value) if number < len(LAYERS) - 1 else value
        return value

    fixed = tf.function(network).get_concrete_function(
        tf.TensorSpec([1, SIZE, SIZE, 3], tf.float32, name="input")
    )
    frozen = convert_variables_to_constants_v2(fixed).graph.as_graph_def()
    (folder / "net.pb").write_bytes(frozen.SerializeToString(deterministic=True))
    module = tf.Module()
    module.run = tf.function(network)
    signature = tf.TensorSpec([None, SIZE, SIZE, 3], tf.float32, name="picture")
    tf.saved_model.save(
        module, str(folder / "saved_model"), module.run.get_concrete_function(signature)
    )
    random = np.random.RandomState(0)

    def samples():
        for _ in range(20):
            yield [random.rand(1, SIZE, SIZE, 3).astype(np.float32)]

    for name, quantised in (("net", False), ("net_int8", True)):
        converter = tf.lite.TFLiteConverter.from_concrete_functions([fixed])
        if quantised:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = samples
        (folder / f"{name}.tflite").write_bytes(converter.convert())


def make_paddle(folder: Path) -> None:
    """An inference model as Paddle 3 keeps it, with open sizes, and one as Paddle 2 does."""
    import paddle

    layers = []
    for (inputs, outputs, size, stride, groups), (kernel, bias) in zip(
        LAYERS, weights(), strict=True
    ):
        layer = paddle.nn.Conv2D(inputs, outputs, size, stride, size // 2, groups=groups)
        layer.weight.set_value(kernel)
        layer.bias.set_value(bias)
        layers += [layer, paddle.nn.ReLU()]
    network = paddle.nn.Sequential(*layers[:-1])
    network.eval()
    spec = paddle.static.InputSpec([None, 3, None, None], "float32", "image")
    paddle.jit.save(network, str(folder / "paddle3" / "inference"), input_spec=[spec])
    with paddle.pir_utils.OldIrGuard():
        paddle.enable_static()
        program, start = paddle.static.Program(), paddle.static.Program()
        with paddle.static.program_guard(program, start):
            image = paddle.static.data("image", [-1, 3, SIZE, SIZE], "float32")
            value = image
            for number, ((_, outputs, size, stride, groups), made) in enumerate(
                zip(LAYERS, weights(), strict=True)
            ):
                kernel, bias = (paddle.nn.initializer.Assign(one) for one in made)
                value = paddle.static.nn.conv2d(
                    value, outputs, size, stride, size // 2, groups=groups, param_attr=kernel,
                    bias_attr=bias, act="relu" if number < len(LAYERS) - 1 else None,
                )  # fmt: skip
            executor = paddle.static.Executor(paddle.CPUPlace())
            executor.run(start)
            paddle.static.save_inference_model(
                str(folder / "paddle2" / "inference"), [image], [value], executor
            )
    _forget_where(folder / "paddle2" / "inference.pdmodel")


def _forget_where(network: Path) -> None:
    """Paddle notes for each operator which lines of which files made it; take that out again."""
    from paddle.base.proto import framework_pb2

    program = framework_pb2.ProgramDesc()
    program.ParseFromString(network.read_bytes())
    for block in program.blocks:
        for operator in block.ops:
            kept = [one for one in operator.attrs if one.name != "op_callstack"]
            del operator.attrs[:]
            operator.attrs.extend(kept)
    network.write_bytes(program.SerializeToString(deterministic=True))


def main() -> None:
    """Write the networks of one framework."""
    makers = {"torch": make_torch, "tensorflow": make_tensorflow, "paddle": make_paddle}
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("framework", choices=makers)
    arguments.add_argument("folder", type=Path)
    chosen = arguments.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    makers[chosen.framework](chosen.folder.resolve())


if __name__ == "__main__":
    main()
