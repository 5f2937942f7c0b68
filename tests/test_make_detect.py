"""`make X.detect`: everything that it needs is built, run and shown."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from conftest import QUICK, ROOT, Checkout, copy_checkout, copy_project
from PIL import Image

SCHEMA = json.loads((ROOT / "schemas/detect.schema.json").read_text())
PICTURE = "datasets/shapes_val/images/0003.jpg"


def test_a_picture_is_asked_for(checkout: Checkout) -> None:
    done = checkout.make("tiny_int8.detect", check=False, IMAGE="/from/the/environment.jpg")
    assert done.returncode == 2
    assert "which picture? make tiny_int8.detect IMAGE=photo.jpg" in done.stderr
    assert not (checkout.path / "build").exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["tiny_int8.detect", "IMAGE=nowhere.jpg"], "no nowhere.jpg, which IMAGE names"),
        (["tiny_int8.detect", "IMAGE=no where.jpg"], "no no where.jpg"),
        (["tini.detect", f"IMAGE={PICTURE}"], "no tini to detect with"),
        (["tiny_f16.detect", f"IMAGE={PICTURE}"], "does not compute in F16"),
        (["tiny_int8.detect", f"IMAGE={PICTURE}", "tiny_LABELS=no.txt"], "which tiny_LABELS names"),
    ],
)
def test_what_is_not_there_is_told_before_anything_is_built(
    checkout: Checkout, words: list[str], why: str
) -> None:
    done = checkout.make(*words, check=False)
    assert done.returncode == 2
    assert why in done.stderr
    assert "Traceback" not in done.stderr
    assert not (checkout.path / "build").exists()


@pytest.fixture(scope="module")
def detected(quick: Checkout, tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkout, dict]:
    """A checkout in which tiny_int8.detect was made, with its document."""
    made = copy_checkout(quick, tmp_path_factory.mktemp("detected") / "check out")
    shutil.copy(ROOT / PICTURE, made.path / "my photo.jpg")
    done = made.make("tiny_int8.detect", "IMAGE=my photo.jpg", "JSON=1", *QUICK)
    # The stages' lines go beside the document.
    assert "int8 model" in done.stderr
    return made, json.loads(done.stdout)


@pytest.mark.toolchain
def test_onnx_mlir_and_model_are_run_on_the_same_picture(detected: tuple[Checkout, dict]) -> None:
    _, document = detected
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert document["names"] == ["circle", "square", "triangle", "star"]
    onnx, floating, lowered, model = document["runs"]
    assert [run["title"] for run in document["runs"]] == [
        "ONNX", "float mlir", "INT8 mlir", "INT8 cvimodel, emulated",
    ]  # fmt: skip
    count = len(onnx["detections"])
    assert count > 5
    # Decoded by the network itself, and by us after the cut: the same boxes.
    same = floating["agreement"]
    assert (same["same"], same["missing"], same["new"]) == (count, 0, 0)
    assert same["overlap"] > 0.999
    assert same["score"] < 1e-4
    # Quantised, nearly the same; and the model on its emulator as its network.
    for run in (lowered, model):
        assert run["agreement"]["same"] >= 0.7 * count
        assert run["agreement"]["score"] > 0
    assert model["detections"] == lowered["detections"]


@pytest.mark.toolchain
def test_raw_outputs_are_the_device_s(detected: tuple[Checkout, dict]) -> None:
    build = detected[0].path / "build/tiny"
    for path in (build / "tiny_float.npz", build / "cv181x/tiny_int8.emulated.npz"):
        raw = np.load(path)
        assert [raw[name].shape[1] for name in raw.files] == [64, 4] * 3
        assert {raw[name].dtype for name in raw.files} == {np.dtype(np.float32)}


@pytest.mark.toolchain
def test_the_drawing_and_what_is_not_done_twice(detected: tuple[Checkout, dict]) -> None:
    made, _ = detected
    drawing = made.path / "build/tiny/cv181x/tiny_int8.detect.png"
    assert Image.open(drawing).width > 1000
    words = ["tiny_int8.detect", "IMAGE=my photo.jpg", *QUICK]
    done = made.make(*words, "OUT=else where.png", "CONF=0.95")
    assert (made.path / "else where.png").exists()
    # Nothing has run again: what is above another threshold is found in the same outputs.
    assert done.stdout.startswith("ONNX\n  square: 96.1 %"), done.stdout
    assert done.stdout.endswith("→ else where.png\n")
    # Another picture: only what looks at it.
    done = made.make(*words[:1], "IMAGE=datasets/shapes_val/images/0004.jpg", *words[2:])
    stages = [line.split("  ")[1].strip() for line in done.stdout.splitlines() if " s" in line[-2:]]
    assert len(stages) == 5, done.stdout


@pytest.mark.toolchain
def test_what_is_no_picture_is_told(detected: tuple[Checkout, dict]) -> None:
    made, _ = detected
    done = made.make("tiny_int8.detect", "IMAGE=models.mk", *QUICK, check=False)
    assert "models.mk: not a picture" in done.stderr
    assert "bug" not in done.stderr


@pytest.mark.toolchain
def test_a_bmodel_too(detected: tuple[Checkout, dict]) -> None:
    """BM1684: no fused preprocessing, float outputs, another runtime."""
    made, _ = detected
    # That the model is what it should be is shown here.
    words = ["tiny_f32.detect", "CHIP=bm1684", "IMAGE=my photo.jpg", "JSON=1", "VALIDATE=0"]
    document = json.loads(made.make(*words).stdout)
    assert document["runs"][-1]["title"] == "F32 bmodel, emulated"
    for run in document["runs"][1:]:
        assert run["agreement"]["missing"] == run["agreement"]["new"] == 0
        assert run["agreement"]["overlap"] > 0.999


@pytest.mark.full
@pytest.mark.toolchain
@pytest.mark.parametrize("chip", ["bm1684x", "bm1688", "cv186x", "bm1690"])
def test_every_other_bm_chip(detected: tuple[Checkout, dict], chip: str) -> None:
    """Compared while it is built, then run: each has an emulator."""
    made, _ = detected
    words = ["tiny_int8.detect", f"CHIP={chip}", "IMAGE=my photo.jpg", "JSON=1", "tiny_TUNE_NUM=0"]
    runs = json.loads(made.make(*words).stdout)["runs"]
    lowered, model = runs[-2:]
    assert [lowered["title"], model["title"]] == ["INT8 mlir", "INT8 bmodel, emulated"]
    # An untrained network's boxes come and go with INT8; the model computes what was lowered.
    assert model["detections"] == lowered["detections"]
    assert model["agreement"]["same"] >= 0.7 * len(runs[0]["detections"])


@pytest.mark.full
@pytest.mark.toolchain
def test_the_demonstration_network(tmp_path: Path) -> None:
    """Every variant of YOLO11n on a labelled picture finds what is there."""
    made = copy_project(tmp_path / "yolo")
    done = made.make("yolo11n.detect", f"IMAGE={PICTURE}", "JSON=1", "yolo11n_INPUT_NUM=20",
                     "yolo11n_TUNE_NUM=0")  # fmt: skip
    runs = json.loads(done.stdout)["runs"]
    assert len(runs) == 8
    labelled = np.loadtxt(ROOT / "datasets/shapes_val/labels/0003.txt", ndmin=2)
    for run in runs:
        assert [each["name"] for each in run["detections"]] == ["square"] * len(labelled)
        if run["agreement"]:
            # Twenty pictures and no tuning cost the smallest one a quarter of its box.
            quantised = run["title"].startswith(("INT8", "MIX"))
            assert run["agreement"]["overlap"] > (0.6 if quantised else 0.95)
