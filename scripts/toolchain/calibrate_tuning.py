"""What tuning measures: how far results are from float's where a tensor is rounded to 8 bits.

Each operation in turn is run on inputs that are rounded as a threshold would have them, with
rounded weights, and what comes out is held against what float gives.
"""

from __future__ import annotations

import numpy as np
from calibrate_network import Graph, Network, Run, Samples, Unsupported
from calibrate_searches import Search
from calibration.data_selector import DataSelector

__all__ = ["Tuner"]

# Values that are worked on at once: what a core's own memory holds.
BLOCK = 1 << 16
# What is rounded after these is what these make of rounded values: they choose or move, and where
# inputs are several, one threshold holds for all.
_MOVING = {f"top.{name}" for name in (
    "Concat", "MaxPool", "Permute", "Reshape", "Slice", "Squeeze", "Unsqueeze", "Upsample",
)}  # fmt: skip


class Tuner:
    """Runs searches on samples; it holds a float network and one with rounded weights."""

    def __init__(self, path: str, graph: Graph, samples: Samples) -> None:
        self._graph, self._samples = graph, samples
        self._float = Network(path, graph)
        self._rounded = Network(path, graph).module
        self._rounded.fake_quant_weight()
        self._run: tuple[int, Run] | None = None
        self._memory = [np.empty(0, np.float32), np.empty(0, np.float32)]

    def distances(
        self, selected: DataSelector, number: int, some: list[Search]
    ) -> list[np.ndarray]:
        """How far results are from the float network's on one sample.

        :param some: searches in the order of their operations
        :return: for each an array [thresholds] of float32
        :raises Unsupported: where the network computes what is no number
        """
        if not self._run or self._run[0] != number or self._run[1].position > some[0].op + 1:
            inputs = self._samples.read(selected, number)
            self._run = number, Run(self._float, inputs, keep=True)
        run = self._run[1]
        found = []
        for search in some:
            while run.position <= search.op:
                op, values = run.step()
                if not np.isfinite(values).all():
                    raise Unsupported(f"{op.name} has values that are no numbers")
            found.append(self._search(search, run))
        return found

    def _search(self, search: Search, run: Run) -> np.ndarray:
        op, wanted = self._graph.ops[search.op], run.result.reshape(-1)
        size = np.linalg.norm(wanted, ord=1)
        # Held against the real result once.
        moves = None if op.type in _MOVING and not op.weighted else False
        found = []
        for threshold in search.thresholds:
            if moves:
                values = self._as_rounded(run.result, threshold)
            else:
                values = self._invoke(op.name, op.inputs, run, threshold)
            if moves is None:
                moves = values.tobytes() == self._as_rounded(run.result, threshold).tobytes()
            found.append(self._length(wanted, values.reshape(-1)) / size)
        return np.array(found, np.float32)

    def _invoke(self, name: str, inputs: tuple[str, ...], run: Run, threshold: float) -> np.ndarray:
        for each in dict.fromkeys(inputs):
            self._rounded.set_tensor(each, self._as_rounded(run.live[each], threshold))
        return self._rounded.invoke_at(name)

    def _as_rounded(self, values: np.ndarray, threshold: float) -> np.ndarray:
        """What 8 bits make of values; holds until the next call."""
        scale = 127 / threshold
        flat, result = values.reshape(-1), self._scratch(0, values.size)
        for start in range(0, flat.size, BLOCK):
            block = result[start : start + BLOCK]
            np.multiply(flat[start : start + BLOCK], scale, out=block)
            np.rint(block, out=block)
            np.minimum(block, 127, out=block)
            np.maximum(block, -128, out=block)
            np.divide(block, scale, out=block)
        return result.reshape(values.shape)

    def _length(self, wanted: np.ndarray, values: np.ndarray) -> np.float32:
        difference = np.subtract(wanted, values, out=self._scratch(1, wanted.size))
        length = np.linalg.norm(difference)
        if np.isnan(length):
            # What is no number counts as 0 then.
            cleared = np.where(np.isnan(values), np.float32(0), values)
            length = np.linalg.norm(np.subtract(wanted, cleared, out=difference))
        return length

    def _scratch(self, which: int, size: int) -> np.ndarray:
        if self._memory[which].size < size:
            self._memory[which] = np.empty(size, np.float32)
        return self._memory[which][:size]
