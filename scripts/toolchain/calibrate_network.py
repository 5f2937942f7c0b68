"""A float network in tpu_mlir's form, run an operation at a time, and the samples that go into it.

It runs as run_calibration runs it: each operation by itself, in memory that later ones use again.
What comes out is looked at at once, or kept for as long as somebody needs it, so that a run takes
no more memory than the network on its chip.
"""

from __future__ import annotations

import ast
import contextlib
import io
from argparse import Namespace
from collections import Counter
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pymlir
from calibrate_processes import Told
from calibration.data_selector import DataSelector
from calibration.kld_calibrator import ActivationCalibrator
from utils.mlir_parser import MlirParser
from utils.preprocess import preprocess

__all__ = [
    "Graph", "Network", "Op", "Run", "Samples", "Unsupported", "read_graph", "sample_count",
]  # fmt: skip

VERSION = "v1.7-"


class Unsupported(Told):
    """Something that is left to run_calibration. The text says what."""


class Op(NamedTuple):
    """An operation, called as its result.

    ``inputs`` are those that are no weights, in order; ``weighted`` tells of such that are.
    """

    name: str
    type: str
    inputs: tuple[str, ...]
    weighted: bool
    shape: list[int]
    attributes: dict[str, str]


class Graph(NamedTuple):
    """Operations in the order in which they run, inputs of the network first or among them."""

    ops: list[Op]
    batch: int
    parsed: MlirParser

    @property
    def names(self) -> list[str]:
        """All tensors, in order."""
        return [op.name for op in self.ops]


def read_graph(path: str) -> Graph:
    """Read a network.

    :raises Unsupported: for one that run_calibration may treat otherwise than this program
    """
    if not pymlir.module().version.startswith(VERSION):
        raise Unsupported("this is not tpu_mlir 1.7")
    parsed = MlirParser(path)
    tensors = {name for op in parsed.ops for name in op.outputs}
    ops = []
    for op in parsed.ops:
        if len(op.op.operation.regions):
            raise Unsupported(f"{op.type} has operations in it")
        if op.outputs != [op.name]:
            raise Unsupported(f"{op.type} has several results")
        inputs = tuple(name for name in op.opds if name in tensors)
        if not inputs and op.type != "top.Input":
            raise Unsupported(f"{op.type} has no input")
        weighted = len(inputs) < len(op.opds)
        ops.append(Op(op.name, op.type, inputs, weighted, op.shape, op.attrs))
    if len(tensors) != len(ops):
        raise Unsupported("two tensors have the same name")
    return Graph(ops, parsed.get_batch_size(), parsed)


