"""Builds with the real tpu_mlir: from the network to a model that ran on the emulator."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import told_by_model_tool
from conftest import ROOT, Checkout, Toolchain, copy_checkout
from PIL import Image

from tpumake.cvimodel_reader import read_cvimodel

pytestmark = [pytest.mark.toolchain, pytest.mark.slow]

MODEL = "build/tiny/cv181x/tiny_int8.cvimodel"


def stages(output: str) -> list[str]:
    """The stages that ran, by the second column of what was shown."""
    return [line.split()[1] for line in output.splitlines() if line.endswith(" s")]


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_keys_of_its_stages_can_be_looked_at(built: Checkout) -> None:
    said = built.make("tiny_int8.key").stdout
    stages = re.findall(r"^(\S+)  ([0-9a-f]{64})$", said, re.M)
    assert [name for name, _ in stages] == [
        "downgrade", "shapes-16", "transform", "calibrate", "int8",
    ]  # fmt: skip
    assert re.search(r"^  input       [0-9a-f]{16}  tiny.mlir \(made by transform\)$", said, re.M)
    assert "--quantize INT8" in said
    assert "requirements/tpu_mlir-1.7.txt" in said
    document = json.loads(built.make("tiny_int8.key", "JSON=1").stdout)
    assert [one["digest"] for one in document] == [digest for _, digest in stages]


def test_the_model_is_one_that_the_chip_takes(built: Checkout) -> None:
    """Header of a cvimodel: magic, body size, version, MD5 of all that follows it, chip."""
    data = (built.path / MODEL).read_bytes()
    assert data[:8] == b"CviModel"
    assert (data[12], data[13]) == (1, 4)
    assert data[14:30] == hashlib.md5(data[48:]).digest()
    assert data[30:46].rstrip(b"\0") == b"cv181x"


def test_the_outputs_alternate_as_the_camera_wants_them(
    built: Checkout, toolchain: Toolchain
) -> None:
    info = toolchain.run(["model_tool", "--info", str(built.path / MODEL)], built.path).stdout
    line = next(line for line in info.splitlines() if line.strip().startswith("outputs"))
    branches = [f"cv{branch}.{stride}" for stride in range(3) for branch in (2, 3)]
    names = line.partition(":")[2].strip().split(",")
    assert [name.split("/")[2] for name in names] == branches


def test_its_description_is_what_model_tool_says(built: Checkout, toolchain: Toolchain) -> None:
    said = toolchain.run(["model_tool", "--info", str(built.path / MODEL)], built.path).stdout
    told = json.loads(built.make("tiny_int8.info", "JSON=1").stdout)
    assert told_by_model_tool.of_cvimodel(said) == told_by_model_tool.cvimodel_alike(told)
    assert told["checksum"]["right"] is True
    assert told["programs"][0]["inputs"][0]["pixel_format"] == "RGB_PACKED"
    assert "images_raw (RGB_PACKED, aligned)" in built.make("tiny_int8.info").stdout


def test_it_keeps_the_cameras_contract(built: Checkout) -> None:
    """Its side-car is there, and `.info` tells what the camera will make of it."""
    data = (built.path / MODEL).read_bytes()
    side_car = json.loads((built.path / MODEL).with_suffix(".json").read_text())
    assert side_car["classes"] == ["circle", "square", "triangle", "star"]
    assert side_car["checksum"] == hashlib.md5(data).hexdigest()
    held = json.loads(built.make("tiny_int8.info", "JSON=1").stdout)["contract"]
    assert (held["decoder"], held["classes"], held["kept"]) == ("YOLO11", 4, True)
    assert held["findings"] == []
    assert "decoder        YOLO11 (detect)" in built.make("tiny_int8.info").stdout


def test_it_was_compared_and_ran_on_the_emulator(built: Checkout) -> None:
    log = (built.path / "build/tiny/cv181x/logs/int8.log").read_text()
    assert "Start TPU Simulator for cv181x" in log
    assert log.count(" compared, ") == 2
    transform = (built.path / "build/tiny/logs/transform.log").read_text()
    assert "151 compared, 151 passed" in transform


def test_nothing_but_results_and_logs_is_left(built: Checkout) -> None:
    build = built.path / "build"
    found = {str(path.relative_to(build)) for path in build.rglob("*") if path.is_file()}
    found = {name for name in found if not name.startswith(".code/")}
    found = {name for name in found if "/Calibration" not in name and name[-5:] != ".lock"}
    assert found == {
        ".digests",
        "datasets/logs/shapes-16.key",
        "datasets/logs/shapes-16.log",
        "datasets/shapes-16.parameters",
        "datasets/shapes-16/manifest.json",
        "tiny/calibrate.parameters",
        "tiny/cv181x/contract.parameters",
        "tiny/cv181x/int8.parameters",
        "tiny/cv181x/logs/int8.contract.key",
        "tiny/cv181x/logs/int8.contract.log",
        "tiny/cv181x/logs/int8.key",
        "tiny/cv181x/logs/int8.log",
        "tiny/cv181x/tiny_int8.cvimodel",
        "tiny/cv181x/tiny_int8.json",
        "tiny/downgrade.parameters",
        "tiny/logs/calibrate.key",
        "tiny/logs/calibrate.log",
        "tiny/logs/downgrade.key",
        "tiny/logs/downgrade.log",
        "tiny/logs/stanza.key",
        "tiny/logs/stanza.log",
        "tiny/logs/transform.key",
        "tiny/logs/transform.log",
        "tiny/stanza.parameters",
        "tiny/tiny.mlir",
        "tiny/tiny_calib_table",
        "tiny/tiny_in_f32.npz",
        "tiny/tiny_top_f32_all_weight.npz",
        "tiny/tiny_top_outputs.npz",
        "tiny/tiny_v8.onnx",
        "tiny/transform.parameters",
    }


def test_a_second_run_does_nothing_and_says_so(built: Checkout) -> None:
    before = digests(built.path / "build")
    done = built.make("tiny_int8")
    assert done.stdout == "tiny_int8 is up to date.\n"
    assert digests(built.path / "build") == before


def test_the_same_without_a_stanza_is_already_built(built: Checkout, tmp_path: Path) -> None:
    """What `convert` infers about tiny is what its stanza says, so not a stage runs."""
    subprocess.run(["cp", "-a", built.path, tmp_path / "check out"], check=True)
    own = Checkout(tmp_path / "check out")
    words = ("MODEL=models/tiny.onnx", "IMAGES=datasets/shapes", "INPUT_NUM=16")
    said = own.make("convert", *words).stdout
    assert stages(said) == []
    assert said.endswith(
        f"tiny_int8 is up to date.\n→ {MODEL}\n  to keep its stanza: make add {' '.join(words)}\n"
    )
    # With another scale it is another model.
    assert "--scale '1,1,1'" in own.make("-n", "convert", *words, "SCALE=1").stdout


def test_the_network_is_live(built: Checkout) -> None:
    """On a network whose outputs are constants every comparison passes; this one's are not."""
    with np.load(built.path / "build/tiny/tiny_top_outputs.npz") as outputs:
        heads = [name for name in outputs.files if "model.23/cv" in name and ".2/Conv_" in name]
        assert heads
        assert min(outputs[name].std() for name in heads) > 0.1


