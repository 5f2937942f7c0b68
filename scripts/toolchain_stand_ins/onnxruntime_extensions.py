"""Stands in for onnxruntime_extensions, which newer versions of tpu_mlir import for their own operators.

Those (`tpu_mlir::Correlation` and the like) are registered with it when the converter is imported, and
run by it in networks that have them. The real one imports transformers for that, and slows protobuf
down. Without it such a network ends with an error that says so.
"""

from collections.abc import Callable


class PyOp:
    """The types that operators of one's own may declare."""

    dt_float = "float"
    dt_int64 = "int64"


def onnx_op(**_: object) -> Callable[[Callable], Callable]:
    """Register nothing: a decorator that gives the function back."""
    return lambda function: function


class PyOrtFunction:
    """A network with such operators."""

    @staticmethod
    def from_model(*_: object) -> None:
        raise ModuleNotFoundError(
            "the network has an operator that onnxruntime does not know, and onnxruntime_extensions, "
            "which tpu_mlir would run its own ones with, is not installed"
        )
