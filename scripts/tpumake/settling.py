"""What is done to the tools' results so that two runs give the same bytes, and each gives all.

Part of every tool stage's key: a change here makes other results.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from tpumake import bmodel, cvimodel

__all__ = ["empty_quantize_table", "model", "table"]


def table(path: Path, epoch: int) -> None:
    """One of the first lines of tables is the time at which they were made; write another one.

    :param epoch: seconds since 1970, shown in UTC
    """
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(epoch))
    text = re.sub(r"^(# gene\w+ time: ).*", rf"\g<1>{when}", path.read_text(), count=1, flags=re.M)
    path.write_text(text)


def empty_quantize_table(path: Path) -> None:
    """Where INT8 is good enough, run_qtable writes nothing; write a table without layers."""
    path.write_text("# INT8 alone is good enough\n###\n# op_name   quantize_mode\n")


def model(path: Path, epoch: int) -> None:
    """A compiled model has its build time in it; write another one."""
    kind = bmodel if path.suffix == ".bmodel" else cvimodel
    kind.set_build_time(path, epoch)
