"""What the importers share: shapes, comparison, settled bytes. No framework is needed here."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from conftest import ROOT
from onnx import TensorProto, helper

from tpumake.errors import BadInput, CheckFailed
from tpumake.importing import (
    Imported,
    compare,
    example,
    fix_shapes,
    input_shapes,
    one_line,
    set_input_shapes,
    settle,
    shapes,
)


def double(size: int | str = 4, doc: str = "") -> onnx.ModelProto:
    """y = x + x."""
    node = helper.make_node("Add", ["x", "x"], ["y"], name="add", doc_string=doc)
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size]) for name in "xy"]
    graph = helper.make_graph([node], doc or "g", value[:1], value[1:], doc_string=doc)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model.producer_name, model.producer_version, model.doc_string = "it", doc, doc
    if doc:
        helper.set_model_props(model, {"made in": doc})
    return model


def test_an_error_is_told_in_one_line() -> None:
    assert one_line(RuntimeError("\nfailed to open\nframe #0: c10::Error\n")) == "failed to open"
    quoted = "while running:\n  ValueError: first\nTypeError: second\n  [Hint: none]"
    assert one_line(ValueError(quoted)) == "TypeError: second"
    assert one_line(KeyError()) == "KeyError"
    assert len(one_line("x" * 999)) == 200


def test_shapes_are_read() -> None:
    assert shapes("") == []
    assert shapes("[[1,3,64,64], [1,10]]") == [[1, 3, 64, 64], [1, 10]]


@pytest.mark.parametrize(
    "text",
    [
        "1,3",
        "[1,3]",
        "[[1,-3]]",
        "[[a]]",
        "[[",
        "[]",
        "[[True]]",
        "[" * 999,
        "{}",
        "__import__('os')",
    ],
)
def test_other_texts_are_no_shapes(text: str) -> None:
    with pytest.raises(BadInput, match="must look like"):
        shapes(text)


def test_an_open_size_needs_input_shapes() -> None:
    with pytest.raises(BadInput, match=r'"x" is \?x3x\?, whose \? is up to you: set INPUT_SHAPES'):
        fix_shapes([("x", [None, 3, None])], [])
    assert fix_shapes([("x", [None, 3, None])], [[1, 3, 9]]) == [[1, 3, 9]]
    assert fix_shapes([("x", [1, 3])], []) == [[1, 3]]


def test_shapes_that_do_not_fit_are_told() -> None:
    with pytest.raises(BadInput, match=r'"x" is 1x3, INPUT_SHAPES says 1x4'):
        fix_shapes([("x", [1, 3])], [[1, 4]])
    with pytest.raises(BadInput, match=r"INPUT_SHAPES says 1x3x1"):
        fix_shapes([("x", [1, 3])], [[1, 3, 1]])
    with pytest.raises(BadInput, match=r"1 shapes, the network has 2 inputs: a, b"):
        fix_shapes([("a", [1]), ("b", [1])], [[1]])


def test_an_onnx_gets_the_shapes() -> None:
    model = double("batch")
    assert input_shapes(model) == [("x", [1, None])]
    model = set_input_shapes(model, [[1, 7]])
    assert input_shapes(model) == [("x", [1, 7])]
    assert [size.dim_value for size in model.graph.output[0].type.tensor_type.shape.dim] == [1, 7]


def test_examples_are_the_same_each_time() -> None:
    assert np.array_equal(example([2, 3]), example([2, 3]))
    assert example([100]).std() > 0.2
    assert example([5], np.int64).dtype == np.int64


def test_what_computes_nothing_is_taken_out() -> None:
    one, other = double(doc="/home/me/train.py"), double(doc="C:/you")
    for model in (one, other):
        settle(model)
    assert one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)
    assert b"/home" not in one.SerializeToString()
    assert one.graph.node[0].name == "add"


def test_equal_outputs_pass_with_their_difference() -> None:
    value = example([1, 4])
    assert compare(Imported(double(), [value], [2 * value], "it 1")) == 0
    assert 0 < compare(Imported(double(), [value], [2 * value + 1e-5], "it 1")) < 2e-5


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ([np.ones((1, 4), np.float32)], 'output "y" differs between ONNX and it 1 by'),
        ([np.full((1, 4), np.nan, np.float32)], 'output "y" differs'),
        ([np.ones((4, 1), np.float32)], 'output "y" is 1x4 in ONNX, 4x1 in it 1'),
        ([], "the ONNX has 1 outputs, it 1 gave 0"),
    ],
)
def test_other_outputs_fail(outputs: list[np.ndarray], said: str) -> None:
    with pytest.raises(CheckFailed, match=said):
        compare(Imported(double(), [example([1, 4])], outputs, "it 1"))


def test_what_onnx_can_not_say_is_told() -> None:
    model = double()
    model.graph.node[0].op_type = "TFL_VAR_HANDLE"
    with pytest.raises(BadInput, match=r"can't be said in ONNX: .*TFL_VAR_HANDLE"):
        compare(Imported(model, [example([1, 4])], [example([1, 4])], "it 1"))


def test_the_order_in_which_a_converter_worked_does_not_show() -> None:
    def network(first: int, second: int, turned: bool) -> onnx.ModelProto:
        a, b = f"c__{first}", f"c__{second}:0"
        nodes = [helper.make_node("Add", ["x", a], ["p:0"], name=f"add__{first}"),
                 helper.make_node("Add", ["x", b], [f"q__{second}"], name=f"add__{second}"),
                 helper.make_node("Mul", ["p:0", f"q__{second}"], ["y"], name="last")]  # fmt: skip
        weights = [helper.make_tensor(name, TensorProto.FLOAT, [1], [value])
                   for name, value in ((a, 1.0), (b, 2.0))]  # fmt: skip
        value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
        if turned:
            nodes[:2], weights = nodes[1::-1], weights[::-1]
        graph = helper.make_graph(nodes, "g", value[:1], value[1:], weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    one, other = network(3, 12, False), network(40, 7, True)
    for model in (one, other):
        settle(model)
        onnx.checker.check_model(model)
        value = example([1, 4])
        compare(Imported(model, [value], [(value + 1) * (value + 2)], "it 1"))
    assert one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)
    assert [node.name.partition("__")[0] for node in one.graph.node] == ["add", "add", "last"]


def test_committed_networks_tell_nothing_of_the_machine_that_made_them() -> None:
    """Frameworks note the lines of the programs that made a network, with their folders."""
    files = [path for path in (ROOT / "tests/data/frameworks").rglob("*") if path.is_file()]
    assert len(files) > 8
    for path in files:
        assert b'File "/' not in path.read_bytes(), path
