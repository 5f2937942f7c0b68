"""`make matrix`: which jobs there are, and with CHANGED= what makes each of them necessary."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import jsonschema
import pytest
from conftest import ROOT, Checkout, helper, refused

from tpumake.matrix import touched

SCHEMA = json.loads((ROOT / "schemas/matrix.schema.json").read_text())
HERE = Checkout(ROOT)

# In a project of one's own: a model for each thing that may change.
MODELS = ("same", "comment", "default", "scale", "network", "beside", "pictures", "listed", "names",
          "variant", "machine", "hidden", "lost", "linked", "fetched")  # fmt: skip


def stanza(name: str, *settings: str) -> str:
    lines = [f"{name}_ONNX = nets/{name}.onnx", f"{name}_DATASET = photos/{name}",
             *(f"{name}_{each}" for each in settings), f"$(eval $(call model,{name}))"]  # fmt: skip
    return "\n".join(lines) + "\n"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a commit, and with a change of its own for each model since then."""
    top = tmp_path_factory.mktemp("matrix") / "Größen"
    fixed = {
        "names": ["LABELS = names.txt"], "variant": ["VARIANTS = int8"],
        "listed": ["DATA_LIST = lists/some.txt"], "fetched": ["URL = https://example.org/x.onnx"],
    }  # fmt: skip
    text = {name: stanza(name, *fixed.get(name, ())) for name in MODELS}
    for name in MODELS:
        write(top / f"nets/{name}.onnx", name)
        write(top / f"photos/{name}/sub/1.jpg", name)
    (top / "photos/linked/sub/1.jpg").unlink()
    (top / "photos/linked/sub").rmdir()
    (top / "photos/linked/far").symlink_to("../../elsewhere/1.jpg")
    write(top / "elsewhere/1.jpg", "far")
    write(top / "elsewhere/listed.jpg", "listed")
    write(top / "lists/some.txt", "# some\n../elsewhere/listed.jpg\n")
    write(top / "names.txt", "one\n")
    write(top / ".gitignore", "photos/hidden\n")
    write(top / "more/stanzas.mk", text.pop("scale"))
    write(top / "models.mk", "include $(PATHS_FROM)/more/stanzas.mk\n" + "".join(text.values()))
    write(top / "README", "one")
    git(top, "init")
    git(top, "add", ".")
    git(top, "commit", "-m", "one")

    text["comment"] = f"# Another comment\n{text['comment']}"
    text["default"] = stanza("default", "SCALE = 1,1,1", "VARIANTS = int8")
    text["variant"] = stanza("variant", "VARIANTS = int8 bf16")
    text["machine"] = stanza("machine", "RUNNER = self-hosted large", "TIMEOUT = 7")
    text["new"] = stanza("new", "RUNNER = self-hosted large", "TIMEOUT = 7")
    write(top / "models.mk",
          "include $(PATHS_FROM)/more/stanzas.mk\n" + "".join(reversed(text.values())))  # fmt: skip
    write(top / "more/stanzas.mk", stanza("scale", "SCALE = 2,2,2"))
    write(top / "nets/network.onnx", "another")
    write(top / "nets/new.onnx", "new")
    write(top / "nets/beside.onnx.data", "weights")
    write(top / "photos/pictures/sub/2.jpg", "another")
    git(top, "add", "photos/pictures")
    write(top / "elsewhere/listed.jpg", "another")
    write(top / "names.txt", "two\n")
    write(top / "README", "two")
    (top / "nets/lost.onnx").unlink()
    (top / "nets/fetched.onnx").unlink()
    return top


def jobs(*arguments: str) -> tuple[dict[str, dict], dict[str, str]]:
    """The matrix's jobs, and what was said of each, by target."""
    done = HERE.make("--silent", "matrix", *arguments)
    (line,) = done.stdout.splitlines()
    document = json.loads(line)
    jsonschema.validate(document, SCHEMA, cls=jsonschema.Draft202012Validator)
    said = dict(line.split(": ", 1) for line in done.stderr.splitlines())
    return {f"{each['target']} {each['chip']}": each for each in document["include"]}, said


