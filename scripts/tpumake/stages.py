"""What each stage's output must look like, and which figure of it people see.

tpu_mlir's tools end with exit code 0 after many failures, and with 1 after some successes, so what
counts as done is said here, per stage.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tpumake import settling
from tpumake.errors import CheckFailed
from tpumake.job import Job
from tpumake.memory import available

__all__ = ["STAGES", "Comparison", "Result", "Stage", "comparisons"]

Progress = tuple[str, int, int]


class Result(NamedTuple):
    """What a finished command left: its log, its private folder, and what it was."""

    log: str
    folder: Path
    outputs: list[Path]
    command: list[str]


class Stage(NamedTuple):
    """How to read one kind of stage.

    ``before`` gives commands to run in the private folder before the stage's own; ``settle`` takes
    out of the outputs what differs from run to run, before anything looks at them, and adds what
    the tool leaves out when all is well (second argument: SOURCE_DATE_EPOCH); ``figure`` gives the
    text that people see, or raises CheckFailed; ``progress`` reads one line of output as (what is
    counted, done, total); ``advice`` is what to do when the stage failed, where the cause itself
    does not say it; ``memory`` is how many bytes the stage may need, as far as can be said before;
    ``heavy`` stages are worth the trip to another machine (RUN): they run tpu_mlir or a framework.
    """

    figure: Callable[[Result], str]
    progress: Callable[[str], Progress | None] = lambda line: None
    advice: str = ""
    settle: Callable[[Result, int], None] = lambda result, epoch: None
    before: Callable[[Path, list[str]], list[list[str]]] = lambda folder, command: []
    memory: Callable[[Job], int] = lambda job: 10**8
    heavy: bool = False


class Comparison(NamedTuple):
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


def _after_command(result: Result) -> str:
    """All that it says is for people; the log begins with the command."""
    return result.log.partition("\n")[2].rstrip()


def _warnings(result: Result) -> str:
    """What the check warns of, a line each; mostly nothing."""
    lines = result.log.splitlines()
    return "\n".join(line for line in lines if line.startswith("warning: "))


def _transform(result: Result) -> str:
    if "--test_input" not in result.command:
        return "not compared with the float model (VALIDATE=0)"
    if _option(result.command, "--model_def").endswith(".tflite"):
        # What the tool then writes comes from the network itself, and deploy compares with it.
        return "compared when it is compiled: tpu_mlir runs a quantised network no earlier"
    (check,) = _passed(result.log, 1)
    return f"{check.passed} of {check.compared} tensors agree, lowest cosine {check.cosine}"


def _option(command: list[str], name: str) -> str:
    """What an option of a command is, empty if it isn't there."""
    return command[command.index(name) + 1] if name in command else ""


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


def _activations(network: Path) -> int:
    """The bytes of all tensors that a network in tpu_mlir's form computes, in float."""
    shapes = re.findall(r"-> tensor<([\dx]+)xf32>", network.read_text())
    return sum(4 * math.prod(map(int, shape.split("x"))) for shape in shapes)


def _lists(folder: Path, command: list[str]) -> list[list[str]]:
    """Write the lists of samples that the command names, each of the folder of the same name.

    A line is a sample: one file, or Calibration1_1, Calibration1_2 and so on with commas between.
    """
    for flag in ("--data_list", "--tune_list"):
        if flag not in command:
            continue
        place = folder / command[command.index(flag) + 1]
        samples: dict[int, list[tuple[int, str]]] = {}
        for path in (folder / place.stem).glob("Calibration*"):
            number, _, index = path.stem.removeprefix("Calibration").partition("_")
            samples.setdefault(int(number), []).append((int(index or 0), path.name))
        lines = [
            ",".join(f"{place.stem}/{name}" for _, name in sorted(files))
            for _, files in sorted(samples.items())
        ]
        place.write_text("\n".join(lines) + "\n")
    return []


# What all processes of a stage together take, measured with YOLO11n at 640×640 and with the
# smallest network there is, and rounded up. The tools themselves are 0.2 GB; beside that tpu_mlir's
# calibration holds a ninth of the tensors for each picture, the others all of them some times over.
def _calibration_memory(job: Job) -> int:
    network = next(iter(job.inputs.values()))
    if _calibrates_itself(job.command):
        return _calibration_processes(network) * _calibration_process(network)
    pictures = int(job.command[job.command.index("--input_num") + 1])
    return 2 * 10**8 + pictures * _activations(network) // 9


