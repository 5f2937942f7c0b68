"""Find where the device's share of a detection network begins.

YOLO exports end in arithmetic that turns the last convolutions' results into boxes. INT8 ruins it
(boxes reach 640, scores end at 1, and one scale serves both), the chips lack operators of some of
it, and the cameras' firmware does it by itself. So networks are cut at those convolutions, or not
far behind them. They are found by structure and shapes, not by name: walk back from the outputs to
the first convolution on every path, then see what becomes of each on the way forward.

Three families of heads:

- ``dfl``: distances to the box's sides as distributions over bins (Li et al., Generalized Focal
  Loss, 2020); YOLOv8, v9, v10, 11, 12, and v5 and v6 as Ultralytics builds them
- ``distances``: the distances themselves; YOLO26, and v6 as its authors build it
- ``anchors``: one convolution a stride for boxes, objectness and classes of three anchors; YOLOv3,
  v5 and v7 as their authors build them
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from tpumake.onnx_io import inferred
from tpumake.static_shapes import static_shapes, values_of

__all__ = ["BRANCHES", "Head", "Level", "NoHead", "Tensor", "find_head"]

LEARNED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
# What moves numbers without changing them.
MOVES = {
    "Cast", "Concat", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose",
    "Unsqueeze",
}  # fmt: skip
ARITHMETIC = {"Add", "Div", "Mul", "Sub"}
# What a network chooses boxes with by itself.
CHOOSES = {"NonMaxSuppression", "TopK"}
# Their results tell of sizes only; the way back ends there.
SIZES = {"Constant", "ConstantOfShape", "Shape", "Size"}

BRANCHES = ("box", "class", "anchors", "mask", "keypoints", "angle")
"""What a convolution at a stride can be for, in the order that they are told in."""

_EXTRAS = {"segment": "mask", "pose": "keypoints", "obb": "angle"}
"""The third branch, by task."""

_ANCHORS = 3
"""Boxes a place in the heads that have anchors."""


class NoHead(Exception):
    """There is no detection head that is known; the message says what there is instead."""


@dataclass(frozen=True)
class Tensor:
    """A tensor by name, with its shape; 0 where that isn't fixed, () where nobody knows it."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Level:
    """The branches at one stride: for each of :data:`BRANCHES` its tensor [1,channels,h,w]."""

    height: int
    width: int
    stride: int
    branches: dict[str, Tensor]


@dataclass(frozen=True)
class Head:
    """What a network ends in.

    ``levels`` begin at the finest stride; ``bins`` is that of the box distribution, else 1.
    ``chooses`` names the operators with which the network leaves one box an object by itself.
    ``joined`` has what the network makes of all strides, under the names that
    schemas/device.schema.json explains; ``own`` are the network's own outputs.
    """

    family: str
    task: str
    classes: int
    bins: int
    levels: tuple[Level, ...]
    chooses: tuple[str, ...]
    joined: dict[str, Tensor] = field(default_factory=dict)
    own: tuple[Tensor, ...] = ()

    @property
    def kind(self) -> str:
        """Its name in a device profile: the family, and the task unless that is to detect."""
        return self.family if self.task == "detect" else f"{self.family}-{self.task}"

    @property
    def lacking(self) -> tuple[str, ...]:
        """The operators in the head that tpu_mlir doesn't compile for the cameras' chips."""
        return self.chooses + (("Cos", "Sin") if self.task == "obb" else ())

    def branches(self) -> list[str]:
        """What its convolutions are for, the same at all strides."""
        return [role for role in BRANCHES if role in self.levels[0].branches]


def find_head(model: onnx.ModelProto) -> Head:
    """Find the detection head of a network.

    :param model: with or without its weights; batch 1
    :raises NoHead: there is none, as in a classifier, or none that is known
    """
    return _Finder(model).head()


