"""Stands in for onnxruntime_extensions, which newer versions of tpu_mlir import.

They run their own operators (`tpu_mlir::Correlation` and the like) with it, in networks that have
them, and register those whenever the converter is imported. The real one imports transformers for
that, and slows protobuf down. A network with such an operator ends with an error that says so.
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
        """Refuse it.

        :raises ModuleNotFoundError: always
        """
        raise ModuleNotFoundError(
            "the network has an operator that onnxruntime does not know, "
            "and onnxruntime_extensions is not installed"
        )
