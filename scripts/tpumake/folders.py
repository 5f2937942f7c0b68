"""Folders that are there as a whole or not at all, and that killed programs don't leave behind."""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tpumake.files import try_lock

__all__ = ["private_folder", "put_folder", "replace_folder"]

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
    _put_back(path)
    try:
        with private_folder(path.parent, f".{path.name}.new-") as temporary:
            yield temporary
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o777 & ~umask)
            put_folder(temporary, path)
    finally:
        if not path.exists():
            for above in made:
                with suppress(OSError):
                    above.rmdir()


@contextmanager
def private_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Give a new, empty folder in ``parent`` that is gone afterwards.

    Those of the same prefix whose program was killed go, too: nobody holds their lock any more.
    """
    for left in parent.iterdir():
        if left.name.startswith(prefix):
            lock = _lock(left)
            if lock is not None:
                shutil.rmtree(left, ignore_errors=True)
                os.close(lock)
    # Another program may tidy a new folder away before it is locked: then try again. The last time
    # goes without, for file systems that know no locks.
    for last in (False, False, False, True):
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        lock = _lock(folder)
        if lock is not None or last:
            break
        shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def put_folder(temporary: Path, path: Path) -> None:
    """Rename a folder to ``path``, swapping it for what was there, which may be gone afterwards."""
    _put_back(path)
    if not path.exists():
        temporary.rename(path)
    elif not _exchange(temporary, path):
        # Without exchange there is a moment without either; _put_back mends that.
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


def _put_back(path: Path) -> None:
    """Undo what a run that was killed between two renames left."""
    old = path.with_name(f".{path.name}.old")
    if old.is_dir():
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(path)


def _lock(folder: Path) -> int | None:
    """A lock that ends with this process; None if another one has it, or there is no locking."""
    with suppress(OSError):
        handle = try_lock(folder, os.O_RDONLY | os.O_DIRECTORY)
        # Another program may have removed it between the opening and the locking.
        if handle is not None and not folder.exists():
            os.close(handle)
            return None
        return handle
    return None
