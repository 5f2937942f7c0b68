"""What each stage's output must look like, and which figure of it people see.

tpu_mlir's tools end with exit code 0 after many failures, and with 1 after some successes, so what
counts as done is said here, per stage.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tpumake.cli import CheckFailed
from tpumake.cvimodel import set_build_time

__all__ = ["STAGES", "Result", "Stage", "explain"]

# The memory that reCamera's firmware keeps for the TPU, in MB.
ION_POOL = 50
Progress = tuple[str, int, int]


@dataclass(frozen=True)
class Result:
    """What a finished command left: its log, its private folder, and what it was."""

    log: str
    folder: Path
    outputs: list[Path]
    command: list[str]
    epoch: int = 0


@dataclass(frozen=True)
class Stage:
    """How to read one kind of stage.

    ``settle`` takes out of the outputs what differs from run to run, before anything looks at them;
    ``figure`` gives the text that people see, or raises CheckFailed; ``progress`` reads one line of
    output as (what is counted, done, total); ``advice`` is what to do when the stage failed, where
    the cause itself does not say it.
    """

    figure: Callable[[Result], str]
    progress: Callable[[str], Progress | None] = lambda line: None
    advice: str = ""
    settle: Callable[[Result], None] = lambda result: None


@dataclass(frozen=True)
class Comparison:
    """One run of npz_compare, as its last line tells it."""

    compared: int
    passed: int
    cosine: str
    euclidean: str


def comparisons(log: str) -> list[Comparison]:
    """Find the comparisons in a log, in their order."""
    found = re.findall(
        r"^(\d+) compared, (\d+) passed, lowest cosine (\S+?), lowest Euclidean (\S+)", log, re.M
    )
    return [Comparison(int(n), int(m), cosine, euclidean) for n, m, cosine, euclidean in found]


def _last_line(result: Result) -> str:
    """Our own helpers' last line is their figure."""
    return result.log.rstrip().rsplit("\n", 1)[-1]


def _transform(result: Result) -> str:
    if "--test_input" not in result.command:
        return "not compared with the float model (VALIDATE=0)"
    (check,) = _passed(result.log, 1)
    return f"{check.passed} of {check.compared} tensors agree, lowest cosine {check.cosine}"


def _passed(log: str, expected: int) -> list[Comparison]:
    """Insist on comparisons that compared something and passed.

    :raises CheckFailed: if there are fewer than expected, or one is empty or failed
    """
    checks = comparisons(log)
    if len(checks) < expected:
        raise CheckFailed(
            f"{len(checks)} of {expected} comparisons ran; the result is not verified"
        )
    for check in checks:
        if check.compared == 0 or check.passed != check.compared:
            raise CheckFailed(f"{check.passed} of {check.compared} tensors agree")
    return checks


def _settle_table(result: Result) -> None:
    """The table's first line is the time at which it was made."""
    table = result.folder / result.outputs[0].name
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(result.epoch))
    text = re.sub(r"\A(# \w+ time: ).*", rf"\g<1>{when}", table.read_text())
    table.write_text(text)


def _settle_model(result: Result) -> None:
    set_build_time(result.folder / result.outputs[0].name, result.epoch)


def _calibration(result: Result) -> str:
    table = (result.folder / result.outputs[0].name).read_text()
    # Fewer pictures than were asked for will do, if there are no more.
    there = len(list((result.folder / "dataset").glob("Calibration*")))
    wanted = min(there, int(result.command[result.command.index("--input_num") + 1]))
    header = re.search(r"^# sample number: (\d+)", table, re.M)
    thresholds = [line.split() for line in table.splitlines() if line and not line.startswith("#")]
    if not header or not thresholds or any(len(row) != 4 for row in thresholds):
        raise CheckFailed("the calibration table is not complete")
    used = int(header.group(1))
    if used != wanted:
        raise CheckFailed(f"{used} of {wanted} pictures were used")
    return f"{used} pictures, {len(thresholds)} thresholds"


