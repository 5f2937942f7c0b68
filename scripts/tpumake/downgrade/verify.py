"""Run a rewritten model beside its original and compare what comes out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from tpumake import bounded_run, onnx_io
from tpumake.errors import CheckFailed
from tpumake.onnx_io import Network

__all__ = ["ABSOLUTE", "RELATIVE", "Verdict", "verify"]

RELATIVE = 1e-4
"""Allowed difference as a share of the value itself."""

ABSOLUTE = 1e-5
"""Allowed difference as a share of the output's largest value. Rewritten operators add up in
another order, which costs a few units of float32's last place (6e-8) at that scale."""

_HALF = 100
"""How much more is allowed in 16-bit floats, whose last place is 1e-3 to 8e-3."""

_SIZES = (64, 32, 224, 640, 16, 8, 4, 2, 1)
"""Tried in this order for sizes that the model leaves open; the first dimension is 1 and 2."""

_MOST_VALUES = 1 << 27
"""Elements of an input; as many take a gigabyte."""

_ROOT = Path("/").resolve().anchor
"""Folder that onnxruntime takes external data from: ``Network.extent`` has checked each file."""

_RANDOM = {
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
    "RandomUniformLike",
}  # fmt: skip

_DTYPES = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16,
    "tensor(int8)": np.int8, "tensor(int16)": np.int16, "tensor(int32)": np.int32,
    "tensor(int64)": np.int64, "tensor(uint8)": np.uint8, "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32, "tensor(uint64)": np.uint64, "tensor(bool)": np.bool_,
}  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """How near the results were: the worst difference as a share of what is allowed (≤ 1)."""

    worst: float
    tensors: int
    runs: int


def verify(original: Network, result: Path, outputs: list[str] | None, seed: int = 0) -> Verdict:
    """Compare the two models on seeded random input, at ``outputs`` or all outputs.

    ``original`` is spent by this. Raises ``CheckFailed`` where a result differs by more than
    :data:`RELATIVE` of itself plus :data:`ABSOLUTE` of the tensor's largest value (integers and
    bools must be equal), and where nothing could be compared.
    """
    _no_random(original)
    names = outputs or [value.name for value in original.model.graph.output]
    given = _input_shapes(result)
    wanted, feeds = _reference(original, names, seed, given)
    session = _open(str(result))
    worst, compared = 0.0, 0
    for feed, reference in zip(feeds, wanted, strict=True):
        try:
            inputs = {key: feed[key] for key in feed if key in given}
            found = bounded_run.run(session, names, inputs)
        except Exception as error:
            raise CheckFailed(f"the result doesn't run: {_line(error)}") from None
        for name, a, b in zip(names, found, reference, strict=True):
            share = _difference(a, b)
            if not share <= 1:
                raise CheckFailed(_mismatch(name, a, b))
            worst = max(worst, share)
            compared += _says_something(b)
    if not compared:
        raise CheckFailed("not verified: the original gives nothing but NaN on random input")
    return Verdict(worst, len(names), len(feeds))


def _input_shapes(result: Path) -> dict[str, list[int | str | None]]:
    """Inputs and their sizes, of which some may be fixed that the original left open."""
    graph = onnx.load(str(result), load_external_data=False).graph
    return {
        value.name: [
            size.dim_value or size.dim_param or None for size in value.type.tensor_type.shape.dim
        ]
        for value in graph.input
    }


def _no_random(original: Network) -> None:
    for graph in onnx_io.graphs(original.model.graph):
        for node in graph.node:
            if node.op_type in _RANDOM:
                raise CheckFailed(
                    f'not verified: {node.op_type} "{node.name}" makes other numbers in each run'
                )


def _reference(
    original: Network, names: list[str], seed: int, given: dict[str, list[int | str | None]]
) -> tuple[list[list], list[dict[str, np.ndarray]]]:
    """The original's results and the inputs that gave them."""
    try:
        session = _original_session(original, names)
    except CheckFailed:
        raise
    except Exception as error:
        raise CheckFailed(
            f"not verified: onnxruntime can't run the original: {_line(error)}"
        ) from None
    first_error: Exception | None = None
    for size, high, batches in itertools.product(_SIZES, (8, 2, 1), ((1, 2), (1, 1))):
        feeds = list(_feeds(session, size, high, batches, seed, given))
        try:
            return [bounded_run.run(session, names, feed) for feed in feeds], feeds
        except bounded_run.RanTooLong as error:
            raise CheckFailed(f"not verified: the original runs on and on: {error}") from None
        except Exception as error:
            first_error = first_error or error
        if not _has_choice(session):
            break
    raise CheckFailed(
        f"not verified: the original doesn't run on random input: {_line(first_error)}"
    )


