"""A float network as ONNX, run in onnxruntime on pictures of its own size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from tpumake import bounded_run
from tpumake.errors import BadInput
from tpumake.network_input import NetworkInput
from tpumake.onnx_io import load

__all__ = ["open_network", "run_on"]


def open_network(path: Path) -> onnxruntime.InferenceSession:
    """Make a network ready to run, on one thread.

    :raises BadInput: onnxruntime can't, or weights lie outside its folder; one line with the reason
    """
    # It says itself where its weights are; onnxruntime would go wherever that leads.
    load(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    # Errors come as exceptions; what it writes besides is for its own developers.
    options.log_severity_level = 4
    onnxruntime.set_default_logger_severity(4)
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # Its exceptions have no common base of their own.
        raise BadInput(f"{path}: {' '.join(str(error).split())}") from None


def run_on(
    session: onnxruntime.InferenceSession, wanted: NetworkInput, seen: np.ndarray
) -> list[np.ndarray]:
    """Run a network on a picture.

    :param seen: uint8 [height,width,3] of the network's size, RGB
    :returns: its outputs, float32
    :raises BadInput: the network takes something else, or doesn't run
    """
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type != "tensor(float)":
        raise BadInput(f"the network has {len(inputs)} inputs ({inputs[0].type}); one of floats "
                       "can be fed")  # fmt: skip
    try:
        return bounded_run.run(session, None, {inputs[0].name: wanted.of(seen)})
    except Exception as error:
        raise BadInput(f"the network doesn't run: {' '.join(str(error).split())}") from None
