"""bmodels: other chips through the same stages, and the time that they carry."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from stat import S_ISDIR

import pytest
import told_by_model_tool
from conftest import QUICK, Checkout, Toolchain, copy_checkout

from tpumake.bmodel import set_build_time
from tpumake.errors import CheckFailed

BM1684 = (*QUICK, "tiny_OPT=2", "CHIP=bm1684")
TIME = b"\x19\0\0\0Sat Nov 21 07:44:52 2026\n\0"


def bmodel(flatbuffer: bytes = b"fields" + TIME + b"more", binary: bytes = b"weights") -> bytes:
    head = struct.pack("<4I", 0xFF55AAEE, 64, len(flatbuffer), len(binary)).ljust(64, b"\0")
    return head + flatbuffer + binary


def test_only_the_time_changes(tmp_path: Path) -> None:
    model = tmp_path / "m.bmodel"
    model.write_bytes(bmodel(binary=TIME))
    set_build_time(model, 315532800)
    wanted = TIME.replace(b"Sat Nov 21 07:44:52 2026", b"Tue Jan  1 00:00:00 1980")
    assert model.read_bytes() == bmodel(b"fields" + wanted + b"more", TIME)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not a bmodel"),
        (b"CviModel" + bytes(100), "not a bmodel"),
        (bmodel()[:-1], "damaged"),
        (bmodel() + b"x", "damaged"),
        (bmodel(b"no time"), "0 build times"),
        (bmodel(TIME * 2), "2 build times"),
    ],
)
def test_another_file_is_refused_and_stays(tmp_path: Path, data: bytes, said: str) -> None:
    model = tmp_path / "m.bmodel"
    model.write_bytes(data)
    with pytest.raises(CheckFailed, match=said):
        set_build_time(model, 0)
    assert model.read_bytes() == data


@pytest.mark.parametrize(
    ("chip", "variant", "said"),
    [
        ("cv181x", "f32", "cv181x does not compute in F32; make tiny_int8 tiny_mix tiny_bf16"),
        ("cv180x", "f16", "does not compute in F16, and tpu_mlir would write BF16 under that name"),
        ("bm1684", "f16", "bm1684 does not compute in F16; make tiny_int8 tiny_mix tiny_f32"),
        ("bm1684", "bf16", "bm1684 does not compute in BF16"),
        ("bm1688", "mix", "bm1688 does not compute in MIX"),
    ],
)
def test_what_a_chip_does_not_have_is_refused_at_once(
    checkout: Checkout, chip: str, variant: str, said: str
) -> None:
    done = checkout.make(f"tiny_{variant}", f"CHIP={chip}", check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (checkout.path / "build").exists()


def read_only(folder: Path) -> list[str]:
    """What to put before a command to have a folder read-only for it, root or not; or nothing."""
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    words = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, str(folder.resolve())]
    able = shutil.which("unshare") and not subprocess.run([*words, "true"], check=False).returncode
    return words if able else []


def wheel_files(toolchain: Toolchain) -> dict[Path, tuple[int, ...]]:
    """Every file of the wheel, with what changes when it is written to, or put in its place."""
    wheel = toolchain.program.parent / "site-packages" / "tpu_mlir"
    # Bytecode is written when something is first imported, where that is possible.
    stats = {path: path.lstat() for path in wheel.rglob("*") if path.suffix != ".pyc"}
    return {
        path: (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        for path, stat in stats.items()
        if not S_ISDIR(stat.st_mode)
    }


@pytest.mark.toolchain
@pytest.mark.slow
def test_models_for_bm1684(quick: Checkout, toolchain: Toolchain, tmp_path: Path) -> None:
    """Compared, run on the emulator, and the same bytes from another folder and time zone.

    With a toolchain that can't be written to, as others may have installed it.
    """
    checkout = copy_checkout(quick, tmp_path / "check out")
    before = wheel_files(toolchain)
    protected = read_only(toolchain.program.parent)
    said = checkout.make("-j2", "tiny_int8", "tiny_f32", *BM1684, before=protected).stdout
    assert said.count("emulator ok") == 2
    # What was made for another chip serves this one, but for the models themselves.
    ran = [line.split()[1] for line in said.splitlines() if line.endswith(" s")]
    assert sorted(ran) == ["f32", "int8"]
    assert wheel_files(toolchain) == before
    again = ("tiny_int8", "tiny_f32", *BM1684, f"BUILD={tmp_path}/again", "VALIDATE=0")
    # The cache has what was made for the other chip.
    caching = {"CACHE": "1", "CACHE_DIR": str(quick.path.with_name("cache"))}
    checkout.make(*again, TZ="Asia/Tokyo", LC_ALL="C", **caching)
    for variant in ("int8", "f32"):
        model = checkout.path / f"build/tiny/bm1684/tiny_{variant}.bmodel"
        other = tmp_path / f"again/tiny/bm1684/tiny_{variant}.bmodel"
        assert model.read_bytes() == other.read_bytes()
        info = toolchain.run(["model_tool", "--info", str(model)], checkout.path).stdout
        assert "chip: BM1684\n" in info
        assert "create time: Tue Jan  1 00:00:00 1980" in info
        told = json.loads(checkout.make(f"tiny_{variant}.info", *BM1684, "JSON=1").stdout)
        assert told_by_model_tool.of_bmodel(info) == told_by_model_tool.bmodel_alike(
            told, "Tue Jan  1 00:00:00 1980"
        )
        assert told["checksum"]["right"] is True


# The compiler takes most of a minute for any network for this chip.
@pytest.mark.toolchain
@pytest.mark.full
def test_two_chips_at_once(checkout: Checkout, toolchain: Toolchain, tmp_path: Path) -> None:
    """Each is run on its own emulator, and has the bytes that it has alone."""
    words = ("tiny_INPUT_NUM=10", "tiny_f32")
    chips = ("bm1684x", "bm1684")
    # What needs no chip is made before.
    checkout.make("build/tiny/tiny.mlir", *words[:1])
    before, protected = wheel_files(toolchain), read_only(toolchain.program.parent)
    with ThreadPoolExecutor() as pool:
        runs = [
            pool.submit(checkout.make, *words, f"CHIP={chip}", before=protected) for chip in chips
        ]
        said = [run.result().stdout for run in runs]
    for each in said:
        assert "emulator ok" in each
        assert "lowest cosine 0.99999" in each
    assert wheel_files(toolchain) == before
    for chip in chips:
        checkout.make(*words, f"CHIP={chip}", f"BUILD={tmp_path}/alone")
        alone = tmp_path / "alone" / "tiny" / chip / "tiny_f32.bmodel"
        together = checkout.path / "build" / "tiny" / chip / "tiny_f32.bmodel"
        assert together.read_bytes() == alone.read_bytes()
        assert together.stat().st_size > 5 * 10**5
