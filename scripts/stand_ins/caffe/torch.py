"""Stands in for PyTorch, which tpu_mlir's Caffe path imports.

It uses it in one place, to permute the weights of the few layers whose weights it permutes; so
that is here, done by NumPy. Anything else ends in one line that says so.
"""

import numpy as np


class tensor:
    """What `torch.tensor(array).permute(order)` is needed for; gives an array again."""

    def __init__(self, array):
        self.array = np.array(array)

    def permute(self, order):
        """Give the tensor with its axes in another order."""
        return tensor(self.array.transpose(order))

    def __array__(self, dtype=None, copy=None):
        return np.ascontiguousarray(self.array, dtype)


def __getattr__(name):
    raise AttributeError(
        f"torch.{name} is asked for, and PyTorch is not there: convert the network to ONNX"
    )
