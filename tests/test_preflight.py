"""What is told before anything runs: each finding provoked, and that nothing else is told."""

from __future__ import annotations

import json
import re
import resource
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
from conftest import ROOT, Checkout, copy_project
from onnx import TensorProto
from onnx import helper as make
from PIL import Image

from tpumake.preflight import machine, size
from tpumake.preflight.checks import check
from tpumake.preflight.finding import FIRM, NAMES, Finding, in_order, kept, told
from tpumake.preflight.operators import load_table, trouble
from tpumake.preflight.plan import Plan

SCHEMA = json.loads((ROOT / "schemas/stanza.schema.json").read_text())
REPORT = json.loads((ROOT / "schemas/check.schema.json").read_text())
ULTRALYTICS = {"author": "Ultralytics", "imgsz": "[16, 16]", "names": "{0: 'a', 1: 'b'}"}
VALUES = {
    "INPUT_SHAPES": "[[1,3,16,16]]", "OUTPUTS": "none", "MEAN": "0,0,0", "INPUT_NUM": "2",
    "SCALE": "0.0039216,0.0039216,0.0039216", "PIXEL_FORMAT": "rgb", "CHANNEL_FORMAT": "nchw",
    "FUSE_PREPROCESS": "1", "VARIANTS": "int8 bf16",
}  # fmt: skip


def network(
    path: Path,
    *nodes: onnx.NodeProto,
    shape: tuple[int | str, ...] = (1, 3, 16, 16),
    opset: int = 17,
    metadata: dict[str, str] | None = None,
    weights: int = 8,
    elem: int = TensorProto.FLOAT,
) -> Path:
    """Write a convolution and what follows it; ``y`` is the output."""
    kernel = onnx.numpy_helper.from_array(np.ones((weights, 3, 1, 1), np.float32), "w")
    first = make.make_node("Conv", ["x", "w"], ["c"], name="first", kernel_shape=[1, 1])
    last = nodes or (make.make_node("Relu", ["c"], ["y"]),)
    graph = make.make_graph(
        [first, *last], "g", [make.make_tensor_value_info("x", elem, shape)],
        [make.make_tensor_value_info("y", TensorProto.FLOAT, None)], [kernel],
    )  # fmt: skip
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", opset)], ir_version=8)
    make.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def plan(tmp_path: Path, **given: object) -> Plan:
    """A plan of which nothing is to be said, but for what is given; values in capitals."""
    source = given.pop("source", None) or tmp_path / "net.onnx"
    if "make" in given:
        given.pop("make")(source)
    elif not source.exists():
        network(source, metadata=ULTRALYTICS)
    values = VALUES | {key: given.pop(key) for key in list(given) if key.isupper()}
    return Plan(
        model="m", chip=given.pop("chip", "cv181x"), source=source, values=values,
        stanza=given.pop("stanza", {"ONNX": str(source)}),
        refused=given.pop("refused", {"int8": "", "bf16": ""}), strict=given.pop("strict", True),
        **given,
    )  # fmt: skip


def found(wanted: Plan) -> list[Finding]:
    return check(wanted, SCHEMA)


def names(wanted: Plan) -> list[tuple[str, str]]:
    return [(one.severity, one.name) for one in found(wanted)]


def picture(path: Path, width: int = 64, height: int = 48, mode: str = "RGB") -> Path:
    Image.new(mode, (width, height), 99).save(path)
    return path


def test_nothing_is_said_of_what_is_right(tmp_path: Path) -> None:
    assert found(plan(tmp_path)) == []


