"""Reports of builds that never were, with names that try everything."""

from __future__ import annotations

import json
from pathlib import Path

from cvimodels import FP32, camera_model, outputs_of
from PIL import Image

from tpumake.keys import Digest, Key, Record

# What would be a script, an attribute, an entity or a turned line if anybody let it.
HOSTILE = "/x/<img src=x onerror=alert(1)>\"'><script>alert(2)</script>&lt;\u202etxt{{7*7}}\x07"
NAMES = ["circle", "</svg><script>alert(3)</script>"]
SHAPES = [(1, channels, side, side) for side in (80, 40, 20) for channels in (64, 2)]


def record(stage: str, parameters: list[str], inputs: dict[str, Digest],
           outputs: dict[str, Digest], **more: object) -> Record:  # fmt: skip
    return Record(Key(stage, parameters, inputs, {"requirements/tpu_mlir-1.7.txt": "c" * 64}),
                  outputs, more.pop("figure", "a figure"), **more)  # fmt: skip


def layer(name: str, **more: object) -> dict:
    return {
        "name": name, "type": "Conv", "shape": [1, 8], "precision": "INT8", "cosine": 0.99,
        "sqnr_db": 20.0, "added_noise": 0.02, "min": -1.0, "max": 1.0, "threshold": 0.9,
        "clipped": 0.01,
    } | more  # fmt: skip


def layers_document(*layers: dict) -> dict:
    return {
        "$schema": "layers.schema.json", "target": "m_int8", "chip": "cv181x", "pictures": 4,
        "layers": list(layers), "histograms": [{"name": layers[0]["name"], "counts": [3] * 64}],
    }  # fmt: skip


def measures(map50: float) -> dict:
    each = {"number": 0, "objects": 9, "map50": map50, "map50_95": 0.5, "precision": 0.9,
            "recall": 0.8, "f1": 0.85}  # fmt: skip
    return {"map50": map50, "map50_95": 0.5, "coco_map50": map50, "coco_map50_95": 0.5,
            "precision": 0.9, "recall": 0.8, "f1": 0.85,
            "classes": [{"name": name} | each for name in NAMES]}  # fmt: skip


def evaluation(variant: str, map50: float = 0.9, **of_set: object) -> dict:
    like = {"same": 8, "missing": 1, "new": 0, "share": 0.889, "box_shift": 1.5,
            "most_shift": 7.0, "score_shift": -0.01, "score_apart": 0.02}  # fmt: skip
    row = {"pictures": 12, "seconds_a_picture": 0.5}
    box = {"class": 1, "score": 0.8, "box": [10.0, 20.0, 110.0, 90.0]}
    return {
        "$schema": "eval.schema.json", "target": f"m_{variant}", "chip": "cv181x",
        "task": "detect", "quick": False,
        "set": {"source": HOSTILE, "layout": "yolo", "labelled": True, "pictures": 12, "of": 50,
                "seed": 0, "objects": 9, "classes": NAMES} | of_set,
        "settings": {"confidence": 0.25, "least_score": 0.001, "overlap": 0.7, "most": 300,
                     "same": 0.5},
        "runs": [
            {"kind": "onnx", "variant": None, "title": "ONNX", "measures": measures(0.95),
             "agreement": None} | row,
            {"kind": "model", "variant": variant, "title": f"{variant.upper()} cvimodel",
             "measures": measures(map50), "agreement": like} | row,
        ],
        "apart": [],
        "worst": [
            {"variant": variant, "picture": name, "width": 640, "height": 480, "harm": 2.5,
             "truth": None, "reference": [box, box | {"class": 0}], "model": [box]}
            for name in ("there.png", f"gone{HOSTILE.replace('/', '')}.png")
        ],
        "gates": [{"variant": variant, "figure": "map50", "drop": 0.05, "max_drop": 0.02,
                   "passed": False}],
    }  # fmt: skip


def goal() -> dict:
    point = {"float_layers": 0, "cost": 0, "measures": {"map50": 0.5}, "drop": 0.45,
             "passed": False, "chosen": False}  # fmt: skip
    chosen = {"float_layers": 2, "cost": 1_234_567, "measures": {"map50": 0.947}, "drop": 0.003,
              "passed": True, "chosen": True}  # fmt: skip
    return {
        "$schema": "qtable_goal.schema.json", "target": "m_mix", "chip": "cv181x", "mode": "BF16",
        "figure": "map50", "goal": 0.005, "reference": 0.95, "layers": 31,
        "set": {"source": HOSTILE, "pictures": 12, "of": 50, "seed": 0},
        "points": [point, chosen],
        "float": [{"name": f"{HOSTILE}{n}", "type": "Conv", "cost": 600_000} for n in range(2)],
        "harms": [{"first": HOSTILE, "last": HOSTILE, "layers": 1, "harm": 3.5}],
    }  # fmt: skip


def write_build(folder: Path, many: int = 30) -> list[object]:
    """Files as a build has them below ``folder``; gives collect_report's arguments.

    ``many``: so many layers there are.
    """
    (folder / "build/m/logs").mkdir(parents=True)
    (folder / "build/m/cv181x/logs").mkdir(parents=True)
    (folder / "seen").mkdir()
    Image.new("RGB", (640, 480), (90, 120, 60)).save(folder / "seen/there.png")
    model = folder / "build/m/cv181x/m_int8.cvimodel"
    model.write_bytes(camera_model(outputs_of(SHAPES, FP32)))
    (folder / "labels.txt").write_text("\n".join(NAMES) + "\n")
    records = {
        "logs/transform.key": record(
            "transform", ["model_transform.py", "--mlir", "m.mlir", "--model_def", HOSTILE],
            {"m_v8.onnx": "1" * 64}, {"m.mlir": "2" * 64}, seconds=3.25, peak=1 << 28,
            figure=f"30 of 30 agree\n{HOSTILE}",
        ),
        "cv181x/logs/int8.key": record(
            "deploy", ["model_deploy.py", "--mlir", "m.mlir", "SOURCE_DATE_EPOCH=1", "glibc 2.36"],
            {"m.mlir": "2" * 64}, {"m_int8.cvimodel": "3" * 64}, seconds=1.5, cached=True,
        ),
    }  # fmt: skip
    for name, one in records.items():
        (folder / "build/m" / name).write_text(one.to_json())
    rows = [layer(f"{HOSTILE}{n}", added_noise=n / 1000, sqnr_db=40 - n % 37) for n in range(many)]
    rows += [layer("out0", precision="BF16", threshold=None, clipped=None, sqnr_db=None)]
    (folder / "layers.json").write_text(json.dumps(layers_document(*rows)))
    (folder / "eval.json").write_text(json.dumps(evaluation("int8")))
    (folder / "goal.json").write_text(json.dumps(goal()))
    return [
        model, folder / "facts.json", folder / "pictures", "--name", "m_int8",
        *(word for name in records for word in ("--record", folder / "build/m" / name)),
        "--layers", folder / "layers.json", "--eval", folder / "eval.json",
        "--goal", folder / "goal.json",
        "--source", folder / "seen", "--device", "recamera", "--variable", "m",
        "--labels", folder / "labels.txt",
    ]  # fmt: skip
