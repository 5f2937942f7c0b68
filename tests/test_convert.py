"""`make convert` and `make add`, as far as they go without the toolchain: nothing is built here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, Checkout, copy_project

# Each starts several makes, and the helper.
pytestmark = pytest.mark.slow

INFERRED = "build/convert/best.mk"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return copy_project(tmp_path_factory.mktemp("convert") / "check out")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder with a network and pictures, in folders whose names have spaces."""
    folder = tmp_path / "my nets (new)"
    folder.mkdir()
    shutil.copy(ROOT / "models/tiny.onnx", folder / "best.onnx")
    shutil.copytree(ROOT / "datasets/shapes_val/images", tmp_path / "my photos")
    return tmp_path


GIVEN = ("MODEL=~/my nets (new)/best.onnx", "IMAGES=~/my photos")


def test_a_stanza_is_inferred_again_only_for_a_reason(project: Checkout, home: Path) -> None:
    def made(*arguments: str) -> str:
        return project.make(INFERRED, *GIVEN, *arguments, HOME=str(home)).stdout

    assert "best_ONNX         = ~/my nets (new)/best.onnx\n" in made()
    assert "best_DATASET      = ~/my photos\n" in (project.path / INFERRED).read_text()
    assert made() == f"make: '{INFERRED}' is up to date.\n"
    assert "best_SCALE        = 1,1,1\n" in made("SCALE=1")
    assert "best_SCALE        = 0.0039216" in made()
    # Another network of that name.
    network = home / "my nets (new)/best.onnx"
    shutil.copy(ROOT / "models/yolo11n.onnx", network)
    os.utime(network)
    assert "[[1,3,640,640]]" in made()


def test_a_stanza_with_an_error_is_not_taken_for_the_last_one(
    project: Checkout, home: Path
) -> None:
    project.make(INFERRED, *GIVEN, HOME=str(home))
    for _ in range(2):
        done = project.make("convert", *GIVEN, "SCLAE=1", HOME=str(home), check=False)
        assert done.returncode == 2
        assert "SCLAE: there is no such variable; did you mean SCALE?" in done.stderr


def test_the_inner_make_builds_what_was_asked_for(project: Checkout, home: Path) -> None:
    knobs = ("VARIANT=bf16", "CHIP=bm1684x", "NAME=gate", "VALIDATE=0")
    said = project.make("--dry-run", "convert", *GIVEN, *knobs, HOME=str(home)).stdout
    assert "build/gate/bm1684x/gate_bf16.bmodel" in said
    assert "model_deploy" in said
    assert "calibrate.py" not in said
    again = (
        "make add MODEL='\\''~/my nets (new)/best.onnx'\\'' IMAGES='\\''~/my photos'\\'' NAME=gate"
    )
    assert again in said
    assert "gate_VARIANTS     = bf16\n" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "which network? make convert MODEL=~/best.onnx IMAGES=~/photos"),
        (["MODEL=models/tiny.onnx"], "which pictures? make convert"),
        ([*GIVEN, "VARIANT=int4"], "VARIANT=int4: there are int8"),
        ([*GIVEN, "VARIANT=f16"], "cv181x does not compute in F16"),
        ([*GIVEN, "NAME=a b"], "NAME=a b: letters, digits and underscores"),
        (["MODEL=~/no.onnx", "IMAGES=~/my photos"], "no.onnx: there is no such file"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_built(
    project: Checkout, home: Path, arguments: list[str], said: str
) -> None:
    done = project.make("convert", *arguments, HOME=str(home), check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project.path / "build/best").exists()


def test_what_is_added_is_a_model_like_others(project: Checkout, home: Path) -> None:
    stanzas = project.path / "mine.mk"
    shutil.copy(project.path / "models.mk", stanzas)
    before = stanzas.read_bytes()
    words = (*GIVEN, "NAME=model", "STANZAS=mine.mk")
    said = project.make("add", *words, HOME=str(home)).stdout
    assert said.endswith("mine.mk: model is added; make model\n")
    assert stanzas.read_bytes().startswith(before)
    listed = project.make("list", "STANZAS=mine.mk", HOME=str(home)).stdout
    assert listed.splitlines()[-1] == "model: model_int8"
    # The Makefile has variables that begin with this name, which are none of the stanza's.
    project.make("build/model/logs/stanza.key", "STANZAS=mine.mk", HOME=str(home))
    done = project.make("add", *words, HOME=str(home), check=False)
    assert done.returncode == 2
    assert "mine.mk: has model already; NAME=gate, say" in done.stderr
