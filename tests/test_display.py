"""What a running stage shows on a terminal, and that it shows nothing of it elsewhere."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

COUNTING = """
for done in 0 1 2 3 4; do printf 'PROGRESS %s 4\\n' $done; sleep 0.15; done; echo > out; echo figure
"""


def on_terminal(folder: Path, script: str, **environment: str) -> str:
    """Run a stage on a terminal of its own and give everything that was written there."""
    master, slave = pty.openpty()
    command = [
        sys.executable, "-S", str(ROOT / "scripts/run_stage.py"),
        "--stage", "dataset", "--model", "m",
        "--build", "build", "--log", "log", "--out", "out", "--", "/bin/sh", "-c", script,
    ]  # fmt: skip
    env = {"PATH": os.environ["PATH"], "COLUMNS": "70", **environment}
    process = subprocess.Popen(command, cwd=folder, stdout=slave, stderr=slave, env=env)
    os.close(slave)
    seen = b""
    while True:
        try:
            chunk = os.read(master, 4096)
        except OSError:  # how Linux tells that the other end is closed
            break
        if not chunk:
            break
        seen += chunk
    os.close(master)
    assert process.wait() == 0
    return seen.decode()


def test_a_bar_moves_and_is_gone_at_the_end(tmp_path: Path) -> None:
    seen = on_terminal(tmp_path, COUNTING)
    assert "█████░░░░░" in seen
    assert re.search(r"2 of 4 pictures, \d+ s left", seen)
    last = seen.replace("\r\n", "").split("\r\x1b[K")[-1]
    assert last.startswith("m        dataset      figure")
    assert "█" not in last


@pytest.mark.slow
def test_no_line_is_longer_than_the_terminal(tmp_path: Path) -> None:
    seen = on_terminal(tmp_path, COUNTING, COLUMNS="40")
    drawn = [line for line in seen.split("\r\x1b[K") if "█" in line]
    assert drawn
    assert max(map(len, drawn)) <= 40


@pytest.mark.slow
def test_a_stage_that_counts_nothing_shows_its_seconds(tmp_path: Path) -> None:
    assert "1 s …" in on_terminal(tmp_path, "sleep 1.7; echo > out; echo figure")


@pytest.mark.slow
@pytest.mark.parametrize("flags", ["-j4 --jobserver-auth=3,4", " -j2"])
def test_stages_side_by_side_draw_no_bars(tmp_path: Path, flags: str) -> None:
    assert "█" not in on_terminal(tmp_path, COUNTING, MAKEFLAGS=flags)
