"""Steps of tpu_mlir's tools side by side: files, verdicts and ends as one after another."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Toolchain, helper
from PIL import Image

from tpumake.cvimodel import set_build_time
from tpumake.processes import fix_addresses

PROGRAM = ROOT / "scripts/toolchain/run_tool.py"
# What model_deploy does, as far as it matters here: when it asks whether to compare, and what then.
DEPLOY = """
import os, sys
from utils.auto_remove import MlirParser
from utils.cache_tool import CacheTool
kept = CacheTool(False)
if kept.do_tpu_validate("m_tpu.mlir", "m_tpu_outputs.npz", "0.8,0.5", False):
    os.system("echo the first comparison")
    {validate}
    kept.mark_tpu_success()
print("compiles")
{compile}
if "--skip_validation" not in sys.argv and kept.do_model_validate("m.cvimodel", "m_outputs.npz"):
    print("runs on the emulator")
    kept.mark_model_success()
print(MlirParser("m_tpu.mlir").module_weight_file)
"""
NETWORK = 'module @m attributes {module.state = "X", module.weight_file = "m_weight.npz"} {}\n'

Deploy = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def deploy(tmp_path: Path) -> Deploy:
    """Run a model_deploy of a few lines, with what stands for its two steps."""
    for name in ("tools", "utils"):
        (tmp_path / "python" / name).mkdir(parents=True)
    (tmp_path / "python/utils/auto_remove.py").write_text("class MlirParser: pass\n")
    (tmp_path / "m_tpu.mlir").write_text(NETWORK)

    def run(*flags: str, **steps: str) -> subprocess.CompletedProcess[str]:
        text = DEPLOY.format(**({"validate": "", "compile": ""} | steps))
        (tmp_path / "python/tools/model_deploy.py").write_text(text)
        return subprocess.run(
            [sys.executable, PROGRAM, "model_deploy.py", *flags], cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=30,
            env={"TPUC_ROOT": str(tmp_path), "PYTHONPATH": str(tmp_path / "python"),
                 "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip

    return run


def test_the_log_is_in_the_order_of_what_waits(deploy: Deploy) -> None:
    """Stages read comparisons in their order: the first one's is whole before the second begins."""
    done = deploy(validate="import time; time.sleep(0.2)")
    assert done.stdout.splitlines() == [
        "compiles", "the first comparison", "runs on the emulator", "m_weight.npz",
    ]  # fmt: skip
    assert done.returncode == 0


def test_they_are_side_by_side(deploy: Deploy) -> None:
    """Each ends only once the other has begun."""
    meet = "open('{}', 'w').close()\nwhile not os.path.exists('{}'): pass"
    done = deploy(
        validate=meet.format("validates", "compiles").replace("\n", "\n    "),
        compile=meet.format("compiles", "validates"),
    )
    assert done.returncode == 0


def test_without_a_second_comparison_all_is_done_in_turn(deploy: Deploy) -> None:
    done = deploy("--skip_validation")
    assert done.stdout.splitlines() == ["the first comparison", "compiles", "m_weight.npz"]


def test_a_failed_comparison_ends_the_tool_before_the_emulator(deploy: Deploy) -> None:
    done = deploy(validate="raise RuntimeError('[!Error]: npz_tool.py compare')")
    assert done.returncode == 1
    assert done.stdout.endswith("RuntimeError: [!Error]: npz_tool.py compare\n")
    assert "emulator" not in done.stdout


def test_one_that_is_killed_ends_the_tool_the_same_way(deploy: Deploy) -> None:
    done = deploy(validate="os.kill(os.getpid(), 9)")
    assert done.returncode == -9
    assert "the first comparison" in done.stdout


def test_a_failed_compiler_leaves_nothing_running(deploy: Deploy, tmp_path: Path) -> None:
    waits = "open('{}', 'w').write(str(os.getpid()))\n    import time; time.sleep(20)"
    there = "while not os.path.exists('copy') or not open('copy').read(): pass\n"
    done = deploy(validate=waits.format("copy"), compile=f"{there}sys.exit('tpuc-opt failed')")
    assert (done.returncode, done.stdout) == (1, "compiles\ntpuc-opt failed\n")
    copy = Path("/proc", (tmp_path / "copy").read_text(), "stat")
    assert not copy.exists() or copy.read_text().split()[2] in "ZX"


# ---------------------------------------------------------------------------------------------
# With the real tools


SHAPE = "--input_shapes [[1,3,64,64]] --scale 0.0039,0.0039,0.0039 --pixel_format rgb"
TRANSFORM = (f"model_transform.py --model_name m --model_def m.onnx --mlir m.mlir {SHAPE} "
             "--test_input m.jpg --test_result top.npz")  # fmt: skip
DEPLOYED = ("model_deploy.py --mlir m.mlir --model m.cvimodel --processor cv181x --quantize BF16 "
            "--test_input m_in_f32.npz --test_reference top.npz --tolerance")  # fmt: skip
# For --cache_skip; and what the tool itself means to remove, and can't parse.
UNWANTED = ("build_flag.json", "m_top_f32_all_origin_weight.npz")
COMPARED = re.compile(r"^\d+ compared, .*$", re.M)


def run_both(toolchain: Toolchain, folder: Path, command: str) -> tuple[list[str], list[int]]:
    """Run a tool as it is in ``tool`` and with steps side by side in ``ours``."""
    ours = {
        "TPUMAKE_TOOLS": str(ROOT / "scripts/toolchain_bin"),
        "TPUMAKE_SCRIPTS": str(ROOT / "scripts"),
        "TPUMAKE_PYTHON": sys.executable,
    }
    said, codes = [], []
    for name, before in (("tool", []), ("ours", ["side_by_side"])):
        done = subprocess.run(
            [toolchain.program, *before, *command.split()], cwd=folder / name, text=True,
            env=os.environ | ours, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
            preexec_fn=fix_addresses,
        )  # fmt: skip
        said.append(done.stdout)
        codes.append(done.returncode)
    return said, codes


@pytest.mark.toolchain
@pytest.mark.slow
def test_the_tools_make_the_same_of_the_same(toolchain: Toolchain, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    for name in ("tool", "ours"):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "m.jpg")
        done = helper("onnx_downgrade", ROOT / "models/tiny.onnx", tmp_path / name / "m.onnx")
        assert done.returncode == 0, done.stderr

    (theirs, ours), codes = run_both(toolchain, tmp_path, TRANSFORM)
    assert codes == [0, 0], ours
    assert COMPARED.findall(ours) == COMPARED.findall(theirs)
    (theirs, ours), codes = run_both(toolchain, tmp_path, f"{DEPLOYED} 0.9,0.5")
    assert codes == [0, 0], ours
    # The quantised network's comparison, then the model's.
    assert COMPARED.findall(ours) == COMPARED.findall(theirs)
    assert len(COMPARED.findall(ours)) == 2
    made = {}
    for name in ("tool", "ours"):
        set_build_time(tmp_path / name / "m.cvimodel", 0)
        made[name] = {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()
                      if path.is_file() and path.name not in UNWANTED}  # fmt: skip
    assert made["ours"].keys() == made["tool"].keys()
    assert [name for name in made["tool"] if made["ours"][name] != made["tool"][name]] == []

    # Nothing passes that didn't before.
    (theirs, ours), codes = run_both(toolchain, tmp_path, f"{DEPLOYED} 0.99999,0.9999")
    assert codes == [1, 1]
    assert ours.splitlines()[-1] == theirs.splitlines()[-1]
    assert COMPARED.findall(ours) == COMPARED.findall(theirs)
