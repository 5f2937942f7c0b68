"""Write the other frameworks' test networks: a MobileNet in miniature, 64x64, never trained.

One network, in the forms that tpu_mlir reads by itself: TensorFlow Lite's, as floats and quantised
to INT8, and Caffe's. It has what MobileNets have (Howard et al. 2017, arXiv:1704.04861; Sandler et
al. 2018, arXiv:1801.04381): separable convolutions, a shortcut, one average of the whole picture, a
classifier, softmax. Neither framework is needed to write it.

Weights are random but alive, as in live_network.py: each convolution is measured on generated
pictures while the network grows. Activations are quantised as TensorFlow Lite specifies it (INT8
with a zero point, weights symmetric, one scale for each output channel of a convolution; Jacob et
al. 2018, arXiv:1712.05877), over the ranges that they have on those pictures. The bytes are the
same on every machine, for the same reasons as there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import click
import flatbuffers
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from live_network import samples
from make_shapes import CLASSES
from tpumake.caffe import messages
from tpumake.cli import atomic_write, run

__all__ = ["caffe", "network", "tflite"]

SIZE = 64
_SEED = 4
_SHIFT = 1.0
"""Mean of a convolution's output before ReLU: most of it passes."""
_SPREAD = 2.0
"""Deviation of each class's logit from picture to picture."""


@dataclass
class Layer:
    """One layer and its output on the sample pictures (float64, NCHW).

    Weights of a convolution: (out, in per group, kernel, kernel); of the classifier: (out, in).
    """

    name: str
    kind: str
    inputs: list[Layer]
    value: np.ndarray
    weight: np.ndarray = field(default_factory=lambda: np.empty(0))
    bias: np.ndarray = field(default_factory=lambda: np.empty(0))
    stride: int = 1
    relu: bool = False


class Builder:
    """Adds layers, each computed at once on the sample pictures.

    ``pad_first``: a convolution of stride 2 has its padding above and left of the picture, as
    Caffe's has; otherwise below and right, as TensorFlow's has for even sizes.
    """

    def __init__(self, pad_first: bool) -> None:
        self.layers = [Layer("input", "input", [], samples(64, 64))]
        self._pad_first = pad_first
        self._rng = np.random.RandomState(_SEED)

    def conv(
        self, name: str, width: int, kernel: int = 1, stride: int = 1, relu: bool = True,
        depthwise: bool = False,
    ) -> Layer:  # fmt: skip
        """Append a convolution of the last layer, to channels of about unit mean and deviation."""
        x = self.layers[-1]
        inputs = x.value.shape[1]
        weight = self._filters(width, 1 if depthwise else inputs, kernel)
        raw = self._convolve(x.value, weight, stride, inputs if depthwise else 1)
        scale = np.exp2(-np.round(np.log2(raw.std(axis=(0, 2, 3)))))
        raw *= scale[:, None, None]
        bias = (_SHIFT if relu else 0.0) - np.round(raw.mean(axis=(0, 2, 3)) * 8) / 8
        value = raw + bias[:, None, None]
        weight = (weight * scale[:, None, None, None]).astype(np.float32)
        kind = "depthwise" if depthwise else "conv"
        value = np.maximum(value, 0) if relu else value
        return self._add(Layer(name, kind, [x], value, weight, bias, stride, relu))

    def _filters(self, outputs: int, inputs: int, kernel: int) -> np.ndarray:
        """Random filters that see shapes more than noise, channels mixed without loss."""
        detail = self._rng.uniform(-1, 1, (outputs, inputs, kernel, kernel))
        if kernel == 1:
            return detail
        smooth = np.outer([1, 2, 1], [1, 2, 1]) / 4
        return self._rng.choice([-1.0, 1.0], (outputs, inputs, 1, 1)) * smooth + detail * 0.5

    def _convolve(self, x: np.ndarray, weight: np.ndarray, stride: int, group: int) -> np.ndarray:
        kernel = weight.shape[-1]
        edge = kernel // 2
        before, after = (edge, edge) if stride == 1 or self._pad_first else (0, edge)
        padded = np.pad(x, ((0, 0), (0, 0), (before, after), (before, after)))
        windows = sliding_window_view(padded, (kernel, kernel), axis=(2, 3))
        windows = windows[:, :, ::stride, ::stride][
            :, :, : x.shape[2] // stride, : x.shape[3] // stride
        ]
        parts = zip(np.split(windows, group, axis=1), np.split(weight, group), strict=True)
        return np.concatenate([np.einsum("nchwij,ocij->nohw", *part) for part in parts], axis=1)

    def separable(self, number: int, width: int, stride: int = 1, shortcut: bool = False) -> None:
        """Append a depthwise convolution and a pointwise one, with the sum of in- and output."""
        x = self.layers[-1]
        self.conv(f"conv{number}_dw", x.value.shape[1], 3, stride, depthwise=True)
        y = self.conv(f"conv{number}_pw", width, relu=not shortcut)
        if shortcut:
            value = np.maximum(x.value + y.value, 0)
            self._add(Layer(f"add{number}", "add", [x, y], value, relu=True))

    def head(self) -> None:
        """Append the average of the whole picture, the classifier, and softmax."""
        x = self.layers[-1]
        pooled = self._add(Layer("pool", "mean", [x], x.value.mean(axis=(2, 3))))
        weight = self._rng.uniform(-1, 1, (len(CLASSES), pooled.value.shape[1]))
        raw = pooled.value @ weight.T
        # Pictures differ little in their averages; what they differ in is what counts.
        scale = np.exp2(np.round(np.log2(_SPREAD / raw.std(axis=0))))
        bias = -np.round(raw.mean(axis=0) * scale * 8) / 8
        logits = raw * scale + bias
        weight = (weight * scale[:, None]).astype(np.float32)
        self._add(Layer("logits", "dense", [pooled], logits, weight, bias))
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        value = raised / raised.sum(axis=1, keepdims=True)
        self._add(Layer("prob", "softmax", [self.layers[-1]], value))

    def _add(self, layer: Layer) -> Layer:
        self.layers.append(layer)
        return layer


