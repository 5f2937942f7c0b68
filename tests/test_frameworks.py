"""Networks of other frameworks, with the frameworks themselves: to ONNX, and on to a cvimodel."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import ROOT, Checkout, copy_project

from tpumake.labels import names_in

pytestmark = [pytest.mark.slow, pytest.mark.toolchain]

DATA = ROOT / "tests/data/frameworks"
EXTRAS = Path(os.environ.get("EXTRAS", ROOT / ".extras")).absolute()
SHAPE = "[[1,3,64,64]]"

STANZA = """
{name}_{kind}         = {source}
{name}_INPUT_SHAPES = [[1,3,64,64]]
{name}_SCALE        = 0.0039216,0.0039216,0.0039216
{name}_PIXEL_FORMAT = rgb
{name}_DATASET      = datasets/shapes
{name}_DEVICE       = none
{name}_INPUT_NUM    = 10
{name}_TUNE_NUM     = 0
{name}_OPT          = 1
$(eval $(call model,{name}))
"""


def imported(framework: str, *runs: list[str | Path]) -> list[tuple[int, str, str]]:
    """Run a framework's importer once for each list of arguments."""
    arguments = json.dumps([[str(word) for word in run] for run in runs])
    done = subprocess.run(
        [EXTRAS / framework / "run", ROOT / "tests/in_one_process.py",
         ROOT / f"scripts/import_{framework}.py", arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [tuple(one) for one in json.loads(done.stdout.splitlines()[-1])]


def refusals(framework: str, folder: Path, *sources: list[str | Path]) -> list[str]:
    """The lines with which an importer refuses these; nothing may be written."""
    runs = [[source, folder / "out.onnx", *rest] for source, *rest in sources]
    before = sorted(folder.rglob("*"))
    results = imported(framework, *runs)
    assert sorted(folder.rglob("*")) == before
    for code, said, complained in results:
        assert code == 2, (said, complained)
        assert complained.count("\n") == 1, complained
        assert "bug in tpumake" not in complained
        assert "Traceback" not in complained
    return [complained for _, _, complained in results]


def first_line(text: str) -> str:
    return text.rstrip().rsplit("\n", 1)[-1]


def assert_converted(result: tuple[int, str, str], target: Path, framework: str) -> None:
    code, said, complained = result
    assert code == 0, complained
    line = re.match(
        rf"opset (\d+), \d+ nodes, same outputs as {framework} \S+ \(largest difference (\S+)\)",
        first_line(said),
    )
    assert line, said
    assert int(line[1]) <= 17
    assert float(line[2]) < 0.1
    model = onnx.load(target)
    shape = [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim]
    assert shape == [1, 3, 64, 64]
    assert str(ROOT).encode() not in target.read_bytes()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout with a stanza for each kind of network."""
    project = copy_project(tmp_path_factory.mktemp("frameworks") / "check out")
    shutil.copytree(DATA, project.path / "their")
    with (project.path / "models.mk").open("a") as stanzas:
        for name, kind, file in (
            ("yolo", "PT", "yolo.pt"),
            ("script", "TORCHSCRIPT", "net.torchscript"),
            ("traced", "PT", "net.torchscript"),
            ("frozen", "PB", "net.pb"),
            ("saved", "SAVEDMODEL", "saved_model"),
            ("lite", "TFLITE", "net_int8.tflite"),
            ("paddle2", "PADDLE", "paddle2"),
            ("paddle3", "PADDLE", "paddle3"),
        ):
            stanzas.write(STANZA.format(name=name, kind=kind, source=f"their/{file}"))
    return project


def assert_built(project: Checkout, name: str, stage: str = "import") -> None:
    """It becomes an INT8 model, and is one on whose outputs a comparison means something."""
    said = project.make(f"{name}_int8").stdout
    assert "emulator ok" in said
    figure = re.search(rf"^{name}\s+int8\s.*lowest cosine ([\d.]+)", said, re.M)
    assert figure
    assert float(figure[1]) > 0.95
    if stage:
        assert re.search(rf"^{name}\s+{stage}\s", said, re.M)
    with np.load(project.path / f"build/{name}/{name}_top_outputs.npz") as outputs:
        last = outputs[outputs.files[-1]]
        assert last.std() > 0.1 * np.abs(last).max()
    assert project.make(f"{name}_int8").stdout == f"{name}_int8 is up to date.\n"


@pytest.mark.parametrize("name", ["yolo", "frozen", "lite", "paddle2"])
def test_it_becomes_a_model_for_the_camera(project: Checkout, name: str) -> None:
    assert_built(project, name)
    if name == "yolo":
        network = onnx.load(project.path / "build/yolo/yolo_imported.onnx")
        notes = {one.key: one.value for one in network.metadata_props}
        assert names_in(notes)[:2] == ["0", "1"]


@pytest.mark.full
@pytest.mark.parametrize("name", ["traced", "saved", "paddle3"])
def test_its_other_forms_do_so_too(project: Checkout, name: str) -> None:
    assert_built(project, name)


def test_torchscript_goes_straight_into_tpu_mlir(project: Checkout) -> None:
    assert_built(project, "script", "transform")
    assert not (project.path / "build/script/script_v8.onnx").exists()
    key = project.make("script_int8.key").stdout
    assert "requirements/extra-torch.txt" in key


def test_a_folder_counts_by_its_contents(project: Checkout) -> None:
    """A file in it that changed has the import run again; a touched one has not."""
    weights = project.path / "their/paddle2/inference.pdiparams"
    project.make("build/paddle2/paddle2_imported.onnx")
    before = digest(project.path / "build/paddle2/paddle2_imported.onnx")
    weights.touch()
    assert project.make("build/paddle2/paddle2_imported.onnx").stdout == ""
    data = bytearray(weights.read_bytes())
    data[-1] ^= 0x01
    weights.write_bytes(data)
    assert "same outputs as paddle" in project.make("build/paddle2/paddle2_imported.onnx").stdout
    assert digest(project.path / "build/paddle2/paddle2_imported.onnx") != before


class Payload:
    """What a pickle does to whoever loads it."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self.target}'",)


def checkpoint(target: Path, content: object) -> Path:
    """A file like torch.save's, made without torch."""
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content, protocol=2))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return target


