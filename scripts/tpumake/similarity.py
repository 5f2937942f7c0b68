"""How alike two tensors are, by the measures and rules that tpu_mlir's ``npz_tool.py`` uses.

With t the target, r the reference and d = t - r, all flattened:

- cosine      = t.r / (|t| |r|), and 0 where either is all zeros
- Euclidean   = 1 - |d| / (|t + r| / 2 + 1e-7)
- SQNR in dB  = 10 log10(var t / var d), infinite where either variance is 0
- close       : |d| <= 1e-8 + 10^-3 |r| for every element (numpy.allclose)

Everything is accumulated in float64 over pieces, from sums that one pass gives. The cosine comes
from 1 - cos = (|d|^2 - (|t| - |r|)^2) / (2 |t| |r|): taken from the dot product directly, a value
such as 0.9999997 would consist of rounding.

Source of rules: tpu_mlir 1.7, numpy_helper/tensor_compare.py and npz_compare.py (read, not copied).
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

__all__ = [
    "PIECE",
    "Figures",
    "PairSums",
    "Tolerance",
    "Verdict",
    "common_type",
    "convert",
    "judge",
]

# Elements in a piece: small enough for the caches, large enough that Python costs little.
PIECE = 65_536

_CLOSE_ATOL = 1e-8
_FINEST_ORDER, _COARSEST_ORDER = 5, 3
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class Tolerance(NamedTuple):
    """Similarities must be strictly greater than these."""

    cosine: float
    euclidean: float


class Figures(NamedTuple):
    """Similarities of a pair; None where the figure has no meaning, SQNR in dB."""

    cosine: float | None
    euclidean: float | None
    sqnr: float | None


class Verdict(NamedTuple):
    """``kind``: equal, close, similar, not_similar, not_equal, not_finite, not_match."""

    kind: str
    figures: Figures
    reason: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the pair counts as the same."""
        return self.kind in ("equal", "close", "similar")


def common_type(target: np.dtype, reference: np.dtype) -> np.dtype | None:
    """The type a pair is compared in: int8, else int32, else float32; None if not numeric."""
    if target.kind not in "biuf" or reference.kind not in "biuf":
        return None
    for kind in (np.int8, np.int32):
        if kind in (target.type, reference.type):
            return np.dtype(kind)
    return np.dtype(np.float32)


def convert(values: np.ndarray, kind: np.dtype) -> np.ndarray:
    """``values`` as ``kind``. uint16 is taken as bfloat16 bits, which is how tpu_mlir stores it."""
    if values.dtype.type is np.uint16:
        values = (values.astype(np.uint32) << 16).view(np.float32)
    if values.dtype == kind and values.dtype.isnative:
        return values
    with np.errstate(invalid="ignore", over="ignore"):
        return values.astype(kind)


