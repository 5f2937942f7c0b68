"""What runs again after which change, with the real toolchain: each test counts the stages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import QUICK, Checkout, copy_checkout, copy_project
from PIL import Image

pytestmark = [pytest.mark.toolchain, pytest.mark.slow]

# What is asked is what runs, not whether the results are right.
UNVALIDATED = (*QUICK, "VALIDATE=0")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = copy_project(tmp_path_factory.mktemp("original") / "check out")
    # Fewer pictures, so that a set of them differs from another by what a test does to it.
    for picture in sorted((checkout.path / "datasets/shapes/images").iterdir())[24:]:
        picture.unlink()
    checkout.make("tiny", *UNVALIDATED)
    return checkout


@pytest.fixture
def built(original: Checkout, tmp_path: Path) -> Checkout:
    """Both variants of tiny, built, in a checkout of the test's own."""
    return copy_checkout(original, tmp_path / "check out")


@pytest.fixture
def validated(quick: Checkout, tmp_path: Path) -> Checkout:
    """The same, compared and run on the emulator, for which stages take more inputs."""
    return copy_checkout(quick, tmp_path / "check out")


def ran(checkout: Checkout, *arguments: str) -> list[str]:
    """Build both variants and give the stages that really ran, by their lines with seconds."""
    lines = checkout.make("tiny", *UNVALIDATED, *arguments).stdout.splitlines()
    return sorted(line.split()[1] for line in lines if re.search(r" \d+\.\d s$", line))


def test_nothing_changed(validated: Checkout) -> None:
    assert ran(validated, "VALIDATE=1") == []


def test_every_input_touched(validated: Checkout) -> None:
    for path in validated.path.rglob("*"):
        if "build" not in path.parts and path.is_file() and not path.is_symlink():
            path.touch()
    started = time.perf_counter()
    assert ran(validated, "VALIDATE=1") == []
    # 0.5 s on an idle machine; the bound leaves room for a busy one.
    assert time.perf_counter() - started < 3
    # And then Make itself knows: not even the stages' own check is started.
    assert "up to date" in validated.make("tiny", *QUICK, "WHY=1").stdout


def test_a_touched_input_costs_a_look_by_its_own_stage(validated: Checkout) -> None:
    """What follows hangs on results, which keep their time while they stay the same bytes."""
    for path in (validated.path / "models").iterdir():
        path.touch()
    # So is code: a copy of it is compared, and no stage is started.
    for path in (validated.path / "scripts").rglob("*.py"):
        path.touch()
    said = validated.make("tiny", *QUICK, "WHY=1").stdout
    looked = re.findall(r"^\S+ +(\S+) +does not run: nothing changed$", said, re.M)
    assert looked == ["check", "downgrade"]
    assert "run_stage" not in validated.make("-n", "tiny", *QUICK).stdout


def test_a_fresh_checkout_with_new_times(validated: Checkout, tmp_path: Path) -> None:
    fresh = copy_project(tmp_path / "fresh")
    for name in ("datasets", "build"):
        shutil.rmtree(fresh.path / name, ignore_errors=True)
        subprocess.run(["cp", "-r", validated.path / name, fresh.path / name], check=True)
    assert ran(fresh, "VALIDATE=1") == []


def test_comments_order_and_other_stanzas(validated: Checkout) -> None:
    stanzas = validated.path / "models.mk"
    parts = re.split(r"\n\n(?=#)", stanzas.read_text())
    text = "\n\n".join(["# Another comment.", *reversed(parts)]) + "\n"
    stanzas.write_text(text.replace("yolo11n_MEAN          = 0,0,0", "yolo11n_MEAN = 1,1,1"))
    assert ran(validated, "VALIDATE=1") == []


def test_mean(built: Checkout) -> None:
    assert ran(built, "tiny_MEAN=1,1,1") == ["bf16", "calibrate", "int8", "transform"]


def test_scale(built: Checkout) -> None:
    arguments = ("tiny_SCALE=0.004,0.004,0.004", "tiny_VARIANTS=bf16")
    assert ran(built, *arguments) == ["bf16", "transform"]


def test_number_of_pictures(built: Checkout) -> None:
    assert ran(built, "tiny_INPUT_NUM=12") == ["calibrate", "dataset", "int8"]


def used(checkout: Checkout, number: int) -> Path:
    manifest = (checkout.path / "build/datasets/shapes-10/manifest.json").read_text()
    names = re.findall(r'"source": "(images/[^"]+)"', manifest)
    return checkout.path / "datasets/shapes" / names[number]


def test_one_used_picture(built: Checkout) -> None:
    """Not the first, which is the test picture, too."""
    picture = used(built, 5)
    pixels = np.asarray(Image.open(picture))
    Image.fromarray(255 - pixels).save(picture, quality=95)
    stages = ran(built)
    assert stages[:2] == ["calibrate", "dataset"]
    assert "bf16" not in stages


