"""Running one stage's command: private folder, log, progress, checks, results put in place."""

from __future__ import annotations

import os
import select
import subprocess
import time
from contextlib import nullcontext
from pathlib import Path

from tpumake import events, stages
from tpumake.display import Display
from tpumake.errand import Ended
from tpumake.errors import BadInput, CheckFailed
from tpumake.files import locked
from tpumake.folders import private_folder, put_folder
from tpumake.job import Job, date
from tpumake.keys import Digests, Key, Record, content, why
from tpumake.memory import room_for
from tpumake.processes import fix_addresses, started
from tpumake.room import insist_on_room

__all__ = ["execute", "prepare", "put"]

SCRIPTS = Path(__file__).resolve().parent.parent


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
    command = [make, "--silent", "--no-print-directory", *job.needs]
    with locked(job.work / "setup.lock"), started(command, env=environment) as process:
        process.wait()
    if process.returncode:
        raise CheckFailed("the environment that it runs in can't be made, see above")


def execute(job: Job, key: Key, digests: Digests, display: Display) -> Record:
    """Run a job to its end, put what it made in place, and give the record of it.

    A tool's exit code alone is never believed: the stage's own checks and the existence of every
    output decide. Outputs appear in their places only after that, each by a rename.

    :raises CheckFailed: the tool or a check failed; one line with the cause
    :raises BadInput: an input changed meanwhile, so nobody knows what the result is made from
    :raises OSError: the disk is full, for instance
    """
    rules = stages.STAGES[job.stage]
    words: list[str] = []
    if rules.heavy and os.environ.get("RUN"):
        from tpumake.launcher import launch, launcher

        words = launcher()
    if job.same_addresses and not words:
        fix_addresses()
    # The tools write files of fixed names into where they are started.
    with private_folder(job.work, "stage-") as folder:
        for name, source in job.inputs.items():
            (folder / name).symlink_to(source.absolute())
        for path, made_by in job.spares:
            if _is_from(path, Record.load(made_by), digests):
                (folder / path.name).symlink_to(path.absolute())
        command = [word.replace("{work}", str(folder)) for word in job.command]
        # Absolute for the tool's sake: it is started in the private folder.
        command[0] = str(Path(command[0]).absolute())
        before = rules.before(folder, command)
        last = Record.load(job.record)
        # Estimates are made from little; what it took last time is known.
        need = max(rules.memory(job), last.peak if last else 0)
        # What runs elsewhere takes none of this machine's.
        room = nullcontext() if words else room_for(
            need, job.work, lambda: display.tick("waits for memory")
        )  # fmt: skip
        commands, cwd = [*before, command], Path() if job.at_top else folder
        with room:
            since = time.monotonic()
            if words:
                ended = launch(words, commands, job, cwd, _environment(job), need, display)
            else:
                ended = _run_all(commands, job, cwd, display)
        code = ended.code
        text = job.log.read_text(errors="replace")
        result = stages.Result(text, folder, job.outputs, command)
        if not code:
            rules.settle(result, int(job.environment.get("SOURCE_DATE_EPOCH", "0")))
        missing = [out.name for out in job.outputs if not (folder / out.name).exists()]
        if code or missing:
            insist_on_room(text, job.build)
            from tpumake.failures import ToolFailed, explain

            raise ToolFailed(explain(job.stage, text, code, missing, ended.where))
        changed = why(Record(key, {}, ""), job.key(digests), [])
        if changed:
            raise BadInput(f"{changed} while the tool ran: make again")
        figure = rules.figure(result)
        by_products = [path for path in job.by_products if (folder / path.name).exists()]
        record = Record(
            key,
            {out.name: content(folder / out.name) for out in job.outputs},
            figure,
            {path.name: content(folder / path.name) for path in by_products},
            ended.peak,
            round(time.monotonic() - since, 3) if ended.seconds is None else ended.seconds,
        )
        put(folder, [*job.outputs, *by_products], record, job.record, digests)
    return record


def _is_from(path: Path, maker: Record | None, digests: Digests) -> bool:
    return bool(maker) and path.exists() and maker.by_products.get(path.name) == digests.of(path)


def put(
    folder: Path, places: list[Path], record: Record, record_place: Path, digests: Digests
) -> None:
    """Rename results, files or folders, from a private folder to their places, with their record.

    One that is there already as it should be keeps its time, so that nothing after it is looked
    into. Nothing needs room on the disk once the first one is in its place; a run that is killed
    before the record is in its own runs again.
    """
    written = folder / record_place.name
    written.write_text(record.to_json())
    date(written)
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
    known = record.outputs | record.by_products
    # The first is the one that people look for: it comes last.
    for place in reversed(places):
        result = folder / place.name
        there = place.exists() and digests.of(place) == known[place.name]
        # Before it is there: whatever has the time of its writing would count as too new.
        date(result, like=place if there else None)
        if result.is_dir():
            put_folder(result, place)
        else:
            result.replace(place)
        digests.remember(place, known[place.name])
    written.replace(record_place)


def _run_all(commands: list[list[str]], job: Job, cwd: Path, display: Display) -> Ended:
    """Run commands until one fails, with their output going to the log, and to the display."""
    code = peak = 0
    with job.log.open("wb") as log:
        for command in commands:
            code, most, *_ = _run(command, job, cwd, log, display)
            peak = max(peak, most)
            if code:
                break
    return Ended(code, peak)


def _environment(job: Job) -> dict[str, str]:
    """The environment of a job's commands."""
    from tpumake.address import SECRETS

    # Results follow the layout of the heap, so nobody's settings of the allocator, nor another one
    # or other libraries that use it, reach the tools. What a build notes of itself is not theirs,
    # nor are passwords.
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("GLIBC_TUNABLES", "LD_AUDIT", "LD_PRELOAD", events.VARIABLE, *SECRETS)
        and not name.startswith("MALLOC_")
    }
    # Make hands on what was on its command line.
    if any(name in environment.get("MAKEFLAGS", "") for name in SECRETS):
        for name in ("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES"):
            environment.pop(name, None)
    if "TPUMAKE_PRELOAD" in environment:
        environment["LD_PRELOAD"] = environment["TPUMAKE_PRELOAD"]
    return (
        environment
        | job.environment
        | {
            "PYTHONUNBUFFERED": "1",
            # What the tools call by name and we do better: see scripts/toolchain_bin.
            "TPUMAKE_TOOLS": str(SCRIPTS / "toolchain_bin"),
            "TPUMAKE_PYTHON": str(
                Path(os.environ.get("VENV", ".venv"), "bin", "python").absolute()
            ),
            "TPUMAKE_SCRIPTS": str(SCRIPTS),
            "TPUMAKE_EXTRAS": str(Path(os.environ.get("EXTRAS", ".extras")).absolute()),
        }
    )


def _run(command: list[str], job: Job, cwd: Path, log, display: Display) -> Ended:
    rules = stages.STAGES[job.stage]
    log.write(os.fsencode(f"$ {' '.join(command)}\n"))
    log.flush()
    with started(
        command, cwd=cwd, env=_environment(job), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
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
