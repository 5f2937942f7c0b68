"""Files that are there as a whole or not at all, and locks that end with their holder."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["atomic_write", "locked", "try_lock"]


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give an empty temporary file beside ``path``; on success it becomes ``path``, else it goes.

    Being in the same folder, the rename can't cross file systems, so nobody ever sees half a file.
    """
    unique = f"{os.getpid():x}-{time.monotonic_ns():x}"
    temporary = path.with_name(f".{path.name}.{unique}{path.suffix}")
    temporary.touch(exist_ok=False)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[bool]:
    """Hold a file's lock; True if it had to be waited for.

    Where the file system knows no locks it goes on without: results are put in place by renames, so
    that two at once lose time and nothing else.

    :param waiting: called several times a second while another process has it
    """
    waited = False
    handle = None
    with suppress(OSError):
        while (handle := try_lock(path)) is None:
            waited = True
            waiting()
            time.sleep(0.1)
    try:
        yield waited
    finally:
        if handle is not None:
            os.close(handle)
