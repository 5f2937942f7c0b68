"""Lists of samples: a text file with one sample in a line, of several files with commas between."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

__all__ = ["Line", "read_list"]


class Line(NamedTuple):
    """One sample: its files as the list names them, and where they are."""

    names: tuple[str, ...]
    paths: tuple[Path, ...]


def read_list(path: Path) -> list[Line]:
    """Read a list; names are relative to the list's own folder.

    Blank lines and those that begin with ``#`` say nothing. One file for each input of the network
    is what run_calibration of tpu_mlir takes (calibration/data_selector.py). A comma in the name of
    a file that is there separates nothing.
    """
    lines = []
    for text in map(os.fsdecode, path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()):
        line = text.strip()
        if not line or line.startswith("#"):
            continue
        names = (line,)
        if "," in line and not (path.parent / line).exists():
            names = tuple(name.strip() for name in line.split(","))
        lines.append(Line(names, tuple(path.parent / name for name in names)))
    return lines