def test_networks_of_pytorch(tmp_path: Path) -> None:
    sources = [DATA / name for name in ("net.torchscript", "sequential.pt", "yolo.pt", "yolo.pt")]
    targets = [tmp_path / f"{number}.onnx" for number in range(4)]
    runs = [
        [source, target, "--input-shapes", SHAPE]
        for source, target in zip(sources, targets, strict=True)
    ]
    for result, target in zip(imported("torch", *runs), targets, strict=True):
        assert_converted(result, target, "torch")
    assert digest(targets[2]) == digest(targets[3])
    assert [one.name for one in onnx.load(targets[2]).graph.input] == ["images"]


def test_wrong_files_of_pytorch_are_one_line(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    evil = checkpoint(tmp_path / "evil.pt", {"model": Payload(mark)})
    weights = checkpoint(tmp_path / "weights.pt", {"a.weight": 1})
    text = tmp_path / "text.pt"
    text.write_text("no network")
    half = tmp_path / "half.pt"
    half.write_bytes((DATA / "yolo.pt").read_bytes()[:50000])
    shape = ["--input-shapes", SHAPE]
    said = refusals(
        "torch",
        tmp_path,
        [evil, *shape],
        [weights, *shape],
        [text, *shape],
        [half, *shape],
        [DATA / "paddle3", *shape],
        [DATA / "net.torchscript"],
        [DATA / "net.torchscript", "--input-shapes", "[[1,4,64,64]]"],
        [DATA / "net.torchscript", "--input-shapes", "1,3"],
        [tmp_path / "no.pt", *shape],
    )
    assert "names posix.system, which may be any program" in said[0]
    assert "ALLOW_PICKLE = 1" in said[0]
    assert not mark.exists()
    assert "holds weights but no network" in said[1]
    assert "no file of PyTorch's" in said[2]
    assert "no file of PyTorch's" in said[3]
    assert "is a folder; PT names a file" in said[4]
    assert "set INPUT_SHAPES" in said[5]
    assert "doesn't run on an input of [[1,4,64,64]]" in said[6]
    assert "must look like [[1,3,640,640]]" in said[7]
    assert "there is no such file" in said[8]


def test_a_checkpoint_is_trusted_only_when_that_is_said(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    evil = checkpoint(tmp_path / "evil.pt", {"model": Payload(mark)})
    run = [evil, tmp_path / "out.onnx", "--input-shapes", SHAPE]
    ((code, _, complained),) = imported("torch", [*run, "--allow-pickle"])
    assert code == 2
    assert "but no network" in complained
    assert mark.exists()


def test_ones_own_python_takes_the_place_of_the_extra(project: Checkout, tmp_path: Path) -> None:
    own = tmp_path / "my python"
    own.write_text(f"#!/bin/sh\ntouch '{tmp_path}/used'\nexec '{EXTRAS}/torch/run' \"$@\"\n")
    own.chmod(0o755)
    target = "build/traced/traced_imported.onnx"
    said = project.make(target, f"TORCH_PYTHON={own}", "EXTRAS=none").stdout
    assert "same outputs as torch" in said
    assert (tmp_path / "used").exists()


def test_networks_of_tensorflow(tmp_path: Path) -> None:
    names = ["net.pb", "saved_model", "net.tflite", "net_int8.tflite"]
    targets = [tmp_path / f"{number}.onnx" for number in range(len(names))]
    runs = [
        [DATA / name, target, *(["--input-shapes", SHAPE] if name == "saved_model" else [])]
        for name, target in zip(names, targets, strict=True)
    ]
    for result, target in zip(imported("tensorflow", *runs), targets, strict=True):
        assert_converted(result, target, "tensorflow")
    again = tmp_path / "again.onnx"
    assert_converted(*imported("tensorflow", [DATA / "net.pb", again]), again, "tensorflow")
    assert digest(targets[0]) == digest(again)
    # Quantised or not, it is float again.
    kinds = {node.op_type for node in onnx.load(targets[3]).graph.node}
    assert not {kind for kind in kinds if "Quantize" in kind}


def test_wrong_files_of_tensorflow_are_one_line(tmp_path: Path) -> None:
    text = tmp_path / "text.pb"
    text.write_text("no network")
    lite = tmp_path / "text.tflite"
    lite.write_text("no network")
    half = tmp_path / "half.tflite"
    half.write_bytes((DATA / "net.tflite").read_bytes()[:20000])
    empty = tmp_path / "empty.pb"
    empty.touch()
    said = refusals(
        "tensorflow",
        tmp_path,
        [text],
        [lite],
        [half],
        [empty],
        [DATA / "saved_model/saved_model.pb"],
        [DATA / "paddle3"],
        [DATA / "saved_model"],
        [DATA / "net.pb", "--input-shapes", "[[1,64,64,3]]"],
        [tmp_path / "no.pb"],
    )
    assert "no frozen graph, or not whole" in said[0]
    assert "no TensorFlow Lite network" in said[1]
    assert "no TensorFlow Lite network, or not whole" in said[2]
    assert "no frozen graph" in said[3]
    assert "part of a SavedModel; name its folder: SAVEDMODEL =" in said[4]
    assert "no SavedModel: there is no saved_model.pb" in said[5]
    assert "is ?x3x64x64, whose ? is up to you: set INPUT_SHAPES" in said[6]
    assert "is 1x3x64x64, INPUT_SHAPES says 1x64x64x3" in said[7]
    assert "there is no such file" in said[8]


def test_networks_of_paddle(tmp_path: Path) -> None:
    targets = [tmp_path / f"{number}.onnx" for number in range(3)]
    runs = [
        [DATA / name, target, "--input-shapes", SHAPE]
        for name, target in zip(("paddle2", "paddle3", "paddle3"), targets, strict=True)
    ]
    for result, target in zip(imported("paddle", *runs), targets, strict=True):
        assert_converted(result, target, "paddle")
    assert digest(targets[1]) == digest(targets[2])


def test_wrong_folders_of_paddle_are_one_line(tmp_path: Path) -> None:
    two, half, junk, empty = (tmp_path / name for name in ("two", "half", "junk", "empty"))
    for folder in (two, half, junk):
        shutil.copytree(DATA / "paddle3", folder)
    for file in list(two.iterdir()):
        shutil.copy(file, file.with_stem("other"))
    weights = half / "inference.pdiparams"
    weights.write_bytes(weights.read_bytes()[:1000])
    (junk / "inference.json").write_text("no network")
    empty.mkdir()
    shape = ["--input-shapes", SHAPE]
    said = refusals(
        "paddle",
        tmp_path,
        [two, *shape],
        [half, *shape],
        [junk, *shape],
        [empty, *shape],
        [DATA / "saved_model", *shape],
        [DATA / "paddle3/inference.json", *shape],
        [DATA / "paddle3"],
        [DATA / "paddle3", "--input-shapes", "[[1,1,64,64]]"],
    )
    assert "holds more than one network: inference, other" in said[0]
    assert "can't be read" in said[1]
    assert "can't be read" in said[2]
    assert "beside it but nothing; save the network with paddle.jit.save" in said[3]
    assert "beside it but" in said[4]
    assert "PADDLE names the folder" in said[5]
    assert "is ?x3x?x?, whose ? is up to you: set INPUT_SHAPES" in said[6]
    assert "INPUT_SHAPES says 1x1x64x64" in said[7]
