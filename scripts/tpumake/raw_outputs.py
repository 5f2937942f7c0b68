"""A network's raw outputs in an .npz file, in the network's order."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tpumake.errors import BadInput
from tpumake.npz import NpzFile

__all__ = ["read_outputs"]

# No detector gives as much (bytes); a file of some kilobytes may claim it.
_MOST = 1 << 28


def read_outputs(path: Path) -> dict[str, np.ndarray]:
    """Read all tensors of a file, float32.

    :raises BadInput: it is missing or damaged, or holds what is no finite number
    """
    found = {}
    with NpzFile(path, most=_MOST) as archive:
        for name in archive.names:
            with archive.open(name) as tensor:
                if tensor.dtype.kind not in "biuf":
                    raise BadInput(f"{path}: tensor {name} holds {tensor.dtype}, no plain numbers")
                values = tensor.read(tensor.size).reshape(tensor.shape).astype(np.float32)
            if not np.isfinite(values).all():
                raise BadInput(f"{path}: tensor {name} holds NaN or infinity")
            found[name] = values
    return found
