"""Put a Chromium, and what tests it, beside the environment that drives it; from npm's registry.

| part | from |
|---|---|
| Chromium's headless shell, and libraries that a host may lack | npm's @sparticuz/chromium |
| axe-core, which looks for what some people can't see or reach | npm's axe-core |
| the decompressor for the first | the Node.js that Playwright brings |

A Chromium of the host's own is taken instead where there is one, or where CHROMIUM names one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tarfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

from tpumake.installer import SetupError, run

CHROMIUM = ("@sparticuz/chromium@153.0.0", "sparticuz-chromium-153.0.0.tgz",
            "20e5656fcdcf4118ede85edfb9d6bb9cc1bbb7ffb8b75622fffbcf36a835c3c0")  # fmt: skip
AXE = ("axe-core@4.14.1", "axe-core-4.14.1.tgz",
       "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745")  # fmt: skip
UNPACK = """const fs = require("fs"), zlib = require("zlib");
const [from, to] = process.argv.slice(1);
fs.writeFileSync(to, zlib.brotliDecompressSync(fs.readFileSync(from)));"""


def fetch(package: tuple[str, str, str], folder: Path) -> tarfile.TarFile:
    """Have npm fetch a package, so that npm's own configuration says from where; and open it."""
    name, file, digest = package
    npm = shutil.which("npm")
    if not npm:
        raise SetupError("npm is needed, to fetch what the reports are looked at with")
    run([npm, "pack", "--silent", name], f"fetching {name}", cwd=folder)
    if hashlib.sha256((folder / file).read_bytes()).hexdigest() != digest:
        raise SetupError(f"{name}: its bytes are not those that were locked")
    return tarfile.open(folder / file)


def setup(folder: Path) -> None:
    """Write `axe.min.js`, `chromium`, a program or a link to one, and `chromium-lib` there."""
    scratch = folder / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    with fetch(AXE, scratch) as package:
        (folder / "axe.min.js").write_bytes(package.extractfile("package/axe.min.js").read())
    own = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    program = folder / "chromium"
    program.unlink(missing_ok=True)
    (folder / "chromium-lib").mkdir(exist_ok=True)
    if own:
        program.symlink_to(own)
    else:
        with fetch(CHROMIUM, scratch) as package:
            package.extractall(scratch)
        (node,) = folder.glob("lib/python*/site-packages/playwright/driver/node")
        packed = scratch / "package/bin"
        for name, target in (("chromium.br", program), ("al2023.tar.br", scratch / "libraries")):
            run([node, "-e", UNPACK, packed / name, target], f"unpacking {name}")
        program.chmod(0o755)
        with tarfile.open(scratch / "libraries") as libraries:
            libraries.extractall(folder / "chromium-lib")
    shutil.rmtree(scratch)


if __name__ == "__main__":
    try:
        setup(Path(sys.argv[1]))
    except SetupError as error:
        sys.exit(f"setup_browser: {error}")
