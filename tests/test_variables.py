"""Stanza variables: each reaches its tool, and docs/variables.md tells the truth about them."""

from __future__ import annotations

import json
import re

import pytest
from conftest import ROOT, Checkout, copy_project

SCHEMA = json.loads((ROOT / "schemas/stanza.schema.json").read_text())
DOCUMENT = (ROOT / "docs/variables.md").read_text()
VARIANTS = ("int8", "int8_asym", "mix", "bf16", "f16", "f32")

# Another value than the default for each variable, and what the stage's tool is given then.
TRANSFORM = {
    "CHANNEL_FORMAT": "none", "RESIZE_DIMS": "80,80", "KEEP_RATIO_MODE": "short_side_scale",
    "PAD_VALUE": "114", "PAD_TYPE": "normal", "WHITE_LEVEL": "1023", "BLACK_LEVEL": "64",
    "PREPROCESS_LIST": "1", "INPUT_TYPES": "float32", "ONNX_SIM": "skip_fuse_bn",
    "ADD_POSTPROCESS": "yolov8", "MEAN": "1,2,3", "SCALE": "0.5,0.5,0.5", "PIXEL_FORMAT": "bgr",
    "INPUT_SHAPES": "[[2,3,64,64]]",
}  # fmt: skip
CALIBRATE = {"INPUT_NUM": "12", "TUNE_NUM": "3", "HISTOGRAM_BIN_NUM": "1024"}
QTABLE = {
    "EXPECTED_COS": "0.5", "MIN_LAYER_COS": "0.6", "FP_TYPE": "BF16",
    "GLOBAL_COMPARE_LAYERS": "a,b",
}  # fmt: skip
DEPLOY = {
    "OPT": "1", "ADDR_MODE": "io_alone", "NUM_CORE": "2", "NUM_DEVICE": "2",
    "GROUP_BY_CORES": "true", "COMPRESS_MODE": "all", "MODEL_VERSION": "1.2",
    "QUANT_INPUT_LIST": "1", "QUANT_OUTPUT_LIST": "1,3", "CUSTOMIZATION_FORMAT": "BGR_PACKED",
}  # fmt: skip
COMPARE = {"EXCEPTS": "a,b"}
SWITCHES = (
    "IGNORE_F16_OVERFLOW", "OP_DIVIDE", "DISABLE_LAYER_GROUP", "QUANT_OUTPUT", "COMPARE_ALL",
    "SKIP_VALIDATION",
)  # fmt: skip
# What is not handed on under its own name, or not to every variant.
OTHERS = {
    "OUTPUTS": "none", "VARIANTS": "bf16", "URL": "https://x.org/y", "KEEP_ASPECT_RATIO": "0",
    "DEVICE": "milkv", "CALIBRATOR": "tpu_mlir",
    "DATASET": "datasets/shapes_val", "DATA_LIST": "list.txt", "TUNE_LIST": "tune.txt",
    "TEST_INPUT": "picture.png", "CALIBRATION_DEBUG_CMD": "use_max", "QTABLE_INPUT_NUM": "3",
    "FUSE_PREPROCESS": "0", "ALIGNED_INPUT": "0", "QUANT_INPUT": "0", "DYNAMIC": "1",
    "TOLERANCE": "0.9,0.9", "QTABLE": "table", "FLOAT_LAYERS": "/model.23/*", "LABELS": "names",
    "SILENCE": "scale", "EVAL_DATASET": "datasets/shapes", "EVAL_COUNT": "7", "MAX_DROP": "0.02",
    "RUNNER": "self-hosted large", "TIMEOUT": "30",
    "QTABLE_GOAL": "0.005",
} | {f"{each}_TOLERANCE": "0.9,0.9" for each in
     ("TRANSFORM", "INT8", "INT8_ASYM", "MIX", "BF16", "F16", "F32", "MODEL")}  # fmt: skip
ALL = TRANSFORM | CALIBRATE | QTABLE | DEPLOY | COMPARE | dict.fromkeys(SWITCHES, "1") | OTHERS
# A stanza names one network; the other kinds are the import's own matter.
KINDS = {
    "ONNX", "PT", "ALLOW_PICKLE", "TORCHSCRIPT", "PB", "SAVEDMODEL", "PADDLE", "TFLITE",
    "PROTOTXT", "CAFFEMODEL",
}  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """For tests that build nothing."""
    project = copy_project(tmp_path_factory.mktemp("variables") / "check out")
    (project.path / "told.mk").write_text((ROOT / "tests/variables.mk").read_text())
    return project


