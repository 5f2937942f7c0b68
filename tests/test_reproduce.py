"""`make TARGET.reproduce`: two builds that are the same, and some that a test makes differ."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import jsonschema
import onnx
import pytest
from conftest import QUICK, ROOT, Checkout
from PIL import Image

from tpumake import two_builds
from tpumake.two_builds import Request, results

pytestmark = pytest.mark.slow

SCHEMA = json.loads((ROOT / "schemas/reproduce.schema.json").read_text())
# What takes a second to build and needs no toolchain.
NETWORK = "build/tiny/tiny_v8.onnx"
SOURCES = ["--source", "tiny_ONNX=models/tiny.onnx", "--source", "tiny_DATASET=datasets/shapes"]
RESULT = "tiny/tiny_v8.onnx"


def report(checkout: Checkout, *arguments: str, **environment: str) -> dict:
    """The JSON document; standard output has nothing else."""
    done = checkout.make(*arguments, "JSON=1", check=False, **environment)
    assert done.stdout, done.stderr
    document = json.loads(done.stdout)
    jsonschema.validate(document, SCHEMA)
    assert document["same"] == (done.returncode == 0)
    return document


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def left(checkout: Checkout) -> list[Path]:
    """What is there in the build folder."""
    return [path for path in checkout.path.glob("build/**/*") if path.is_file()]


def sabotage(checkout: Checkout, code: str) -> None:
    """Have the downgrade run a line of code on the network before it is saved."""
    helper = checkout.path / "scripts/tpumake/onnx_io.py"
    text = helper.read_text()
    head = re.search(r"^def save\(.*?\n    \"\"\".*?\"\"\"\n", text, re.M | re.S)
    assert head
    text = f"{text[: head.end()]}    import os, time\n    {code}\n{text[head.end() :]}"
    helper.write_text(text)


@pytest.mark.slow
def test_two_builds_that_are_the_same(checkout: Checkout) -> None:
    done = checkout.make(f"{NETWORK}.reproduce")
    first, second = (done.stdout.index(f"build {number} of 2") for number in (1, 2))
    downgrades = [match.start() for match in re.finditer(r"^tiny +downgrade", done.stdout, re.M)]
    assert first < downgrades[0] < second < downgrades[1]
    (row,) = re.findall(rf"^{RESULT}  ([0-9a-f]{{16}})  same$", done.stdout, re.M)
    varied = re.search(r"^varied: (.*)$", done.stdout, re.M)[1].split(", ")
    assert {"folder", "time zone", "locale", "umask", "user", "environment", "jobs"} <= set(varied)
    assert "the same in both builds: 1 of 1 files" in done.stdout
    # Nothing is left, nothing is taken for a result of the tree's own; which is the same.
    assert left(checkout) == []
    checkout.make(NETWORK)
    assert digest(checkout.path / NETWORK).startswith(row)


@pytest.mark.slow
def test_a_difference_is_named_and_both_files_are_kept(checkout: Checkout) -> None:
    sabotage(checkout, "network.model.producer_version = os.environ['TZ']")
    document = report(checkout, f"{NETWORK}.reproduce")
    (file,) = document["files"]
    assert file["path"] == RESULT
    assert file["differences"] == ['producer_version "UTC0" → "TST-13:45"']
    kept = [checkout.path / "build/reproduce/build_tiny_tiny_v8.onnx" / name / RESULT
            for name in ("first", "second")]  # fmt: skip
    assert [digest(path) for path in kept] == [file["first"], file["second"]]
    # The helper's own exit code is 1; Make's is 2 for everything.
    python = Path(".venv/bin/python")
    command = [python, "scripts/reproduce.py", NETWORK, *SOURCES]
    done = subprocess.run(command, cwd=checkout.path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert re.search(
        rf"^{RESULT} +[0-9a-f]{{16}}  differs\n    producer_version", done.stdout, re.M
    )
    assert done.stderr.startswith(
        "reproduce: 1 of 1 files differ; both versions are kept in build/"
    )
    assert len(left(checkout)) == 2
    # Once they are the same, what was kept of an earlier run goes.
    shutil.copy2(ROOT / "scripts/tpumake/onnx_io.py", checkout.path / "scripts/tpumake")
    checkout.make(f"{NETWORK}.reproduce")
    assert left(checkout) == []


def test_a_file_that_one_build_lacks_is_named(tmp_path: Path) -> None:
    from reproduce import compare

    for name in ("first/a.mlir", "first/b.mlir", "second/b.mlir", "second/logs/x.log"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    rows = compare(tmp_path / "first", tmp_path / "second")
    assert [(str(row.name), row.differences) for row in rows] == [
        ("a.mlir", ["only in the first build"]),
        ("b.mlir", []),
    ]


@pytest.mark.slow
def test_the_users_own_files_reach_both_builds(checkout: Checkout, tmp_path: Path) -> None:
    """By a relative path out of the tree, by one from the home folder, by an absolute one."""
    network = onnx.load(checkout.path / "models/tiny.onnx")
    network.producer_name = "mine"
    places = ["nets/my best.onnx", "home/best.onnx", "else/best.onnx"]
    for place in places:
        (tmp_path / place).parent.mkdir()
        onnx.save(network, tmp_path / place)
    home = str(tmp_path / "home")
    made = set()
    for given in ("../nets/my best.onnx", "~/best.onnx", str(tmp_path / places[2])):
        argument = f"tiny_ONNX={given}"
        document = report(checkout, f"{NETWORK}.reproduce", argument, HOME=home)
        (file,) = document["files"]
        made.add(file["first"])
    checkout.make(NETWORK, argument)
    assert made == {digest(checkout.path / NETWORK)}
    checkout.make(NETWORK)
    assert made != {digest(checkout.path / NETWORK)}


@pytest.mark.slow
def test_pictures_in_a_folder_and_in_a_list(checkout: Checkout, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(12):
        Image.new("RGB", (32, 24), (number, 0, 0)).save(photos / f"ü {number}.png")
    # One that leads round in a circle, and one that leads to a picture elsewhere.
    (photos / "again").symlink_to(photos)
    (tmp_path / "another.png").write_bytes((photos / "ü 0.png").read_bytes() + b"\0")
    (photos / "linked.png").symlink_to("../another.png")
    lines = ["# pictures", *(f"../photos/ü {number}.png" for number in range(11)), ""]
    (checkout.path / "some.txt").write_text("\n".join(lines))
    for given, name, count in (("../photos", "..-photos-16", 13), ("some.txt", "some.txt-16", 11)):
        target = f"build/datasets/{name}/manifest.json.reproduce"
        document = report(checkout, target, f"tiny_DATASET={given}")
        assert document["same"]
        pictures = [file for file in document["files"] if "Calibration" in file["path"]]
        assert len(pictures) == count
    done = checkout.make(target, f"tiny_DATASET={given}")
    assert re.search(r"^datasets/some.txt-16/Calibration… \(11 files\) +\w{16}  same$",
                     done.stdout, re.M)  # fmt: skip


@pytest.mark.slow
def test_a_network_with_data_beside_it(checkout: Checkout) -> None:
    network = onnx.load(checkout.path / "models/tiny.onnx")
    onnx.save(network, checkout.path / "models/tiny.onnx", save_as_external_data=True,
              location="weights.bin", size_threshold=0)  # fmt: skip
    assert report(checkout, f"{NETWORK}.reproduce")["same"]


@pytest.mark.slow
def test_the_chip_and_the_build_folder_reach_both_builds(checkout: Checkout) -> None:
    sabotage(checkout, "network.model.producer_version = os.environ['CHIP']")
    arguments = ("out/tiny/tiny_v8.onnx.reproduce", "BUILD=out", "CHIP=cv180x")
    assert report(checkout, *arguments)["same"]
    assert not (checkout.path / "build").exists()


def test_a_first_build_that_fails(checkout: Checkout) -> None:
    done = checkout.make(f"{NETWORK}.reproduce", "tiny_OUTPUTS=output1", check=False)
    assert done.returncode == 2
    assert 'no tensor "output1"' in done.stderr
    said = done.stderr.splitlines()
    (line,) = [line for line in said if line.startswith("reproduce: ")]
    assert "build 1 of 2 failed, see above; its logs are kept in build/reproduce/" in line
    kept = {
        path.relative_to(checkout.path / "build/reproduce").as_posix() for path in left(checkout)
    }
    assert "build_tiny_tiny_v8.onnx/tiny/logs/stanza.log" in kept
    assert all(name.endswith(".log") for name in kept)


@pytest.mark.slow
def test_a_second_build_that_fails_is_a_difference(checkout: Checkout) -> None:
    sabotage(checkout, "assert os.environ['TZ'] == 'UTC0'")
    done = checkout.make(f"{NETWORK}.reproduce", check=False)
    assert "build 2 of 2 failed" in done.stderr
    assert "Error 1\n" in done.stderr


@pytest.mark.parametrize("target", ["nosuch", "tiny_int9", "clean", "distclean", "list"])
def test_what_can_not_be_reproduced_is_told_and_not_run(checkout: Checkout, target: str) -> None:
    done = checkout.make(f"{target}.reproduce", check=False)
    assert done.returncode == 2
    assert f"there is no {target} to reproduce; make list shows" in done.stderr
    assert (checkout.path / ".venv").exists()


def running(folder: Path) -> list[str]:
    """Where processes below a folder are at work, and on what."""
    found = []
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            where = str((process / "cwd").readlink())
            if where.startswith(str(folder)):
                found.append(f"{where}: {(process / 'cmdline').read_bytes().decode()}")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_it(checkout: Checkout, number: signal.Signals) -> None:
    sabotage(checkout, "time.sleep(60) if os.environ['TZ'] != 'UTC0' else None")
    command = [".venv/bin/python", "scripts/reproduce.py", NETWORK, *SOURCES]
    process = subprocess.Popen(
        command, cwd=checkout.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    deadline = time.monotonic() + 60
    while not any("a copy" in each and "onnx_downgrade" in each for each in running(checkout.path)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(number)
    said = process.communicate(timeout=20)[0].decode()
    assert process.returncode == (-9 if number == signal.SIGKILL else 130)
    assert "Traceback" not in said
    deadline = time.monotonic() + 10
    while running(checkout.path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert running(checkout.path) == []
    if number == signal.SIGKILL:
        # What it could not tidy up itself goes with the next one.
        shutil.copy2(ROOT / "scripts/tpumake/onnx_io.py", checkout.path / "scripts/tpumake")
        subprocess.run(command, cwd=checkout.path, check=True, capture_output=True)
    assert left(checkout) == []


# ---------------------------------------------------------------------------------------------
# Parts


def request(**sources: Path) -> Request:
    folder = Path("build")
    return Request("x", folder, "make", [], sources, [], None)


def test_results_are_told_from_notes(tmp_path: Path) -> None:
    names = ["m/m.mlir", "m/logs/a.log", "m/logs/a.key", "m/transform.parameters",
             ".digests", "all.json", ".work/x/m.mlir", "m/cv181x/m.cvimodel",
             "datasets/d/1.jpg"]  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [str(name) for name in results(tmp_path)]
    assert found == ["datasets/d/1.jpg", "m/cv181x/m.cvimodel", "m/m.mlir"]


def test_a_clock_that_is_not_fake_is_not_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "faketime"
    program.write_text("#!/bin/sh\necho /no/such/library.so\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert two_builds._fake_clock() == {}


def test_a_picture_within_another_models_pictures_does_not_hide_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pictures = Path("datasets/d/images")
    pictures.mkdir(parents=True)
    for name in ("1.jpg", "2.jpg"):
        (pictures / name).write_text(name)
    top = tmp_path / "top"
    wanted = request(a_TEST_INPUT=pictures / "2.jpg", b_DATASET=Path("datasets/d"))
    two_builds._add_sources(wanted, top)
    assert sorted(path.name for path in (top / pictures).iterdir()) == ["1.jpg", "2.jpg"]
    # One that comes later belongs to other inputs.
    (pictures / "3.jpg").write_text("3")
    two_builds._add_sources(wanted, top)
    assert not (top / pictures / "3.jpg").exists()


# ---------------------------------------------------------------------------------------------
# With the real toolchain


@pytest.mark.toolchain
@pytest.mark.slow
def test_a_models_section_is_named_and_the_rest_is_the_same(checkout: Checkout) -> None:
    """The build time is another one in another time zone; nothing else is wrong."""
    code = checkout.path / "scripts/tpumake/cvimodel.py"
    text = code.read_text()
    changed = text.replace("time.gmtime(epoch)", "time.gmtime(epoch - time.timezone // 900)")
    assert changed != text
    code.write_text(changed)
    document = report(checkout, "tiny_int8.reproduce", *QUICK, "tiny_OPT=2", "VALIDATE=0")
    pictures = {f"datasets/shapes-10/Calibration{number}.jpg" for number in range(1, 11)}
    assert {file["path"] for file in document["files"]} - pictures == {
        "datasets/shapes-10/manifest.json",
        "tiny/cv181x/tiny_int8.cvimodel",
        "tiny/cv181x/tiny_int8.json",
        "tiny/tiny.mlir",
        "tiny/tiny_calib_table",
        "tiny/tiny_top_f32_all_weight.npz",
        "tiny/tiny_v8.onnx",
    }
    files = {file["path"]: file for file in document["files"] if not file["same"]}
    # What goes with the model has its checksum.
    assert sorted(files) == ["tiny/cv181x/tiny_int8.cvimodel", "tiny/cv181x/tiny_int8.json"]
    assert files["tiny/cv181x/tiny_int8.cvimodel"]["differences"] == [
        'flatbuffer: build_time "1980-01-01 00:00:00" → "1980-01-01 00:00:55"'
    ]