def test_everything_that_stanzas_declare_is_a_job() -> None:
    found, said = jobs()
    declared = [one for line in HERE.make("list").stdout.splitlines() for one in line.split()[1:]]
    assert list(found) == [f"{each} cv181x" for each in declared]
    assert said == {}
    mixed = found["yolo11n_mix cv181x"]
    assert (mixed["model"], mixed["variant"], mixed["runner"]) == ("yolo11n", "mix", "ubuntu-24.04")
    assert mixed["timeout"] > found["yolo11n_int8 cv181x"]["timeout"]


@pytest.mark.slow
def test_what_changed_since_a_commit(project: Path) -> None:
    hidden = project / "photos/hidden"
    found, said = jobs(f"PATHS_FROM={project}", "CHANGED=HEAD")
    assert said == {
        "new_int8": "its stanza is new",
        "scale_int8": "SCALE changed",
        "variant_bf16": "it was not declared then",
        "network_int8": "network_ONNX: nets/network.onnx changed",
        "beside_int8": "beside_ONNX: nets/beside.onnx.data changed",
        "pictures_int8": "pictures_DATASET: photos/pictures/sub/2.jpg changed",
        "listed_int8": "listed_DATA_LIST: elsewhere/listed.jpg changed",
        "names_int8": "names_LABELS: names.txt changed",
        "hidden_int8": f"hidden_DATASET: git does not keep {hidden}, so nobody knows",
        "lost_int8": f"lost_ONNX: there is no {project}/nets/lost.onnx; its job will fail",
    }
    assert {name.split()[0] for name in found} == set(said)
    new = found["new_int8 cv181x"]
    assert (new["runner"], new["timeout"]) == (["self-hosted", "large"], 7)


@pytest.mark.slow
def test_what_a_workflow_says_concerns_everything(project: Path) -> None:
    workflow = project / ".github/workflows/models.yml"
    write(workflow, "")
    try:
        found, said = jobs(f"PATHS_FROM={project}", "CHANGED=HEAD")
    finally:
        workflow.unlink()
    assert len(found) == len(MODELS) + 2
    assert set(said.values()) == {".github/workflows/models.yml changed"}


@pytest.mark.slow
def test_nothing_changed_is_an_empty_matrix(project: Path, tmp_path: Path) -> None:
    """Also of what lies in a folder of the tree, with stanzas under another name."""
    inner = tmp_path / "tree/in ner"
    write(inner / "some.mk", stanza("one"))
    write(inner / "nets/one.onnx", "one")
    write(inner / "photos/one/1.jpg", "one")
    git(tmp_path / "tree", "init")
    git(tmp_path / "tree", "add", ".")
    git(tmp_path / "tree", "commit", "-m", "one")
    done = HERE.make("-s", "matrix", f"PATHS_FROM={inner}", "STANZAS=some.mk", "CHANGED=HEAD")
    assert json.loads(done.stdout) == {"include": []}
    assert "nothing that a model depends on has changed since" in done.stderr


