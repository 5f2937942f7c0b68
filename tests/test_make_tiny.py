"""The tiny test network is small, alive, made again byte for byte, and ends as YOLO11 does."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
TINY = ROOT / "models" / "tiny.onnx"
SIX = [
    f"/model.23/{branch}.{level}/{branch}.{level}.2/Conv_output_0"
    for branch in ("cv2", "cv3")
    for level in range(3)
]


@pytest.fixture(scope="module")
def run_all():
    """A function from ``images`` to a dictionary of the six tensors and ``output0``."""
    model = onnx.load(TINY)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in SIX)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(None, {"images": images}), strict=True))


@pytest.fixture(scope="module")
def pictures():
    paths = sorted((ROOT / "datasets" / "shapes" / "images").iterdir())[:16]
    pixels = [np.asarray(Image.open(path).resize((64, 64)), np.float32) for path in paths]
    return [pixel.transpose(2, 0, 1)[None] / 255 for pixel in pixels]


@pytest.mark.slow
def test_is_made_again_byte_for_byte(tmp_path):
    made = tmp_path / "tiny.onnx"
    subprocess.run([sys.executable, ROOT / "training" / "make_tiny.py", made], check=True)
    assert made.read_bytes() == TINY.read_bytes()


def test_is_small_and_of_the_promised_form():
    assert TINY.stat().st_size < 100_000
    model = onnx.load(TINY)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 9
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 19)]
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["names"] == "{0: 'circle', 1: 'square', 2: 'triangle', 3: 'star'}"
    assert (metadata["task"], metadata["stride"], metadata["imgsz"]) == ("detect", "32", "[64, 64]")
    operators = {node.op_type for node in model.graph.node}
    assert operators >= {"Split", "Concat", "Add", "Sigmoid", "MaxPool", "Resize", "Softmax"}


def test_every_box_branch_is_computed_before_any_class_branch():
    order = [output for node in onnx.load(TINY).graph.node for output in node.output]
    assert sorted(SIX, key=order.index) == SIX


def test_shapes(run_all):
    found = run_all(np.zeros((1, 3, 64, 64), np.float32))
    assert found["output0"].shape == (1, 8, 84)
    sides = [8, 4, 2, 8, 4, 2]
    for name, channels, side in zip(SIX, [64] * 3 + [4] * 3, sides, strict=True):
        assert found[name].shape == (1, channels, side, side)


def test_answers_to_pictures_and_to_noise(run_all, pictures):
    rng = np.random.default_rng(0)
    noise = [rng.random((1, 3, 64, 64), dtype=np.float32) for _ in range(8)]
    for inputs, least in ((pictures, 0.2), (noise, 0.05)):
        found = [run_all(images) for images in inputs]
        for name in SIX:
            values = np.concatenate([entry[name] for entry in found])
            # Deviation from input to input: constants and biases don't count.
            assert values.std(axis=0).mean() > least, name
            assert np.abs(values).max() < 50, name


def test_output_is_the_decoded_six(run_all, pictures):
    """Decode the six tensors as the paper says and as simply as can be, and compare."""
    found = run_all(pictures[3])
    boxes, scores = [], []
    for level, stride in enumerate((8, 16, 32)):
        side = 64 // stride
        logits = found[SIX[level]].astype(np.float64).reshape(4, 16, side, side)
        weights = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        left, top, right, bottom = (weights * np.arange(16)[:, None, None]).sum(axis=1)
        y, x = np.mgrid[0:side, 0:side] + 0.5
        edges = x - left, y - top, x + right, y + bottom
        x0, y0, x1, y1 = (edge.ravel() * stride for edge in edges)
        boxes.append(np.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]))
        scores.append(1 / (1 + np.exp(-found[SIX[3 + level]].reshape(4, -1).astype(np.float64))))
    expected = np.concatenate([np.concatenate(boxes, 1), np.concatenate(scores, 1)])[None]
    np.testing.assert_allclose(found["output0"], expected, rtol=1e-4, atol=1e-3)
