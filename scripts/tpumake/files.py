"""Files that are there as a whole or not at all, and locks that end with their holder."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["atomic_write", "drop_if_left", "locked", "try_lock"]

UNIQUE = set("0123456789abcdef-")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give an empty temporary file beside ``path``; on success it becomes ``path``, else it goes.

    Being in the same folder, the rename can't cross file systems, so nobody ever sees half a file.
    Temporary files of killed programs go with the next one.
    """
    for left in path.parent.iterdir():
        if _is_temporary(left, path):
            drop_if_left(left)
    temporary = path.with_name(f".{path.name}.{os.getpid():x}-{time.monotonic_ns():x}{path.suffix}")
    handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        # Held to the end. Where the file system knows no locks nobody tidies up, either.
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        # Another program may have tidied it away before it was locked.
        temporary.touch()
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def _is_temporary(file: Path, path: Path) -> bool:
    """Whether a file is one that ``atomic_write`` made for ``path``."""
    before, after = f".{path.name}.", path.suffix
    unique = file.name[len(before) : len(file.name) - len(after)]
    return file.name == f"{before}{unique}{after}" and "-" in unique and set(unique) <= UNIQUE


def drop_if_left(file: Path) -> None:
    """Remove a file that nobody holds locked: the program that made it was killed."""
    with suppress(OSError):
        handle = try_lock(file, os.O_RDWR)
        if handle is not None:
            file.unlink()
            os.close(handle)


def try_lock(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> int | None:
    """Lock a file, which is made, or with other flags a folder; None if another process has it.

    The lock ends with the handle that is given, at the latest with this process.

    :raises OSError: if there can't be a lock, as on some network file systems
    """
    handle = os.open(path, flags, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except OSError:
        os.close(handle)
        raise
    return handle


@contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold a file's lock.

    Where the file system knows no locks it goes on without: results are put in place by renames, so
    that two at once lose time and nothing else.

    :param waiting: called several times a second while another process has it
    """
    handle = None
    with suppress(OSError):
        while (handle := try_lock(path)) is None:
            waiting()
            time.sleep(0.1)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)
