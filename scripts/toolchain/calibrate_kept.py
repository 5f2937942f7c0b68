"""How far a calibration came, kept in a file so that one that was ended goes on from there."""

from __future__ import annotations

import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

__all__ = ["EVERY", "Kept"]

# Seconds. What takes no longer is not worth keeping.
EVERY = 10.0


class Kept:
    """Arrays by name, in a folder that is of one calibration at a time.

    :param folder: where, or None to keep nothing
    :param digest: gives what all of it hangs on, in hex; asked for only when something is kept
    """

    def __init__(self, folder: Path | None, digest: Callable[[], str]) -> None:
        self._folder, self._digest = folder, digest
        self._file: Path | None = None
        self._last = time.monotonic()

    def load(self) -> dict[str, np.ndarray]:
        """What is kept; nothing where that is of another calibration, or damaged."""
        if not self._folder or not self._folder.is_dir():
            return {}
        try:
            with np.load(self._place(), allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return {}

    def save(self, arrays: dict[str, np.ndarray]) -> None:
        """Keep arrays in place of those that are kept, if that is some time ago."""
        if not self._folder or time.monotonic() < self._last + EVERY:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        place = self._place()
        for other in self._folder.iterdir():
            if other != place:
                other.unlink()
        temporary = place.with_suffix(".part")
        with temporary.open("wb") as file:
            np.savez(file, **arrays)
        temporary.replace(place)
        self._last = time.monotonic()

    def drop(self) -> None:
        """Keep nothing any more."""
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _place(self) -> Path:
        if self._file is None:
            self._file = self._folder / f"{self._digest()[:32]}.npz"
        return self._file
