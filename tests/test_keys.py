"""Keys: what they cover, what they don't, and what is said when one differs."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from tpumake.job import Job
from tpumake.keys import Digests, Key, Record, why

KEY = Key("deploy", ["--chip", "cv181x"], {"a.npz": "1" * 64}, {"lock.txt": "2" * 64})
RECORD = Record(KEY, {"m.cvimodel": "3" * 64}, "3 MB")


def changed(**parts: object) -> Key:
    return KEY._replace(**parts)


OTHERS = {
    "stage": changed(stage="transform"),
    "parameter": changed(parameters=["--chip", "cv180x"]),
    "order of parameters": changed(parameters=["cv181x", "--chip"]),
    "input": changed(inputs={"a.npz": "4" * 64}),
    "name of an input": changed(inputs={"b.npz": "1" * 64}),
    "one input more": changed(inputs={"a.npz": "1" * 64, "b": {}}),
    "code": changed(code={"lock.txt": "5" * 64}),
    "format": changed(format=KEY.format + 1),
}


@pytest.mark.parametrize("what", OTHERS)
def test_everything_that_matters_makes_another_key(what: str) -> None:
    other = OTHERS[what]
    assert other.digest != KEY.digest
    assert len(other.digest) == 64
    assert why(RECORD, other, []) != ""


def test_the_same_is_the_same() -> None:
    assert Key("deploy", ["--chip", "cv181x"], {"a.npz": "1" * 64}, {"lock.txt": "2" * 64}) == KEY
    assert KEY._replace().digest == KEY.digest
    assert why(RECORD, KEY, []) == ""


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (OTHERS["parameter"], "parameters changed: cv181x → cv180x"),
        (changed(parameters=["--chip", "cv181x", "--x"]), "parameters changed: with --x"),
        (changed(parameters=["--chip"]), "parameters changed: without cv181x"),
        (OTHERS["order of parameters"], "parameters changed"),
        (OTHERS["input"], "a.npz changed"),
        (OTHERS["name of an input"], "a.npz is gone, b.npz is new"),
        (OTHERS["code"], "lock.txt changed"),
        (OTHERS["format"], "this version makes keys otherwise"),
    ],
)
def test_the_reason_is_one_line(key: Key, reason: str) -> None:
    assert why(RECORD, key, []) == reason


def test_a_folders_reason_counts_files() -> None:
    before = Record(changed(inputs={"set": {"1": "a", "2": "b", "3": "c"}}), {}, "")
    after = changed(inputs={"set": {"1": "a", "2": "x", "4": "c"}})
    assert why(before, after, []) == "set changed: 3 files"


def test_without_a_record_or_output_it_runs() -> None:
    assert why(None, KEY, []) == "it has not run yet"
    assert why(RECORD, KEY, ["m.cvimodel"]) == "m.cvimodel is not what was made"


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "x.key").write_text(RECORD.to_json())
    assert Record.load(tmp_path / "x.key") == RECORD
    assert json.loads((tmp_path / "x.key").read_text())["digest"] == KEY.digest


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"key": {"stage": 1}}', "\0\1"])
def test_a_damaged_record_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.key").write_text(text)
    assert Record.load(tmp_path / "x.key") is None


def test_a_record_without_times_is_read() -> None:
    record = Record(KEY, {"out": "c0"}, "a figure", {}, 5, 1.5, True)
    document = json.loads(record.to_json())
    assert (document["seconds"], document["cached"]) == (1.5, True)
    assert document["digest"] == Record(KEY, {}, "").key.digest
    del document["seconds"], document["cached"]
    assert Record.from_json(json.dumps(document)) == record._replace(seconds=0, cached=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [("seconds", -1), ("seconds", "1"), ("seconds", float("nan")), ("seconds", True),
     ("seconds", float("inf")), ("cached", 1), ("cached", None)],
)  # fmt: skip
def test_a_record_of_impossible_times_is_none(name: str, value: object) -> None:
    document = json.loads(Record(KEY, {}, "").to_json())
    assert Record.from_json(json.dumps(document | {name: value})) is None


def test_digests_are_those_of_the_contents(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("data/b", "data/a"):
        (tmp_path / name).write_text(name)
    (tmp_path / "data/manifest.json").write_text("notes")
    with Digests(tmp_path / "memory") as digests:
        sums = subprocess.run(
            ["sha256sum", "data/a", "data/b"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        assert digests.of(tmp_path / "data") == {
            "a": sums[0],
            "b": sums[2],
            "manifest.json": "",
        }
        assert digests.of(tmp_path / "data/a") == sums[0]


def test_a_change_of_the_same_size_within_the_clocks_tick_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "x"
    with Digests(tmp_path / "memory") as digests:
        seen = set()
        for number in range(50):
            file.write_text(f"{number:04}")
            seen.add(digests.of(file))
        assert len(seen) == 50


def test_nothing_is_read_twice(tmp_path: Path) -> None:
    """The remembered digest is given though the bytes, behind an unchanged time, are others."""
    file = tmp_path / "x"
    file.write_text("before")
    old = time.time_ns() - 10**9
    os.utime(file, ns=(old, old))
    with Digests(tmp_path / "memory") as digests:
        first = digests.of(file)
        file.write_text("behind")
        os.utime(file, ns=(old, old))
        assert digests.of(file) == first
        os.utime(file)
        assert digests.of(file) != first


def test_two_scripts_of_one_name_both_count(tmp_path: Path) -> None:
    for folder in ("scripts", "scripts/tpumake"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "npz_compare.py").write_text(folder)
    code = [tmp_path / "scripts/npz_compare.py", tmp_path / "scripts/tpumake/npz_compare.py"]
    job = Job("deploy", "m", {}, [], ["tool"], tmp_path, tmp_path / "log", code=code)
    with Digests(tmp_path / "memory") as digests:
        before = job.key(digests).digest
        code[0].write_text("changed")
        assert job.key(digests).digest != before


@pytest.mark.parametrize("word", ["{}/in.onnx", "{}/./in.onnx", "{}//in.onnx"])
def test_where_an_input_lies_does_not_count_however_it_is_written(
    tmp_path: Path, word: str
) -> None:
    digests = Digests(tmp_path / "memory")
    keys = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "in.onnx").write_text("network")
        path = word.format(folder)
        job = Job(
            "downgrade", "m", {"in": Path(path)}, [], ["tool", path], tmp_path, tmp_path / "log"
        )
        keys.append(job.key(digests))
    assert keys[0] == keys[1]
    assert keys[0].parameters == ["<in>"]


def test_the_c_library_counts_where_it_matters(tmp_path: Path) -> None:
    job = Job("deploy", "m", {}, [], ["tool"], tmp_path, tmp_path / "log")
    with Digests(tmp_path / "memory") as digests:
        assert job.key(digests).parameters == []
        (libc,) = job._replace(libc_matters=True).key(digests).parameters
    assert libc.startswith("glibc 2.")


def test_links_to_folders_are_followed_and_circles_end(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/b").write_text("b")
    (tmp_path / "data/inner").mkdir(parents=True)
    (tmp_path / "data/inner/a").write_text("a")
    (tmp_path / "data/inner/again").symlink_to(tmp_path / "data")
    (tmp_path / "data/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/to nowhere").symlink_to("nowhere")
    with Digests(tmp_path / "memory") as digests:
        assert list(digests.of(tmp_path / "data")) == ["inner/a", "linked/b"]
