#!/usr/bin/env python3
"""Install an extra: packages that only some networks need, for the toolchain's CPython 3.10.

The folder made holds:

| | |
|---|---|
| `run` | runs a program in it: `run scripts/import_torch.py --help` |
| `bin/python3` | link to the toolchain's CPython 3.10 |
| `site-packages/` | what requirements/extra-NAME.txt names |
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import click

from tpumake import cli
from tpumake.elf_stand_in import Wanted, stand_in, wanted
from tpumake.folders import replace_folder
from tpumake.installer import ROOT, SetupError, announce, prune, run, uv
from tpumake.openmp import FORGET_KILLED

RUN = """#!/bin/sh
# Runs a Python program with this extra's packages, for instance: run -c 'import numpy'
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
PYTHONPATH=$here/site-packages
# More threads than one cost time here; Make runs stages side by side instead.
: "${OMP_NUM_THREADS=1}"
PYTHONNOUSERSITE=1
PYTHONHASHSEED=0
# The same results with and without a GPU.
CUDA_VISIBLE_DEVICES=
unset PYTHONHOME
export PYTHONPATH OMP_NUM_THREADS PYTHONNOUSERSITE PYTHONHASHSEED CUDA_VISIBLE_DEVICES
@FORGET
exec "$here/bin/python3" "$@"
""".replace("@FORGET\n", FORGET_KILLED)
ABSENT = '''"""In place of {name}, which this Python lacks: to be named, not called."""


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)

    def absent(*_, **__):
        raise ImportError("this Python has no {name}")

    return absent
'''
MB = 10**6
# While trying: nobody's own packages, no GPU, no settings in the home folder, no questions asked of
# the network.
SETTINGS = {
    "PYTHONNOUSERSITE": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "YOLO_OFFLINE": "1",
    "YOLO_AUTOINSTALL": "0",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


class Extra(NamedTuple):
    """One extra: megabytes of downloads and of disk, what is tried to import, what may go.

    ``disk`` is what is needed while it is installed, some of which goes again; ``unused`` are
    patterns of files that no import and no conversion loads; ``linked`` is the folder of libraries
    whose missing ones get stand-ins. ``beside_tools``: it is imported by tpu_mlir's tools alone,
    and leaves out what they have themselves.
    """

    download: int
    disk: int
    modules: str
    unused: tuple[str, ...] = ()
    linked: str = ""
    beside_tools: bool = False


# Test data, headers to compile against, what only training or a GPU would load.
COMMON = ("onnx/backend/test/data", "numpy/[!_]*/**/tests", "bin", "share")
EXTRAS = {
    "caffe": Extra(1, 1, "six", beside_tools=True),
    "tflite": Extra(
        20,
        20,
        "ai_edge_litert.interpreter",
        # Compilers for phones and for graphics processors.
        ("ai_edge_litert/tools", "ai_edge_litert/vendors", "ai_edge_litert/libLiteRt*.so"),
        beside_tools=True,
    ),
    "paddle": Extra(260, 950, "paddle paddle2onnx onnxruntime", ("paddle/include",)),
    "tensorflow": Extra(
        340,
        1500,
        "tensorflow tf2onnx onnxruntime",
        ("tensorflow/include", "tensorflow/lite/**/*.h"),
    ),
    "torch": Extra(
        700,
        1600,
        "torch torchvision ultralytics.nn.tasks onnxruntime",
        (
            "torch/include",
            "torch/test",
            "torch/lib/libtorch_cuda_linalg.so",
            "ultralytics/assets",
            "nvidia/cu*/lib/libnvperf*",
            "nvidia/cu*/lib/libpcsampling*",
            "nvidia/cu*/lib/libcheckpoint*",
            "nvidia/cu*/include",
        ),
        linked="torch/lib",
    ),
}
# CUDA's libraries. The driver's own, libcuda, is never there at first, and nobody minds.
CUDA = re.compile(r"lib(cu(?!da\.)|nccl|nv)")


def install(name: str, target: Path, python: Path) -> None:
    """Make an extra's folder.

    :param name: of the extra; ``requirements/extra-<name>.txt`` is its lock
    :param target: the folder; it appears complete or not at all
    :param python: the toolchain's CPython 3.10
    :raises SetupError: when there is no such extra, no room, or a package can't be had
    """
    lock = ROOT / "requirements" / f"extra-{name}.txt"
    if name not in EXTRAS or not lock.exists():
        raise SetupError(f"there is no extra {name}; there are: {', '.join(sorted(EXTRAS))}")
    extra = EXTRAS[name]
    started = time.monotonic()
    where = os.path.relpath(target)
    announce(name, f"{_size(extra.disk)} into {where}, {_size(extra.download)} of downloads …")
    with replace_folder(target.resolve()) as partial:
        _insist_on_room(partial, extra)
        packages = partial / "site-packages"
        uv("pip", "install", "-p", sys.executable, "--target", packages, "--python-version", "3.10",
           "--python-platform", "x86_64-manylinux_2_35", "--no-deps", "--require-hashes",
           "--only-binary", ":all:", "-r", lock,
           what=f"installing extra {name}", show_progress=True)  # fmt: skip
        prune(packages, (*COMMON, *extra.unused))
        if extra.linked:
            write_stand_ins(packages, packages / extra.linked)
        (partial / "bin").mkdir()
        (partial / "bin" / "python3").symlink_to(_link_text(python, target / "bin"))
        (partial / "run").write_text(RUN)
        (partial / "run").chmod(0o755)
        write_modules(packages, python)
        # This also compiles, and keeps, the bytecode of what they import.
        os.environ["PYTHONDONTWRITEBYTECODE"] = ""
        # Outside of the folder, whose link to the toolchain is only right in its final place.
        modules = [f"import {module}" for module in extra.modules.split()]
        places = [packages]
        if extra.beside_tools:
            places.append(python.absolute().parent.parent / "site-packages")
        settings = {
            "PYTHONPATH": ":".join(map(str, places)),
            "PYTHONNOUSERSITE": "1",
            "YOLO_CONFIG_DIR": str(partial / "settings"),
        }
        command = [python.absolute(), "-c", "\n".join(modules)]
        run(command, f"trying extra {name}", env=os.environ | SETTINGS | settings)
        shutil.rmtree(partial / "settings", ignore_errors=True)
    announce(name, f"{where} imports {extra.modules.replace(' ', ', ')}", started)


def write_modules(packages: Path, python: Path) -> None:
    """Put in what some packages import at once, and need never, where the Python is without it."""
    for name in ("lzma",):
        command = [python, "-c", f"import {name}"]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            (packages / f"{name}.py").write_text(ABSENT.format(name=name))


def write_stand_ins(packages: Path, folder: Path) -> None:
    """Put stand-ins beside some libraries for those of CUDA's that they ask for and don't have."""
    present = {path.name for path in packages.rglob("*.so*")}
    asked: set[str] = set()
    symbols: list[Wanted] = []
    for library in sorted(folder.glob("*.so*")):
        needed, more = wanted(library)
        asked.update(needed)
        symbols += more
    for name in sorted(asked - present):
        if not CUDA.match(name):
            continue
        # Where symbols carry no version, their names tell whose they are.
        stem = re.match(r"lib([A-Za-z]+)", name)[1].lower()
        mine = [one for one in symbols if one.library or one.name.lower().startswith(stem)]
        (folder / name).write_bytes(stand_in(name, mine))


def _size(megabytes: int) -> str:
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes} MB"


def _insist_on_room(folder: Path, extra: Extra) -> None:
    free = shutil.disk_usage(folder).free
    if free < extra.disk * MB:
        raise SetupError(
            f"{folder.parent}: {_size(extra.disk)} are needed, {_size(free // MB)} are free; "
            "make room, or name another disk: make EXTRAS=…"
        )


def _link_text(program: Path, folder: Path) -> str:
    """Relative if both lie in one checkout, so that it can be moved; absolute otherwise."""
    program, folder = program.absolute(), folder.absolute()
    if program.is_relative_to(folder.parent.parent.parent):
        return os.path.relpath(program, folder)
    return str(program)


@click.command(help=__doc__.splitlines()[0])
@click.argument("name")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--python", required=True, type=click.Path(exists=True, path_type=Path),
              help="The toolchain's CPython 3.10.")  # fmt: skip
def main(name: str, target: Path, python: Path) -> None:
    """Install the extra NAME into the folder TARGET."""
    try:
        install(name, target, python)
    except SetupError as error:
        raise cli.BadInput(str(error)) from None


if __name__ == "__main__":
    cli.run(main)
