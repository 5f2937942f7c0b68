"""The Makefile without the toolchain: help, errors, parameters, paths. Nothing is compiled here."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from modulefinder import ModuleFinder
from pathlib import Path

import onnx
import pytest
from conftest import ROOT, Checkout, copy_project, makefile_text

SCHEMA = json.loads((ROOT / "schemas/stanza.schema.json").read_text())


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """For tests that build nothing."""
    return copy_project(tmp_path_factory.mktemp("make") / "check out")


@pytest.mark.parametrize("arguments", [[], ["help"]])
def test_help_lists_knobs_with_live_values_and_builds_nothing(
    project: Checkout, arguments: list[str]
) -> None:
    said = project.make(*arguments, "BUILD=elsewhere").stdout
    assert "BUILD=elsewhere" in said
    assert "CHIP=cv181x" in said
    assert "yolo11n" in said
    assert "<model>_SCALE = 1,1,1" in said
    assert not (project.path / "elsewhere").exists()


def test_help_needs_no_environment(tmp_path: Path) -> None:
    for name in ("Makefile", "models.mk"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "mk", tmp_path / "mk")
    assert "make yolo11n_int8" in Checkout(tmp_path).make("help").stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Makefile", "mk", "models.mk"]


def test_list_names_every_target(project: Checkout) -> None:
    assert "yolo11n_int8" in project.make("list").stdout.split()


def test_every_stanza_variable_is_in_the_schema_and_has_a_default(project: Checkout) -> None:
    makefile = makefile_text()
    defaults = set(re.findall(r"^DEFAULT_(\w+)", makefile, re.M))
    assert defaults == set(SCHEMA["properties"]) - {"model"}


def test_an_unknown_target_is_named(project: Checkout) -> None:
    done = project.make("yolo11m_int8", check=False)
    assert done.returncode == 2
    assert "there is no yolo11m_int8" in done.stderr
    assert "make list" in done.stderr


def test_an_unknown_chip_is_named_with_those_there_are(project: Checkout) -> None:
    done = project.make("yolo11n_int8", "CHIP=cv999", check=False)
    assert done.returncode == 2
    assert "CHIP=cv999 is not known" in done.stderr
    assert "cv181x" in done.stderr


def test_a_missing_network_is_named_with_its_variable(project: Checkout) -> None:
    done = project.make("yolo11n_int8", "yolo11n_ONNX=no/such.onnx", check=False)
    assert done.returncode == 2
    assert "there is no no/such.onnx, which yolo11n_ONNX names" in done.stderr


def test_a_missing_dataset_is_named_with_its_variable(project: Checkout) -> None:
    done = project.make("tiny_int8", "tiny_DATASET=no/such", check=False)
    assert done.returncode == 2
    assert "no/such: there is no such file or folder" in done.stderr


def test_a_model_that_is_there_twice_is_an_error(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copytree(ROOT / "mk", tmp_path / "mk")
    (tmp_path / "models.mk").write_text("$(eval $(call model,a))\n$(eval $(call model,a))\n")
    done = Checkout(tmp_path).make("list", check=False)
    assert done.returncode == 2
    assert "model a is there twice" in done.stderr


def test_an_old_make_is_told_what_is_needed() -> None:
    """Make says by .FEATURES what it can; take the newest feature that is needed away."""
    done = subprocess.run(
        ["make", ".FEATURES=target-specific", "help"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "GNU Make 4.3 or newer" in done.stderr


def test_a_wrong_stanza_is_told_before_anything_runs(checkout: Checkout) -> None:
    wrong = {
        "tiny_SCAL=1,1,1": "tiny_SCAL: there is no such variable; did you mean tiny_SCALE?",
        "tiny_MEAN=a,b": "tiny_MEAN = a,b: must be a number",
        "tiny_PIXEL_FORMAT=RBG": "tiny_PIXEL_FORMAT = RBG: must be one of rgb, bgr",
        "tiny_INPUT_SHAPES=1,3,64,64": "tiny_INPUT_SHAPES = 1,3,64,64: must be",
        "tiny_KEEP_ASPECT_RATIO=yes": "tiny_KEEP_ASPECT_RATIO = yes: must be 1 for on, 0 for off",
        "tiny_VARIANTS=int9": "tiny_VARIANTS = int9",
        'tiny_SCALE="\\': "tiny_SCALE",
    }
    done = checkout.make("tiny_int8", *wrong, check=False)
    assert done.returncode == 2
    assert [said for said in wrong.values() if said not in done.stderr] == []
    assert "Traceback" not in done.stderr
    assert not list(checkout.path.glob("build/tiny/*.onnx"))


@pytest.mark.slow
def test_another_models_longer_name_is_not_taken_for_a_variable(checkout: Checkout) -> None:
    """`yolo11n_coco_ONNX` belongs to yolo11n_coco, not to yolo11n."""
    checkout.make("build/yolo11n/logs/stanza.key")
    stanza = json.loads((checkout.path / "build/yolo11n/stanza.parameters").read_text())
    assert stanza["model"] == "yolo11n"
    assert not [key for key in stanza if key.startswith("coco")]


DOWNGRADED = "build/tiny/tiny_v8.onnx"


def test_a_dry_run_writes_nothing(checkout: Checkout) -> None:
    said = checkout.make("-n", "tiny_int8").stdout
    for script in ("onnx_downgrade", "normalize_dataset", "model_transform", "calibrate"):
        assert f"{script}.py" in said
    assert not (checkout.path / "build").exists()


@pytest.mark.slow
def test_only_changed_parameters_run_a_stage_again(checkout: Checkout) -> None:
    assert "downgrade" in checkout.make(DOWNGRADED).stdout
    assert "downgrade" not in checkout.make(DOWNGRADED).stdout
    assert "downgrade" not in checkout.make(DOWNGRADED, "tiny_SCALE=1,1,1").stdout
    assert "head cut at 1 output" in checkout.make(DOWNGRADED, "tiny_OUTPUTS=output0").stdout
    assert "head cut at 6 outputs" in checkout.make(DOWNGRADED).stdout


@pytest.mark.slow
def test_the_order_of_stanzas_and_comments_do_not_matter(checkout: Checkout) -> None:
    checkout.make(DOWNGRADED)
    stanzas = checkout.path / "models.mk"
    parts = re.split(r"\n\n(?=#)", stanzas.read_text())
    stanzas.write_text("\n\n".join(["# Another comment.", *reversed(parts)]) + "\n")
    assert "downgrade" not in checkout.make(DOWNGRADED).stdout


@pytest.mark.slow
def test_a_network_whose_path_has_spaces(checkout: Checkout, tmp_path: Path) -> None:
    folder = tmp_path / "my networks, größer"
    folder.mkdir()
    (checkout.path / "models/tiny.onnx").rename(folder / "the best.onnx")
    argument = f"tiny_ONNX={folder}/the best.onnx"
    assert "downgrade" in checkout.make(DOWNGRADED, argument).stdout
    assert "downgrade" not in checkout.make(DOWNGRADED, argument).stdout
    network = onnx.load(folder / "the best.onnx")
    network.graph.doc_string = "another"
    onnx.save(network, folder / "the best.onnx")
    assert "downgrade" in checkout.make(DOWNGRADED, argument).stdout


@pytest.mark.slow
def test_a_tilde_is_the_home_folder(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "best.onnx").write_bytes((checkout.path / "models/tiny.onnx").read_bytes())
    done = checkout.make(DOWNGRADED, "tiny_ONNX=~/best.onnx", HOME=str(tmp_path))
    assert "verified" in done.stdout


def test_a_broken_network_is_one_line_and_leaves_nothing(checkout: Checkout) -> None:
    network = checkout.path / "models/tiny.onnx"
    network.write_bytes(network.read_bytes()[:20000])
    done = checkout.make(DOWNGRADED, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "models/tiny.onnx" in done.stderr
    assert not (checkout.path / DOWNGRADED).exists()


@pytest.mark.slow
def test_an_unknown_output_gets_the_nearest_ones(checkout: Checkout) -> None:
    done = checkout.make(DOWNGRADED, "tiny_OUTPUTS=output1", check=False)
    assert 'no tensor "output1" in models/tiny.onnx; did you mean "output0"?' in done.stderr


@pytest.mark.parametrize(
    ("arguments", "side_cars"),
    [
        ((), ["tiny_int8.json"]),
        (("DEVICE=maixcam",), ["tiny_int8.mud"]),
        (("tiny_DEVICE=milkv", "CHIP=cv180x"), ["tiny_int8.contract"]),
        (("DEVICE=none",), []),
        # reCamera has no such chips.
        (("CHIP=cv180x",), []),
        (("CHIP=bm1684x",), []),
    ],
)
def test_a_device_binds_its_own_chips(
    project: Checkout, arguments: tuple[str, ...], side_cars: list[str]
) -> None:
    said = project.make("-n", "tiny_int8", *arguments).stdout.replace("\\\n", " ")
    contracts = [line for line in said.splitlines() if " --stage contract " in line]
    made = [Path(out).name for line in contracts for out in re.findall(r"--out '([^']+)'", line)]
    assert made == side_cars
    assert ("  onto a" in said) is bool(side_cars)


def test_the_makefile_says_of_devices_what_their_profiles_say() -> None:
    """Make reads no JSON."""
    makefile = makefile_text().replace("\\\n", " ")
    for path in (ROOT / "devices").glob("*.json"):
        profile = json.loads(path.read_text())
        told = dict(re.findall(rf"^(\w+)_{path.stem}\s*:?= *(.*)$", makefile, re.M))
        assert told["CHIPS"].split() == profile["chips"]
        if not profile["chips"]:
            continue
        assert told["SIDE_CAR"] == (profile["side_car"] or "contract")
        install = profile["install"]
        for place in filter(None, (install["model"], install["side_car"])):
            whole = f"{install['host']}:{place.partition('{name}')[0]}"
            assert whole in told["ONTO"]


def test_an_interrupted_make_keeps_every_record(project: Checkout) -> None:
    """It removes a target that has just been made; a record is never half one."""
    rules = re.findall(r"^(\$\(BUILD\)/\S*\.key):", makefile_text(), re.M)
    wanted = {rule.replace("$(BUILD)", "build").replace("$(CHIP)", "cv181x") for rule in rules}
    assert len(wanted) > 20
    kept = re.search(r"^\.PRECIOUS:(.*)$", project.make("-pn", "list").stdout, re.M)[1]
    assert wanted == {name for name in kept.split() if name.endswith(".key")}


@pytest.mark.slow
def test_two_models_share_a_dataset_of_the_same_number(checkout: Checkout) -> None:
    target = "build/datasets/shapes-16/manifest.json"
    assert "16 pictures from datasets/shapes" in checkout.make(target).stdout
    assert checkout.make(target).stdout.count("pictures") == 0


@pytest.mark.slow
def test_nothing_to_do_takes_no_process(checkout: Checkout) -> None:
    """An up-to-date target costs Make's own few milliseconds; the bound leaves room for noise."""
    checkout.make(DOWNGRADED)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        checkout.make(DOWNGRADED)
        times.append(time.perf_counter() - started)
    assert min(times) < 0.05