def _calibration_progress(line: str) -> Progress | None:
    match = re.search(r"^(.*?):?\s*\d+%\|.*\|\s*(\d+)/(\d+)", line)
    if not match:
        return None
    what, done, total = match.groups()
    phase = (
        "tuned" if what.startswith("tune") else "ranges" if "activation" in what else "thresholds"
    )
    return f"tensors, {phase}", int(done), int(total)


def _deploy(result: Result) -> str:
    model = result.folder / result.outputs[0].name
    # The toolchain's `run` is the first word of the stage's own command.
    info = subprocess.run(
        [result.command[0], "model_tool", "--info", model.name],
        cwd=result.folder, capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    memory = re.search(r"ION Memory Size: \(([\d.]+) MB\)", info)
    if not memory:
        raise CheckFailed("model_tool can't read the model that was built")
    size = f"{model.stat().st_size / 1e6:.2f} MB, ION {float(memory.group(1)):.1f} of {ION_POOL} MB"
    if "--test_input" not in result.command:
        return f"{size}, not validated (VALIDATE=0)"
    # First the quantised network against the float one, then the model on the emulator against it.
    quantised, _emulator = _passed(result.log, 2)
    return f"{size}, lowest cosine {quantised.cosine}, emulator ok"


def _picture_progress(line: str) -> Progress | None:
    match = re.match(r"PROGRESS (\d+) (\d+)", line)
    return ("pictures", int(match.group(1)), int(match.group(2))) if match else None


STAGES = {
    "dataset": Stage(_last_line, _picture_progress),
    "downgrade": Stage(_last_line),
    "transform": Stage(
        _transform,
        advice="does INPUT_SHAPES fit the network, and is every operator one that tpu_mlir knows?",
    ),
    "calibrate": Stage(
        _calibration,
        _calibration_progress,
        advice="is there memory enough? fewer pictures (INPUT_NUM) need less",
        settle=_settle_table,
    ),
    "deploy": Stage(
        _deploy,
        advice="where tensors disagree: do MEAN, SCALE, PIXEL_FORMAT and the pictures suit the "
        "network? then try bf16, or a lower tolerance in the stanza",
        settle=_settle_model,
    ),
}


def explain(log: str, code: int, missing: list[str]) -> str:
    """Say in one line why a command failed, from what it printed.

    :param code: exit code; negative for a signal
    :param missing: outputs that it did not make
    """
    failed = [check for check in comparisons(log) if check.passed != check.compared]
    if failed:
        check = failed[-1]
        return (
            f"{check.passed} of {check.compared} tensors agree: lowest cosine {check.cosine}, "
            f"lowest Euclidean {check.euclidean}; the log names them"
        )
    lines = [line.strip() for line in log.replace("\r", "\n").splitlines() if line.strip()]
    # The first complaint is the cause, what follows is its echo up the stack.
    for sign, cause in _KNOWN:
        if any(sign in line for line in lines[1:]):
            return cause
    telling = [line for line in lines[1:] if _COMPLAINT.search(line)]
    if telling:
        return _bare(telling[-1] if _OWN_HELPER.match(telling[-1]) else telling[0])
    if code < 0 or code > 128:
        ended = f"the tool was ended by signal {-code if code < 0 else code - 128}"
        return f"{ended}: {lines[-1]}" if len(lines) > 1 else ended
    if code:
        return _bare(lines[-1]) if len(lines) > 1 else f"exit code {code}"
    return f"the tool ended well but made no {missing[0]}"


# Messages that don't say what they mean.
_KNOWN = (
    (
        "'NoneType' object has no attribute 'shape'",
        "a picture can't be decoded: is TEST_INPUT one, and whole?",
    ),
    ("OMP: Error #179", "the tool may not use shared memory: is /dev/shm there, and writable?"),
)
_OWN_HELPER = re.compile(r"^(onnx_downgrade|normalize_dataset|npz_compare|check_stanza): ")
_COMPLAINT = re.compile(
    r"^\w*(Error|Exception)\b|\berror:|UNREACHABLE|Assertion .* failed|doesn't exist|"
    + _OWN_HELPER.pattern
)


def _bare(line: str) -> str:
    return _OWN_HELPER.sub("", line)
