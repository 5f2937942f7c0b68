"""onnx_downgrade.py as its users meet it: files, cuts, refusals, checks."""

import io
import json
import os
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

import onnx_downgrade as program
from tpumake import cli, onnx_io
from tpumake.downgrade import verify as verifying
from tpumake.errors import BadInput, CheckFailed

SCRIPT = Path(program.__file__)
RNG = np.random.default_rng(1)


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def weight(name, array):
    return onnx.numpy_helper.from_array(array, name)


def network(opset=20, ir=9, weights=True, **extra):
    """Two branches, written so that the graph's order isn't the wanted one.

    x → conv → gelu → a → left (mean over axes, an input since 18), right (max), top (split)
    """
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Gelu", ["c"], ["a"], name="gelu"),
        helper.make_node("ReduceMean", ["a", "axes"], ["left"], name="left"),
        helper.make_node("Sigmoid", ["a"], ["s"], name="sigmoid"),
        helper.make_node("ReduceMax", ["s", "axes"], ["right"], name="right"),
        helper.make_node("Split", ["s"], ["t0", "t1"], name="split", axis=1, num_outputs=2),
    ]
    inputs = [value("x", [1, 3, 8, 8])]
    stored = [weight("axes", np.array([2, 3])), weight("unused", np.zeros(3, np.float32))]
    if weights:
        stored.append(weight("w", RNG.standard_normal((6, 3, 3, 3)).astype(np.float32)))
    outputs = [value("left", [1, 6, 1, 1]), value("right", [1, 6, 1, 1]), value("t1", [1, 3, 8, 8])]
    graph = helper.make_graph(nodes, "net", inputs, outputs, stored)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir, **extra
    )


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(network(), path)
    return path


def call(*args):
    return CliRunner().invoke(program.onnx_downgrade, [str(arg) for arg in args])


def shell(*args):
    """As a program, where exit codes and what the user sees are made."""
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, args)], capture_output=True, text=True, check=False
    )


def refused(*args, code=2):
    """The one line that a refusal prints; no traceback, and nothing written."""
    folder = Path(args[1]).parent
    before = sorted(folder.iterdir()) if folder.is_dir() else None
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.object(sys, "argv", ["onnx_downgrade.py", *map(str, args)]),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as end,
    ):
        cli.run(program.onnx_downgrade)
    assert end.value.code == code, err.getvalue()
    assert out.getvalue() == ""
    lines = err.getvalue().splitlines()
    assert len(lines) == 1, lines
    assert before is None or sorted(folder.iterdir()) == before
    return lines[0]


def outputs_of(path):
    return [item.name for item in onnx.load(path, load_external_data=False).graph.output]


def test_says_what_it_did_in_one_line(source, tmp_path):
    done = shell(source, tmp_path / "out.onnx", "--verify")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "opset 20 → 17, IR 9 → 8, verified\n"
    model = onnx.load(tmp_path / "out.onnx")
    assert (model.ir_version, onnx_io.opset_of(model)) == (8, 17)
    assert outputs_of(tmp_path / "out.onnx") == ["left", "right", "t1"]


def test_onnx_runtime_tells_its_makers_nothing(source, tmp_path):
    """ONNX Runtime would leave a store of what it has to tell, and of the machine, in the home."""
    home = tmp_path / "home"
    home.mkdir()
    command = [sys.executable, SCRIPT, source, tmp_path / "out.onnx", "--verify"]
    # Nor is it because it takes this for somebody's CI.
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not list(home.iterdir())


def test_json(source, tmp_path):
    done = call(source, tmp_path / "out.onnx", "--json", "--verify", "--outputs", "right,left")
    said = json.loads(done.output)
    assert said["opset"] == [20, 17]
    assert said["ir"] == [9, 8]
    assert said["outputs"] == ["right", "left"]
    assert 0 <= said["verified"]["worst_share_of_tolerance"] <= 1


