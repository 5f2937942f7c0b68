"""Telling a full disk from other failures of a tool."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

__all__ = ["insist_on_room"]

# A disk with less room than this (bytes) is full.
NO_ROOM = 1 << 16


def insist_on_room(log: str, build: Path) -> None:
    """Tell a full disk from other failures: tools that met one say so, or die of a cut-off file.

    :raises OSError: if there is no room
    """
    for number in (errno.ENOSPC, errno.EDQUOT):
        if os.strerror(number) in log:
            raise OSError(number, os.strerror(number), str(build))
    if shutil.disk_usage(build).free < NO_ROOM:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(build))
