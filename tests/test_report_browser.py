"""A report in a real Chromium: what it shows, to whom, and that it asks nobody for anything."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT
from reports import HOSTILE
from test_report import collected, rendered, report_python

__all__ = ["report_python"]
pytestmark = pytest.mark.full
SHOWN = HOSTILE.replace("\u202e", "\\u202e").replace("\x07", "\\x07")


@pytest.fixture(scope="module")
def seen(report_python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("page")
    collected(folder)
    assert rendered(report_python, folder).returncode == 0
    browser = Path(os.environ.get("BROWSER_VENV", ROOT / ".browser"))
    env = {name: text for name, text in os.environ.items() if not name.startswith("MAKE")}
    words = ["make", "--silent", f"BROWSER_VENV={browser}", f"{browser}/ready"]
    subprocess.run(words, cwd=ROOT, env=env, check=True)
    done = subprocess.run(
        [browser / "bin/python", ROOT / "tests/look_at_page.py", folder / "report.html", folder],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    assert (folder / "paper.pdf").read_bytes().startswith(b"%PDF")
    return json.loads(done.stdout)


@pytest.mark.parametrize("how", ["light", "dark", "phone"])
def test_everybody_can_read_it(seen: dict, how: str) -> None:
    assert seen[how]["violations"] == []
    assert not seen[how]["too_wide"]


@pytest.mark.parametrize("how", ["light", "dark", "phone", "strict"])
def test_nothing_goes_wrong_and_nothing_is_fetched(seen: dict, how: str) -> None:
    assert seen[how]["wrong"] == []
    assert set(seen[how]["asked"]) <= {"file", "data"}


@pytest.mark.parametrize("how", ["light", "dark", "phone"])
def test_a_point_tells_what_it_is(seen: dict, how: str) -> None:
    assert seen[how]["told"].startswith(SHOWN)
    assert "cosine 0.990000 · SQNR " in seen[how]["told"]


def test_keys_go_from_point_to_point(seen: dict) -> None:
    first, second, last, left = seen["strict"]["keys"]
    assert first.startswith(f"{SHOWN}0tensor 1,")
    assert second.startswith(f"{SHOWN}1tensor 2,")
    assert last.startswith("out0output, tensor 31, Conv, BF16")
    assert left is None
