"""`make bench`: its figures, the graph that other tools get, and a small measurement."""

from __future__ import annotations

import json
import os
import re
import shutil
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
from conftest import ROOT, Checkout, copy_project, refused

import bench as program
from tpumake.bench.chart import chart
from tpumake.bench.graph import Stage, outside_inputs, read_graph
from tpumake.bench.measure import Bystanders, measure, paired_ratios, run_timed, summarize
from tpumake.bench.project import Project, stages_that_ran
from tpumake.bench.report import accept, describe_row, duration, missed, regressions, table
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
        "rounds": 3,
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


# The document, and what is made of it


def test_the_schemas_are_schemas_and_strict(document: dict) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert valid(document)
    for spoil in (
        lambda one: one.update(more=1),
        lambda one: one["rows"][0].update(more=1),
        lambda one: one["rows"][0]["times"][0].update(samples=[]),
        lambda one: one["rows"][0]["times"][0].update(median=0),
        lambda one: one["rows"][0]["ratios"][0].pop("at_least"),
        lambda one: one["machine"].pop("cpu"),
        lambda one: one.update(rows=[]),
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
    command = ["tiny_int8", "--row", "nothing", "--rounds", "2", "--out", str(folder / "out")]
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
    assert sorted(path.name for path in (quick / "out").iterdir()) == ["bench.json", "bench.svg"]


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
        (["tiny_int8", "--rounds", "0"], "0 is not in the range"),
        (["tiny_int8", "--row", "everything"], "'everything' is not one of 'nothing'"),
        ([], "Missing argument 'TARGET'"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, arguments: list[str], said: str) -> None:
    assert said in refused(run_program(*arguments, "--out", str(tmp_path / "out")))
    assert not list(tmp_path.glob("out/.work*"))
    assert not list(tmp_path.glob("out/bench.*"))


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
        *("scripts/bench.py", "tiny_int8", "--row", "nothing", "--tool", "make", "--rounds", "3"),
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
    assert sorted(path.name for path in out.iterdir()) == ["bench.json", "bench.svg", "logs"]


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