def test_a_picture_that_is_not_taken(built: Checkout) -> None:
    """Which are taken goes by their digests: try pictures until one is not among the first."""
    folder = built.path / "datasets/shapes/images"
    before = (built.path / "build/datasets/shapes-10/Calibration10.jpg").read_bytes()
    for shade in range(0, 250, 10):
        new = folder / f"new{shade}.jpg"
        Image.new("RGB", (64, 64), (shade, 7, 99)).save(new)
        built.make("build/datasets/shapes-10/manifest.json", *QUICK)
        after = (built.path / "build/datasets/shapes-10/Calibration10.jpg").read_bytes()
        if before == after and new.name not in manifest_names(built):
            break
        new.unlink()
        built.make("build/datasets/shapes-10/manifest.json", *QUICK)
    assert new.exists()
    assert ran(built) == []


def test_a_picture_with_a_space_in_its_name(built: Checkout) -> None:
    """Make can't name it, so contents are looked at; what follows only where they changed."""
    picture = used(built, 5)
    spaced = picture.with_name("a picture.jpg")
    picture.rename(spaced)
    ran(built)
    assert ran(built) == []
    said = built.make("tiny", *UNVALIDATED, "WHY=1").stdout
    assert re.findall(r"^(\S+) +\S+ +does not run", said, re.M) == ["shapes-10"]
    pixels = np.asarray(Image.open(spaced))
    Image.fromarray(255 - pixels).save(spaced, quality=95)
    stages = ran(built)
    assert stages[:2] == ["calibrate", "dataset"]
    assert "bf16" not in stages


def manifest_names(checkout: Checkout) -> set[str]:
    manifest = (checkout.path / "build/datasets/shapes-10/manifest.json").read_text()
    return set(re.findall(r'"source": "images/([^"]+)"', manifest))


def test_another_test_picture(validated: Checkout) -> None:
    other = next((validated.path / "datasets/shapes_val/images").iterdir())
    argument = f"tiny_TEST_INPUT={other.relative_to(validated.path)}"
    assert ran(validated, "VALIDATE=1", argument) == ["bf16", "int8", "transform"]
    # Without one it is the dataset's first.
    others = ("tiny_DATASET=datasets/shapes_val", "tiny_VARIANTS=bf16")
    assert ran(validated, "VALIDATE=1", *others) == ["bf16", "dataset", "transform"]


def test_only_the_search_for_float_layers(built: Checkout) -> None:
    """Other thresholds: table and mixed model, or the table alone if it comes out the same."""
    search = ("tiny_QTABLE_INPUT_NUM=1", "tiny_MIN_LAYER_COS=0.999", "tiny_VARIANTS=int8 mix bf16")
    assert ran(built, *search, "tiny_EXPECTED_COS=0.5") == ["mix", "qtable"]
    assert ran(built, *search, "tiny_EXPECTED_COS=0.996") == ["mix", "qtable"]
    assert ran(built, *search, "tiny_EXPECTED_COS=0.9961") == ["qtable"]
    assert ran(built, *search, "tiny_EXPECTED_COS=0.9961") == []


def test_another_dataset_and_back(built: Checkout) -> None:
    """The first one's folder is older than what the second made, and must count all the same."""
    other = "tiny_DATASET=datasets/shapes_val"
    assert ran(built, other) == ["calibrate", "dataset", "int8"]
    assert ran(built) == ["calibrate", "int8"]
    assert ran(built) == []


def test_another_chip_and_back(built: Checkout) -> None:
    assert ran(built, "CHIP=cv180x") == ["bf16", "int8"]
    assert ran(built) == []
    assert ran(built, "CHIP=cv180x") == []


def test_the_toolchains_lock(built: Checkout) -> None:
    """A lock that says the same in other bytes: its stages run, and end in the same bytes."""
    lock = built.path / "requirements/tpu_mlir-1.7.txt"
    lock.write_text(lock.read_text() + "# checked\n")
    # The environment itself is not made anew for this test: it holds a copy of what it is from.
    makefile = built.path / "mk/setup.mk"
    makefile.write_text(
        re.sub(r"^\$\(TOOLS\): .*$", "$(TOOLS): | $(HELPERS)", makefile.read_text(), flags=re.M)
    )
    assert ran(built) == ["bf16", "calibrate", "int8", "transform"]


def test_the_helpers_own_code(built: Checkout) -> None:
    """The network comes out the same, so nothing after it runs."""
    code = built.path / "scripts/tpumake/detection_head.py"
    code.write_text(code.read_text() + "# checked\n")
    assert ran(built) == ["downgrade"]


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        (lambda path: path.unlink(), ["transform"]),
        (lambda path: path.write_bytes(path.read_bytes() + b"\n"), ["transform"]),
    ],
    ids=["gone", "edited"],
)
def test_a_result_that_is_gone_or_edited(
    built: Checkout, change: Callable[[Path], object], stages: list[str]
) -> None:
    change(built.path / "build/tiny/tiny.mlir")
    os.utime(built.path / "build/tiny/tiny_v8.onnx")
    assert ran(built) == stages


def test_why_says_it_in_one_line_a_stage(validated: Checkout) -> None:
    picture = used(validated, 5)
    Image.new("RGB", (64, 48), (1, 2, 3)).save(picture)
    said = validated.make("tiny_int8", *QUICK, "WHY=1").stdout
    assert re.search(r"^shapes-10 dataset +runs: source changed: 1 file$", said, re.M)
    assert re.search(r"^tiny +calibrate +runs: dataset changed: \d+ files?$", said, re.M)
    assert re.search(r"^tiny +transform +does not run: nothing changed$", said, re.M)
