"""The same bytes, whoever builds, where and when."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from conftest import QUICK, Checkout, Toolchain, copy_checkout, copy_project

from tpumake.cvimodel import set_build_time
from tpumake.errors import CheckFailed

FLATBUFFER = b"some fields\x13\0\0\x002026-11-21 05:17:03\0more"


def cvimodel(flatbuffer: bytes = FLATBUFFER, after: bytes = b"weights") -> bytes:
    body = flatbuffer + after
    head = b"CviModel" + struct.pack("<IBB", len(flatbuffer), 1, 4)
    return head + hashlib.md5(body).digest() + b"cv181x".ljust(16, b"\0") + b"Cv" + body


def test_only_the_time_and_the_md5_change(tmp_path: Path) -> None:
    model = tmp_path / "m.cvimodel"
    model.write_bytes(cvimodel())
    set_build_time(model, 315532800)
    assert model.read_bytes() == cvimodel(
        FLATBUFFER.replace(b"2026-11-21 05:17:03", b"1980-01-01 00:00:00")
    )


def test_a_date_among_the_weights_is_left_alone(tmp_path: Path) -> None:
    model = tmp_path / "m.cvimodel"
    date = b"\x13\0\0\x002001-01-01 00:00:00\0"
    model.write_bytes(cvimodel(after=date))
    set_build_time(model, 0)
    assert model.read_bytes().endswith(date)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not a cvimodel"),
        (b"CviModel", "not a cvimodel"),
        (cvimodel()[:-1], "damaged"),
        (cvimodel(b"no time"), "0 build times"),
        (cvimodel(FLATBUFFER * 2), "2 build times"),
    ],
)
def test_another_file_is_refused_and_stays(tmp_path: Path, data: bytes, said: str) -> None:
    model = tmp_path / "m.cvimodel"
    model.write_bytes(data)
    with pytest.raises(CheckFailed, match=said):
        set_build_time(model, 0)
    assert model.read_bytes() == data


def results(checkout: Checkout) -> dict[str, str]:
    build = checkout.path / "build"
    kinds = (".onnx", ".mlir", ".npz", "table", "_table.txt", ".cvimodel", "manifest.json")
    return {
        str(path.relative_to(build)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(build.rglob("*"))
        if path.name.endswith(kinds)
    }


@pytest.mark.toolchain
@pytest.mark.slow
def test_two_builds_give_the_same_bytes(
    built: Checkout, tmp_path: Path, toolchain: Toolchain
) -> None:
    """Other folder, umask, time zone, locale, variables, order of listing, -j, and time of day."""
    first = copy_checkout(built, tmp_path / "a")
    search = ("tiny_mix", "tiny_QTABLE_INPUT_NUM=1", "tiny_MIN_LAYER_COS=0.999",
              "tiny_EXPECTED_COS=0.996")  # fmt: skip
    first.make("tiny", *search)
    second = copy_project(tmp_path / "another, much longer path größer")
    pictures = second.path / "datasets/shapes/images"
    for picture in sorted(pictures.iterdir(), reverse=True):
        picture.rename(picture.with_name(f"x{picture.name}"))
        picture.with_name(f"x{picture.name}").rename(picture)
    before = os.umask(0o077)
    try:
        second.make(
            "-j2",
            "tiny",
            *search,
            TZ="Asia/Tokyo",
            LC_ALL="C",
            LOTS="x" * 5000,
            OMP_NUM_THREADS="2",
        )
    finally:
        os.umask(before)
    assert results(first) == results(second)
    assert len(results(first)) == 12
    # What was made so is still a model that runs.
    model = first.path / "build/tiny/cv181x/tiny_int8.cvimodel"
    shape = np.zeros((1, 1, 1, 64 * 64 * 3), np.uint8)
    np.savez(tmp_path / "in.npz", images_raw=shape)
    command = [
        "model_runner.py",
        "--input",
        "in.npz",
        "--model",
        "m.cvimodel",
        "--output",
        "out.npz",
    ]
    (tmp_path / "m.cvimodel").symlink_to(model)
    done = toolchain.run(command, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    with np.load(tmp_path / "out.npz") as outputs:
        assert sum("Conv_output_0_Conv_f32" in name for name in outputs.files) == 6


@pytest.mark.toolchain
@pytest.mark.slow
def test_the_time_is_a_variable(checkout: Checkout, toolchain: Toolchain) -> None:
    checkout.make("tiny_int8", *QUICK, "SOURCE_DATE_EPOCH=86400", "VALIDATE=0")
    table = (checkout.path / "build/tiny/tiny_calib_table").read_text()
    assert "1970-01-02 00:00:00" in table.splitlines()[0]
    model = checkout.path / "build/tiny/cv181x/tiny_int8.cvimodel"
    info = toolchain.run(["model_tool", "--info", str(model)], checkout.path).stdout
    assert "tiny Build at 1970-01-02 00:00:00" in info