@pytest.mark.parametrize(
    ("values", "expected", "said"),
    [
        ({"SCALE": "255,255,255"}, ("error", "scale"), "m_SCALE = 0.0039216"),
        ({"SCALE": "0,1,1"}, ("error", "scale"), "no colour"),
        ({"SCALE": "1,1,1"}, ("warning", "scale"), "m_SCALE = 0.0039216"),
        ({"MEAN": "123.7,116.3,103.5"}, ("warning", "mean"), "m_MEAN = 0,0,0"),
        ({"PIXEL_FORMAT": "bgr"}, ("warning", "pixel-format"), "m_PIXEL_FORMAT = rgb"),
        ({"INPUT_SHAPES": ""}, ("error", "shapes"), "set it to [[1,3,16,16]]"),
        ({"INPUT_SHAPES": "[[1,3,16]]"}, ("error", "shapes"), "has 3 sides"),
        ({"INPUT_SHAPES": "[[1,3,16,16],[1,1]]"}, ("error", "shapes"), "has 1 inputs"),
        ({"INPUT_SHAPES": "[[1,4,16,16]]"}, ("error", "shapes"), "x is 1×3×16×16"),
        ({"INPUT_SHAPES": "[[1,3,32,32]]"}, ("warning", "shapes"), "or export the network again"),
        ({"OUTPUTS": "z"}, ("error", "outputs"), 'no tensor "z"'),
        ({"SILENCE": "scales"}, ("error", "silence"), "did you mean scale?"),
        ({"SILENCE": "missing"}, ("error", "silence"), "can't be silenced"),
    ],
)
def test_values(
    tmp_path: Path, values: dict[str, str], expected: tuple[str, str], said: str
) -> None:
    wanted = plan(tmp_path, **values)
    assert names(wanted) == [expected]
    assert said in str(found(wanted)[0])


@pytest.mark.parametrize(
    ("changes", "values", "expected", "said"),
    [
        ({"shape": ("batch", 3, "h", "w")}, {"INPUT_SHAPES": ""}, ("error", "dynamic"),
         "x is batch×3×h×w, which is not fixed; set it to [[1,3,640,640]]"),
        ({"shape": (4, 3, 16, 16)}, {"INPUT_SHAPES": "[[4,3,16,16]]"}, ("warning", "batch"),
         "set it to [[1,3,16,16]]"),
        ({"metadata": {"imgsz": "[32, 32]"}}, {}, ("warning", "resolution"), "for 32×32"),
        ({"elem": TensorProto.DOUBLE}, {}, ("warning", "inputs"), "x is DOUBLE"),
    ],
)  # fmt: skip
def test_networks(
    tmp_path: Path, changes: dict, values: dict[str, str], expected: tuple[str, str], said: str
) -> None:
    source = network(tmp_path / "net.onnx", **({"metadata": {}} | changes))
    wanted = plan(tmp_path, source=source, **values)
    assert names(wanted)[:1] == [expected]
    assert said in str(found(wanted)[0])


def test_fixed_shapes_mend_dynamic_ones(tmp_path: Path) -> None:
    source = network(tmp_path / "net.onnx", shape=("batch", 3, "h", "w"))
    assert found(plan(tmp_path, source=source)) == []


@pytest.mark.parametrize(
    ("data", "name", "said"),
    [
        (b"PK\x03\x04", "kind", "a PyTorch file; name it by m_PT"),
        (b"\x20\0\0\0TFL3", "kind", "TensorFlow Lite file; name it by m_TFLITE"),
        (b"CviModel", "kind", "a finished cvimodel"),
        (b"version https://git-lfs.github.com/spec/v1", "kind", "git lfs pull"),
        (b"<!DOCTYPE html>", "kind", "a web page"),
        (b"", "unreadable", "is empty"),
        (b"\x08\x08\x12", "unreadable", "isn't a complete ONNX file"),
    ],
)
def test_a_file_that_is_no_network(tmp_path: Path, data: bytes, name: str, said: str) -> None:
    (tmp_path / "net.onnx").write_bytes(data)
    (one,) = found(plan(tmp_path))
    assert (one.severity, one.name) == ("error", name)
    assert said in str(one)


def test_a_truncated_network(tmp_path: Path) -> None:
    source = network(tmp_path / "net.onnx")
    source.write_bytes(source.read_bytes()[:-40])
    assert names(plan(tmp_path, source=source)) == [("error", "unreadable")]