@pytest.mark.slow
def test_stanzas_and_what_they_name_may_be_in_another_folder(
    checkout: Checkout, tmp_path: Path
) -> None:
    project = tmp_path / "somebody's project"
    (project / "my nets").mkdir(parents=True)
    (project / "my.mk").write_text(
        "gate_ONNX = my nets/gate.onnx\ngate_DATASET = photos\ngate_LABELS = names.txt\n"
        "gate_INPUT_SHAPES = [[1,3,64,64]]\ngate_PIXEL_FORMAT = rgb\n"
        "gate_SCALE = 0.0039216,0.0039216,0.0039216\n$(eval $(call model,gate))\n"
    )
    (project / "names.txt").write_text("a\nb\nc\nd\n")
    shutil.copy(ROOT / "models/tiny.onnx", project / "my nets/gate.onnx")
    shutil.copytree(
        checkout.path / "datasets/shapes/images", project / "photos", copy_function=os.link
    )
    where = (f"PATHS_FROM={project}/.", "STANZAS=my.mk")
    said = checkout.make(
        *where, "build/gate/gate_v8.onnx", "build/datasets/photos/manifest.json"
    ).stdout
    assert [line.split()[:2] for line in said.splitlines()] == [
        ["gate", "downgrade"], ["photos", "dataset"],
    ]  # fmt: skip
    assert "up to date" in checkout.make(*where, "build/gate/gate_v8.onnx").stdout
    # Of one that is missing the place is told; what is absolute stays so.
    done = checkout.make(*where, "gate_int8", "gate_ONNX=none.onnx", check=False)
    assert f"there is no {project}/none.onnx" in done.stderr
    listed = json.loads(checkout.make(*where, "list", "JSON=1", "gate_ONNX=/x.onnx").stdout)
    assert listed["targets"][0]["sources"] == {"gate_ONNX": "/x.onnx"}
    # What `add` would write is seen from here.
    done = checkout.make(*where, "add", "MODEL=a.onnx", "IMAGES=b", check=False)
    assert done.returncode == 2
    assert "add writes paths as they are seen from here" in done.stderr


