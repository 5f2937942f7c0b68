"""Install the few lines of torchvision that detection needs, where there is no build of it.

torchvision has no wheel for every combination of torch, processor and Python, and ultralytics
imports it unconditionally: for the suppression of overlapping boxes, for which it has its own
implementation too, and for a class that detection never instantiates in earnest.
"""

from __future__ import annotations

import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from tpumake.cli import BadInput, run

__all__ = ["install"]

VERSION = "0.28.0"
"""The release that belongs to torch 2.13.0."""

_FILES = {
    "torchvision/__init__.py": f'''"""A stand-in for torchvision; see training/README.md."""

from torchvision import ops, transforms

__all__ = ["ops", "transforms"]
__version__ = "{VERSION}"
''',
    "torchvision/ops.py": '''"""Non-maximum suppression, by ultralytics."""


def nms(boxes, scores, iou_threshold):
    """Return the indices of the boxes to keep, best first."""
    from ultralytics.utils.nms import TorchNMS

    return TorchNMS.nms(boxes, scores, iou_threshold)
''',
    "torchvision/transforms.py": '''"""What ultralytics names when it is imported."""


class Compose:
    """Apply one transform after another."""

    def __init__(self, transforms):
        self.transforms = transforms

    def __call__(self, image):
        """Return the transformed image."""
        for transform in self.transforms:
            image = transform(image)
        return image
''',
    f"torchvision-{VERSION}.dist-info/METADATA": (
        f"Metadata-Version: 2.1\nName: torchvision\nVersion: {VERSION}\n"
        "Summary: Stand-in, enough for ultralytics' detection\n"
    ),
    # With these, `pip uninstall torchvision` makes room for the real one.
    f"torchvision-{VERSION}.dist-info/INSTALLER": "tpumake\n",
}


def install(packages: Path) -> None:
    """Write the stand-in to ``packages``, a site-packages folder."""
    record = f"torchvision-{VERSION}.dist-info/RECORD"
    lines = [f"{name},,\n" for name in (*_FILES, record)]
    for name, text in {**_FILES, record: "".join(lines)}.items():
        path = packages / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


@click.command()
def command() -> None:
    """Install the stand-in into the environment that runs this."""
    if sys.prefix == sys.base_prefix:
        raise BadInput("not in a virtual environment; activate the one of training/README.md first")
    if find_spec("torchvision") is not None:
        raise BadInput("torchvision is installed; pip uninstall torchvision if it does not work")
    install(Path(sysconfig.get_path("purelib")))


if __name__ == "__main__":
    run(command)
