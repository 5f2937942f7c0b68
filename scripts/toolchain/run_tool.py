"""Run model_transform or model_deploy of tpu_mlir 1.7 with less to wait for.

Runs in the toolchain's Python, as `run_tool.py model_deploy.py FLAGS…`. The tool's own program does
the work, and makes the same files; before it starts, a few functions of the modules that it imports
are replaced here, so that

- tpu_mlir's form of a network runs beside the ONNX one, and the quantised network is compared with
  the float one while the model is compiled from it;
- a network that has no constants to fold is not run twice on random numbers to fold them;
- the name of a network's weights, wanted to remove them, is read and not parsed with all the rest;
- nothing is noted for --cache_skip, which nobody uses here and tpu_mlir gets wrong.

Nothing else is left out: what the tool compares is compared, with its tolerances, and it ends as it
would where that fails. Any other tool, and one told to --cache_skip, runs as it is.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import re
import runpy
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

LIBC = ctypes.CDLL(None)
# From <sys/prctl.h>.
PR_SET_PDEATHSIG = 1
WEIGHTS = re.compile(r'module\.weight_file = "([^"]*)"')


class Beside:
    """Work that a copy of this process does while this one goes on.

    What the copy says is kept, and said where it is waited for.
    """

    def __init__(self) -> None:
        self._process = self._said = 0
        self.inside = False

    def begin(self) -> bool:
        """Part; whether this is the copy."""
        _flush()
        self._said = os.memfd_create("said")
        parent = os.getpid()
        self._process = os.fork()
        if self._process:
            atexit.register(self._drop)
            return False
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        self.inside = True
        for stream in (1, 2):
            os.dup2(self._said, stream)
        return True

    def end(self, code: int = 0) -> None:
        """End the copy; nothing where this is none.

        Without what a process does at its end: the libraries' threads were not copied, and would be
        waited for.
        """
        if self.inside:
            _flush()
            os._exit(code)

    def wait(self) -> bool:
        """Say what the copy has said, if there is one; end as it did, unless all was well."""
        if not self._process:
            return False
        _, status = os.waitpid(self._process, 0)
        self._process = 0
        _flush()
        with os.fdopen(self._said, "rb") as said:
            said.seek(0)
            sys.stdout.buffer.write(said.read())
        _flush()
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [-code])
            os.kill(os.getpid(), -code)
        if code:
            sys.exit(code)
        return True

    def _drop(self) -> None:
        """This process failed meanwhile, and that is what counts."""
        if self._process:
            os.kill(self._process, signal.SIGKILL)


def _flush() -> None:
    """Write what is said so far, by Python and by the libraries."""
    sys.stdout.flush()
    sys.stderr.flush()
    LIBC.fflush(None)


def cache_tool(beside: Beside) -> ModuleType:
    """In place of `utils.cache_tool`, which the tools ask whether to compare.

    Of model_deploy's two comparisons a copy makes the first, while this process compiles; before
    the second it is waited for. Where there is no second, all is done in turn.
    """

    class CacheTool:
        def __init__(self, cache_skip: bool) -> None:
            assert not cache_skip

        def do_top_validate(self, *_: object) -> bool:
            return True

        def mark_top_success(self) -> None:
            pass

        def do_tpu_validate(self, *_: object) -> bool:
            return "--skip_validation" in sys.argv or beside.begin()

        def mark_tpu_success(self) -> None:
            beside.end()

        def do_model_validate(self, *_: object) -> bool:
            beside.wait()
            return True

        def mark_model_success(self) -> None:
            pass

    module = ModuleType("utils.cache_tool")
    module.CacheTool = CacheTool
    return module


class Weights:
    """In place of a parsed network, of which `utils.auto_remove` wants one name."""

    def __init__(self, network: str) -> None:
        self.module_weight_file = WEIGHTS.search(Path(network).read_text())[1]


def infer_beside(beside: Beside, network: str) -> None:
    """Have model_transform's two networks run side by side, the ONNX one in this process.

    That comes first, so that it is the one whose failure is told.

    :param network: the other one, in tpu_mlir's form
    """
    import numpy as np
    from tools import model_runner
    from utils import mlir_shell

    run_onnx, run_own = model_runner.onnx_inference, model_runner.mlir_inference
    compare = mlir_shell.f32_blobs_compare
    found = Path("beside.npz")

    def onnx_inference(inputs: dict, *more: object) -> dict:
        if beside.begin():
            np.savez(found, **run_own(inputs, network))
            beside.end()
        return run_onnx(inputs, *more)

    def mlir_inference(*given: object) -> dict:
        # Nothing goes into the tool's file: it is replaced.
        return {} if beside.wait() else run_own(*given)

    def f32_blobs_compare(own: str, *more: object, **options: object) -> None:
        if found.exists():
            found.replace(own)
        compare(own, *more, **options)

    model_runner.onnx_inference = onnx_inference
    model_runner.mlir_inference = mlir_inference
    mlir_shell.f32_blobs_compare = f32_blobs_compare


def fold_constants_that_there_are() -> None:
    """Leave a network alone that has none, unless running it could have failed.

    What fails there makes tpu_mlir take the network as it is. So it does with whole numbers, which
    may be indices out of range.
    """
    import onnx
    from transform.OnnxOpt import ConstantFolding

    run: Callable = ConstantFolding.forward_for_node_outputs

    def forward_for_node_outputs(self: ConstantFolding, nodes: list) -> dict:
        types = {each.type.tensor_type.elem_type for each in self.model.graph.input}
        if nodes or types != {onnx.TensorProto.FLOAT}:
            return run(self, nodes)
        return {}

    ConstantFolding.forward_for_node_outputs = forward_for_node_outputs


def replace_parts(tool: str, flags: list[str], beside: Beside) -> None:
    """Put in place what a tool is to find instead of tpu_mlir's own."""
    if tool not in ("model_transform.py", "model_deploy.py") or "--cache_skip" in flags:
        return
    sys.modules["utils.cache_tool"] = cache_tool(beside)
    from utils import auto_remove

    auto_remove.MlirParser = Weights
    # What can't run at all is told where it is run to be compared.
    if tool == "model_transform.py" and "--test_input" in flags:
        infer_beside(beside, flags[flags.index("--mlir") + 1])
        if flags[flags.index("--model_def") + 1].endswith(".onnx"):
            fold_constants_that_there_are()


def main() -> None:
    """Run the tool that the first argument names."""
    program = Path(os.environ["TPUC_ROOT"], "python", "tools", sys.argv[1])
    # As if it had been started itself.
    sys.argv = [str(program), *sys.argv[2:]]
    sys.path[0] = str(program.parent)
    beside = Beside()
    replace_parts(program.name, sys.argv[1:], beside)
    try:
        runpy.run_path(str(program), run_name="__main__")
    except BaseException:
        if beside.inside:
            traceback.print_exc()
            beside.end(1)
        raise


if __name__ == "__main__":
    main()
