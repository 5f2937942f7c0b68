#!/usr/bin/env python3
"""Which ONNX operators tpu_mlir can compile, for which chip, in which precision: measured.

A maintainer's tool, run in the toolchain's own Python:

    .toolchain/1.7/run python3 training/measure_operators.py 1.7 table.json

Each operator is put behind a convolution, in a network of its own that is read, compared with ONNX
Runtime in float, lowered and compiled. ``table.json`` is what tpumake/preflight/operators.py reads.
Operators are those of opset 17, which every network is brought to before tpu_mlir sees it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Chips that compile alike are one family. What stands for each, and the precisions that it has.
FAMILIES = {
    "cv18x": ("cv181x", ("int8", "bf16")),
    "bm1684x": ("bm1684x", ("int8", "f16", "f32")),
    "bm1684": ("bm1684", ("int8", "f32")),
    "bm1688": ("bm1688", ("int8", "f16")),
}
CHIPS = {
    "cv180x": "cv18x", "cv181x": "cv18x", "cv182x": "cv18x", "cv183x": "cv18x",
    "bm1684x": "bm1684x", "bm1684": "bm1684", "bm1688": "bm1688", "cv186x": "bm1688",
}  # fmt: skip
# What reads and compiles takes seconds here; a hang is a result, too.
PATIENCE = 120
SHAPE = (1, 8, 12, 12)
COSINE = 0.999

Build = Callable[["Net"], str]


class Net:
    """A network that is being written: an image, a convolution, and what a case adds to it."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.values = np.random.RandomState(7)
        kernel = self.const(self.values.standard_normal((8, 3, 1, 1)).astype(np.float32))
        self.x = self.op("Conv", "image", kernel)

    def const(self, value: object, dtype: type = np.float32) -> str:
        """Add a weight."""
        name = f"w{len(self.weights)}"
        array = value if isinstance(value, np.ndarray) else np.array(value, dtype)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def ints(self, *values: int) -> str:
        """Add a weight of whole numbers, such as axes."""
        return self.const(np.array(values, np.int64))

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        """Add a node; gives its first output."""
        if kind in ("Conv", "ConvTranspose"):
            # Of ONNX's optional attributes this is one that tpu_mlir insists on.
            kernel = next(each for each in self.weights if each.name == inputs[1])
            attributes = {"kernel_shape": list(kernel.dims[2:])} | attributes
        attributes = {key: value for key, value in attributes.items() if value != []}
        names = [f"t{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=names[0], **attributes))
        return names[0]

    def other(self) -> str:
        """A second tensor that depends on the image, of the same shape."""
        kernel = self.const(self.values.standard_normal((8, 3, 1, 1)).astype(np.float32))
        return self.op("Conv", "image", kernel)

    def positive(self) -> str:
        """A tensor of positive numbers."""
        return self.op("Add", self.op("Sigmoid", self.x), self.const(0.1))

    def flags(self) -> str:
        """A tensor of truth values."""
        return self.op("Greater", self.x, self.other())

    def number(self, flag: str) -> str:
        """What was compared, as a number: outputs are numbers."""
        return self.op("Cast", flag, to=TensorProto.FLOAT)

    def finish(self, output: str) -> onnx.ModelProto:
        """The network with this output."""
        graph = helper.make_graph(
            self.nodes, "one",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, *SHAPE[2:]))],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)], self.weights,
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return onnx.shape_inference.infer_shapes(model)


