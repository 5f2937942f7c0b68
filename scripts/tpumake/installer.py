"""How packages get onto this machine: pip brings uv, uv brings everything else.

Only the standard library is imported here, because `setup_venv.py` runs before anything else is
installed. No index is named here or in the locks: pip's and uv's own configuration decides.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "ROOT",
    "SetupError",
    "announce",
    "any_pip",
    "locked",
    "prune",
    "run",
    "uv",
    "uv_settings",
]

ROOT = Path(__file__).resolve().parent.parent.parent


class SetupError(Exception):
    """Set-up can't go on. One line: what, where, what to do."""


def announce(what: str, text: str, started: float | None = None) -> None:
    """Print one line of set-up's report, with the seconds since ``started``."""
    seconds = "" if started is None else f"  {time.monotonic() - started:.1f} s"
    print(f"{'setup':<8} {what:<12} {text}{seconds}", flush=True)


def run(
    command: list[str | Path], what: str, show_progress: bool = False, **options: object
) -> str:
    """Run a command and give its standard output; on failure say its most telling line.

    :param show_progress: on a terminal, let the command's standard error through as it comes
    :raises SetupError: naming ``what`` and why it failed
    """
    words = [str(word) for word in command]
    errors = None if show_progress and sys.stderr.isatty() else subprocess.PIPE
    try:
        done = subprocess.run(
            words, stdout=subprocess.PIPE, stderr=errors, text=True, check=False, **options
        )
    except OSError as error:
        raise SetupError(f"{what}: {words[0]}: {error.strerror}") from None
    if done.returncode:
        said = [line.strip() for line in f"{done.stdout}\n{done.stderr or ''}".splitlines()]
        raise SetupError(f"{what}: {_cause([line for line in said if line], done.returncode)}")
    return done.stdout


def _cause(lines: list[str], code: int) -> str:
    """Pick the line of a failed command's output that says the most."""
    if not lines:
        return f"exit code {code}"
    wanted = re.compile(r"cause|error[: ]|not found|no space", re.I)
    telling = [line for line in lines if wanted.search(line)] or lines
    return telling[-1].lstrip("│╰─▶├× ").removeprefix("cause: ")


def prune(packages: Path, patterns: tuple[str, ...]) -> None:
    """Delete parts of installed packages: glob patterns of folders and files."""
    for pattern in patterns:
        for path in packages.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def locked(lock: Path, *names: str) -> str:
    """Cut the entries of some packages, with their hashes, out of a lock file."""
    entries = re.split(r"^(?=[a-z0-9])", lock.read_text(), flags=re.M)
    wanted = [entry for entry in entries if entry.split("==")[0] in names]
    if len(wanted) != len(names):
        raise SetupError(f"{lock}: lacks one of {', '.join(names)}; run `make lock`")
    return "".join(wanted)


def uv(*arguments: str | Path, what: str, **options: object) -> str:
    """Run the locked uv, which lies beside the helpers' Python that runs this."""
    return run([Path(sys.executable).parent / "uv", *arguments], what, env=uv_settings(), **options)


def uv_settings() -> dict[str, str]:
    """The environment for uv: no surprises from user files, but the user's own package index.

    uv does not read pip's configuration, where many people behind a mirror have named theirs.
    """
    env = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    env["UV_NO_CONFIG"] = "1"
    # Hard links share the disk with uv's cache; where that is another disk, copies will do.
    env.setdefault("UV_LINK_MODE", "hardlink")
    env.setdefault("UV_HTTP_TIMEOUT", "120")
    if not any(name in env for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL")):
        index = _pip_setting("index-url")
        if index:
            env["UV_DEFAULT_INDEX"] = index
    certificates = env.get("PIP_CERT") or env.get("REQUESTS_CA_BUNDLE")
    if certificates and "SSL_CERT_FILE" not in env:
        env["SSL_CERT_FILE"] = certificates
    return env


def _pip_setting(name: str) -> str:
    """A setting of pip's from its files or the environment, empty if there is none."""
    value = os.environ.get(f"PIP_{name.upper().replace('-', '_')}", "")
    pip = None if value else _installed_pip()
    if pip:
        for section in ("global", "install"):
            command = [sys.executable, str(pip), "config", "get", f"{section}.{name}"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            value = value or (done.stdout.strip() if done.returncode == 0 else "")
    return value


def _installed_pip() -> Path | None:
    spec = importlib.util.find_spec("pip")
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) if places else None


@contextmanager
def any_pip() -> Iterator[Path]:
    """Give something that `python <it> install …` runs as pip: a folder or a wheel.

    Looked for in this order: this Python's pip, the one bundled for `ensurepip`, the one that the
    distribution's package registry has (Debian and Ubuntu ship Python without either).

    :raises SetupError: when there is none
    """
    pip = _installed_pip() or _bundled_pip()
    if pip:
        yield pip
        return
    with tempfile.TemporaryDirectory(prefix="tpumake-") as folder:
        yield _distribution_pip(Path(folder))


def _bundled_pip() -> Path | None:
    spec = importlib.util.find_spec("ensurepip")
    if not spec or not spec.origin:
        return None
    wheels = sorted(Path(spec.origin).parent.glob("_bundled/pip-*.whl"))
    wheels += sorted(Path("/usr/share/python-wheels").glob("pip-*.whl"))
    return wheels[-1] / "pip" if wheels else None


def _distribution_pip(folder: Path) -> Path:
    """Unpack Debian's or Ubuntu's pip wheel into a folder, without root and without installing."""
    advice = "install it (`sudo apt install python3-venv`) or uv, then run make again"
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise SetupError(f"{sys.executable} has no pip; {advice}")
    # A private state folder: the system's may be empty, and only root may update that one.
    state = folder / "apt"
    for part in ("state/lists/partial", "cache/archives/partial"):
        (state / part).mkdir(parents=True)
    private = ["-o", f"Dir::State={state}/state", "-o", f"Dir::Cache={state}/cache",
               "-o", "Dir::State::status=/var/lib/dpkg/status"]  # fmt: skip
    what = f"no pip in {sys.executable}, and fetching the distribution's failed ({advice})"
    try:
        run(["apt-get", "download", "python3-pip-whl"], what, cwd=folder)
    except SetupError:
        run(["apt-get", *private, "update"], what, cwd=folder)
        run(["apt-get", *private, "download", "python3-pip-whl"], what, cwd=folder)
    (package,) = folder.glob("python3-pip-whl*.deb")
    run(["dpkg-deb", "-x", package, folder / "package"], what)
    wheels = sorted(folder.glob("package/usr/share/python-wheels/pip-*.whl"))
    if not wheels:
        raise SetupError(what)
    return wheels[-1] / "pip"
