"""Build a target twice from nothing, under conditions as different as this host lets them be.

The first build runs in the tree itself, the second in a copy of what a build reads of it. Neither
uses the cache, and both write to a private folder only.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from tpumake.errors import BadInput

__all__ = ["BuildFailed", "Condition", "Request", "Twice", "build_twice", "results"]

# What a build reads besides makefiles, networks and pictures.
_READ = ("mk", "scripts", "schemas", "devices", "requirements")
# The copy's own name: a build must not mind spaces and letters beyond ASCII.
_COPY = "a copy, größer"
# Notes on how a build went, in which paths and times belong.
_NOTES = ("*.parameters", "*.lock", "all.json", "*eval_*.npz", "*.eval.json", "*.accuracy.json")
# The second build's clock is so far ahead.
_AHEAD = 1234 * 24 * 3600
_MOST_JOBS = 8
# Seconds that Make has for ending its stages.
_PATIENCE = 10
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


class Request(NamedTuple):
    """What to build and what that reads; paths as the Makefile has them, relative to the top.

    ``sources`` are the networks and pictures by the variable that names them, ``environments`` the
    folders that both builds share. ``output`` is where the builds write what people see.
    """

    target: str
    build: Path
    make: str
    makefiles: list[Path]
    sources: dict[str, Path]
    environments: list[Path]
    output: IO[str]


class Condition(NamedTuple):
    """Something that the two builds don't share; ``without`` says why it had to stay the same."""

    name: str
    first: str
    second: str
    variables: tuple[dict[str, str], dict[str, str]] = ({}, {})
    without: str = ""


class Twice(NamedTuple):
    """Two build folders, and what was different when they were made."""

    first: Path
    second: Path
    conditions: list[Condition]


class BuildFailed(Exception):
    """A build ended with an error, which people have seen. ``number``: 1 or 2."""

    def __init__(self, number: int, build: Path) -> None:
        super().__init__(f"build {number} of 2 failed, see above")
        self.number = number
        self.build = build


class _Way(NamedTuple):
    """How one of the two builds is started."""

    top: Path
    build: Path
    variables: dict[str, str]
    umask: int
    jobs: int
    cores: set[int]


def build_twice(request: Request, folder: Path, announce: Callable[[str], None]) -> Twice:
    """Build ``request.target`` twice below the private folder ``folder``.

    :param announce: called with a line before each build
    :raises BuildFailed: one of them ended with an error
    """
    top = _copy_tree(request, folder)
    home = (folder / "home").absolute()
    home.mkdir()
    cores = os.sched_getaffinity(0)
    conditions = _conditions(home, cores)
    conditions.append(_order_of_pictures(request, top))
    jobs = max(2, min(len(cores), _MOST_JOBS))
    # BUILD has to be relative or without spaces, so the copy's is relative.
    builds = folder / "build", top / "build"
    ways = (
        _Way(Path(), builds[0], _variables(conditions, 0), 0o022, 1, {min(cores)}),
        _Way(top, Path("build"), _variables(conditions, 1), 0o077, jobs, cores),
    )
    for number, way in enumerate(ways, 1):
        where = getattr(conditions[0], ("first", "second")[number - 1])
        announce(f"build {number} of 2, in {where}")
        if _build(request, way) != 0:
            raise BuildFailed(number, builds[number - 1])
        # A network that the first build fetched is not fetched again.
        _add_sources(request, top)
    return Twice(*builds, conditions)


def results(build: Path) -> Iterator[Path]:
    """The files of a build folder that are results, relative to it, in order; logs are none."""
    for path in sorted(build.rglob("*")):
        name = path.relative_to(build)
        noted = {"logs", "evaluated"} & {*name.parts} or name.parts[0].startswith(".")
        if path.is_file() and not noted and not any(name.match(each) for each in _NOTES):
            yield name


# ---------------------------------------------------------------------------------------------
# Conditions


