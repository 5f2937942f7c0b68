"""Every family and task from an export to a finished model: what comes out is what was chosen."""

from __future__ import annotations

import os
from pathlib import Path

import heads
import onnx
import pytest
from conftest import Checkout, copy_project

from tpumake import devices, profiles
from tpumake.detection_head import NoHead, find_head
from tpumake.model_info import describe

pytestmark = [pytest.mark.full, pytest.mark.toolchain]

STANZA = """
{name}_ONNX = {name}.onnx
{name}_INPUT_SHAPES = [[1,3,{size},{size}]]
{name}_SCALE = 0.0039216,0.0039216,0.0039216
{name}_PIXEL_FORMAT = rgb
{name}_DATASET = datasets/shapes
{name}_INPUT_NUM = 4
{name}_TUNE_NUM = 0
$(eval $(call model,{name}))
"""
# For MaixCAM the tensors behind the branches; for none the whole head.
OTHERS = [(f"yolo11{task}", device) for device in ("maixcam", "none") for task in ("", "-seg")]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return copy_project(tmp_path_factory.mktemp("families") / "project")


def refusal(name: str, device: str) -> str:
    """Why the contract puts the model aside; empty where the device has a decoder for it."""
    if device != "recamera":
        return ""
    if heads.EXPECTED[name].decoder is None:
        return "reCamera has no decoder for its"
    # These stand-ins have four classes.
    return "finds 1 class in it, and there are 4 names" if "-pose" in name else ""


def built(project: Checkout, name: str, device: str) -> Path:
    """The model, and beside it the network that it was made of."""
    model = name.replace("-", "_")
    size = 160 if name.endswith("-e2e") else 64
    onnx.save(heads.alive(heads.load(name)), project.path / f"{model}.onnx")
    (project.path / "families.mk").write_text(STANZA.format(name=model, size=size))
    folder = f"build-{device}"
    done = project.make(
        "STANZAS=families.mk", f"BUILD={folder}", f"DEVICE={device}", "VALIDATE=0", f"{model}_int8",
        OMP_NUM_THREADS=os.environ.get("OMP_NUM_THREADS", "1"), check=False,
    )  # fmt: skip
    said, why = done.stdout + done.stderr, refusal(name, device)
    assert done.returncode == (2 if why else 0), said
    assert why in said
    decoder = heads.EXPECTED[name].decoder
    if device == "recamera" and not why:
        assert f"reCamera: {decoder} decoder, 4 classes" in said
    place = project.path / folder / model / "cv181x" / f"{model}_int8.cvimodel"
    return place.with_name(f"{place.name}.refused") if why else place


def filled(shape: tuple[int, ...]) -> list[int]:
    """Compiled models have four sizes."""
    return [*shape, *[1] * (4 - len(shape))]


@pytest.mark.parametrize(
    ("name", "device"), [*((name, "recamera") for name in heads.EXPECTED), *OTHERS]
)
def test_it_compiles_with_the_outputs_in_order(project: Checkout, name: str, device: str) -> None:
    finished = describe(built(project, name, device))
    (program,) = finished["programs"]
    network = onnx.load(project.path / f"{name.replace('-', '_')}.onnx")
    try:
        head = find_head(network)
    except NoHead:
        assert not heads.EXPECTED[name].kind
        assert len(program["outputs"]) == 1
        return
    chosen = devices.select(head, profiles.read(device))
    assert [each["shape"] for each in program["outputs"]] == [
        filled(tensor.shape) for _, tensor in chosen.outputs
    ]