def told(project: Checkout, *arguments: str) -> dict[str, str]:
    """What each stage of tiny is told, by the stage's name."""
    said = project.make("--silent", "-f", "told.mk", "told", *arguments).stdout
    return {stage: rest for stage, _, rest in (line.partition(" ") for line in said.splitlines())}


def rows() -> dict[str, dict[str, str]]:
    """The document's tables of variables, by variable."""
    found = {}
    for line in DOCUMENT.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and (name := re.fullmatch(r"`(\w+)`", cells[1])):
            found[name[1]] = dict(
                zip(("flag", "name", "default", "means", "stale"), cells, strict=True)
            )
    return found


def test_every_variable_is_in_the_document_and_in_the_help(project: Checkout) -> None:
    known = set(SCHEMA["properties"]) - {"model"}
    assert set(rows()) == known
    helped = re.findall(r"^  <model>_(\w+) =", project.make("help").stdout, re.M)
    assert sorted(helped) == sorted(known)
    assert set(ALL) | KINDS == known


def test_the_document_has_the_defaults(project: Checkout) -> None:
    live = {}
    for chip in ("cv181x", "bm1684x"):
        said = project.make("help", f"CHIP={chip}").stdout
        live[chip] = dict(re.findall(r"^  <model>_(\w+) = ?(.*?) *$", said, re.M))
    for name, row in rows().items():
        here, _, there = (part.strip("` ") for part in row["default"].partition("; BM: "))
        assert (here, there or here) == (live["cv181x"][name], live["bm1684x"][name]), name


@pytest.mark.slow
def test_the_document_says_what_becomes_stale(project: Checkout) -> None:
    before = told(project)
    for name, value in ALL.items():
        now = told(project, f"tiny_{name}={value}")
        stale = [stage for stage in before if before[stage] != now[stage]]
        stale = [stage for stage in stale if stage != "import"]
        if set(VARIANTS) <= set(stale):
            stale = [stage for stage in stale if stage not in VARIANTS] + ["variants"]
        assert rows()[name]["stale"] == ", ".join(stale), name


def flag(name: str, value: str) -> str:
    return f"--{name.lower()} '{value}'"


@pytest.mark.parametrize(
    ("stage", "variables"),
    [
        ("transform", TRANSFORM | COMPARE),
        ("calibrate", CALIBRATE),
        ("qtable", QTABLE),
        ("int8", DEPLOY | COMPARE),
    ],
)
def test_values_reach_their_tool(project: Checkout, stage: str, variables: dict[str, str]) -> None:
    before = told(project)[stage]
    for name, value in variables.items():
        said = told(project, f"tiny_{name}={value}")[stage]
        assert flag(name, value) in said, name
        assert flag(name, value) not in before, name


def test_switches_reach_their_tool(project: Checkout) -> None:
    before = told(project)["int8"]
    for name in SWITCHES:
        word = f" --{name.lower()} "
        assert word in told(project, f"tiny_{name}=1")["int8"] + " "
        assert word not in before


def test_a_flag_that_the_tool_has_by_itself_is_not_said(project: Checkout) -> None:
    assert told(project, "tiny_PAD_VALUE=0", "tiny_OPT=2", "tiny_ADDR_MODE=auto") == told(project)


def test_a_list_of_outputs_stands_for_its_switch_too(project: Checkout) -> None:
    said = told(project, "tiny_QUANT_OUTPUT_LIST=2")["int8"]
    assert "--quant_output " in said
    assert "--quant_output_list '2'" in said


def test_tolerances_one_for_all_and_one_for_each(project: Checkout) -> None:
    def tolerances(*arguments: str) -> dict[str, str]:
        said = told(project, *arguments)
        return {each: re.search(r"--tolerance '(.*?)'", said[each])[1] for each in VARIANTS}

    assert tolerances() == {
        "int8": "0.8,0.5", "int8_asym": "0.8,0.5", "mix": "0.8,0.5", "bf16": "0.95,0.8",
        "f16": "0.99,0.99", "f32": "0.99,0.99",
    }  # fmt: skip
    # What the vendors' guides take for bm1684x.
    assert tolerances("CHIP=bm1684x") == tolerances() | {
        "int8": "0.85,0.45", "int8_asym": "0.90,0.55", "mix": "0.85,0.45",
    }  # fmt: skip
    own = tolerances("tiny_TOLERANCE=0.7,0.1", "tiny_BF16_TOLERANCE=0.9,0.9")
    assert own == dict.fromkeys(VARIANTS, "0.7,0.1") | {"bf16": "0.9,0.9"}
    assert "--tolerance '0.99,0.99'" in told(project, "tiny_TOLERANCE=0.7,0.1")["transform"]