def cases() -> dict[str, tuple[str, dict, Build]]:
    """Cases by name: operator, the attributes that tell the case from the operator's others."""
    # fmt: off
    found: dict[str, tuple[str, dict, Build]] = {}

    def add(kind: str, build: Build, name: str = "", **told: object) -> None:
        found[name or kind] = (kind.partition("-")[0], told, build)

    for kind in (
        "Abs", "Ceil", "Cos", "Erf", "Exp", "Flatten", "Floor", "GlobalAveragePool",
        "GlobalMaxPool", "HardSwish", "Identity", "LeakyRelu", "Neg", "Relu",
        "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softmax", "Softplus", "Softsign", "Sinh",
        "Cosh", "Tan", "Tanh", "ThresholdedRelu", "Celu", "LogSoftmax", "Hardmax",
        "Shrink", "GlobalLpPool", "Asinh", "Atan", "MeanVarianceNormalization",
    ):
        add(kind, lambda n, k=kind: n.op(k, n.x))
    # An attribute that is told as None is left out: ONNX has a default, tpu_mlir another, or none.
    for kind, attribute in (("Elu", "alpha"), ("HardSigmoid", "alpha"), ("Transpose", "perm")):
        add(kind, lambda n, k=kind: n.op(k, n.x), f"{kind}-default", **{attribute: None})
    for kind in ("Log", "Sqrt", "Reciprocal"):
        add(kind, lambda n, k=kind: n.op(k, n.positive()))
    for kind in ("Acos", "Asin", "Atanh"):
        add(kind, lambda n, k=kind: n.op(k, n.op("Mul", n.op("Tanh", n.x), n.const(0.9))))
    add("Acosh", lambda n: n.op("Acosh", n.op("Add", n.positive(), n.const(1.0))))
    for kind in ("Add", "Sub", "Mul", "Max", "Min", "Mean", "Sum"):
        add(kind, lambda n, k=kind: n.op(k, n.x, n.other()))
    add("Div", lambda n: n.op("Div", n.x, n.positive()))
    add("Div-const", lambda n: n.op("Div", n.x, n.const(3.0)))
    add("Pow", lambda n: n.op("Pow", n.positive(), n.const(2.5)))
    add("Pow-tensor", lambda n: n.op("Pow", n.positive(), n.op("Relu", n.x)))
    add("Mod", lambda n: n.op("Mod", n.x, n.const(0.7), fmod=1))
    add("PRelu", lambda n: n.op("PRelu", n.x, n.const(np.full((8, 1, 1), 0.2, np.float32))))
    add("Clip", lambda n: n.op("Clip", n.x, n.const(0.0), n.const(6.0)))
    for kind in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal"):
        add(kind, lambda n, k=kind: n.number(n.op(k, n.x, n.other())))
    for kind in ("And", "Or", "Xor"):
        add(kind, lambda n, k=kind: n.number(n.op(k, n.flags(), n.op("Less", n.x, n.other()))))
    add("Not", lambda n: n.number(n.op("Not", n.flags())))
    add("Where", lambda n: n.op("Where", n.flags(), n.x, n.other()))
    add("Cast", lambda n: n.op("Cast", n.op("Cast", n.x, to=TensorProto.INT32),
                               to=TensorProto.FLOAT))
    for kind in ("IsNaN", "IsInf"):
        add(kind, lambda n, k=kind: n.number(n.op(k, n.x)))

    conv = (8, 8, 3, 3)
    add("Conv", lambda n: n.op("Conv", n.x, n.const(n.values.standard_normal(conv).astype("f"))))
    add("Conv-grouped", lambda n: n.op("Conv", n.x, n.const(
        n.values.standard_normal((8, 1, 3, 3)).astype("f")), group=8))
    add("Conv-1d", lambda n: n.op("Conv", n.op("Reshape", n.x, n.ints(1, 8, 144)), n.const(
        n.values.standard_normal((8, 8, 3)).astype("f"))))
    add("Conv-3d", lambda n: n.op("Conv", n.op("Reshape", n.x, n.ints(1, 2, 4, 12, 12)), n.const(
        n.values.standard_normal((4, 2, 3, 3, 3)).astype("f"))))
    add("ConvTranspose", lambda n: n.op("ConvTranspose", n.x, n.const(
        n.values.standard_normal((8, 4, 2, 2)).astype("f")), strides=[2, 2]))
    add("ConvInteger", lambda n: n.number(n.op("ConvInteger", n.op(
        "Cast", n.op("Relu", n.x), to=TensorProto.UINT8), n.const(np.ones(conv, np.uint8)))))
    add("MatMul", lambda n: n.op("MatMul", n.x, n.const(
        n.values.standard_normal((12, 5)).astype("f"))))
    add("MatMul-tensors", lambda n: n.op("MatMul", n.x, n.other()))
    add("Gemm", lambda n: n.op("Gemm", n.op("Flatten", n.x), n.const(
        n.values.standard_normal((5, 1152)).astype("f")), n.const(np.ones(5, "f")), transB=1))
    add("Einsum", lambda n: n.op("Einsum", n.op("Reshape", n.x, n.ints(8, 144)), n.const(
        n.values.standard_normal((144, 5)).astype("f")), equation="ij,jk->ik"))
    add("BatchNormalization", lambda n: n.op("BatchNormalization", n.op("Relu", n.x), *(
        n.const(np.linspace(0.5, 1.5, 8, dtype="f")) for _ in range(4))))
    scale = np.linspace(0.5, 1.5, 8, dtype=np.float32)
    add("InstanceNormalization", lambda n: n.op(
        "InstanceNormalization", n.x, n.const(scale), n.const(scale)))
    add("LayerNormalization", lambda n: n.op("LayerNormalization", n.x, n.const(
        np.linspace(0.5, 1.5, 12, dtype="f")), axis=-1))
    add("LpNormalization", lambda n: n.op("LpNormalization", n.x, axis=1))
    add("LRN", lambda n: n.op("LRN", n.x, size=5))
    for kind in ("AveragePool", "MaxPool"):
        add(kind, lambda n, k=kind: n.op(k, n.x, kernel_shape=[2, 2], strides=[2, 2]))
        add(f"{kind}-ceil", lambda n, k=kind: n.op(
            k, n.x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1), ceil_mode=1)
    add("MaxPool-dilated", lambda n: n.op(
        "MaxPool", n.x, kernel_shape=[2, 2], strides=[1, 1], dilations=[2, 2]))
    add("LpPool", lambda n: n.op("LpPool", n.x, kernel_shape=[2, 2], strides=[2, 2]))
    add("MaxUnpool", lambda n: _unpool(n))
    add("MaxRoiPool", lambda n: n.op("MaxRoiPool", n.x, n.const([[0, 1, 1, 6, 6]]),
                                     pooled_shape=[2, 2]))
    add("RoiAlign", lambda n: n.op("RoiAlign", n.x, n.const([[1, 1, 6, 6]]), n.ints(0),
                                   output_height=2, output_width=2))
    for kind in (
        "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
        "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare",
    ):
        add(kind, lambda n, k=kind: n.op(k, n.positive(), axes=[3]))
    add("ReduceSum", lambda n: n.op("ReduceSum", n.x, n.ints(3)))
    for kind in ("ArgMax", "ArgMin"):
        add(kind, lambda n, k=kind: n.number(n.op(k, n.x, axis=1)))
    add("TopK", lambda n: n.op("TopK", n.op("Reshape", n.x, n.ints(8, 144)), n.ints(4), outputs=2))
    add("CumSum", lambda n: n.op("CumSum", n.x, n.const(np.array(2, np.int64))))
    add("NonZero", lambda n: n.number(n.op("NonZero", n.x)))
    add("Unique", lambda n: n.op("Unique", n.op("Flatten", n.x)))
    add("Det", lambda n: n.op("Det", n.x))
    add("OneHot", lambda n: n.op("OneHot", n.op("ArgMax", n.x, axis=1), n.const(
        np.array(8, np.int64)), n.const([0.0, 1.0])))
    add("Trilu", lambda n: n.op("Trilu", n.x))
    add("EyeLike", lambda n: n.op("Add", n.op("Reshape", n.x, n.ints(32, 36)), n.op(
        "EyeLike", n.op("Reshape", n.x, n.ints(32, 36)))))

    add("Concat", lambda n: n.op("Concat", n.x, n.other(), axis=1))
    add("Split", lambda n: n.op("Add", *_split(n)))
    add("Slice", lambda n: n.op("Slice", n.x, n.ints(1), n.ints(7), n.ints(3)))
    add("Slice-strided", lambda n: n.op("Slice", n.x, n.ints(0), n.ints(12), n.ints(3), n.ints(2)))
    add("Slice-backwards", lambda n: n.op("Slice", n.x, n.ints(-1), n.ints(-13), n.ints(3),
                                          n.ints(-1)))
    add("Squeeze", lambda n: n.op("Squeeze", n.x, n.ints(0)))
    add("Unsqueeze", lambda n: n.op("Unsqueeze", n.op("Squeeze", n.x, n.ints(0)), n.ints(1)))
    add("Reshape", lambda n: n.op("Reshape", n.x, n.ints(1, 4, 24, 12)))
    add("Expand", lambda n: n.op("Expand", n.op("ReduceMax", n.x, axes=[3]), n.ints(1, 8, 12, 5)))
    add("Tile", lambda n: n.op("Tile", n.x, n.ints(1, 1, 2, 1)))
    add("Gather", lambda n: n.op("Gather", n.x, n.ints(1, 3), axis=2))
    add("GatherElements", lambda n: n.op("GatherElements", n.x, n.const(
        np.zeros((1, 8, 12, 3), np.int64)), axis=3))
    add("GatherND", lambda n: n.op("GatherND", n.x, n.const(np.array([[0, 1], [0, 3]], np.int64))))
    add("ScatterND", lambda n: n.op("ScatterND", n.x, n.const(np.array([[0, 1]], np.int64)),
                                    n.const(np.ones((1, 12, 12), "f"))))
    add("ScatterElements", lambda n: n.op("ScatterElements", n.x, n.const(
        np.zeros((1, 8, 12, 3), np.int64)), n.const(np.ones((1, 8, 12, 3), "f")), axis=3))
    add("DepthToSpace", lambda n: n.op("DepthToSpace", n.x, blocksize=2))
    add("SpaceToDepth", lambda n: n.op("SpaceToDepth", n.x, blocksize=2))
    add("ReverseSequence", lambda n: n.op("ReverseSequence", n.op(
        "Reshape", n.x, n.ints(8, 144)), n.const(np.full(8, 3, np.int64)), batch_axis=0,
        time_axis=1))
    add("Compress", lambda n: n.op("Compress", n.x, n.const(
        np.array([1, 0, 1, 1, 0, 0, 1, 0], bool)), axis=1))
    pads = (0, 0, 1, 1, 0, 0, 2, 2)
    for mode in ("constant", "reflect", "edge"):
        add("Pad", lambda n, m=mode: n.op("Pad", n.x, n.ints(*pads), mode=m), f"Pad-{mode}",
            mode=mode)
    for mode in ("nearest", "linear", "cubic"):
        add("Resize", lambda n, m=mode: n.op(
            "Resize", n.x, "", n.const([1, 1, 2, 2]), mode=m,
            coordinate_transformation_mode="asymmetric" if m == "nearest" else "half_pixel"),
            f"Resize-{mode}", mode=mode)
    add("Resize", lambda n: n.op("Resize", n.x, "", n.const([1, 1, 2, 2]), mode="linear",
        coordinate_transformation_mode="align_corners"), "Resize-corners",
        mode="linear", coordinate_transformation_mode="align_corners")
    grid = np.linspace(-0.9, 0.9, 50, dtype=np.float32).reshape(1, 5, 5, 2)
    said = {"padding_mode": "zeros", "align_corners": 0}
    for mode in ("bilinear", "nearest", "bicubic"):
        add("GridSample", lambda n, m=mode: n.op("GridSample", n.x, n.const(grid), mode=m, **said),
            f"GridSample-{mode}", mode=mode)
    for name in ("mode", "padding_mode"):
        rest = {k: v for k, v in ({"mode": "bilinear"} | said).items() if k != name}
        add("GridSample", lambda n, r=rest: n.op("GridSample", n.x, n.const(grid), **r),
            f"GridSample-without-{name}", **{name: None})
    for kind, gates in (("GRU", 3), ("LSTM", 4), ("RNN", 1)):
        add(kind, lambda n, k=kind, g=gates: n.op(
            k, n.op("Reshape", n.x, n.ints(8, 1, 144)),
            n.const(n.values.standard_normal((1, 6 * g, 144)).astype("f") / 20),
            n.const(n.values.standard_normal((1, 6 * g, 6)).astype("f") / 5), hidden_size=6,
            **({"linear_before_reset": 1} if k == "GRU" else {})))
    add("Dropout", lambda n: n.op("Dropout", n.x))
    add("QuantizeLinear", lambda n: n.op("DequantizeLinear", n.op(
        "QuantizeLinear", n.x, n.const(np.float32(0.05)), n.const(np.array(0, np.int8))),
        n.const(np.float32(0.05)), n.const(np.array(0, np.int8))))
    add("DynamicQuantizeLinear", lambda n: n.number(n.op("DynamicQuantizeLinear", n.x, outputs=3)))
    add("QLinearConv", lambda n: _quantised(n))
    add("MatMulInteger", lambda n: n.number(n.op("MatMulInteger", n.op(
        "Cast", n.op("Relu", n.x), to=TensorProto.UINT8), n.const(np.ones((12, 5), np.uint8)))))
    add("NonMaxSuppression", lambda n: n.number(n.op(
        "NonMaxSuppression", n.op("Reshape", n.x, n.ints(1, 288, 4)),
        n.op("Reshape", n.other(), n.ints(1, 4, 288)), n.ints(5), n.const(0.5), n.const(0.1))))
    add("Range", lambda n: n.op("Add", n.x, n.number(n.op("Range", *(
        n.const(np.array(v, np.int64)) for v in (0, 12, 1))))))
    add("BitShift", lambda n: n.number(n.op("BitShift", n.op(
        "Cast", n.op("Relu", n.x), to=TensorProto.UINT8), n.const(np.array(1, np.uint8)),
        direction="LEFT")))
    add("Transpose", lambda n: n.op("Transpose", n.x, perm=[0, 2, 3, 1]))
    add("Elu", lambda n: n.op("Elu", n.x, alpha=1.0))
    add("HardSigmoid", lambda n: n.op("HardSigmoid", n.x, alpha=1 / 6, beta=0.5))
    add("Where-constant", lambda n: n.op(
        "Where", n.const(np.tri(12, dtype=bool)), n.x, n.const(-1e4)))
    for kind in ("Greater", "Less", "Equal"):
        add(f"{kind}-constant", lambda n, k=kind: n.number(n.op(k, n.x, n.const(0.25))))
    add("ScatterND-deep", lambda n: n.op(
        "ScatterND", n.x, n.const(np.array([[[0, 1, 2, 3], [0, 3, 2, 1]]], np.int64)),
        n.const(np.ones((1, 2), "f"))))
    heads = (1, 4, 24, 12)
    add("Einsum-attention", lambda n: n.op(
        "Einsum", n.op("Reshape", n.x, n.ints(*heads)), n.op("Reshape", n.other(), n.ints(*heads)),
        equation="bhid,bhjd->bhij"))
    # Not Erf by itself, but what tpu_mlir makes GELU of.
    add("Gelu", lambda n: n.op("Mul", n.op("Mul", n.x, n.op("Add", n.op("Erf", n.op(
        "Div", n.x, n.const(2**0.5))), n.const(1.0))), n.const(0.5)))
    add("Conv-shapeless", lambda n: n.op(
        "Conv", n.x, n.const(n.values.standard_normal(conv).astype("f")), kernel_shape=[]),
        kernel_shape=None)
    add("DFT", lambda n: n.op("DFT", n.op("Reshape", n.x, n.ints(8, 144, 1)), axis=1))
    add("If", lambda n: _branches(n))
    add("RandomNormalLike", lambda n: n.op("Add", n.x, n.op("RandomNormalLike", n.x)))
    # fmt: on
    return found