def _conditions(home: Path, cores: set[int]) -> list[Condition]:
    clock = _fake_clock()
    return [
        Condition("folder", "this tree", "a copy with spaces and letters beyond ASCII in its path"),
        _variable("time zone", "TZ", "UTC0", "TST-13:45"),
        _variable("locale", "LC_ALL", "C.UTF-8", _other_locale()),
        Condition("umask", "022", "077"),
        Condition(
            "user", "yours", "another name and home folder",
            ({}, {"HOME": str(home), "USER": "somebody", "LOGNAME": "somebody"}),
        ),
        Condition(
            "environment", "yours", "larger by 20 kB", ({}, {"TPUMAKE_PADDING": "x" * 20_000})
        ),
        Condition("jobs", "one", "several"),
        Condition("cores", "one", "all", without="" if len(cores) > 1 else "there is only one"),
        _variable("threads", "OMP_NUM_THREADS", "1", "2"),
        _variable("hash seed", "PYTHONHASHSEED", "1", "4242"),
        Condition(
            "clock", "as it is", f"{_AHEAD // 86400} days ahead", ({}, clock),
            "" if clock else "there is no faketime on PATH that works",
        ),
    ]  # fmt: skip


def _variable(name: str, variable: str, first: str, second: str) -> Condition:
    values = ({variable: first}, {variable: second})
    return Condition(name, f"{variable}={first}", f"{variable}={second}", values)


def _variables(conditions: list[Condition], number: int) -> dict[str, str]:
    return {key: value for each in conditions for key, value in each.variables[number].items()}


def _other_locale() -> str:
    """One with other letters or decimals where the host has it: Turkish, German, any, C."""
    try:
        listed = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=False)
        there = [name for name in listed.stdout.split() if name.lower().endswith(("utf8", "utf-8"))]
    except OSError:
        there = []
    others = sorted(name for name in there if not name.startswith(("C.", "POSIX", "en_")))
    return next((name for name in others if name.startswith(("tr_", "de_"))), (others or ["C"])[0])