@cache
def network(pad_first: bool) -> list[Layer]:
    """Build the network: RGB from 0 to 1, (1, 3, 64, 64), to the probabilities of four classes."""
    b = Builder(pad_first)
    b.conv("conv1", 16, 3, 2)
    b.separable(2, 16, shortcut=True)
    b.separable(3, 32, stride=2)
    b.separable(4, 32, shortcut=True)
    b.separable(5, 48, stride=2)
    b.head()
    return b.layers


# ---------------------------------------------------------------------------------------------
# TensorFlow Lite: tables and numbers are those of tensorflow/lite/schema/schema.fbs. A field's
# place here is its place there.

_FLOAT32, _INT32, _INT8 = 0, 2, 9
_ADD, _CONV, _DEPTHWISE, _DEQUANTIZE, _DENSE, _SOFTMAX, _MEAN, _QUANTIZE = (
    0, 3, 4, 6, 9, 25, 40, 114,
)  # fmt: skip
_RELU = 1


class Flatbuffer:
    """Writes tables whose fields are given in the schema's order."""

    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(1 << 16)

    def vector(self, values: np.ndarray) -> Callable[[int], None]:
        """A field that is a list of numbers."""
        at = self.builder.CreateNumpyVector(np.ascontiguousarray(values))
        return self._offset(at)

    def bytes(self, data: bytes) -> Callable[[int], None]:
        """A field of bytes that programs read in place, as numbers of any kind."""
        self.builder.StartVector(1, len(data), 16)
        self.builder.head -= len(data)
        self.builder.Bytes[self.builder.head : self.builder.head + len(data)] = data
        return self._offset(self.builder.EndVector())

    def string(self, text: str) -> Callable[[int], None]:
        """A field of text."""
        return self._offset(self.builder.CreateString(text))

    def tables(self, offsets: list[int]) -> Callable[[int], None]:
        """A field that is a list of tables."""
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return self._offset(self.builder.EndVector())

    def table(self, fields: dict[int, object]) -> int:
        """A table; a plain number is a byte, ``int32`` and ``float32`` are NumPy's."""
        self.builder.StartObject(max(fields, default=0) + 1)
        for slot, value in fields.items():
            if callable(value):
                value(slot)
            elif isinstance(value, np.float32):
                self.builder.PrependFloat32Slot(slot, float(value), 0.0)
            elif isinstance(value, np.int32):
                self.builder.PrependInt32Slot(slot, int(value), 0)
            else:
                self.builder.PrependUint8Slot(slot, int(value), 0)
        return self.builder.EndObject()

    def _offset(self, at: int) -> Callable[[int], None]:
        return lambda slot: self.builder.PrependUOffsetTRelativeSlot(slot, at, 0)