@pytest.fixture(scope="module")
def second(built: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A copy of what is built, for tests that go on from there."""
    copy = copy_checkout(built, tmp_path_factory.mktemp("second") / "check out")
    assert copy.make("tiny_int8").stdout == "tiny_int8 is up to date.\n"
    return copy


def test_another_variant_reuses_what_does_not_depend_on_it(second: Checkout) -> None:
    done = second.make("tiny_bf16")
    assert stages(done.stdout) == ["bf16"]
    assert "emulator ok" in done.stdout


def test_another_chip_reuses_what_does_not_depend_on_it(second: Checkout) -> None:
    done = second.make("tiny_int8", "CHIP=cv180x")
    assert stages(done.stdout) == ["int8"]
    assert (second.path / "build/tiny/cv180x/tiny_int8.cvimodel").exists()
    assert second.make("tiny_int8").stdout == "tiny_int8 is up to date.\n"


def test_a_list_of_good_and_bad_ones(second: Checkout) -> None:
    """One that is there, one to build, one for another chip, one whose pictures are missing."""
    bad = "bad_ONNX = models/tiny.onnx\nbad_INPUT_SHAPES = [[1,3,64,64]]\n"
    bad += "bad_DATASET = no/pictures\n$(eval $(call model,bad))\n"
    stanzas = second.path / "models.mk"
    before = stanzas.read_text()
    stanzas.write_text(f"{before}\n{bad}")
    (second.path / "full_cases.txt").write_text(
        "tiny_int8\nbad # fails\ntiny_bf16 CHIP=cv182x\ntiny_int8\n"
    )
    done = second.make("LIST=full_cases.txt", "all", "-k", "-j2", "JSON=1", check=False)
    stanzas.write_text(before)
    assert done.returncode == 2
    told = json.loads(done.stdout)
    assert [(each["target"], each["chip"], each["status"]) for each in told["targets"]] == [
        ("tiny_int8", "cv181x", "up to date"),
        ("bad_int8", "cv181x", "failed"),
        ("tiny_bf16", "cv182x", "built"),
    ]
    there, bad, new = told["targets"]
    assert 0.9 < there["lowest_cosine"] < new["lowest_cosine"] < 1
    assert there["size"] == (second.path / MODEL).stat().st_size
    assert "no/pictures: there is no such file or folder; " in bad["causes"][0]["cause"]
    assert re.search(r"^1 built, 1 up to date, 1 failed; ", done.stderr, re.M)


def test_a_result_below_the_tolerance_fails_and_nothing_is_lost(second: Checkout) -> None:
    before = (second.path / MODEL).read_bytes()
    done = second.make("tiny_int8", "tiny_INT8_TOLERANCE=0.9999,0.9999", check=False)
    assert done.returncode == 2
    assert "of 6 tensors agree" in done.stderr
    assert "log: build/tiny/cv181x/logs/int8.log" in done.stderr
    assert "Traceback" not in done.stderr
    # The earlier model was good by its own parameters, is not lost, and is good by them again.
    assert (second.path / MODEL).read_bytes() == before
    assert stages(second.make("tiny_int8").stdout) == []


def test_a_model_that_breaks_the_contract_is_put_aside(second: Checkout) -> None:
    """And comes back, without being built again, when what was wrong is put right."""
    model, before = second.path / MODEL, (second.path / MODEL).read_bytes()
    labels = second.path / "labels.txt"
    labels.write_text("one\ntwo\nthree\n")
    argument = "tiny_LABELS=labels.txt"
    for _ in range(2):
        done = second.make("tiny_int8", argument, check=False)
        assert done.returncode == 2
        assert "finds 4 classes in it, and there are 3 names; tiny_LABELS = " in done.stderr
        assert "put aside" in done.stderr
        assert "→" not in done.stdout
        assert not model.exists()
        assert not model.with_suffix(".json").exists()
        assert Path(f"{model}.refused").read_bytes() == before
    labels.write_text("one\ntwo\nthree\nvier\n")
    said = second.make("tiny_int8", argument).stdout
    assert stages(said) == []
    assert re.search(r"^tiny +contract +reCamera: YOLO11 decoder, 4 classes, ION 0.1 of 50 MB$",
                     said, re.M)  # fmt: skip
    assert "tiny_int8.json recamera@192.168.42.1:/userdata/Models/model.json" in said
    assert model.read_bytes() == before
    assert not Path(f"{model}.refused").exists()
    assert json.loads(model.with_suffix(".json").read_text())["classes"][3] == "vier"
    # Other names are no reason to deploy again.
    assert stages(second.make("tiny_int8").stdout) == []


def test_a_wrong_shape_is_one_line(second: Checkout) -> None:
    done = second.make("tiny_int8", "tiny_INPUT_SHAPES=[[1,4,64,64]]", check=False)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert len(lines) == 2
    assert "tiny_INPUT_SHAPES: [1, 4, 64, 64], but the network's images is 1×3×64×64" in lines[0]
    assert "transform" not in done.stdout


def test_mixed_precision_where_int8_is_good_enough_is_int8(second: Checkout) -> None:
    said = second.make("tiny_mix").stdout
    assert "INT8 is good enough: cosine 0.99" in said
    models = second.path / "build/tiny/cv181x"
    assert (models / "tiny_mix.cvimodel").read_bytes() == (
        models / "tiny_int8.cvimodel"
    ).read_bytes()


def test_mixed_precision_keeps_layers_in_float(second: Checkout, toolchain: Toolchain) -> None:
    search = ("tiny_QTABLE_INPUT_NUM=1", "tiny_MIN_LAYER_COS=0.999", "tiny_EXPECTED_COS=0.996")
    said = second.make("tiny_mix", *search).stdout
    found = re.search(r"(\d+) float layers: cosine of INT8 ([\d.]+) → ([\d.]+)", said)
    assert found
    assert float(found[2]) < 0.996 < float(found[3])
    models = second.path / "build/tiny/cv181x"
    table = (models / "tiny_qtable").read_text()
    assert len(re.findall(r"^/\S+ BF16$", table, re.M)) == int(found[1])
    assert "Cos: 0.9" in (models / "tiny_loss_table.txt").read_text()
    assert (models / "tiny_mix.cvimodel").stat().st_size > (
        models / "tiny_int8.cvimodel"
    ).stat().st_size


def test_a_test_picture_that_is_none_is_told_and_nothing_is_lost(second: Checkout) -> None:
    (second.path / "junk.jpg").write_text("no picture")
    before = digests(second.path / "build/tiny")
    done = second.make("tiny_int8", "tiny_TEST_INPUT=junk.jpg", check=False)
    assert done.returncode == 2
    assert "a picture can't be decoded" in done.stderr
    assert "Deleting" not in done.stderr + done.stdout
    after = digests(second.path / "build/tiny")
    assert {name for name in before if before[name] != after.get(name)} <= {
        "transform.parameters", "stanza.parameters", "logs/transform.log", "logs/stanza.log",
        "logs/stanza.key", "logs/transform.failed",
    }  # fmt: skip


def test_ones_own_pictures_of_all_kinds(checkout: Checkout, tmp_path: Path) -> None:
    photos = tmp_path / "meine Photos" / "Sommer"
    photos.mkdir(parents=True)
    generator = np.random.default_rng(3)
    kinds = "webp RGB, png RGBA, bmp RGB, tiff RGB, jpg L, png P"
    for number, kind in enumerate(kinds.split(", ") * 2):
        suffix, mode = kind.split()
        pixels = generator.integers(0, 256, (40 + number, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(photos / f"ein Bild {number}.{suffix}")
    argument = f"tiny_DATASET={photos.parent}"
    done = checkout.make("tiny_int8", argument, "tiny_INPUT_NUM=50", "tiny_TUNE_NUM=0")
    assert "12 of 50" in done.stdout
    assert "12 pictures, 152 thresholds" in done.stdout
    assert "emulator ok" in done.stdout


def test_without_validation_it_is_quick_and_says_so(built: Checkout, tmp_path: Path) -> None:
    copy = copy_checkout(built, tmp_path / "check out")
    done = copy.make("tiny_int8", "VALIDATE=0", "V=1")
    assert "not validated (VALIDATE=0)" in done.stdout
    assert (copy.path / MODEL).read_bytes() == (built.path / MODEL).read_bytes()
    assert "Simulator" not in (copy.path / "build/tiny/cv181x/logs/int8.log").read_text()
    # V=1 shows what the tools say.
    assert "Save mlir file" in done.stdout


def test_the_emulators_tolerance_is_a_variable(toolchain: Toolchain, tmp_path: Path) -> None:
    """The comparison of the emulator's results, as model_deploy starts it; others keep theirs."""
    values = np.linspace(-1, 1, 1000, dtype=np.float32)
    noise = np.random.default_rng(0).normal(0, 0.05, 1000).astype(np.float32)
    names = ("m_model_outputs.npz", "m_tpu_outputs.npz")
    for name in names:
        np.savez(tmp_path / name, x=values + noise)
    np.savez(tmp_path / "reference.npz", x=values)
    tools = {
        "TPUMAKE_TOOLS": str(ROOT / "scripts/toolchain_bin"),
        "TPUMAKE_SCRIPTS": str(ROOT / "scripts"),
        "TPUMAKE_PYTHON": sys.executable,
    }

    def compare(name: str, **environment: str) -> int:
        command = ["npz_tool.py", "compare", name, "reference.npz", "--tolerance", "0.99,0.99"]
        line = " ".join(command)
        env = os.environ | tools | environment
        return subprocess.run(
            [toolchain.program, "sh", "-c", line], cwd=tmp_path, env=env, check=False
        ).returncode

    assert [compare(name) for name in names] == [1, 1]
    assert [compare(name, TPUMAKE_MODEL_TOLERANCE="0.9,0.8") for name in names] == [0, 1]


def test_the_reader_of_cvimodels_agrees_with_the_tools_own(
    built: Checkout, toolchain: Toolchain
) -> None:
    file = read_cvimodel(built.path / MODEL)
    info = toolchain.run(["model_tool", "--info", str(built.path / MODEL)], built.path).stdout
    (program,) = file.model.programs
    rows = {row[-1]: row for row in map(str.split, info.splitlines()) if row and row[0].isdigit()}
    for each in file.model.sections:
        digest = hashlib.md5(file.section(each)).hexdigest()
        row = [each.type.name.lower(), each.name, str(each.size), str(each.offset), digest]
        assert rows[digest][1:] == row
    for each in file.model.weight_map:
        kind, dims = each.type.name.lower(), [str(size) for size in each.shape.dim]
        assert rows[each.name][1:-1] == [str(each.start), str(each.size), kind, *dims]
    for each in program.tensor_map:
        assert rows[each.name][2:7] == [
            each.dtype.name.lower(), *(str(size) for size in each.shape.dim),
        ]  # fmt: skip
    assert f"For {file.model.target} chip ONLY" in info
    assert f"Mlir Version: {file.model.mlir_version}" in info
    assert file.header.md5 == hashlib.md5(file.flatbuffer + file.binary).digest()
