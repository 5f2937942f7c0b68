"""What one process of a calibration does: samples through the network, what comes out summed up."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np
from calibrate_network import Network, Run, Samples, read_graph, sample_count
from calibrate_searches import Search
from calibrate_tuning import Tuner
from calibration.data_selector import DataSelector
from calibration.kld_calibrator import BaseKldCalibrator

__all__ = ["Description", "Worker", "count_values"]

# Values that are worked on at once: what a core's own memory holds.
BLOCK = 1 << 17
# How many of the quantised values a threshold is chosen for.
LEVELS = 128
# From <malloc.h>. Tensors as large as these come and go all the time: their memory is kept, rather
# than given back to the kernel, which would clear each page for the next one.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT, ALL = 1 << 30, (1 << 31) - 1


class Description(NamedTuple):
    """What a process says of its network and samples.

    ``ops``: name, type and inputs of each operation; ``work``: how many values each reads and makes
    """

    ops: list[tuple[str, str, tuple[str, ...]]]
    work: list[int]
    samples: int
    tune_samples: int


def count_values(total: np.ndarray, values: np.ndarray, largest: float) -> None:
    """Count absolute values in equal bins, zeros left out, as run_calibration does.

    :param total: [bins] of int64, added to
    :param values: float32
    :param largest: what the last bin is around
    """
    bins, flat = total.size, values.reshape(-1)
    width = largest / (bins - 1)
    block = np.empty(min(BLOCK, flat.size), np.float32)
    for start in range(0, flat.size, BLOCK):
        part = block[: min(BLOCK, flat.size - start)]
        np.abs(flat[start : start + BLOCK], out=part)
        zeros = part.size - np.count_nonzero(part.view(np.int32))
        np.divide(part, width, out=part)
        np.add(part, 0.5, out=part)
        counts = cv2.calcHist([part.reshape(1, -1)], [0], None, [bins], [0, bins])
        total += counts.reshape(-1).astype(np.int64)
        total[0] -= zeros


class Worker:
    """Works on one network and one selection of samples.

    :param path: the network
    :param selected: the samples; ``for_tuning`` those that thresholds are tuned on
    """

    def __init__(
        self, path: str, selected: DataSelector, for_tuning: DataSelector, bins: int
    ) -> None:
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, KEPT)
        libc.mallopt(M_TRIM_THRESHOLD, ALL)
        cv2.setNumThreads(1)
        self._path, self._bins = path, bins
        self._selected, self._for_tuning = selected, for_tuning
        self._graph = read_graph(path)
        self._network = Network(path, self._graph)
        self._samples = Samples(self._graph, self._network.module.input_names)
        self._tuner: Tuner | None = None
        self._divergence = BaseKldCalibrator()

    def describe(self, tune_num: int) -> Description:
        """The operations, and how many samples there are for ranges and for tuning."""
        graph = self._graph
        sizes = {op.name: math.prod(op.shape) for op in graph.ops}
        tuned = min(tune_num, len(self._for_tuning.data_list))
        return Description(
            [(op.name, op.type, op.inputs) for op in graph.ops],
            [sizes[op.name] + sum(sizes[name] for name in op.inputs) for op in graph.ops],
            sample_count(self._selected, len(self._selected.data_list), graph.batch),
            sample_count(self._for_tuning, tuned, graph.batch),
        )

    def _tensors(self, number: int) -> Iterable[np.ndarray]:
        inputs = self._samples.read(self._selected, number)
        # What lies where in memory is the same for all samples: one tells.
        run = Run(self._network, inputs, keep=number == 0, check=number == 0)
        return (run.step()[1] for _ in self._graph.ops)

    def ranges(self, numbers: Iterable[int]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The least and the most of each tensor, for each of some samples."""
        found = []
        for number in numbers:
            pairs = [(np.min(values), np.max(values)) for values in self._tensors(number)]
            least, most = np.array(pairs, np.float32).T
            found.append((least, most))
        return found

    def histograms(self, numbers: Iterable[int], largest: list[float]) -> np.ndarray:
        """How the values of each tensor lie, over some samples.

        :param largest: the largest absolute value of each tensor, over all samples
        :return: [tensors, bins] of int64
        """
        total = np.zeros((len(largest), self._bins), np.int64)
        for number in numbers:
            for counts, values, most in zip(total, self._tensors(number), largest, strict=True):
                count_values(counts, values, most)
        return total

    def thresholds(self, histograms: np.ndarray, largest: list[float]) -> list[float]:
        """The threshold of each of some tensors.

        :param histograms: [tensors, bins] of int32
        """
        return [
            self._divergence.kld_threshold(counts, most / (self._bins - 1), self._bins, LEVELS)
            for counts, most in zip(histograms, largest, strict=True)
        ]

    def distances(self, number: int, some: list[Search]) -> list[np.ndarray]:
        """What comes of some searches on one sample; see ``Tuner``."""
        if not self._tuner:
            self._tuner = Tuner(self._path, self._graph, self._samples)
        return self._tuner.distances(self._for_tuning, number, some)
