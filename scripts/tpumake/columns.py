"""Rows of text in columns, for a terminal, and for a page in Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tpumake.errors import one_line

__all__ = ["in_columns", "in_markdown", "plain_markdown"]


def in_columns(rows: Sequence[Sequence[str]], words: int) -> list[str]:
    """Put rows of as many cells each into columns, two spaces apart.

    :param words: so many columns hold words and go to the left, the others numbers, to the right
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(
        cell.ljust(width) if at < words else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(row, widths, strict=True))
    ).rstrip() for row in rows]  # fmt: skip


def in_markdown(rows: Sequence[Sequence[str]], words: int) -> list[str]:
    """Put the same rows, the first of them the headings, into a table of GitHub's Markdown."""
    first, *others = [f"| {' | '.join(map(plain_markdown, row))} |" for row in rows]
    line = "|".join("---" if at < words else "--:" for at in range(len(rows[0])))
    return [first, f"|{line}|", *others]


def plain_markdown(text: str) -> str:
    """A text, of whatever origin, so that Markdown shows it as it is, in one line."""
    return re.sub(r"([\\`*\[\]<>|~&#!])", r"\\\1", one_line(text))
