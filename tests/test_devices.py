"""Device profiles, and telling what each of them wants of a network."""

from __future__ import annotations

import json
import re
from pathlib import Path

import heads
import jsonschema
import onnx
import pytest
from conftest import ROOT, Checkout, copy_project, helper, makefile_text

from tpumake import devices, profiles
from tpumake.detection_head import find_head

SCHEMAS = {
    name: json.loads((ROOT / f"schemas/{name}.schema.json").read_text())
    for name in ("device", "outputs", "stanza")
}
MAKEFILE = makefile_text()


@pytest.mark.parametrize("name", profiles.names())
def test_profiles_are_what_their_schema_says(name: str) -> None:
    profile = profiles.read(name)
    jsonschema.Draft202012Validator(SCHEMAS["device"]).validate(profile)
    assert profile["name"] == name
    # Whoever reads a note must be able to act on it without the file.
    for kind, entry in profile["heads"].items():
        assert entry["decoder"] or "note" in entry or kind == "other", kind


def test_the_stanza_may_name_each() -> None:
    assert sorted(SCHEMAS["stanza"]["properties"]["DEVICE"]["enum"]) == profiles.names()


def test_the_makefile_has_what_profiles_say_of_the_input() -> None:
    """Make reads no JSON, so it says some of it again."""
    inputs = {name: profiles.read(name)["input"] for name in profiles.names()}
    listed = dict(re.findall(r"^(UNFUSED|PLANAR) +:= (.*)$", MAKEFILE, re.M))
    given = {name: each for name, each in inputs.items() if each}
    assert listed["UNFUSED"].split() == [n for n, i in given.items() if not i["fuse_preprocess"]]
    assert listed["PLANAR"].split() == [n for n, i in given.items() if i["format"] == "RGB_PLANAR"]
    assert {each["format"] for each in given.values()} == {None, "RGB_PACKED", "RGB_PLANAR"}