@dataclass(frozen=True)
class Scale:
    """value = scale * (whole number - zero point); one scale, or one for each of ``axis``."""

    scale: np.ndarray
    zero_point: int = 0
    axis: int = 0

    def quantise(self, values: np.ndarray, kind: type) -> np.ndarray:
        """Round to whole numbers; a weight is never the one without a counterpart, -128."""
        shape = [-1 if axis == self.axis else 1 for axis in range(values.ndim)]
        scale = self.scale.reshape(shape) if self.scale.size > 1 else self.scale
        limits = np.iinfo(kind)
        rounded = np.round(values / scale) + self.zero_point
        return np.clip(rounded, -limits.max, limits.max).astype(kind)


def _activation_scale(layer: Layer) -> Scale:
    if layer.kind == "softmax":
        # The specification of softmax in INT8 says so.
        return Scale(np.array([1 / 256]), -128)
    low, high = min(layer.value.min(), 0), max(layer.value.max(), 0)
    # Rounded up, so that the last bit of a measurement doesn't count.
    scale = np.ceil((high - low) / 255 * 2**16) / 2**16
    return Scale(np.array([scale]), int(np.round(-128 - low / scale)))


class TFLite:
    """A network being written: its tensors, operators and the data of its weights."""

    def __init__(self, quantised: bool) -> None:
        self.quantised = quantised
        self.file = Flatbuffer()
        self.buffers = [self.file.table({})]
        self.tensors: list[int] = []
        self.operators: list[int] = []
        self.codes: list[tuple[int, int]] = []

    def tensor(
        self, name: str, shape: tuple[int, ...], kind: int, scale: Scale | None = None,
        data: np.ndarray | None = None,
    ) -> int:  # fmt: skip
        """Add a tensor and give its number."""
        fields: dict[int, object] = {}
        if data is not None:
            self.buffers.append(self.file.table({0: self.file.bytes(data.tobytes())}))
            fields[2] = np.int32(len(self.buffers) - 1)
        if scale:
            points = np.full(scale.scale.size, scale.zero_point, np.int64)
            quantisation = {
                2: self.file.vector(scale.scale.astype(np.float32)),
                3: self.file.vector(points),
                6: np.int32(scale.axis),
            }
            fields[4] = self.file._offset(self.file.table(quantisation))
        fields[0] = self.file.vector(np.array(shape, np.int32))
        fields[3] = self.file.string(name)
        fields[1] = kind
        self.tensors.append(self.file.table(fields))
        return len(self.tensors) - 1

    def operator(
        self, code: int, version: int, inputs: list[int], output: int, options_type: int = 0,
        options: dict[int, object] | None = None,
    ) -> None:  # fmt: skip
        """Add an operator; ``version`` is the least that has what is used of it."""
        if (code, version) not in self.codes:
            self.codes.append((code, version))
        fields: dict[int, object] = {}
        if options is not None:
            fields[4] = self.file._offset(self.file.table(options))
            fields[3] = options_type
        fields[1] = self.file.vector(np.array(inputs, np.int32))
        fields[2] = self.file.vector(np.array([output], np.int32))
        fields[0] = np.int32(self.codes.index((code, version)))
        self.operators.append(self.file.table(fields))

    def layer(self, layer: Layer, inputs: list[int], scales: list[Scale]) -> tuple[int, Scale]:
        """Add a layer's tensors and its operator; gives its output and how that is quantised."""
        scale = _activation_scale(layer)
        shape = (1, *layer.value.shape[1:])
        if len(shape) == 4:
            shape = (shape[0], *shape[2:], shape[1])
        kind = _INT8 if self.quantised else _FLOAT32
        if layer.weight.size:
            inputs = [*inputs, *self._weights(layer, scales[0])]
        elif layer.kind == "mean":
            axes = np.array([1, 2], np.int32)
            inputs = [*inputs, self.tensor(f"{layer.name}/axes", (2,), _INT32, data=axes)]
        output = self.tensor(layer.name, shape, kind, scale if self.quantised else None)
        stride, relu = np.int32(layer.stride), _RELU if layer.relu else 0
        code, versions, options_type, options = {
            "conv": (_CONV, (1, 3), 1, {1: stride, 2: stride, 3: relu, 4: _ONE, 5: _ONE}),
            "depthwise": (
                _DEPTHWISE, (1, 3), 2, {1: stride, 2: stride, 3: _ONE, 4: relu, 5: _ONE, 6: _ONE},
            ),
            "add": (_ADD, (1, 2), 11, {0: relu}),
            "mean": (_MEAN, (1, 2), 27, {}),
            "dense": (_DENSE, (1, 4), 8, {}),
            "softmax": (_SOFTMAX, (1, 2), 9, {0: np.float32(1)}),
        }[layer.kind]  # fmt: skip
        self.operator(code, versions[self.quantised], inputs, output, options_type, options)
        return output, scale

    def _weights(self, layer: Layer, scale: Scale) -> list[int]:
        # Output channels first and last: (out, h, w, in); for each channel its own: (1, h, w, out).
        weight = layer.weight
        if layer.kind == "conv":
            weight = weight.transpose(0, 2, 3, 1)
        elif layer.kind == "depthwise":
            weight = weight.transpose(1, 2, 3, 0)
        names = (f"{layer.name}/weights", f"{layer.name}/bias")
        bias = layer.bias.astype(np.float32)
        if not self.quantised:
            return [
                self.tensor(names[0], weight.shape, _FLOAT32, data=weight),
                self.tensor(names[1], bias.shape, _FLOAT32, data=bias),
            ]
        axis = 3 if layer.kind == "depthwise" else 0
        others = tuple(other for other in range(weight.ndim) if other != axis)
        # A dense layer has one scale.
        largest = np.abs(weight).max(axis=others if layer.kind != "dense" else None)
        of_weight = Scale(np.atleast_1d(largest / np.float32(127)), axis=axis)
        of_bias = Scale(of_weight.scale * scale.scale)
        return [
            self.tensor(names[0], weight.shape, _INT8, of_weight,
                        of_weight.quantise(weight, np.int8)),
            self.tensor(names[1], bias.shape, _INT32, of_bias, of_bias.quantise(bias, np.int32)),
        ]  # fmt: skip

    def finish(self, inputs: int, outputs: int) -> bytes:
        """The file."""
        file = self.file
        # Programs that know only the first 127 operators look into the first field.
        codes = [
            file.table({0: min(code, 127), 2: np.int32(version), 3: np.int32(code)})
            for code, version in self.codes
        ]
        graph = file.table({
            0: file.tables(self.tensors),
            1: file.vector(np.array([inputs], np.int32)),
            2: file.vector(np.array([outputs], np.int32)),
            3: file.tables(self.operators),
            4: file.string("main"),
        })  # fmt: skip
        model = file.table({
            1: file.tables(codes),
            2: file.tables([graph]),
            3: file.string("a MobileNet in miniature"),
            4: file.tables(self.buffers),
            0: np.int32(3),
        })  # fmt: skip
        file.builder.Finish(model, b"TFL3")
        return bytes(file.builder.Output())