def _fake_clock() -> dict[str, str]:
    """Variables under which programs see another date, by libfaketime; empty if it isn't there.

    The library is used without its own program, whose child would outlive it.
    """
    program = shutil.which("faketime")
    if not program:
        return {}
    ask = [program, "-m", "-f", "+0", "printenv", "LD_PRELOAD"]
    library = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip()
    variables = {
        "LD_PRELOAD": library,
        # The runner keeps the other one from the tools.
        "TPUMAKE_PRELOAD": library,
        "FAKETIME": f"+{_AHEAD}",
        # Files keep their times, and what waits for some seconds does.
        "NO_FAKE_STAT": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    now = [sys.executable, "-c", "import time; print(time.time())"]
    said = subprocess.run(
        now, env=os.environ | variables, capture_output=True, text=True, check=False
    ).stdout
    try:
        works = float(said) > time.time() + _AHEAD / 2
    except ValueError:
        works = False
    return variables if works else {}


def _order_of_pictures(request: Request, top: Path) -> Condition:
    """Copies are made in reverse order, which some file systems show and others hide."""
    folders = [
        path
        for name, path in request.sources.items()
        if name.endswith("_DATASET") and not path.is_absolute()
        for path in (path, *path.rglob("*"))
        if path.is_dir() and (top / path).is_dir()
    ]
    other = any(os.listdir(path) != os.listdir(top / path) for path in folders)  # noqa: PTH208
    why = "this file system lists them in an order of its own" if folders else "they are not copied"
    without = "" if other else why
    return Condition("order of pictures", "as it is", "another", without=without)


# ---------------------------------------------------------------------------------------------
# The copy


def _copy_tree(request: Request, folder: Path) -> Path:
    """Copy what a build reads below ``folder``, and give the copy's top.

    Relative paths have to mean the same there, so what lies outside the tree is put beside the
    copy, which for that lies deep enough. What has an absolute path is read where it is.
    """
    relative = [*request.makefiles, *request.environments, *_files(request)]
    ups = max(_ups(path) for path in relative)
    top = folder.joinpath(*(str(number) for number in range(ups)), _COPY)
    top.mkdir(parents=True)
    for name in _READ:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(name, top / name, symlinks=True, ignore=ignored)
    for path in request.makefiles:
        if not path.is_absolute():
            _place(path, top / path)
    for path in request.environments:
        if not path.is_absolute():
            place = _placed(top, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            # One that isn't there yet is made by the first build.
            place.symlink_to(path.absolute())
    _add_sources(request, top)
    return top


def _ups(path: Path) -> int:
    return 0 if path.is_absolute() else Path(os.path.normpath(path)).parts.count("..")


def _placed(top: Path, path: Path) -> Path:
    return Path(os.path.normpath(top / path))


def _add_sources(request: Request, top: Path) -> None:
    """Place the sources that are there and were not placed yet."""
    relative = [path for path in _files(request) if path.exists() and not path.is_absolute()]
    # One may lie in another's folder, so look first and place then.
    for path in [path for path in relative if not os.path.lexists(_placed(top, path))]:
        _place(path, _placed(top, path))


def _files(request: Request) -> list[Path]:
    """The sources, and what they name in turn."""
    found = []
    for name, path in request.sources.items():
        found.append(path)
        if path.is_absolute() or not path.is_file():
            continue
        if name.endswith("_ONNX"):
            found += _data_files(path)
        elif name.endswith("_DATASET"):
            lines = [os.fsdecode(line).strip() for line in path.read_bytes().splitlines()]
            found += [path.parent / line for line in lines if line and not line.startswith("#")]
    return found


def _data_files(network: Path) -> set[Path]:
    """The files that an ONNX network keeps its weights in, if it does."""
    # Takes a while to import, and only now that there is a network.
    from onnx import TensorProto

    from tpumake import onnx_io

    try:
        loaded = onnx_io.load(network)
        return {
            network.parent / loaded.extent(tensor)[0].name
            for tensor in onnx_io.tensors(loaded.model)
            if tensor.data_location == TensorProto.EXTERNAL and not loaded.is_aside(tensor)
        }
    except BadInput:
        # The build will say what is wrong with it.
        return set()


def _place(source: Path, target: Path) -> None:
    """Link a file, or a folder's files one by one, last name first; copy what can't be linked.

    Links cost no room, and a build only reads them.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _place_below(source, target, (source.resolve(), target.absolute()))


def _place_below(source: Path, target: Path, tops: tuple[Path, Path]) -> None:
    if source.is_dir():
        target.mkdir(exist_ok=True)
        for path in sorted(source.iterdir(), reverse=True):
            if path.is_symlink():
                _place_symlink(path, target / path.name, tops)
            else:
                _place_below(path, target / path.name, tops)
    elif not os.path.lexists(target):
        try:
            target.hardlink_to(source.resolve())
        except OSError:
            shutil.copy2(source, target)


def _place_symlink(source: Path, target: Path, tops: tuple[Path, Path]) -> None:
    """Within a folder a symbolic link stays one; what led round in circles still does."""
    leads = source.resolve()
    if leads.is_relative_to(tops[0]):
        leads = tops[1] / leads.relative_to(tops[0])
    if not os.path.lexists(target):
        target.symlink_to(leads)


# ---------------------------------------------------------------------------------------------
# A build


def _build(request: Request, way: _Way) -> int:
    """Run Make, and end it with all that it started if this is interrupted; give its exit code."""
    given = [
        # Without this, a path that began with ~ would be looked for in another home.
        f"{name}={str(path).replace('$', '$$')}"
        for name, path in request.sources.items()
        if path.is_absolute()
    ]
    target = request.target
    inside = f"{request.build}/"
    if target.startswith(inside):
        target = f"{way.build}/{target.removeprefix(inside)}"
    settings = [f"BUILD={way.build}", "CACHE=0", "REPRODUCING=1"]
    # Without -j, not even -j1, a stage's progress moves on a terminal.
    jobs = [f"-j{way.jobs}"] if way.jobs > 1 else []
    command = [request.make, *jobs, "--no-print-directory", *given, *settings, target]
    # Of the outer make's flags only the variables given to it count here.
    _, _, variables = os.environ.get("MAKEFLAGS", "").partition("-- ")
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    }
    environment |= way.variables | ({"MAKEFLAGS": f" -- {variables}"} if variables else {})
    request.output.flush()

    def prepare() -> None:
        # Make hands it on to the stages, so that nothing outlives this process, even by SIGKILL.
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        os.sched_setaffinity(0, way.cores)

    process = subprocess.Popen(
        command, cwd=way.top, env=environment, stdin=subprocess.DEVNULL, stdout=request.output,
        umask=way.umask, start_new_session=True, preexec_fn=prepare,
    )  # fmt: skip
    try:
        return process.wait()
    finally:
        if process.poll() is None:
            _end(process)
        if "FAKETIME" in way.variables:
            _tidy_faketime(process.pid)


def _end(process: subprocess.Popen) -> None:
    """End Make, which ends its stages, which end their tools."""
    process.terminate()
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _tidy_faketime(process: int) -> None:
    """Remove what libfaketime leaves behind in a process that was killed."""
    for name in (f"faketime_shm_{process}", f"sem.faketime_sem_{process}"):
        Path("/dev/shm", name).unlink(missing_ok=True)
