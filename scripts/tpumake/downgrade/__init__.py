"""Rewrite an ONNX network for an older operator set without changing what it computes.

One file a family of operators; :mod:`tpumake.downgrade.core` holds the engine that calls them,
:mod:`tpumake.downgrade.model` the steps for a whole model and :mod:`tpumake.downgrade.verify` the
comparison with the original.
"""

from tpumake.downgrade import (  # noqa: F401  (importing them registers their adapters)
    activations,
    attention,
    bits,
    norms,
    pools,
    quantize,
    reductions,
    resample,
    scatter,
    shapes,
)
from tpumake.downgrade.core import BASE, CannotExpress
from tpumake.downgrade.defaults import write_defaults
from tpumake.downgrade.model import Report, downgrade

__all__ = ["BASE", "CannotExpress", "Report", "downgrade", "write_defaults"]
