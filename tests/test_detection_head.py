"""Finding where a detection head is cut: by structure and shapes, never by names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import heads
import numpy as np
import onnx
import pytest
from conftest import ROOT
from onnx import TensorProto, helper, numpy_helper

from tpumake import devices, profiles
from tpumake.detection_head import Head, NoHead, find_head
from tpumake.static_shapes import static_shapes

WANTED = [f"/model.23/cv{b}.{i}/cv{b}.{i}.2/Conv_output_0" for i in range(3) for b in (2, 3)]


@pytest.fixture
def tiny() -> onnx.ModelProto:
    return onnx.load(ROOT / "models/tiny.onnx")


def wanted(head: Head, device: str) -> list[str] | None:
    """The names that a device wants."""
    return devices.select(head, profiles.read(device)).names()


def told(head: Head) -> list[tuple]:
    """Everything but names."""
    return [
        (head.kind, head.classes, head.bins, head.chooses, [o.shape for o in head.own]),
        *((level.stride, {role: t.shape for role, t in level.branches.items()})
          for level in head.levels),
        *((role, tensor.shape[1]) for role, tensor in head.joined.items()),
    ]  # fmt: skip


@pytest.mark.parametrize("network", ["tiny", "yolo11n"])
def test_box_and_class_alternate_from_the_finest_stride(network: str) -> None:
    head = find_head(onnx.load(ROOT / f"models/{network}.onnx"))
    assert wanted(head, "recamera") == WANTED
    assert (head.kind, head.classes, head.bins) == ("dfl", 4, 16)
    assert [level.stride for level in head.levels] == [8, 16, 32]


def test_names_and_the_order_of_nodes_do_not_matter(tiny: onnx.ModelProto) -> None:
    before = find_head(tiny)
    after = find_head(heads.renamed(heads.reordered(tiny)))
    assert told(after) == told(before)
    assert not set(wanted(after, "recamera")) & set(WANTED)


@pytest.mark.slow
@pytest.mark.parametrize("name", heads.EXPECTED)
def test_every_family_and_task(name: str) -> None:
    expected = heads.EXPECTED[name]
    model = heads.load(name)
    if not expected.kind:
        with pytest.raises(NoHead, match="classifiers"):
            find_head(model)
        return
    head = find_head(model)
    assert head.kind == expected.kind
    assert head.classes == 4
    assert bool(head.chooses) == name.endswith("-e2e")
    chosen = devices.select(head, profiles.read("recamera"))
    count = 0 if chosen.whole else len(chosen.outputs)
    assert (chosen.decoder, count) == (expected.decoder, expected.outputs)
    # The one thing where the exporter's names are looked at: are they what they are called?
    modules = {"box": "cv2", "class": "cv3", "mask": "cv4", "keypoints": "cv4", "angle": "cv4"}
    for level in head.levels:
        for role, tensor in level.branches.items():
            assert modules[role] in tensor.name, role
            assert tensor.shape[2:] == (level.height, level.width)
    assert told(find_head(heads.renamed(heads.reordered(model)))) == told(head)


def test_every_committed_export_is_expected() -> None:
    assert {path.name.removesuffix(".onnx.gz") for path in heads.FOLDER.iterdir()} == set(
        heads.EXPECTED
    )


def test_a_head_that_chooses_its_boxes_is_cut_for_every_device() -> None:
    head = find_head(heads.load("yolo26-pose-e2e"))
    assert head.chooses == ("TopK",)
    for device in profiles.names():
        names = wanted(head, device)
        assert len(names) == 9, device
        assert all("one2one" in name for name in names)
    notes = devices.select(head, profiles.read("recamera")).notes
    assert any("end2end=False" in note for note in notes)


# What devices want, by the roles of the tensors.
THREE = ["box", "class", "keypoints"] * 3
ROLES = {
    ("yolo11-pose", "recamera"): ["own"],
    ("yolo11-pose", "milkv"): THREE,
    ("yolo11-pose", "maixcam"): ["joined-distances", "joined-scores", "joined-keypoints"],
    ("yolo11-pose", "none"): ["own"],
    ("yolov8-obb", "none"): ["box", "class", "angle"] * 3,
    ("yolov8-seg", "milkv"): [*["box", "class", "mask"] * 3, "prototypes"],
    ("yolov8-seg", "maixcam"): ["joined-distances", "joined-scores", "joined-mask", "prototypes"],
    ("yolov8-seg", "none"): ["own", "own"],
}


@pytest.mark.parametrize(("name", "device"), ROLES)
def test_what_each_device_wants(name: str, device: str) -> None:
    chosen = devices.select(find_head(heads.load(name)), profiles.read(device))
    assert [role for role, _ in chosen.outputs] == ROLES[name, device]


# ---------------------------------------------------------------------------------------------
# Heads of other exporters, and what is none


class Graph:
    """A network that is all head: convolutions on feature maps that are its inputs."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []

    def node(self, operator: str, *inputs: str, **attributes: object) -> str:
        name = f"n{len(self.nodes)}"
        count = attributes.pop("outputs", 1)
        outputs = [name] if count == 1 else [f"{name}.{at}" for at in range(count)]
        self.nodes.append(helper.make_node(operator, list(inputs), outputs, **attributes))
        return outputs[0] if count == 1 else name

    def numbers(self, values: object, dtype: type = np.int64) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def feature(self, size: int, width: int | None = None) -> str:
        name = f"x{len(self.inputs)}"
        shape = [1, 8, size, width or size]
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def conv(self, x: str, channels: int, of: int = 8) -> str:
        return self.node("Conv", x, self.numbers(np.zeros((channels, of, 1, 1)), np.float32))

    def reshape(self, x: str, *shape: int) -> str:
        return self.node("Reshape", x, self.numbers(shape))

    def model(self, *outputs: str) -> onnx.ModelProto:
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "head", self.inputs, values, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def joined_before_split(classes: int, bins: int = 16) -> onnx.ModelProto:
    """YOLOv8 as Ultralytics exported it in 2023: boxes and scores of a stride are one tensor."""
    g, flat = Graph(), []
    for size in (8, 4, 2):
        x = g.feature(size)
        both = g.node("Concat", g.conv(x, 4 * bins), g.conv(x, classes), axis=1)
        flat.append(g.reshape(both, 1, 4 * bins + classes, -1))
    whole = g.node("Concat", *flat, axis=2)
    parts = g.node("Split", whole, g.numbers([4 * bins, classes]), axis=1, outputs=2)
    sides = g.node("Transpose", g.reshape(f"{parts}.0", 1, 4, bins, 84), perm=[0, 2, 1, 3])
    weights = g.numbers(np.arange(bins).reshape(1, bins, 1, 1), np.float32)
    mean = g.node("Conv", g.node("Softmax", sides, axis=1), weights)
    scores = g.node("Sigmoid", f"{parts}.1")
    return g.model(g.node("Concat", g.reshape(mean, 1, 4, 84), scores, axis=1))


