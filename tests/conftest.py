"""What the tests share: the checkout, the real toolchain, and builds that several tests look at."""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tpumake.files import locked

ROOT = Path(__file__).resolve().parent.parent

# Programs that are started by the hundred are not to compile their modules each time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# As scripts/npz_compare.py has it before NumPy is imported: NumPy's own threads cost it tenfold.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A shell script that starts the tests with `&` has them, and all they start, ignore Ctrl-C, and
# nohup a hang-up; but what signals do is tested here.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)


def helper(
    name: str, *arguments: object, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """What ``python scripts/NAME.py ARGUMENTS`` does, in this process: starting one takes longer.

    What a test means to do to a whole process, or have it do, takes a real one.
    """
    script = ROOT / "scripts" / f"{name}.py"
    out, err, code = io.StringIO(), io.StringIO(), 0
    here, before, sys.argv = Path.cwd(), sys.argv, [str(script), *map(str, arguments)]
    os.chdir(cwd or here)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        command, sys.argv = sys.argv, before
        os.chdir(here)
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())


def refused(result: subprocess.CompletedProcess) -> str:
    """A helper's answer to bad input: one line on standard error, exit code 2; gives the line."""
    assert result.returncode == 2, result
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert "bug in tpumake" not in result.stderr
    return result.stderr


@dataclass(frozen=True)
class Toolchain:
    """The installed tpu_mlir; its absence is a failure, not a reason to skip."""

    program: Path

    def run(self, args: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.program, *args], cwd=cwd, capture_output=True, text=True, check=False
        )


@pytest.fixture(scope="session")
def toolchain() -> Toolchain:
    program = Path(os.environ.get("TOOLCHAIN", ROOT / ".toolchain")) / "1.7" / "run"
    assert program.exists(), f"{program} is missing: make setup"
    return Toolchain(program)


@dataclass(frozen=True)
class Checkout:
    """A copy of the project that shares the two environments of this one."""

    path: Path

    def make(
        self,
        *arguments: str,
        check: bool = True,
        before: Sequence[str] = (),
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        # The outer make's own settings must not reach the inner one.
        env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
        # Nor the user's own results; tests of the cache name one of their own.
        env["CACHE"], env["CACHE_REMOTE"] = "0", ""
        done = subprocess.run(
            [*before, "make", *arguments],
            cwd=self.path,
            env=env | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done


class Shared:
    """What the tests of a session have in common. ``folder``: of all its processes."""

    folder: Path
    files: dict[Path, os.stat_result] = {}  # noqa: RUF012


@pytest.fixture(scope="session", autouse=True)
def _shared(tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.getbasetemp()
    Shared.folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"


@pytest.fixture(scope="module", autouse=True)
def _shared_files_stay(_shared: None) -> Iterator[None]:
    """Tell a module whose tests wrote into a file that all checkouts share; others get it anew."""
    yield
    written = []
    for path, was in list(Shared.files.items()):
        now = path.stat()
        if (now.st_size, now.st_mtime_ns) != (was.st_size, was.st_mtime_ns):
            written.append(path)
            path.unlink()
            del Shared.files[path]
    assert not written, f"a test wrote into what checkouts share; unlink it before: {written[:3]}"


def makefile_text() -> str:
    """All of the project's makefiles, one after the other."""
    return "".join(path.read_text() for path in [ROOT / "Makefile", *sorted(ROOT.glob("mk/*.mk"))])


PROJECT = (
    "Makefile", "mk", "models.mk", "scripts", "schemas", "devices", "requirements", "models",
    "datasets", "examples", "training", "tests/data/frameworks",
)  # fmt: skip


def copy_project(target: Path) -> Checkout:
    """Copy what a build reads, and link to the environments, also to those still to be made.

    Pictures and the large network are links to one copy of the session's: a test that changes one
    removes it first, and is told if it does not.
    """
    target.mkdir(parents=True)
    for name in PROJECT:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, copy_function=_copy)
        else:
            shutil.copy2(source, target / name)
    environments = {"VENV": ".venv", "TOOLCHAIN": ".toolchain", "EXTRAS": ".extras",
                    "REPORT_VENV": ".report"}  # fmt: skip
    for variable, name in environments.items():
        (target / name).symlink_to(Path(os.environ.get(variable, ROOT / name)).absolute())
    return Checkout(target)


def _copy(source: str, target: str) -> None:
    """Copy a file of the project, or link to the session's copy of it: copying took most time."""
    name = Path(source).relative_to(ROOT)
    if name.parts[0] != "datasets" and Path(source).stat().st_size < 1_000_000:
        shutil.copy2(source, target)
        return
    kept = Shared.folder / str(os.getpid()) / name
    if kept not in Shared.files:
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, kept)
        Shared.files[kept] = kept.stat()
    os.link(kept, target)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A checkout of this test's own; its path has spaces and letters beyond ASCII."""
    return copy_project(tmp_path / "ein Baum für Größen")


def build_once(name: str, *arguments: str) -> Checkout:
    """A checkout in which this is built, once for all processes of the session.

    It comes with a cache of its own, `cache` beside it, and what Make said, in `said`.
    """
    folder = Shared.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    path, said = folder / "check out", folder / "said"
    with locked(folder / "lock"):
        if not said.exists():
            shutil.rmtree(path, ignore_errors=True)
            done = copy_project(path).make(*arguments, CACHE="1", CACHE_DIR=str(folder / "cache"))
            said.write_text(done.stdout)
    return Checkout(path)


@pytest.fixture(scope="session")
def built() -> Checkout:
    """A checkout in which tiny_int8 is built. Tests may look at it but not change it."""
    return build_once("built", "tiny_int8")


# Few pictures, and half of the compiler's time, for tests that look at neither.
QUICK = ("tiny_INPUT_NUM=10", "tiny_TUNE_NUM=0", "tiny_OPT=1")


@pytest.fixture(scope="session")
def quick() -> Checkout:
    """One in which both variants of tiny are, of few pictures. Not to be changed, either."""
    return build_once("quick", *QUICK, "tiny")


def copy_checkout(checkout: Checkout, target: Path) -> Checkout:
    """A copy of a checkout with all that is built there, for a test to go on from."""
    subprocess.run(["cp", "-a", checkout.path, target], check=True)
    return Checkout(target)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests measured: `record_property("figure", …)`, whichever process ran them."""
    figures = sorted(
        text
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, text in getattr(report, "user_properties", [])
        if name == "figure" and report.when == "call"
    )
    if figures:
        terminalreporter.section("measured")
    for figure in figures:
        terminalreporter.write_line(figure)
