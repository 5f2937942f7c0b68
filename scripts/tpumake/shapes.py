"""Shapes of a network's inputs as text, as stanzas and tpu_mlir have them: ``[[1,3,640,640]]``."""

from __future__ import annotations

import ast

__all__ = ["read_shapes"]


def read_shapes(text: str) -> list[list[int]]:
    """Read shapes, one list each; none for an empty text.

    :raises ValueError: if the text is something else
    """
    if not text:
        return []
    try:
        shapes = [list(shape) for shape in ast.literal_eval(text)]
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        shapes = []
    if not shapes or not all(type(size) is int and size > 0 for one in shapes for size in one):
        raise ValueError(f"{text}: must look like [[1,3,640,640]]")
    return shapes
