"""The stand-in for torchvision is found as a package of the right version, and refuses others."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "training"))
from stand_in_torchvision import VERSION, install  # noqa: E402


def test_is_a_package_that_can_be_removed_again(tmp_path):
    install(tmp_path)
    program = (
        "import torchvision, importlib.metadata as m\n"
        "assert torchvision.__version__ == m.version('torchvision')\n"
        "t = torchvision.transforms.Compose([lambda x: x + 1, lambda x: x * 2])\n"
        "print(torchvision.__version__, t(3), callable(torchvision.ops.nms))\n"
        "print(*m.files('torchvision'))"
    )
    result = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    first, files = result.stdout.splitlines()
    assert first == f"{VERSION} 8 True"
    written = {
        str(path.relative_to(tmp_path))
        for path in tmp_path.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert written == set(files.split())


def test_refuses_outside_of_a_virtual_environment():
    script = str(ROOT / "training" / "stand_in_torchvision.py")
    program = (
        "import sys, runpy; sys.prefix = sys.base_prefix\n"
        "sys.argv = ['stand_in_torchvision.py']\n"
        f"runpy.run_path({script!r}, run_name='__main__')"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "not in a virtual environment" in result.stderr
    assert len(result.stderr.splitlines()) == 1
