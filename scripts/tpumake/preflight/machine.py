"""The machine: what a build needs of it. The standard library is enough for all of it."""

from __future__ import annotations

import os
import platform
import shutil
import time
from contextlib import suppress
from pathlib import Path

from tpumake.address import Address
from tpumake.amounts import byte_count
from tpumake.errors import BadInput
from tpumake.files import try_lock
from tpumake.preflight.finding import ERROR, WARNING, Finding

__all__ = [
    "check_addresses",
    "check_cache",
    "check_clock",
    "check_here",
    "check_host",
    "check_other_makes",
    "check_room",
    "check_shared_memory",
    "check_toolchain",
]

TOP = Path(__file__).resolve().parents[3]

# What setup_toolchain.py asks for, too.
OLDEST_GLIBC = (2, 35)
# The tools' programs use these; a processor without them ends them by SIGILL.
NEEDED_FLAGS = ("sse4_2", "avx", "avx2")
# What a small build takes.
LEAST_DISK, LEAST_MEMORY = 2 * 10**9, 2 * 10**9
# OpenMP of the tools keeps locks there.
LEAST_SHARED = 1 << 20
# This file is not older; a clock that says so is wrong. Seconds since 1970, 2024-01-01.
EARLIEST = 1_704_067_200
# A file may be newer than the clock by that: network drives have clocks of their own.
SKEW = 5
GIGA = 10**9
CONTAINER = "use the container: see Dockerfile"


def check_here(build: Path, toolchain: Path) -> list[Finding]:
    """All that can be said of this machine without a model.

    :param build: the build folder
    :param toolchain: .toolchain/<version>
    """
    cache = Path(os.environ.get("CACHE_DIR") or Path.home() / ".cache" / "tpumake")
    keeps = os.environ.get("CACHE", "1") != "0"
    return [
        *check_host(),
        *check_toolchain(toolchain),
        *check_addresses(),
        *check_shared_memory(),
        *check_room(build, LEAST_DISK, LEAST_MEMORY),
        *check_clock(time.time(), newest(TOP)),
        *check_other_makes(build),
        *(check_cache(cache, os.environ.get("CACHE_MAX", "5G")) if keeps else []),
    ]


def check_host(
    system: str = "", machine: str = "", libc: str | None = None, flags: str | None = None
) -> list[Finding]:
    """Can tpu_mlir's programs run here? The arguments stand for what this host says."""
    system, machine = system or platform.system(), machine or platform.machine()
    if (system, machine) != ("Linux", "x86_64"):
        what = f"it is {system} on {machine}, tpu_mlir's programs are for Linux on x86-64"
        return [Finding("host", ERROR, "this machine", what, CONTAINER)]
    found = []
    libc = libc if libc is not None else os.confstr("CS_GNU_LIBC_VERSION") or "no glibc"
    name, _, version = libc.partition(" ")
    if name != "glibc" or _version(version) < OLDEST_GLIBC:
        oldest = ".".join(map(str, OLDEST_GLIBC))
        what = f"its C library is {libc}, tpu_mlir needs glibc {oldest} or newer"
        found.append(Finding("host", ERROR, "this machine", what, CONTAINER))
    flags = flags if flags is not None else _read("/proc/cpuinfo")
    has = set(flags.partition("flags")[2].partition("\n")[0].split())
    lacks = [flag for flag in NEEDED_FLAGS if has and flag not in has]
    if lacks:
        what = f"its processor has no {', '.join(lacks)}, which tpu_mlir's programs use"
        remedy = "in a virtual machine: pass the host's processor through"
        found.append(Finding("host", ERROR, "this machine", what, remedy))
    return found


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def check_toolchain(folder: Path) -> list[Finding]:
    """Is the toolchain there, and whole? That there is none is for `make` to mend.

    :param folder: .toolchain/<version>
    """
    if not (folder / "ready").exists():
        what, remedy = "it is not there yet", "the first build makes it, as does make setup"
        return [Finding("toolchain", WARNING, str(folder), what, remedy)]
    wheel = folder / "site-packages" / "tpu_mlir"
    parts = ("run", "bin/python3", "site-packages/tpu_mlir/bin/tpuc-opt",
             "site-packages/tpu_mlir/python/tools/model_transform.py",
             "site-packages/tpu_mlir/python/tools/model_deploy.py", "site-packages/numpy",
             "site-packages/onnx", "stand-ins")  # fmt: skip
    missing = [part for part in parts if not (folder / part).exists()]
    for library in sorted((folder / "host-lib").glob("*")) if wheel.exists() else []:
        if not library.exists():
            missing.append(f"host-lib/{library.name}")
    if not (folder / "host-lib" / "libc.so.6").exists() and "host-lib/libc.so.6" not in missing:
        missing.append("host-lib/libc.so.6")
    if not missing:
        return []
    some = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
    remedy = f"rm -r {folder} && make setup"
    return [Finding("toolchain", ERROR, str(folder), f"it is not complete: {some}", remedy)]


