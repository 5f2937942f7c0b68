"""Extras: how they are named, installed and removed; the stand-ins for libraries. Nothing heavy."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Checkout, refused

import setup_extra
from tpumake.elf_stand_in import Wanted, stand_in, wanted
from tpumake.installer import SetupError


def test_an_extra_that_there_is_not_is_named_with_those_there_are(checkout: Checkout) -> None:
    done = checkout.make("setup", "EXTRA=torch padle", check=False)
    assert done.returncode == 2
    assert "there is no padle; there are: caffe paddle" in done.stderr


def test_help_names_the_extras(checkout: Checkout) -> None:
    assert 'EXTRA="caffe paddle tensorflow tflite torch"' in checkout.make("help").stdout


def test_every_extra_has_a_lock_and_every_lock_an_extra() -> None:
    locks = {path.stem[6:] for path in (ROOT / "requirements").glob("extra-*.txt")}
    assert locks == set(setup_extra.EXTRAS)


def test_clean_extras_removes_them_and_nothing_else(checkout: Checkout) -> None:
    (checkout.path / "mine" / "torch").mkdir(parents=True)
    checkout.make("clean-extras", "EXTRAS=mine")
    assert not (checkout.path / "mine").exists()
    assert (checkout.path / ".venv").exists()


def run_setup(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        ROOT / "scripts/setup_extra.py",
        *arguments,
        "--python",
        sys.executable,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_set_up_of_an_unknown_extra_is_one_line(tmp_path: Path) -> None:
    assert "there is no extra jax; there are: " in refused(run_setup("jax", tmp_path / "jax"))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_before_anything_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(setup_extra, "uv", lambda *_, **__: pytest.fail("it downloads"))
    with pytest.raises(SetupError, match=r"1\.6 GB are needed, 100 MB are free; make room, or"):
        setup_extra.install("torch", tmp_path / "torch", Path(sys.executable))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_download_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "paddle").mkdir()
    (tmp_path / "paddle" / "ready").write_text("as it was")

    def fail(*_: object, **__: object) -> None:
        raise SetupError("installing extra paddle: dns error")

    monkeypatch.setattr(setup_extra, "uv", fail)
    with pytest.raises(SetupError, match="dns error"):
        setup_extra.install("paddle", tmp_path / "paddle", Path(sys.executable))
    assert [path.name for path in tmp_path.iterdir()] == ["paddle"]
    assert (tmp_path / "paddle" / "ready").read_text() == "as it was"


def test_a_tool_finds_an_extras_packages_behind_its_own(tmp_path: Path) -> None:
    tools = tmp_path / "python" / "tools"
    tools.mkdir(parents=True)
    (tools / "tool.py").write_text("import sys, os; print(os.environ['PYTHONPATH'], sys.argv[1:])")
    environment = os.environ | {
        "TPUC_ROOT": str(tmp_path), "TPUMAKE_EXTRAS": "/extras", "TPUMAKE_SCRIPTS": "/scripts",
        "PYTHONPATH": "/own:/toolchain/stand-ins",
    }  # fmt: skip
    said = subprocess.run(
        [ROOT / "scripts/toolchain_bin/with_extra", "torch", "tool.py", "a b"],
        env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    ours = "/scripts/stand_ins/torch:/extras/torch/site-packages"
    assert said == f"/own:{ours}:/toolchain/stand-ins ['a b']\n"


def test_a_module_that_a_python_lacks_may_be_named_but_not_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "absent.py").write_text(setup_extra.ABSENT.format(name="absent"))
    monkeypatch.syspath_prepend(tmp_path)
    import absent

    opener = absent.open
    with pytest.raises(ImportError, match="no absent"):
        opener("file")


@pytest.mark.parametrize("version", ["", "libfake.so.1"])
def test_a_stand_in_loads_and_its_functions_fail(tmp_path: Path, version: str) -> None:
    names = [f"fake{number}" for number in range(100)]
    owner = "libfake.so.1" if version else ""
    image = stand_in("libfake.so.1", [Wanted(name, version, owner) for name in names])
    path = tmp_path / "libfake.so.1"
    path.write_bytes(image)
    library = ctypes.CDLL(str(path))
    assert [getattr(library, name)() for name in names] == [1] * 100
    with pytest.raises(AttributeError):
        _ = library.fake100
    others = [Wanted("other", "v", "libother.so")]
    path.with_name("libnone.so").write_bytes(stand_in("libnone.so", others))
    with pytest.raises(AttributeError):
        _ = ctypes.CDLL(str(path.with_name("libnone.so"))).other


def test_a_stand_in_has_the_versions_that_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "libfake.so.1"
    path.write_bytes(stand_in("libfake.so.1", [Wanted("fake", "FAKE_2", "libfake.so.1")]))
    loader = ctypes.CDLL(None)
    loader.dlvsym.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(ctypes.CDLL(str(path))._handle)
    assert loader.dlvsym(handle, b"fake", b"FAKE_2")
    assert not loader.dlvsym(handle, b"fake", b"FAKE_3")


def test_what_a_library_wants_is_read_from_it() -> None:
    import numpy._core._multiarray_umath as library

    needed, symbols = wanted(Path(library.__file__))
    assert "libc.so.6" in needed
    assert all(one.name for one in symbols)
    found = {one.name: one for one in symbols}
    assert found["memcpy"].library == "libc.so.6"
    assert found["memcpy"].version.startswith("GLIBC_2.")


def test_a_file_that_is_no_library_is_told(tmp_path: Path) -> None:
    (tmp_path / "text.so").write_text("text")
    with pytest.raises(ValueError, match=r"text\.so is no 64-bit"):
        wanted(tmp_path / "text.so")