def test_a_network_that_is_not_there(tmp_path: Path) -> None:
    wanted = plan(tmp_path)
    wanted.source.unlink()
    assert names(wanted) == [("error", "missing")]
    wanted.values["URL"] = "https://x.org/net.onnx"
    assert names(wanted) == []


def test_a_suffix_of_another_kind(tmp_path: Path) -> None:
    source = network(tmp_path / "net.tflite")
    assert names(plan(tmp_path, source=source)) == [("warning", "kind")]


def test_an_opset_that_cannot_be_expressed(tmp_path: Path) -> None:
    nodes = [make.make_node("DFT", ["c", "", "axis"], ["y"])]
    axis = [make.make_node("Constant", [], ["axis"], value_int=2)]
    source = network(tmp_path / "net.onnx", *axis, *nodes, opset=20, metadata={})
    (one,) = found(plan(tmp_path, source=source))
    assert (one.severity, one.name) in {("error", "opset"), ("error", "operator")}


def with_operator(path: Path, kind: str, *inputs: str, **attributes: object) -> Path:
    return network(
        path, make.make_node(kind, list(inputs) or ["c"], ["y"], name="it", **attributes)
    )


@pytest.mark.parametrize(
    ("kind", "inputs", "attributes", "chip", "said"),
    [
        ("Mod", ("c", "c"), {"fmod": 1}, "bm1684x", "can't read Mod (it); write x mod y as"),
        ("Sin", (), {}, "cv181x", "can't compile Sin (it) for cv181x in INT8 or BF16"),
        ("SpaceToDepth", (), {"blocksize": 2}, "cv181x", "can't read SpaceToDepth"),
        ("Conv", ("c", "k"), {}, "cv181x", "can't read Conv"),
        ("Bernoulli", (), {}, "cv181x", "can't read Bernoulli"),
    ],
)
def test_operators(
    tmp_path: Path, kind: str, inputs: tuple[str, ...], attributes: dict, chip: str, said: str
) -> None:
    source = tmp_path / "net.onnx"
    if "k" in inputs:
        kernel = onnx.numpy_helper.from_array(np.ones((2, 8, 1, 1), np.float32))
        nodes = (make.make_node("Constant", [], ["k"], value=kernel),
                 make.make_node(kind, list(inputs), ["y"], name="it"))  # fmt: skip
        network(source, *nodes)
    else:
        with_operator(source, kind, *inputs, **attributes)
    (one,) = found(plan(tmp_path, source=source, chip=chip))
    assert (one.severity, one.name) == ("error", "operator")
    assert said in str(one)


def test_an_operator_that_only_one_precision_lacks(tmp_path: Path) -> None:
    """Where with a constant mask is compiled in BF16, not in INT8, and not by chance."""
    nodes = [
        make.make_node("Constant", [], ["flag"], value=onnx.numpy_helper.from_array(
            np.ones((1, 1, 16, 16), bool))),
        make.make_node("Where", ["flag", "c", "c"], ["y"], name="it"),
    ]  # fmt: skip
    source = network(tmp_path / "net.onnx", *nodes)
    assert names(plan(tmp_path, source=source, refused={"bf16": ""})) == []
    assert names(plan(tmp_path, source=source, refused={"int8": ""})) == [("error", "operator")]
    both = plan(tmp_path, source=source, strict=False)
    assert names(both) == [("warning", "operator")]
    both.values["VARIANTS"] = "bf16"
    assert names(both) == []


def test_operators_that_are_folded_away_or_cut_off_do_not_count(tmp_path: Path) -> None:
    nodes = [
        make.make_node("Shape", ["c"], ["s"]),
        make.make_node("Mod", ["s", "s"], ["t"]),
        make.make_node("Relu", ["c"], ["y"]),
        make.make_node("Sin", ["y"], ["z"]),
    ]
    source = network(tmp_path / "a.onnx", *nodes)
    assert names(plan(tmp_path, source=source, OUTPUTS="y")) == []
    assert names(plan(tmp_path, source=source, OUTPUTS="z")) == [("error", "operator")]