def _split(net: Net) -> list[str]:
    net.op("Split", net.x, outputs=2, axis=1)
    return list(net.nodes[-1].output)


def _unpool(net: Net) -> str:
    net.op("MaxPool", net.x, outputs=2, kernel_shape=[2, 2], strides=[2, 2])
    return net.op("MaxUnpool", *net.nodes[-1].output, kernel_shape=[2, 2], strides=[2, 2])


def _quantised(net: Net) -> str:
    step, zero = net.const(np.float32(0.05)), net.const(np.array(0, np.int8))
    weights = net.const(np.ones((8, 8, 1, 1), np.int8))
    values = net.op("QuantizeLinear", net.x, step, zero)
    made = net.op("QLinearConv", values, step, zero, weights, step, zero, step, zero)
    return net.op("DequantizeLinear", made, step, zero)


def _branches(net: Net) -> str:
    def body(kind: str, name: str) -> onnx.GraphProto:
        return helper.make_graph(
            [helper.make_node(kind, [net.x], [name])], name, [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE)],
        )  # fmt: skip

    top = net.op("ReduceMax", net.x, keepdims=0)
    return net.op("If", net.op("Greater", top, net.const(0.0)),
                  then_branch=body("Relu", "yes"), else_branch=body("Abs", "no"))  # fmt: skip


