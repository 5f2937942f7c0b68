"""Set-up: locks, host checks, the order of interpreters, the assembled CPython 3.10."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, Checkout, Toolchain

import setup_toolchain
from tpumake import installer
from tpumake.elf_launcher import launcher, with_plain_stack
from tpumake.installer import SetupError, locked

LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_requirement_is_pinned_by_hash_and_no_index_is_named(lock: Path) -> None:
    text = lock.read_text()
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.M)[1:]
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9._-]+==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry
    assert "://" not in text
    assert "index-url" not in text


@pytest.mark.parametrize("version", ["1.7", "1.30.2"])
def test_the_toolchain_lock_has_tpu_mlir_and_no_framework(version: str) -> None:
    lock = (ROOT / f"requirements/tpu_mlir-{version}.txt").read_text()
    assert f"tpu-mlir=={version} " in lock
    names = set(re.findall(r"^([a-z0-9-]+)==", lock, re.M))
    assert {"tpu-mlir", "onnx", "onnxruntime", "numpy"} <= names
    assert not names & {"torch", "tensorflow-cpu", "paddlepaddle", "transformers", "pandas"}


@pytest.mark.toolchain
def test_the_tools_are_apart_from_the_helpers(toolchain: Toolchain, tmp_path: Path) -> None:
    """tpu_mlir pins an onnx that is too old for ours: neither environment sees the other's."""
    code = "from importlib.metadata import version; print(version('onnx'))"
    theirs = toolchain.run(["python3", "-c", code], tmp_path).stdout.strip()
    ours = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert theirs == "1.14.0"
    assert ours.stdout.strip() != theirs


def test_locked_cuts_out_whole_entries() -> None:
    entry = locked(ROOT / "requirements/helpers.txt", "uv")
    assert entry.startswith("uv==")
    assert entry.count("==") == 1
    assert entry.count("--hash=sha256:") > 1


def test_locked_says_which_lock_lacks_a_package() -> None:
    with pytest.raises(SetupError, match=r"helpers\.txt.*nosuchpackage.*make lock"):
        locked(ROOT / "requirements/helpers.txt", "nosuchpackage")


@pytest.mark.parametrize("libc", ["glibc 2.31", "glibc 2.34", None, "musl 1.2"])
def test_an_old_or_other_c_library_is_refused(
    libc: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "confstr", lambda name: libc)
    with pytest.raises(SetupError, match=r"glibc 2\.35 or newer.*Dockerfile"):
        setup_toolchain.check_host(tmp_path)


@pytest.mark.parametrize("libc", ["glibc 2.35", "glibc 2.36", "glibc 3.0"])
def test_newer_c_libraries_are_accepted(
    libc: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "confstr", lambda name: libc)
    setup_toolchain.check_host(tmp_path)


def test_a_colon_in_the_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="':' in its name"):
        setup_toolchain.check_host(tmp_path / "a:b")


