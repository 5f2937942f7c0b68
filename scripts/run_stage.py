#!/usr/bin/env python3
"""Run one stage of a build, if it has to: key, private folder, log, progress, checks, results.

Every stage of the Makefile is started here. What a stage's output must look like, and which figure
of it people see, is in tpumake/stages.py.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import click

from tpumake import cli, stages
from tpumake.display import Display
from tpumake.folders import private_folder, put_folder
from tpumake.keys import Digests, Key, Record, why

# From <sys/personality.h> and <sys/prctl.h>.
ADDR_NO_RANDOMIZE = 0x0040000
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)
SCRIPTS = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Job:
    """What the Makefile asks for.

    Paths are relative to the top of the checkout. ``inputs`` maps the name that a file or folder
    has in the private folder to where it is; ``outputs`` are final places, found by their last
    part in the private folder.
    """

    stage: str
    model: str
    inputs: dict[str, Path]
    outputs: list[Path]
    command: list[str]
    work: Path
    log: Path
    at_top: bool
    environment: dict[str, str]
    code: list[Path]

    @property
    def record(self) -> Path:
        """Where the key of what was made is kept: beside the log."""
        return self.log.with_suffix(".key")

    def key(self, digests: Digests) -> Key:
        """What this job's result depends on."""
        # Where an input lies is not what it is. The first word is the program, whose code counts.
        names = {str(path): f"<{name}>" for name, path in self.inputs.items()}
        return Key(
            stage=self.stage,
            parameters=[names.get(word, word) for word in self.command[1:]]
            + [f"{name}={value}" for name, value in sorted(self.environment.items())],
            inputs={name: digests.of(path) for name, path in self.inputs.items()},
            code={path.as_posix(): str(digests.of(path)) for path in self.code},
        )


def fresh(job: Job, record: Record | None, key: Key, digests: Digests) -> str:
    """Say why the job has to run; empty if its outputs are what it would make.

    Then they only get a new time, since Make goes by that.
    """
    changed = [out.name for out in job.outputs if not _is_made(out, record, digests)]
    reason = why(record, key, changed)
    if record and not reason:
        for out in job.outputs:
            _date(out)
            digests.remember(out, record.outputs[out.name])
    return reason


def _is_made(out: Path, record: Record | None, digests: Digests) -> bool:
    return bool(record) and out.exists() and digests.of(out) == record.outputs.get(out.name)


# The moment before anything was read. Results are as new as that, not as the moment they are done:
# what is changed while a stage runs must count as newer than its result.
STARTED = time.time_ns()


def _date(out: Path) -> None:
    paths = [out, *out.iterdir()] if out.is_dir() else [out]
    for path in paths:
        os.utime(path, ns=(STARTED, STARTED))


def run_job(job: Job, display: Display) -> str:
    """Run a job to its end and give the figure that people see.

    A tool's exit code alone is never believed: the stage's own checks and the existence of every
    output decide. Outputs appear in their places only after that, each by a rename.

    :raises CheckFailed: the tool or a check failed; one line with the cause and the log's path
    """
    job.log.parent.mkdir(parents=True, exist_ok=True)
    rules = stages.STAGES[job.stage]
    # The tools write files of fixed names into where they are started. In the build folder, so that
    # results can be renamed into place.
    job.work.mkdir(parents=True, exist_ok=True)
    with private_folder(job.work, f"{job.model}-{job.stage}-") as folder:
        for name, source in job.inputs.items():
            (folder / name).symlink_to(source.absolute())
        command = [word.replace("{work}", str(folder)) for word in job.command]
        # Absolute for the tool's sake: it is started in the private folder.
        command[0] = str(Path(command[0]).absolute())
        code = _execute(job, command, Path() if job.at_top else folder, display)
        text = job.log.read_text(errors="replace")
        missing = [out.name for out in job.outputs if not (folder / out.name).exists()]
        if code or missing:
            raise cli.CheckFailed(stages.explain(text, code, missing))
        epoch = int(job.environment.get("SOURCE_DATE_EPOCH", "0"))
        result = stages.Result(text, folder, job.outputs, command, epoch)
        rules.settle(result)
        figure = rules.figure(result)
        for out in job.outputs:
            _put(folder / out.name, out)
    return figure


