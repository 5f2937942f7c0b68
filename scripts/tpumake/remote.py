"""The remote cache as a stage sees it: something that may help, and never harm.

Everything that touches the network is a process of its own (scripts/sync_cache.py), which brings
what it finds into the cache of this machine, or takes it from there. Here is how long it may take,
what is told when it fails, and that it is left alone then.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from tpumake.address import Address
from tpumake.display import Display
from tpumake.errors import CheckFailed, one_line
from tpumake.execution import prepare
from tpumake.files import locked
from tpumake.job import Job
from tpumake.processes import die_with_parent

__all__ = ["Notes", "Remote", "command"]

SYNC = Path(__file__).resolve().parent.parent / "sync_cache.py"
LOCK = Path("requirements/s3.txt")
# A transfer slower than this (bytes a second) is not worth waiting for.
SLOWEST = 1 << 18
# How long a server that failed is left alone (seconds), if Make takes longer than that.
REST = 600
# Longer than that, old notes go.
NOTES_MOST = 1 << 18
CAUSE_MOST = 200
# What each is called that leaves a server alone: for everything, or for writing.
SILENT = {"unusable": "down", "read-only": "no writes"}


class Notes:
    """What became of the remote cache in a build folder: a line of JSON for each look.

    Stages that run side by side share it: they leave a server alone of which one of them found that
    it doesn't answer, and it is told once.
    """

    def __init__(self, build: Path) -> None:
        self.place = build / ".remote"
        self.make = _this_make()

    def all(self) -> list[dict]:
        """All of them, the oldest first."""
        try:
            lines = self.place.read_text(errors="replace").splitlines()
        except OSError:
            return []
        return list(_read(lines))

    def add(self, result: str, **more: object) -> bool:
        """Note what became of a look; True if it is the first of its kind in this make."""
        what = {"make": self.make, "at": round(time.time(), 1), "result": result, **more}
        with suppress(OSError), locked(self.place.with_name(".remote.lock")):
            known = self.all()
            if self.place.exists() and self.place.stat().st_size > NOTES_MOST:
                kept = "".join(f"{json.dumps(note)}\n" for note in known[len(known) // 2 :])
                self.place.write_text(kept)
            with self.place.open("a") as file:
                file.write(f"{json.dumps(what)}\n")
            return not any(self._same(note, result) for note in known)
        return True

    def resting(self, result: str) -> bool:
        """Whether this make found lately that the server is not to be asked."""
        now = time.time()
        return any(self._same(note, result) and now - note["at"] < REST for note in self.all())

    def _same(self, note: dict, result: str) -> bool:
        return note["make"] == self.make and note["result"] == result


def _read(lines: list[str]) -> Iterator[dict]:
    for line in lines:
        with suppress(ValueError):
            note = json.loads(line)
            sound = isinstance(note, dict) and isinstance(note.get("at"), (int, float))
            if sound and isinstance(note.get("result"), str) and "make" in note:
                yield note


def _this_make() -> str:
    """What all stages of one make have in common: the shell's job that it is, and no later one."""
    group = os.getpgrp()
    try:
        # The start of the group's first process; the second field may have spaces in it.
        began = Path(f"/proc/{group}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        began = ""
    return f"{group} {began}"


class Remote:
    """The remote cache, for one stage."""

    def __init__(self, address: Address, job: Job, display: Display, make: str) -> None:
        self.address = address
        self.job = job
        self.display = display
        self.make = make
        self.notes = Notes(job.build)
        self.refused = False

    @classmethod
    def from_environment(cls, job: Job, display: Display, make: str) -> Remote | None:
        """What CACHE_REMOTE asks for; None for none.

        :raises BadInput: if it makes no sense
        """
        address = Address.from_environment()
        return cls(address, job, display, make) if address else None

    def fetch(self, digest: str) -> bool:
        """Have the cache hold what the remote one has for a key; False if there is nothing."""
        if self.notes.resting("unusable"):
            return False
        return self._exchange("fetch", digest) == "hit"

    def keep(self, digest: str) -> None:
        """Have the remote cache hold what the cache has for a key, if it may be written to."""
        if not self.address.writes or any(map(self.notes.resting, SILENT)):
            return
        # What was no good there is replaced.
        self._exchange("keep", digest, *(["--anew"] if self.refused else []))

    def _exchange(self, *arguments: str) -> str:
        started = time.monotonic()
        answer = self._answer(arguments)
        result, cause = answer["result"], one_line(str(answer.get("cause", "")))[:CAUSE_MOST]
        self.refused |= result == "refused"
        more = {"cause": cause} if cause else {}
        first = self.notes.add(
            result, seconds=round(time.monotonic() - started, 3), bytes=answer["bytes"], **more
        )
        if result in ("unusable", "refused", "read-only") and first:
            what = {
                "unusable": f"{cause}; this make goes on without it",
                "refused": f"{cause}; what it has there is not used",
                "read-only": f"{cause}; nothing is kept there",
            }[result]
            self.display.note(f"warning: {self.address.shown}: {what}")
        elif cause:
            self.display.detail(f"{self.address.shown}: {cause}")
        return result

    def _answer(self, arguments: tuple[str, ...]) -> dict:
        try:
            return run(command(self._python(), *arguments), self.address.seconds, self._tick)
        except CheckFailed:
            return {"result": "unusable", "cause": "its environment can't be made", "bytes": 0}

    def _tick(self) -> None:
        self.display.tick("asks the remote cache")

    def _python(self) -> list[str]:
        """The Python to run it with.

        :raises CheckFailed: if the environment of a bucket's library can't be made
        """
        if self.address.parts.scheme != "s3":
            return [sys.executable, "-S"]
        folder = Path(os.environ.get("S3_VENV", ".s3"))
        ready = folder / "ready"
        if not ready.exists() or ready.read_bytes() != LOCK.read_bytes():
            prepare(self.job._replace(needs=[str(ready)]), self.make)
        return [str(folder / "bin" / "python")]


def command(python: list[str], *arguments: str) -> list[str]:
    """How the process is started."""
    return [*python, str(SYNC), *arguments]


def run(words: list[str], seconds: float, tick: Callable[[], None] = lambda: None) -> dict:
    """Run it to its end, or to the end of its time, and give what came of it.

    :param seconds: for an answer; for what it says will follow there is as much again, and more by
        its size
    :param tick: called several times a second
    :return: see scripts/sync_cache.py; ``result`` and ``bytes`` are always there
    """
    quiet = None if os.environ.get("TPUMAKE_DEBUG") else subprocess.DEVNULL
    last: dict = {"bytes": 0}
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=quiet,
        preexec_fn=lambda: die_with_parent(signal.SIGKILL),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            end = time.monotonic() + seconds
            pending = b""
            while chunk := _read_before(process.stdout.fileno(), end, tick):
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    last = json.loads(line)
                    if "result" not in last:
                        end = time.monotonic() + seconds + last["bytes"] / SLOWEST
        except TimeoutError:
            about = f"{last['bytes'] / 1e6:.1f} MB took" if last["bytes"] else "its answer took"
            waited = seconds + last["bytes"] / SLOWEST
            last = {"result": "unusable", "cause": f"{about} more than {waited:.0f} s"}
        finally:
            process.kill()
    if "result" not in last:
        last = {"result": "unusable", "cause": "its process ended; TPUMAKE_DEBUG=1 shows why"}
    return {"bytes": 0, **last}


def _read_before(handle: int, end: float, tick: Callable[[], None]) -> bytes:
    """Read what comes; nothing at the end.

    :raises TimeoutError: if nothing comes in time
    """
    while not select.select([handle], [], [], max(0.0, min(0.5, end - time.monotonic())))[0]:
        tick()
        if time.monotonic() >= end:
            raise TimeoutError
    return os.read(handle, 1 << 16)