@pytest.mark.parametrize("name", ["recamer", "toaster"])
def test_an_unknown_device(name: str, tmp_path: Path) -> None:
    done = helper(
        "onnx_downgrade", ROOT / "models/tiny.onnx", tmp_path / "x.onnx", "--device", name
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    hint = "did you mean recamera?" if name == "recamer" else "there are: maixcam, milkv, none"
    assert f"DEVICE={name}: there is no such device; {hint}" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """For tests that build nothing."""
    return copy_project(tmp_path_factory.mktemp("devices") / "check out")


def test_the_network_is_cut_as_the_device_wants(tmp_path: Path) -> None:
    whole = onnx.load(ROOT / "models/tiny.onnx")
    for device in profiles.names():
        target = tmp_path / f"{device}.onnx"
        done = helper(
            "onnx_downgrade", ROOT / "models/tiny.onnx", target, "--outputs", "auto",
            "--device", device,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        names = [value.name for value in onnx.load(target).graph.output]
        chosen = devices.select(find_head(whole), profiles.read(device)).names()
        assert names == (chosen or ["output0"]), device


def test_a_note_on_the_device_is_told(tmp_path: Path) -> None:
    network = tmp_path / "pose.onnx"
    onnx.save(heads.load("yolo11-pose"), network)
    done = helper("onnx_downgrade", network, tmp_path / "out.onnx", "--outputs", "auto")
    first, last = done.stdout.splitlines()
    assert "build mix or bf16" in first
    assert last.startswith("opset 18 → 17")


def test_whole_networks_keep_the_order_of_their_outputs(tmp_path: Path) -> None:
    """Older exporters compute the prototypes of masks before the boxes."""
    model = heads.load("yolov8-seg")
    makers = {name: node for node in model.graph.node for name in node.output}
    waiting, first = ["output1"], []
    while waiting:
        node = makers.pop(waiting.pop(), None)
        if node is not None:
            first.append(node.SerializeToString())
            waiting += node.input
    nodes = [each for each in model.graph.node if each.SerializeToString() in set(first)]
    nodes += [each for each in model.graph.node if each.SerializeToString() not in set(first)]
    copies = [onnx.NodeProto.FromString(each.SerializeToString()) for each in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    onnx.save(model, tmp_path / "seg.onnx")
    done = helper(
        "onnx_downgrade", tmp_path / "seg.onnx", tmp_path / "v8.onnx", "--outputs", "auto"
    )
    assert "head cut" not in done.stdout
    written = [name for node in onnx.load(tmp_path / "v8.onnx").graph.node for name in node.output]
    before = [name for node in copies for name in node.output]
    assert before.index("output1") < before.index("output0")
    assert written.index("output0") < written.index("output1")


def shown(name: str, tmp_path: Path, *arguments: str) -> dict:
    network = tmp_path / f"{name}.onnx"
    onnx.save(heads.load(name), network)
    done = helper("show_outputs", network, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    jsonschema.Draft202012Validator(SCHEMAS["outputs"]).validate(document)
    return document


@pytest.mark.parametrize("name", ["yolo26-seg-e2e", "yolo11-obb"])
def test_outputs_as_json(name: str, tmp_path: Path) -> None:
    document = shown(name, tmp_path)
    expected = heads.EXPECTED[name]
    assert document["kind"] == expected.kind
    chosen = document["devices"]["recamera"]
    assert (chosen["decoder"], len(chosen["outputs"])) == (expected.decoder, expected.outputs)
    assert document["built"] == [each["name"] for each in chosen["outputs"]]
    assert shown(name, tmp_path, "--outputs", "a, b")["built"] == ["a", "b"]
    assert set(document["devices"]) == set(profiles.names())
    assert [level["stride"] for level in document["levels"]] == [8, 16, 32]


def test_outputs_as_a_table() -> None:
    done = helper("show_outputs", ROOT / "models/tiny.onnx", "--device", "maixcam")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("tiny.onnx: boxes of 4 classes")
    assert re.match(r"8 +box +1×64×8×8 +/model\.23/cv2\.0/\S+ +a mean over 16 bins", lines[2])
    (here,) = [line for line in lines if line.startswith("→")]
    assert re.match(r"→ +maixcam +YOLO11 +/model\.23/dfl/conv/Conv_output_0 +1×1×4×84", here)
    assert any(re.match(r" +recamera +YOLO11 +as milkv$", line) for line in lines)
    assert any("output0 (its own)" in line for line in lines)


def test_no_detector_is_told_in_one_line(tmp_path: Path) -> None:
    network = tmp_path / "classifier.onnx"
    onnx.save(heads.load("yolov8-cls"), network)
    done = helper("show_outputs", network)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "no detection head: it ends in a Gemm, as classifiers do" in done.stderr


@pytest.mark.slow
def test_make_shows_them(project: Checkout) -> None:
    done = project.make("tiny.outputs", "DEVICE=milkv", "JSON=1")
    document = json.loads(done.stdout)
    assert (document["device"], document["network"]) == ("milkv", "tiny.onnx")
    assert len(document["built"]) == 6
    for target, said in {
        "nothing.outputs": "there is no nothing",
        "tiny.outputs DEVICE=toaster": "DEVICE=toaster is not known; known are: maixcam milkv none",
    }.items():
        done = project.make(*target.split(), check=False)
        assert done.returncode == 2
        assert said in done.stderr


def test_the_device_chooses_the_input_form(project: Checkout) -> None:
    for device, fuse, form in (
        ("recamera", 1, "RGB_PACKED"), ("maixcam", 0, "RGB_PACKED"), ("milkv", 1, "RGB_PLANAR"),
    ):  # fmt: skip
        said = project.make("help", f"DEVICE={device}").stdout
        assert re.search(rf"_FUSE_PREPROCESS = {fuse} *$", said, re.M)
        assert re.search(rf"_CUSTOMIZATION_FORMAT = {form} *$", said, re.M)