def test_gelu_is_known_by_its_parts(tmp_path: Path) -> None:
    def constant(name: str, value: float) -> onnx.NodeProto:
        return make.make_node("Constant", [], [name], value_float=value)

    gelu = [
        constant("root", 2**0.5), constant("one", 1.0),
        make.make_node("Div", ["c", "root"], ["d"]), make.make_node("Erf", ["d"], ["e"]),
        make.make_node("Add", ["e", "one"], ["a"]), make.make_node("Mul", ["c", "a"], ["y"]),
    ]  # fmt: skip
    assert names(plan(tmp_path, source=network(tmp_path / "a.onnx", *gelu))) == []
    alone = with_operator(tmp_path / "b.onnx", "Erf")
    assert names(plan(tmp_path, source=alone)) == [("error", "operator")]


def test_a_default_that_tpu_mlir_has_otherwise() -> None:
    table = load_table("1.7")
    said = [
        trouble(table, make.make_node("Elu", ["x"], ["y"], **attributes), "cv181x", ["int8"])
        for attributes in ({}, {"alpha": 1.0})
    ]
    assert "computes something else" in said[0]["read"]
    assert said[1] == {}


def test_an_unmeasured_toolchain_is_not_judged(tmp_path: Path) -> None:
    source = with_operator(tmp_path / "net.onnx", "Sin")
    assert names(plan(tmp_path, source=source, version="1.30.2")) == []


# --- memory ------------------------------------------------------------------------------------


def test_ion_memory_of_a_known_network(tmp_path: Path) -> None:
    """YOLO11n: 8.67 MB when it is built in INT8, 16.2 MB in BF16."""
    from tpumake import onnx_io
    from tpumake.preflight.graph import graph_of

    source = ROOT / "models/yolo11n.onnx"
    wanted = plan(tmp_path, source=source, INPUT_SHAPES="[[1,3,640,640]]", OUTPUTS="auto")
    graph, _ = graph_of(wanted, onnx_io.load(source))
    for precision, built in (("int8", 8.67), ("bf16", 16.2)):
        estimate = size.ion_bytes(graph, precision) / size.MEGA
        assert abs(estimate / built - 1) < 0.15, (precision, estimate)


@pytest.mark.parametrize(
    ("sides", "expected"),
    [(16, []), (2600, [("warning", "ion")]), (9000, [("error", "ion")])],
)
def test_ion_memory_of_large_networks(
    tmp_path: Path, sides: int, expected: list[tuple[str, str]]
) -> None:
    shape = (1, 3, sides, sides)
    source = network(tmp_path / "net.onnx", shape=shape, weights=1)
    text = str([list(shape)]).replace(" ", "")
    wanted = plan(
        tmp_path, source=source, INPUT_SHAPES=text, refused={"int8": ""}, QUANT_OUTPUT="1"
    )
    assert names(wanted) == expected
    wanted.device = "none"
    assert names(wanted) == []


# --- classes and pictures ----------------------------------------------------------------------


def test_labels_that_are_too_few(tmp_path: Path) -> None:
    labels = tmp_path / "names"
    labels.write_text("a\n")
    wanted = plan(tmp_path, labels=labels)
    assert names(wanted) == [("warning", "classes")]
    labels.write_text("a\nb\n")
    assert names(wanted) == []
    labels.unlink()
    assert names(wanted) == [("error", "classes")]


def test_labels_beside_the_heads_channels(tmp_path: Path) -> None:
    """The network has 4 classes, which its cut head shows."""
    labels = tmp_path / "names"
    labels.write_text("a\nb\n")
    wanted = plan(tmp_path, source=ROOT / "models/tiny.onnx", INPUT_SHAPES="[[1,3,64,64]]",
                  OUTPUTS="auto", labels=labels)  # fmt: skip
    assert ("warning", "classes") in names(wanted)


