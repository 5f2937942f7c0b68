"""What is done to the tools' results so that two runs give the same bytes, and each gives all.

Part of every tool stage's key: a change here makes other results.
"""

from __future__ import annotations

import re
import time
import zipfile
from pathlib import Path

from tpumake import bmodel, cvimodel

__all__ = ["drop_unnamed", "empty_quantize_table", "model", "name_weights", "table"]


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


def drop_unnamed(outputs: Path) -> None:
    """TFLite's scratch memory is among a network's tensors, without a name: never the same twice.

    :param outputs: an .npz file of all tensors
    """
    whole = outputs.rename(outputs.with_suffix(".whole"))
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(outputs, "w") as new:
        for member in old.infolist():
            if member.filename != ".npy":
                new.writestr(member, old.read(member))
    whole.unlink()


def name_weights(network: Path, weights: Path) -> None:
    """A quantised network's weights have another name; give them that of all others'.

    The network names the file that they are in.

    :param network: in tpu_mlir's form, text
    :param weights: what the file is to be called, in the same folder
    """
    now = weights.with_name(weights.name.replace("_top_f32_", "_top_quantized_"))
    if now.exists():
        network.write_text(network.read_text().replace(f'"{now.name}"', f'"{weights.name}"'))
        now.rename(weights)


def model(path: Path, epoch: int) -> None:
    """A compiled model has its build time in it; write another one."""
    kind = bmodel if path.suffix == ".bmodel" else cvimodel
    kind.set_build_time(path, epoch)
