"""Recognising heads by their shapes, decoding them, suppression, agreement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import ROOT
from PIL import Image

from tpumake.detection_head import find_head
from tpumake.detections import (
    Candidates,
    Detections,
    agreement,
    overlaps,
    recognise,
    suppress,
)
from tpumake.errors import BadInput
from tpumake.letterbox import fit, letterbox

FAR = -50.0  # a logit whose score is nothing


def cut_shapes(box: int, classes: int, side: int = 64) -> list[tuple[int, ...]]:
    """Box and class outputs in turn, for the three usual strides."""
    return [
        (1, channels, side // stride, side // stride)
        for stride in (8, 16, 32)
        for channels in (box, classes)
    ]


def blank(shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    return [np.full(shape, FAR, np.float32) for shape in shapes]


def logit(score: float) -> float:
    return float(np.log(score / (1 - score)))


def found_in(outputs: list[np.ndarray], classes: int = 0, side: int = 64, **settings) -> Detections:
    head = recognise([values.shape for values in outputs], (side, side), classes)
    return suppress(head.decode(outputs), **settings)


# ---------------------------------------------------------------------------------------------
# Heads


def test_distances_with_a_distribution() -> None:
    """One place says: 1, 2, 3 and 4 strides to the left, top, right, bottom; half of two bins."""
    outputs = blank(cut_shapes(64, 4))
    for side, distance in enumerate((1, 2, 3, 4)):
        outputs[2][0, 16 * side + distance, 1, 2] = 0
        # As likely as the one before: the mean lies between them.
        outputs[2][0, 16 * side + distance + 1, 1, 2] = 0
    outputs[3][0, 3, 1, 2] = logit(0.64)
    found = found_in(outputs)
    # Place (2, 1) of stride 16, whose middle is (2.5, 1.5).
    expected = np.array([2.5 - 1.5, 1.5 - 2.5, 2.5 + 3.5, 1.5 + 4.5]) * 16
    np.testing.assert_allclose(found.boxes, [expected], atol=1e-4)
    np.testing.assert_allclose(found.scores, [0.64], atol=1e-6)
    assert found.classes.tolist() == [3]


def test_distances_without_a_distribution() -> None:
    """As YOLO26 has them: four numbers, which may be less than nothing."""
    outputs = blank(cut_shapes(4, 80))
    outputs[4][0, :, 0, 1] = 0.5, 0.25, -0.125, 1.5
    outputs[5][0, 79, 0, 1] = logit(0.9)
    found = found_in(outputs)
    np.testing.assert_allclose(found.boxes, [[32, 8, 44, 64]], atol=1e-4)
    assert found.classes.tolist() == [79]


@pytest.mark.parametrize(
    ("box", "classes", "named", "expected"),
    [
        (64, 80, 0, 80),
        (64, 4, 0, 4),  # and not YOLO26's with 64 classes
        (4, 64, 64, 64),  # which the number of names tells
        (64, 64, 0, 64),
        (4, 4, 0, 4),
        (68, 3, 3, 3),  # 17 bins
        (64, 1, 0, 1),
    ],
)
def test_box_and_class_outputs_are_told_apart(
    box: int, classes: int, named: int, expected: int
) -> None:
    shapes = cut_shapes(box, classes)
    head = recognise(shapes, (64, 64), named)
    assert (head.kind, head.classes) == ("distances", expected)
    assert [level.stride for level in head.levels] == [8, 16, 32]
    assert {shapes[level.boxes][1] for level in head.levels} == {box}


def test_the_order_of_outputs_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    turned = [rng.normal(size=shape).astype(np.float32) for shape in cut_shapes(64, 4)]
    grouped = [turned[index] for index in (0, 2, 4, 1, 3, 5)]
    backwards = [turned[index] for index in (5, 4, 3, 2, 1, 0)]
    reference = found_in(turned)
    assert len(reference.scores) > 3
    for other in (grouped, backwards):
        for one, two in zip(reference, found_in(other), strict=True):
            np.testing.assert_array_equal(one, two)


def test_anchors() -> None:
    """YOLOv5's, worked out by hand: a place of stride 16, its third anchor (59, 119)."""
    shapes = [(1, 21, 64 // stride, 64 // stride) for stride in (8, 16, 32)]
    outputs = blank(shapes)
    # x, y, width, height, object, two classes
    numbers = [logit(0.75), logit(0.25), logit(0.5), logit(0.6), logit(0.8), FAR, logit(0.9)]
    outputs[1][0, 14:, 3, 1] = numbers
    found = found_in(outputs, classes=2)
    x, y = (1 + 2 * 0.75 - 0.5) * 16, (3 + 2 * 0.25 - 0.5) * 16
    w, h = 59 * 1.0**2, 119 * 1.2**2
    expected = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
    np.testing.assert_allclose(found.boxes, [expected], atol=1e-3)
    np.testing.assert_allclose(found.scores, [0.72], atol=1e-6)
    assert found.classes.tolist() == [1]


def test_anchors_decoded_by_the_network() -> None:
    output = np.zeros((1, 3 * 84, 7), np.float32)
    output[0, 100] = 30, 20, 10, 8, 0.5, 0.2, 0.8
    found = found_in([output])
    np.testing.assert_allclose(found.boxes, [[25, 16, 35, 24]])
    np.testing.assert_allclose(found.scores, [0.4])
    # A compiled model fills its shapes up.
    again = found_in([output[..., None]])
    np.testing.assert_array_equal(again.boxes, found.boxes)


@pytest.mark.parametrize("shape", [(1, 6, 84), (1, 6, 84, 1), (1, 1, 6, 84)])
def test_decoded_by_the_network(shape: tuple[int, ...]) -> None:
    output = np.zeros((6, 84), np.float32)
    output[:, 7] = 30, 20, 10, 8, 0.1, 0.6
    found = found_in([output.reshape(shape)])
    np.testing.assert_allclose(found.boxes, [[25, 16, 35, 24]])
    assert found.classes.tolist() == [1]
    np.testing.assert_allclose(found.scores, [0.6])


def test_chosen_by_the_network() -> None:
    """Boxes that lie on each other stay: suppressing them is what such a network spares."""
    output = np.zeros((1, 300, 6), np.float32)
    output[0, :3] = [[10, 10, 20, 20, 0.9, 2], [10, 10, 20, 21, 0.8, 2], [0, 0, 5, 5, 0.1, 1]]
    head = recognise([output.shape], (640, 640))
    assert head.kind == "chosen"
    found = suppress(head.decode([output]))
    np.testing.assert_allclose(found.boxes, output[0, :2, :4])
    assert found.classes.tolist() == [2, 2]
    # With one class, six columns are also what YOLOv5 has; the number of rows tells.
    assert recognise([(1, 25200, 6)], (640, 640)).kind == "decoded anchors"


@pytest.mark.parametrize(
    ("shapes", "classes"),
    [
        ([(1, 1000)], 0),
        ([(1, 1000, 1, 1)], 0),
        ([], 0),
        ([(2, 84, 8400)], 0),
        ([(1, 84, 8401)], 0),
        ([(1, 64, 80, 80)], 0),
        ([(1, 32, 160, 160), (1, 116, 8400)], 80),
        (cut_shapes(64, 80, 640)[:5], 0),
        (cut_shapes(60, 80, 640), 0),
        ([(1, 64, 79, 80), (1, 80, 79, 80)], 0),
        ([(1, 100, 80, 80), (1, 100, 40, 40), (1, 100, 20, 20)], 0),
        ([(1, 0, 0, 0), (1, 4, 0, 0)], 0),
    ],
)
def test_what_is_no_detector_is_told_with_its_shapes(shapes: list, classes: int) -> None:
    with pytest.raises(BadInput, match="can't be decoded") as raised:
        recognise(shapes, (640, 640), classes)
    told = str(raised.value)
    assert "\n" not in told
    assert "×".join(map(str, shapes[0])) in told if shapes else "none" in told


@pytest.mark.parametrize(
    ("shapes", "has"), [([(1, 116, 8400)], 112), (cut_shapes(64, 3, 640), 3), ([(1, 25200, 9)], 4)]
)
def test_names_that_are_too_many_or_too_few_are_told(shapes: list, has: int) -> None:
    with pytest.raises(BadInput, match=f"of {has} classes, but 80 are named"):
        recognise(shapes, (640, 640), 80)


# ---------------------------------------------------------------------------------------------
# Real networks: the cut head's decoding against the network's own


def both_ways(network: str, pictures: int) -> list[tuple[Candidates, Candidates]]:
    """Candidates of the whole network, and of its box and class convolutions."""
    model = onnx.load(ROOT / f"models/{network}.onnx")
    levels = find_head(model).levels
    names = [level.branches[role].name for role in ("box", "class") for level in levels]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    height, width = session.get_inputs()[0].shape[2:]
    found = []
    for path in sorted((ROOT / "datasets/shapes_val/images").iterdir())[:pictures]:
        pixels = np.asarray(Image.open(path))
        seen = letterbox(pixels, fit((640, 480), (width, height)))
        planes = seen.astype(np.float32).transpose(2, 0, 1)[None] / 255
        whole, *cut = session.run(None, {"images": planes})
        heads = [recognise([v.shape for v in part], (width, height), 4) for part in ([whole], cut)]
        assert [head.kind for head in heads] == ["decoded", "distances"]
        found.append((heads[0].decode([whole]), heads[1].decode(cut)))
    return found


@pytest.mark.parametrize(
    ("network", "pictures"), [("tiny", 8), pytest.param("yolo11n", 4, marks=pytest.mark.slow)]
)
def test_cut_heads_decode_as_the_whole_network_does(network: str, pictures: int) -> None:
    compared = 0
    for whole, cut in both_ways(network, pictures):
        np.testing.assert_allclose(cut.boxes, whole.boxes, atol=2e-3)
        np.testing.assert_allclose(cut.scores, whole.scores, atol=1e-5)
        one, two = suppress(whole), suppress(cut)
        assert agreement(one, two)[:3] == (len(one.scores), 0, 0)
        compared += len(one.scores)
    assert compared > pictures


# ---------------------------------------------------------------------------------------------
# Suppression


def candidates(count: int, classes: int, seed: int = 0) -> Candidates:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 60, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 40, (count, 2))], axis=1)
    return Candidates(boxes.astype("f4"), rng.uniform(0, 1, (count, classes)).astype("f4"))


