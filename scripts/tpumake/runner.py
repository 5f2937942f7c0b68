"""The runner of stages: key, cache, private folder, log, checks, results.

It runs on the host's own Python with nothing but the standard library: a stage whose result is
there, or in the cache, needs no environment. What a stage's output must look like, and which figure
of it people see, is in tpumake/stages.py.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tpumake import events
from tpumake.display import Display
from tpumake.errors import BadInput, CheckFailed, run_guarded
from tpumake.files import locked
from tpumake.job import Job, drop_by_products, fresh
from tpumake.keys import REMOTE, Digests, Key, Record, why

if TYPE_CHECKING:
    from tpumake.cache import Cache

__all__ = ["main", "run_guarded"]

REPORT = "make bugreport packs what a maintainer would ask for"


def make(job: Job, digests: Digests, display: Display, chosen: argparse.Namespace) -> str:
    """See to it that a job's outputs are what it would make; by the cheapest way that there is.

    :return: the figure to show; empty if nothing had to be done
    :raises CheckFailed: the tool or a check failed; one line with the cause
    """
    record, key = Record.load(job.record), job.key(digests)
    _take_back(job, record, key, digests)
    reason = fresh(job, record, key, digests)
    note: Callable[[str], None] = display.note if chosen.why else lambda text: None
    if not reason:
        note("does not run: nothing changed")
        _note(job, "up to date")
        return ""
    # What only a stage needs that has work to do is imported then: most have not.
    from tpumake.cache import Cache

    for folder in (job.log.parent, job.work):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(job.lock, lambda: display.tick("another make is at it")):
        key = job.key(digests)
        if not fresh(job, Record.load(job.record), key, digests):
            note("does not run: another make did it")
            _note(job, "up to date")
            return ""
        cache = Cache.from_environment()
        record = taken(job, key, digests, cache, True) if cache else None
        remote = None
        if cache and not record and os.environ.get("CACHE_REMOTE"):
            from tpumake.remote import Remote

            remote = Remote.from_environment(job, display, chosen.make)
            if remote and remote.fetch(key.digest):
                record = taken(job, key, digests, cache, REMOTE)
        if record:
            note(f"comes from the {'remote ' if remote else ''}cache: {reason}")
            display.replay(job.log)
            display.done(record.figure, "remote" if remote else "cached")
            _note(job, "cached")
            return record.figure
        note(f"runs: {reason}")
        figure = run(job, key, digests, display, cache, chosen.make)
        # The result is in its place by now: an interruption loses nothing.
        if remote:
            remote.keep(key.digest)
        return figure


def _note(job: Job, status: str, **more: object) -> None:
    """Note what came of a stage; ``record`` is its name."""
    events.note(record=str(job.record), status=status, **more)


def run(
    job: Job, key: Key, digests: Digests, display: Display, cache: Cache | None, make: str
) -> str:
    """Run a job, keep what it made in the cache, and give the figure."""
    from tpumake.execution import execute, prepare

    prepare(job, make)
    started = time.monotonic()
    record = execute(job, key, digests, display)
    if cache:
        try:
            cache.put(record, job.outputs, job.log.read_bytes().decode(errors="replace"))
        except OSError as error:
            display.detail(f"not kept in the cache: {error.filename}: {error.strerror}")
    seconds = time.monotonic() - started
    display.done(record.figure, f"{seconds:.1f} s")
    _note(job, "built", seconds=seconds)
    return record.figure


def taken(job: Job, key: Key, digests: Digests, cache: Cache, cached: bool | str) -> Record | None:
    """Put in place what the cache has for a job's key, its log too; None if it has nothing.

    :param cached: how the record is to tell where it came from
    """
    from tpumake.cache import Damaged
    from tpumake.execution import put
    from tpumake.folders import private_folder

    entry = cache.find(key)
    if entry is None or entry.files.keys() != {out.name for out in job.outputs}:
        return None
    with private_folder(job.work, "stage-") as folder:
        try:
            cache.take(entry, folder)
        except Damaged:
            return None
        job.log.write_bytes(entry.log.encode())
        put(folder, job.outputs, entry.record._replace(cached=cached), job.record, digests)
    drop_by_products(job, entry.record, digests)
    return entry.record


def named(pairs: list[str]) -> dict[str, Path]:
    """Read ``NAME=PATH`` or ``PATH``; PATH may be a pattern that matches one file."""
    inputs = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        # A path may have the sign in it, too.
        if not equals or "/" in name or Path(pair).exists():
            name, path = "", pair
        source = Path(path)
        if not source.exists():
            source = next(iter(sorted(source.parent.glob(source.name))), source)
        inputs[name or source.name] = source
    return inputs


def parser() -> argparse.ArgumentParser:
    """What the Makefile may say."""
    # With a width given it need not ask for the terminal's, which takes some more imports.
    formatter = partial(argparse.HelpFormatter, width=100)
    arguments = argparse.ArgumentParser(
        prog="run_stage",
        description="Run one stage of a build, if it has to.",
        formatter_class=formatter,
    )
    add = arguments.add_argument
    add("--stage", required=True, help="which rules of tpumake/stages.py apply")
    add("--model", required=True, help="shown in the first column")
    add("--label", help="shown in the second column instead of the stage")
    add("--in", dest="inputs", action="append", default=[], metavar="[NAME=]PATH",
        help="linked into the private folder as NAME")  # fmt: skip
    add("--lists", action="append", default=[], metavar="NAME",
        help="an input that may be a list of files, which count as inputs then")  # fmt: skip
    add("--spare", dest="spares", action="append", default=[], nargs=2, type=Path,
        metavar=("PATH", "RECORD"), help="linked in if it is there and RECORD says that it is what "
        "that stage made")  # fmt: skip
    add("--out", dest="outputs", action="append", default=[], type=Path)
    add("--by-product", dest="by_products", action="append", default=[], type=Path,
        help="an output that nothing depends on, and that the cache leaves out")  # fmt: skip
    add("--env", dest="environment", action="append", default=[], metavar="NAME=VALUE",
        help="for the command")  # fmt: skip
    add("--code", action="append", default=[], type=Path, help="what does the work")
    add("--needs", action="append", default=[], metavar="TARGET",
        help="what Make has to make before the command can be started")  # fmt: skip
    add("--make", default="make", help="the make to ask for that")
    add("--build", required=True, type=Path, help="the build folder")
    add("--log", required=True, type=Path)
    add("--top", action="store_true", help="start at the top of the checkout; {work} is the "
        "private folder")  # fmt: skip
    add("--same-addresses", action="store_true", help="switch address randomisation off")
    add("--libc-matters", action="store_true", help="the host's C library is part of the key")
    add("--untimed", action="store_true", help="how long it took is not worth telling")
    add("--refuse", dest="refused", action="append", default=[], type=Path, metavar="PATH",
        help="an input that is put aside, as PATH.refused, if the command finds it wanting; its "
        "outputs go")  # fmt: skip
    add("--why", action="store_true", default=os.environ.get("WHY", "0") == "1",
        help="say why the stage runs, or not")  # fmt: skip
    add("-v", "--verbose", action="store_true", default=os.environ.get("V", "0") == "1",
        help="show the tool's whole output")  # fmt: skip
    add("command", nargs="+")
    return arguments


def stop_at_signals() -> None:
    """Have every signal that asks this program to end be an interruption, so that it tidies up.

    The first counts; more of them don't disturb the tidying. One that is ignored, as nohup has it,
    stays so.
    """
    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) != signal.SIG_IGN
    ]

    def stop(*_: object) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, stop)


def main() -> int:
    """Run COMMAND as one stage of a build."""
    stop_at_signals()
    chosen = parser().parse_args()
    job = Job(
        stage=chosen.stage,
        model=chosen.model,
        inputs=named(chosen.inputs),
        outputs=chosen.outputs,
        command=chosen.command,
        build=chosen.build,
        log=chosen.log,
        at_top=chosen.top,
        environment=dict(pair.split("=", 1) for pair in chosen.environment),
        code=chosen.code,
        lists=chosen.lists,
        spares=chosen.spares,
        by_products=chosen.by_products,
        needs=chosen.needs,
        same_addresses=chosen.same_addresses,
        libc_matters=chosen.libc_matters,
    )
    display = Display(job.model, chosen.label or job.stage, chosen.verbose, not chosen.untimed)
    try:
        with Digests(job.build / ".digests") as digests:
            make(job, digests, display, chosen)
        for path in (*chosen.refused, *job.outputs):
            _aside(path).unlink(missing_ok=True)
        job.failure.unlink(missing_ok=True)
    except CheckFailed as error:
        if chosen.refused:
            _put_aside(chosen.refused, job.outputs)
        return _check_failed(job, display, error)
    except BadInput as error:
        return _bad_input(job, display, str(error))
    except OSError as error:
        return _bad_input(job, display, f"{error.filename or job.build}: {error.strerror}")
    except KeyboardInterrupt:
        _note(job, "interrupted")
        raise
    return 0


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.refused")


def _take_back(job: Job, record: Record | None, key: Key, digests: Digests) -> None:
    """Take results back that another stage refused, if they are what this one would make."""
    for out in job.outputs:
        aside = _aside(out)
        if out.exists() or not aside.exists() or not record or why(record, key, []):
            continue
        if digests.of(aside) == record.outputs.get(out.name):
            aside.replace(out)


def _put_aside(inputs: list[Path], outputs: list[Path]) -> None:
    """Leave nothing that looks finished. The stage that made it takes it back when it may."""
    for path in outputs:
        path.unlink(missing_ok=True)
    for path in inputs:
        if path.exists():
            path.replace(_aside(path))


def _check_failed(job: Job, display: Display, error: CheckFailed) -> int:
    from tpumake.failures import ToolFailed, note_failure
    from tpumake.stages import STAGES

    failure = error.failure if isinstance(error, ToolFailed) else None
    advice = (failure.remedy if failure else "") or STAGES[job.stage].advice
    # What nobody has met before is worth telling of.
    asking = "" if failure is None or failure.known else REPORT
    display.failed(str(error), advice, job.log, asking)
    note_failure(job, str(error))
    _note(job, "failed", cause=str(error), log=str(job.log))
    return 1


def _bad_input(job: Job, display: Display, cause: str) -> int:
    display.failed(cause, "", None)
    _note(job, "failed", cause=cause)
    return 2