def test_low_models_pass_unchanged(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Identity", ["x"], ["dead"])],
        "old",
        [value("x", [2])],
        [value("y", [2])],
        [weight("kept", np.ones(2, np.float32))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=9)
    onnx.save(model, tmp_path / "in.onnx")
    done = call(tmp_path / "in.onnx", tmp_path / "out.onnx", "--verify")
    assert done.output == "opset 11 kept, IR 9 → 8, verified\n"
    result = onnx.load(tmp_path / "out.onnx")
    assert result.graph == model.graph
    model.ir_version = 6
    onnx.save(model, tmp_path / "in.onnx")
    done = call(tmp_path / "in.onnx", tmp_path / "out.onnx")
    assert done.output == "opset 11 kept, IR 6 kept\n"


# --- cutting ----------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", ["left,right", "right,left", "t1,left,a", "a"])
def test_cut_in_the_wanted_order(source, tmp_path, wanted):
    """The outputs come in that order, and so do the nodes that make them."""
    target = tmp_path / "out.onnx"
    done = call(source, target, "--outputs", wanted, "--verify")
    assert done.exit_code == 0, done
    names = wanted.split(",")
    plural = "s" if len(names) > 1 else ""
    assert f"head cut at {len(names)} output{plural}, verified" in done.output
    assert outputs_of(target) == names
    made = [name for node in onnx.load(target).graph.node for name in node.output]
    if "a" not in names[1:]:  # An output on the way to another can't come after it.
        assert sorted(names, key=made.index) == names


def test_cut_drops_what_nothing_needs(source, tmp_path):
    call(source, tmp_path / "out.onnx", "--outputs", "c")
    graph = onnx.load(tmp_path / "out.onnx").graph
    assert [node.name for node in graph.node] == ["conv"]
    assert [tensor.name for tensor in graph.initializer] == ["w"]
    kind = graph.output[0].type.tensor_type
    assert [dim.dim_value for dim in kind.shape.dim] == [1, 6, 8, 8]


def test_what_is_cut_off_needs_no_words(tmp_path):
    """An operator that can't be expressed doesn't matter behind the cut."""
    model = network()
    model.graph.input.append(value("label", [1], TensorProto.STRING))
    model.graph.node.append(helper.make_node("StringConcat", ["label", "label"], ["twice"]))
    model.graph.output.append(value("twice", [1], TensorProto.STRING))
    onnx.save(model, tmp_path / "in.onnx")
    line = refused(tmp_path / "in.onnx", tmp_path / "out.onnx")
    assert 'StringConcat "twice" of opset 20' in line
    assert call(tmp_path / "in.onnx", tmp_path / "out.onnx", "--outputs", "t1").exit_code == 0
    assert [item.name for item in onnx.load(tmp_path / "out.onnx").graph.input] == ["x"]


def test_cut_into_a_body_of_a_local_function(tmp_path):
    """Functions are inlined; those behind the cut go."""
    square = helper.make_function(
        "own",
        "Square",
        ["v"],
        ["r"],
        [helper.make_node("Mul", ["v", "v"], ["r"])],
        [helper.make_opsetid("", 20)],
    )
    other = helper.make_function(
        "own",
        "Odd",
        ["v"],
        ["r"],
        [helper.make_node("StringSplit", ["v"], ["r", "n"])],
        [helper.make_opsetid("", 20)],
    )
    nodes = [
        helper.make_node("Square", ["x"], ["y"], domain="own"),
        helper.make_node("Gelu", ["y"], ["z"]),
    ]
    graph = helper.make_graph(nodes, "g", [value("x", [3])], [value("z", [3])])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=[square, other], ir_version=9)
    onnx.save(model, tmp_path / "in.onnx")
    done = call(tmp_path / "in.onnx", tmp_path / "out.onnx", "--outputs", "y", "--verify")
    assert done.exit_code == 0, done
    result = onnx.load(tmp_path / "out.onnx")
    assert [node.op_type for node in result.graph.node] == ["Mul"]
    assert not result.functions
    assert [item.domain for item in result.opset_import] == [""]