def _original_session(original: Network, names: list[str]) -> onnxruntime.InferenceSession:
    graph = original.model.graph
    have = [value.name for value in graph.output]
    if names == have and not original.external:
        return _open(str(original.path))
    for name in names:
        if name not in have:
            graph.output.append(onnx.ValueInfoProto(name=name))
    try:
        return _open(_bytes(original), folder=_ROOT)
    except Exception:
        # The part that was cut off may hold what onnxruntime doesn't know; leave it out here too.
        fresh = onnx_io.load(original.path)
        onnx_io.select_outputs(fresh, names)
        return _open(_bytes(fresh), folder=_ROOT)


def _bytes(network: Network) -> bytes:
    """The model with its own weights inside and the external ones named by their real files."""
    for tensor in onnx_io.tensors(network.model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        if network.is_aside(tensor):
            tensor.CopyFrom(network.filled(tensor))
        else:
            file = network.extent(tensor)[0]
            name = file.relative_to(_ROOT).as_posix()
            next(e for e in tensor.external_data if e.key == "location").value = name
    network.aside.clear()
    return network.model.SerializeToString()


def _open(model: str | bytes, folder: str | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    onnxruntime.set_default_logger_severity(4)
    # Operators as they stand: an optimiser could mend or break either side.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if folder:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", folder
        )
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _feeds(
    session: onnxruntime.InferenceSession,
    size: int,
    high: int,
    batches: tuple[int, int],
    seed: int,
    given: dict[str, list[int | str | None]],
) -> Iterator[dict[str, np.ndarray]]:
    """Two sets of inputs: floats in [0, 1) as pictures have, and normally distributed ones.

    An open first dimension differs between the two, so that a size that was fixed by mistake
    shows.
    """
    for run, batch in enumerate(batches):
        random = np.random.default_rng((seed, run))
        feed = {}
        sizes: dict[str, int] = {}
        for value in session.get_inputs():
            shape = [
                _size(dim, size if place else batch, sizes)
                for place, dim in enumerate(given.get(value.name, value.shape))
            ]
            feed[value.name] = _values(value.type, shape, random, run, high)
        yield feed


def _size(dim: object, number: int, sizes: dict[str, int]) -> int:
    """A dimension's size; open ones of one name are the same everywhere."""
    if isinstance(dim, int) and dim > 0:
        return dim
    return sizes.setdefault(dim, number) if isinstance(dim, str) else number


def _values(
    kind: str, shape: list[int], random: np.random.Generator, run: int, high: int
) -> np.ndarray:
    if kind not in _DTYPES:
        raise CheckFailed(f"not verified: no random input of type {kind}")
    if math.prod(shape) > _MOST_VALUES:
        size = "x".join(map(str, shape))
        raise CheckFailed(f"not verified: an input of {size} is more than can be tried")
    dtype = np.dtype(_DTYPES[kind])
    if dtype.kind == "f":
        values = random.standard_normal(shape) if run else random.random(shape)
        return values.astype(dtype)
    if dtype.kind == "b":
        return random.random(shape) < 0.5
    # Integers are often indices into something short.
    return random.integers(0, high, shape).astype(dtype)


def _has_choice(session: onnxruntime.InferenceSession) -> bool:
    """Is there an open size, or an integer whose range could be the trouble?"""
    return any(
        "int" in value.type or not all(isinstance(dim, int) and dim > 0 for dim in value.shape)
        for value in session.get_inputs()
    )


def _difference(found: object, wanted: object) -> float:
    """The largest difference as a share of what is allowed; infinite for unlike results."""
    if isinstance(wanted, list):
        if not isinstance(found, list) or len(found) != len(wanted):
            return float("inf")
        return max((_difference(a, b) for a, b in zip(found, wanted, strict=True)), default=0.0)
    if wanted is None or found is None:
        return 0.0 if wanted is found else float("inf")
    a, b = np.asarray(found), np.asarray(wanted)
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    if a.dtype.kind not in "fV":
        return 0.0 if np.array_equal(a, b) else float("inf")
    factor = 1 if a.dtype.itemsize > 2 else _HALF
    a, b = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    a, b = a[finite], np.abs(b[finite])
    if not b.size:
        return 0.0
    allowed = factor * (RELATIVE * b + ABSOLUTE * b.max()) + 1e-7
    return float((np.abs(a - np.asarray(wanted, np.float64)[finite]) / allowed).max())


def _says_something(value: object) -> bool:
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return not value.size or bool(np.isfinite(value).any())
    return True


def _mismatch(name: str, found: object, wanted: object) -> str:
    if isinstance(wanted, np.ndarray) and isinstance(found, np.ndarray):
        if found.shape != wanted.shape or found.dtype != wanted.dtype:
            return (
                f'"{name}" is {found.dtype}{list(found.shape)} in the result, '
                f"{wanted.dtype}{list(wanted.shape)} in the original"
            )
        if wanted.dtype.kind == "f":
            gap = np.nanmax(np.abs(found.astype(np.float64) - wanted.astype(np.float64)))
            top = np.nanmax(np.abs(wanted.astype(np.float64)))
            return f'"{name}" differs from the original by up to {gap:.3g}, values reach {top:.3g}'
    return f'"{name}" differs from the original'


def _line(error: object) -> str:
    return " ".join(str(error).split())[:200]
