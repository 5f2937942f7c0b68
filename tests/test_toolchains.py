"""Other published versions of tpu_mlir: chosen by TPU_MLIR_VERSION, and kept apart."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from conftest import QUICK, ROOT, Checkout, copy_checkout

from tpumake import settling

NEW = "TPU_MLIR_VERSION=1.30.2"


def stages(said: str) -> list[str]:
    return [line.split()[1] for line in said.splitlines() if line.startswith("tiny ")]


def stand_in(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        name, ROOT / "scripts" / "toolchain_stand_ins" / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("version", ["1.9", "", "1.7 1.30.2", "%"])
def test_an_unknown_version_is_told_with_those_that_there_are(
    checkout: Checkout, version: str
) -> None:
    done = checkout.make("tiny_int8", f"TPU_MLIR_VERSION={version}", check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert re.search(r"has no lock in requirements/; these have: .*1\.7", line)
    assert "1.30.2" in line
    assert not (checkout.path / "build").exists()


def test_what_a_version_has_no_tool_for_is_refused_at_once(checkout: Checkout) -> None:
    done = checkout.make("tiny_mix", NEW, check=False)
    assert done.returncode == 2
    assert "tpu_mlir 1.30.2 has no tool for MIX" in done.stderr
    assert "make tiny_int8 tiny_bf16" in done.stderr
    assert not (checkout.path / "build").exists()


def test_every_version_is_in_the_documentation() -> None:
    text = (ROOT / "docs" / "toolchains.md").read_text()
    for lock in (ROOT / "requirements").glob("tpu_mlir-*.txt"):
        assert f"| {lock.stem.removeprefix('tpu_mlir-')} " in text, lock


def test_the_time_is_taken_out_of_a_newer_versions_table(tmp_path: Path) -> None:
    table = tmp_path / "table"
    lines = [
        "# mlir version: v1.30.2",
        "# genetated time: 2026-11-21 10:28:21.425036",
        "###",
        "x 1",
    ]
    table.write_text("\n".join(lines))
    settling.table(table, 315532800)
    lines[1] = "# genetated time: 1980-01-01 00:00:00"
    assert table.read_text() == "\n".join(lines)


def test_stand_ins_say_what_is_missing_when_it_is_used() -> None:
    torch = stand_in("torch")
    assert not hasattr(torch, "__file_of_nothing__")
    assert not isinstance(1.0, torch.Tensor)
    with pytest.raises(ModuleNotFoundError, match=r"torch\.nn is used, and torch is not installed"):
        _ = torch.nn
    extensions = stand_in("onnxruntime_extensions")
    assert extensions.onnx_op(op_type="x", inputs=[extensions.PyOp.dt_float])(len) is len
    with pytest.raises(ModuleNotFoundError, match="operator that onnxruntime does not know"):
        extensions.PyOrtFunction.from_model("x.onnx")


@pytest.fixture(scope="module")
def newer(quick: Checkout, tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkout, str]:
    """tiny_int8 with the newer version, where 1.7 has made it; and what Make said."""
    newer = copy_checkout(quick, tmp_path_factory.mktemp("newer") / "check out")
    return newer, newer.make("tiny_int8", NEW, *QUICK, "tiny_OPT=2").stdout


@pytest.mark.toolchain
@pytest.mark.slow
def test_another_version_makes_what_its_tools_make_and_nothing_else(
    newer: tuple[Checkout, str],
) -> None:
    checkout, said = newer
    assert stages(said) == ["transform", "calibrate", "int8", "contract"]
    assert "emulator ok" in said
    model = (checkout.path / "build/tiny/cv181x/tiny_int8.cvimodel").read_bytes()
    assert b"v1.30.2-" in model
    # Whatever a stage was made with, it is part of its key.
    for log in ("logs/transform", "logs/calibrate", "cv181x/logs/int8"):
        key = (checkout.path / f"build/tiny/{log}.key").read_text()
        assert "tpu_mlir-1.30.2.txt" in key
        assert "tpu_mlir-1.7.txt" not in key


@pytest.mark.toolchain
@pytest.mark.slow
def test_what_makes_its_tools_die_is_refused(newer: tuple[Checkout, str]) -> None:
    checkout, _ = newer
    done = checkout.make("tiny_int8", NEW, *QUICK, "tiny_ALIGNED_INPUT=1", check=False)
    assert done.returncode == 2
    assert "dies of comparing a model with ALIGNED_INPUT=1 and RGB_PACKED" in done.stderr
    said = checkout.make("tiny_int8", NEW, *QUICK, "tiny_ALIGNED_INPUT=1", "VALIDATE=0").stdout
    assert "not validated" in said


# The compiler takes most of a minute for any network for this chip.
@pytest.mark.toolchain
@pytest.mark.full
def test_another_versions_bmodels(checkout: Checkout, tmp_path: Path) -> None:
    """Compared, run on the emulator, and the same bytes each time."""
    chosen = ("tiny_f16", "tiny_int8", NEW, "CHIP=bm1684x", *QUICK, "tiny_OPT=2")
    assert checkout.make(*chosen).stdout.count("emulator ok") == 2
    checkout.make(*chosen, "VALIDATE=0", f"BUILD={tmp_path}/again", TZ="Asia/Tokyo")
    for variant in ("f16", "int8"):
        name = f"tiny/bm1684x/tiny_{variant}.bmodel"
        model = (checkout.path / "build" / name).read_bytes()
        assert b"v1.30.2-" in model
        assert model == (tmp_path / "again" / name).read_bytes()
