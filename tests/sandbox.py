"""Runs helpers on files that mean harm, in a process of their own, and tells what they did.

The process is forked from this one, so it costs milliseconds. In it, whatever Python is about to do
is seen before it is done (audit events), and the kernel bounds time and memory.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import resource
import runpy
import select
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import NamedTuple

from conftest import ROOT

# Processor seconds, and seconds by the clock for what only waits.
CPU, WAIT = 10, 60
# What a helper may take for an input of some kilobytes, in bytes; it gets more, so that one that
# wants too much is told from one that runs into the wall.
MEMORY, ADDRESSES = 1 << 30, 3 << 30
LARGEST_FILE = 1 << 28
# Exit codes of the sandbox itself.
BROKE_OUT, DIED = 97, 98

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Which arguments of an event are paths that something happens to.
CHANGES = {
    "os.mkdir": (0,), "os.rename": (0, 1), "os.remove": (0,), "os.rmdir": (0,), "os.link": (1,),
    "os.symlink": (1,), "os.truncate": (0,), "os.chmod": (0,), "os.chown": (0,), "os.utime": (0,),
    "os.mkfifo": (0,), "os.mknod": (0,), "shutil.rmtree": (0,),
}  # fmt: skip
STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork",
          "pty.spawn", "socket.connect", "pickle.find_class")  # fmt: skip


class Outcome(NamedTuple):
    """How a helper ended: exit code, negative for a signal; what it said; memory in bytes."""

    code: int
    out: str
    err: str
    memory: int
    seconds: float

    def faults(self) -> list[str]:
        """What no input may lead to."""
        found = []
        if self.code == BROKE_OUT:
            found.append("left its folder, or started something")
        elif self.code not in (0, 1, 2):
            found.append(f"ended with {self.code} after {self.seconds:.1f} s")
        if "Traceback" in self.err or "bug in tpumake" in self.err:
            found.append("a traceback, or what stands for one")
        if "out of memory" in self.err or self.memory > MEMORY:
            found.append(f"took {self.memory >> 20} MB, or more than there was")
        # What is wrong with a stanza is told in a line each, the later ones indented.
        _, *more = self.err.splitlines() or ["", ""]
        if self.code == 2 and not all(line.startswith("       ") for line in more):
            found.append("not one line of complaint")
        if self.code == 1 and not self.err.strip():
            found.append("failed without a word")
        if any(not (letter.isprintable() or letter in "\n\t") for letter in self.out + self.err):
            found.append("what it said moves a terminal's cursor")
        return found


def run(
    script: str,
    arguments: list[str],
    folder: Path,
    allowed: tuple[str, ...] = (),
    starting: bool = False,
) -> Outcome:
    """Run ``scripts/SCRIPT.py ARGUMENTS`` in a folder.

    :param script: or the path of another program, without its suffix
    :param allowed: names in the folder that may be written to, and what lies below them; beside
        each of them its temporary neighbours
    :param starting: whether it may start programs, as the runner of stages has to
    """
    said = folder.with_name(f"{folder.name}.said")
    shutil.rmtree(said, ignore_errors=True)
    said.mkdir()
    sys.stdout.flush()
    sys.stderr.flush()
    before, started = _resident(), time.monotonic()
    child = os.fork()
    if child == 0:
        code = DIED
        try:
            _confine(folder, said, allowed, starting)
            code = _run(script, arguments)
        except BaseException:
            with contextlib.suppress(BaseException):
                traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    handle = os.pidfd_open(child)
    if not select.select([handle], [], [], WAIT)[0]:
        os.killpg(child, signal.SIGKILL)
    os.close(handle)
    _, status, usage = os.wait4(child, 0)
    return Outcome(
        os.waitstatus_to_exitcode(status),
        (said / "out").read_text(errors="replace"),
        (said / "err").read_text(errors="replace"),
        max(0, usage.ru_maxrss * 1024 - before),
        time.monotonic() - started,
    )


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _confine(folder: Path, said: Path, allowed: tuple[str, ...], starting: bool) -> None:
    faulthandler.disable()
    os.setpgid(0, 0)
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(said / name, os.O_WRONLY | os.O_CREAT, 0o666), number)
    # As strict as a real terminal's.
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(  # noqa: SIM115
        2, "w", encoding="utf-8", errors="backslashreplace", closefd=False
    )
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, CPU),
        (resource.RLIMIT_FSIZE, LARGEST_FILE),
        (resource.RLIMIT_AS, size + ADDRESSES),
    ):
        resource.setrlimit(limit, (value, value))
    places = tuple(str(folder / name) for name in allowed)
    near = tuple(str(folder / f".{name}.") for name in allowed)
    me = os.getpid()

    def may(path: object) -> bool:
        if isinstance(path, int) or path is None:
            return True
        place = os.path.realpath(folder / os.fsdecode(path))
        return place.startswith(near) or any(
            place == each or place.startswith(f"{each}/") for each in places
        ) or place == os.devnull  # fmt: skip

    def watch(event: str, args: tuple) -> None:
        if event == "open":
            path, _, flags = args
            bad = bool(flags & WRITING) and not may(path)
        elif event == "os.mkdir" and Path(os.fsdecode(args[0])).is_dir():
            bad = False  # parents that are there
        elif event in CHANGES:
            # With a folder's handle the name is relative to that: shutil.rmtree goes this way.
            bad = not (args[-1] != -1 and event in ("os.remove", "os.rmdir")) and not all(
                may(args[index]) for index in CHANGES[event]
            )
        else:
            bad = event in STARTS and not starting
        if bad and os.getpid() == me:
            os.write(2, f"not allowed: {event} {args!r}\n".encode(errors="replace"))
            os._exit(BROKE_OUT)

    sys.addaudithook(watch)


def _run(script: str, arguments: list[str]) -> int:
    path = str(ROOT / "scripts" / f"{script}.py")
    sys.argv = [path, *arguments]
    sys.dont_write_bytecode = True
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