def check_addresses() -> list[Finding]:
    """Can address randomisation be switched off, without which results are others each time?"""
    if os.environ.get("REPRODUCIBLE") == "0":
        return []
    if _read("/proc/sys/kernel/randomize_va_space").strip() == "0":
        return []
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    now = libc.personality(0xFFFFFFFF)
    if now != -1 and libc.personality(now | 0x0040000) != -1:
        libc.personality(now)
        return []
    reason = os.strerror(ctypes.get_errno())
    what = f"it can't be switched off ({reason}), so models would be other bytes each time"
    remedy = "start the container with --security-opt seccomp=unconfined, or REPRODUCIBLE=0"
    return [Finding("addresses", ERROR, "address randomisation", what, remedy)]


def check_shared_memory(folder: Path = Path("/dev/shm")) -> list[Finding]:
    """Is there shared memory, of which the tools' OpenMP dies otherwise?"""
    where = str(folder)
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        what = "the tools need it, and it is not there, or not writable"
        return [Finding("shared-memory", ERROR, where, what, "mount a tmpfs there")]
    if shutil.disk_usage(folder).free < LEAST_SHARED:
        return [Finding("shared-memory", ERROR, where, "it is full", "remove what is in it")]
    return []


def check_room(build: Path, disk: int, memory: int) -> list[Finding]:
    """Are there so many bytes on the build folder's disk, and of memory?"""
    found, place = [], build.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < disk:
        what = f"{free / GIGA:.1f} GB are free, and about {disk / GIGA:.1f} GB needed"
        severity = ERROR if free < disk / 2 else WARNING
        remedy = "make clean, a smaller CACHE_MAX, or BUILD= on another disk"
        found.append(Finding("disk", severity, str(build), what, remedy))
    if not os.access(place, os.W_OK):
        what = "it can't be written to"
        found.append(Finding("disk", ERROR, str(place), what, "BUILD= names another"))
    here = _available()
    if here and here < memory:
        what = f"{here / GIGA:.1f} GB are available, and about {memory / GIGA:.1f} GB needed"
        severity = ERROR if here < memory / 3 else WARNING
        remedy = "end other programs, fewer pictures (INPUT_NUM), or add swap"
        found.append(Finding("memory", severity, "memory", what, remedy))
    try:
        if os.environ.get("MEMORY") and byte_count("MEMORY", os.environ["MEMORY"]) < memory:
            what = f"MEMORY={os.environ['MEMORY']} is less than the {memory / GIGA:.1f} GB needed"
            found.append(Finding("memory", WARNING, "MEMORY", what, "stages will run one by one"))
    except BadInput as error:
        found.append(Finding("memory", ERROR, "MEMORY", str(error)))
    return found


def _available() -> int:
    """Bytes of memory and swap that programs can have now; 0 if nobody knows."""
    values = dict(line.split(":", 1) for line in _read("/proc/meminfo").splitlines() if ":" in line)
    sizes = [sum(int(values.get(name, "0").split()[0]) for name in ("MemAvailable", "SwapFree"))]
    sizes[0] *= 1024
    for folder, limit, used in (
        ("", "memory.max", "memory.current"),
        ("memory/", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        with suppress(ValueError):
            most, now = (_read(f"/sys/fs/cgroup/{folder}{name}") for name in (limit, used))
            sizes.append(int(most) - int(now))
    return max(min(sizes), 0)


def newest(top: Path) -> float:
    """The newest time (seconds since 1970) among the project's own files."""
    times = [EARLIEST]
    for path in (top / "Makefile", top / "models.mk", top / "build", top / "scripts"):
        with suppress(OSError):
            times.append(path.stat().st_mtime)
    return max(times)


def check_clock(now: float, newest_file: float) -> list[Finding]:
    """Does the clock go right? Make goes by times: what is from the future is never up to date."""
    if now < EARLIEST:
        what = f"it says {time.strftime('%Y-%m-%d', time.gmtime(now))}"
        return [Finding("clock", ERROR, "the clock", what, "set it, for instance by NTP")]
    if newest_file > now + SKEW:
        what = f"files here are {newest_file - now:.0f} s newer than it says"
        return [Finding("clock", WARNING, "the clock", what, "set it, or touch the files")]
    return []


def check_other_makes(build: Path) -> list[Finding]:
    """Is another make at work in this build folder? The two wait for each other, no more."""
    busy = []
    for lock in sorted((build / ".work").glob("*.lock")):
        with suppress(OSError):
            handle = try_lock(lock, os.O_RDWR)
            if handle is None:
                busy.append(lock.stem)
            else:
                os.close(handle)
    if not busy:
        return []
    what = f"another make is at work here: {', '.join(busy[:3])}"
    return [Finding("other-make", WARNING, str(build), what, "this one will wait for it")]


def check_cache(folder: Path, most: str) -> list[Finding]:
    """Can results be kept?"""
    place = folder
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK):
        what = "it can't be written to, so nothing is kept there"
        remedy = "CACHE_DIR= names another, CACHE=0 none"
        return [Finding("cache", WARNING, str(folder), what, remedy)]
    try:
        byte_count("CACHE_MAX", most)
    except BadInput as error:
        return [Finding("cache", ERROR, "CACHE_MAX", str(error))]
    try:
        Address.from_environment()
    except BadInput as error:
        return [Finding("cache", ERROR, "CACHE_REMOTE", str(error))]
    return []
