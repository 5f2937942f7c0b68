"""Every message in scripts/tpumake/known_failures.json, provoked with the real tools of tpu_mlir.

Each on the smallest network that does it, straight by the tool: through make, checks beforehand
prevent most of them.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from conftest import ROOT, Toolchain
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tpumake import failures

pytestmark = [pytest.mark.toolchain, pytest.mark.slow]

NAMES = [entry["name"] for entry in failures.known_failures()]
FLOAT = TensorProto.FLOAT
SHAPE = (1, 3, 8, 8)


# ---------------------------------------------------------------------------------------------
# The networks


def network(
    *nodes: onnx.NodeProto,
    constants: dict[str, np.ndarray] | None = None,
    kind: int = FLOAT,
    shape: tuple = SHAPE,
    inputs: dict[str, tuple] | None = None,
    out: tuple = SHAPE,
    opset: int = 17,
) -> bytes:
    """A network from x, or ``inputs``, of which s is a shape, to y."""
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64 if name == "s" else kind, each)
            for name, each in (inputs or {"x": shape}).items()
        ],
        [helper.make_tensor_value_info("y", kind, out)],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8 if opset < 19 else 9
    ).SerializeToString()  # fmt: skip


def node(kind: str, *inputs: str, into: str = "y", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs or ("x",), [into], **attributes)


def convolution(**attributes: object) -> bytes:
    weights = np.random.default_rng(0).normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32)
    return network(
        node("Conv", "x", "w", into="a", pads=[1] * 4, **attributes), node("Relu", "a"),
        constants={"w": weights}, out=(1, 4, 8, 8),
    )  # fmt: skip


TWO = {"c": np.full(1, 2, np.float32)}
CONVOLUTION = convolution(kernel_shape=[3, 3])
RELU = network(node("Relu"))


# ---------------------------------------------------------------------------------------------
# The cases: what is in the folder, and the command


class Case(NamedTuple):
    """A command that fails, for stage ``stage``; ``says`` is what of the cause depends on it."""

    stage: str
    command: str
    files: dict[str, bytes | str | None] = {}  # noqa: RUF012 (a default that nobody writes to)
    says: str = ""
    limits: dict[str, int] = {}  # noqa: RUF012
    # Without our own programs before the tool's in PATH.
    bare: bool = False
    # Whose .mlir it starts from.
    network: str = "m"

    def on(self, network: str) -> Case:
        return self._replace(network=network)


Files = dict[str, bytes | str | None]


def transform(
    model: bytes | None = CONVOLUTION,
    options: str = "--input_shapes [[1,3,8,8]] --test_input t.npz --test_result o.npz",
    says: str = "",
    name: str = "n.onnx",
    **files: bytes | str | None,
) -> Case:
    command = f"model_transform.py --model_name m --mlir m.mlir --model_def {name} {options}"
    return Case("transform", command, {name: model} | named(files), says)


def calibrate(options: str = "--dataset ds", says: str = "", **files: bytes | str | None) -> Case:
    command = f"run_calibration.py m.mlir --input_num 2 --tune_num 0 -o t {options}"
    return Case("calibrate", command, named(files), says)


def search(options: str, says: str = "") -> Case:
    command = "run_qtable.py m.mlir --dataset ds --input_num 2 --calibration_table table -o q"
    return Case("qtable", f"{command} --processor cv181x {options}", {}, says)


def deploy(
    options: str, says: str = "", model: str = "m.cvimodel", **files: bytes | str | None
) -> Case:
    command = f"model_deploy.py --mlir m.mlir --processor cv181x --model {model} {options}"
    return Case("deploy", command, named(files), says)


def named(files: Files) -> Files:
    """Files by their names: a keyword has no dots."""
    return {re.sub("_(?=npz$|jpg$|bmp$|mlir$)", ".", name): each for name, each in files.items()}


PICTURE = "--input_shapes [[1,3,8,8]] --test_result o.npz --test_input"
SIZE = "--input_shapes [[1,3,8,8]]"
BF16 = "--quantize BF16"
INT8 = "--quantize INT8 --calibration_table table"


def zeros(*shape: int, **names: tuple[int, ...]) -> bytes:
    """An .npz of zeros: x, or those that are named."""
    buffer = io.BytesIO()
    np.savez(buffer, **{name: np.zeros(each, np.float32) for name, each in names.items()}
             or {"x": np.zeros(shape, np.float32)})  # fmt: skip
    return buffer.getvalue()


SUM = network(node("Add", "x", "z"), inputs={"x": SHAPE, "z": SHAPE})
PAIR = "--input_shapes [[1,3,8,8],[1,3,8,8]] --test_result o.npz --test_input"
RESIZE = network(
    node("Resize", "x", "", "s", mode="cubic"), out=(1, 3, 16, 16),
    constants={"s": np.array([1, 1, 2, 2], np.float32)},
)  # fmt: skip
PAD = network(
    node("Pad", "x", "p", mode="wrap"), opset=19, out=(1, 3, 10, 8),
    constants={"p": np.array([0, 0, 1, 0, 0, 0, 1, 0])},
)  # fmt: skip
RESHAPE = network(
    node("Reshape", "x", "s"), opset=19, out=(1, 192), constants={"s": np.array([1, 192])}
)
CASES: dict[str, list[Case]] = {
    "out-of-memory": [
        transform(RELU, f"--input_shapes [[1,3,8192,8192]] {PICTURE[26:]} p.jpg")
        ._replace(limits={"RLIMIT_AS": 5 << 28}),
    ],
    "no-shared-memory": [calibrate()._replace(limits={"RLIMIT_FSIZE": 0})],
    "module-missing": [transform(b"", SIZE, "no module torch", "n.pt")],
    "network-damaged": [transform(CONVOLUTION[:300])],
    "network-kind": [transform(b"", SIZE, "n.pth", "n.pth")],
    "opset": [transform(RESHAPE, says="Reshape of opset 19")],
    "operator-unknown": [
        transform(network(node("Mod", "x", "c", fmod=1), constants=TWO), says="'Mod'"),
        transform(network(node("Det"), out=(1, 3)), says="'Det'"),
    ],
    "kernel-shape": [transform(convolution())],
    "operator-mode": [transform(RESIZE, says="the mode of an operator, Interp")],
    "pad-mode": [transform(PAD)],
    "reshape-from-input": [
        transform(network(node("Reshape", "x", "s"), inputs={"x": SHAPE, "s": (2,)}, out=("a", 1)),
                  "--input_shapes [[1,3,8,8],[2]]"),
    ],
    "constant-output": [transform(network(node("Identity", "c"), constants=TWO, out=(1,)))],
    "nothing-left": [transform(network(node("Identity")))],
    "output-unknown": [transform(options=f"{SIZE} --output_names nosuch", says="'nosuch'")],
    "input-shapes": [
        transform(options="--input_shapes [[1,3,8]]", says="wants 4 where 3 are given"),
        transform(options="--input_shapes [[1,3,8,8],[1,3,8,8]]", says="wants 1 where 2"),
    ],
    "dynamic-shape": [transform(network(node("Relu"), shape=("n", 3, "h", "w")), "--mean 0,0,0")],
    "input-size": [
        transform(options="--input_shapes [[1,4,8,8]] --test_result o.npz --test_input p.jpg",
                  says="dimension 1 of the network's input x is 4, and what it is given has 3"),
        transform(options=f"{PICTURE} p.jpg --pixel_format gray", says="input x is 3"),
    ],
    "input-rank": [transform(options=f"{PICTURE} w.npz", w_npz=zeros(1, 3, 8, 8, 2),
                             says="x has 4 dimensions, and the test input 5")],
    "input-type": [
        transform(network(node("Relu"), kind=TensorProto.FLOAT16), says="input is float16"),
    ],
    "mean-or-scale": [
        transform(options=f"{PICTURE} p.jpg --mean 1,2", says="mean has fewer numbers"),
        transform(options=f"{PICTURE} p.jpg --scale 1,2", says="scale has fewer numbers"),
    ],
    "no-number": [transform(options=f"{PICTURE} p.jpg --mean a,b,c", says="'a'")],
    "option-unknown": [
        transform(options=f"{SIZE} --processor cv181x"),
        calibrate("--dataset ds --search search_threshold"),
    ],
    "choice-unknown": [
        deploy("--quantize BF16 --chip cv999", "does not know 'cv999'"),
        search("--processor bm1688", "does not know 'bm1688'"),
    ],
    "picture-missing": [
        transform(options=f"{PICTURE} no.jpg", says="no.jpg"),
        calibrate("--data_list list", list="no.jpg\n", says="no.jpg"),
        deploy(f"{BF16} --fuse_preprocess --test_input no.jpg --test_reference o.npz"),
    ],
    "picture-undecodable": [
        transform(options=f"{PICTURE} w.jpg", w_jpg="no picture"),
        calibrate("--data_list list", list="w.jpg\n", w_jpg="no picture"),
        deploy(f"{BF16} --fuse_preprocess --test_input w.jpg --test_reference o.npz", w_jpg="no"),
    ],
    "test-input-kind": [transform(options=f"{PICTURE} w.bmp", w_bmp="BM")],
    "test-result-missing": [transform(options=f"{SIZE} --test_input t.npz")],
    "tensors-damaged": [transform(options=f"{PICTURE} w.npz", w_npz="no archive")],
    "test-input-names": [transform(SUM, f"{PAIR} w.npz", w_npz=zeros(a=SHAPE, b=SHAPE))],
    "test-input-number": [transform(SUM, f"{PAIR} t.npz")],
    "no-samples": [calibrate("--dataset nosuch"), calibrate("")],
    "list-line": [calibrate("--data_list list", list="p.jpg\n\np.jpg\n")],
    "mixed-samples": [calibrate("--data_list list", list="p.jpg\nt.npz\n")],
    "sample-size": [
        calibrate("--data_list list", list="w.npz\n", w_npz=zeros(1, 3, 4, 8),
                  says="input x has 384 bytes, and 768 are wanted"),
    ],
    "layer-unknown": [search("--expected_cos 1 --global_compare_layers nosuch", "nosuch")],
    "layer-weights": [search("--expected_cos 1 --global_compare_layers y_Relu:0.3")],
    "float-type": [search("--fp_type F16")],
    "no-graphviz": [search("--expected_cos 1 --min_layer_cos 1")._replace(bare=True)],
    "table-missing": [
        deploy("--quantize INT8 --calibration_table nosuch"),
        search("--expected_cos 1 --calibration_table nosuch"),
    ],
    "table-incomplete": [
        deploy("--quantize INT8").on("deep"),
        deploy("--quantize INT8 --calibration_table w", w="x 1 -1 1\ny_Conv 1 -1 1\n").on("deep"),
    ],
    "qtable-missing": [deploy(f"{INT8} --quantize_table nosuch")],
    "qtable-mode": [deploy(f"{INT8} --quantize_table w", "asks for F64", w="y_Relu F64\n")],
    "qtable-line": [deploy(f"{INT8} --quantize_table w", "y_Relu BF16 x", w="y_Relu BF16 x\n")],
    "precision": [deploy("--quantize F32"), deploy("--quantize F16 --chip bm1684"),
                  deploy("--quantize W8F16"), deploy("--quantize QDQ")],
    "operator-not-on-chip": [deploy(BF16, "the chip has no Cos").on("cos")],
    "comparison-not-on-chip": [deploy(BF16).on("equal")],
    "raw-channels": [deploy(f"{BF16} --fuse_preprocess --customization_format RGGB_RAW")],
    "format-without-fuse": [deploy(f"{BF16} --customization_format RGB_PACKED")],
    "fuse-without-picture": [
        deploy(f"{BF16} --fuse_preprocess --test_input t.npz --test_reference o.npz"),
    ],
    "list-of-outputs": [deploy(f"{INT8} --quant_output --quant_output_list 9")],
    "model-suffix": [deploy(BF16, model="m.bmodel"), deploy(BF16, model="m")],
    "model-folder": [deploy(BF16, "written to no/m.cvimodel", model="no/m.cvimodel")],
    "weights-missing": [
        calibrate(m_top_f32_all_weight_npz=""),
        deploy(BF16, m_top_f32_all_weight_npz=zeros(1)),
    ],
    "mlir-damaged": [calibrate(m_mlir="module @m {\n"), calibrate(m_mlir=None)],
    "model-damaged": [
        Case("run", "model_runner.py --input t.npz --model w.cvimodel --output q.npz",
             {"w.cvimodel": "no model"}),
        Case("run", "model_tool --info w.cvimodel", {"w.cvimodel": "no model"}),
    ],
    "tflite-damaged": [transform(b"", SIZE, name="n.tflite")],
    "file-missing": [transform(None, says="no n.onnx"), calibrate("--dataset ds -o no/t")],
}  # fmt: skip


# ---------------------------------------------------------------------------------------------
# What they come to


class Provoked(NamedTuple):
    """A case that was run: its exit code, and its log."""

    case: Case
    code: int
    log: str


@pytest.fixture(scope="module")
def provoked(
    toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[Provoked]]:
    """All cases, run one after the other, by the name of what they provoke."""
    top = tmp_path_factory.mktemp("provoked")
    given = {"t.npz": zeros(*SHAPE), "p.jpg": picture(), "ds/1.jpg": picture()}
    # What the others start from: networks in tpu_mlir's form, two of which the chip can't compute.
    weights = {"w": np.ones((3, 3, 3, 3), np.float32)}
    conv = {"pads": [1] * 4, "kernel_shape": [3, 3]}
    deep = network(
        node("Conv", "x", "w", into="a", **conv), node("Sigmoid", "a", into="b"),
        node("Conv", "b", "w", **conv), constants=weights,
    )  # fmt: skip
    cosine = network(node("Cos", into="a"), node("Relu", "a"))
    equal = network(node("Equal", "x", "c", into="a"), node("Cast", "a", to=FLOAT), constants=TWO)
    first = {
        "m": transform(options=f"{PICTURE} p.jpg --scale 0.01,0.01,0.01"),
        "cos": transform(cosine, SIZE),
        "equal": transform(equal, SIZE),
        "deep": transform(deep, SIZE),
        "table": calibrate("--dataset ds -o table"),
    }
    made = ("m.mlir", "m_top_f32_all_weight.npz")
    from_first = {name: f"m/{name}" for name in (*made, "o.npz")} | {"table": "table/table"}
    jobs = []
    cases = [(name, case) for name, each in CASES.items() for case in each]
    for number, (name, case) in enumerate([*first.items(), *cases]):
        folder = top / (name if number < len(first) else f"{number}-{name}")
        # What isn't there yet will be when it is needed.
        links = from_first | {each: f"{case.network}/{each}" for each in made}
        files = given | ({} if case.stage == "transform" else links) | case.files
        for file, content in files.items():
            place(folder / file, content, top)
        jobs.append([str(folder), shlex.split(case.command), case.limits, case.bare])
    (top / "jobs.json").write_text(json.dumps(jobs))
    tools = {"TPUMAKE_TOOLS": str(ROOT / "scripts/toolchain_bin"), "TPUMAKE_PYTHON": sys.executable,
             "TPUMAKE_SCRIPTS": str(ROOT / "scripts")}  # fmt: skip
    command = [toolchain.program, "python3", ROOT / "tests/provoke.py", top / "jobs.json"]
    done = subprocess.run(
        command, env=os.environ | tools, capture_output=True, text=True, check=False
    )
    codes = [int(line) for line in done.stdout.split()]
    assert len(codes) == len(jobs), done.stderr
    logs = [Path(folder, "log").read_text(errors="replace") for folder, *_ in jobs]
    for code, log in zip(codes[: len(first)], logs, strict=False):
        assert code == 0, log
    found: dict[str, list[Provoked]] = {}
    for (name, case), code, log in zip(cases, codes[len(first) :], logs[len(first) :], strict=True):
        found.setdefault(name, []).append(Provoked(case, code, log))
    return found


def picture() -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def place(path: Path, content: bytes | str | None, top: Path) -> None:
    """A file with this content; a string with a slash is a link to what another case made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str) and "/" in content:
        # But for the case that makes it.
        if top / content != path:
            path.symlink_to(top / content)
    elif content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.mark.parametrize("name", NAMES)