@pytest.mark.parametrize("wanted,text", [
    ("output1", 'no tensor "output1"'),
    ("rihgt", 'did you mean "right"?'),
    ("left,nosuch", 'no tensor "nosuch"'),
    ("left,left", '"left" twice'),
    ("x", "is an input"),
    ("w", "is an input"),
    (",", "names no tensor"),
])  # fmt: skip
def test_wrong_output_names(source, tmp_path, wanted, text):
    assert text in refused(source, tmp_path / "out.onnx", "--outputs", wanted)


def test_deep_networks_can_be_cut(tmp_path):
    nodes = [helper.make_node("Relu", [f"t{k}"], [f"t{k + 1}"]) for k in range(3000)]
    graph = helper.make_graph(nodes, "deep", [value("t0", [1])], [value("t3000", [1])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, tmp_path / "in.onnx")
    assert call(tmp_path / "in.onnx", tmp_path / "out.onnx", "--outputs", "t2990").exit_code == 0


# --- what exporters write -----------------------------------------------------------------------

DATA = Path(__file__).parent / "data"

EXPORTS = sorted(DATA.glob("torch_*.onnx"))
"""PyTorch 2.13, torch.onnx.export(dynamo=True), random weights, metadata with paths removed.

cnn_18, cnn_22: strided and dilated Conv, BatchNorm, SiLU, GroupNorm, Hardswish, Mish, circular
pad, antialiased bilinear resize, ConvTranspose, GELU, PixelShuffle, uneven split, mean, amax,
norm, AvgPool with ceil_mode. vit_23: patch embedding, one TransformerEncoderLayer (attention of
two heads, GELU), RMSNorm, Linear. The number is the opset.
"""

TPU_MLIR = set((DATA / "tpu_mlir_operators.txt").read_text().split())
"""Operators that tpu_mlir 1.7's ONNX front end knows."""


def test_there_are_exports():
    assert len(EXPORTS) == 3


@pytest.mark.parametrize("path", EXPORTS, ids=lambda path: path.stem)
def test_exports_become_what_tpu_mlir_knows(tmp_path, path):
    done = call(path, tmp_path / "out.onnx", "--verify")
    assert done.exit_code == 0, done
    kinds = {node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node}
    assert kinds <= TPU_MLIR


@pytest.mark.toolchain
@pytest.mark.slow
@pytest.mark.parametrize("path", EXPORTS, ids=lambda path: path.stem)
def test_tpu_mlir_transforms_them(tmp_path, toolchain, path):
    """Every tensor agrees with onnxruntime's by tpu_mlir's own comparison."""
    call(path, tmp_path / "net.onnx")
    entry = onnx.load(tmp_path / "net.onnx").graph.input[0]
    shape = [dim.dim_value for dim in entry.type.tensor_type.shape.dim]
    np.savez(tmp_path / "in.npz", **{entry.name: RNG.random(shape, np.float32)})
    done = toolchain.run(
        [
            "model_transform.py",
            "--model_name",
            "net",
            "--model_def",
            "net.onnx",
            "--input_shapes",
            json.dumps([shape]),
            "--test_input",
            "in.npz",
            "--test_result",
            "out.npz",
            "--mlir",
            "net.mlir",
        ],
        cwd=tmp_path,
    )
    counts = re.search(r"(\d+) compared.*?(\d+) passed", done.stdout, re.S)
    assert counts, done.stdout[-2000:] + done.stderr[-2000:]
    assert int(counts[1]) == int(counts[2]) > 10


# --- bytes ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_same_bytes_whatever_the_place_and_the_hash_seed(source, tmp_path):
    other = tmp_path / "elsewhere with spaces, ä"
    other.mkdir()
    (other / "moved.onnx").write_bytes(source.read_bytes())
    for seed, file, target in (("1", source, "a.onnx"), ("2", other / "moved.onnx", "b.onnx")):
        subprocess.run(
            [sys.executable, SCRIPT, file, tmp_path / target, "--outputs", "right,t1"],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        )
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_dates_and_stack_traces_go_and_other_metadata_stays(tmp_path):
    model = network(producer_name="maker", producer_version="3")
    given = {
        "date": "2024-05-01T10:00:00",
        "names": "{0: 'cat'}",
        "built": "2024-05-01 10:00:11",
        "stride": "32",
    }
    helper.set_model_props(model, given)
    model.doc_string = "File /home/someone/model.py"
    model.graph.node[0].doc_string = "File /home/someone/model.py"
    model.graph.node[0].metadata_props.add(key="stack_trace", value="/home/someone/model.py")
    model.graph.value_info.append(value("a", [1, 6, 8, 8]))
    model.graph.value_info[0].metadata_props.add(key="place", value="/home/someone")
    onnx.save(model, tmp_path / "in.onnx")
    call(tmp_path / "in.onnx", tmp_path / "out.onnx")
    result = onnx.load(tmp_path / "out.onnx")
    kept = {item.key: item.value for item in result.metadata_props}
    assert kept == {"names": "{0: 'cat'}", "stride": "32"}
    assert (result.producer_name, result.producer_version) == ("maker", "3")
    raw = (tmp_path / "out.onnx").read_bytes()
    assert b"someone" not in raw
    assert b"2024" not in raw


def test_domains_are_kept_if_used(tmp_path):
    model = network()
    model.graph.node.append(helper.make_node("Own", ["t1"], ["own"], domain="com.microsoft"))
    model.graph.output.append(value("own", [1]))
    model.opset_import.extend(helper.make_opsetid(d, 1) for d in ("com.microsoft", "ai.onnx.ml"))
    onnx.save(model, tmp_path / "in.onnx")
    assert call(tmp_path / "in.onnx", tmp_path / "out.onnx").exit_code == 0
    imports = {i.domain: i.version for i in onnx.load(tmp_path / "out.onnx").opset_import}
    assert imports == {"": 17, "com.microsoft": 1}


# --- subgraphs --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Loop", "Scan"])
def test_bodies_are_rewritten_too(tmp_path, kind):
    """Inside a body, types come from the body's own inputs and from outside."""
    inside = [
        helper.make_node("Gelu", ["state"], ["g"]),
        helper.make_node("ReduceMax", ["g", "axes"], ["top"], keepdims=1),
        helper.make_node("Sub", ["g", "top"], ["next"]),
    ]
    state, after = value("state", [4, 5]), value("next", [4, 5])
    if kind == "Loop":
        inside.append(helper.make_node("Identity", ["go_in"], ["go_out"]))
        flags = [value("go_in", [], TensorProto.BOOL), value("go_out", [], TensorProto.BOOL)]
        turn = value("turn", [], TensorProto.INT64)
        body = helper.make_graph(inside, "body", [turn, flags[0], state], [flags[1], after])
        node = helper.make_node("Loop", ["count", "", "x"], ["y"], body=body)
        stored = [weight("count", np.array(3))]
    else:
        inside.append(helper.make_node("Add", ["g", "item"], ["out"]))
        item, out = value("item", [5]), value("out", [4, 5])
        body = helper.make_graph(inside, "body", [state, item], [after, out])
        node = helper.make_node("Scan", ["x", "rows"], ["y", "all"], body=body, num_scan_inputs=1)
        stored = [weight("rows", RNG.random((3, 5)).astype(np.float32))]
    stored.append(weight("axes", np.array([1])))
    graph = helper.make_graph([node], "g", [value("x", [4, 5])], [value("y", [4, 5])], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, tmp_path / "in.onnx")
    done = call(tmp_path / "in.onnx", tmp_path / "out.onnx", "--verify")
    assert done.exit_code == 0, done
    body = onnx.load(tmp_path / "out.onnx").graph.node[0].attribute[0].g
    assert "Erf" in {node.op_type for node in body.node}


# --- external data ----------------------------------------------------------------------------


def external(folder, location="net.data", **extra):
    """The network with its weights in a file beside it."""
    folder.mkdir(exist_ok=True)
    model = network(**extra)
    big = RNG.standard_normal((6, 3, 20, 20)).astype(np.float32)
    next(t for t in model.graph.initializer if t.name == "w").CopyFrom(weight("w", big))
    model.graph.node[0].attribute[0].ints[:] = [10, 10, 9, 9]
    path = folder / "net.onnx"
    onnx.save(model, path, save_as_external_data=True, location=location, size_threshold=100)
    return path


def relocated(path, location):
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())


