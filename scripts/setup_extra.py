#!/usr/bin/env python3
"""Install an extra: packages for the toolchain's Python that only some networks need.

The folder made holds `site-packages/`: what requirements/extra-NAME.txt names, and the modules of
scripts/stand_ins/NAME, which stand in for packages that are imported there and not used.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import click

from tpumake import cli
from tpumake.folders import replace_folder
from tpumake.installer import ROOT, SetupError, announce, prune, uv

STAND_INS = ROOT / "scripts" / "stand_ins"
# Compilers for phones and for graphics processors, two thirds of what would lie on the disk.
UNUSED = (
    "ai_edge_litert/tools",
    "ai_edge_litert/vendors",
    "ai_edge_litert/libLiteRt*.so",
    "bin",
)


def install(name: str, target: Path) -> None:
    """Make an extra's folder; it appears complete or not at all.

    :raises SetupError: where there is no such extra, or a package can't be had
    """
    lock = ROOT / "requirements" / f"extra-{name}.txt"
    if not lock.exists():
        raise SetupError(f"{name}: there is no such extra, nor requirements/{lock.name}")
    started = time.monotonic()
    with replace_folder(target.resolve()) as partial:
        packages = partial / "site-packages"
        uv("pip", "install", "-p", sys.executable, "--target", packages, "--python-version", "3.10",
           "--python-platform", "x86_64-manylinux_2_35", "--no-deps", "--require-hashes",
           "--only-binary", ":all:", "-r", lock,
           what=f"installing extra {name}", show_progress=True)  # fmt: skip
        prune(packages, UNUSED)
        if (STAND_INS / name).is_dir():
            shutil.copytree(STAND_INS / name, packages, dirs_exist_ok=True,
                            ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
    announce("extra", f"{name}, requirements/{lock.name}", started)


@click.command(help=__doc__.splitlines()[0])
@click.argument("name")
@click.argument("target", type=click.Path(path_type=Path))
def main(name: str, target: Path) -> None:
    """Install the extra NAME into TARGET."""
    try:
        install(name, target)
    except SetupError as error:
        raise cli.BadInput(str(error)) from None


if __name__ == "__main__":
    cli.run(main)
