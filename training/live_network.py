"""Build an ONNX network node by node, with random weights under which it is alive.

A network as a framework initialises it has nearly constant outputs, and every comparison of it
passes; with batch normalisation merely switched on it is chaotic instead, and none does. Here each
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

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from onnx import helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from make_shapes import draw

__all__ = ["Builder", "Tensor", "anchors", "samples", "scope"]

_SEED = 6
_SHIFT = 1.0
"""Mean of every convolution's output: where most of SiLU's curve is used, and not its flat end."""
_DETAIL = 0.5
"""Share of spatial randomness in filters, beside smoothing."""


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
        name = scope(module)
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
            pads=[(kernel - 1) // 2] * 4,
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
        row = np.poly([-1.0] * (kernel - 1))  # 1 2 1, and so on
        return mix * (np.outer(row, row) * 4 / row.sum() ** 2 * 9 / kernel**2 + detail * _DETAIL)

    def block(
        self, module: str, x: Tensor, width: int, kernel: int = 1, stride: int = 1, group: int = 1
    ) -> Tensor:
        """Append a convolution and SiLU, which the exporter writes as Sigmoid and Mul."""
        y = self.conv(f"{module}.conv", x, width, kernel, stride, group)
        act = scope(f"{module}.act")
        gate = self.node("Sigmoid", f"{act}/Sigmoid", [y.name], _sigmoid(y.value))
        return self.node("Mul", f"{act}/Mul", [y.name, gate.name], y.value * gate.value)

    def c3k2(self, module: str, x: Tensor, width: int, residual: bool = True) -> Tensor:
        """Append a split whose second half passes a bottleneck, and join all (C3k2 of YOLO11)."""
        y = self.block(f"{module}.cv1", x, width)
        first, second = self.halve(f"{scope(module)}/Split", y)
        z = self.block(f"{module}.m.0.cv1", second, width // 4, 3)
        z = self.block(f"{module}.m.0.cv2", z, width // 2, 3)
        if residual:
            z = self.add(f"{scope(module + '.m.0')}/Add", second, z)
        joined = self.concat(f"{scope(module)}/Concat", [first, second, z])
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
            name = f"{scope(module)}/m{suffix}/MaxPool"
            steps.append(self.max_pool(name, steps[-1], 5, 1, 2, 2))
        return self.block(f"{module}.cv2", self.concat(f"{scope(module)}/Concat", steps), width)

    def max_pool(
        self, name: str, x: Tensor, kernel: int, stride: int, before: int, after: int
    ) -> Tensor:
        """Append a MaxPool, padded above and left by ``before``, below and right by ``after``."""
        return self.node(
            "MaxPool",
            name,
            [x.name],
            _max_pool(x.value, kernel, stride, before, after),
            ceil_mode=0,
            dilations=[1, 1],
            kernel_shape=[kernel, kernel],
            pads=[before, before, after, after],
            strides=[stride, stride],
        )

    def relu(self, name: str, x: Tensor, slope: float = 0.0) -> Tensor:
        """Append a Relu, or a LeakyRelu where there is a slope."""
        if slope:
            value = np.where(x.value < 0, slope * x.value, x.value)
            return self.node("LeakyRelu", name, [x.name], value, alpha=slope)
        return self.node("Relu", name, [x.name], np.maximum(x.value, 0))

    def add(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        """Append an Add."""
        return self.node("Add", name, [x.name, y.name], x.value + y.value)

    def upsample(self, module: str, x: Tensor) -> Tensor:
        """Append a Resize to twice the size, nearest pixel."""
        name = scope(module)
        scales = self.constant(f"{name}/Constant_output_0", np.array([1, 1, 2, 2], np.float32))
        return self.node(
            "Resize",
            f"{name}/Resize",
            [x.name, "", scales],
            x.value.repeat(2, axis=2).repeat(2, axis=3),
            coordinate_transformation_mode="asymmetric",
            cubic_coeff_a=-0.75,
            mode="nearest",
            nearest_mode="floor",
        )


def samples(count: int, size: int) -> np.ndarray:
    """Return pictures of shapes in 0..1, float64 (count, 3, size, size); size divides 320.

    No decoder and no scaler takes part, for these differ from version to version.
    """
    pictures = np.stack([draw(_SEED, index, 320, 320)[0] for index in range(count)])
    side = 320 // size
    blocks = pictures.reshape(count, size, side, size, side, 3).astype(np.float64)
    return blocks.mean(axis=(2, 4)).transpose(0, 3, 1, 2) / 255


def anchors(size: int, strides: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return where a detection head looks, at each stride row by row, in an input of ``size``.

    :returns: float32, the places' centres in cells, x and y, (1, 2, places), and their strides in
        pixels, (1, places)
    """
    centres, steps = [], []
    for stride in strides:
        y, x = np.mgrid[0 : size // stride, 0 : size // stride] + 0.5
        centres.append(np.stack([x.ravel(), y.ravel()]))
        steps.append(np.full(x.size, stride))
    return (
        np.concatenate(centres, axis=1)[None].astype(np.float32),
        np.concatenate(steps)[None].astype(np.float32),
    )


def scope(module: str) -> str:
    """Turn a module's name into the exporter's scope: a list's items keep their list's name.

    >>> scope("model.2.m.0.cv1.conv")
    '/model.2/m.0/cv1/conv'
    >>> scope("model.23.cv3.0.1.0.act")
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
    edge = (kernel - 1) // 2
    padded = np.pad(x, ((0, 0), (0, 0), (edge, edge), (edge, edge)))
    windows = sliding_window_view(padded, (kernel, kernel), axis=(2, 3))[:, :, ::stride, ::stride]
    parts = zip(np.split(windows, group, axis=1), np.split(weight, group), strict=True)
    return np.concatenate([np.einsum("nchwij,ocij->nohw", *part) for part in parts], axis=1)


def _max_pool(x: np.ndarray, kernel: int, stride: int, before: int, after: int) -> np.ndarray:
    edges = ((0, 0), (0, 0), (before, after), (before, after))
    padded = np.pad(x, edges, constant_values=-np.inf)
    windows = sliding_window_view(padded, (kernel, kernel), axis=(2, 3))
    return windows[:, :, ::stride, ::stride].max(axis=(4, 5))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