_ONE = np.int32(1)


def tflite(quantised: bool) -> bytes:
    """Write the network for TensorFlow Lite.

    :param quantised: to INT8; its in- and output stay floats, as the converter leaves them unless
        told otherwise
    """
    layers = network(pad_first=False)
    new = TFLite(quantised)
    numbers: dict[str, int] = {}
    scales: dict[str, Scale] = {}
    for layer in layers:
        if layer.kind == "input":
            numbers[layer.name], scales[layer.name] = _input(new, layer)
            continue
        numbers[layer.name], scales[layer.name] = new.layer(
            layer,
            [numbers[x.name] for x in layer.inputs],
            [scales[x.name] for x in layer.inputs],
        )
    output = numbers["prob"]
    if quantised:
        output = new.tensor("probabilities", (1, len(CLASSES)), _FLOAT32)
        new.operator(_DEQUANTIZE, 2, [numbers["prob"]], output)
    return new.finish(0, output)


def _input(new: TFLite, layer: Layer) -> tuple[int, Scale]:
    """The input, and for a quantised network its conversion; from 0 to 1 in 255 steps."""
    shape = (1, SIZE, SIZE, 3)
    scale = Scale(np.array([1 / 255]), -128)
    if not new.quantised:
        return new.tensor(layer.name, shape, _FLOAT32), scale
    number = new.tensor(layer.name, shape, _FLOAT32)
    inner = new.tensor("quantised", shape, _INT8, scale)
    new.operator(_QUANTIZE, 1, [number], inner)
    return inner, scale


# ---------------------------------------------------------------------------------------------
# Caffe: the structure as text, the weights as caffe.proto has them.


def caffe() -> tuple[str, bytes]:
    """Write the network for Caffe: the text of its .prototxt, the bytes of its .caffemodel.

    Each convolution is one of Caffe's without bias, followed by BatchNorm and Scale as usual there.
    """
    text = [
        'name: "mobile"',
        _block("layer", name="input", type="Input", top="input",
               input_param={"shape": {"dim": [1, 3, SIZE, SIZE]}}),
    ]  # fmt: skip
    net = messages()["NetParameter"](name="mobile")
    for layer in network(pad_first=True)[1:]:
        text += _caffe_layer(layer, net)
    return "\n".join(text) + "\n", net.SerializeToString(deterministic=True)