def test_external_data_stays_external(tmp_path):
    source, target = external(tmp_path / "in"), tmp_path / "out.onnx"
    done = call(source, target, "--verify", "--outputs", "right")
    assert done.exit_code == 0, done
    data = tmp_path / "out.onnx.data"
    assert data.stat().st_size == 6 * 3 * 20 * 20 * 4
    assert target.stat().st_size < 3000
    x = {"x": RNG.random((1, 3, 8, 8), np.float32)}
    results = [onnxruntime.InferenceSession(str(p)).run(["right"], x)[0] for p in (source, target)]
    np.testing.assert_allclose(*results, rtol=1e-5)
    first = target.read_bytes(), data.read_bytes()
    call(source, target, "--outputs", "right")
    assert (target.read_bytes(), data.read_bytes()) == first


@pytest.mark.parametrize("kind", [0, 2**31])
def test_a_type_that_there_is_not_is_refused(tmp_path, kind):
    make = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("RMSNormalization", ["x", "s"], ["y"], "norm", stash_type=kind)
    values = [make(name, onnx.TensorProto.FLOAT, [4]) for name in "xsy"]
    graph = onnx.helper.make_graph([node], "g", values[:2], values[2:])
    opsets = [onnx.helper.make_opsetid("", 23)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets), tmp_path / "n.onnx")
    said = refused(tmp_path / "n.onnx", tmp_path / "out.onnx")
    assert f"{kind} is no type of elements" in said


