"""How many stages run at once, by the memory that they take.

Each stage that runs holds a locked file whose name tells how much it may need. Another one starts
when there is room for it beside those, or when none runs: -j bounds the number, this the sum.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tpumake.amounts import byte_count
from tpumake.files import locked, try_lock

__all__ = ["available", "most", "room_for"]

# The rest is for the host and its file cache.
SHARE = 0.8
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@contextmanager
def room_for(need: int, folder: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Wait until there is room for ``need`` bytes, and keep it.

    :param folder: where the stages of one build find each other
    :param waiting: called now and then meanwhile
    """
    place = folder / "memory"
    place.mkdir(parents=True, exist_ok=True)
    total = available()
    handle = None
    while True:
        with locked(folder / "memory.lock"):
            others = _held(place)
            if not others or others + need <= total:
                held = place / f"{need}-{os.getpid()}"
                # Where there are no locks there is no waiting either.
                with suppress(OSError):
                    handle = try_lock(held)
                break
        waiting()
        time.sleep(0.2)
    try:
        yield
    finally:
        held.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


def _held(place: Path) -> int:
    """What the stages that run may need, in bytes; the files of killed ones are removed."""
    total = 0
    for file in place.iterdir():
        need = file.name.partition("-")[0]
        with suppress(OSError):
            handle = try_lock(file, os.O_RDWR)
            if handle is None:
                total += int(need)
            else:
                file.unlink()
                os.close(handle)
    return total


def available() -> int:
    """The bytes that all stages together may take: MEMORY, or ``most``.

    :raises BadInput: if MEMORY is not an amount
    """
    if os.environ.get("MEMORY"):
        return byte_count("MEMORY", os.environ["MEMORY"])
    return most()


def most() -> int:
    """Most of the bytes that machine or cgroup has."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in LIMITS:
        with suppress(OSError, ValueError):
            sizes.append(int(Path(limit).read_text()))
    return int(min(sizes) * SHARE)