def sample_count(selected: DataSelector, files: int, batch: int) -> int:
    """How many times the network runs on so many of a selection: pictures go in by the batch."""
    return -(-files // batch) if selected.all_image else files


class Samples(ActivationCalibrator):
    """What goes into a network, read one sample at a time by run_calibration's own code."""

    def __init__(self, graph: Graph, names: list[str]) -> None:
        self.module = SimpleNamespace(input_names=names)
        self.parser, self.batch_size = graph.parsed, graph.batch
        self.input_num = self.parser.get_input_num()
        self.ppa_list = []
        for index in range(self.input_num):
            settings = preprocess()
            settings.load_config(self.parser.get_input_op_by_idx(index))
            self.ppa_list.append(settings)
        self.args = Namespace()

    def read(self, selected: DataSelector, number: int) -> dict[str, np.ndarray]:
        """One sample's tensors by input.

        :raises Told: a file can't be read; one line
        :raises Unsupported: it is not float32
        """
        if self.batch_size > 1 and not selected.all_image:
            raise Unsupported("tensors go in a batch at a time")
        lines, step = selected.data_list, self.batch_size if selected.all_image else 1
        # The last batch is filled with the last picture.
        wanted = range(number * step, (number + 1) * step)
        self.data_list = [lines[min(index, len(lines) - 1)] for index in wanted]
        self.ds, self.args.input_num = selected, 1
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                self.load_net_input()
        except (Exception, SystemExit) as error:
            why = "" if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
            told = " ".join(f"{said.getvalue()} {why}".split())
            raise Told(f"{', '.join(self.data_list)} can't be read: {told}") from None
        tensors = {name: pair[0] for name, pair in self.ref_activations[0].items()}
        for name, values in tensors.items():
            if values.dtype != np.float32:
                raise Unsupported(f"the input {name} is {values.dtype}")
        return tensors


class Network:
    """A network, ready to run."""

    def __init__(self, path: str, graph: Graph) -> None:
        self.module = pymlir.module()
        self.module.load(path)
        self.graph = graph
        self.copied = {op.name for op in graph.ops if op.type in _COPIES}
        self._checked: set[str] = set()

    def compute(self, op: Op, live: dict[str, np.ndarray]) -> np.ndarray:
        """One operation's result, a copy, after those that it reads have been computed."""
        if op.name not in self.copied:
            return self.module.invoke_at(op.name)
        values = _COPIES[op.type](op.attributes, live[op.inputs[0]])
        if op.name not in self._checked:
            theirs = self.module.invoke_at(op.name)
            if values.shape != theirs.shape or values.tobytes() != theirs.tobytes():
                self.copied.discard(op.name)
                return theirs
            self._checked.add(op.name)
        self.module.set_tensor(op.name, values)
        return values


class Run:
    """A network on its way through one sample.

    ``live`` are the tensors that it keeps, ``result`` is that of the last operation.

    :param keep: whether it keeps all tensors until the last operation that reads them
    :param check: whether to look if the network's own memory keeps them as long; needs ``keep``
    """

    def __init__(
        self, network: Network, inputs: dict[str, np.ndarray], keep: bool = False,
        check: bool = False,
    ) -> None:  # fmt: skip
        self.network, self.inputs, self._check = network, inputs, check
        self.live: dict[str, np.ndarray] = {}
        self.result = np.empty(0)
        self.position = 0
        self._readers = {op.name for op in network.graph.ops if keep or op.name in network.copied}
        self._left = Counter(
            name for op in network.graph.ops if op.name in self._readers for name in op.inputs
        )

    def step(self) -> tuple[Op, np.ndarray]:
        """Run the next operation; gives it with its result."""
        ops = self.network.graph.ops
        if self.position:
            self._release(ops[self.position - 1])
        op = ops[self.position]
        if op.type == "top.Input":
            values = self.inputs[op.name]
            self.network.module.set_tensor(op.name, values)
        else:
            if self._check:
                self._insist_on_inputs(op)
            values = self.network.compute(op, self.live)
        if self._left[op.name]:
            self.live[op.name] = values
        self.position += 1
        self.result = values
        return op, values

    def _release(self, op: Op) -> None:
        if op.name in self._readers:
            for name in op.inputs:
                self._left[name] -= 1
                if not self._left[name]:
                    del self.live[name]

    def _insist_on_inputs(self, op: Op) -> None:
        """What is computed lies in memory that others use before and after.

        :raises Unsupported: if something was overwritten too early; run_calibration sets all anew
        """
        for name in op.inputs:
            there = self.network.module.get_tensor(name).reshape(-1)
            if there.tobytes() != self.live[name].tobytes():
                raise Unsupported(f"{name} is overwritten before {op.type} reads it")


def _slice(attributes: dict[str, str], values: np.ndarray) -> np.ndarray:
    corners = (ast.literal_eval(attributes[key]) for key in ("offset", "ends", "steps"))
    # An end of -1 is behind the last element.
    cut = tuple(slice(first, None if end == -1 else end, step)
                for first, end, step in zip(*corners, strict=True))  # fmt: skip
    return np.ascontiguousarray(values[cut])


def _upsample(attributes: dict[str, str], values: np.ndarray) -> np.ndarray:
    high, wide = (int(attributes[key].split()[0]) for key in ("scale_h", "scale_w"))
    return values.repeat(high, axis=2).repeat(wide, axis=3)


# What tpu_mlir takes as long for as for the convolutions, and what only copies. Each one is held
# against tpu_mlir's result on the first sample, and left to it where they differ.
_COPIES = {"top.Slice": _slice, "top.Upsample": _upsample}