@pytest.mark.parametrize(
    ("make_file", "said"),
    [
        (lambda path: None, "there is no"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.write_text("no picture"), "a picture can't be decoded"),
        (lambda path: path.write_bytes(picture(path).read_bytes()[:200]), "can't be decoded"),
    ],
)
def test_test_inputs(tmp_path: Path, make_file: object, said: str) -> None:
    path = tmp_path / "test.jpg"
    make_file(path)
    wanted = plan(tmp_path, test_inputs=[path])
    (one,) = found(wanted)
    assert (one.severity, one.name) == ("error", "test-input")
    assert said in str(one)
    wanted.validating = False
    assert found(wanted) == []


def test_a_tensor_as_test_input(tmp_path: Path) -> None:
    for sides, expected in (((1, 3, 16, 16), []), ((1, 3, 8, 8), [("error", "test-input")])):
        np.save(tmp_path / "test.npy", np.zeros(sides, np.float32))
        wanted = plan(tmp_path, test_inputs=[tmp_path / "test.npy"], FUSE_PREPROCESS="0")
        assert names(wanted) == expected


@pytest.mark.parametrize(
    ("counts", "values", "expected", "said"),
    [
        ({".jpg": 20}, {"INPUT_NUM": "20"}, [], ""),
        ({".jpg": 5}, {"INPUT_NUM": "20"}, [("warning", "few-samples")], "5 of the 20"),
        ({".jpg": 9}, {"INPUT_NUM": "3"}, [("warning", "few-samples")], "3 to calibrate with"),
        ({".txt": 20}, {}, [("error", "dataset")], "has no pictures"),
        ({".zip": 1}, {}, [("error", "dataset")], "unpack it"),
        ({".mp4": 1}, {}, [("error", "dataset")], "ffmpeg"),
        ({".heic": 9}, {}, [("error", "dataset")], "export them as JPEG"),
        ({".npz": 20}, {"INPUT_NUM": "20"}, [("error", "dataset")], "takes pictures"),
        ({".npz": 9, ".jpg": 9}, {}, [("error", "dataset")], "one kind"),
        ({".jpg": 20}, {"INPUT_NUM": "20", "CHANNEL_FORMAT": "none"}, [("error", "dataset")],
         "no input is one"),
    ],
)  # fmt: skip
def test_datasets(
    tmp_path: Path, counts: dict, values: dict, expected: list[tuple[str, str]], said: str
) -> None:
    wanted = plan(tmp_path, dataset=tmp_path, counts=counts, **values)
    assert names(wanted) == expected
    assert not said or said in str(found(wanted)[0])


def test_a_dataset_that_is_not_there(tmp_path: Path) -> None:
    assert names(plan(tmp_path, dataset=tmp_path / "no")) == [("error", "dataset")]


def test_pictures_unlike_the_test_picture(tmp_path: Path) -> None:
    samples = [picture(tmp_path / f"{number}.jpg") for number in range(3)]
    more = {"dataset": tmp_path, "counts": {".jpg": 8}, "samples": samples, "INPUT_NUM": "8"}
    for test, expected in (
        (picture(tmp_path / "like.png", 640, 480), []),
        (picture(tmp_path / "tall.png", 48, 640), [("warning", "samples")]),
        (picture(tmp_path / "grey.png", mode="L"), [("warning", "samples")]),
    ):
        assert names(plan(tmp_path, test_inputs=[test], **more)) == expected
    for path in samples:
        path.write_text("no picture")
    assert names(plan(tmp_path, **more)) == [("error", "dataset")]


def test_pictures_that_are_much_smaller_than_the_input(tmp_path: Path) -> None:
    samples = [picture(tmp_path / "a.jpg", 20, 20)]
    source = network(tmp_path / "net.onnx", shape=(1, 3, 640, 640))
    wanted = plan(tmp_path, source=source, INPUT_SHAPES="[[1,3,640,640]]", dataset=tmp_path,
                  counts={".jpg": 8}, samples=samples, INPUT_NUM="8")  # fmt: skip
    assert names(wanted) == [("warning", "samples")]


# --- the stanza, and what is told of all of it ---------------------------------------------------


