"""Finding where a detection head is cut: by structure and shapes, never by names."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from conftest import ROOT
from onnx import TensorProto, helper

from tpumake.detection_head import find_branches, interleaved

WANTED = [f"/model.23/cv{b}.{i}/cv{b}.{i}.2/Conv_output_0" for i in range(3) for b in (2, 3)]


@pytest.fixture
def tiny() -> onnx.ModelProto:
    return onnx.load(ROOT / "models/tiny.onnx")


def renamed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with meaningless names."""
    names: dict[str, str] = {}

    def new(name: str) -> str:
        return names.setdefault(name, f"t{len(names)}") if name else ""

    graph = model.graph
    for node in graph.node:
        node.name = ""
        node.input[:] = [new(name) for name in node.input]
        node.output[:] = [new(name) for name in node.output]
    for value in [*graph.input, *graph.output, *graph.initializer]:
        value.name = new(value.name)
    del graph.value_info[:]
    return model


@pytest.mark.parametrize("network", ["tiny", "yolo11n"])
def test_box_and_class_alternate_from_the_finest_stride(network: str) -> None:
    branches = find_branches(onnx.load(ROOT / f"models/{network}.onnx"))
    assert interleaved(branches) == WANTED
    assert [b.box for b in branches].count(True) == 3
    assert {b.channels for b in branches} == {64, 4}


def test_names_do_not_matter(tiny: onnx.ModelProto) -> None:
    before = find_branches(tiny)
    after = find_branches(renamed(tiny))
    assert [(b.channels, b.height, b.box) for b in after] == [
        (b.channels, b.height, b.box) for b in before
    ]
    assert not {b.output for b in after} & {b.output for b in before}


def test_a_network_without_such_a_head_is_left_alone() -> None:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [5, 3, 1, 1], [0.5] * 15)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Softmax", ["p"], ["y"], axis=1),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "classifier",
        [value("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [value("y", TensorProto.FLOAT, [1, 5, 1, 1])],
        [weights],
    )
    assert find_branches(helper.make_model(graph)) == []


def test_a_head_that_is_cut_already_is_left_alone(tiny: onnx.ModelProto, tmp_path: Path) -> None:
    whole = onnx.shape_inference.infer_shapes(tiny)
    cut = onnx.utils.Extractor(whole).extract_model(["images"], WANTED)
    assert find_branches(cut) == []


def test_a_stride_with_one_branch_only_has_no_order(tiny: onnx.ModelProto) -> None:
    assert interleaved(find_branches(tiny)[1:]) is None
    assert interleaved([]) is None