@pytest.mark.parametrize("name", sorted(SCHEMA["not_offered"]))
def test_a_flag_without_a_variable_is_in_the_document(name: str) -> None:
    why = SCHEMA["not_offered"][name].replace("<model>", "M").replace("<chip>", "CHIP")
    assert f"| {why} |" in DOCUMENT


def test_what_is_wrong_is_told_all_at_once(checkout: Checkout) -> None:
    wrong = {
        "tiny_ASYMMETRIC=1": "tpu_mlir 1.7 ignores --asymmetric",
        "tiny_LOSS_TABLE=a.txt": "build/<model>/<chip>/<model>_loss_table.txt",
        "tiny_PAD_VALUE=300": "tiny_PAD_VALUE = 300: must be a whole number from 0 to 255",
        "tiny_RESIZE_DIMS=256": "tiny_RESIZE_DIMS = 256: must be: height,width",
        "tiny_CALIBRATION_DEBUG_CMD=int4": "use_percentile9999",
        "tiny_QUANT_OUTPUT_LIST=0": "must be numbers from 1, with commas between",
        "tiny_TOLERANCE=0.9": "must be two numbers",
    }
    done = checkout.make("build/tiny/logs/stanza.key", *wrong, check=False)
    assert done.returncode == 2
    for argument, said in wrong.items():
        name = argument.partition("=")[0]
        assert [line for line in done.stderr.splitlines() if name in line and said in line], name


RAW = "tiny_CUSTOMIZATION_FORMAT=RGGB_RAW"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tiny_int8_asym"], "1.7 takes --asymmetric and then writes the same model as without"),
        (["tiny_int8", RAW], "can't compile CUSTOMIZATION_FORMAT = RGGB_RAW for cv181x"),
        (["tiny_int8", RAW, "CHIP=bm1684x", "tiny_FUSE_PREPROCESS=1"], "RGGB_RAW in INT8"),
        (["tiny_f16", RAW, "CHIP=bm1684x", "tiny_FUSE_PREPROCESS=1"], "VALIDATE=0"),
        (["tiny_int8", "tiny_PIXEL_FORMAT=rgba"], "no test pictures for PIXEL_FORMAT = rgba"),
        (["tiny_int8", "tiny_DYNAMIC=1"], "cv181x runs no models of DYNAMIC = 1"),
        (["tiny_int8", "tiny_TEST_INPUT=a.npz"], "is compared on pictures"),
    ],
)
def test_what_cannot_be_built_is_refused_before_anything_runs(
    project: Checkout, arguments: list[str], said: str
) -> None:
    done = project.make(*arguments, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (project.path / "build").exists()


def test_asymmetric_int8_where_a_toolchain_honours_it(project: Checkout) -> None:
    said = project.make("-n", "tiny_int8_asym", "ASYMMETRIC_1.7=cv181x").stdout
    assert re.search(r"--quantize INT8 --asymmetric +--calibration_table tiny_calib_table", said)
    assert "tiny_int8_asym.cvimodel" in said


@pytest.mark.parametrize(
    ("form", "pixels", "shapes", "doubted"),
    [
        ("GRAYSCALE", "rgb", "[[1,3,64,64]]", True),
        ("RGBA_PLANAR", "rgb", "[[1,3,64,64]]", True),
        ("RGB_PLANAR", "rgb", "[[1,3,64,64]]", False),
        ("GRAYSCALE", "gray", "[[1,1,64,64]]", False),
        ("RGBA_PLANAR", "rgba", "[[1,4,64,64]]", False),
    ],
)
def test_a_form_of_other_channels_than_the_networks_is_doubted(
    project: Checkout, form: str, pixels: str, shapes: str, doubted: bool
) -> None:
    said = project.make(
        "-n", "tiny_int8", f"tiny_CUSTOMIZATION_FORMAT={form}", f"tiny_INPUT_SHAPES={shapes}",
        f"tiny_PIXEL_FORMAT={pixels}", "VALIDATE=0",
    ).stdout  # fmt: skip
    assert (f"CUSTOMIZATION_FORMAT = {form} means nothing for a network" in said) == doubted