def one_by_one(given: Candidates, confidence: float, overlap: float) -> list[tuple[int, int]]:
    """Suppression as its definition says it; (place, class), the surest first."""
    rows = [(float(s.max()), i, int(s.argmax())) for i, s in enumerate(given.scores)]
    kept: list[tuple[int, int]] = []
    for score, place, number in sorted(rows, key=lambda row: -row[0]):
        rivals = [given.boxes[other] for other, its in kept if its == number]
        if score > confidence and all(iou(given.boxes[place], r) <= overlap for r in rivals):
            kept.append((place, number))
    return kept


def iou(one: np.ndarray, two: np.ndarray) -> float:
    w = max(0.0, min(one[2], two[2]) - max(one[0], two[0]))
    h = max(0.0, min(one[3], two[3]) - max(one[1], two[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, two)]
    return w * h / (sum(areas) - w * h)


@pytest.mark.parametrize("overlap", [0.1, 0.45, 0.7])
def test_suppression_is_as_defined(overlap: float) -> None:
    given = candidates(200, 3)
    found = suppress(given, 0.3, overlap)
    expected = one_by_one(given, 0.3, overlap)
    np.testing.assert_array_equal(found.boxes, given.boxes[[place for place, _ in expected]])
    assert found.classes.tolist() == [number for _, number in expected]
    assert 3 < len(expected) < 200


def test_a_score_has_to_be_greater_and_an_overlap_too() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5], [50, 50, 60, 60]], np.float32)
    given = Candidates(boxes, np.array([[0.5], [0.4], [0.25]], np.float32))
    np.testing.assert_allclose(suppress(given, 0.25, 0.5).scores, [0.5, 0.4])
    np.testing.assert_allclose(suppress(given, 0.2, 0.49).scores, [0.5, 0.25])


