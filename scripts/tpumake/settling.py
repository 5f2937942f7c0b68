"""What is taken out of the tools' results so that two runs give the same bytes: the times.

Part of every tool stage's key: a change here makes other results.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from tpumake.cvimodel import set_build_time

__all__ = ["calibration_table", "model"]


def calibration_table(path: Path, epoch: int) -> None:
    """The table's first line is the time at which it was made; write another one.

    :param epoch: seconds since 1970, shown in UTC
    """
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(epoch))
    text = re.sub(r"\A(# \w+ time: ).*", rf"\g<1>{when}", path.read_text())
    path.write_text(text)


def model(path: Path, epoch: int) -> None:
    """A cvimodel has its build time in it, and a checksum over that; write another one."""
    set_build_time(path, epoch)
