"""Compare two .npz files tensor by tensor, with npz_tool's verdicts and without its blind spots."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tpumake.npz import NpzFile, TensorStream
from tpumake.similarity import (
    PIECE,
    Figures,
    PairSums,
    Tolerance,
    Verdict,
    common_type,
    convert,
    judge,
)

__all__ = ["Comparison", "TensorResult", "compare_files"]

_NOTHING = Figures(None, None, None)


@dataclass(frozen=True)
class TensorResult:
    """What came of one tensor that both files have. ``size`` counts the reference's elements."""

    name: str
    target_shape: tuple[int, ...]
    reference_shape: tuple[int, ...]
    target_dtype: str
    reference_dtype: str
    size: int
    verdict: Verdict

    @property
    def passed(self) -> bool:
        """Whether the pair counts as the same."""
        return self.verdict.passed


@dataclass(frozen=True)
class Comparison:
    """What came of two files. ``tensors`` are in the reference's order."""

    tensors: tuple[TensorResult, ...]
    tolerance: Tolerance
    only_in_target: tuple[str, ...]
    only_in_reference: tuple[str, ...]
    excepted: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether something was compared and all of it is the same."""
        return not self.reasons()

    @property
    def passed_count(self) -> int:
        """How many tensors are the same."""
        return sum(tensor.passed for tensor in self.tensors)

    def reasons(self) -> list[str]:
        """Why the files don't count as the same, in a line each; empty if they do."""
        if not self.tensors:
            what = "no tensor is in both files" + (
                " but those excepted" if self.excepted else "; are they of the same network?"
            )
            return [what]
        if not any(tensor.size for tensor in self.tensors):
            return ["all tensors that both files have are empty"]
        return [
            f"{tensor.name}: {tensor.verdict.reason}"
            for tensor in self.worst_first()
            if not tensor.passed
        ]

    def worst_first(self) -> list[TensorResult]:
        """Failures first, then by rising cosine and Euclidean similarity, then by name."""

        def badness(tensor: TensorResult) -> tuple[bool, bool, float, float, str]:
            figures = tensor.verdict.figures
            # Without figures a failure is the worst there is and a pass can't be better.
            unknown = -math.inf if not tensor.passed else 1.0
            cosine = unknown if figures.cosine is None else figures.cosine
            euclidean = unknown if figures.euclidean is None else figures.euclidean
            return tensor.passed, tensor.verdict.kind == "equal", cosine, euclidean, tensor.name

        return sorted(self.tensors, key=badness)

    def lowest(self, measure: str) -> tuple[float, str] | None:
        """Lowest value of ``measure`` (a field of Figures) and the tensor's name; None if none."""
        values = [
            (value, tensor.name)
            for tensor in self.tensors
            if (value := getattr(tensor.verdict.figures, measure)) is not None
        ]
        return min(values) if values else None


def compare_files(
    target: Path,
    reference: Path,
    tolerance: Tolerance,
    excepts: Collection[str] = (),
    *,
    int8_exact: bool = True,
    axis: int = -1,
    renamed: str = "",
) -> Comparison:
    """Compare every tensor that both files have, but those named in ``excepts``.

    ``axis`` >= 0: judge each slice along the axes up to this one by itself; the tensor is as good
    as its worst slice. ``renamed``: a tensor of the reference that the target lacks is compared
    with the one whose name has this at its end. Raises BadInput for files that can't be read.
    """
    with NpzFile(target) as target_file, NpzFile(reference) as reference_file:
        there = set(target_file.names)
        # The name in the target, by that in the reference.
        pairs = {
            name: found
            for name in reference_file.names
            for found in (name, name + renamed)
            if found in there and not (found != name and name in there)
        }
        common = list(pairs)
        names = [name for name in common if name not in excepts]

        def one(name: str) -> TensorResult:
            with target_file.open(pairs[name]) as first, reference_file.open(name) as second:
                return _compare(name, first, second, tolerance, int8_exact, axis)

        with ThreadPoolExecutor(_workers()) as pool:
            tensors = tuple(pool.map(one, names))
    return Comparison(
        tensors=tensors,
        tolerance=tolerance,
        only_in_target=tuple(n for n in target_file.names if n not in set(pairs.values())),
        only_in_reference=tuple(n for n in reference_file.names if n not in set(common)),
        excepted=tuple(name for name in common if name in excepts),
    )


