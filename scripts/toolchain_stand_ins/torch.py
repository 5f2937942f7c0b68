"""Stands in for torch, which newer versions of tpu_mlir import where they use nothing of it.

A real one that is installed comes before this in the search path. Whoever really uses torch gets an
error that says so.
"""

__version__ = "0"


class Tensor:
    """What libraries ask of their arguments, whether they are of this class: nothing is."""


def __getattr__(name: str) -> object:
    if name.startswith("__"):
        raise AttributeError(name)
    raise ModuleNotFoundError(f"torch.{name} is used, and torch is not installed")
