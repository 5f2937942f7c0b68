"""RUN: a heavy stage's commands go through a launcher, to a worker that shares this file system.

Only they do. Key, cache, locks, environments, judging and putting in place stay here: what need not
run costs no job, and no two machines write to the build folder's own files. Nothing that a launcher
says is believed: a stage has ended when its worker wrote so into the errand's folder.
"""

from __future__ import annotations

import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from tpumake.display import Display
from tpumake.errand import Ended, Errand
from tpumake.errors import BadInput
from tpumake.failures import Failure, ToolFailed
from tpumake.folders import private_folder
from tpumake.job import Job
from tpumake.processes import started
from tpumake.room import insist_on_room
from tpumake.stages import STAGES

__all__ = ["launch", "launcher"]

# Where the command behind a launcher begins.
WORKER = Path(__file__).resolve().parent.parent / "run_on_worker.py"
# How long a launcher may take to cancel its job before it is killed (seconds).
GRACE = 20.0
# How long it may go on after the stage has ended, as with a scheduler that is gone (seconds).
LINGER = 30.0
# How long a network file system may take to show what the worker wrote last (seconds).
PATIENCE = 0.5
# What a launcher's last words are looked for in (bytes).
KEPT = 1 << 16
RESUME = "make again goes on where it was"
NOT_BEGUN = (
    "a launcher has to run the command behind it and wait for its end; workers must see this "
    "folder, .venv and .toolchain under the same paths, and have the same Python"
)
MORE_MEMORY = f"if memory ran out, ask for more in RUN (srun --mem=6G); {RESUME}"


def launcher() -> list[str]:
    """The words of RUN; none if it is empty.

    :raises BadInput: if they can't be a command here
    """
    text = os.environ.get("RUN", "").strip()
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise BadInput(f"RUN={text}: {str(error).lower()}") from None
    if words and not shutil.which(words[0]):
        raise BadInput(
            f"RUN={text}: there is no program {words[0]} here; install it, or name another launcher"
        )
    return words


def launch(
    words: list[str],
    commands: list[list[str]],
    job: Job,
    cwd: Path,
    environment: dict[str, str],
    need: int,
    display: Display,
) -> Ended:
    """Run a job's commands through the launcher, their output going to the log and the display.

    :param need: the bytes that they may take, as far as can be said
    :raises ToolFailed: the launcher, or who is behind it, ended before they did
    :raises OSError: there is no room
    """
    libc = (os.confstr("CS_GNU_LIBC_VERSION") or "another libc") if job.libc_matters else ""
    # Called as the stage's own, so that any stage tidies up after one that was killed.
    with private_folder(job.work, "stage-") as folder:
        errand = Errand(folder.absolute())
        errand.write(commands, cwd.absolute(), environment, job.same_addresses, libc)
        sent = [sys.executable, str(WORKER), str(errand.folder)]
        python, program, place = map(_plain, sent)
        # For launchers that are scripts: what to ask for, and what to call it.
        environment = environment | {
            "TPUMAKE_STAGE": f"{job.model}.{job.log.stem}", "TPUMAKE_MEMORY": str(need)
        }  # fmt: skip
        code, said = _run([*words, python, "-S", program, place], errand, environment, job, display)
        ended = _ended(errand)
        with job.log.open("wb") as log, errand.output.open("rb") as output:
            shutil.copyfileobj(output, log)
            if ended is None:
                # The last line may be half of one.
                log.write(b"".join(b"\nRUN: %s" % line for line in said.splitlines()) + b"\n")
        if ended is None:
            insist_on_room("", job.build)
            raise ToolFailed(_lost(code, said.decode(errors="replace"), errand.place.read_text()))
        if ended.refused:
            raise ToolFailed(Failure(f"the worker {ended.where}: {ended.refused}", RESUME, True))
        return ended


def _plain(path: str) -> str:
    """A path as a word that also survives a launcher that hands its words to a shell.

    Absolute, since some start elsewhere; but if there is a space in that, say, as seen from here.
    """
    return path if re.fullmatch(r"[\w@%+=:,./-]+", path, re.ASCII) else os.path.relpath(path)