# --- in a process of its own, in a folder of its own ---------------------------------------------


def measure(build: Build, families: list[str]) -> dict[str, str]:
    """What came of one case: empty where all is well, else what went wrong, by step.

    ``read``: tpu_mlir doesn't read it, or computes something else in float; CHIP:PRECISION: the
    same of the compiler for that chip.
    """
    from tools.model_runner import mlir_inference, onnx_inference
    from transform.OnnxConverter import OnnxConverter
    from utils.mlir_shell import mlir_lowering, mlir_opt_for_top, mlir_to_model

    net = Net()
    model = net.finish(build(net))
    onnx.save(model, "one.onnx")
    picture = np.random.RandomState(3).uniform(-1, 1, (1, 3, *SHAPE[2:])).astype(np.float32)
    try:
        converter = OnnxConverter("one", "one.onnx", [[1, 3, *SHAPE[2:]]], [], "")
        converter.generate_mlir("one_origin.mlir")
        mlir_opt_for_top("one_origin.mlir", "one.mlir")
        done = mlir_inference({"image": picture}, "one.mlir")
    except (Exception, SystemExit) as error:
        return {"read": told(error)}
    result = {"read": compare(onnx_inference({"image": picture}, "one.onnx"), done)}
    table(done, Path("one.table"))
    for family in families:
        chip, precisions = FAMILIES[family]
        for precision in precisions:
            print(f"== {family} {precision}", flush=True)
            suffix = "cvimodel" if family == "cv18x" else "bmodel"
            try:
                mlir_lowering("one.mlir", "low.mlir", precision, chip,
                              cali_table="one.table" if precision == "int8" else None)  # fmt: skip
                mlir_to_model("low.mlir", f"one.{suffix}", "final.mlir")
                said = "" if Path(f"one.{suffix}").stat().st_size else "no model"
            except (Exception, SystemExit) as error:
                said = told(error)
            result[f"{family}:{precision}"] = said
            for left in Path().glob(f"one*.{suffix}"):
                left.unlink()
    return result


