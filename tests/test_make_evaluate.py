"""`make X.eval` and the gate: everything that they need is built, run and shown."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from conftest import QUICK, ROOT, Checkout, Toolchain, copy_checkout, copy_project

SCHEMA = json.loads((ROOT / "schemas/eval.schema.json").read_text())
SHAPES = ["circle", "square", "triangle", "star"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """For tests that build nothing."""
    return copy_project(tmp_path_factory.mktemp("evaluate") / "check out")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["tini.eval"], "no tini to evaluate"),
        (["tiny_int8.eval", "tiny_EVAL_DATASET="], "tiny_EVAL_DATASET is not set"),
        (["tiny_int8.eval", "tiny_EVAL_DATASET=nowhere"], "no nowhere, which tiny_EVAL_DATASET"),
        (["tiny_f16.eval"], "does not compute in F16"),
        (["tiny_int8", "tiny_MAX_DROP=1", "tiny_EVAL_DATASET="], "tiny_EVAL_DATASET is not set"),
        (["tiny_int8", "tiny_MAX_DROP=1", "tiny_EVAL_DATASET=x"], "which tiny_EVAL_DATASET names"),
        (
            ["tiny_mix", "tiny_QTABLE_GOAL=1", "tiny_EVAL_DATASET="],
            "tiny_QTABLE_GOAL wants a folder of labelled pictures",
        ),
    ],
)
def test_what_will_not_do_is_told(project: Checkout, words: list[str], why: str) -> None:
    done = project.make(*words, check=False)
    assert done.returncode == 2
    assert why in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((project.path / "build").glob("tiny/*.mlir"))


def test_a_build_measures_nothing_unless_it_is_told_to(project: Checkout) -> None:
    plain = project.make("-n", "tiny_int8").stdout
    assert "evaluat" not in plain
    gated = project.make("-n", "tiny_int8", "tiny_MAX_DROP=0.1").stdout
    assert gated.index("--stage contract") < gated.index("--stage accuracy")
    # The gate asks the emulator, whatever else is given.
    assert "eval_model" in project.make("-n", "tiny_int8", "tiny_MAX_DROP=0.1", "QUICK=1").stdout
    assert "evaluat" not in project.make("-n", "tiny_int8", "tiny_MAX_DROP=1", "VALIDATE=0").stdout


@pytest.fixture(scope="module")
def evaluated(quick: Checkout, tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkout, dict]:
    """A checkout in which tiny_int8.eval was made of few pictures, with its document."""
    made = copy_checkout(quick, tmp_path_factory.mktemp("evaluated") / "check out")
    done = made.make("tiny_int8.eval", "tiny_EVAL_COUNT=3", "JSON=1", *QUICK)
    document = json.loads(done.stdout)
    label_as_found(made.path)
    return made, document


def label_as_found(top: Path) -> None:
    """Have COCO labels say what the ONNX found: one that was never trained finds no shapes."""
    chosen = json.loads((top / "build/tiny/tiny.evalset.json").read_text())
    found = np.load(top / "build/tiny/tiny_eval_onnx.npz")
    (top / "own set").mkdir()
    pictures = np.repeat(np.arange(len(found["counts"])), found["counts"])
    labels = [
        {"id": index, "image_id": int(pictures[index]), "category_id": int(number),
         "bbox": [*map(float, box[:2]), *map(float, box[2:] - box[:2])]}
        for index, (box, number) in enumerate(zip(found["boxes"], found["classes"], strict=True))
        if found["scores"][index] > 0.6
    ]  # fmt: skip
    for each in chosen["pictures"]:
        shutil.copy(ROOT / "datasets/shapes_val" / each["name"], top / "own set")
    (top / "own set/labels.json").write_text(json.dumps({
        "images": [{"id": index, "file_name": Path(each["name"]).name}
                   for index, each in enumerate(chosen["pictures"])],
        "annotations": labels,
        "categories": [{"id": number, "name": name} for number, name in enumerate(SHAPES)],
    }))  # fmt: skip


@pytest.mark.toolchain
def test_onnx_mlir_and_model_are_run_on_the_same_pictures(evaluated: tuple[Checkout, dict]) -> None:
    made, document = evaluated
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert json.loads((made.path / "build/tiny/cv181x/tiny_int8.eval.json").read_text()) == document
    onnx, cut, lowered, model = document["runs"]
    assert [each["title"] for each in document["runs"]] == [
        "ONNX", "cut ONNX", "INT8 mlir", "INT8 cvimodel",
    ]  # fmt: skip
    assert (document["set"]["pictures"], document["set"]["of"]) == (3, 100)
    # Cut or not, it is the same network; quantised, nearly.
    assert cut["agreement"]["missing"] == cut["agreement"]["new"] == 0
    assert cut["agreement"]["most_shift"] < 0.05
    assert 0.6 < model["agreement"]["share"] < 1
    # At this size the emulator gives what the lowered network does.
    (apart,) = document["apart"]
    assert (apart["missing"], apart["new"], apart["most_shift"]) == (0, 0, 0)
    assert lowered["measures"] == model["measures"]
    assert onnx["measures"]["map50"] < 0.1


@pytest.mark.toolchain
def test_the_gate_in_a_build(evaluated: tuple[Checkout, dict]) -> None:
    made, _ = evaluated
    words = ["tiny_int8", "tiny_EVAL_DATASET=own set", *QUICK]
    model = made.path / "build/tiny/cv181x/tiny_int8.cvimodel"
    done = made.make(*words, "tiny_MAX_DROP=0.9")
    assert "accuracy     int8: mAP50 drops by 0." in done.stdout
    document = json.loads(model.with_suffix(".accuracy.json").read_text())
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert document["gates"][0]["passed"] is True
    assert document["runs"][0]["measures"]["map50"] > 0.9
    assert "up to date" in made.make(*words, "tiny_MAX_DROP=0.9").stdout
    # Less is allowed: the same figures, another verdict.
    for _ in range(2):
        failed = made.make(*words, "tiny_MAX_DROP=0.001", check=False)
        assert failed.returncode == 2
        assert "at most 0.001 is allowed (MAX_DROP); what suffers most: /model." in failed.stderr
        assert "s each" not in failed.stdout
        assert not model.exists()
        assert not model.with_suffix(".json").exists()
        assert not model.with_suffix(".accuracy.json").exists()
        assert model.with_name("tiny_int8.cvimodel.refused").exists()
    wanted = made.path / "list.txt"
    wanted.write_text("tiny_int8\n")
    failed = made.make("all", f"LIST={wanted.name}", *words[1:], "tiny_MAX_DROP=0.001", check=False)
    assert re.search(r"tiny_int8 +cv181x +failed", failed.stdout + failed.stderr)
    assert "at most 0.001 is allowed (MAX_DROP)" in failed.stdout.partition("lowest cosine")[2]
    again = made.make(*words, "tiny_MAX_DROP=0.9")
    assert model.exists()
    assert model.with_suffix(".json").exists()
    assert not list(model.parent.glob("*.refused"))
    assert "ION" not in again.stdout.replace("ION 0.1 of", "")


@pytest.mark.toolchain
def test_float_layers_by_goal(evaluated: tuple[Checkout, dict]) -> None:
    made, _ = evaluated
    folder = made.path / "build/tiny/cv181x"
    words = ["tiny_EVAL_DATASET=own set", "VALIDATE=0", *QUICK]
    done = made.make("tiny_mix", "tiny_QTABLE_GOAL=0.03", *words)
    document = json.loads((folder / "tiny_goal.json").read_text())
    jsonschema.Draft202012Validator(
        json.loads((ROOT / "schemas/qtable_goal.schema.json").read_text())
    ).validate(document)
    floats = [each["name"] for each in document["float"]]
    table = (folder / "tiny_goal_table").read_text()
    assert [line for line in table.splitlines() if line[0] != "#"] == [f"{n} BF16" for n in floats]
    (best,) = (each for each in document["points"] if each["chosen"])
    assert 0 < len(floats) < document["layers"] / 2
    assert best["drop"] <= 0.03 < document["points"][0]["drop"]
    assert f"{len(floats)} of {document['layers']} layers in BF16, " in done.stdout
    assert "← chosen" in done.stdout
    # What the search saw is what an evaluation sees of the network that is built with the table.
    words += ["tiny_QTABLE_GOAL=0.03"]
    seen = json.loads(made.make("tiny_mix.eval", "QUICK=1", "JSON=1", *words).stdout)
    assert seen["runs"][-1]["measures"]["map50"] == best["measures"]["map50"]
    # Nothing is run a second time, and the result is the same.
    (folder / "tiny_goal_table").unlink()
    before = kept(made.path, "goal")
    assert len(before) > 3 * len(document["points"])
    made.make("tiny_mix", *words)
    assert kept(made.path, "goal") == before
    assert (folder / "tiny_goal_table").read_text() == table


@pytest.mark.toolchain
def test_what_finds_nothing_has_nothing_to_lose(evaluated: tuple[Checkout, dict]) -> None:
    made, _ = evaluated
    words = ["tiny_mix", "tiny_QTABLE_GOAL=0", "VALIDATE=0", "tiny_EVAL_COUNT=3", *QUICK]
    failed = made.make(*words, check=False)
    assert failed.returncode == 2
    assert "the float network itself finds nothing of what the labels of" in failed.stderr
    assert "Traceback" not in failed.stderr


def kept(top: Path, network: str = "int8.lowered") -> dict[Path, int]:
    """What was found in pictures by a network, with its time."""
    folder = top / "build/tiny/cv181x/evaluated" / network
    return {path: path.stat().st_mtime_ns for path in folder.rglob("[0-9a-f]*.npz")}


@pytest.mark.toolchain
def test_a_killed_run_goes_on_where_it_was(evaluated: tuple[Checkout, dict]) -> None:
    made, _ = evaluated
    words = ["tiny_int8.eval", "QUICK=1", "tiny_EVAL_COUNT=7", *QUICK]
    before = kept(made.path)
    assert len(before) == 3
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    with subprocess.Popen(["make", *words], cwd=made.path, env=env | {"CACHE": "0"},
                          stdout=subprocess.DEVNULL, start_new_session=True) as make:  # fmt: skip
        deadline = time.monotonic() + 100
        while len(kept(made.path)) < 4 and time.monotonic() < deadline:
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(make.pid, signal.SIGKILL)
    time.sleep(0.5)
    between = kept(made.path)
    assert 4 <= len(between) < 7
    assert before.items() <= between.items()
    done = made.make(*words)
    assert "int8 mlir    7 pictures" in done.stdout
    assert "QUICK=1: the lowered mlir stands in for the model" in done.stdout
    after = kept(made.path)
    assert len(after) == 7
    assert between.items() <= after.items()


@pytest.mark.full
@pytest.mark.toolchain
def test_a_goal_does_better_than_the_tools_search(
    checkout: Checkout, toolchain: Toolchain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guides' case: the shapes model with its last output, which INT8 spoils.

    By the cosine of that output, most of which are boxes, the tool finds INT8 good enough; told to
    want more, it searches from the input on, and breaks off before the head.
    """
    whole = ["yolo11n_OUTPUTS=output0", "yolo11n_DEVICE=none", "VALIDATE=0", "yolo11n_TUNE_NUM=0"]
    checkout.make("yolo11n_mix", "yolo11n_QTABLE_GOAL=0.005", *whole)
    folder = checkout.path / "build/yolo11n"
    document = json.loads((folder / "cv181x/yolo11n_goal.json").read_text())
    points = {each["float_layers"]: each["drop"] for each in document["points"]}
    assert points[0] > 0.9
    for part in ("yolo11n.mlir", "yolo11n_top_f32_all_weight.npz", "yolo11n_calib_table"):
        shutil.copy(folder / part, tmp_path)
    monkeypatch.setenv("TPUMAKE_TOOLS", str(ROOT / "scripts/toolchain_bin"))
    words = [
        "run_qtable.py", "yolo11n.mlir", "--dataset", str(folder.parent / "datasets/shapes"),
        "--input_num", "5", "--expected_cos", "0.99999", "--min_layer_cos", "0.9999",
        "--processor", "cv181x", "--calibration_table", "yolo11n_calib_table", "-o", "theirs",
    ]  # fmt: skip
    toolchain.run(words, tmp_path)
    rows = (tmp_path / "theirs").read_text().splitlines()
    count = sum(1 for row in rows if row and row[0] != "#")
    assert count > 0
    words = [*whole, f"yolo11n_QTABLE={tmp_path / 'theirs'}", "QUICK=1", "JSON=1"]
    runs = json.loads(checkout.make("yolo11n_mix.eval", *words).stdout)["runs"]
    drop = runs[0]["measures"]["map50"] - runs[-1]["measures"]["map50"]
    assert min(points[number] for number in points if number <= count) <= drop
    assert min(points.values()) <= 0.005