def _run(
    command: list[str], errand: Errand, environment: dict[str, str], job: Job, display: Display
) -> tuple[int, bytes]:
    """Run the launcher; give its exit code, and its last words."""
    said = _Said(job, display)
    with started(
        command, end=partial(_end, errand), last=signal.SIGTERM, env=environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        handles = {process.stdout.fileno(): said.forwarded, process.stderr.fileno(): said.own}
        with job.log.open("wb") as log:
            waiting = _Waiting(errand, display)
            for handle, chunk in _chunks(process, set(handles), waiting.is_over):
                handles[handle](chunk)
                if handle == process.stdout.fileno():
                    log.write(chunk)
                    log.flush()
        if waiting.over:
            _end(errand, process.pid)
        return process.wait(), said.words or said.pending


def _chunks(
    process: subprocess.Popen, handles: set[int], is_over: Callable[[], bool]
) -> Iterator[tuple[int, bytes]]:
    """What comes, until the process has ended, of which what it left may hold the pipes."""
    while True:
        done = process.poll() is not None
        ready = select.select(list(handles), [], [], 0.0 if done else 0.2)[0]
        if (done and not ready) or is_over():
            return
        for handle in ready:
            chunk = os.read(handle, 1 << 16)
            if chunk:
                yield handle, chunk
            else:
                handles.discard(handle)


class _Said:
    """What comes through the launcher: the tool's output, to be shown, and its own words."""

    def __init__(self, job: Job, display: Display) -> None:
        self.rules = STAGES[job.stage]
        self.display = display
        self.words = self.pending = b""

    def forwarded(self, chunk: bytes) -> None:
        *lines, rest = (self.pending + chunk).replace(b"\r", b"\n").split(b"\n")
        self.pending = rest[-KEPT:]
        for line in lines:
            self.display.line(line.decode(errors="replace"), self.rules)

    def own(self, chunk: bytes) -> None:
        self.words = (self.words + chunk)[-KEPT:]
        if self.display.verbose:
            self.display.note(f"RUN: {chunk.decode(errors='replace').strip()}")


class _Waiting:
    """How it stands while the launcher runs, by the errand's folder."""

    def __init__(self, errand: Errand, display: Display) -> None:
        self.errand, self.display = errand, display
        self.ended = 0.0
        self.over = False

    def is_over(self) -> bool:
        """Whether the stage has ended and the launcher doesn't."""
        self.display.tick("" if self.errand.place.stat().st_size else "waits for a worker")
        if not self.ended and self.errand.result.stat().st_size:
            self.ended = time.monotonic()
        self.over = bool(self.ended) and time.monotonic() - self.ended > LINGER
        return self.over


def _ended(errand: Errand) -> Ended | None:
    until = time.monotonic() + PATIENCE
    while (ended := errand.ended()) is None and time.monotonic() < until:
        # Nobody has begun, so there is nothing to wait for.
        if not errand.place.stat().st_size:
            break
        time.sleep(0.1)
    return ended


def _lost(code: int, said: str, where: str) -> Failure:
    """Who ended the stage, in one line, and what to do."""
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    words = _telling(said)
    tail = f": {words}" if words else ""
    if not where:
        return Failure(f"RUN's launcher ended before the stage began, {how}{tail}", NOT_BEGUN, True)
    cause = f"RUN's launcher or its scheduler ended the stage on {where}, {how}{tail}"
    memory = code in (137, -9) or re.search(r"memory|\boom\b", said, re.I)
    return Failure(cause, MORE_MEMORY if memory else RESUME, True)


def _telling(said: str) -> str:
    """Of a launcher's words the line that tells most: a cause, an error, or the last one."""
    lines = [" ".join(line.split()) for line in said.splitlines()]
    # What the worker says of its end is the launcher's doing.
    lines = [line for line in lines if line and not line.startswith("run_on_worker: interrupted")]
    for pattern in (r"memory|\boom\b", r"cancelled|time limit|preempt|node failure", r"error|fail"):
        for line in lines:
            if re.search(pattern, line, re.I):
                return line[:240]
    return lines[-1][:240] if lines else ""


def _end(errand: Errand, group: int) -> None:
    """End a launcher so that it can cancel its job, and have the worker end by itself, too."""
    with suppress(OSError):
        errand.wanted.unlink()
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        until = time.monotonic() + GRACE
        while not _gone(group) and time.monotonic() < until:
            time.sleep(0.05)
        os.killpg(group, signal.SIGKILL)


def _gone(group: int) -> bool:
    """Whether nobody of a process group runs any more."""
    for process in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, its = process.read_text().rpartition(")")[2].split()[:3]
            if its == str(group) and state not in "ZX":
                return False
    return True
