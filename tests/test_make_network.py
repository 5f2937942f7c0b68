"""The guides' networks: stand-ins are alive, end as the real ones do, and build as those should."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import ROOT, Checkout

SMALL = ("--width", "0.125", "--size", "64", "--classes", "4")
OUTPUTS = {
    "yolov5s": {"output0": (1, 252, 9)},
    "yolov8n": {"output0": (1, 8, 84)},
    "yolov3_tiny": {"convolution_output": (1, 27, 4, 4), "convolution_output1": (1, 27, 2, 2)},
    "resnet18": {"logits": (1, 4)},
}


def made(network: str, target: Path, *arguments: str) -> Path:
    command = [sys.executable, ROOT / "training/make_network.py", network, target, *arguments]
    subprocess.run(command, check=True)
    return target


@pytest.mark.slow
@pytest.mark.parametrize("network", OUTPUTS)
def test_is_alive_and_ends_as_the_real_one(network: str, tmp_path: Path) -> None:
    """No output is constant over pictures; on such every comparison would pass."""
    path = made(network, tmp_path / "net.onnx", *SMALL)
    model = onnx.load(path)
    convolutions = [node.output[0] for node in model.graph.node if node.op_type == "Conv"]
    declared = {output.name for output in model.graph.output}
    model.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in convolutions if name not in declared
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    random = np.random.default_rng(0)
    runs = [
        dict(zip(names, session.run(None, {"images": image}), strict=True))
        for image in random.random((3, 1, 3, 64, 64), np.float32)
    ]
    assert {name: runs[0][name].shape for name in OUTPUTS[network]} == OUTPUTS[network]
    for name in names:
        assert all(np.isfinite(run[name]).all() for run in runs)
        differences = [np.abs(run[name] - runs[0][name]).max() for run in runs[1:]]
        assert min(differences) > 1e-3 * np.abs(runs[0][name]).max() > 0, name


@pytest.mark.slow
def test_has_the_real_ones_size(tmp_path: Path) -> None:
    """What Ultralytics states for YOLOv8n at 80 classes: 3.2 million parameters."""
    model = onnx.load(made("yolov8n", tmp_path / "net.onnx"))
    count = sum(np.prod(list(tensor.dims)) for tensor in model.graph.initializer)
    assert 3.1e6 < count < 3.3e6


SHAPE = "_INPUT_SHAPES=[[1,3,64,64]]"


def guides(checkout: Checkout, model: str, network: Path, *goals: str, **other: str) -> str:
    return checkout.make(
        "STANZAS=examples/guides.mk", f"{model}_ONNX={network}", model + SHAPE,
        f"{model}_INPUT_NUM=8", f"{model}_TUNE_NUM=0", *goals, **other,
    ).stdout  # fmt: skip


@pytest.mark.toolchain
@pytest.mark.slow
def test_mixed_precision_saves_a_final_output_that_int8_ruins(
    checkout: Checkout, tmp_path: Path
) -> None:
    """YOLOv5s with ``output0``: boxes to 640 and probabilities to 1 share one scale in INT8."""
    network = made("yolov5s", tmp_path / "yolov5s.onnx", *SMALL)
    done = checkout.make(
        "STANZAS=examples/guides.mk", f"yolov5s_ONNX={network}", "yolov5s" + SHAPE,
        "yolov5s_INPUT_NUM=8", "yolov5s_TUNE_NUM=0", "yolov5s_int8", check=False,
    )  # fmt: skip
    assert done.returncode
    assert "0 of 1 tensors agree" in done.stderr
    # Without OPT=1 the compiler tries for most of a minute what makes the model quicker.
    tail = ("yolov5s_QTABLE=none", "yolov5s_MIX_TOLERANCE=0.85,0.45", "yolov5s_OPT=1")
    said = guides(checkout, "yolov5s", network, *tail, "yolov5s_mix")
    assert "0 layers in the table, 46 more by FLOAT_LAYERS" in said
    assert "emulator ok" in said


# Minutes each: the guides' flows at their full size, or on the chip whose compiler takes its time.
@pytest.mark.toolchain
@pytest.mark.full
@pytest.mark.parametrize("target", ["yolov8n_int8", "resnet18_int8", "yolov5s_mix"])
def test_the_guides_networks_for_cv181x(checkout: Checkout, target: str) -> None:
    quick = [f"{target.rpartition('_')[0]}_{name}" for name in ("INPUT_NUM=10", "TUNE_NUM=0")]
    said = checkout.make("STANZAS=examples/guides.mk", *quick, target).stdout
    assert "emulator ok" in said


@pytest.mark.toolchain
@pytest.mark.full
def test_the_guides_networks_for_bm1684x(checkout: Checkout, tmp_path: Path) -> None:
    """Tiny YOLOv3 in mixed precision, YOLOv5s in all: small, for the chip's emulator is slow."""
    bm = {"CHIP": "bm1684x"}
    network = made("yolov3_tiny", tmp_path / "yolov3.onnx", *SMALL)
    assert "emulator ok" in guides(checkout, "yolov3_tiny", network, "yolov3_tiny_mix", **bm)
    network = made("yolov5s", tmp_path / "yolov5s.onnx", *SMALL)
    said = guides(checkout, "yolov5s_cut", network, "yolov5s_cut", **bm)
    assert said.count("emulator ok") == 3


@pytest.mark.slow
def test_every_stanza_of_the_guides_is_right(checkout: Checkout) -> None:
    models = [line.partition(":")[0] for line in
              checkout.make("STANZAS=examples/guides.mk", "list").stdout.splitlines()]  # fmt: skip
    assert len(models) >= 5
    checkout.make(
        "STANZAS=examples/guides.mk", *[f"build/{each}/logs/stanza.key" for each in models]
    )
    assert all((checkout.path / "build" / each / "logs/stanza.key").exists() for each in models)