def told(error: BaseException) -> str:
    """An error in a few words, without paths."""
    text = " ".join(str(error).split())
    if text.startswith("[!Error]"):
        stage = next((s for s in ("codegen", "convert-top-to-tpu", "strip-io", "shape-infer")
                      if s in text), "tpuc-opt")  # fmt: skip
        return f"{stage} failed"
    return f"{type(error).__name__}: {text}"[:160]


def compare(wanted: dict, found: dict) -> str:
    """Whether the float network agrees with ONNX Runtime; empty if it does."""
    for name, values in wanted.items():
        made = next((v for k, v in found.items() if k == name or k.startswith(f"{name}_")), None)
        if made is None:
            continue
        a, b = np.ravel(values).astype(np.float64), np.ravel(made).astype(np.float64)
        if a.size != b.size:
            return f"gives {b.size} numbers for {a.size}"
        norm = np.linalg.norm(a) * np.linalg.norm(b)
        cosine = float(a @ b / norm) if norm else float(np.allclose(a, b))
        if not cosine > COSINE:
            return f"computes something else (cosine {cosine:.3f})"
    return ""


def table(tensors: dict, path: Path) -> None:
    """A calibration table of the tensors' own ranges."""
    lines = ["# genetated time: -", "# histogram number: 2048", "# sample number: 1", "###",
             "# op_name    threshold    min    max"]  # fmt: skip
    for name, values in tensors.items():
        low, high = float(np.min(values)), float(np.max(values))
        most = max(abs(low), abs(high)) or 1e-5
        lines.append(f"{name} {most:.7f} {low:.7f} {high:.7f}")
    path.write_text("\n".join(lines) + "\n")