def test_a_wrong_stanza_is_told_alone(tmp_path: Path) -> None:
    wanted = plan(tmp_path, stanza={"SCAL": "1", "MEAN": "x"}, SCALE="255")
    said = "\n".join(map(str, found(wanted)))
    assert "m_SCAL: there is no such variable; did you mean m_SCALE?" in said
    assert "m_ONNX: it is not set, nor PT" in said
    assert "m_MEAN = x: must be a number" in said
    assert "255" not in said


def test_a_precision_that_the_chip_lacks(tmp_path: Path) -> None:
    wanted = plan(tmp_path, refused={"f16": "cv181x does not compute in F16"})
    assert names(wanted) == [("error", "variant")]


def test_what_is_silenced_is_not_told(tmp_path: Path) -> None:
    wanted = plan(tmp_path, SCALE="1", MEAN="1,1,1")
    assert names(wanted) == [("warning", "scale"), ("warning", "mean")]
    wanted.values["SILENCE"] = "scale"
    assert names(wanted) == [("warning", "mean")]
    wanted.values["SCALE"] = "255"
    wanted.values["SILENCE"] = "scale mean"
    assert names(wanted) == []


def test_the_important_comes_first() -> None:
    these = [
        Finding("few-samples", "warning", "a", "b"), Finding("scale", "warning", "a", "b"),
        Finding("ion", "error", "a", "b"), Finding("missing", "error", "a", "b"),
        Finding("missing", "error", "a", "b"),
    ]  # fmt: skip
    assert [one.name for one in in_order(these)] == ["missing", "ion", "scale", "few-samples"]
    assert [one.name for one in kept(these, ["missing", "ion"])][:2] == ["few-samples", "scale"]
    assert told(these[:1]) == "warning: a: b [few-samples]"


def test_every_finding_is_in_the_document() -> None:
    text = (ROOT / "docs/preflight.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)`", text, re.M)
    assert sorted(set(rows)) == sorted(NAMES)
    used = "".join(path.read_text() for path in (ROOT / "scripts").rglob("*.py"))
    for name in NAMES:
        assert used.count(f'"{name}"') > 1, name
    assert set(NAMES) >= FIRM


# --- the machine ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"system": "Darwin"}, "it is Darwin"),
        ({"machine": "aarch64"}, "Linux on aarch64"),
        ({"libc": "glibc 2.31"}, "needs glibc 2.35 or newer"),
        ({"libc": "musl"}, "its C library is musl"),
        ({"flags": "flags\t: sse4_2 avx"}, "no avx2"),
    ],
)
def test_a_host_that_cannot_run_the_tools(given: dict[str, str], said: str) -> None:
    fine = {"system": "Linux", "machine": "x86_64", "libc": "glibc 2.36",
            "flags": "flags : sse4_2 avx avx2 fma"}  # fmt: skip
    assert machine.check_host(**fine) == []
    (one,) = machine.check_host(**fine | given)
    assert one.severity == "error"
    assert said in one.what


def test_a_toolchain_that_is_not_complete(tmp_path: Path) -> None:
    (absent,) = machine.check_toolchain(tmp_path)
    assert absent.severity == "warning"
    (tmp_path / "ready").touch()
    (broken,) = machine.check_toolchain(tmp_path)
    assert broken.severity == "error"
    assert "it is not complete: run, bin/python3" in broken.what


def test_the_clock() -> None:
    now = machine.EARLIEST + 1e6
    assert machine.check_clock(now, now) == []
    assert [one.severity for one in machine.check_clock(now, now + 60)] == ["warning"]
    assert [one.severity for one in machine.check_clock(1e6, 1e6)] == ["error"]


def test_room(tmp_path: Path) -> None:
    assert machine.check_room(tmp_path / "build", 1, 1) == []
    said = machine.check_room(tmp_path / "build", 10**18, 10**18)
    assert [(one.severity, one.name) for one in said] == [("error", "disk"), ("error", "memory")]