def test_several_classes_at_one_place() -> None:
    given = Candidates(np.array([[0, 0, 9, 9]], "f4"), np.array([[0.6, 0.1, 0.9]], "f4"))
    assert suppress(given).classes.tolist() == [2]
    assert suppress(given, several=True).classes.tolist() == [2, 0]


def test_so_many_are_kept_and_none_may_be() -> None:
    given = candidates(400, 50)
    assert len(suppress(given, 0, 1, most=17).scores) == 17
    assert len(suppress(given, 0, 1).scores) == 300
    nothing = suppress(given, 1.0)
    assert [part.shape for part in nothing] == [(0, 4), (0,), (0,)]


def test_boxes_without_area_overlap_nothing() -> None:
    boxes = np.array([[5, 5, 5, 5], [0, 0, 10, 10], [9, 9, 1, 1]], np.float32)
    shared = overlaps(boxes, boxes)
    assert shared[1].tolist() == [0, 1, 0]
    assert not shared[0].any()


# ---------------------------------------------------------------------------------------------
# Agreement


def detections(*rows: tuple[float, ...]) -> Detections:
    table = np.array(rows, float).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(int))


def test_agreement() -> None:
    reference = detections((0, 0, 10, 10, 0.9, 1), (20, 0, 30, 10, 0.8, 1), (0, 50, 5, 60, 0.5, 0))
    other = detections(
        (0, 0, 10, 8, 0.85, 1),  # the first, smaller
        (20, 0, 30, 10, 0.8, 2),  # another class
        (0, 50, 5, 60, 0.6, 0),
    )
    like = agreement(reference, other)
    assert like[:3] == (2, 1, 1)
    assert like.overlap == pytest.approx(0.8)
    assert like.score == pytest.approx(0.1)


def test_each_object_is_matched_once() -> None:
    reference = detections((0, 0, 10, 10, 0.9, 0))
    other = detections((0, 0, 10, 9, 0.9, 0), (0, 0, 10, 10, 0.7, 0))
    like = agreement(reference, other)
    assert (like.same, like.new, like.overlap) == (1, 1, 1.0)


def test_nothing_agrees_with_nothing() -> None:
    assert agreement(detections(), detections()) == (0, 0, 0, None, None)
    assert agreement(detections((0, 0, 1, 1, 0.5, 0)), detections())[:3] == (0, 1, 0)
