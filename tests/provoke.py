"""Runs tpu_mlir's tools, many in one process: importing what they import takes most of their time.

Started in the toolchain's Python with a file of JSON: [[folder, command, limits, bare], …]. Each
command is run in its folder by a process of its own, as `run` would run it, its output into `log`
there; its exit code, negative for a signal, is printed on a line. A limit is the name of one of
resource's and a number; a bare one lacks our own programs in PATH.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import runpy
import sys
import traceback
from pathlib import Path

IMPORTS = (
    "cv2", "onnx", "onnxruntime", "onnxsim", "pymlir", "scipy.stats", "transform.OnnxConverter",
    "calibration.kld_calibrator", "calibration.mix_precision", "tools.model_runner",
    "utils.preprocess", "graphviz",
)  # fmt: skip
TOOLS = Path(os.environ["TPUC_ROOT"], "python", "tools")


def become(
    folder: str, command: list[str], limits: dict[str, int], bare: bool, output: int
) -> None:
    """Be one tool from here on."""
    os.chdir(folder)
    os.dup2(output, 1)
    os.dup2(output, 2)
    print(f"$ {' '.join(command)}", flush=True)
    for name, limit in limits.items():
        resource.setrlimit(getattr(resource, name), (limit, limit))
    if bare:
        os.environ["PATH"] = os.environ["PATH"].partition(":")[2]
    program, *arguments = command
    if not program.endswith(".py"):
        os.execvp(program, command)
    sys.argv = [str(TOOLS / program), *arguments]
    if program in ("model_transform.py", "model_deploy.py"):
        # As stages start these two.
        sys.argv = [str(Path(os.environ["TPUMAKE_SCRIPTS"], "toolchain/run_tool.py")), *command]
    sys.path[0] = str(TOOLS)
    code = 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run(folder: str, command: list[str], limits: dict[str, int], bare: bool) -> int:
    """Run one command in its folder; its output goes through a pipe, as the runner has it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        become(folder, command, limits, bare, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        Path(folder, "log").write_bytes(said.read())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


for name in IMPORTS:
    importlib.import_module(name)
for case in json.loads(Path(sys.argv[1]).read_text()):
    print(run(*case), flush=True)
