"""The committed demonstration network is what its card says, and finds the shapes."""

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "models" / "yolo11n.onnx"


def test_is_exported_as_users_do_today():
    model = onnx.load(MODEL)
    assert model.opset_import[0].version >= 19
    assert model.ir_version >= 9
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["names"] == "{0: 'circle', 1: 'square', 2: 'triangle', 3: 'star'}"
    assert metadata["imgsz"] == "[640, 640]"
    assert "date" not in metadata


def test_tells_nothing_about_the_machine_that_trained_it():
    # Printable strings that hold a path of some depth; node names start with /model.
    strings = re.findall(rb"/[\x20-\x7e]{6,}", MODEL.read_bytes())
    homes = re.compile(rb"/(home|root|tmp|usr|work|Users|mnt|opt)/")
    assert not [text for text in strings if homes.match(text)]


def test_card_promises_enough():
    card = (ROOT / "models" / "README.md").read_text(encoding="utf-8")
    assert float(re.search(r"\| mAP50 \| ([\d.]+) \|", card).group(1)) >= 0.85


@pytest.mark.slow
def test_finds_the_shapes():
    """At confidence 0.25, 8 of 10 labelled shapes are found and little else."""
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    labelled = right = reported = 0
    for path in sorted((ROOT / "datasets" / "shapes_val" / "images").iterdir())[:20]:
        truth = np.loadtxt(path.parent.parent / "labels" / f"{path.stem}.txt", ndmin=2)
        truth_boxes = corners(truth[:, 1:] * [640, 480, 640, 480])
        truth_boxes[:, 1::2] += 80  # the grey border above
        (output,) = session.run(None, {"images": letter_box(path)})
        boxes, classes = detections(output[0])
        overlap = iou(truth_boxes[:, None], boxes[None])
        same = truth[:, :1] == classes[None]
        labelled += len(truth)
        right += int(((overlap > 0.5) & same).any(axis=1).sum())
        reported += len(boxes)
    assert right >= 0.8 * labelled
    assert reported <= 1.5 * labelled


def letter_box(path):
    canvas = np.full((640, 640, 3), 114, np.float32)
    canvas[80:560] = np.asarray(Image.open(path), np.float32)
    return canvas.transpose(2, 0, 1)[None] / 255


def detections(output, confidence=0.25, most_overlap=0.7):
    """Decode (8, places) and suppress overlapping boxes of one class."""
    scores = output[4:].max(axis=0)
    order = np.argsort(-scores)
    order = order[scores[order] > confidence]
    boxes, classes = corners(output[:4, order].T), output[4:, order].argmax(axis=0)
    kept = []
    for index in range(len(order)):
        rivals = [other for other in kept if classes[other] == classes[index]]
        if all(iou(boxes[index], boxes[other]) < most_overlap for other in rivals):
            kept.append(index)
    return boxes[kept], classes[kept]


def corners(boxes):
    """Centre and size to left, top, right, bottom."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


def iou(first, second):
    """Intersection over union of boxes given by corners; shapes broadcast."""
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., 2:], second[..., 2:])
    shared = np.clip(high - low, 0, None).prod(axis=-1)
    area = (first[..., 2:] - first[..., :2]).prod(axis=-1)
    area = area + (second[..., 2:] - second[..., :2]).prod(axis=-1)
    return shared / (area - shared)
