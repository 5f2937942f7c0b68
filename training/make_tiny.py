"""Write the tiny test network: a YOLO11 in miniature, 64x64, under 100 kB, never trained.

Names, operators and ending are those of an ultralytics export (opset 19, IR 9), so that whatever
handles real networks is exercised in a fraction of a second. Weights are random but alive: each
convolution is measured on generated pictures while the graph grows, then scaled and shifted much
as batch normalisation does (Ioffe and Szegedy 2015, arXiv:1502.03167), so that no output is
constant and INT8 has a fair chance.

The bytes are the same on every machine: weights come from a frozen uniform random stream, the
measuring is done in float64, and what it yields is rounded to powers of two and to eighths.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from make_shapes import CLASSES, draw
from tpumake.cli import atomic_write, run

__all__ = ["build", "samples"]

SIZE = 64
STRIDES = (8, 16, 32)
BINS = 16
"""Bins of the distance distribution for each side of a box (Li et al. 2020, arXiv:2006.04388)."""

_SEED = 6
_SAMPLES = 64
_SHIFT = 1.0
"""Mean of every convolution's output: where most of SiLU's curve is used, and not its flat end."""
_DETAIL = 0.5
"""Share of spatial randomness in 3x3 filters, beside smoothing."""


class Tensor:
    """A named value of the growing graph and what it is on the sample pictures (float64, NCHW)."""

    def __init__(self, name: str, value: np.ndarray) -> None:
        self.name = name
        self.value = value


class Builder:
    """Adds nodes named as PyTorch's exporter does, computing each one at once."""

    def __init__(self, samples: np.ndarray) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.images = Tensor("images", samples)
        self._rng = np.random.RandomState(_SEED)

    def constant(self, name: str, value: np.ndarray) -> str:
        """Store an initializer and return its name."""
        self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def node(
        self,
        operator: str,
        name: str,
        inputs: Sequence[str],
        value: np.ndarray,
        **attributes: object,
    ) -> Tensor:
        """Append a node of one output, whose value on the samples the caller has computed."""
        output = f"{name}_output_0"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name, **attributes))
        return Tensor(output, value)

    def conv(
        self, module: str, x: Tensor, width: int, kernel: int = 1, stride: int = 1, group: int = 1
    ) -> Tensor:
        """Append a convolution to ``width`` channels of about unit mean and unit deviation."""
        weight = self._filters((width, x.value.shape[1] // group, kernel, kernel))
        raw = _convolve(x.value, weight, stride, group)
        scale = _unit_scale(raw)
        raw *= scale[:, None, None]
        bias = _SHIFT - np.round(raw.mean(axis=(0, 2, 3)) * 8) / 8
        weight = weight * scale[:, None, None, None]
        # "model.2.cv1.conv" becomes "/model.2/cv1/conv/Conv", as the exporter writes scopes.
        name = _scope(module)
        return self.node(
            "Conv",
            f"{name}/Conv",
            [
                x.name,
                self.constant(f"{module}.weight", weight.astype(np.float32)),
                self.constant(f"{module}.bias", bias.astype(np.float32)),
            ],
            raw + bias[:, None, None],
            dilations=[1, 1],
            group=group,
            kernel_shape=[kernel, kernel],
            pads=[kernel // 2] * 4,
            strides=[stride, stride],
        )

    def _filters(self, shape: tuple[int, int, int, int]) -> np.ndarray:
        """Return random filters (out, in, kernel, kernel) that an INT8 network can live with.

        Channels are mixed by an orthogonal matrix, so that no small difference of large values
        is blown up; in space the filters see shapes more than noise, as trained ones do.
        """
        outputs, inputs, kernel, _ = shape
        mix = self._rng.uniform(-1, 1, (max(outputs, inputs), min(outputs, inputs)))
        q, r = np.linalg.qr(mix)
        q = q * np.sign(np.diag(r))
        mix = (q if outputs >= inputs else q.T)[:, :, None, None]
        detail = self._rng.uniform(-1, 1, shape)
        if kernel == 1:
            return mix
        smooth = np.outer([1, 2, 1], [1, 2, 1]) / 4
        return mix * (smooth + detail * _DETAIL)

    def block(
        self, module: str, x: Tensor, width: int, kernel: int = 1, stride: int = 1, group: int = 1
    ) -> Tensor:
        """Append a convolution and SiLU, which the exporter writes as Sigmoid and Mul."""
        y = self.conv(f"{module}.conv", x, width, kernel, stride, group)
        scope = _scope(f"{module}.act")
        gate = self.node("Sigmoid", f"{scope}/Sigmoid", [y.name], _sigmoid(y.value))
        return self.node("Mul", f"{scope}/Mul", [y.name, gate.name], y.value * gate.value)

    def c3k2(self, module: str, x: Tensor, width: int, residual: bool = True) -> Tensor:
        """Append a split whose second half passes a bottleneck, and join all (C3k2 of YOLO11)."""
        y = self.block(f"{module}.cv1", x, width)
        first, second = self.halve(f"{_scope(module)}/Split", y)
        z = self.block(f"{module}.m.0.cv1", second, width // 4, 3)
        z = self.block(f"{module}.m.0.cv2", z, width // 2, 3)
        if residual:
            inputs = [second.name, z.name]
            z = self.node("Add", f"{_scope(module + '.m.0')}/Add", inputs, second.value + z.value)
        joined = self.concat(f"{_scope(module)}/Concat", [first, second, z])
        return self.block(f"{module}.cv2", joined, width)

    def halve(self, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """Append a Split along the channels into two equal parts."""
        half = x.value.shape[1] // 2
        sizes = self.constant(f"onnx::Split_{len(self.nodes)}", np.array([half, half], np.int64))
        names = [f"{name}_output_0", f"{name}_output_1"]
        self.nodes.append(helper.make_node("Split", [x.name, sizes], names, name, axis=1))
        return Tensor(names[0], x.value[:, :half]), Tensor(names[1], x.value[:, half:])

    def concat(self, name: str, parts: Sequence[Tensor], axis: int = 1) -> Tensor:
        """Append a Concat."""
        value = np.concatenate([part.value for part in parts], axis)
        return self.node("Concat", name, [part.name for part in parts], value, axis=axis)

    def sppf(self, module: str, x: Tensor, width: int) -> Tensor:
        """Append three poolings in a row and join what they see (SPPF of YOLO)."""
        steps = [self.block(f"{module}.cv1", x, width // 2)]
        for suffix in ("", "_1", "_2"):
            steps.append(
                self.node(
                    "MaxPool",
                    f"{_scope(module)}/m{suffix}/MaxPool",
                    [steps[-1].name],
                    _max_pool_5(steps[-1].value),
                    ceil_mode=0,
                    dilations=[1, 1],
                    kernel_shape=[5, 5],
                    pads=[2, 2, 2, 2],
                    strides=[1, 1],
                )
            )
        return self.block(f"{module}.cv2", self.concat(f"{_scope(module)}/Concat", steps), width)

    def upsample(self, module: str, x: Tensor) -> Tensor:
        """Append a Resize to twice the size, nearest pixel."""
        scope = _scope(module)
        scales = self.constant(f"{scope}/Constant_output_0", np.array([1, 1, 2, 2], np.float32))
        return self.node(
            "Resize",
            f"{scope}/Resize",
            [x.name, "", scales],
            x.value.repeat(2, axis=2).repeat(2, axis=3),
            coordinate_transformation_mode="asymmetric",
            cubic_coeff_a=-0.75,
            mode="nearest",
            nearest_mode="floor",
        )


def build() -> onnx.ModelProto:
    """Build the network: float32 ``images`` (1, 3, 64, 64) to ``output0`` (1, 8, 84).

    ``output0`` holds, for each of 84 places, centre x, centre y, width and height in pixels and the
    probabilities of four classes. Before its decoding end there are the six tensors
    ``/model.23/cv2.{0,1,2}/cv2.{0,1,2}.2/Conv_output_0`` (1, 64, h, w) and
    ``/model.23/cv3.…`` (1, 4, h, w), at strides 8, 16 and 32.
    """
    b = Builder(samples())
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
    centres, strides = _anchors()
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


def _anchors() -> tuple[np.ndarray, np.ndarray]:
    """Return the places' centres in cells, (1, 2, 84), and their strides in pixels, (1, 84)."""
    centres, strides = [], []
    for stride in STRIDES:
        side = SIZE // stride
        y, x = np.mgrid[0:side, 0:side] + 0.5
        centres.append(np.stack([x.ravel(), y.ravel()]))
        strides.append(np.full(side * side, stride))
    return (
        np.concatenate(centres, axis=1)[None].astype(np.float32),
        np.concatenate(strides)[None].astype(np.float32),
    )


def samples() -> np.ndarray:
    """Return pictures of shapes in 0..1, (n, 3, 64, 64).

    No decoder and no scaler takes part, for these differ from version to version.
    """
    pictures = np.stack([draw(_SEED, index, 320, 320)[0] for index in range(_SAMPLES)])
    blocks = pictures.reshape(_SAMPLES, SIZE, 5, SIZE, 5, 3).astype(np.float64).mean(axis=(2, 4))
    return blocks.transpose(0, 3, 1, 2) / 255


def _scope(module: str) -> str:
    """Turn a module's name into the exporter's scope: a list's items keep their list's name.

    >>> _scope("model.2.m.0.cv1.conv")
    '/model.2/m.0/cv1/conv'
    >>> _scope("model.23.cv3.0.1.0.act")
    '/model.23/cv3.0/cv3.0.1/cv3.0.1.0/act'
    """
    scopes: list[str] = []
    for part in module.split("."):
        if not part.isdecimal():
            scopes.append(part)
        elif scopes[-1] in ("model", "m", "cv2", "cv3"):
            scopes[-1] += f".{part}"
        else:
            scopes.append(f"{scopes[-1]}.{part}")
    return "/" + "/".join(scopes)


def _unit_scale(x: np.ndarray) -> np.ndarray:
    """Return for each channel the power of two that brings its deviation near 1, signed.

    The sign turns the longer tail of the distribution down, where SiLU flattens it: otherwise a
    few outliers would grow from layer to layer and leave INT8 no steps for everything else.
    Channels of little deviation are not raised to that of the others entirely.
    """
    centred = x - x.mean(axis=(0, 2, 3), keepdims=True)
    deviation = centred.std(axis=(0, 2, 3))
    deviation = np.maximum(deviation, deviation.max() / 4)
    sign = np.where((centred**3).mean(axis=(0, 2, 3)) > 0, -1.0, 1.0)
    return sign * np.exp2(-np.round(np.log2(deviation)))


def _convolve(x: np.ndarray, weight: np.ndarray, stride: int, group: int) -> np.ndarray:
    kernel = weight.shape[-1]
    edge = kernel // 2
    padded = np.pad(x, ((0, 0), (0, 0), (edge, edge), (edge, edge)))
    windows = sliding_window_view(padded, (kernel, kernel), axis=(2, 3))[:, :, ::stride, ::stride]
    parts = zip(np.split(windows, group, axis=1), np.split(weight, group), strict=True)
    return np.concatenate([np.einsum("nchwij,ocij->nohw", *part) for part in parts], axis=1)


def _max_pool_5(x: np.ndarray) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)), constant_values=-np.inf)
    return sliding_window_view(padded, (5, 5), axis=(2, 3)).max(axis=(4, 5))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@click.command()
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
def command(target: Path) -> None:
    """Write the tiny test network to TARGET (.onnx)."""
    content = build().SerializeToString(deterministic=True)
    with atomic_write(target) as path:
        path.write_bytes(content)


if __name__ == "__main__":
    run(command)