def test_a_users_wrong_python_is_named_with_what_it_is(tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho 'AssertionError: it is Python 3.9.1' >&2; exit 1\n")
    other.chmod(0o755)
    with pytest.raises(SetupError, match=r"PYTHON310=.*/python: AssertionError: it is Python 3\.9"):
        setup_toolchain.find_python(str(other), Path(), Path())
    with pytest.raises(SetupError, match=r"PYTHON310=/bin/true: it is not a CPython 3\.10"):
        setup_toolchain.find_python("/bin/true", Path(), Path())


def test_a_missing_python_is_named() -> None:
    with pytest.raises(SetupError, match="PYTHON310=/no/python: /no/python: No such file"):
        setup_toolchain.find_python("/no/python", Path(), Path())


def test_earlier_interpreters_that_failed_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def no_download(folder: Path) -> Path:
        raise SetupError("uv's managed Python: no route to host")

    def assemble(target: Path, wheel: Path) -> None:
        program = target / "bin" / "python3.10"
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\necho 3.10.99\n")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(setup_toolchain.shutil, "which", lambda name: None)
    monkeypatch.setattr(setup_toolchain, "_managed", no_download)
    monkeypatch.setattr(setup_toolchain, "assemble", assemble)
    found = setup_toolchain.find_python("", tmp_path, tmp_path)
    assert (found.version, found.origin) == ("3.10.99", "assembled from published packages")
    said = capsys.readouterr().out
    assert "python3.10 on PATH: there is none" in said
    assert "no route to host" in said


def test_pips_own_index_is_handed_on_to_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    assert installer.uv_settings()["UV_DEFAULT_INDEX"] == "https://mirror.example/simple"
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://other.example/simple")
    assert installer.uv_settings()["UV_DEFAULT_INDEX"] == "https://other.example/simple"


def test_a_failed_command_is_told_in_one_line() -> None:
    script = "echo some output; echo 'error: no space left on device' >&2; exit 3"
    with pytest.raises(SetupError, match=r"^unpacking: error: no space left on device$"):
        installer.run(["sh", "-c", script], "unpacking")


def test_setup_venv_says_what_it_needs_when_pip_can_not_be_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(installer, "_installed_pip", lambda: None)
    monkeypatch.setattr(installer, "_bundled_pip", lambda: None)
    monkeypatch.setattr(installer.shutil, "which", lambda name: None)
    with pytest.raises(SetupError, match=r"no pip.*apt install python3-venv"), installer.any_pip():
        pass


def test_only_the_wish_for_an_executable_stack_is_taken_out() -> None:
    plain = launcher("libpython3.10.so.1.0", "Py_BytesMain", "$ORIGIN/../lib")
    assert with_plain_stack(plain) is None
    header = struct.pack("<II", 0x6474E551, 6)
    assert plain.count(header) == 1
    wishing = plain.replace(header, struct.pack("<II", 0x6474E551, 7))
    assert with_plain_stack(wishing) == plain


@pytest.mark.parametrize("image", [b"", b"\x7fELF", b"\x7fELF\x01" + bytes(100), b"!<arch>\n" * 20])
def test_what_is_no_such_library_is_left_alone(image: bytes) -> None:
    assert with_plain_stack(image) is None


@pytest.mark.toolchain
def test_no_library_of_the_toolchain_wishes_for_an_executable_stack(toolchain: Toolchain) -> None:
    """On Debian 13 and others with glibc 2.41 it would not be loaded."""
    libraries = [path for path in toolchain.program.parent.rglob("*.so*") if path.is_file()]
    assert len(libraries) > 100
    heads = {path: path.open("rb").read(4096) for path in libraries}
    assert [path for path, head in heads.items() if with_plain_stack(head)] == []


def test_the_launcher_is_the_same_each_time_and_small() -> None:
    first = launcher("libpython3.10.so.1.0", "Py_BytesMain", "$ORIGIN/../lib")
    assert first == launcher("libpython3.10.so.1.0", "Py_BytesMain", "$ORIGIN/../lib")
    assert first[:4] == b"\x7fELF"
    assert len(first) < 8192


@pytest.mark.toolchain
def test_an_assembled_python_does_what_the_tools_need(toolchain: Toolchain, tmp_path: Path) -> None:
    """Really puts one together, whatever this machine's toolchain runs on."""
    wheel = toolchain.program.parent / "site-packages" / "tpu_mlir"
    target = tmp_path / "with space" / "python"
    target.parent.mkdir()
    command = [sys.executable, ROOT / "scripts/assemble_python.py", target, wheel]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    python = target / "bin" / "python3.10"
    probe = subprocess.run(
        [python, "-I", "-c", setup_toolchain.PROBE], capture_output=True, text=True, check=False
    )
    assert probe.stdout.startswith("3.10."), probe.stderr
    script = "import sys; print(sys.argv[1:]); sys.stderr.write('err'); sys.exit(7)"
    said = subprocess.run(
        [python, "-c", script, "a b", "ü"], capture_output=True, text=True, check=False
    )
    assert (said.returncode, said.stdout.strip(), said.stderr) == (7, "['a b', 'ü']", "err")
    assert not list(tmp_path.rglob("*.new-*"))


@pytest.mark.toolchain
def test_a_second_setup_costs_under_a_second(checkout: Checkout) -> None:
    started = time.monotonic()
    checkout.make("setup")
    assert time.monotonic() - started < 1
    # Linked environments count as the ones that are there: nothing was made anew.
    assert (checkout.path / ".venv").is_symlink()


@pytest.mark.toolchain
def test_the_tools_find_their_libraries_and_each_other(
    toolchain: Toolchain, tmp_path: Path
) -> None:
    assert "usage" in toolchain.run(["model_deploy.py", "--help"], tmp_path).stdout
    found = toolchain.run(["sh", "-c", "command -v tpuc-opt npz_tool.py python3"], tmp_path).stdout
    assert all(
        line.startswith(str(toolchain.program.resolve().parent)) for line in found.split("\n")[:-1]
    )
    # The host's C library, not the wheel's.
    libraries = toolchain.run(["ldd", str(Path(found.split("\n")[0]))], tmp_path).stdout
    assert re.search(r"libc\.so\.6 => .*host-lib", libraries), libraries


@pytest.mark.toolchain
def test_what_killed_processes_leave_to_openmp_kills_no_other(
    toolchain: Toolchain, tmp_path: Path
) -> None:
    """An empty file of a process's own number would end it with SIGBUS."""
    left = Path("/dev/shm/__KMP_REGISTERED_LIB_")
    ended = subprocess.Popen(["true"])
    ended.wait()
    of_dead = left.with_name(f"{left.name}{ended.pid}_{os.getuid()}")
    of_living = left.with_name(f"{left.name}{os.getpid()}_{os.getuid()}")
    code = "import ctypes; print(ctypes.CDLL('libomp.so.5').omp_get_max_threads())"
    start = ': > "$1$$_$(id -u)"; exec "$2" python3 -c "$3"'
    of_dead.touch()
    of_living.touch()
    try:
        command = ["sh", "-c", start, "sh", left, toolchain.program, code]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
        assert not of_dead.exists()
        assert of_living.exists()
    finally:
        of_dead.unlink(missing_ok=True)
        of_living.unlink(missing_ok=True)
