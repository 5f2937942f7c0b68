"""The interpreter of TFLite networks under the names that TensorFlow has for it."""

from ai_edge_litert import interpreter as experimental
from ai_edge_litert.interpreter import Interpreter

__all__ = ["Interpreter", "experimental"]