@pytest.mark.slow
def test_stanzas_that_were_not_there_are_new(tmp_path: Path) -> None:
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "one")
    for name in ("a", "b"):
        write(tmp_path / f"nets/{name}.onnx", name)
        write(tmp_path / f"photos/{name}/1.jpg", name)
    write(tmp_path / "models.mk", stanza("a") + stanza("b"))
    found, said = jobs(f"PATHS_FROM={tmp_path}", "CHANGED=HEAD")
    assert list(found) == ["a_int8 cv181x", "b_int8 cv181x"]
    assert "can't be read" in said.popitem()[1] or said["a_int8"] == "its stanza is new"


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize(
    ("revision", "folder", "cause"),
    [
        ("no-such", None, "CHANGED=no-such: git knows no such revision here"),
        ("--output=x", None, "CHANGED=--output=x: git knows no such revision here"),
        ("HEAD:models.mk", None, "git knows no such revision here"),
        ("HEAD", "plain", "CHANGED=HEAD: git rev-parse: fatal: not a git repository"),
    ],
)
def test_a_revision_that_is_not_there_is_one_line(
    project: Path, tmp_path: Path, revision: str, folder: str | None, cause: str
) -> None:
    write(tmp_path / "plain/models.mk", "")
    top = tmp_path / folder if folder else project
    done = HERE.make("-s", "matrix", f"PATHS_FROM={top}", f"CHANGED={revision}", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    told, _make = done.stderr.splitlines()
    assert cause in told


def test_a_list_names_targets_and_chips(tmp_path: Path) -> None:
    write(tmp_path / "list.txt", "tiny_bf16\ntiny_f16 CHIP=bm1684x # with F16\n")
    found, _ = jobs(f"LIST={tmp_path / 'list.txt'}")
    assert list(found) == ["tiny_bf16 cv181x", "tiny_f16 bm1684x"]
    assert found["tiny_f16 bm1684x"]["timeout"] > found["tiny_bf16 cv181x"]["timeout"]


@pytest.mark.slow
def test_what_a_chip_can_not_have_is_left_out_or_told(tmp_path: Path) -> None:
    found, said = jobs("CHIP=bm1684")
    assert "tiny_int8 bm1684" in found
    assert "tiny_bf16 bm1684" not in found
    assert said["tiny_bf16"].startswith("left out: bm1684 does not compute in BF16")
    write(tmp_path / "list.txt", "tiny_bf16 CHIP=bm1684\n")
    done = HERE.make("-s", "matrix", f"LIST={tmp_path / 'list.txt'}", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "tiny_bf16 CHIP=bm1684: bm1684 does not compute in BF16" in done.stderr


@pytest.mark.parametrize(
    ("argument", "cause"),
    [
        ("tiny_TIMEOUT=soon", "tiny_TIMEOUT = soon: must be minutes, 1 or more"),
        ("tiny_TIMEOUT=0", "tiny_TIMEOUT = 0: must be minutes, 1 or more"),
        ("LIST=no/such.txt", "no/such.txt: No such file or directory"),
    ],
)
def test_bad_settings_are_one_line(argument: str, cause: str) -> None:
    done = HERE.make("-s", "matrix", argument, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert cause in done.stderr


@pytest.mark.slow
def test_extras_are_told(tmp_path: Path) -> None:
    write(tmp_path / "models.mk", "a_PT = a.pt\na_VARIANTS = bf16\n$(eval $(call model,a))\n")
    found, _ = jobs(f"PATHS_FROM={tmp_path}")
    assert found["a_bf16 cv181x"]["needs"] == ["torch"]


def test_more_jobs_than_a_matrix_may_have_are_refused(tmp_path: Path) -> None:
    """In the helper itself, with a make of its own: hundreds of models take Make a second."""
    target = {"model": "m", "variant": "int8", "declared": True, "refused": None,
              "output": "build/m.cvimodel", "sources": {}, "records": ["x"]}  # fmt: skip
    told = {"chip": "x", "chips": ["x"], "targets": [target | {"target": f"m{n}_int8"}
            for n in range(257)], "models": {"m": {"settings": {"RUNNER": "r"}, "inputs": {},
            "extras": []}}}  # fmt: skip
    write(tmp_path / "told", json.dumps(told))
    write(tmp_path / "make", f"#!/bin/sh\ncat '{tmp_path / 'told'}'\n")
    (tmp_path / "make").chmod(0o755)
    done = helper("plan_matrix", "--make", tmp_path / "make")
    assert "257 targets; a matrix has at most 256 jobs" in refused(done)


def test_a_folder_a_file_and_a_submodule_are_touched() -> None:
    files = [Path(each) for each in ("/t/a/b.jpg", "/t/ab", "/t/sub")]
    assert touched([Path("/t/a")], files) == [Path("/t/a/b.jpg")]
    assert touched([Path("/t/sub/Makefile")], files) == [Path("/t/sub")]
    assert touched([Path("/t/abc"), Path("/t/b.jpg")], files) == []