@pytest.mark.parametrize("classes", [1, 3, 64])
def test_boxes_and_scores_that_were_one_tensor(classes: int) -> None:
    """With 64 classes, as many as a box has channels, the box branch is the first."""
    model = joined_before_split(classes)
    convolutions = [node.output[0] for node in model.graph.node if node.op_type == "Conv"][:-1]
    head = find_head(model)
    assert (head.kind, head.classes) == ("dfl", classes)
    assert wanted(head, "recamera") == convolutions
    assert set(head.joined) == {"joined-distances", "joined-scores"}


def test_distances_of_four_sides_and_four_classes_are_told_apart() -> None:
    """Channels say nothing; that scores go through a sigmoid does. Classes come first here."""
    g, boxes, scores = Graph(), [], []
    convolutions = []
    for size in (8, 4):
        x = g.feature(size)
        scored, sides = g.conv(x, 4), g.conv(x, 4)
        convolutions.append((sides, scored))
        scores.append(g.reshape(g.node("Sigmoid", scored), 1, 4, -1))
        boxes.append(g.reshape(sides, 1, 4, -1))
    moved = g.node("Sub", g.numbers(1.0, np.float32), g.node("Concat", *boxes, axis=2))
    model = g.model(g.node("Concat", moved, g.node("Concat", *scores, axis=2), axis=1))
    head = find_head(model)
    assert head.kind == "distances"
    # In turn, four boxes and four classes pass for boxes alone: the firmware would misread them.
    boxes, scores = zip(*convolutions, strict=True)
    assert wanted(head, "recamera") == [*boxes, *scores]
    # There is no tensor of all scores behind the sigmoid to give MaixCAM, were it to want one.
    assert "joined-scores" not in head.joined


