"""Calibration samples that are tensors: .npy with one, .npz with one for each of a model's inputs.

What run_calibration of tpu_mlir 1.7 takes (calibration/kld_calibrator.py): an .npz for a model of
one input holds exactly one array; for one of several it holds each by the input's name. Samples of
batch 1 are put together to the model's batch.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tpumake.errors import BadInput
from tpumake.npz import NpzFile, npy_values
from tpumake.pictures import UnusableError
from tpumake.shapes import read_shapes

__all__ = ["Inputs", "check_sample", "parse_inputs"]

Shape = tuple[int, ...]

_UNNAMED = Path("sample")
# No network here takes as much (bytes); a file of some kilobytes may claim it.
_MOST = 1 << 28


class Inputs(NamedTuple):
    """A model's inputs; ``names`` may be empty, and are not looked at then."""

    shapes: tuple[Shape, ...]
    names: tuple[str, ...]


def parse_inputs(shapes: str, names: str) -> Inputs:
    """Inputs from flags as tpu_mlir has them: ``[[1,3,640,640]]``, ``a,b``; BadInput if wrong."""
    try:
        parsed = tuple(map(tuple, read_shapes(shapes)))
    except ValueError:
        raise BadInput(f'--input-shapes "{shapes}": give it like [[1,3,640,640]]') from None
    listed = tuple(name.strip() for name in names.split(",") if name.strip())
    if listed and len(listed) != len(parsed):
        raise BadInput(
            f"--input-names has {len(listed)} names, --input-shapes {len(parsed)} shapes"
        )
    return Inputs(parsed, listed)


def check_sample(data: bytes, suffix: str, inputs: Inputs | None) -> tuple[str, ...]:
    """Read a ``.npy`` or ``.npz`` file whole; its tensors as text: ``x 1x3x64x64 float32``.

    Raises UnusableError if it is damaged, holds anything but finite numbers, or doesn't fit.
    """
    try:
        found = _read_npy(data) if suffix == ".npy" else _read_npz(data)
    except BadInput as error:
        # Without the file's name, which the caller has at hand.
        raise UnusableError(str(error).removeprefix(f"{_UNNAMED}: ")) from None
    if not found:
        raise UnusableError("holds no tensor")
    if inputs:
        _fit(found, suffix, inputs)
    return tuple(
        " ".join(filter(None, (name, _text(shape), dtype)))
        for name, (shape, dtype) in found.items()
    )


def _read_npz(data: bytes) -> dict[str, tuple[Shape, str]]:
    found = {}
    with NpzFile(_UNNAMED, io.BytesIO(data), _MOST) as archive:
        for name in archive.names:
            with archive.open(name) as tensor:
                _check_numeric(tensor.dtype)
                left = tensor.size
                while left > 0:
                    piece = tensor.read(1 << 18)
                    left -= piece.size
                    _check_finite(piece)
                found[name] = tensor.shape, str(tensor.dtype)
    return found


def _read_npy(data: bytes) -> dict[str, tuple[Shape, str]]:
    values = npy_values(data)
    _check_numeric(values.dtype)
    _check_finite(values)
    return {"": (values.shape, str(values.dtype))}


def _check_numeric(dtype: np.dtype) -> None:
    if dtype.kind not in "biuf":
        raise UnusableError(f"holds {dtype}, no plain numbers")


def _check_finite(values: np.ndarray) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UnusableError("holds NaN or infinity")


def _fit(found: dict[str, tuple[Shape, str]], suffix: str, inputs: Inputs) -> None:
    if len(inputs.shapes) == 1:
        if len(found) != 1:
            raise UnusableError(f"holds {len(found)} tensors, the model has 1 input")
        [(shape, _)] = found.values()
        _fit_shape("", shape, inputs.shapes[0])
        return
    if suffix == ".npy":
        raise UnusableError(f"holds 1 tensor, the model has {len(inputs.shapes)} inputs; use .npz")
    if not inputs.names:
        _fit_any(found, inputs.shapes)
        return
    for name, wanted in zip(inputs.names, inputs.shapes, strict=True):
        if name not in found:
            raise UnusableError(f"holds no tensor {name}")
        _fit_shape(name, found[name][0], wanted)


def _fit_any(found: dict[str, tuple[Shape, str]], shapes: tuple[Shape, ...]) -> None:
    """Insist on a tensor for each shape, whatever its name."""
    left = [shape for shape, _ in found.values()]
    for wanted in shapes:
        same = next((shape for shape in left if _fits(shape, wanted)), None)
        if same is None:
            held = ", ".join(_text(shape) for shape, _ in found.values())
            raise UnusableError(f"holds no tensor {_text(wanted)}, but {held}")
        left.remove(same)


def _fits(shape: Shape, wanted: Shape) -> bool:
    return shape == wanted or (shape[:1] == (1,) and shape[1:] == wanted[1:])


def _fit_shape(name: str, shape: Shape, wanted: Shape) -> None:
    if _fits(shape, wanted):
        return
    subject = f"{name} is" if name else "is"
    raise UnusableError(f"{subject} {_text(shape)}, the model takes {_text(wanted)}")


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "scalar"
