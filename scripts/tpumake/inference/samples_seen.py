"""A glance at the pictures or tensors that a network is to be calibrated with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tpumake.errors import BadInput
from tpumake.lists import read_list
from tpumake.pictures import looks_like_picture

__all__ = ["ENOUGH", "Samples", "look_at_samples"]

# More than this are not counted.
ENOUGH = 50
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
_WANTED = "IMAGES is a folder of some hundred pictures like those that the camera will see"


@dataclass(frozen=True)
class Samples:
    """How many there are, at most ``ENOUGH``, and whether they are tensors (.npy, .npz)."""

    count: int
    tensors: bool


def look_at_samples(path: Path) -> Samples:
    """Count pictures or tensors of a folder or list, by the first bytes of their files.

    :raises BadInput: there are none, with what there is instead
    """
    if not path.exists():
        raise BadInput(f"{path}: there is no such folder; {_WANTED}")
    if path.is_file() and path.suffix.lower() in _ARCHIVES:
        raise BadInput(f"{path}: an archive; unpack it, and name the folder")
    if path.is_file() and looks_like_picture(_head(path)):
        raise BadInput(f"{path}: is one picture; {_WANTED}")
    pictures = tensors = others = 0
    for file in _files(path):
        head = _head(file)
        if head.startswith((b"\x93NUMPY", b"PK\x03\x04")) and file.suffix in (".npy", ".npz"):
            tensors += 1
        elif looks_like_picture(head, surely=file.suffix == ".txt"):
            pictures += 1
        else:
            others += 1
        if max(pictures, tensors) >= ENOUGH:
            break
    if not pictures and not tensors:
        held = f"no picture among {others} files" if others else "empty"
        raise BadInput(f"{path}: {held}; {_WANTED}")
    return Samples(max(pictures, tensors), tensors > pictures)


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        for line in read_list(path):
            yield line.paths[0]
        return
    for folder, folders, names in os.walk(path, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                yield Path(folder) / name


def _head(path: Path) -> bytes:
    with suppress(OSError):
        # Opening a pipe would wait for ever.
        if path.is_file():
            with path.open("rb") as file:
                return file.read(32)
    return b""
