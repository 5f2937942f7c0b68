#!/usr/bin/env python3
"""Make an environment from a lock: `.venv`, that of the helpers, or the one of `make bench`.

Runs on the host's own python3, with nothing but the standard library.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

if sys.version_info < (3, 10):  # noqa: UP036 (the host's Python may be any)
    found = ".".join(map(str, sys.version_info[:3]))
    sys.exit(f"setup_venv: python3 is {found}, 3.10 or newer is needed; name one: make PYTHON=…")

from tpumake.folders import replace_folder
from tpumake.installer import (
    SetupError,
    announce,
    any_pip,
    locked,
    prune,
    run,
    uv_settings,
)

# The packages' own tests and their data.
UNUSED = (
    "lib/*/site-packages/onnx/backend/test/data",
    # Not those of _core, from which numpy.testing imports.
    "lib/*/site-packages/numpy/[!_]*/**/tests",
)


def make_venv(venv: Path, lock: Path) -> None:
    """Build the environment beside its place and put it there when it is complete."""
    with replace_folder(venv.resolve()) as partial:
        # Without pip: Debian and Ubuntu leave out what `venv` would need to bring it.
        run([sys.executable, "-m", "venv", "--without-pip", partial], f"making {venv}")
        python = partial / "bin" / "python"
        _install_uv(lock, python)
        install(lock, python)
        prune(partial, UNUSED)
        # Their first lines name the folder in which they were made; ours run as `python -m`.
        for script in (partial / "bin").iterdir():
            if not script.name.startswith(("python", "uv")):
                script.unlink()


def _install_uv(helpers: Path, python: Path) -> None:
    found = shutil.which("uv")
    with tempfile.TemporaryDirectory(prefix="tpumake-") as folder:
        lock = Path(folder) / "uv.txt"
        lock.write_text(locked(helpers, "uv"))
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
    """Make the environment, or add a lock to it."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("venv", type=Path, help="the environment's folder, .venv")
    arguments.add_argument("lock", type=Path, help="requirements/helpers.txt, or what to add")
    arguments.add_argument("--add", action="store_true", help="the environment is there already")
    chosen = arguments.parse_args()
    started = time.monotonic()
    try:
        if chosen.add:
            install(chosen.lock, chosen.venv / "bin" / "python")
        else:
            make_venv(chosen.venv, chosen.lock)
    except SetupError as error:
        sys.exit(f"setup_venv: {error}")
    except OSError as error:
        sys.exit(f"setup_venv: {error.filename or chosen.venv}: {error.strerror or error}")
    except KeyboardInterrupt:
        sys.exit("setup_venv: interrupted; the next run takes what was already downloaded")
    version = ".".join(map(str, sys.version_info[:3]))
    announce(chosen.lock.stem, f"{chosen.venv}, Python {version}, {chosen.lock}", started)


if __name__ == "__main__":
    main()
