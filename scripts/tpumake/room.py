"""Telling a full disk from other failures of a tool."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from pathlib import Path

__all__ = ["died_of_sigbus", "insist_on_room"]

# A disk with less room than this (bytes) is full.
NO_ROOM = 1 << 16
# The same where a tool died of SIGBUS, writing to a mapped file: it took away what it had written,
# and a model with its weights can be as large.
NO_ROOM_FOR_PAGES = 1 << 28
# How a shell tells of SIGBUS; the tools start each other by shells.
BUS_ERROR = "Bus error"


def died_of_sigbus(log: str, code: int) -> bool:
    """Whether a tool, or one that it had started, died of SIGBUS.

    :param code: the tool's exit code; negative for a signal
    """
    return BUS_ERROR in log or code == -signal.SIGBUS


def insist_on_room(log: str, build: Path) -> None:
    """Tell a full disk from other failures: tools that met one say so, or die of a cut-off file.

    :raises OSError: if there is no room
    """
    for number in (errno.ENOSPC, errno.EDQUOT):
        if os.strerror(number) in log:
            raise OSError(number, os.strerror(number), str(build))
    least = NO_ROOM_FOR_PAGES if BUS_ERROR in log else NO_ROOM
    if shutil.disk_usage(build).free < least:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(build))