def test_the_tool_says_it_and_it_is_explained(
    name: str, provoked: dict[str, list[Provoked]]
) -> None:
    entry = next(each for each in failures.known_failures() if each["name"] == name)
    for case, code, log in provoked[name]:
        assert code, log
        failure = failures.explain(case.stage, log, code, [])
        said = "\n".join(log.splitlines()[-12:])
        assert failure.known, said
        # What is fixed in the cause's text, before and between its groups, names the entry.
        fixed = re.split(r"\{\d\}", entry["cause"])
        assert all(part in failure.cause for part in fixed), (failure.cause, said)
        assert case.says in failure.cause
        assert "\n" not in failure.cause + failure.remedy
        assert failure.remedy


# ---------------------------------------------------------------------------------------------
# Through the runner


def stage(folder: Path, command: list[str | Path], **options: str) -> list[str]:
    """Run a stage that fails; gives what is said of it, without the first columns."""
    runner = [sys.executable, ROOT / "scripts/run_stage.py", "--model", "m", "--build", "build"]
    chosen = [word for name, value in options.items() for word in (f"--{name}", value)]
    done = subprocess.run(
        [*runner, "--out", "o", *chosen, "--", *command], cwd=folder, capture_output=True,
        text=True, check=False, env=os.environ | {"CACHE": "0"},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert not (folder / "o").exists()
    return [line[22:] for line in done.stderr.splitlines()]


def test_a_known_failure_is_told_with_its_remedy(toolchain: Toolchain, tmp_path: Path) -> None:
    command = [toolchain.program, "run_calibration.py", "m.mlir", "--input_num", "2", "-o", "o"]
    (tmp_path / "m.mlir").touch()
    said = stage(
        tmp_path, [*command, "--dataset", "nosuch"], **{"in": "m.mlir"}, stage="calibrate",
        log="logs/calibrate.log",
    )  # fmt: skip
    assert said == [
        "there is nothing to calibrate with",
        "put pictures, .npz or .npy where DATASET points",
        "log: logs/calibrate.log",
    ]


def test_an_unknown_failure_asks_for_a_report(toolchain: Toolchain, tmp_path: Path) -> None:
    grid = {"g": np.zeros((1, 8, 8, 2), np.float32)}
    (tmp_path / "n.onnx").write_bytes(network(node("GridSample", "x", "g"), constants=grid))
    command = shlex.split(
        f"model_transform.py --model_name m --mlir o.mlir --model_def n.onnx {SIZE}"
    )
    said = stage(
        tmp_path, [toolchain.program, *command], **{"in": "n.onnx"}, stage="transform",
        log="build/m/logs/transform.log",
    )  # fmt: skip
    assert said[0].startswith('AssertionError: assert ("Unsupported interpolation mode')
    assert said[2:] == [
        "log: build/m/logs/transform.log",
        "make bugreport packs what a maintainer would ask for",
    ]
    note = json.loads((tmp_path / "build/m/logs/transform.failed").read_text())
    assert note["cause"] == said[0]
    assert note["inputs"] == {"n.onnx": "n.onnx"}