def _calibrates_itself(command: list[str]) -> bool:
    """Whether a calibration is our own, and not one that run_calibration has to do in the end."""
    return "calibrate.py" in command and "--debug_cmd" not in command


def _calibration_process(network: Path) -> int:
    """What one process of our own calibration takes; the samples' number does not matter."""
    return 2 * 10**8 + _activations(network)


def _calibration_processes(network: Path) -> int:
    """One a core, if there is memory for so many."""
    return max(1, min(_cores(), available() // _calibration_process(network)))


def _cores() -> int:
    """How many processes a stage takes, one a core; of a worker's (RUN) nothing is known here."""
    return 1 if os.environ.get("RUN") else len(os.sched_getaffinity(0))


def _before_calibration(folder: Path, command: list[str]) -> list[list[str]]:
    """Write lists, and say how many processes there may be: that is no part of the key.

    On a worker (RUN) they are as many as the cores that it has there.
    """
    if "calibrate.py" in command and not os.environ.get("RUN"):
        network = folder / command[command.index("calibrate.py") + 1]
        command += ["--processes", str(_calibration_processes(network))]
    return _lists(folder, command)


def _search_memory(job: Job) -> int:
    return 2 * _calibration_memory(job)


def _transform_memory(job: Job) -> int:
    # Before there is a network in tpu_mlir's form, its tensors are guessed from the weights. The
    # ONNX network holds all of its own while that runs.
    return 2 * 10**8 + 75 * next(iter(job.inputs.values())).stat().st_size


def _import_memory(job: Job) -> int:
    # The frameworks are half a gigabyte; then there is the network in theirs, in ONNX, and running.
    sources = [path for path in job.inputs.values() if path.is_file()]
    return 6 * 10**8 + 10 * sum(path.stat().st_size for path in sources)


def _downgrade_memory(job: Job) -> int:
    return 10**8 + 25 * sum(path.stat().st_size for path in job.inputs.values())


def _deploy_memory(job: Job) -> int:
    return 2 * 10**8 + 5 * _activations(next(iter(job.inputs.values()))) // 2


def _evaluate_memory(job: Job) -> int:
    # A process a core, of which each runs the network; onnxruntime is one.
    processes = 1 if "--onnx" in job.command else _cores()
    return processes * (2 * 10**8 + 5 * _activations(job.inputs[f"{job.model}.mlir"]) // 2)


def _reference_outputs(folder: Path, command: list[str]) -> list[list[str]]:
    """Where the reference outputs aren't there, they are made from the float network.

    They are a function of it and of the test input, the same bytes that transform wrote; making
    them takes a second and a half, and keeping them 188 MB a network.
    """
    if "--test_reference" not in command:
        return []
    reference = command[command.index("--test_reference") + 1]
    if (folder / reference).exists():
        return []
    # A quantised network comes along itself: tpu_mlir's form of it can't be run.
    sources = [path.name for path in folder.glob("*.tflite")]
    network = sources[0] if sources else command[command.index("--mlir") + 1]
    test_input = reference.replace("_top_outputs.npz", "_test.npz")
    # Started as the stage's own command is, perhaps with an extra.
    started = command[: command.index("model_deploy.py")]
    return [[*started, "model_runner.py", "--input", test_input, "--model", network,
             "--output", reference, "--dump_all_tensors"]]  # fmt: skip


def _settle_tables(result: Result, epoch: int) -> None:
    for out in result.outputs:
        settling.table(result.folder / out.name, epoch)


def _settle_model(result: Result, epoch: int) -> None:
    settling.model(result.folder / result.outputs[0].name, epoch)


def _settle_network(result: Result, epoch: int) -> None:
    if _option(result.command, "--model_def").endswith(".tflite"):
        settling.name_weights(*(result.folder / out.name for out in result.outputs[:2]))
        reference = _option(result.command, "--test_result")
        if reference:
            settling.drop_unnamed(result.folder / reference)


# What run_qtable says, and then writes no table.
_INT8_IS_ENOUGH = re.compile(r"current int8 cos:(\S+) is higher than expected_cos:([\d.]+)")


def _settle_search(result: Result, epoch: int) -> None:
    enough = _INT8_IS_ENOUGH.search(result.log)
    if enough:
        for out in result.outputs:
            settling.empty_quantize_table(result.folder / out.name)
    elif all((result.folder / out.name).exists() for out in result.outputs):
        _settle_tables(result, epoch)


def _search(result: Result) -> str:
    """What the search for float layers came to.

    :raises CheckFailed: if it broke off; the tool goes on then, with the table that it has so far
    """
    broke_off = re.search(r"An exception happened: (.*)", result.log)
    if broke_off:
        raise CheckFailed(f"the search broke off, and its table is not complete: {broke_off[1]}")
    enough = _INT8_IS_ENOUGH.search(result.log)
    if enough:
        return f"INT8 is good enough: cosine {float(enough[1]):.6f}, no float layers"
    table = (result.folder / result.outputs[0].name).read_text()
    layers = [line for line in table.splitlines() if line and not line.startswith("#")]
    before = re.search(r"int8 outputs_cos:(\S+) old", result.log)
    after = re.search(r"mix model outputs_cos:(\S+)", result.log)
    if not before or not after or any(len(line.split()) != 2 for line in layers):
        raise CheckFailed("the quantisation table is not complete")
    wanted = result.command[result.command.index("--expected_cos") + 1]
    # What the tool calls the mixed model's cosine is that of its last trial, which it may have
    # taken back; it is the table's only where the search ended because that was good enough.
    reached = float(after[1]) > float(wanted)
    outcome = f"→ {after[1]}" if reached else f"alone, {wanted} is not reached"
    return f"{len(layers)} float layers: cosine of INT8 {before[1]} {outcome}"


def _calibration(result: Result) -> str:
    table = (result.folder / result.outputs[0].name).read_text()
    # Fewer pictures than were asked for will do, if there are no more.
    files = list((result.folder / "dataset").glob("Calibration*"))
    there = len({path.stem.partition("_")[0] for path in files})
    kind = "samples" if next(iter(files), Path()).suffix in (".npz", ".npy") else "pictures"
    wanted = min(there, int(result.command[result.command.index("--input_num") + 1]))
    header = re.search(r"^# sample number: (\d+)", table, re.M)
    thresholds = [line.split() for line in table.splitlines() if line and not line.startswith("#")]
    if not header or not thresholds or any(len(row) != 4 for row in thresholds):
        raise CheckFailed("the calibration table is not complete")
    used = int(header.group(1))
    if used != wanted:
        raise CheckFailed(f"{used} of {wanted} {kind} were used")
    left = re.search(r"^run_calibration does it, because (.+)", result.log, re.M)
    whose = f", by run_calibration: {left[1]}" if left else ""
    return f"{used} {kind}, {len(thresholds)} thresholds{whose}"


# What our own calibration counts.
_PHASES = {"ranges": "samples", "histograms": "samples", "tuned": "searches"}


def _calibration_progress(line: str) -> Progress | None:
    own = re.match(r"PROGRESS (\d+) (\d+) (\w+)", line)
    if own:
        return f"{_PHASES[own[3]]}, {own[3]}", int(own[1]), int(own[2])
    match = re.search(r"^(.*?):?\s*\d+%\|.*\|\s*(\d+)/(\d+)", line)
    if not match:
        return None
    what, done, total = match.groups()
    phases = {"tune": "tuned", "Processing": "searched", "activation": "ranges"}
    phase = next((phases[sign] for sign in phases if sign in what), "thresholds")
    return f"tensors, {phase}", int(done), int(total)


def _deploy(result: Result) -> str:
    model = result.folder / result.outputs[0].name
    # The toolchain's `run` is the first word of the stage's own command.
    info = subprocess.run(
        [result.command[0], "model_tool", "--info", model.name],
        cwd=result.folder, capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    size = f"{model.stat().st_size / 1e6:.2f} MB, {_memory_on_the_chip(info)}"
    if "--test_input" not in result.command:
        return f"{size}, not validated (VALIDATE=0)"
    if "--skip_validation" in result.command:
        (quantised,) = _passed(result.log, 1)
        return f"{size}, lowest cosine {quantised.cosine}, not run (SKIP_VALIDATION=1)"
    # First the quantised network against the float one, then the model on the emulator against it.
    quantised, _emulator = _passed(result.log, 2)
    return f"{size}, lowest cosine {quantised.cosine}, emulator ok"


def _memory_on_the_chip(info: str) -> str:
    """What model_tool says of the memory that a model takes there."""
    ion = re.search(r"ION Memory Size: \(([\d.]+) MB\)", info)
    if ion:
        return f"ION {float(ion[1]):.1f} MB"
    device = re.search(r"^device mem size: (\d+)", info, re.M)
    if device:
        return f"device memory {int(device[1]) / 1e6:.1f} MB"
    raise CheckFailed("model_tool can't read the model that was built")


def _contract(result: Result) -> str:
    """The summary, and under it what may be wrong all the same."""
    warnings = re.findall(r"^warning: .+$", result.log, re.M)
    return "\n".join([_last_line(result), *warnings])


def _picture_progress(line: str) -> Progress | None:
    match = re.match(r"PROGRESS (\d+) (\d+)", line)
    return ("pictures", int(match.group(1)), int(match.group(2))) if match else None


def _trial_progress(line: str) -> Progress | None:
    match = re.match(r"PROGRESS (\d+) (\d+)", line)
    return ("tables", int(match.group(1)), int(match.group(2))) if match else None


def _curve(result: Result) -> str:
    """The last line, and under it the curve that is before it."""
    curve = re.search(r"^ *float layers .*(?:\n.*)+", result.log, re.M)
    *rows, figure = curve[0].rstrip().splitlines() if curve else [_last_line(result)]
    return "\n".join([figure, *rows])


def _operations(result: Result) -> str:
    """Lowering ends with how many operations there are; none would be no network.

    :raises CheckFailed: if there are none
    """
    figure = _last_line(result)
    if figure.startswith("0 ") or "operations" not in figure:
        raise CheckFailed("the lowered network is empty")
    return figure


STAGES = {
    "stanza": Stage(_warnings),
    "dataset": Stage(_last_line, _picture_progress),
    "tflite": Stage(_last_line),
    "caffe": Stage(_last_line),
    "import": Stage(_last_line, memory=_import_memory, heavy=True),
    "downgrade": Stage(_last_line, memory=_downgrade_memory, heavy=True),
    "transform": Stage(
        _transform,
        settle=_settle_network,
        advice="does INPUT_SHAPES fit the network, and is every operator one that tpu_mlir knows?",
        memory=_transform_memory,
        heavy=True,
    ),
    "calibrate": Stage(
        _calibration,
        _calibration_progress,
        advice="is there memory enough? MEMORY says what all stages together may take",
        settle=_settle_tables,
        before=_before_calibration,
        memory=_calibration_memory,
        heavy=True,
    ),
    "qtable": Stage(
        _search,
        _calibration_progress,
        advice="fewer pictures (QTABLE_INPUT_NUM) need less memory; GLOBAL_COMPARE_LAYERS tells "
        "the search what to look at",
        settle=_settle_search,
        before=_lists,
        memory=_search_memory,
        heavy=True,
    ),
    "float": Stage(_last_line),
    "goal": Stage(
        _curve,
        _trial_progress,
        advice="calibrate with more pictures like those that the camera will see, or build bf16",
        memory=_evaluate_memory,
        heavy=True,
    ),
    "deploy": Stage(
        _deploy,
        advice="where tensors disagree: do MEAN, SCALE, PIXEL_FORMAT and the pictures suit the "
        "network? then try mix or bf16, or a lower tolerance in the stanza",
        settle=_settle_model,
        before=_reference_outputs,
        memory=_deploy_memory,
        heavy=True,
    ),
    "contract": Stage(
        _contract, advice="the model is put aside, under the same name with .refused behind it"
    ),
    "lower": Stage(_operations, heavy=True),
    "picture": Stage(_last_line),
    "onnx": Stage(_last_line),
    "evalset": Stage(_last_line),
    "evaluate": Stage(_last_line, _picture_progress, memory=_evaluate_memory, heavy=True),
    "accuracy": Stage(
        _last_line,
        advice="the model is put aside, under the same name with .refused behind it; try mix or "
        "bf16, or calibrate with more pictures like those that the camera will see",
    ),
    # A network or a model, run on pictures.
    "run": Stage(_last_line, _picture_progress, memory=_deploy_memory, heavy=True),
    # Its summary is of ten lines at most.
    "report": Stage(_after_command),
    "page": Stage(_last_line, memory=lambda job: 3 * 10**8),
    # Two networks at once, with all tensors of both.
    "layers": Stage(
        _last_line, _picture_progress, memory=lambda job: 2 * _deploy_memory(job), heavy=True
    ),
}