def _execute(job: Job, command: list[str], cwd: Path, display: Display) -> int:
    """Run a command with its output going to the log, and to the display line by line."""
    rules = stages.STAGES[job.stage]
    environment = (
        os.environ
        | job.environment
        | {
            "PYTHONUNBUFFERED": "1",
            # What the tools call by name and we do better: see scripts/toolchain_bin.
            "TPUMAKE_TOOLS": str(SCRIPTS / "toolchain_bin"),
            "TPUMAKE_PYTHON": sys.executable,
            "TPUMAKE_SCRIPTS": str(SCRIPTS),
        }
    )
    with job.log.open("wb") as file:
        file.write(f"$ {' '.join(command)}\n".encode())
        file.flush()
        # A group of its own, so that the tool's children end with it.
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_prepare_tool,
        )

        def stop(number: int, frame: FrameType | None) -> None:
            os.killpg(process.pid, signal.SIGKILL)
            raise click.Abort

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, stop)
        assert process.stdout is not None
        pending = b""
        output = process.stdout.fileno()
        while True:
            while not select.select([output], [], [], 0.5)[0]:
                display.tick()
            chunk = os.read(output, 65536)
            if not chunk:
                break
            file.write(chunk)
            file.flush()
            # Progress bars end their lines with a carriage return.
            *lines, pending = (pending + chunk).replace(b"\r", b"\n").split(b"\n")
            for line in lines:
                display.line(line.decode(errors="replace"), rules)
        return process.wait()


def _prepare_tool() -> None:
    """Set up the process that becomes the tool.

    It ends when the runner does, even by SIGKILL. And its memory is at the same addresses each
    time: the compiler walks tables that are ordered by address, so the order of commands and
    weights in a model follows the kernel's randomisation. Where that can't be switched off, as
    under Docker's default profile, a model is as good, but not the same bytes as elsewhere.
    """
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    LIBC.personality(ADDR_NO_RANDOMIZE)


def _put(result: Path, place: Path) -> None:
    """Rename a result to its place."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if result.is_dir():
        put_folder(result, place)
    else:
        result.replace(place)
    _date(place)


def _named(pairs: tuple[str, ...]) -> dict[str, Path]:
    """Read ``NAME=PATH`` or ``PATH``; PATH may be a pattern that matches one file."""
    inputs = {}
    for pair in pairs:
        name, _, path = pair.rpartition("=")
        source = Path(path)
        if not source.exists():
            matches = sorted(source.parent.glob(source.name))
            if not matches:
                raise cli.BadInput(f"{path}: there is no such file or folder")
            source = matches[0]
        inputs[name or source.name] = source
    return inputs


@click.command(help=__doc__.splitlines()[0])
@click.option("--stage", required=True, type=click.Choice(sorted(stages.STAGES)))
@click.option("--model", required=True, help="Shown in the first column.")
@click.option("--in", "inputs", multiple=True, metavar="[NAME=]PATH", help="Linked in as NAME.")
@click.option("--out", "outputs", multiple=True, type=click.Path(path_type=Path))
@click.option("--env", "environment", multiple=True, metavar="NAME=VALUE", help="For the command.")
@click.option("--code", multiple=True, type=click.Path(path_type=Path), help="What does the work.")
@click.option("--build", required=True, type=click.Path(path_type=Path), help="The build folder.")
@click.option("--log", required=True, type=click.Path(path_type=Path))
@click.option("--label", help="Shown in the second column instead of the stage.")
@click.option(
    "--top", is_flag=True, help="Start at the top of the checkout; {work} is the private folder."
)
@click.option(
    "--why", "explain", envvar="WHY", is_flag=True, help="Say why the stage runs, or not."
)
@click.option("-v", "--verbose", envvar="V", is_flag=True, help="Show the tool's whole output.")
@click.argument("command", nargs=-1, required=True)
def main(
    stage: str,
    model: str,
    inputs: tuple[str, ...],
    outputs: tuple[Path, ...],
    environment: tuple[str, ...],
    code: tuple[Path, ...],
    build: Path,
    log: Path,
    label: str | None,
    top: bool,
    explain: bool,
    verbose: bool,
    command: tuple[str, ...],
) -> int:
    """Run COMMAND as one stage of a build."""
    job = Job(
        stage=stage,
        model=model,
        inputs=_named(inputs),
        outputs=list(outputs),
        command=list(command),
        work=build / ".work",
        log=log,
        at_top=top,
        environment=dict(pair.split("=", 1) for pair in environment),
        code=list(code),
    )
    display = Display(model, label or stage, verbose)
    started = time.monotonic()
    try:
        with Digests(build / ".digests") as digests:
            record, key = Record.load(job.record), job.key(digests)
            reason = fresh(job, record, key, digests)
            if explain:
                display.note(f"runs: {reason}" if reason else "does not run: nothing changed")
            if not reason:
                return 0
            figure = run_job(job, display)
            outputs = {out.name: digests.of(out) for out in job.outputs}
            Record(key, outputs, figure).save(job.record)
    except cli.CheckFailed as error:
        display.failed(str(error), stages.STAGES[stage].advice, log)
        return 1
    except OSError as error:
        display.failed(f"{error.filename or build}: {error.strerror}", "", log)
        return 2
    display.done(figure, time.monotonic() - started)
    return 0


if __name__ == "__main__":
    cli.run(main)