# --- all of them ---------------------------------------------------------------------------------


def run_case(build: Build, families: list[str], log: Path) -> dict[str, str]:
    """Measure one case in a fork, since the compiler aborts the process that it is in."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        os.close(reading)
        sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(BaseException):
            os.chdir(folder)
            signal.alarm(PATIENCE)
            os.write(writing, json.dumps(measure(build, families)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if text:
        result = json.loads(text)
        if result.get("read"):
            result["read"] = _clearer(result["read"], log)
        for key, said in result.items():
            if said.endswith(" failed"):
                result[key] = _assertion(log, key) or said
        return result
    return {"read": _clearer(f"aborts (status {status})", log)}


def _clearer(said: str, log: Path) -> str:
    text = log.read_text(errors="replace").partition("\n== ")[0]
    found = re.search(r"(UNREACHABLE|Assertion).*", text)
    return _pathless(found[0]) if found and "not support" not in said else said


def _assertion(log: Path, key: str) -> str:
    text = log.read_text(errors="replace")
    part = text.partition(f"== {key.replace(':', ' ')}\n")[2].partition("\n== ")[0]
    found = re.search(
        r"(UNREACHABLE executed at \S+|\S*: Assertion .*|error: .*|not support.*)", part
    )
    return _pathless(found[0]) if found else ""


def _pathless(text: str) -> str:
    return re.sub(r"\S*/(?=[\w.]+\.\w+)", "", text)[:160]


def main() -> None:
    """Measure what is asked for; what a table has already is measured again only with --again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("version")
    parser.add_argument("table", type=Path)
    parser.add_argument("--only", nargs="*", help="names of cases, or operators")
    parser.add_argument("--logs", type=Path, default=Path(tempfile.gettempdir()) / "operators")
    parser.add_argument("--again", action="store_true")
    chosen = parser.parse_args()
    chosen.logs.mkdir(parents=True, exist_ok=True)
    # Imported before the forks, which share it.
    from tools import model_runner  # noqa: F401
    from transform.OnnxConverter import OnnxConverter

    known = json.loads(chosen.table.read_text())["cases"] if chosen.table.exists() else {}
    reads = sorted(OnnxConverter("x", _nothing(), [], [], "").onnxop_factory)
    for name, (kind, attributes, build) in sorted(cases().items()):
        wanted = not chosen.only or name in chosen.only or kind in chosen.only
        if not wanted or (name in known and not chosen.again):
            continue
        started = time.monotonic()
        found = run_case(build, list(FAMILIES), chosen.logs / f"{name}.log")
        trouble = {key: said for key, said in found.items() if said}
        known[name] = {"operator": kind, "attributes": attributes, "trouble": trouble}
        print(f"{name:<28} {time.monotonic() - started:5.1f} s  {trouble or 'ok'}", flush=True)
        document = {"tpu_mlir": chosen.version, "families": CHIPS, "reads": reads,
                    "cases": dict(sorted(known.items()))}  # fmt: skip
        chosen.table.write_text(json.dumps(document, indent=1) + "\n")


def _nothing() -> onnx.ModelProto:
    net = Net()
    return net.finish(net.x)


if __name__ == "__main__":
    sys.exit(main())
