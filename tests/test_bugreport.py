"""make bugreport: what is in it, what isn't, and that nothing else is written."""

from __future__ import annotations

import json
import os
import re
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, Checkout, helper, refused

from tpumake import bug_report
from tpumake.errors import BadInput

FILES = {
    "tiny/logs/transform.log": "$ {here}/.venv/bin/python {home}/photos/a.jpg\n{home}x stays\n",
    "tiny/logs/transform.key": "{{}}\n",
    "tiny/logs/transform.lock": "",
    "tiny/stanza.parameters": '{{"model": "tiny"}}',
    "tiny/tiny.mlir": "module\n",
    "tiny/tiny_calib_table": "x 1 -1 1\n",
    "tiny/tiny_v8.onnx": "weights",
    "tiny/tiny_top_f32_all_weight.npz": "weights",
    "tiny/tiny_in_f32.npz": "a picture",
    "tiny/cv181x/logs/int8.log": "int8\n",
    "tiny/cv181x/logs/bf16.log": "bf16\n",
    "tiny/cv181x/logs/qtable.log": "qtable\n",
    "tiny/cv181x/tiny_qtable": "y BF16\n",
    "tiny/cv181x/tiny_int8.cvimodel": "weights",
    "tiny/cv180x/logs/int8.log": "another chip\n",
    "other/logs/transform.log": "another model\n",
    "datasets/logs/set.log": "a set\n",
    "datasets/set/Calibration1.jpg": "a picture",
    "datasets/set/manifest.json": "{{}}",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout in the home folder, with what builds leave; it becomes the current folder."""
    home = tmp_path / "jäne"
    here = home / "my tpumake"
    for name, text in FILES.items():
        path = here / "build" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(home=home, here=here))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    return here


def report(project: Path, *arguments: str) -> tuple[str, dict[str, str]]:
    """What packing one prints, and what is in it."""
    before = {path for path in project.rglob("*") if path.suffix != ".zip"}
    done = helper(
        "pack_bugreport", "--build", "build", "--set", "tiny=set", "--network",
        f"tiny={ROOT}/models/tiny.onnx", "--lock", ROOT / "requirements/helpers.txt", "--chip",
        "cv181x", *arguments, cwd=project,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {path for path in project.rglob("*") if path.suffix != ".zip"} == before
    archive = zipfile.ZipFile(project / re.search(r"^→ (\S+),", done.stdout, re.M)[1])
    return done.stdout, {name: archive.read(name).decode(errors="replace")
                         for name in archive.namelist()}  # fmt: skip


def test_it_has_logs_keys_tables_and_versions_and_no_weights(project: Path) -> None:
    said, found = report(project, "--model", "tiny", "--variant", "int8")
    assert set(found) == {
        "versions.json", "network.txt", "datasets/logs/set.log",
        "tiny/logs/transform.log", "tiny/logs/transform.key", "tiny/stanza.parameters",
        "tiny/tiny.mlir", "tiny/tiny_calib_table", "tiny/cv181x/logs/int8.log",
        "tiny/cv181x/logs/qtable.log", "tiny/cv181x/tiny_qtable",
    }  # fmt: skip
    assert "build/tiny_int8.bugreport.zip" in said
    assert all(name in said for name in found)
    assert 'BUGREPORT="weights pictures"' in said


def test_homes_and_checkouts_paths_are_not_told(project: Path) -> None:
    _, found = report(project, "--model", "tiny")
    home = str(Path.home())
    log = found["tiny/logs/transform.log"]
    assert log == f"$ ./.venv/bin/python ~/photos/a.jpg\n{home}x stays\n"
    assert "tiny/cv181x/logs/bf16.log" in found


def test_weights_and_pictures_where_they_are_asked_for(project: Path) -> None:
    _, found = report(project, "--model", "tiny", "--also", "weights pictures")
    assert {
        "network/tiny.onnx", "tiny/tiny_v8.onnx", "tiny/tiny_top_f32_all_weight.npz",
        "tiny/tiny_in_f32.npz", "datasets/set/Calibration1.jpg", "datasets/set/manifest.json",
    } <= set(found)  # fmt: skip
    assert not [name for name in report(project, "--model", "tiny", "--also", "weights")[1]
                if "Calibration" in name or "in_f32" in name]  # fmt: skip


def test_the_network_is_listed_without_its_weights(project: Path) -> None:
    lines = report(project, "--model", "tiny")[1]["network.txt"].splitlines()
    assert lines[0].startswith("IR ")
    assert "input images 1 [1, 3, 64, 64]" in lines
    assert any(re.match(r"Conv\(images, .*kernel_shape=\[3, 3\]", line) for line in lines)


def test_versions_have_the_locks_and_no_time(project: Path) -> None:
    versions = json.loads(report(project, "--model", "tiny")[1]["versions.json"])
    assert len(versions["locks"]["helpers.txt"]) == 64
    assert versions["python"].startswith("3.")
    assert versions["memory"] > 10**8


def test_the_same_files_make_the_same_bytes(project: Path) -> None:
    target = project / "build/tiny.bugreport.zip"
    report(project, "--model", "tiny")
    first = target.read_bytes()
    for path in project.rglob("*"):
        path.touch()
    report(project, "--model", "tiny")
    assert target.read_bytes() == first


@pytest.mark.parametrize(
    ("failed", "subject"),
    [
        ("tiny/logs/transform.failed", ("tiny", "", "")),
        ("tiny/cv181x/logs/int8.failed", ("tiny", "cv181x", "int8")),
        ("tiny/cv181x/logs/int8.lower.failed", ("tiny", "cv181x", "int8")),
        ("tiny/cv181x/logs/qtable.failed", ("tiny", "cv181x", "")),
        ("datasets/logs/set.failed", ("tiny", "", "")),
    ],
)
def test_without_a_name_it_is_about_what_failed_last(
    project: Path, failed: str, subject: tuple[str, ...]
) -> None:
    earlier = project / "build/other/logs/transform.failed"
    for number, path in enumerate((earlier, project / "build" / failed)):
        path.touch()
        os.utime(path, (number, number))
    assert bug_report.last_failure(Path("build"), {"tiny": "set"}) == subject


def test_what_is_not_there_is_one_line(project: Path) -> None:
    assert "no stage has failed" in refused(helper("pack_bugreport", "--build", "build"))
    unknown = helper("pack_bugreport", "--build", "build", "--model", "nosuch", cwd=project)
    assert "nothing of nosuch in build; make it first" in refused(unknown)
    wrong = helper("pack_bugreport", "--build", "build", "--also", "wieghts", cwd=project)
    assert "there is no wieghts; weights, pictures" in refused(wrong)
    with pytest.raises(BadInput):
        bug_report.collect(Path("build"), bug_report.Subject("nosuch"), "set", None, ())


@pytest.mark.slow
def test_make_reports_on_what_failed(checkout: Checkout) -> None:
    """From the stage's failure to the archive; and a success takes the note away."""
    target = "build/tiny/tiny_v8.onnx"
    failed = checkout.make(target, "tiny_OUTPUTS=nosuch", check=False)
    assert "make bugreport" not in failed.stderr
    said = checkout.make("bugreport").stdout
    assert "tiny/logs/stanza.failed" in said
    assert "→ build/tiny.bugreport.zip" in said
    note = json.loads((checkout.path / "build/tiny/logs/stanza.failed").read_text())
    assert note["stage"] == "stanza"
    assert "nosuch" in note["cause"]
    checkout.make(target)
    done = checkout.make("bugreport", check=False)
    assert "no stage has failed" in done.stderr
    assert "tiny/stanza.parameters" in checkout.make("tiny_int8.bugreport").stdout
    unknown = checkout.make("nosuch.bugreport", check=False)
    assert "there is no nosuch to report on" in unknown.stderr