@pytest.mark.parametrize("where", ["../secret", "/etc/passwd", "a/../../secret", "C:\\secret"])
def test_external_data_outside_the_folder_is_refused(tmp_path, where):
    (tmp_path / "secret").write_bytes(bytes(8000))
    path = external(tmp_path / "in")
    relocated(path, where)
    assert "outside the model's folder" in refused(path, tmp_path / "out.onnx")


def test_external_data_behind_links(tmp_path):
    """A link out of the folder is refused; a folder of links to one place is as good as it."""
    real = external(tmp_path / "real")
    farm = tmp_path / "farm"
    farm.mkdir()
    for file in real.parent.iterdir():
        (farm / file.name).symlink_to(file)
    assert call(farm / "net.onnx", tmp_path / "out.onnx", "--verify").exit_code == 0
    alone = tmp_path / "alone.onnx"
    alone.symlink_to(real)
    assert call(alone, tmp_path / "out.onnx", "--verify").exit_code == 0
    (tmp_path / "secret").write_bytes(real.with_name("net.data").read_bytes())
    real.with_name("net.data").unlink()
    real.with_name("net.data").symlink_to(tmp_path / "secret")
    assert "link out of" in refused(real, tmp_path / "out2.onnx")


def test_external_data_that_is_missing_or_short(tmp_path):
    path = external(tmp_path / "in")
    data = path.with_name("net.data")
    data.write_bytes(data.read_bytes()[:-100])
    assert "past the end" in refused(path, tmp_path / "out.onnx")
    data.unlink()
    assert "missing" in refused(path, tmp_path / "out.onnx")


def test_the_inputs_data_is_never_overwritten(tmp_path):
    path = external(tmp_path / "in", location="out.onnx.data")
    before = path.with_name("out.onnx.data").read_bytes()
    assert "is the input's data" in refused(path, path.with_name("out.onnx"))
    assert path.with_name("out.onnx.data").read_bytes() == before


@pytest.mark.slow
def test_as_a_program(source, tmp_path):
    """Exit code, one line on stderr, nothing on stdout."""
    done = shell(tmp_path / "none.onnx", tmp_path / "out.onnx")
    assert (done.returncode, done.stdout) == (2, "")
    missing = tmp_path / "none.onnx"
    assert done.stderr == f"onnx_downgrade: {missing} doesn't exist; check the name\n"


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize("content,text", [
    (None, "doesn't exist"),
    (b"", "is empty"),
    (b"\x89PNG\r\n\x1a\n" + bytes(50), "ONNX"),
    (b"hello, world\n" * 40, "ONNX"),
    ("cut", "ONNX"),
    ("no graph", "no ONNX graph"),
])  # fmt: skip
def test_files_that_are_no_networks(source, tmp_path, content, text):
    path = tmp_path / "odd.onnx"
    if content == "cut":
        path.write_bytes(source.read_bytes()[:-200])
    elif content == "no graph":
        path.write_bytes(onnx.ModelProto(ir_version=8).SerializeToString())
    elif content is not None:
        path.write_bytes(content)
    line = refused(path, tmp_path / "out.onnx")
    assert text in line
    assert "odd.onnx" in line