def _workers() -> int:
    # More threads only wait for their turn in Python and in the zip files (measured).
    return min(2, len(os.sched_getaffinity(0)))


def _compare(
    name: str,
    target: TensorStream,
    reference: TensorStream,
    tolerance: Tolerance,
    int8_exact: bool,
    axis: int,
) -> TensorResult:
    kind = common_type(target.dtype, reference.dtype)
    size = _comparable_size(name, target, reference)
    if kind is None:
        reason = f"{target.dtype} and {reference.dtype} can't be compared as numbers"
        verdict = Verdict("not_match", _NOTHING, reason)
    elif size is None:
        reason = f"shape {_shape(target)} in the target, {_shape(reference)} in the reference"
        verdict = Verdict("not_match", _NOTHING, reason)
    else:
        step = _slice_size(target.shape, size, axis)
        slices = [
            _sums(target, reference, kind, min(step, size - start))
            for start in range(0, size, step)
        ] or [PairSums()]
        verdict = _worst(slices, kind, tolerance, int8_exact)
    target.skip_rest()
    reference.skip_rest()
    return TensorResult(
        name=name,
        target_shape=target.shape,
        reference_shape=reference.shape,
        target_dtype=str(target.dtype),
        reference_dtype=str(reference.dtype),
        size=reference.size,
        verdict=verdict,
    )


def _comparable_size(name: str, target: TensorStream, reference: TensorStream) -> int | None:
    """How many leading elements to compare, None if the shapes don't allow it."""
    if "NonMaxSuppression" in name and len(target.shape) == len(reference.shape) == 2:
        # ONNX gives as many rows as there are boxes, tpu_mlir always the most there can be.
        if target.shape[1] != reference.shape[1]:
            return None
        return min(target.size, reference.size)
    # As npz_tool has it, (1, 2, 3) and (2, 3, 1) are the same six numbers.
    return target.size if target.size == reference.size else None


def _slice_size(shape: tuple[int, ...], size: int, axis: int) -> int:
    """Elements in a slice along the axes up to ``axis``; all where there is no such axis."""
    if 0 <= axis < len(shape):
        return max(1, math.prod(shape[axis + 1 :]))
    return max(1, size)


def _sums(target: TensorStream, reference: TensorStream, kind: np.dtype, size: int) -> PairSums:
    sums = PairSums()
    for count in _pieces(size):
        first, second = target.read(count), reference.read(count)
        if kind.kind == "i":
            sums.count_not_finite(first, second)
        sums.add(convert(first, kind), convert(second, kind))
    return sums


def _pieces(size: int) -> Iterator[int]:
    for start in range(0, size, PIECE):
        yield min(PIECE, size - start)


def _worst(
    slices: list[PairSums], kind: np.dtype, tolerance: Tolerance, int8_exact: bool
) -> Verdict:
    verdicts = [judge(sums, kind, tolerance, int8_exact) for sums in slices]

    def badness(index: int) -> tuple[bool, float]:
        verdict = verdicts[index]
        cosine = verdict.figures.cosine
        return verdict.passed, (float(verdict.passed) if cosine is None else cosine)

    index = min(range(len(verdicts)), key=badness)
    verdict = verdicts[index]
    if len(slices) > 1 and verdict.reason:
        verdict = verdict._replace(reason=f"slice {index}: {verdict.reason}")
    return verdict


def _shape(tensor: TensorStream) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