@dataclass
class PairSums:
    """Sums over a pair of tensors, from which all its figures follow.

    Elements infinite with the same sign in both are counted in ``same_infinity`` and otherwise left
    out; NaNs and unpaired infinities are counted and make the pair fail.
    """

    size: int = 0
    target_squares: float = 0.0
    reference_squares: float = 0.0
    difference_squares: float = 0.0
    target_sum: float = 0.0
    difference_sum: float = 0.0
    close_order: int = _FINEST_ORDER
    target_nans: int = 0
    reference_nans: int = 0
    unpaired_infinities: int = 0
    same_infinity: int = 0

    def add(self, target: np.ndarray, reference: np.ndarray) -> None:
        """Add a piece: two 1-D arrays of the same length, at most PIECE, and the same dtype."""
        if target.dtype.kind == "f" and not self._add_finite(target, reference):
            target, reference = self._sort_out(target, reference)
            self._add_finite(target.astype(np.float64), reference.astype(np.float64))
        elif target.dtype.kind != "f":
            self._add_finite(target.astype(np.float64), reference.astype(np.float64))

    def _add_finite(self, target: np.ndarray, reference: np.ndarray) -> bool:
        """Add a piece unless a sum isn't finite, which means that some element isn't."""
        work = _work_arrays(target.dtype, target.size)
        with np.errstate(invalid="ignore", over="ignore"):
            # In the tensors' own precision, as the rule for "close" depends on its rounding.
            difference = np.subtract(target, reference, out=work.difference)
            wide = work.wide
            np.copyto(wide, difference)
            difference_squares, difference_sum = float(wide @ wide), float(wide @ work.ones)
            np.copyto(wide, target)
            target_squares, target_sum = float(wide @ wide), float(wide @ work.ones)
            reference_squares = target_squares
            if difference_squares:
                np.copyto(wide, reference)
                reference_squares = float(wide @ wide)
        if not math.isfinite(difference_squares + target_squares + reference_squares):
            return False
        if difference_squares and self.close_order:
            self._lower_close_order(difference, reference, work.bound)
        self.size += target.size
        self.target_squares += target_squares
        self.reference_squares += reference_squares
        self.difference_squares += difference_squares
        self.target_sum += target_sum
        self.difference_sum += difference_sum
        return True

    def _lower_close_order(
        self, difference: np.ndarray, reference: np.ndarray, bound: np.ndarray
    ) -> None:
        """Lower ``close_order`` to what this piece still meets; 0 when it isn't close at all."""
        np.abs(difference, out=difference)
        while self.close_order >= _COARSEST_ORDER:
            np.abs(reference, out=bound)
            np.multiply(bound, 10.0**-self.close_order, out=bound)
            np.add(bound, _CLOSE_ATOL, out=bound)
            if (difference <= bound).all():
                return
            self.close_order -= 1
        self.close_order = 0

    def _sort_out(self, target: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Count what isn't finite; give back the elements that are finite in both."""
        target_nan, reference_nan = np.isnan(target), np.isnan(reference)
        self.target_nans += int(target_nan.sum())
        self.reference_nans += int(reference_nan.sum())
        infinite = (np.isinf(target) | np.isinf(reference)) & ~target_nan & ~reference_nan
        same = infinite & (target == reference)
        self.same_infinity += int(same.sum())
        self.unpaired_infinities += int((infinite & ~same).sum())
        finite = ~(infinite | target_nan | reference_nan)
        return target[finite], reference[finite]

    def count_not_finite(self, target: np.ndarray, reference: np.ndarray) -> None:
        """Count NaNs of floats that are about to be compared as integers, where they'd be lost."""
        if target.dtype.kind == "f":
            self.target_nans += int(np.isnan(target).sum())
        if reference.dtype.kind == "f":
            self.reference_nans += int(np.isnan(reference).sum())

    def equal(self) -> bool:
        """Whether all finite elements are equal."""
        return self.difference_squares == 0.0

    def figures(self, float32: bool) -> Figures:
        """Cosine, Euclidean similarity and SQNR in dB; an infinite SQNR is None.

        ``float32``: whether npz_tool would compute them in float32. Where that overflows it calls
        the pair unlike, and so does this.
        """
        if self.equal():
            return Figures(1.0, 1.0, None)
        return Figures(self._cosine(float32), self._euclidean(float32), self._sqnr())

    def negligible(self) -> bool:
        """Whether either side is zero within the bound of "close", and so has no direction."""
        smaller = min(self.target_squares, self.reference_squares)
        return smaller <= _CLOSE_ATOL**2 * self.size

    def _cosine(self, float32: bool) -> float:
        squares = self.target_squares * self.reference_squares
        if squares == 0.0 or (float32 and squares > _FLOAT32_MAX):
            return 0.0
        target, reference = math.sqrt(self.target_squares), math.sqrt(self.reference_squares)
        apart = (self.difference_squares - (target - reference) ** 2) / (2 * target * reference)
        return max(-1.0, min(1.0, 1.0 - apart))

    def _euclidean(self, float32: bool) -> float:
        # |t + r|^2 = 2|t|^2 + 2|r|^2 - |d|^2
        middle = (2 * (self.target_squares + self.reference_squares) - self.difference_squares) / 4
        if float32 and max(self.difference_squares, middle) > _FLOAT32_MAX:
            return 0.0
        return 1.0 - math.sqrt(self.difference_squares) / (math.sqrt(max(middle, 0.0)) + 1e-7)

    def _sqnr(self) -> float | None:
        signal = self.target_squares - self.target_sum**2 / self.size
        noise = self.difference_squares - self.difference_sum**2 / self.size
        # A variance this far below the sum of squares is the rounding of a constant's.
        if signal <= 1e-13 * self.target_squares or noise <= 1e-13 * self.difference_squares:
            return None
        return 10.0 * math.log10(signal / noise)


def judge(sums: PairSums, kind: np.dtype, tolerance: Tolerance, int8_exact: bool = True) -> Verdict:
    """The verdict on a pair that was compared as ``kind``.

    Equal and close pairs pass whatever the tolerance, as they do with npz_tool; int8 must be equal
    unless ``int8_exact`` is off. NaN, and infinity on one side only, fails: npz_tool puts 0 and
    10000 in their place.
    """
    reason = _not_finite(sums)
    if reason:
        return Verdict("not_finite", Figures(None, None, None), reason)
    figures = sums.figures(kind == np.float32)
    if sums.equal():
        return Verdict("equal", figures)
    if kind == np.int8 and int8_exact:
        return Verdict("not_equal", figures, "int8 tensors must be equal")
    if sums.close_order:
        return Verdict("close", Figures(None, None, None) if sums.negligible() else figures)
    reasons = [
        f"{name} {value:.7g}, not above {least:g}"
        for name, value, least in zip(("cosine", "Euclidean"), figures[:2], tolerance, strict=True)
        if not value > least
    ]
    return Verdict("not_similar" if reasons else "similar", figures, "; ".join(reasons) or None)


def _not_finite(sums: PairSums) -> str | None:
    counts = (
        (sums.target_nans, "NaN in the target"),
        (sums.reference_nans, "NaN in the reference"),
        (sums.unpaired_infinities, "infinite on one side only"),
    )
    return ", ".join(f"{count} {what}" for count, what in counts if count) or None


class _Work(NamedTuple):
    difference: np.ndarray
    bound: np.ndarray
    wide: np.ndarray
    ones: np.ndarray


_threads = threading.local()


def _work_arrays(dtype: np.dtype, size: int) -> _Work:
    """This thread's work arrays, cut to ``size``: making new ones for each piece costs more."""
    made = _threads.__dict__.setdefault("made", {})
    if dtype not in made:
        made[dtype] = _Work(
            np.empty(PIECE, dtype), np.empty(PIECE, dtype), np.empty(PIECE), np.ones(PIECE)
        )
    return _Work(*(array[:size] for array in made[dtype]))