def test_every_cut_of_a_file_is_refused_or_read(source, tmp_path):
    """No length of file may end in anything but one line."""
    raw = source.read_bytes()
    for length in range(1, len(raw) - 1, 37):
        (tmp_path / "odd.onnx").write_bytes(raw[:length])
        done = call(tmp_path / "odd.onnx", tmp_path / "out.onnx", "--verify")
        assert isinstance(done.exception, (BadInput, CheckFailed)), (length, done.exception)


def test_places_that_cant_be_written(source, tmp_path):
    assert "is the input" in refused(source, source)
    link = tmp_path / "link.onnx"
    link.symlink_to(source)
    assert "is the input" in refused(source, link)
    assert "is a folder" in refused(source, tmp_path)
    assert "doesn't exist" in refused(source, tmp_path / "none" / "out.onnx")
    assert "is a folder" in refused(tmp_path, tmp_path / "out.onnx")
    assert refused(source, "/dev/null/out.onnx")


def test_opsets_of_the_future(source, tmp_path):
    model = onnx.load(source)
    model.opset_import[0].version = 999
    onnx.save(model, source)
    assert "opset 999" in refused(source, tmp_path / "out.onnx")


def test_types_that_the_ir_version_lacks(tmp_path):
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    eight = TensorProto.FLOAT8E4M3FN
    graph = helper.make_graph(nodes, "g", [value("x", [2], eight)], [value("y", [2], eight)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.save(model, tmp_path / "in.onnx")
    assert "float8e4m3fn" in refused(tmp_path / "in.onnx", tmp_path / "out.onnx")


def test_networks_that_were_never_valid(tmp_path):
    model = network()
    model.graph.node[5].input[0] = "nowhere"
    onnx.save(model, tmp_path / "in.onnx")
    assert "isn't a valid model" in refused(tmp_path / "in.onnx", tmp_path / "out.onnx")


# --- verification -----------------------------------------------------------------------------


def damaged(monkeypatch, change):
    """Let the program write a result that isn't what the original computes."""
    real = program.downgrade

    def wrong(network, opset, ir):
        report = real(network, opset, ir)
        change(network.model.graph)
        return report

    monkeypatch.setattr(program, "downgrade", wrong)


def swap_branches(graph):
    for node in graph.node:
        node.op_type = {"ReduceMax": "ReduceMin"}.get(node.op_type, node.op_type)


def nudge(graph):
    tensor = next(t for t in graph.initializer if t.name == "w")
    array = onnx.numpy_helper.to_array(tensor) * np.float32(1.001)
    tensor.CopyFrom(weight("w", array))


@pytest.mark.parametrize("change", [swap_branches, nudge])
def test_a_wrong_result_is_found_and_not_written(source, tmp_path, monkeypatch, change):
    damaged(monkeypatch, change)
    done = call(source, tmp_path / "out.onnx", "--verify")
    assert isinstance(done.exception, CheckFailed)
    assert "differs from the original" in str(done.exception)
    assert list(tmp_path.iterdir()) == [source]
    assert call(source, tmp_path / "out.onnx").exit_code == 0


def test_a_result_of_another_shape_or_type_is_found():
    wanted = np.ones((2, 3), np.float32)
    assert verifying._difference(np.ones((3, 2), np.float32), wanted) == np.inf
    assert verifying._difference(wanted.astype(np.float64), wanted) == np.inf
    assert not verifying._difference(wanted * np.nan, wanted) <= 1
    assert verifying._difference(wanted, wanted * np.inf) == np.inf
    assert verifying._difference(np.arange(3), np.arange(3) + 1) == np.inf
    assert verifying._difference([wanted], [wanted, wanted]) == np.inf
    assert verifying._difference(wanted * np.nan, wanted * np.nan) == 0
    assert verifying._difference(wanted, wanted * np.float32(1.00005)) < 1
    assert verifying._difference(wanted, wanted * np.float32(1.0002)) > 1


def test_open_sizes_get_numbers_that_the_network_takes(tmp_path):
    nodes = [
        helper.make_node("MaxPool", ["x"], ["p"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Gelu", ["p"], ["y"]),
    ]
    shape = ["batch", 3, "height", "width"]
    graph = helper.make_graph(nodes, "g", [value("x", shape)], [value("y", list("abcd"))])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, tmp_path / "in.onnx")
    done = call(tmp_path / "in.onnx", tmp_path / "out.onnx", "--verify")
    assert done.output.endswith("verified\n")


def test_inner_shapes_that_no_longer_hold_arent_believed(tmp_path):
    """Sizes opened by hand, old inner shapes left: nothing may be fixed to those."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("GroupNormalization", ["r", "s", "b"], ["n"], num_groups=2),
        helper.make_node("Gelu", ["n"], ["y"]),
    ]
    stored = [weight(name, np.ones(4, np.float32)) for name in ("s", "b")]
    inputs = [value("x", ["batch", 4, "h", 5])]
    graph = helper.make_graph(nodes, "g", inputs, [value("y", [1, 4, 6, 5])], stored)
    graph.value_info.append(value("r", [1, 4, 6, 5]))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=9)
    onnx.save(model, tmp_path / "in.onnx")
    call(tmp_path / "in.onnx", tmp_path / "out.onnx")
    x = {"x": RNG.random((3, 4, 7, 5), np.float32)}
    results = []
    for one in (model, onnx.load(tmp_path / "out.onnx")):
        # onnxruntime itself believes them.
        del one.graph.value_info[:]
        one.graph.output[0].type.tensor_type.ClearField("shape")
        session = onnxruntime.InferenceSession(one.SerializeToString())
        results.append(session.run(None, x)[0])
    np.testing.assert_allclose(*results, rtol=1e-4, atol=1e-5)


def test_a_size_fixed_by_mistake_is_found(tmp_path, monkeypatch):
    nodes = [
        helper.make_node("Gelu", ["x"], ["g"]),
        helper.make_node("Reshape", ["g", "to"], ["y"]),
    ]
    stored = [weight("to", np.array([-1, 4]))]
    graph = helper.make_graph(nodes, "g", [value("x", ["n", 4])], [value("y", ["m", 4])], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, tmp_path / "in.onnx")

    def fix(graph):
        stored = next(tensor for tensor in graph.initializer if tensor.name == "to")
        stored.CopyFrom(weight("to", np.array([1, 4])))

    damaged(monkeypatch, fix)
    done = call(tmp_path / "in.onnx", tmp_path / "out.onnx", "--verify")
    assert isinstance(done.exception, CheckFailed)


def test_integers_that_index(tmp_path):
    nodes = [
        helper.make_node("Gather", ["table", "i"], ["r"]),
        helper.make_node("Gelu", ["r"], ["y"]),
    ]
    table = [weight("table", RNG.random((2, 3)).astype(np.float32))]
    inputs = [value("i", [4], TensorProto.INT64)]
    graph = helper.make_graph(nodes, "g", inputs, [value("y", [4, 3])], table)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, tmp_path / "in.onnx")
    assert call(tmp_path / "in.onnx", tmp_path / "out.onnx", "--verify").exit_code == 0


@pytest.mark.parametrize("node,text", [
    (helper.make_node("Own", ["t1"], ["z"], domain="own"), "can't run the original"),
    (helper.make_node("RandomNormalLike", ["t1"], ["z"], name="dice"), 'RandomNormalLike "dice"'),
    (helper.make_node("Log", ["minus"], ["z"]), "nothing but NaN"),
])  # fmt: skip
def test_what_cant_be_verified_fails(tmp_path, node, text):
    model = network()
    model.graph.initializer.append(weight("minus", -np.ones((1, 3, 8, 8), np.float32)))
    model.graph.node.append(node)
    model.opset_import.append(helper.make_opsetid("own", 1))
    del model.graph.output[:]
    model.graph.output.append(value("z", [1, 3, 8, 8]))
    onnx.save(model, tmp_path / "in.onnx")
    line = refused(tmp_path / "in.onnx", tmp_path / "out.onnx", "--verify", code=1)
    assert text in line
    assert "not verified" in line
    assert call(tmp_path / "in.onnx", tmp_path / "out.onnx").exit_code == 0


def test_a_tail_that_onnxruntime_lacks_doesnt_matter_behind_the_cut(tmp_path):
    model = network()
    model.graph.node.append(helper.make_node("Own", ["t1"], ["z"], domain="own"))
    model.graph.output.append(value("z", [1]))
    model.opset_import.append(helper.make_opsetid("own", 1))
    onnx.save(model, tmp_path / "in.onnx")
    done = call(tmp_path / "in.onnx", tmp_path / "out.onnx", "--verify", "--outputs", "left,t1")
    assert done.output.endswith("verified\n"), done


def test_open_sizes_are_settled_before_the_head_is_looked_for(tmp_path):
    """With open sizes nobody knows the strides that a head is told by."""
    tiny = Path(__file__).parent.parent / "models/tiny.onnx"
    network = onnx.load(tiny)
    for place in (0, 2, 3):
        network.graph.input[0].type.tensor_type.shape.dim[place].dim_param = f"open{place}"
    del network.graph.value_info[:]
    onnx.save(network, tmp_path / "open.onnx")
    words = (tmp_path / "open.onnx", tmp_path / "out.onnx", "--outputs", "auto", "--verify")
    shapes = "[[1,3,64,64]]"
    done = call(*words, "--input-shapes", shapes)
    assert "head cut at 6 outputs, verified" in done.output
    written = onnx.load(tmp_path / "out.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in written] == [1, 3, 64, 64]
    # What an input has already stays, and what is no shape is refused.
    call(tiny, *words[1:], "--input-shapes", "[[2,3,32,32]]")
    written = onnx.load(tmp_path / "out.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in written] == [1, 3, 64, 64]
    assert "give it like [[1,3,640,640]]" in refused(*words, "--input-shapes", "[1]")


@pytest.mark.parametrize("opset", [17, 20])
def test_attributes_are_written_down_that_the_tool_insists_on(tmp_path, opset):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Elu", ["c"], ["e"]),
        helper.make_node("HardSigmoid", ["e"], ["h"], beta=0.25),
        helper.make_node("GridSample", ["h", "grid"], ["g"]),
        helper.make_node("Conv", ["g", "of the input"], ["y"]),
    ]
    stored = [
        weight("w", RNG.standard_normal((3, 3, 3, 3)).astype(np.float32)),
        weight("grid", RNG.uniform(-1, 1, (1, 8, 8, 2)).astype(np.float32)),
    ]
    inputs = [value("x", [1, 3, 8, 8]), value("of the input", [2, 3, 1, 1])]
    graph = helper.make_graph(nodes, "net", inputs, [value("y", [1, 2, 8, 8])], stored)
    imports = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), tmp_path / "in.onnx")
    done = call(tmp_path / "in.onnx", tmp_path / "out.onnx", "--verify")
    assert done.exit_code == 0, done.output
    written = {
        node.output[0]: {
            each.name: helper.get_attribute_value(each)
            for each in node.attribute
            if each.name not in ("pads", "align_corners")
        }
        for node in onnx.load(tmp_path / "out.onnx").graph.node
    }
    assert written == {
        "c": {"kernel_shape": [3, 3]},
        "e": {"alpha": 1.0},
        "h": {"alpha": pytest.approx(0.2), "beta": 0.25},
        "g": {"mode": b"bilinear", "padding_mode": b"zeros"},
        # Its weights are known to nobody before it runs.
        "y": {},
    }