class _Finder:
    """The graph with what looking for a head needs."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.graph = graph = model.graph
        self.makers = {name: node for node in graph.node for name in node.output if name}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self.outputs = [value.name for value in graph.output]
        whole = inferred(model).graph
        self.shapes: dict[str, tuple[int, ...]] = {
            value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
            for value in (*whole.input, *whole.value_info, *whole.output)
        }
        self.place = {name: at for at, name in enumerate(self.makers)}
        self.passed: set[str] = set()
        self.means: list[onnx.NodeProto] = []

    def head(self) -> Head:
        """Put together what is found."""
        found = {name: self._ends(name) for name in self.outputs}
        needed = {*self.outputs, *(end for those in found.values() for end in those)}
        if any(0 in self.shapes.get(name, (0,)) for name in needed):
            self.shapes.update(static_shapes(self.model))
        prototypes = [name for name, ends in found.items() if self._is_map(name, ends)]
        if len(prototypes) == len(found):
            raise NoHead("its outputs are convolutions': it is cut already, or no detector")
        ends = {end for name, those in found.items() if name not in prototypes for end in those}
        levels = self._levels(ends)
        bins = self._bins(self.means[0]) if self.means else 1
        task = self._task(levels, prototypes)
        family = "anchors" if len(levels[0]) == 1 else "dfl" if self.means else "distances"
        named = [self._roles(level, family, task, prototypes) for level in levels]
        self._check(named)
        classes = self._classes(named[0], family, prototypes)
        return Head(
            family,
            task,
            classes,
            bins,
            tuple(self._level(each) for each in named),
            tuple(sorted(self.passed & CHOOSES)),
            self._joined(named, prototypes),
            tuple(self.tensor(name) for name in self.outputs),
        )

    def tensor(self, name: str) -> Tensor:
        """A tensor with its shape."""
        return Tensor(name, self.shapes.get(name, ()))

    def _ends(self, output: str) -> set[str]:
        """The first learned tensors on every way back from an output.

        The convolution that takes the mean of a box distribution only weighs bins with their
        numbers: it is passed, and remembered.
        """
        ends: set[str] = set()
        waiting, seen = [output], set()
        while waiting:
            name = waiting.pop()
            node = self.makers.get(name)
            if node is None or name in seen or node.op_type in SIZES:
                continue
            seen.add(name)
            self.passed.add(node.op_type)
            if node.op_type in LEARNED:
                if not self._bins(node):
                    ends.add(name)
                    continue
                if node not in self.means:
                    self.means.append(node)
            waiting.extend(node.input)
        return ends

    def _bins(self, node: onnx.NodeProto) -> int:
        """The number of bins if this convolution is a distribution's mean: weights 0, 1, 2, …"""
        tensor = self.weights.get(node.input[1]) if node.op_type == "Conv" else None
        if tensor is None or len(tensor.dims) != 4 or tensor.dims[0] != 1 or tensor.dims[1] < 2:
            return 0
        if np.prod(tensor.dims) != tensor.dims[1] or tensor.dims[1] > 64:
            return 0
        values = values_of(tensor)
        if values is None:
            return 0
        values = values.ravel().astype(np.float32)
        return len(values) if np.array_equal(values, np.arange(len(values))) else 0

    def _is_map(self, output: str, ends: set[str]) -> bool:
        """Whether an output is a convolution's result, but for an activation: masks' prototypes."""
        if len(ends) != 1:
            return False
        shape = self.shapes.get(next(iter(ends)), ())
        return len(shape) == 4 and self.shapes.get(output) == shape

    def _levels(self, ends: set[str]) -> list[list[str]]:
        """The convolutions by the size of their result, the largest first; each in graph order."""
        if not ends:
            raise NoHead("no convolution leads to its outputs")
        sizes: dict[tuple[int, int], list[str]] = {}
        for name in sorted(ends, key=self.place.__getitem__):
            shape = self.shapes.get(name, ())
            if self.makers[name].op_type != "Conv":
                raise NoHead(f"it ends in a {self.makers[name].op_type}, as classifiers do")
            if len(shape) != 4 or 0 in shape[1:]:
                raise NoHead(f'the size of "{name}" is not fixed: export it without dynamic axes')
            sizes.setdefault(shape[2:], []).append(name)
        levels = [sizes[size] for size in sorted(sizes, reverse=True)]
        counts = {len(level) for level in levels}
        if len(levels) < 2 or len(counts) > 1 or counts > {1, 2, 3}:
            told = ", ".join(f"{len(names)} of {w}×{h}" for (h, w), names in sorted(sizes.items()))
            raise NoHead(f"the convolutions that it ends in are no known head's: {told}")
        return levels

    def _task(self, levels: list[list[str]], prototypes: list[str]) -> str:
        count = len(levels[0])
        if len(prototypes) > 1:
            raise NoHead("it has several outputs that are pictures, as no known head has")
        if prototypes:
            if count == 2:
                raise NoHead("it has masks' prototypes, but nothing that goes with them")
            return "segment"
        if count < 3:
            return "detect"
        return "obb" if self.passed & {"Cos", "Sin"} else "pose"

    def _roles(
        self, level: list[str], family: str, task: str, prototypes: list[str]
    ) -> dict[str, str]:
        """What each convolution of a level is for."""
        if family == "anchors":
            (name,) = level
            if self.shapes[name][1] % _ANCHORS or "Sigmoid" not in self.passed:
                raise NoHead("it has one convolution a stride, but not that of three anchors")
            return {"anchors": name}
        left = list(level)
        roles = {"box": self._box(left, family)}
        left.remove(roles["box"])
        if task != "detect":
            extra = _EXTRAS[task]
            roles[extra] = self._extra(left, extra, prototypes)
            left.remove(roles[extra])
        if len(left) != 1:
            raise NoHead("its branches can't be told apart")
        roles["class"] = left[0]
        if "Sigmoid" not in self._next(left[0]) | {
            node.op_type for name in self._same(left[0]) for node in self.consumers.get(name, [])
        }:
            raise NoHead("it has no scores: nothing goes through a sigmoid")
        return roles

    def _box(self, level: list[str], family: str) -> str:
        """The box branch: what the distribution's mean is taken of, or has four channels.

        Where one tensor holds boxes and scores before they are split, both lead there: the box
        branch then is the one with the right number of channels, or the first.
        """
        if family == "dfl":
            (mean, *_) = self.means
            found = [name for name in level if "Softmax" in self._next(name)]
            channels = 4 * self._bins(mean)
        else:
            found = [name for name in level if "Sigmoid" not in self._next(name)]
            channels = 4
        fitting = [name for name in found or level if self.shapes[name][1] == channels]
        if not fitting:
            raise NoHead(f"none of its branches has the {channels} channels of boxes")
        return fitting[0]

    def _extra(self, level: list[str], role: str, prototypes: list[str]) -> str:
        if role == "mask":
            channels = self.shapes[prototypes[0]][1]
            found = [name for name in level if self.shapes[name][1] == channels]
            found = [name for name in found if "Sigmoid" not in self._next(name)] or found
        elif role == "angle":
            found = [name for name in level if self._turns(name)]
        else:
            found = [name for name in level if self._next(name) & ARITHMETIC]
        if len(found) != 1:
            raise NoHead(f"its branches can't be told apart: {len(found)} could be the {role}")
        return found[0]

    def _same(self, name: str) -> dict[str, None]:
        """The tensors that hold a tensor's numbers, unchanged, in the order they are met."""
        met: dict[str, None] = {}
        waiting = deque([name])
        while waiting:
            here = waiting.popleft()
            if here in met:
                continue
            met[here] = None
            for node in self.consumers.get(here, []):
                if node.op_type == "Concat" or (node.op_type in MOVES and here == node.input[0]):
                    waiting.extend(node.output)
        return met

    def _next(self, name: str) -> set[str]:
        """The operators that first change a tensor's numbers."""
        return {
            node.op_type
            for each in self._same(name)
            for node in self.consumers.get(each, [])
            if node.op_type not in MOVES | SIZES
        }

    def _turns(self, name: str) -> bool:
        """Whether a tensor, perhaps scaled and moved by constants, is an angle: has its cosine."""
        waiting, seen = [name], set()
        while waiting:
            here = waiting.pop()
            if here in seen:
                continue
            seen.add(here)
            for node in self.consumers.get(here, []):
                if node.op_type in {"Cos", "Sin"}:
                    return True
                scaled = node.op_type in ARITHMETIC and self._constants(node) == 1
                if scaled or node.op_type in MOVES | {"Sigmoid"}:
                    waiting.extend(node.output)
        return False

    def _constants(self, node: onnx.NodeProto) -> int:
        makers = [self.makers.get(name) for name in node.input]
        return sum(
            name in self.weights or (maker is not None and maker.op_type == "Constant")
            for name, maker in zip(node.input, makers, strict=True)
        )

    def _check(self, levels: list[dict[str, str]]) -> None:
        """All strides must be alike."""
        for role in levels[0]:
            channels = {self.shapes[level[role]][1] for level in levels}
            if len(channels) > 1:
                raise NoHead(f"its {role} branches have different channels: {sorted(channels)}")

    def _classes(self, level: dict[str, str], family: str, prototypes: list[str]) -> int:
        if family != "anchors":
            return self.shapes[level["class"]][1]
        masks = self.shapes[prototypes[0]][1] if prototypes else 0
        classes = self.shapes[level["anchors"]][1] // _ANCHORS - 5 - masks
        if classes < 1:
            raise NoHead("it has too few channels a stride for boxes and classes of three anchors")
        return classes

    def _level(self, roles: dict[str, str]) -> Level:
        tensors = {role: self.tensor(roles[role]) for role in BRANCHES if role in roles}
        height, width = next(iter(tensors.values())).shape[2:]
        return Level(height, width, self._height() // height, tensors)

    def _height(self) -> int:
        """The input's, in pixels; 0 where it isn't fixed."""
        for value in self.graph.input:
            shape = self.shapes.get(value.name, ())
            if value.name not in self.weights and len(shape) == 4:
                return shape[2]
        return 0

    def _joined(self, levels: list[dict[str, str]], prototypes: list[str]) -> dict[str, Tensor]:
        """What the network makes of all strides, where there is such a tensor."""
        joined = dict(zip(("prototypes",), prototypes, strict=False))
        if len(self.means) == 1:
            joined["joined-distances"] = self.means[0].output[0]
        for role in set(levels[0]) & set(_EXTRAS.values()):
            joined[f"joined-{role}"] = next(iter(self._common(levels, role)), "")
        if "class" in levels[0]:
            scores = [
                node.output[0]
                for name in self._common(levels, "class")
                for node in self.consumers.get(name, [])
                if node.op_type == "Sigmoid"
            ]
            joined["joined-scores"] = scores[0] if len(scores) == 1 else ""
        return {role: self.tensor(name) for role, name in joined.items() if name}

    def _common(self, levels: Sequence[dict[str, str]], role: str) -> Iterable[str]:
        """The tensors that hold a role's numbers of all strides, the nearest first."""
        sets = [self._same(level[role]) for level in levels]
        return [name for name in sets[0] if all(name in each for each in sets[1:])]