def _caffe_layer(layer: Layer, net) -> list[str]:
    name = layer.name
    bottoms = [x.name for x in layer.inputs]
    if layer.kind in ("conv", "depthwise"):
        outputs, _, kernel, _ = layer.weight.shape
        param = {"num_output": outputs, "bias_term": False, "kernel_size": kernel}
        param |= {"pad": kernel // 2, "stride": layer.stride}
        param |= {"group": outputs} if layer.kind == "depthwise" else {}
        text = [_block("layer", name=name, type="Convolution", bottom=bottoms, top=name,
                       convolution_param=param)]  # fmt: skip
        # Mean 0 and variance 1, then nothing but the bias: but the numbers are not so plain, so
        # that a mean, variance, factor or scale that is left out shows.
        factor = np.float32(2)
        mean = np.full(outputs, 0.25, np.float32)
        variance = np.full(outputs, 4 - 1e-5, np.float32)
        scale = np.full(outputs, 2, np.float32)
        text.append(_block("layer", name=f"{name}_bn", type="BatchNorm", bottom=name, top=name,
                           batch_norm_param={"use_global_stats": True}))  # fmt: skip
        text.append(_block("layer", name=f"{name}_scale", type="Scale", bottom=name, top=name,
                           scale_param={"bias_term": True}))  # fmt: skip
        _blobs(net, name, "Convolution", layer.weight)
        _blobs(net, f"{name}_bn", "BatchNorm", mean * factor, variance * factor, factor[None])
        _blobs(net, f"{name}_scale", "Scale", scale, layer.bias.astype(np.float32) + mean)
        return text + _relu(layer)
    if layer.kind == "add":
        return [
            _block("layer", name=name, type="Eltwise", bottom=bottoms, top=name,
                   eltwise_param={"operation": "SUM"}),
            *_relu(layer),
        ]  # fmt: skip
    if layer.kind == "mean":
        return [_block("layer", name=name, type="Pooling", bottom=bottoms, top=name,
                       pooling_param={"pool": "AVE", "global_pooling": True})]  # fmt: skip
    if layer.kind == "dense":
        _blobs(net, name, "InnerProduct", layer.weight, layer.bias.astype(np.float32))
        return [_block("layer", name=name, type="InnerProduct", bottom=bottoms, top=name,
                       inner_product_param={"num_output": len(layer.weight)})]  # fmt: skip
    return [_block("layer", name=name, type="Softmax", bottom=bottoms, top=name)]


def _relu(layer: Layer) -> list[str]:
    """In place, as is usual there."""
    name = layer.name
    return [_block("layer", name=f"{name}_relu", type="ReLU", bottom=name, top=name)] * layer.relu


# Words that stand for themselves in the text form, and not for text.
_ENUMS = ("SUM", "AVE")


def _block(head: str, **fields: object) -> str:
    """Write a message in protobuf's text form."""
    lines = [f"{head} {{"]
    for key, value in fields.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                inner = _block(key, **one)
            elif isinstance(one, bool) or one in _ENUMS or isinstance(one, int):
                inner = f"{key}: {str(one).lower() if isinstance(one, bool) else one}"
            else:
                inner = f'{key}: "{one}"'
            lines += [f"  {line}" for line in inner.splitlines()]
    return "\n".join([*lines, "}"])


def _blobs(net, name: str, kind: str, *blobs: np.ndarray) -> None:
    layer = net.layer.add(name=name, type=kind)
    for values in blobs:
        blob = layer.blobs.add(data=values.ravel().tolist())
        blob.shape.dim.extend(values.shape)


@click.command(help="Write mobile_f32.tflite, mobile_int8.tflite, mobile.prototxt and .caffemodel.")
@click.argument("folder", type=click.Path(file_okay=False, exists=True, path_type=Path))
def command(folder: Path) -> None:
    """Write the networks into FOLDER."""
    text, weights = caffe()
    files = {
        "mobile_f32.tflite": tflite(quantised=False),
        "mobile_int8.tflite": tflite(quantised=True),
        "mobile.prototxt": text.encode("ascii"),
        "mobile.caffemodel": weights,
    }
    for name, content in files.items():
        with atomic_write(folder / name) as path:
            path.write_bytes(content)


if __name__ == "__main__":
    run(command)
