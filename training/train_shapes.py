"""Train the demonstration network: a YOLO11n that finds circles, squares, triangles and stars.

Two stages, both seeded. First on 320x320 pictures, four times as fast as 640x640, with shapes as
large in pixels as those of the validation pictures, so that nothing has to be unlearnt afterwards;
then a few epochs on whole 640x480 pictures at 640x640, where objects are sparser and the borders
of the letter-box are seen. The result is exported as ultralytics does it by default and validated.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

# Before ultralytics is imported: no version check, no font, no package fetched behind our back.
os.environ.setdefault("YOLO_OFFLINE", "True")
os.environ.setdefault("YOLO_AUTOINSTALL", "False")

import click

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
sys.path.insert(0, str(ROOT / "training"))
from make_shapes import CLASSES, save  # noqa: E402
from tpumake.cli import BadInput, CheckFailed, atomic_write, run  # noqa: E402

__all__ = ["draw_once", "export", "train", "validate", "write_card"]

CROPS = {"seed": 3, "count": 3000, "width": 320, "height": 320}
WHOLE = {"seed": 4, "count": 400, "width": 640, "height": 480}
GOAL = 0.85
CARD = ROOT / "models" / "README.md"
_MARKERS = "<!-- figures of yolo11n.onnx -->", "<!-- end of figures -->"

_COMMON = {
    "device": "cpu",
    "seed": 0,
    "deterministic": True,
    "optimizer": "AdamW",
    "momentum": 0.9,
    "cos_lr": True,
    "flipud": 0.5,
    "amp": False,
    "val": False,
    "plots": False,
    "exist_ok": True,
    "warmup_bias_lr": 0.01,
}
# nbs = batch: an optimizer step for each batch, for there are few batches.
_FIRST = {"imgsz": 320, "batch": 16, "nbs": 16, "lr0": 0.002, "lrf": 0.02, "warmup_epochs": 0.5,
          "mosaic": 0.5, "close_mosaic": 2, "scale": 0.3}  # fmt: skip
_SECOND = {"imgsz": 640, "batch": 8, "nbs": 8, "lr0": 0.0003, "lrf": 0.05, "warmup_epochs": 0.2,
           "mosaic": 0.0, "scale": 0.2, "weight_decay": 0.0005}  # fmt: skip


def draw_once(folder: Path, seed: int, count: int, width: int, height: int) -> None:
    """Draw ``count`` training pictures to ``folder`` unless an earlier run has done so."""
    done = folder / "complete"
    if done.exists():
        return
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        save(folder, seed, index, width, height)
    done.touch()


def train(start: Path | str, pictures: Path, work: Path, threads: int, **settings: object) -> Path:
    """Train from ``start`` (.yaml or .pt) on ``pictures``; return the last checkpoint (.pt)."""
    import torch
    from ultralytics import YOLO

    def prepare(trainer: object) -> None:
        # ultralytics leaves one core idle, and on a processor channels-last is a third faster.
        torch.set_num_threads(threads)
        trainer.model.to(memory_format=torch.channels_last)

    data = _describe(pictures, work / f"{pictures.name}.yaml")
    model = YOLO(str(start))
    model.add_callback("on_train_start", prepare)
    model.train(data=str(data), project=str(work), name=f"train_{pictures.name}", workers=1,
                **_COMMON, **settings)  # fmt: skip
    return work / f"train_{pictures.name}" / "weights" / "last.pt"


def export(checkpoint: Path, target: Path, opset: int) -> None:
    """Export ``checkpoint`` to ONNX as ultralytics does by default, simplified, at 640x640.

    Two of its metadata entries are changed, for they would differ from run to run: the
    description, which names the training folder, and the date.
    """
    import onnx
    from ultralytics import YOLO

    model = onnx.load(YOLO(str(checkpoint)).export(format="onnx", imgsz=640, opset=opset))
    entries = {entry.key: entry.value for entry in model.metadata_props if entry.key != "date"}
    entries["description"] = "Ultralytics YOLO11n model trained on generated shapes"
    onnx.helper.set_model_props(model, entries)
    with atomic_write(target) as path:
        path.write_bytes(model.SerializeToString(deterministic=True))


def validate(network: Path, data: Path) -> dict[str, float]:
    """Return mAP50, mAP50-95, precision and recall of an ONNX file on the pictures of ``data``.

    The first two as COCO defines them; the others at the confidence of the best F1 score.
    """
    from ultralytics import YOLO

    metrics = YOLO(str(network), task="detect").val(
        data=str(data), imgsz=640, batch=1, device="cpu", plots=False, workers=1, verbose=False,
        project=str(network.parent), name="validation", exist_ok=True
    )  # fmt: skip
    return {
        "mAP50": round(float(metrics.box.map50), 4),
        "mAP50-95": round(float(metrics.box.map), 4),
        "precision": round(float(metrics.box.mp), 4),
        "recall": round(float(metrics.box.mr), 4),
    }


def write_card(card: Path, figures: dict[str, object]) -> None:
    """Put ``figures`` as a table between the two markers of a model card (Markdown)."""
    before, begin, rest = card.read_text(encoding="utf-8").partition(_MARKERS[0])
    _, end, after = rest.partition(_MARKERS[1])
    if not (begin and end):
        raise BadInput(f"{card} lacks the markers {_MARKERS[0]} and {_MARKERS[1]}; put them back")
    rows = "".join(f"| {name} | {value} |\n" for name, value in figures.items())
    table = f"\n| | |\n|---|---|\n{rows}"
    with atomic_write(card) as path:
        path.write_text(before + begin + table + end + after, encoding="utf-8")


def _describe(pictures: Path, target: Path) -> Path:
    """Write the data description that ultralytics reads.

    ``val`` has to be there, but chooses nothing: it is looked at once, after the last epoch, and
    the validation pictures are kept for the finished network.
    """
    document = {
        "train": str((pictures / "images").resolve()),
        "val": str(ROOT / "datasets" / "shapes" / "images"),
        "names": dict(enumerate(CLASSES)),
    }
    target.write_text(json.dumps(document), encoding="utf-8")
    return target


def _require_packages() -> None:
    for package in ("torch", "torchvision", "ultralytics", "onnxslim", "onnxruntime"):
        try:
            __import__(package)
        except ImportError as error:
            raise BadInput(
                f"{package} is missing ({error}); training/README.md tells how"
            ) from error


@click.command()
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--work", type=click.Path(file_okay=False, path_type=Path),
              default=ROOT / "build" / "training",
              help="Where pictures and checkpoints go.")  # fmt: skip
@click.option("--first-epochs", type=click.IntRange(1), default=5, show_default=True,
              help="Epochs at 320x320.")  # fmt: skip
@click.option("--second-epochs", type=click.IntRange(1), default=2, show_default=True,
              help="Epochs at 640x640.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1), default=os.cpu_count(), show_default="all cores")
@click.option("--opset", type=click.IntRange(19), default=20, show_default=True)
@click.option("--card/--no-card", default=True, show_default=True,
              help="Write the figures to models/README.md.")  # fmt: skip
def command(
    target: Path,
    work: Path,
    first_epochs: int,
    second_epochs: int,
    threads: int,
    opset: int,
    card: bool,
) -> None:
    """Train YOLO11n on generated shapes and export it to TARGET (.onnx)."""
    _require_packages()
    work.mkdir(parents=True, exist_ok=True)
    for name, recipe in (("crops", CROPS), ("whole", WHOLE)):
        draw_once(work / name, **recipe)
    drawn = time.monotonic()
    first = train("yolo11n.yaml", work / "crops", work, threads, epochs=first_epochs, **_FIRST)
    second = train(first, work / "whole", work, threads, epochs=second_epochs, **_SECOND)
    minutes = (time.monotonic() - drawn) / 60
    made = work / "yolo11n.onnx"
    export(second, made, opset)
    figures = {
        **validate(made, ROOT / "datasets" / "shapes.yaml"),
        "epochs at 320×320": first_epochs,
        "epochs at 640×640": second_epochs,
        "minutes of training": round(minutes),
    }
    click.echo(json.dumps(figures, ensure_ascii=False))
    if figures["mAP50"] < GOAL:
        raise CheckFailed(f"mAP50 is {figures['mAP50']}, wanted {GOAL}; {made} was not taken")
    with atomic_write(target) as path:
        path.write_bytes(made.read_bytes())
    if card:
        write_card(CARD, figures)


if __name__ == "__main__":
    run(command)
