"""`make bench`: its figures, the graph that other tools get, and a small measurement."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import QUICK, ROOT, Checkout, build_once, copy_project, refused

import bench as program
from tpumake.bench import heavy
from tpumake.bench.chart import chart
from tpumake.bench.graph import Stage, outside_inputs, read_graph
from tpumake.bench.guides import Guides, why_not
from tpumake.bench.measure import (
    Bystanders,
    Cost,
    measure,
    paired_ratios,
    run_costed,
    run_timed,
    summarize,
)
from tpumake.bench.project import Project, seconds_of_stages, stages_that_ran
from tpumake.bench.report import accept, describe_row, duration, missed, regressions, size, table
from tpumake.bench.rows import ROWS, Bench, Ratio, Row
from tpumake.cli import BadInput, CheckFailed

SCHEMA = json.loads((ROOT / "schemas/bench.schema.json").read_text())
EMPTY = {"$schema": "bench.schema.json#/$defs/accepted", "targets": {}}


def valid(document: object, part: str = "") -> bool:
    schema = {"$ref": f"#/$defs/{part}", "$defs": SCHEMA["$defs"]} if part else SCHEMA
    return jsonschema.Draft202012Validator(schema).is_valid(document)


@pytest.fixture
def document() -> dict:
    """What a measurement of two rows gives."""
    slow = Row(
        name="nothing",
        title="nothing changed",
        contenders={"make": lambda: 0.0, "dvc": lambda: 0.0},
        ratios=[Ratio("dvc", "make", 8)],
        at_most={"make": 0.05},
        left_out={"snakemake": "the environment lacks it"},
    )
    quick = Row(name="touched", title="every input touched", contenders={"make": lambda: 0.0})
    seconds = {"make": [0.01, 0.02, 0.01], "dvc": [0.5, 1.1, 0.6]}
    return {
        "$schema": "bench.schema.json",
        "target": "tiny_int8",
        "settings": [],
        "incomplete": False,
        "machine": {"cpu": "x", "cores": 2, "memory_gib": 8.0, "system": "Linux", "others": 0.0},
        "versions": {"make": "GNU Make 4.3", "dvc": "3.67.1"},
        "stages": ["downgrade", "dataset", "transform", "calibrate", "deploy"],
        "rows": [describe_row(slow, seconds), describe_row(quick, seconds)],
        "missed": [],
        "regressions": [],
    }


# Statistics


@pytest.mark.parametrize("count", [1, 2, 3, 4, 10, 11])
def test_median_and_quartiles_are_those_of_numpy(count: int) -> None:
    samples = list(np.random.default_rng(count).lognormal(size=count))
    summary = summarize(samples)
    expected = np.quantile(samples, [0.25, 0.5, 0.75])
    assert [summary.low, summary.median, summary.high] == pytest.approx(list(expected))


def test_one_disturbed_round_moves_no_median() -> None:
    assert summarize([1.0, 1.0, 1.0, 1.0, 90.0]).median == 1.0


def test_ratios_are_of_the_same_round() -> None:
    """The machine slows down by half during the measurement, for both alike."""
    assert paired_ratios([8.0, 16.0, 24.0], [1.0, 2.0, 3.0]) == [8.0, 8.0, 8.0]
    with pytest.raises(ValueError):
        paired_ratios([1.0], [1.0, 2.0])


def test_everybody_runs_once_a_round_and_nobody_is_always_first() -> None:
    order: list[str] = []

    def contender(name: str, seconds: float) -> float:
        order.append(name)
        return seconds + len(order)

    samples = measure({name: lambda name=name: contender(name, 100) for name in "abc"}, 3)
    rounds = ["".join(order[start : start + 3]) for start in range(0, 12, 3)]
    assert rounds == ["abc", "bca", "cab", "abc"]
    # The first round is not counted.
    assert samples == {"a": [106, 108, 110], "b": [104, 109, 111], "c": [105, 107, 112]}


def test_what_goes_on_from_another_keeps_its_order_and_rounds_are_told_one_by_one() -> None:
    order: list[str] = []
    told: list[dict] = []
    contenders = {name: (lambda name=name: order.append(name) or len(order)) for name in "ab"}
    measure(contenders, 2, warm_up=False, rotate=False, note=told.append)
    assert order == ["a", "b", "a", "b"]
    assert told == [{"a": [1], "b": [2]}, {"a": [1, 3], "b": [2, 4]}]


def test_costs_of_commands_one_after_the_other_add_up() -> None:
    one = Cost(3, 2, 500, 300, 0.5, {"transform": 3})
    both = one.then(Cost(10, 12, 400, 350, 1.5, {"calibrate": 10}))
    assert both == Cost(13, 14, 500, 350, 0.5, {"transform": 3, "calibrate": 10})


# Two processes that take 60 MB each, and a tenth of a second of processor time.
HUNGRY = """
import os, time
os.fork()
held = b"x" * 60_000_000
while time.process_time() < 0.1: pass
time.sleep(0.4)
try: os.wait()
except ChildProcessError: pass
"""


@pytest.mark.slow
def test_a_cost_is_that_of_all_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-S", "-c", HUNGRY]
    # A process begins as a copy of who starts it, and its peak is not to be that one's.
    (b"x" * 150_000_000).count(b"y")
    cost, _ = run_costed(command, tmp_path, os.environ, tmp_path / "log")
    assert cost.seconds > 0.4
    assert 0.19 < cost.cpu < 2
    assert cost.memory > 125e6
    assert 60e6 < cost.largest < 125e6
    assert cost.load >= 0


@pytest.mark.slow
def test_who_is_interrupted_leaves_nobody_behind(tmp_path: Path) -> None:
    """Not even what a shell in a shell has started, as tpu_mlir's tools do."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    script = "sh -c 'echo $$; exec sleep 60' & wait"
    try:
        with pytest.raises(KeyboardInterrupt):
            run_costed(["sh", "-c", script], tmp_path, os.environ, tmp_path / "log")
    finally:
        signal.signal(signal.SIGALRM, before)
    status = Path("/proc") / (tmp_path / "log").read_text().strip() / "status"
    deadline = time.monotonic() + 5
    while status.exists() and "(zombie)" not in status.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_run_is_timed_and_its_output_kept(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "sleep.log"
    command = [sys.executable, "-c", "import time; print('slept'); time.sleep(0.2)"]
    seconds, said = run_timed(command, tmp_path, os.environ, log)
    assert 0.2 <= seconds < 5
    assert said == log.read_text() == "slept\n"


def test_a_failed_run_gives_the_telling_line_and_the_log(tmp_path: Path) -> None:
    log = tmp_path / "make.log"
    script = "echo it is broken; echo; echo 'make: *** [Makefile:1: x] Error 3'; exit 3"
    with pytest.raises(CheckFailed, match=r"it is broken.*make\.log"):
        run_timed(["sh", "-c", script], tmp_path, os.environ, log)


@pytest.mark.slow
def test_our_own_work_is_not_taken_for_others(tmp_path: Path) -> None:
    """However busy the machine is: all work but the others' is that of our child, half a second."""

    def all_work() -> float:
        ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")

    before, bystanders = all_work(), Bystanders()
    busy = "import time\nwhile time.process_time() < 0.5: pass"
    run_timed([sys.executable, "-c", busy], tmp_path, os.environ, tmp_path / "log")
    others = bystanders.cores() * (time.monotonic() - bystanders.started)
    assert all_work() - before - others == pytest.approx(0.55, abs=0.15)


# The graph


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> list[Stage]:
    checkout = copy_project(tmp_path_factory.mktemp("graph") / "check out")
    return read_graph(checkout.make("--dry-run", "tiny_int8").stdout)


def test_the_graph_is_what_make_runs(stages: list[Stage]) -> None:
    names = [stage.name for stage in stages]
    assert names == ["downgrade", "dataset", "transform", "calibrate", "deploy"]
    assert stages[-1].outputs == ("build/tiny/cv181x/tiny_int8.cvimodel",)
    assert "build/tiny/tiny_calib_table" in stages[-1].inputs


def test_what_no_stage_makes_is_there(stages: list[Stage]) -> None:
    inputs = outside_inputs(stages)
    assert {"models/tiny.onnx", "datasets/shapes", "scripts/onnx_downgrade.py"} <= set(inputs)
    assert [path for path in inputs if not (ROOT / path).exists()] == []


def test_a_picture_of_a_folder_that_a_stage_makes_stands_for_the_folder(
    stages: list[Stage],
) -> None:
    transform = stages[2]
    assert "tiny_test.jpg=build/datasets/shapes-16/Calibration1.*" in transform.command
    assert "build/datasets/shapes-16" in transform.inputs
    assert not any("*" in path for path in transform.inputs)


def test_parameters_are_what_the_tool_is_told(stages: list[Stage]) -> None:
    assert "--input_num 16" in stages[3].parameters
    assert "run_stage.py" not in stages[3].parameters


def test_a_target_without_stages_is_refused() -> None:
    with pytest.raises(BadInput, match="make list"):
        read_graph("echo >&2 'tpumake: there is no tony_int8'\n")


def test_a_model_from_outside_is_refused(tmp_path: Path) -> None:
    checkout = copy_project(tmp_path / "check out")
    outside = tmp_path / "outside.onnx"
    shutil.copy(ROOT / "models/tiny.onnx", outside)
    with (checkout.path / "models.mk").open("a") as file:
        file.write(
            f"far_ONNX = {outside}\nfar_DATASET = datasets/shapes\n$(eval $(call model,far))"
        )
    project = a_project(checkout, tmp_path / "logs", "far_int8")
    with pytest.raises(BadInput, match=r"far_int8 takes .*outside\.onnx from outside"):
        project.copy(tmp_path / "copy")


def test_stages_that_ran_are_those_with_seconds() -> None:
    said = (
        "tiny     downgrade    opset 19 → 17, verified      0.6 s\n"
        "shapes-16 dataset      16 pictures from datasets/shapes     cached\n"
        "tiny_int8 is up to date.\n"
    )
    assert stages_that_ran(said) == ["tiny     downgrade"]


def test_seconds_of_stages_are_those_that_make_shows() -> None:
    said = (
        "shapes-16 dataset      16 pictures from datasets/shapes     0.4 s\n"
        "tiny     downgrade    opset 19 → 17, verified      cached\n"
        "tiny     int8         0.10 MB, ION 0.1 MB, emulator ok     12.3 s\n"
    )
    assert seconds_of_stages(said) == {"dataset": 0.4, "int8": 12.3}


# The guides' commands

# As they stand in the guides, one flag a line, with the paths that they name.
TYPED = {
    "transform": """model_transform.py --model_name yolo11n --model_def yolo11n_v8.onnx
        --input_shapes [[1,3,640,640]] --mean 0,0,0 --scale 0.0039216,0.0039216,0.0039216
        --keep_aspect_ratio --pixel_format rgb --output_names a,b --test_input ../image/dog.jpg
        --test_result yolo11n_top_outputs.npz --mlir yolo11n.mlir""",
    "calibrate": """run_calibration.py yolo11n.mlir --dataset ../COCO2017 --input_num 100
        -o yolo11n_calib_table""",
    "deploy": """model_deploy.py --mlir yolo11n.mlir --quantize INT8 --quant_input
        --processor cv181x --calibration_table yolo11n_calib_table --test_input ../image/dog.jpg
        --test_reference yolo11n_top_outputs.npz --customization_format RGB_PACKED
        --fuse_preprocess --aligned_input --model yolo11n_int8.cvimodel""",
}


def dry_run(target: str, *settings: str) -> list[Stage]:
    """What would run for a target of this very checkout."""
    return read_graph(Checkout(ROOT).make("-n", "BUILD=not-built", target, *settings).stdout)


def words(command: list[str]) -> set[tuple[str, ...]]:
    """A command's flags with their values; the order does not matter to the tools."""
    found: list[tuple[str, ...]] = []
    for word in command:
        if word.startswith("-") or not found or found[-1] == ("yolo11n.mlir",):
            found.append((word,))
        elif found[-1][0].startswith("-") and len(found[-1]) == 1:
            found[-1] += (word,)
        else:
            found.append((word,))
    return set(found)


def test_the_guides_commands_are_those_of_the_guides(tmp_path: Path) -> None:
    project = a_project(Checkout(ROOT), tmp_path, "yolo11n_int8")
    stages = dry_run("yolo11n_int8")
    assert why_not(stages) == ""
    commands = Guides(project, {each.name: each for each in stages}, ROOT).commands(["a", "b"])
    assert {stage: words(command) for stage, command in commands.items()} == {
        stage: words(text.split()) for stage, text in TYPED.items()
    }


@pytest.mark.slow
def test_what_a_stanza_says_otherwise_is_typed_too(tmp_path: Path) -> None:
    project = a_project(Checkout(ROOT), tmp_path)
    few = ("tiny_TUNE_NUM=0", "tiny_PAD_VALUE=7", "tiny_TOLERANCE=0.7,0.4")
    few += ("tiny_FUSE_PREPROCESS=0",)
    stages = {each.name: each for each in dry_run("tiny_int8", *few)}
    commands = Guides(project, stages, ROOT).commands(["a"])
    assert ("--pad_value", "7") in words(commands["transform"])
    assert ("--tune_num", "0") in words(commands["calibrate"])
    assert {("--tolerance", "0.7,0.4"), ("--test_input", "tiny_in_f32.npz")} <= words(
        commands["deploy"]
    )
    assert not any("/build" in word for command in commands.values() for word in command)


@pytest.mark.slow
def test_of_the_guides_bf16_has_no_calibration_and_mix_is_another_story(tmp_path: Path) -> None:
    project = a_project(Checkout(ROOT), tmp_path)
    stages = {each.name: each for each in dry_run("tiny_bf16")}
    assert list(Guides(project, stages, ROOT).commands(["a"])) == ["transform", "deploy"]
    assert "one precision" in why_not(dry_run("yolo11n_mix"))


# The document, and what is made of it


@pytest.fixture
def built_row() -> dict:
    """What a measurement of two builds gives, two rounds of it."""
    row = Row(
        name="from-nothing",
        title="from nothing",
        contenders={"guides": lambda: 0.0, "cold": lambda: 0.0},
        ratios=[Ratio("guides", "cold", of=of) for of in ("time", "processor", "memory")],
        expected={"guides": 100, "cold": 20},
    )
    guides = [
        Cost(100, 90, 2_000_000_000, 1_900_000_000, 0.1, {"transform": 10, "deploy": 90}),
        Cost(150, 94, 2_100_000_000, 1_900_000_000, 2.3, {"transform": 20, "deploy": 130}),
    ]
    cold = [Cost(25, 30, 400_000_000, 2_000, 0.2), Cost(30, 47, 400_000_000, 2_000, 2.2)]
    return describe_row(row, {"guides": guides, "cold": cold})


def test_the_schemas_are_schemas_and_strict(document: dict, built_row: dict) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    document["rows"].append(built_row)
    assert valid(document)
    for spoil in (
        lambda one: one.update(more=1),
        lambda one: one["rows"][0].update(more=1),
        lambda one: one["rows"][0]["times"][0].update(samples=[]),
        lambda one: one["rows"][0]["times"][0].update(median=0),
        lambda one: one["rows"][0]["ratios"][0].pop("at_least"),
        lambda one: one["machine"].pop("cpu"),
        lambda one: one.update(rows=[]),
        lambda one: one.pop("incomplete"),
        lambda one: one["rows"][-1]["times"][0].pop("largest"),
        lambda one: one["rows"][-1]["times"][0]["processor"].update(samples=[]),
        lambda one: one["rows"][-1]["ratios"][0].update(of="joy"),
    ):
        spoilt = deepcopy(document)
        spoil(spoilt)
        assert not valid(spoilt)


def test_the_committed_ratios_fit_their_schema() -> None:
    committed = json.loads((ROOT / "docs/bench.json").read_text())
    assert valid(committed, "accepted")
    assert committed["targets"]["tiny_int8"]["nothing"]["dvc / make"] >= 8


def test_a_row_has_medians_and_the_ratio_of_pairs(document: dict) -> None:
    row = document["rows"][0]
    assert [time["median"] for time in row["times"]] == [0.01, 0.6]
    # Not 60, the ratio of the medians.
    assert row["ratios"][0]["median"] == pytest.approx(55)


def test_a_build_has_ratios_of_time_processor_time_and_memory(built_row: dict) -> None:
    ratios = {ratio["of"]: ratio["median"] for ratio in built_row["ratios"]}
    assert ratios == {"time": 4.5, "processor": 2.5, "memory": 5.125}
    guides = built_row["times"][0]
    assert (guides["processor"]["median"], guides["largest"]["median"]) == (92, 1.9e9)
    assert guides["loads"] == [0.1, 2.3]
    assert guides["steps"] == {"transform": 15, "deploy": 110}
    assert built_row["rounds"] == 2


def test_a_row_of_which_no_round_was_done_has_no_times(built_row: dict) -> None:
    row = Row("a", "a", {"make": lambda: 0.0}, [Ratio("make", "make")], expected={"make": 1})
    described = describe_row(row, {"make": []})
    assert valid(described, "row")
    assert (described["rounds"], described["times"], described["ratios"]) == (0, [], [])


def test_builds_are_a_table_of_their_own(document: dict, built_row: dict) -> None:
    document["rows"].append(built_row)
    lines = table(document)
    quick, builds, steps = "\n".join(lines).split("\n\n")
    assert quick.count("\n") == 4
    cells = [cell.strip() for cell in builds.split("\n")[2].strip("|").split("|")]
    assert cells == [
        "from nothing, 2 rounds", "guides", "125 s", "112 s … 138 s", "4.5 × cold, 4.2 … 4.8",
        "92 s", "2.5 × cold, 2.2 … 2.8", "2.05 GB", "5.1 × cold", "1.90 GB", "0.1 … 2.3",
    ]  # fmt: skip
    assert steps == "- guides: transform 15 s, deploy 110 s"


def test_a_build_that_became_slower_is_a_regression(document: dict, built_row: dict) -> None:
    document["rows"].append(built_row)
    accepted = accept(document, EMPTY)
    assert valid(accepted, "accepted")
    held = accepted["targets"]["tiny_int8"]["from-nothing"]
    assert held == {"guides / cold": 4.5, "guides / cold, processor": 2.5,
                    "guides / cold, memory": 5.12}  # fmt: skip
    held["guides / cold, processor"] = 3.2
    assert regressions(document, accepted) == [
        "from nothing: guides / cold, processor was 3.2 and is 2.5, 22 % less than accepted"
    ]


def test_sizes() -> None:
    assert [size(count) for count in (5_400_000, 999e6, 2_345_000_000)] == [
        "5 MB", "999 MB", "2.35 GB",
    ]  # fmt: skip


# What heavy rows take


def test_more_pictures_than_there_are_are_told_apart_by_their_bytes(tmp_path: Path) -> None:
    source = ROOT / "datasets/shapes/images/0000.jpg"
    (tmp_path / "below").mkdir()
    for name in ("a.jpg", "below/b.JPG"):
        shutil.copy(source, tmp_path / name)
    (tmp_path / "labels.txt").write_text("no picture")
    heavy._fill(tmp_path, 7)
    pictures = [path for path in tmp_path.rglob("*") if path.suffix.lower() == ".jpg"]
    assert len(pictures) == 7
    # The two that were there are the same.
    assert len({path.read_bytes() for path in pictures}) == 6


def test_what_there_is_no_memory_for_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = tmp_path / "net.mlir"
    network.write_text("%1 = top.Conv(%0) -> tensor<1x10x1000x1000xf32>\n" * 5)
    monkeypatch.setattr(heavy, "_free_memory", lambda: 18_500_000_000)
    assert heavy._short_of_memory(network, 100) == ""
    said = heavy._short_of_memory(network, 1000)
    assert said == "it would take about 22 GB of memory, and there are 18"


def test_another_variant_is_one_that_needs_no_search(tmp_path: Path) -> None:
    class Listed(Project):
        def variants(self) -> dict[str, list[str]]:
            return {"yolo11n": ["int8", "mix", "bf16"], "tiny": ["int8"]}

    bench = Quick(Listed(tmp_path, "yolo11n_int8", "make", Path(), Path(), Path()))
    expected = {"yolo11n_int8": "bf16", "yolo11n_bf16": "int8", "tiny_int8": "bf16"}
    for target, other in expected.items():
        bench.project = replace(bench.project, target=target)
        model = target.partition("_")[0]
        bench.stages = [Stage("deploy", (), (f"build/{model}/cv181x/{target}.cvimodel",), "", "")]
        assert heavy._second_variant(bench) == other


def test_what_is_too_slow_is_told(document: dict) -> None:
    assert missed(document) == []
    row = document["rows"][0]
    row["times"][0]["at_most"] = 0.005
    row["ratios"][0]["at_least"] = 56
    assert missed(document) == [
        "nothing changed: make took 10 ms, and may take 5 ms",
        "nothing changed: dvc / make is 55, and has to be 56",
    ]


@pytest.mark.parametrize(("before", "count"), [(40, 0), (68.7, 0), (68.8, 1), (200, 1)])
def test_a_ratio_a_fifth_lower_than_accepted_is_a_regression(
    document: dict, before: float, count: int
) -> None:
    accepted = EMPTY | {"targets": {"tiny_int8": {"nothing": {"dvc / make": before}}}}
    lines = regressions(document, accepted)
    assert len(lines) == count
    if count:
        assert re.fullmatch(
            r"nothing changed: dvc / make was \d+ and is 55, \d+ % less than accepted", lines[0]
        )


@pytest.mark.parametrize(
    "targets",
    [
        {},
        {"yolo11n_int8": {"nothing": {"dvc / make": 999}}},
        {"tiny_int8": {"restored": {"dvc / make": 999}, "nothing": {"snakemake / make": 999}}},
    ],
)
def test_what_was_measured_on_one_side_only_is_no_regression(document: dict, targets: dict) -> None:
    assert regressions(document, EMPTY | {"targets": targets}) == []


def test_accepting_keeps_what_was_not_measured(document: dict) -> None:
    before = EMPTY | {
        "targets": {
            "yolo11n_int8": {"nothing": {"dvc / make": 7}},
            "tiny_int8": {
                "nothing": {"dvc / make": 999, "snakemake / make": 5},
                "later": {"a / b": 2},
            },
        }
    }
    after = accept(document, before)
    assert valid(after, "accepted")
    assert after["targets"] == {
        "tiny_int8": {"nothing": {"dvc / make": 55, "snakemake / make": 5}, "later": {"a / b": 2}},
        "yolo11n_int8": {"nothing": {"dvc / make": 7}},
    }
    assert before["targets"]["tiny_int8"]["nothing"]["dvc / make"] == 999
    assert regressions(document, after) == []


def test_the_table_is_straight_and_complete(document: dict) -> None:
    lines = table(document)
    assert len({len(line) for line in lines}) == 1
    assert len(lines) == 2 + 3
    cells = [cell.strip() for cell in lines[3].strip("|").split("|")]
    assert cells == ["", "dvc", "600 ms", "550 ms … 850 ms", "55 × make, 52 … 58", "≥ 8 × make"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.00823, "8.2 ms"), (0.0501, "50 ms"), (0.9336, "934 ms"), (1.04, "1.0 s"), (137, "137 s")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_picture_has_a_bar_for_each_time_and_all_of_it_inside(document: dict) -> None:
    document["rows"][0]["title"] = "nothing <changed> & done"
    picture = ET.fromstring(chart(document))
    ns = "{http://www.w3.org/2000/svg}"
    bars = [bar for bar in picture.iter(f"{ns}rect") if "bar" in bar.get("class", "")]
    assert len(bars) == 3
    # 10 of 850 ms and 600 of 850 ms: the longest is the upper quartile.
    width = {bar.get("class"): float(bar.get("width")) for bar in bars[:2]}
    assert width["bar dvc"] / width["bar make"] == pytest.approx(60, rel=0.02)
    height, wide = float(picture.get("height")), float(picture.get("width"))
    for bar in bars:
        assert float(bar.get("y")) + float(bar.get("height")) <= height
        assert float(bar.get("x")) + float(bar.get("width")) <= wide
    assert "nothing <changed> & done" in [text.text for text in picture.iter(f"{ns}text")]


# The program


class Quick(Bench):
    """Tools that take a second each, and Make, which takes a hundredth."""

    def __init__(self, project: Project, *_: object) -> None:
        self.project = project
        self.versions = {"make": "GNU Make 4.3", "dvc": "3.67.1", "snakemake": ""}
        self.missing = {"snakemake": "the environment lacks it"}
        self.stages = [Stage("deploy", (), ("model",), "true", "")]
        self.tools = {"make": Still(0.01), "dvc": Still(1.0)}
        self.sources = []


class Still:
    folder = Path()

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def run_idle(self) -> float:
        return self.seconds


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(program, "Bench", Quick)
    return tmp_path


def called(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """The program's exit code, what it printed, and its complaint."""
    command = ["tiny_int8", "--rows", "nothing", "--rounds", "2", "--out", str(folder / "out")]
    result = CliRunner().invoke(program.command, [*command, *arguments])
    codes = {CheckFailed: 1, BadInput: 2}
    code = codes[type(result.exception)] if result.exception else result.exit_code
    return code, result.output, str(result.exception or "")


def test_what_is_written_fits_the_schema(quick: Path) -> None:
    code, said, _ = called(quick)
    assert code == 0
    assert "100 × make" in said
    assert "not measured: nothing changed with snakemake: the environment lacks it" in said
    written = json.loads((quick / "out/bench.json").read_text())
    assert valid(written)
    assert sorted(path.name for path in (quick / "out").iterdir()) == [
        "bench.json", "bench.md", "bench.svg",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rows", "cold,hot"], "ROWS=cold,hot: there is no row 'hot'; there are nothing,"),
        (["--rows", "cold,,guides"], "there is no row ''"),
        (["--pictures", "25,many"], "PICTURES=25,many: 'many' is no number of pictures, from 1 to"),
        (["--rounds", "0"], "ROUNDS=0: is no number of rounds"),
        (["--rounds", "many"], "ROUNDS=many: is no"),
        (["--models", "tiny,tony"], "BENCH_MODELS: there is no model tony; make list shows"),
        (["--pictures", "0"], "'0' is no number of pictures"),
        (["--pictures", "1000000"], "'1000000' is no number"),
        (["--accept", "--accepted", "x", "--set", "tiny_OPT=1"], "ACCEPT=1 with tiny_OPT=1"),
    ],
)
def test_rows_and_pictures_that_are_none_are_refused(
    quick: Path, arguments: list[str], said: str
) -> None:
    code, _, complaint = called(quick, *arguments)
    assert code == 2
    assert said in complaint
    assert not list(quick.glob("out/bench.*"))


def test_all_rows_are_in_the_order_of_the_table() -> None:
    chosen = program._chosen_rows(None, None, "calibration, guides,nothing")
    assert chosen == ["nothing", "guides", "calibration"]
    assert program._chosen_rows(None, None, "all") == [*ROWS, *heavy.HEAVY]
    assert program._chosen_rows(None, None, "") == ["nothing", "touched", "restored"]
    assert program._chosen_pictures(None, None, "100,25,100") == [25, 100]


@pytest.fixture
def slow_builds(quick: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two builds of a minute and of six; the third time somebody ends the measurement."""
    times = iter([Cost(60, 50, 10, 5, 0.1), Cost(300, 50, 10, 5, 0.1), Cost(70, 50, 10, 5, 0.1)])

    def run() -> Cost:
        try:
            return next(times)
        except StopIteration:
            raise KeyboardInterrupt from None

    def rows(*_: object) -> list[Row]:
        expected = {"cold": 50, "guides": 360}
        return [
            Row("from-nothing", "from nothing", dict.fromkeys(expected, run),
                [Ratio("guides", "cold")], expected=expected, rotate=False),
            Row("parallel", "three models", {"j1": run}, expected={"j1": 100}),
        ]  # fmt: skip

    monkeypatch.setattr(program, "heavy_rows", rows)
    return quick


def test_what_was_measured_before_an_interruption_is_kept(slow_builds: Path) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    signals = {number: signal.getsignal(number) for number in numbers}
    command = ["tiny_int8", "--rows", "guides,cold,parallel", "--rounds", "3"]
    try:
        done = CliRunner().invoke(
            program.command, [*command, "--out", str(slow_builds / "out")], standalone_mode=False
        )
    finally:
        for number, handler in signals.items():
            signal.signal(number, handler)
    assert done.return_value == 130, done.output
    # Beforehand; and after each run: what ran will take what it took, the rest as much more or
    # less than expected.
    assert "bench    3 rounds of from nothing: cold 50 s, guides 6 min\n" in done.stdout
    assert "all of it takes about 26 min\n" in done.stdout
    line = r"^bench +(\w+) +from-nothing: round (\d) of 3, .*about (\d+) min left +[\d.]+ s$"
    lefts = re.findall(line, done.stdout, re.M)
    assert lefts == [("cold", "1", "30"), ("guides", "1", "16"), ("cold", "2", "16")]
    written = json.loads((slow_builds / "out/bench.json").read_text())
    assert valid(written)
    assert written["incomplete"]
    (row,) = written["rows"]
    assert (row["rounds"], row["ratios"][0]["median"]) == (1, 5)
    assert "not complete" in (slow_builds / "out/bench.md").read_text()
    place = slow_builds / "out/bench.json"
    assert done.stderr.splitlines()[0] == f"bench: interrupted; {place} has 1 round of from-nothing"


def test_what_was_measured_before_a_failure_is_kept(
    slow_builds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Cost:
        raise CheckFailed("the compiler died")

    (built, _), tail = program.heavy_rows(), Row("p", "p", {"j1": fail}, expected={"j1": 1})
    monkeypatch.setattr(program, "heavy_rows", lambda *_: [built, tail])
    command = ["tiny_int8", "--rows", "guides,parallel", "--rounds", "1"]
    place = slow_builds / "out"
    done = CliRunner().invoke(program.command, [*command, "--out", str(place)])
    assert str(done.exception) == "the compiler died"
    assert "5.0 × cold" in done.stdout
    written = json.loads((place / "bench.json").read_text())
    assert valid(written)
    assert [row["name"] for row in written["rows"]] == ["from-nothing"]


def test_accepted_ratios_are_written_and_held_against(quick: Path) -> None:
    accepted = quick / "accepted.json"
    option = ("--accepted", str(accepted))
    assert called(quick, *option)[0] == 0, "nothing is accepted yet"
    assert not accepted.exists()
    assert called(quick, *option, "--accept")[0] == 0
    held = json.loads(accepted.read_text())
    assert held["targets"] == {"tiny_int8": {"nothing": {"dvc / make": 100}}}
    assert called(quick, *option)[0] == 0
    held["targets"]["tiny_int8"]["nothing"]["dvc / make"] = 130
    accepted.write_text(json.dumps(held))
    code, _, complaint = called(quick, *option)
    assert code == 1
    assert complaint == "nothing changed: dvc / make was 130 and is 100, 23 % less than accepted"
    written = json.loads((quick / "out/bench.json").read_text())
    assert written["regressions"] == [complaint]
    # Accepting is what one does about it.
    assert called(quick, *option, "--accept")[0] == 0
    assert called(quick, *option)[0] == 0


def test_what_is_too_slow_fails_even_when_accepted(
    quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def row(bench: Bench) -> Row:
        return replace(ROWS["touched"](bench), at_most={"make": 0.001})

    monkeypatch.setitem(ROWS, "nothing", row)
    accepting = ("--accepted", str(quick / "accepted.json"), "--accept")
    code, _, complaint = called(quick, *accepting)
    assert code == 1
    assert complaint == "every input touched: make took 10 ms, and may take 1 ms"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "is not JSON"),
        ("[]", "at the top"),
        (
            json.dumps(EMPTY | {"targets": {"a": {"b": {"c / d": "e"}}}}),
            "at targets/a/b/c / d: 'e'",
        ),
    ],
)
def test_accepted_ratios_that_cannot_be_read_are_refused(
    quick: Path, text: str, complaint: str
) -> None:
    accepted = quick / "accepted.json"
    accepted.write_text(text)
    code, _, said = called(quick, "--accepted", str(accepted))
    assert code == 2
    assert complaint in said
    assert accepted.read_text() == text


def run_program(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "scripts/bench.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tony_int8", "--tool", "make"], "tony_int8: no stage builds it; make list shows"),
        (["tiny_int8", "--tool", "make", "--make", "no-such-make"], "no-such-make: No such file"),
        (["tiny_int8", "--tool", "dvc", "--rivals", "no-such"], "make no-such/ready makes it"),
        (["tiny_int8", "--accept"], "--accept needs --accepted"),
        pytest.param(
            ["tiny", "--tool", "make"],
            "TARGET=tiny: is several variants; one is measured",
            marks=pytest.mark.slow,
        ),
        ([], "Missing argument 'TARGET'"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, arguments: list[str], said: str) -> None:
    assert said in refused(run_program(*arguments, "--out", str(tmp_path / "out")))
    assert not list(tmp_path.glob("out/.work*"))
    assert not list(tmp_path.glob("out/bench.*"))


@pytest.mark.slow
def test_make_hands_on_what_is_to_be_measured() -> None:
    dry = ("-n", "bench", "BENCH_VENV=no-such")
    given = ["TARGET=tiny_bf16", "ROWS=cold,it's", "PICTURES=25,100", "ROUNDS=2", "tiny_OPT=1"]
    said = Checkout(ROOT).make(*dry, *given).stdout
    (line,) = [line for line in said.replace("\\\n", "").splitlines() if "scripts/bench.py" in line]
    for words in (" scripts/bench.py 'tiny_bf16'", " --rows 'cold,it'\\''s'", " --rounds '2'",
                  " --pictures '25,100'", " --set 'tiny_OPT=1'"):  # fmt: skip
        assert words in line
    # Who compares with nobody needs nobody's environment.
    assert "setup_venv.py 'no-such'" not in said
    assert "setup_venv.py 'no-such'" in Checkout(ROOT).make(*dry).stdout


# With the real tools


def rivals() -> Path:
    """The environment's stamp; Make sets it up where it isn't there."""
    place = Path(os.environ.get("BENCH_VENV", ROOT / ".bench")).absolute()
    Checkout(ROOT).make(f"{place}/ready", f"BENCH_VENV={place}")
    return place / "ready"


def a_project(checkout: Checkout, logs: Path, target: str = "tiny_int8") -> Project:
    environments = (checkout.path / name for name in (".venv", ".toolchain"))
    return Project(checkout.path, target, "make", *environments, logs)


@pytest.mark.slow
@pytest.mark.toolchain
def test_nothing_changed_for_make_alone(built: Checkout, checkout: Checkout) -> None:
    out = checkout.path / "out"
    command = [
        checkout.path / ".venv/bin/python",
        *("scripts/bench.py", "tiny_int8", "--rows", "nothing", "--tool", "make", "--rounds", "3"),
        *("--out", str(out)),
    ]
    caching = {"CACHE": "1", "CACHE_DIR": str(built.path.with_name("cache"))}
    env = os.environ | caching
    subprocess.run(command, cwd=checkout.path, env=env, check=True, capture_output=True)
    document = json.loads((out / "bench.json").read_text())
    assert valid(document)
    (row,) = document["rows"]
    (seconds,) = row["times"]
    assert len(seconds["samples"]) == 3
    assert seconds["median"] < 0.05
    # Nothing was done in the checkout itself, and nothing is left of the copies.
    assert not (checkout.path / "build").exists()
    assert sorted(path.name for path in out.iterdir()) == [
        "bench.json", "bench.md", "bench.svg", "logs",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def quick_build() -> Checkout:
    """The session's own quick build; here that name is taken."""
    return build_once("quick", *QUICK, "tiny")


def bench_of_tiny(checkout: Checkout, cache: Path, *arguments: str) -> dict:
    """What measuring builds of tiny gives, with half of the compiler's time."""
    command = [
        checkout.path / ".venv/bin/python",
        *("scripts/bench.py", "tiny_int8", "--rounds", "1", "--out", "out", *arguments),
        *(word for each in QUICK for word in ("--set", each)),
    ]
    env = os.environ | {"CACHE": "1", "CACHE_DIR": str(cache)}
    done = subprocess.run(
        command, cwd=checkout.path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    document = json.loads((checkout.path / "out/bench.json").read_text())
    assert valid(document)
    assert (checkout.path / "out/bench.md").read_text().startswith("| ")
    assert sorted(path.name for path in (checkout.path / "out").iterdir()) == [
        "bench.json", "bench.md", "bench.svg", "logs",
    ]  # fmt: skip
    return document


def took(row: dict) -> dict[str, float]:
    return {time["tool"]: time["median"] for time in row["times"]}


@pytest.mark.slow
@pytest.mark.toolchain
def test_builds_are_measured_beside_the_guides_commands(
    quick_build: Checkout, checkout: Checkout, record_property: pytest.RecordProperty
) -> None:
    cache = quick_build.path.with_name("cache")
    rows = ("--rows", "guides,cold,calibration", "--pictures", "6")
    document = bench_of_tiny(checkout, cache, *rows)
    built, calibration = document["rows"]
    assert list(took(built)) == ["guides", "cold"]
    assert list(took(calibration)) == ["run_calibration", "tpumake"]
    guides, cold = built["times"]
    assert list(guides["steps"]) == ["transform", "calibrate", "deploy"]
    assert sum(guides["steps"].values()) == pytest.approx(guides["median"], rel=0.01)
    assert {"downgrade", "dataset", "transform", "calibrate", "int8"} <= cold["steps"].keys()
    # Everything was built, although the cache has it.
    assert cold["processor"]["median"] > 2
    assert guides["memory"]["median"] >= guides["largest"]["median"] > 100e6
    # And by the guides' own tools, not by what stands in for them.
    log = (checkout.path / "out/logs/guides-tools.log").read_text()
    assert "/site-packages/tpu_mlir/python/tools/npz_tool.py" in log
    record_property("figure", f"bench: {took(built)}, {took(calibration)}")


@pytest.mark.full
@pytest.mark.toolchain
def test_variants_and_several_models_are_measured(
    quick_build: Checkout, checkout: Checkout
) -> None:
    cache = quick_build.path.with_name("cache")
    document = bench_of_tiny(checkout, cache, "--rows", "variant,parallel", "--models", "tiny")
    built, parallel = document["rows"]
    # The second variant needs the first one, and less than half of what that takes.
    assert list(took(built)) == ["cold", "variant"]
    assert list(took(parallel)) == ["j1", "j2"]
    assert parallel["title"] == "tiny, tiny again, tiny again: int8, bf16"
    assert [ratio["slow"] for ratio in parallel["ratios"]] == ["j1"] * 3


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """All tools, each with its own copy of what Make has built; they may have to be installed."""
    folder = tmp_path_factory.mktemp("bench")
    project = a_project(copy_project(folder / "check out"), folder / "logs")
    work = folder / "work"
    work.mkdir()
    python = rivals().parent / "bin/python"
    return Bench(project, work, ["make", "dvc", "snakemake"], python, lambda *_: None)


@pytest.mark.full
@pytest.mark.toolchain
def test_every_tool_finds_nothing_to_do(
    ready: Bench, record_property: pytest.RecordProperty
) -> None:
    for name in ("nothing", "touched"):
        row = ROWS[name](ready)
        described = describe_row(row, measure(row.contenders, 1))
        assert valid(described, "row")
        assert [time["tool"] for time in described["times"]] == list(ready.tools)
        figures = ", ".join(
            f"{time['tool']} {duration(time['median'])}" for time in described["times"]
        )
        record_property("figure", f"bench: {row.title}: {figures}")
    # Make looked, it did not just find everything older.
    assert "up to date" not in (ready.project.logs / "make.log").read_text()


@pytest.mark.full
@pytest.mark.toolchain
def test_the_rivals_see_a_change_in_any_input(ready: Bench) -> None:
    """They do the work that is measured: a picture, a script, and a parameter count for them."""
    changes = {
        "datasets/shapes/images/0003.jpg": "dataset",
        "scripts/tpumake/detection_head.py": "downgrade",
        "params.yaml": "calibrate",
    }
    for name, question in {"dvc": ["status"], "snakemake": ["--dry-run"]}.items():
        if name in ready.missing:
            continue
        tool = ready.tools[name]
        for path, stage in changes.items():
            file = tool.folder / path
            before, times = file.read_bytes(), file.stat()
            time.sleep(0.1)
            file.write_bytes(before.replace(b"--tune_num 5", b"--tune_num 6") + b"\n")
            options = tool.OPTIONS if name == "snakemake" else ()
            said = tool.call(*question, *options)[1]
            assert re.search(rf"^(rule |localrule )?{stage}:", said, re.M), said
            file.write_bytes(before)
            os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert tool.run_idle() > 0
