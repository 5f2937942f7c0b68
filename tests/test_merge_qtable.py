"""Quantisation tables of the user's own, and layers added to those that a search made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, refused

CALIB = """# genetated time: 1980-01-01 00:00:00
###
# op_name    threshold    min    max
images 1.0 0.0 1.0
/a/Conv_output_0_Conv 2.0 -1.0 2.0
/head/Mul_output_0_Mul 9.0 -9.0 9.0
output0_Concat 9.0 -9.0 9.0
"""


def merged(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "calib").write_text(CALIB)
    return subprocess.run(
        [sys.executable, ROOT / "scripts/merge_qtable.py", "calib", "out", *arguments],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


def rows(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if not line.startswith("#")]


def test_layers_are_added_in_the_networks_order(tmp_path: Path) -> None:
    (tmp_path / "table").write_text("# by hand\n###\noutput0_Concat f16\n")
    done = merged(tmp_path, "--table", "table", "--float", "output0*,/head/*", "--mode", "BF16")
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path / "out") == ["/head/Mul_output_0_Mul BF16", "output0_Concat F16"]
    assert done.stdout == "1 layers in the table, 1 more by FLOAT_LAYERS\n"


def test_a_table_without_layers(tmp_path: Path) -> None:
    assert merged(tmp_path).returncode == 0
    assert rows(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/a/Conv_output_0 BF16", 'line 1: the network has no layer "/a/Conv_output_0"; did you'),
        ("xyz BF16", 'no layer "xyz"; the calibration table names all'),
        ("output0_Concat", "line 1: must be a layer and one of F32, F16, BF16"),
        ("output0_Concat FP8", "line 1: must be a layer and one of"),
        ("output0_Concat BF16 x", "line 1: must be a layer and one of"),
    ],
)
def test_what_tpu_mlir_would_pass_over_is_told(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "table").write_text(line + "\n")
    assert said in refused(merged(tmp_path, "--table", "table"))
    assert not (tmp_path / "out").exists()


def test_a_pattern_that_names_nothing(tmp_path: Path) -> None:
    done = merged(tmp_path, "--float", "/head/*,/tail/*")
    assert 'FLOAT_LAYERS: no layer is called "/tail/*"' in refused(done)
