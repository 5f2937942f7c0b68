"""Replace a whole folder at once."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["put_folder", "replace_folder"]

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Give an empty temporary folder beside ``path``; on success it becomes ``path``.

    What was there is removed. On error, and when killed, the old folder stays as it was; temporary
    folders of killed runs go with the next one.
    """
    made = [above for above in path.parents if not above.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    _tidy(path)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.new-", dir=path.parent))
    lock = _lock(temporary)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        put_folder(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if lock is not None:
            os.close(lock)
        if not path.exists():
            for above in made:
                with suppress(OSError):
                    above.rmdir()


def put_folder(temporary: Path, path: Path) -> None:
    """Rename a folder to ``path``, swapping it for what was there, which may be gone afterwards."""
    if not path.exists():
        temporary.rename(path)
    elif not _exchange(temporary, path):
        # Where the file system can't exchange, there is a moment without either; _tidy mends it.
        old = path.with_name(f".{path.name}.old")
        path.rename(old)
        temporary.rename(path)
        shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step (Linux renameat2); False if that isn't to be had."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    names = os.fsencode(one), os.fsencode(other)
    return rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0


def _tidy(path: Path) -> None:
    """Put back or remove what a killed run left behind."""
    old = path.with_name(f".{path.name}.old")
    if old.is_dir():
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(path)
    for left in path.parent.iterdir():
        if left.name.startswith(f".{path.name}.new-"):
            lock = _lock(left)
            if lock is not None:
                shutil.rmtree(left, ignore_errors=True)
                os.close(lock)


def _lock(folder: Path) -> int | None:
    """A lock that ends with this process; None if another one has it."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return None
        return handle
    return None