def test_shared_memory(tmp_path: Path) -> None:
    assert machine.check_shared_memory(tmp_path) == []
    assert machine.check_shared_memory(tmp_path / "no")[0].severity == "error"


def test_another_make(tmp_path: Path) -> None:
    from tpumake.files import locked

    (tmp_path / ".work").mkdir()
    with locked(tmp_path / ".work" / "tiny-logs-int8.lock"):
        (one,) = machine.check_other_makes(tmp_path)
    assert "tiny-logs-int8" in one.what
    assert machine.check_other_makes(tmp_path) == []


def test_a_cache_of_no_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.check_cache(tmp_path / "a" / "b", "5G") == []
    assert machine.check_cache(tmp_path, "much")[0].severity == "error"
    monkeypatch.setenv("CACHE_REMOTE", "nowhere")
    (found,) = machine.check_cache(tmp_path, "5G")
    assert (found.severity, found.where) == ("error", "CACHE_REMOTE")


# --- all of it, as make has it -------------------------------------------------------------------


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return copy_project(tmp_path_factory.mktemp("check") / "a check out")


def test_check_tells_all_at_once_and_builds_nothing(project: Checkout) -> None:
    (project.path / "no picture.jpg").write_text("text")
    done = project.make(
        "tiny.check", "JSON=1", "tiny_SCALE=255,255,255", "tiny_TEST_INPUT=no picture.jpg",
        "tiny_INPUT_NUM=500", "tiny_VARIANTS=f16 int8", check=False,
    )  # fmt: skip
    assert done.returncode == 2
    report = json.loads(done.stdout)
    jsonschema.validate(report, REPORT)
    listed = [one["name"] for one in report["findings"]]
    assert listed == ["variant", "test-input", "scale", "few-samples"]
    assert (report["target"], report["errors"], report["warnings"]) == ("tiny", 3, 1)
    assert {path.name for path in (project.path / "build").iterdir()} == {"tiny"}


@pytest.mark.slow
def test_a_build_tells_its_warnings_once(project: Checkout, tmp_path: Path) -> None:
    goals = (f"{tmp_path}/tiny/logs/stanza.key", "tiny_INPUT_NUM=500", f"BUILD={tmp_path}")
    said = project.make(*goals).stdout
    assert re.search(r"tiny +check +warning: tiny_DATASET: .* of the 500", said)
    assert "warning: " not in project.make(*goals).stdout
    assert "warning: " not in project.make(*goals, "tiny_SILENCE=few-samples").stdout


def test_the_doctor_looks_at_machine_and_models(project: Checkout) -> None:
    done = project.make("doctor", check=False)
    lines = done.stdout.splitlines()
    assert any(line.startswith("this machine: ") for line in lines)
    assert any(line.startswith("yolo11n_coco: ") and "DATASET" in line for line in lines)
    assert "tiny: nothing to complain of" in lines


def test_the_doctor_needs_no_helpers(project: Checkout, tmp_path: Path) -> None:
    done = project.make(
        "doctor", f"VENV={tmp_path}/none", "JSON=1", "PYTHON=python3 -S", check=False
    )
    report = json.loads(done.stdout)
    jsonschema.validate(report, REPORT)
    assert "python" in {one["name"] for one in report["findings"]}


def test_a_check_is_quick(project: Checkout, record_property: object) -> None:
    """Under two seconds on an idle machine: CPU time, for others may be at work on this one."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    project.make("yolo11n_int8.check")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    record_property("figure", f"make yolo11n_int8.check: {seconds:.2f} s of CPU")
    assert seconds < 1.6


@pytest.mark.toolchain
@pytest.mark.full
def test_the_table_of_operators_is_what_tpu_mlir_does(toolchain: object, tmp_path: Path) -> None:
    measured = tmp_path / "table.json"
    script = ROOT / "training/measure_operators.py"
    done = toolchain.run(["python3", str(script), "1.7", str(measured)], tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    committed = ROOT / "scripts/tpumake/preflight/operators-1.7.json"
    assert json.loads(measured.read_text()) == json.loads(committed.read_text())