def anchors(channels: int) -> onnx.ModelProto:
    g, flat = Graph(), []
    for size in (8, 4, 2):
        each = g.reshape(g.conv(g.feature(size), channels), 1, 3, channels // 3, size, size)
        seen = g.node("Sigmoid", g.node("Transpose", each, perm=[0, 1, 3, 4, 2]))
        flat.append(g.reshape(seen, 1, -1, channels // 3))
    return g.model(g.node("Concat", *flat, axis=1))


def test_anchors() -> None:
    head = find_head(anchors(3 * (5 + 2)))
    assert (head.kind, head.classes) == ("anchors", 2)
    convolutions = [level.branches["anchors"].name for level in head.levels]
    assert wanted(head, "maixcam") == wanted(head, "milkv") == convolutions
    assert wanted(head, "none") is None


def classifier() -> onnx.ModelProto:
    g = Graph()
    pooled = g.node("GlobalAveragePool", g.conv(g.feature(8), 5))
    return g.model(g.node("Softmax", pooled, axis=1))


def cut(model: onnx.ModelProto) -> onnx.ModelProto:
    whole = onnx.shape_inference.infer_shapes(model)
    return onnx.utils.Extractor(whole).extract_model(["images"], WANTED)


def unlike_strides() -> onnx.ModelProto:
    g, flat = Graph(), []
    for size, classes in ((8, 3), (4, 5)):
        x = g.feature(size)
        scores = g.reshape(g.node("Sigmoid", g.conv(x, classes)), 1, -1)
        sides = g.reshape(g.node("Neg", g.conv(x, 4)), 1, -1)
        flat += [scores, sides]
    return g.model(g.node("Concat", *flat, axis=1))


def yolox() -> onnx.ModelProto:
    """Boxes, objectness and scores of a stride are joined; no decoder here multiplies the two."""
    g, flat = Graph(), []
    for size in (8, 4, 2):
        x = g.feature(size)
        scores = [g.node("Sigmoid", g.conv(x, channels)) for channels in (1, 3)]
        flat.append(g.reshape(g.node("Concat", g.conv(x, 4), *scores, axis=1), 1, 8, -1))
    return g.model(g.node("Transpose", g.node("Concat", *flat, axis=2), perm=[0, 2, 1]))


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (classifier, "no known head's: 1 of 8×8"),
        (lambda: cut(onnx.load(ROOT / "models/tiny.onnx")), "cut already"),
        (lambda: anchors(3 * 5), "too few channels"),
        (unlike_strides, "different channels: \\[3, 5\\]"),
        (lambda: Graph().model(), "cut already, or no detector"),
        (yolox, "0 could be the keypoints"),
    ],
    ids=["classifier", "cut", "anchors", "unlike", "empty", "yolox"],
)
def test_what_is_no_head_says_why(model: Callable[[], onnx.ModelProto], why: str) -> None:
    with pytest.raises(NoHead, match=why):
        find_head(model())


def test_shapes_that_the_network_computes() -> None:
    """Half of a tensor, as PyTorch's `chunk` is exported: onnx's own inference gives up on it."""
    g = Graph()
    x = g.feature(8)
    zero, one = g.numbers([0]), g.numbers([1])
    sizes = g.node("Gather", g.node("Shape", x), one, axis=0)
    half = g.node("Div", g.node("Add", sizes, one), g.numbers([2]))
    model = g.model(g.conv(g.node("Slice", x, zero, half, one), 6, 4))
    known = onnx.shape_inference.infer_shapes(model).graph.output[0].type.tensor_type.shape
    assert static_shapes(model)[model.graph.output[0].name] == (1, 6, 8, 8)
    assert [dim.dim_value for dim in known.dim][1:] != [6, 8, 8]


def test_a_size_that_is_not_fixed(tmp_path: Path) -> None:
    model = anchors(21)
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[2].dim_param = "height"
    with pytest.raises(NoHead, match="not fixed: export it without dynamic axes"):
        find_head(model)


def test_the_document_has_every_family() -> None:
    rows = {}
    for line in (ROOT / "docs/outputs.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[0] in heads.EXPECTED:
            rows[cells[0]] = cells[1:3]
    assert rows == {
        name: [each.kind or "no detector", each.decoder or "none"]
        for name, each in heads.EXPECTED.items()
    }