# What doesn't change results: errors, exit codes, temporary files.
PLUMBING = {"__init__", "cli", "errors", "events", "files", "folders"}


def insist_on_code(line: str, program: str) -> set[str]:
    """What a program imports of ours, and what that imports, is in the key of its stage.

    :param line: how Make starts the stage
    :returns: the code that is in it, below scripts/
    """
    covered = set(re.findall(r"--code scripts/(\S+)", line))
    finder = ModuleFinder(path=[str(ROOT / "scripts")])
    finder.run_script(str(ROOT / "scripts" / program))
    files = {Path(module.__file__) for module in finder.modules.values() if module.__file__}
    needed = {str(file.relative_to(ROOT / "scripts")) for file in files}
    assert program in needed
    assert {name for name in needed if Path(name).stem not in PLUMBING} <= covered
    return covered


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "program"),
    [
        ("stanza", "preflight.py"),
        ("dataset", "normalize_dataset.py"),
        ("downgrade", "onnx_downgrade.py"),
        ("transform", "npz_compare.py"),
        ("calibrate", "tpumake/settling.py"),
        ("deploy", "npz_compare.py"),
        ("deploy", "tpumake/settling.py"),
        ("contract", "check_contract.py"),
        ("evalset", "prepare_evaluation.py"),
        ("evaluate", "run_evaluation.py"),
        ("accuracy", "evaluate.py"),
    ],
)
def test_a_stages_key_covers_all_code_that_does_its_work(
    checkout: Checkout, stage: str, program: str
) -> None:
    said = checkout.make("--dry-run", "tiny", "tiny_MAX_DROP=1").stdout.replace("\\\n", " ")
    line = next(line for line in said.splitlines() if f" --stage {stage} " in line)
    insist_on_code(line, program)
    for lock in {"requirements/helpers.txt"} if "tpumake/" not in program else set():
        assert f"--code {lock}" in line
