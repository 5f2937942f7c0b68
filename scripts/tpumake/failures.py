"""Why a tool failed, in one line, and what to do about it.

What the tools of tpu_mlir say when they fail is in known_failures.json with what it means. Of other
failures the line that tells most is shown. Imported only where something failed.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tpumake.errors import CheckFailed
from tpumake.job import Job
from tpumake.stages import comparisons

__all__ = ["Failure", "ToolFailed", "explain", "known_failures", "note_failure"]

TABLE = Path(__file__).with_name("known_failures.json")
# A cause is one line; tools print whole operations in one.
LONGEST = 240


class Failure(NamedTuple):
    """What a failed command's log comes to.

    ``cause`` is one line, or what one of our own helpers said; ``remedy`` says what to do, and is
    empty where only the stage can say it; ``known`` tells whether the cause is more than the line
    that tells most.
    """

    cause: str
    remedy: str
    known: bool


class ToolFailed(CheckFailed):
    """A command failed. The text is the cause, ``failure`` all that is known of it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.cause)
        self.failure = failure


def explain(stage: str, log: str, code: int, missing: list[str], where: str = "") -> Failure:
    """Say why a stage's command failed, from what it printed.

    :param log: its whole output, after a line with the command
    :param code: exit code; negative for a signal
    :param missing: outputs that it did not make
    :param where: the worker's name if it ran on another machine
    """
    failed = [check for check in comparisons(log) if check.passed != check.compared]
    if failed:
        check = failed[-1]
        agree = f"{check.passed} of {check.compared} tensors agree"
        lowest = f"lowest cosine {check.cosine}, lowest Euclidean {check.euclidean}"
        return Failure(f"{agree}: {lowest}; the log names them", "", True)
    own = list(_OWN_HELPER.finditer(log))
    if own:
        # What follows is the complaint of a tool that had called it.
        return Failure(log[own[-1].end() :].partition("\nTraceback")[0].strip(), "", True)
    # Progress bars end their lines with a carriage return, or with none.
    said = log.replace("\r", "\n").partition("\n")[2]
    return _known(stage, said) or _ended(said, code, where) or _unknown(said, code, missing)


def known_failures() -> list[dict]:
    """The table's entries, in the order in which they are looked for."""
    return json.loads(TABLE.read_text(encoding="utf-8"))["failures"]


def note_failure(job: Job, cause: str) -> None:
    """Note beside the log what failed and what it was made from, for `make bugreport`."""
    inputs = {name: str(path) for name, path in job.inputs.items()}
    note = {"stage": job.stage, "model": job.model, "cause": cause, "inputs": inputs,
            "command": job.command, "log": str(job.log)}  # fmt: skip
    # It only helps; a disk that is full has been told of.
    with suppress(OSError):
        job.failure.write_text(json.dumps(note, indent=1, ensure_ascii=False) + "\n")


def _known(stage: str, said: str) -> Failure | None:
    for entry in known_failures():
        if stage not in entry.get("stages", [stage]):
            continue
        found = re.search(entry["pattern"], said, re.MULTILINE)
        if found:
            groups = [" ".join(group.split()) if group else "" for group in found.groups()]
            cause, remedy = (entry[key].format("", *groups) for key in ("cause", "remedy"))
            return Failure(_short(cause), _short(remedy), True)
    return None


def _ended(said: str, code: int, where: str) -> Failure | None:
    """What a signal means that the tool can't have sent itself."""
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        if where:
            cause = f"the tool was killed on {where}, most likely because memory ran out there"
            remedy = "ask for more in RUN (srun --mem=6G), or take fewer pictures (INPUT_NUM)"
            return Failure(cause, remedy, True)
        cause = "the tool was killed, by the kernel most likely, because memory ran out"
        remedy = (
            "close other programs, build fewer at once (make -j1), or take fewer pictures "
            "(INPUT_NUM); dmesg tells what the kernel ended"
        )
        return Failure(cause, remedy, True)
    # A shell tells of a tool that another one had started.
    if code in (-signal.SIGBUS, 128 + signal.SIGBUS) or "Bus error" in said:
        cause = "the tool died of SIGBUS, a page of memory not to be had"
        remedy = (
            "is /dev/shm full (df /dev/shm)? if not, look in dmesg for errors of the disk or the "
            "memory, and have the toolchain made anew (make distclean)"
        )
        return Failure(cause, remedy, True)
    return None


def _unknown(said: str, code: int, missing: list[str]) -> Failure:
    telling, last = "", ""
    before = ""
    for line in _own_words(said):
        if _COMPLAINT.search(line):
            telling = telling or _completed(line, before)
        before = last = line
    number = -code if code < 0 else code - 128
    if telling:
        cause = telling
    elif 0 < number < signal.NSIG:
        name = signal.Signals(number).name if number in set(signal.Signals) else "no name"
        cause = f"the tool was ended by signal {number} ({name})" + (f": {last}" if last else "")
    elif code:
        cause = last or f"exit code {code}"
    else:
        cause = f"the tool ended well but made no {missing[0]}"
    return Failure(_short(cause), "", False)


def _own_words(said: str) -> Iterator[str]:
    """The lines of a log that may tell something: no progress, no stacks, no lines of source.

    Of an assertion in Python, which says nothing itself, the line of source is its words.
    """
    source = ""
    lines = iter(said.splitlines())
    for line in lines:
        if _FRAME.match(line):
            source = next(lines, "").strip()
        elif line.strip() == "AssertionError" and source:
            yield f"AssertionError: {source}"
        elif line.strip() and not _NOISE.search(line):
            yield line.strip()


def _completed(line: str, before: str) -> str:
    """LLVM says what is wrong in the line before the one with the place."""
    if line.startswith("UNREACHABLE") and before:
        return f"{before}: {line}"
    failed = re.match(r"RuntimeError: \[!Error\]: (\S+)", line)
    return f"{failed[1]} failed{f': {before}' if before else ''}" if failed else line


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


# The last words of our own helpers are the cause, and may be more than one line.
_OWN_HELPER = re.compile(
    r"^(calibrate|onnx_downgrade|normalize_dataset|npz_compare|preflight|check_(tflite|caffe|contract)"
    r"|import_\w+|merge_qtable|letterbox_picture|run_onnx|(prepare|run)_evaluation|evaluate): ",
    re.M,
)
# The first complaint is the cause, what follows is its echo up the stack.
_COMPLAINT = re.compile(
    r"^[\w.]*(Error|Exception)\b|^[\w.]+: \[ONNXRuntimeError\]|\berror:|UNREACHABLE"
    r"|Assertion .* failed|doesn't exist|^what\(\): |^(Segmentation fault|Floating point exception"
    r"|Bus error|Illegal instruction)"
)
_FRAME = re.compile(r'^\s+File ".*", line \d+')
_NOISE = re.compile(
    r"\d+%\|.*\||^\s*#\d+ 0x|^Stack dump:|^\d+\.\s+Program arguments:|^PLEASE submit a bug report"
    r"|^Traceback \(most|^\[(Running|CMD|Success)\]|^Aborted|^\s+\w+ +: |^\s+-+$|^\s*\^+$"
    r"|^During handling of|^The above exception|^WARNING: onnx model check failed|oc_pos="
)
