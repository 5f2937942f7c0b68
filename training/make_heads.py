"""Export an untrained network of every family and task that ultralytics has, as small as may be.

`tests/data/heads/*.onnx.gz`: the structure of a current export with narrow layers, a 64×64 input
and 4 classes. Weights that a matrix is multiplied with are zero, so that a file is a few kilobytes;
whoever needs numbers fills them in. Nothing else is touched: nodes, names, order and constants are
those that ultralytics writes.
"""

from __future__ import annotations

import gzip
import os
import sys
import tempfile
from pathlib import Path

import click
import numpy as np
import onnx
import yaml
from onnx import numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from tpumake.cli import run
from tpumake.files import atomic_write

FAMILIES = {
    "yolov5": ("",),
    "yolov6": ("",),
    "yolov8": ("", "-seg", "-pose", "-obb", "-cls"),
    "yolov9": ("",),
    "yolov9c-seg": ("",),
    "yolov10": ("", "-e2e"),
    "yolo11": ("", "-seg", "-pose", "-obb", "-cls"),
    "yolo12": ("", "-seg", "-pose", "-obb", "-cls"),
    "yolo26": ("", "-seg", "-pose", "-obb", "-cls", "-e2e", "-seg-e2e", "-pose-e2e", "-obb-e2e"),
}
"""Each family's smallest network, and the tasks that there is one for. -e2e: as `nms=False` exports
it, choosing its boxes by itself; of 300, so the input is larger."""

FILES = {"yolov9": "yolov9t", "yolov10": "yolov10n"}
SIZE, SIZE_E2E = 64, 160
WIDTHS = (1 / 16, 1 / 8, 1 / 4)
"""Of these the first that the network can be built with: attention wants some channels."""

_SMALL = 256
"""Weights of up to so many numbers stay: shapes, scales, and the bins of a box distribution."""


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("names", nargs=-1)
def main(folder: Path, names: tuple[str, ...]) -> None:
    """Write FOLDER/NAME.onnx.gz for each of NAMES, by default for all."""
    os.environ["YOLO_OFFLINE"] = "1"
    folder.mkdir(parents=True, exist_ok=True)
    known = [family + task for family, tasks in FAMILIES.items() for task in tasks]
    for name in names or known:
        model = plain(export(name))
        with atomic_write(folder / f"{name}.onnx.gz") as file:
            # The time and the file's name are no part of it.
            file.write_bytes(gzip.compress(model.SerializeToString(deterministic=True), 9, mtime=0))
        click.echo(f"{name}: {len(model.graph.node)} nodes")


def export(name: str) -> onnx.ModelProto:
    """Build the network narrow, and have ultralytics export it."""
    from ultralytics import YOLO
    from ultralytics.utils import ROOT

    chooses = name.endswith("-e2e")
    name = name.removesuffix("-e2e")
    settings = {"imgsz": SIZE_E2E, "nms": False} if chooses else {"imgsz": SIZE}
    (definition,) = (ROOT / "cfg/models").glob(f"*/{FILES.get(name, name)}.yaml")
    with tempfile.TemporaryDirectory() as scratch:
        for width in WIDTHS:
            text = yaml.safe_load(definition.read_text(encoding="utf-8"))
            text["nc"] = 4
            if "scales" in text:
                text["scales"] = {"n": [0.33, width, 1024]}
            else:
                narrow(text, 4 * width)
            path = Path(scratch) / f"{name}.yaml"
            path.write_text(yaml.safe_dump(text))
            try:
                network = YOLO(path, verbose=False)
                return onnx.load(network.export(format="onnx", simplify=False, **settings))
            except (AssertionError, ZeroDivisionError, RuntimeError, ValueError):
                if width == WIDTHS[-1]:
                    raise
    raise AssertionError(name)


def narrow(definition: dict, width: float) -> None:
    """Make the layers narrower of a network that is described for one width alone."""
    for part in ("backbone", "head"):
        for layer in definition[part]:
            if layer[2] not in ("Detect", "Segment"):
                layer[3] = [
                    max(16, round(each * width)) if isinstance(each, int) and each >= 32 else each
                    for each in layer[3]
                ]


def plain(model: onnx.ModelProto) -> onnx.ModelProto:
    """Take out the weights and what tells when and where it was exported."""
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.size > _SMALL and values.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(values), tensor.name))
    kept = {p.key: p.value for p in model.metadata_props if p.key in {"task", "names", "stride"}}
    del model.metadata_props[:]
    for key, value in sorted(kept.items()):
        model.metadata_props.add(key=key, value=value)
    model.doc_string = model.graph.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    del model.graph.metadata_props[:]
    return model


if __name__ == "__main__":
    run(main)
