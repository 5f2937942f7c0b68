#!/usr/bin/env python3
"""Make `.venv`, the environment of the helpers, from requirements/helpers.txt.

Runs on the host's own python3 with nothing but the standard library. With arguments, installs
further locks into the `.venv` that is there: setup_venv.py requirements/dev.txt
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

if sys.version_info < (3, 10):
    sys.exit(f"setup_venv: python3 is {sys.version.split()[0]}, 3.10 or newer is needed; "
             "name one: make PYTHON=/path/to/python3")  # fmt: skip

from tpumake.installer import (
    ROOT,
    SetupError,
    announce,
    any_pip,
    fresh_folder,
    locked,
    prune,
    run,
    uv_settings,
)

VENV = ROOT / ".venv"
HELPERS = ROOT / "requirements" / "helpers.txt"
# The packages' own tests and their data.
UNUSED = ("lib/*/site-packages/onnx/backend/test/data", "lib/*/site-packages/numpy/**/tests")


def make_venv() -> None:
    """Build `.venv` beside its place and put it there when it is complete."""
    started = time.monotonic()
    with fresh_folder(VENV) as partial:
        # Without pip: Debian and Ubuntu leave out what `venv` would need to bring it.
        run([sys.executable, "-m", "venv", "--without-pip", partial], "making .venv")
        python = partial / "bin" / "python"
        _install_uv(python)
        install(HELPERS, python)
        prune(partial, UNUSED)
        version = ".".join(map(str, sys.version_info[:3]))
    announce("helpers", f".venv, Python {version}, requirements/{HELPERS.name}", started)


def _install_uv(python: Path) -> None:
    found = shutil.which("uv")
    with tempfile.TemporaryDirectory(prefix="tpumake-") as folder:
        lock = Path(folder) / "uv.txt"
        lock.write_text(locked(HELPERS, "uv"))
        if found:
            run([found, "pip", "install", "-q", "-p", python, "--no-deps", "--require-hashes",
                 "-r", lock], "installing uv", env=uv_settings())  # fmt: skip
            return
        with any_pip() as pip:
            # --ignore-installed: what the host's own Python has is not in our environment.
            run([python, pip, "install", "-q", "--ignore-installed", "--no-deps", "--only-binary",
                 ":all:", "--require-hashes", "--disable-pip-version-check", "-r", lock],
                "installing uv with pip")  # fmt: skip


def install(lock: Path, python: Path) -> None:
    """Install every package of a lock, by hash, into an environment."""
    uv = python.parent / "uv"
    run([uv, "pip", "install", "-p", python, "--no-deps", "--compile-bytecode", "--require-hashes",
         "--only-binary", ":all:", "-r", lock],
        f"installing {lock.name}", show_progress=True, env=uv_settings())  # fmt: skip


def main() -> None:
    """Make the environment, or add the locks that are named on the command line."""
    try:
        if len(sys.argv) == 1:
            make_venv()
        for lock in map(Path, sys.argv[1:]):
            started = time.monotonic()
            install(lock, VENV / "bin" / "python")
            announce("helpers", f".venv, {lock}", started)
    except SetupError as error:
        sys.exit(f"setup_venv: {error}")
    except OSError as error:
        sys.exit(f"setup_venv: {error.filename or '.venv'}: {error.strerror}")
    except KeyboardInterrupt:
        sys.exit("setup_venv: interrupted; the next run takes what was already downloaded")


if __name__ == "__main__":
    main()
