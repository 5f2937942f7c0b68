"""Read the tensors of an .npz file as streams, so that a large file needs little memory.

An .npz file is a ZIP archive of .npy files (NumPy Enhancement Proposal 1). Pickled objects are
never loaded: they could run code. The ZIP checksum of every member read to its end is checked.
"""

from __future__ import annotations

import io
import lzma
import math
import threading
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tpumake.errors import BadInput

__all__ = ["NpzFile", "TensorStream", "npy_values"]

_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError)
# And what numpy raises for headers that no program wrote; it takes them for Python.
_UNREADABLE = (
    *_DAMAGED, ValueError, OSError, NotImplementedError, RuntimeError, TypeError, SyntaxError,
    OverflowError, tokenize.TokenError,
)  # fmt: skip
# The header of an .npy file is one short line; numpy itself refuses longer ones for safety.
_LONGEST_HEADER = 10_000
# numpy has Python parse a header, and Python 3.11's parser counts its depth for all threads as one:
# now and then two at once end as SystemError (CPython issue 106905).
_PARSING = threading.Lock()


class NpzFile:
    """An open .npz file. ``names`` lists its tensors in the file's own order.

    ``file``: where to read it from if it isn't to be opened; ``path`` then only names it.
    ``most``: bytes that all its tensors may have together. Raises BadInput if the file is missing,
    can't be read, holds more or is no .npz archive.
    """

    def __init__(self, path: Path, file: BinaryIO | None = None, most: int | None = None):
        self.path = path
        try:
            self._archive = zipfile.ZipFile(file or path)
        except FileNotFoundError:
            raise BadInput(f"{path}: there is no such file; is the stage before it done?") from None
        except IsADirectoryError:
            raise BadInput(f"{path}: is a folder; give an .npz file") from None
        except OSError as error:
            raise BadInput(f"{path}: {error.strerror or error}; can't read it") from None
        except (*_DAMAGED, ValueError, NotImplementedError) as error:
            raise BadInput(
                f"{path}: not an .npz file, or cut short ({_one_line(error)}); make it again"
            ) from None
        # Some Python 3.12 and 3.13 mix up positions when threads share an archive (CPython issue
        # 127847), so each thread opens its own. A `file` that was handed in serves one thread.
        self._own = threading.local()
        self._own.archive = self._archive
        self._shared = file is not None
        self._opened = [self._archive]
        # More than it says of a member is never read.
        size = sum(info.file_size for info in self._archive.infolist())
        if most is not None and size > most:
            raise BadInput(f"{path}: holds {size >> 20} MiB, more than {most >> 20}")
        members = [info.filename for info in self._archive.infolist()]
        self._members = {name.removesuffix(".npy"): name for name in members}
        self.names = tuple(self._members)

    def __enter__(self) -> NpzFile:
        return self

    def __exit__(self, *_: object) -> None:
        for archive in self._opened:
            archive.close()

    def open(self, name: str) -> TensorStream:
        """Start reading the tensor ``name``; BadInput if it is damaged or holds objects."""
        archive = self._archive if self._shared else getattr(self._own, "archive", None)
        if archive is None:
            archive = self._own.archive = zipfile.ZipFile(self.path)
            self._opened.append(archive)
        return TensorStream(self, name, archive, self._members[name])


class TensorStream:
    """One tensor, read front to back in C order as flat pieces.

    ``shape`` and ``dtype`` are known from the start. Leave it by ``with``.
    """

    def __init__(self, source: NpzFile, name: str, archive: zipfile.ZipFile, member: str):
        self._where = f"{source.path}: tensor {name}"
        self._file = self._guard(archive.open, member)
        try:
            self.shape, fortran, self.dtype = self._guard(_header, self._file)
            why_not = _unusable(self.shape, self.dtype)
            if why_not:
                raise BadInput(f"{self._where} {why_not}")
            self.size = math.prod(self.shape)
            self._position = 0
            # Column-major tensors can't be streamed in C order. Networks don't write any.
            self._whole = self._turned() if fortran and len(self.shape) > 1 else None
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> TensorStream:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, count: int) -> np.ndarray:
        """The next ``count`` elements, 1-D, own dtype, read-only; fewer at the tensor's end."""
        count = min(count, self.size - self._position)
        start, self._position = self._position, self._position + count
        if self._whole is not None:
            return self._whole[start : self._position]
        piece = self._take(count)
        if self._position == self.size:
            self._finish()
        return piece

    def skip_rest(self) -> None:
        """Read what is left, only to have its checksum checked."""
        while self._position < self.size:
            self.read(1 << 18)

    def _take(self, count: int) -> np.ndarray:
        wanted = count * self.dtype.itemsize
        data = self._guard(self._file.read, wanted) if wanted else b""
        if len(data) != wanted:
            raise BadInput(f"{self._where} is cut short; make the file again")
        if not wanted:
            return np.empty(count, self.dtype)
        return np.frombuffer(data, self.dtype)

    def _turned(self) -> np.ndarray:
        flat = self._take(self.size)
        self._finish()
        return flat.reshape(self.shape, order="F").ravel()

    def _finish(self) -> None:
        # zipfile compares the checksum when the member's end is reached, not before.
        if self._guard(self._file.read, 1):
            raise BadInput(f"{self._where} is longer than its header says; make the file again")

    def _guard(self, call, *arguments):
        try:
            return call(*arguments)
        except _UNREADABLE as error:
            raise BadInput(
                f"{self._where} can't be read ({_one_line(error)}); make the file again"
            ) from None


def npy_values(data: bytes) -> np.ndarray:
    """The values of an .npy file, flat and in its own order, with its shape in C order.

    :raises BadInput: it is none, damaged, or holds Python objects; without the file's name
    """
    file = io.BytesIO(data)
    try:
        shape, _, dtype = _header(file)
    except _UNREADABLE as error:
        raise BadInput(f"can't be read ({_one_line(error)})") from None
    why_not = _unusable(shape, dtype)
    if why_not:
        raise BadInput(why_not)
    # Before anything of that size is made: a header of a line may name any number.
    if math.prod(shape) * dtype.itemsize > len(data) - file.tell():
        raise BadInput("is cut short; make the file again")
    return np.frombuffer(data, dtype, math.prod(shape), file.tell()).reshape(shape)


def _header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns come first, and type."""
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"array format {version} holds no plain numbers")
    with _PARSING:
        return readers[version](file, max_header_size=_LONGEST_HEADER)


def _unusable(shape: tuple[int, ...], dtype: np.dtype) -> str:
    if dtype.hasobject:
        return "holds pickled Python objects, which are not loaded"
    if min(shape, default=0) < 0:
        return "has a negative size; make the file again"
    # There could be any number of elements that take no room, and no end to reading them.
    return "" if dtype.itemsize else "holds nothing: its elements have no bytes"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
