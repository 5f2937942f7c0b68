"""Rows of text in columns, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["in_columns"]


def in_columns(rows: Sequence[Sequence[str]], words: int) -> list[str]:
    """Put rows of as many cells each into columns, two spaces apart.

    :param words: so many columns hold words and go to the left, the others numbers, to the right
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(
        cell.ljust(width) if at < words else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(row, widths, strict=True))
    ).rstrip() for row in rows]  # fmt: skip
