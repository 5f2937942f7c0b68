"""Running one stage's command: private folder, log, progress, checks, results put in place."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from tpumake import stages
from tpumake.display import Display
from tpumake.errors import CheckFailed
from tpumake.files import locked
from tpumake.folders import private_folder, put_folder
from tpumake.job import Job, date
from tpumake.keys import Digests, Key, Record
from tpumake.memory import room_for

__all__ = ["execute", "prepare", "put"]

# From <sys/personality.h> and <sys/prctl.h>.
ADDR_NO_RANDOMIZE = 0x0040000
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)
SCRIPTS = Path(__file__).resolve().parent.parent


class Ended(NamedTuple):
    """How a command ended: its exit code, negative for a signal, and its peak memory in bytes."""

    code: int
    peak: int


def prepare(job: Job, make: str) -> None:
    """Have Make make what only a stage that really runs needs: the environments.

    :raises CheckFailed: if it can't; Make has said why
    """
    if not job.needs:
        return
    # Of the outer make's flags only its variables count here: it has its own jobs, and no -n.
    _, _, variables = os.environ.get("MAKEFLAGS", "").partition("-- ")
    environment = os.environ | {"MAKEFLAGS": f" -- {variables}" if variables else ""}
    environment.pop("MFLAGS", None)
    # Several stages at once may be the first to need it.
    with locked(job.work / "setup.lock"):
        done = subprocess.run(
            [make, "--silent", "--no-print-directory", *job.needs], env=environment, check=False
        )
    if done.returncode:
        raise CheckFailed("the environment that it runs in can't be made, see above")


def execute(job: Job, key: Key, digests: Digests, display: Display) -> Record:
    """Run a job to its end, put what it made in place, and give the record of it.

    A tool's exit code alone is never believed: the stage's own checks and the existence of every
    output decide. Outputs appear in their places only after that, each by a rename.

    :raises CheckFailed: the tool or a check failed; one line with the cause
    """
    rules = stages.STAGES[job.stage]
    if job.same_addresses:
        _fix_addresses()
    # The tools write files of fixed names into where they are started.
    with private_folder(job.work, f"{job.model}-{job.stage}-") as folder:
        for name, source in job.inputs.items():
            (folder / name).symlink_to(source.absolute())
        for path, made_by in job.spares:
            if _is_from(path, Record.load(made_by), digests):
                (folder / path.name).symlink_to(path.absolute())
        command = [word.replace("{work}", str(folder)) for word in job.command]
        # Absolute for the tool's sake: it is started in the private folder.
        command[0] = str(Path(command[0]).absolute())
        before = rules.before(folder, command)
        need = rules.memory(job)
        with room_for(need, job.work, lambda: display.tick("waits for memory")):
            code, peak = _run_all([*before, command], job, folder, display)
        text = job.log.read_text(errors="replace")
        result = stages.Result(text, folder, job.outputs, command)
        if not code:
            rules.settle(result, int(job.environment.get("SOURCE_DATE_EPOCH", "0")))
        missing = [out.name for out in job.outputs if not (folder / out.name).exists()]
        if code or missing:
            raise CheckFailed(stages.explain(text, code, missing))
        figure = rules.figure(result)
        by_products = [path for path in job.by_products if (folder / path.name).exists()]
        for out in [*job.outputs, *by_products]:
            put(folder / out.name, out)
        record = Record(
            key,
            {out.name: digests.of(out) for out in job.outputs},
            figure,
            {path.name: digests.of(path) for path in by_products},
            peak,
        )
        (folder / job.record.name).write_text(record.to_json())
        put(folder / job.record.name, job.record)
    return record


def _is_from(path: Path, maker: Record | None, digests: Digests) -> bool:
    return bool(maker) and path.exists() and maker.by_products.get(path.name) == digests.of(path)


def put(result: Path, place: Path) -> None:
    """Rename a result, a file or a folder, to its place."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if result.is_dir():
        put_folder(result, place)
    else:
        result.replace(place)
    date(place)


def _fix_addresses() -> None:
    """Have what is started from here on its memory at the same addresses each time.

    The compiler walks tables that are ordered by address, so the order of commands in a model
    follows the kernel's randomisation.

    :raises CheckFailed: where that can't be switched off, as under Docker's default profile
    """
    if Path("/proc/sys/kernel/randomize_va_space").read_text().strip() == "0":
        return
    now = LIBC.personality(0xFFFFFFFF)
    if now == -1 or LIBC.personality(now | ADDR_NO_RANDOMIZE) == -1:
        reason = os.strerror(ctypes.get_errno())
        raise CheckFailed(
            f"address randomisation can't be switched off ({reason}), so the result would be other "
            "bytes each time; start the container with --security-opt seccomp=unconfined, or "
            "accept that with REPRODUCIBLE=0"
        )


def _run_all(commands: list[list[str]], job: Job, folder: Path, display: Display) -> Ended:
    """Run commands until one fails, with their output going to the log, and to the display."""
    code = peak = 0
    with job.log.open("wb") as log:
        for command in commands:
            code, most = _run(command, job, Path() if job.at_top else folder, log, display)
            peak = max(peak, most)
            if code:
                break
    return Ended(code, peak)


def _run(command: list[str], job: Job, cwd: Path, log, display: Display) -> Ended:
    rules = stages.STAGES[job.stage]
    # Results follow the layout of the heap, so nobody's settings of the allocator reach the tools.
    environment = {
        name: value
        for name, value in os.environ.items()
        if name != "GLIBC_TUNABLES" and not name.startswith("MALLOC_")
    }
    environment |= job.environment
    environment |= {
        "PYTHONUNBUFFERED": "1",
        # What the tools call by name and we do better: see scripts/toolchain_bin.
        "TPUMAKE_TOOLS": str(SCRIPTS / "toolchain_bin"),
        "TPUMAKE_PYTHON": str(Path(os.environ.get("VENV", ".venv"), "bin", "python").absolute()),
        "TPUMAKE_SCRIPTS": str(SCRIPTS),
    }
    log.write(f"$ {' '.join(command)}\n".encode())
    log.flush()
    # A group of its own, so that the tool's children end with it.
    process = subprocess.Popen(
        command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_end_with_parent,
    )  # fmt: skip
    with _stopping(process):
        assert process.stdout is not None
        pending = b""
        output = process.stdout.fileno()
        while True:
            while not select.select([output], [], [], 0.5)[0]:
                display.tick()
            chunk = os.read(output, 65536)
            if not chunk:
                break
            log.write(chunk)
            log.flush()
            # Progress bars end their lines with a carriage return.
            *lines, pending = (pending + chunk).replace(b"\r", b"\n").split(b"\n")
            for line in lines:
                display.line(line.decode(errors="replace"), rules)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Ended(process.returncode, usage.ru_maxrss * 1024)


@contextmanager
def _stopping(process: subprocess.Popen) -> Iterator[None]:
    """While it runs, a signal ends the command with all its children."""

    def stop(number: int, frame: FrameType | None) -> None:
        os.killpg(process.pid, signal.SIGKILL)
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    except BaseException:
        # A full disk, for instance.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    for number, handler in before.items():
        signal.signal(number, handler)


def _end_with_parent() -> None:
    """Have this process, which becomes the tool, end when the runner does, even by SIGKILL."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
