"""What an ONNX network does with its pictures before its first layer.

Many exports carry part of the normalisation with them: Sub and Div or Mul, or a BatchNormalization
whose statistics tell what pixels it saw in training. From these follows which range of values the
network wants to be fed with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from tpumake.onnx_io import Network

__all__ = ["Entry", "entry_of"]

_PASSING = {"Identity", "Cast", "Transpose", "Dropout"}
_ARITHMETIC = {"Add", "Sub", "Mul", "Div"}
_MOST_CHANNELS = 4
# What a network is made for is small numbers about 0.
_SMALL = 10.0


@dataclass(frozen=True)
class Entry:
    """The first operators: for a value x of channel c they give ``gain[c]`` · x + ``offset[c]``.

    ``mean`` and ``deviation`` are what a BatchNormalization then expects of that, if one follows.
    """

    operators: tuple[str, ...]
    gain: np.ndarray
    offset: np.ndarray
    mean: np.ndarray | None = None
    deviation: np.ndarray | None = None

    @property
    def takes(self) -> int:
        """The largest value of a pixel that it wants: 255 or 1, or 0 if that can't be told."""
        if self.mean is not None and self.deviation is not None:
            centre = float(np.mean((self.mean - self.offset) / self.gain))
            spread = float(np.mean(self.deviation / np.abs(self.gain)))
            if 40 < centre < 215 and 20 < spread < 130:
                return 255
            return 1 if 0.15 < centre < 0.85 and 0.08 < spread < 0.5 else 0
        if not self.operators:
            return 0
        gain, low = self.gain, self.offset
        if np.abs([low, 255 * gain + low]).max() <= _SMALL:
            return 255
        # A mean of pixels alone, as Caffe's networks have it.
        if np.all(np.abs(gain - 1) < 0.01) and np.all(low < -50):
            return 255
        of_unit = np.abs([low, gain + low]).max() <= _SMALL and np.all(gain > 0.9)
        # One that is made for 1 in mean and deviation would not be shifted by much.
        shifted = np.all(low <= -0.4)
        back = np.all((gain > 200) & (gain < 260))
        return 1 if (of_unit and shifted) or back else 0

    @property
    def colours(self) -> np.ndarray:
        """The means that it subtracts, or saw, of pixels from 0 to 255; 0 if none."""
        centre = -self.offset if self.mean is None else self.mean - self.offset
        return centre / self.gain * (255 if self.takes == 1 else 1)

    def __str__(self) -> str:
        return " and ".join(self.operators) or "nothing"


def entry_of(network: Network, name: str) -> Entry | None:
    """Follow the input from its name to the first operator that is more than arithmetic.

    :returns: None where there is none, or more than one way to go
    """
    graph = network.model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    weights[node.output[0]] = attribute.t

    def constant(tensor: str) -> np.ndarray | None:
        """Numbers for one or all channels."""
        if tensor not in weights or int(np.prod(weights[tensor].dims)) > _MOST_CHANNELS:
            return None
        return np.asarray(network.array(weights[tensor]), np.float64).reshape(-1)

    users: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for each in node.input:
            users.setdefault(each, []).append(node)
    operators, gain, offset = [], np.ones(1), np.zeros(1)
    while len(following := users.get(name, [])) == 1:
        node = following[0]
        if node.op_type == "BatchNormalization" and len(node.input) == 5 and node.input[0] == name:
            mean, variance = constant(node.input[3]), constant(node.input[4])
            if mean is None or variance is None or np.any(gain == 0):
                return None
            operators.append(node.op_type)
            return Entry(tuple(operators), gain, offset, mean, np.sqrt(np.maximum(variance, 0)))
        if node.op_type in _ARITHMETIC and len(node.input) == 2:
            first = node.input[0] == name
            value = constant(node.input[1] if first else node.input[0])
            if value is None or (not first and node.op_type == "Div") or not _fit(gain, value):
                break
            step = _step(node.op_type, value, first)
            if step is None:
                break
            gain, offset = gain * step[0], offset * step[0] + step[1]
            operators.append(node.op_type)
        elif node.op_type not in _PASSING:
            break
        name = node.output[0]
    if not operators or np.any(gain == 0):
        return None
    size = max(gain.size, offset.size)
    return Entry(tuple(operators), np.resize(gain, size), np.resize(offset, size))


def _fit(gain: np.ndarray, value: np.ndarray) -> bool:
    return value.size == 1 or gain.size in (1, value.size)


def _step(operator: str, value: np.ndarray, first: bool) -> tuple[np.ndarray, np.ndarray] | None:
    """Gain and offset of one operator; ``first``: what comes in is its first input."""
    none, one = np.zeros(1), np.ones(1)
    if operator == "Add":
        return one, value
    if operator == "Sub":
        return (one, -value) if first else (-one, value)
    if operator == "Mul":
        return value, none
    return None if np.any(value == 0) else (1 / value, none)
