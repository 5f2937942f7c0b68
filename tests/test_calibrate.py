"""Calibration: the table that tpu_mlir's own tool makes, byte for byte, in less time and memory."""

from __future__ import annotations

import faulthandler
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import calibrate_kept
import calibrate_searches
import calibrate_sums
import heads
import numpy as np
import onnx
import pytest
from calibrate_processes import Died, Processes, Task, Told
from conftest import ROOT, Checkout, Toolchain
from conftest import helper as helper_program
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tpumake import stages
from tpumake.failures import explain
from tpumake.job import Job

PROGRAM = ROOT / "scripts/toolchain/calibrate.py"
toolchain_needed = pytest.mark.toolchain


# ---------------------------------------------------------------------------------------------
# Merging


def in_the_tools_way(minima: np.ndarray, maxima: np.ndarray) -> tuple[list, list]:
    """Minima and maxima of the tensors, [samples, tensors], merged one by one."""
    least, most = [], []
    for lows, highs in zip(minima.T, maxima.T, strict=True):
        low, high = np.inf, -np.inf
        for one, other in zip(lows, highs, strict=True):
            low, high = min(one, low), max(other, high)
        least.append(low)
        most.append(high)
    return least, most


def test_ranges_are_merged_as_in_one_go() -> None:
    draw = np.random.default_rng(1)
    # Few values, so that many tie; of zeros the sign is shown.
    values = np.array([-1, -0.5, -0.0, 0.0, 0.5, np.nan], np.float32)
    minima, maxima = draw.choice(values, (2, 7, 500))
    least, most = in_the_tools_way(minima, maxima)
    for ours, theirs in ((calibrate_sums.merged_minima(minima), least),
                         (calibrate_sums.merged_maxima(maxima), most)):  # fmt: skip
        assert ours.tobytes() == np.array(theirs, np.float32).tobytes()


@pytest.mark.parametrize(
    ("least", "most", "wanted"),
    [
        (-2.0, 1.0, (-2.0, 1.0, 2.0)),
        (0.0, 0.0, (0, 1e-5, 1e-5)),
        (-1e-6, 1e-6, (-1e-5, 1e-5, 1e-5)),
        (-0.0, 0.5, (-0.0, 0.5, 0.5)),
    ],
)
def test_no_range_is_empty(least: float, most: float, wanted: tuple) -> None:
    low, high = np.array([least], np.float32), np.array([most], np.float32)
    (size,) = calibrate_sums.largest(low, high)
    assert calibrate_sums.range_of(low[0], high[0], size) == pytest.approx(wanted)


def test_a_threshold_ends_at_the_largest_value() -> None:
    assert [calibrate_sums.capped(each, 1.0) for each in (0.5, 1.0, 1.5)] == [0.5, 1.0, 1.0]


# ---------------------------------------------------------------------------------------------
# Searches

OPS = [
    ("in", "top.Input", ()),
    ("a", "top.Conv", ("in",)),
    ("b", "top.Conv", ("in",)),
    ("c", "top.Add", ("a", "b")),
    ("d", "top.Mul", ("c", "c")),
    ("e", "top.Add", ("d", "small")),
]
ENDS = {"in": 2.0, "a": 2.0, "b": 1.0, "c": 3.0, "d": 2.0, "small": 1.005}


def test_every_tensor_has_a_search_where_it_is_read_first() -> None:
    made = calibrate_searches.searches(OPS, dict.fromkeys(ENDS, 1.0), ENDS)
    # The second reader of `in` has one, too; b can't grow, nor can `small` by as much as counts.
    assert [(each.op, each.tensor) for each in made] == [
        (1, "in"), (2, "in"), (3, "a"), (4, "c"), (5, "d"),
    ]  # fmt: skip
    assert made[3].thresholds == pytest.approx(np.linspace(1, 3, 21))


@pytest.mark.parametrize(
    ("distances", "wanted"),
    [
        ([[3], [2], [1], [1]], 2),
        ([[1], [1], [2]], 0),
        ([[np.nan], [0]], 0),
        ([[2], [np.nan], [1]], 2),
        ([[1, 5], [2, 3], [4, 1.5]], 1),
    ],
)
def test_the_nearest_threshold_is_best_and_the_first_of_equals(
    distances: list, wanted: int
) -> None:
    assert calibrate_searches.best(np.array(distances, np.float32)) == wanted


def test_of_several_searches_the_largest_threshold_counts() -> None:
    made = [calibrate_searches.Search(1, "x", (1.0, 2.0, 3.0)),
            calibrate_searches.Search(2, "x", (1.0, 2.0, 3.0))]  # fmt: skip
    found = [np.array([[3], [2], [1]], np.float32), np.array([[3], [1], [2]], np.float32)]
    for order in (1, -1):
        assert calibrate_searches.tuned({"x": 1.0}, made[::order], found[::order]) == {"x": 3.0}
    assert calibrate_searches.tuned({"x": 5.0}, made, found) == {"x": 5.0}


# ---------------------------------------------------------------------------------------------
# Processes


class Work:
    """What tasks of the tests do."""

    def __init__(self) -> None:
        self.did = 0

    def double(self, number: int) -> int:
        self.did += 1
        return 2 * number

    def whoami(self) -> int:
        time.sleep(0.05)
        return os.getpid()

    def tell(self) -> None:
        raise Told("so it is")

    def end(self, number: int) -> None:
        # It is meant to: pytest needn't tell where it was.
        faulthandler.disable()
        os.kill(os.getpid(), number)

    def hunger(self) -> None:
        raise MemoryError

    def wait(self) -> None:
        time.sleep(60)


def results(count: int, *tasks: Task) -> list:
    with Processes(count, Work) as processes:
        return sorted(processes.run(tasks))


def test_each_result_comes_with_its_tag() -> None:
    tasks = [Task("double", (number,), -number) for number in range(20)]
    assert results(3, *tasks) == sorted((-number, 2 * number) for number in range(20))
    assert results(1) == []


def test_all_processes_work() -> None:
    with Processes(3, Work) as processes:
        found = [pid for _, pid in processes.run([Task("whoami", ())] * 9)]
    assert len(set(found)) == 3
    for pid in found:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("other", [(), (Task("wait", ()),)])
def test_what_a_process_tells_comes_here(other: tuple) -> None:
    with pytest.raises(Told, match="so it is"):
        results(2, *other, Task("tell", ()))
    with pytest.raises(Told, match="not memory enough"):
        results(2, *other, Task("hunger", ()))


@pytest.mark.parametrize("other", [(), (Task("wait", ()),)])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_process_that_dies_ends_it_all(other: tuple, number: int) -> None:
    with pytest.raises(Died) as died:
        results(2, *other, Task("end", (number,)))
    assert died.value.code == -number


def test_what_cannot_be_made_is_told() -> None:
    def fail() -> None:
        raise Told("no")

    with Processes(2, fail) as processes, pytest.raises(Told, match="no"):
        list(processes.run([Task("double", (1,))]))


# ---------------------------------------------------------------------------------------------
# What is kept


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate_kept, "EVERY", 0.0)


@pytest.mark.usefixtures("often")
def test_what_is_kept_is_of_one_calibration(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    first = calibrate_kept.Kept(folder, lambda: "a" * 64)
    assert first.load() == {}
    first.save({"x": np.arange(3)})
    again = calibrate_kept.Kept(folder, lambda: "a" * 64).load()
    assert again.keys() == {"x"}
    assert again["x"].tolist() == [0, 1, 2]
    other = calibrate_kept.Kept(folder, lambda: "b" * 64)
    assert other.load() == {}
    other.save({"y": np.arange(1)})
    assert calibrate_kept.Kept(folder, lambda: "a" * 64).load() == {}
    other.drop()
    assert not folder.exists()


@pytest.mark.usefixtures("often")
def test_damage_is_nothing(tmp_path: Path) -> None:
    kept = calibrate_kept.Kept(tmp_path / "kept", lambda: "a" * 64)
    kept.save({"x": np.arange(300)})
    (file,) = (tmp_path / "kept").iterdir()
    whole = file.read_bytes()
    for damage in (b"", whole[:100], whole[:-30], b"PK" + bytes(50)):
        file.write_bytes(damage)
        assert kept.load() == {}


def test_what_is_soon_done_is_not_kept(tmp_path: Path) -> None:
    kept = calibrate_kept.Kept(tmp_path / "kept", lambda: pytest.fail("digested"))
    kept.save({"x": np.arange(3)})
    assert kept.load() == {}
    assert not list(tmp_path.iterdir())
    calibrate_kept.Kept(None, lambda: pytest.fail("digested")).drop()


# ---------------------------------------------------------------------------------------------
# Networks whose tables are compared


class Weights:
    """Weights of a network, drawn one after the other."""

    def __init__(self) -> None:
        self.tensors: list[TensorProto] = []
        self._draw = np.random.default_rng(7)

    def of(self, *shape: int) -> str:
        values = self._draw.standard_normal(shape).astype(np.float32)
        return self.put(values * np.float32(1.5 / np.sqrt(max(1, np.prod(shape[1:])))))

    def put(self, values: np.ndarray) -> str:
        name = f"w{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(values, name))
        return name


def network(
    nodes: list[onnx.NodeProto], weights: Weights, outputs: list[str], **inputs: list[int]
) -> onnx.ModelProto:
    def value(name: str, shape: list[int] | None) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes, "g", [value(*each) for each in inputs.items()],
        [value(name, None) for name in outputs], weights.tensors,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def node(kind: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    """A node; an input of ``-`` is left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    if kind == "Conv":
        # As exports do, and tpu_mlir insists on.
        attributes = {"kernel_shape": [3, 3]} | attributes
    return helper.make_node(kind, names, [output], name=output, **attributes)


def pictured(batch: int = 1) -> onnx.ModelProto:
    """Of pictures: what saturates, chooses, moves, branches and adds up."""
    w = Weights()
    scales = w.put(np.array([1, 1, 2, 2], np.float32))
    low, high = w.put(np.array(0, np.float32)), w.put(np.array(6, np.float32))

    def cut(first: int, last: int) -> str:
        return " ".join(w.put(np.array([each], np.int64)) for each in (first, last, 1))

    nodes = [
        node("Conv", f"x {w.of(8, 3, 3, 3)} {w.of(8)}", "c1", pads=[1] * 4),
        node("Clip", f"c1 {low} {high}", "six"),
        node("Conv", f"six {w.of(8, 1, 3, 3)}", "c2", pads=[1] * 4, group=8),
        node("Sigmoid", "c2", "s2"),
        node("Mul", "c2 s2", "silu"),
        node("MaxPool", "silu", "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Slice", f"pool {cut(0, 4)}", "left"),
        node("Slice", f"pool {cut(4, 8)}", "right"),
        node("Conv", f"left {w.of(4, 4, 1, 1)} {w.of(4)}", "c3", kernel_shape=[1, 1]),
        node("LeakyRelu", "c3", "leak", alpha=0.1),
        node("Add", "leak right", "sum"),
        node("Concat", "left sum right", "all", axis=1),
        node("Resize", f"all - {scales}", "up", mode="nearest"),
        node("Concat", "up six", "both", axis=1),
        node("Conv", f"both {w.of(6, 20, 3, 3)}", "c4", strides=[2, 2]),
        node("Relu", "c4", "last"),
        node("GlobalAveragePool", "last", "mean"),
        node("Flatten", "mean", "flat"),
        node("Gemm", f"flat {w.of(6, 5)} {w.of(5)}", "scores"),
        node("Softmax", "scores", "shares", axis=-1),
    ]
    return network(nodes, w, ["last", "shares"], x=[batch, 3, 16, 24])


def of_tensors() -> onnx.ModelProto:
    """Of two tensors: attention, in which operations read what others read, or one thing twice."""
    w = Weights()
    nodes = [
        node("MatMul", f"a {w.of(12, 12)}", "q"),
        node("MatMul", f"b {w.of(12, 12)}", "k"),
        node("Transpose", "k", "kt", perm=[0, 2, 1]),
        node("MatMul", "q kt", "qk"),
        node("Mul", f"qk {w.put(np.array(0.3, np.float32))}", "scaled"),
        node("Softmax", "scaled", "soft", axis=-1),
        node("MatMul", "soft b", "seen"),
        node("Add", "seen a", "sum"),
        node("Mul", "sum sum", "square"),
        node("Sub", "square q", "less"),
        node("ReduceMean", "less", "mean", axes=[2], keepdims=1),
        node("Reshape", f"less {w.put(np.array([1, 4, 6, 6], np.int64))}", "shaped"),
        node("Conv", f"shaped {w.of(4, 4, 3, 3)} {w.of(4)}", "conv"),
        node("Tanh", "conv", "out"),
    ]
    return network(nodes, w, ["out", "mean"], a=[1, 12, 12], b=[1, 12, 12])


def several_results() -> onnx.ModelProto:
    w = Weights()
    count = w.put(np.array([3], np.int64))
    nodes = [
        node("Conv", f"x {w.of(4, 3, 3, 3)}", "c"),
        node("Flatten", "c", "flat"),
        helper.make_node("TopK", ["flat", count], ["best", "where"], name="top"),
        node("Relu", "best", "out"),
    ]
    return network(nodes, w, ["out"], x=[1, 3, 16, 24])


PICTURED = "--scale 0.01,0.02,0.03 --mean 100,110,120 --pixel_format rgb --keep_aspect_ratio"
NETWORKS = {
    "pictured": (pictured(), f"--input_shapes [[1,3,16,24]] {PICTURED}"),
    "batched": (pictured(2), f"--input_shapes [[2,3,16,24]] {PICTURED}"),
    "tensors": (of_tensors(), "--input_shapes [[1,12,12],[1,12,12]] --channel_format none"),
    "several": (several_results(), f"--input_shapes [[1,3,16,24]] {PICTURED}"),
}


def draw_samples(folder: Path) -> None:
    """Samples of all kinds, and lists of them."""
    draw = np.random.default_rng(3)
    for name in ("pictures", "flat", "npz", "npy"):
        (folder / name).mkdir()
    for number in range(7):
        pixels = draw.integers(0, 256, (20 + number, 30, 3), np.uint8)
        # Some are darker, so that the largest values come late.
        Image.fromarray(pixels // (4 - number // 2)).save(folder / f"pictures/{number}.png")
        tensors = [draw.standard_normal((1, 12, 12)).astype(np.float32) * (1 + number)
                   for _ in range(2)]  # fmt: skip
        np.savez(folder / f"npz/{number}.npz", a=tensors[0], b=tensors[1])
        np.save(folder / f"npy/{number}a.npy", tensors[0])
        np.save(folder / f"npy/{number}b.npy", tensors[1])
    # What ties, saturates and is nothing: means taken off, black is -mean, and 110 becomes 0.
    for number, colour in enumerate([(0, 0, 0), (255, 255, 255), (100, 110, 120), (100, 110, 120)]):
        Image.new("RGB", (24, 16), colour).save(folder / f"flat/{number}.png")
    for number in (7, 8, 9):
        np.savez(folder / f"npz/{number}.npz", a=np.zeros((1, 12, 12), np.float32),
                 b=np.full((1, 12, 12), 1e-7 if number == 7 else 3, np.float32))  # fmt: skip
    lines = {
        "pairs.txt": [f"npy/{number}a.npy,npy/{number}b.npy" for number in (3, 1, 4, 0)],
        "tune.txt": [f"npy/{number}a.npy, npy/{number}b.npy" for number in (5, 6)],
        "zeros.txt": ["npz/9.npz", "npz/7.npz"],
        "grey.txt": ["flat/2.png", "flat/3.png"],
    }
    for name, text in lines.items():
        (folder / name).write_text("\n".join(text) + "\n")


class Case(NamedTuple):
    """A calibration: of which network, with what, and in how many processes by ours."""

    network: str
    flags: str
    processes: tuple[int, ...] = (2,)


CASES = {
    "tuned": Case("pictured", "--dataset pictures", (1, 2, 3)),
    "untuned": Case("pictured", "--dataset pictures --input_num 5 --tune_num 0"),
    "saturated": Case("pictured", "--dataset flat --histogram_bin_num 300 --tune_num 9"),
    "grey": Case("pictured", "--data_list grey.txt --histogram_bin_num 4096"),
    "batches": Case("batched", "--dataset pictures --input_num 5 --tune_num 3"),
    "npz": Case("tensors", "--dataset npz --input_num 8 --tune_num 2", (2, 5)),
    "npy": Case("tensors", "--data_list pairs.txt --tune_list tune.txt --histogram_bin_num 512"),
    "zeros": Case("tensors", "--data_list zeros.txt --tune_num 1"),
    "several": Case("several", "--dataset pictures --input_num 3 --tune_num 0"),
    "debug": Case("pictured", "--dataset pictures --input_num 2 --debug_cmd use_max"),
}
LEFT = {"several": "several results", "debug": "it has --debug_cmd"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, toolchain: Toolchain) -> Path:
    """Networks and samples, and in ``tool`` the tables that run_calibration makes."""
    folder = tmp_path_factory.mktemp("calibrate")
    draw_samples(folder)
    (folder / "tool").mkdir()
    commands = []
    for name, (model, flags) in NETWORKS.items():
        onnx.save(model, folder / f"{name}.onnx")
        commands.append(f"model_transform.py --model_name {name} --model_def {name}.onnx "
                        f"--mlir {name}.mlir {flags}")  # fmt: skip
    for name, case in CASES.items():
        commands.append(f"run_calibration.py {case.network}.mlir {case.flags} -o tool/{name}")
    in_one_process(toolchain, folder, commands)
    return folder


def in_one_process(toolchain: Toolchain, folder: Path, commands: list[str]) -> None:
    done = subprocess.run(
        [toolchain.program, "python3", ROOT / "tests/in_toolchain.py"], cwd=folder, text=True,
        input=json.dumps([command.split() for command in commands]), capture_output=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def calibrate(
    toolchain: Toolchain, folder: Path, words: str, table: str = "ours"
) -> subprocess.CompletedProcess[str]:
    command = [toolchain.program, "python3", PROGRAM, *words.split(), "-o", table]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def untimed(table: Path) -> str:
    time_of_day, rest = table.read_text().split("\n", 1)
    assert time_of_day.startswith("# genetated time: ")
    return rest


@toolchain_needed
@pytest.mark.parametrize(
    ("name", "processes"), [(name, each) for name, case in CASES.items() for each in case.processes]
)
def test_the_table_is_that_of_the_tool(
    place: Path, toolchain: Toolchain, name: str, processes: int
) -> None:
    network, flags, _ = CASES[name]
    table = f"{name}-{processes}"
    done = calibrate(
        toolchain, place, f"{network}.mlir {flags} --processes {processes}", table=table
    )
    assert done.returncode == 0, done.stderr
    assert untimed(place / table) == untimed(place / "tool" / name)
    left = [line for line in done.stdout.splitlines() if line.startswith("run_calibration does it")]
    assert len(left) == (name in LEFT)
    assert LEFT.get(name, "") in "".join(left)


ARITHMETIC = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from calibrate import one_each
from calibrate_tuning import Tuner
from calibrate_worker import count_values
from calibration.kld_calibrator import BaseKldCalibrator, import_quant_bias

some = [2, 100, 127, 300, 2047, 2048, 2049, 4095, 4096]
assert all(map(one_each, some)) and not any(map(one_each, [0, 1, 65535, 65536]))
draw, theirs, ours = np.random.default_rng(5), BaseKldCalibrator(), object.__new__(Tuner)
ours._memory = [np.empty(0, np.float32)]
for number in range(60):
    bins = int(draw.choice(some))
    size = int(draw.choice([1, 7, 5000, 140000]))
    values = (draw.standard_normal((1, size)) * 10.0 ** draw.integers(-6, 7)).astype(np.float32)
    # Some are nothing, some are at the borders of bins.
    values[draw.random((1, size)) < 0.2] = draw.choice([0.0, -0.0])
    most = max(np.float32(1e-5), abs(values).max())
    at = draw.random((1, size)) < 0.3
    values[at] = (draw.integers(0, 2 * bins, at.sum()) / 2 * (most / (bins - 1))).clip(0, most)
    counts = np.zeros(bins, np.int64)
    count_values(counts, values, most)
    wanted, _ = theirs.histogram(values, most, bins)
    assert (counts == wanted).all(), (bins, size, most)
    threshold = np.float64(most) * draw.random() + 1e-5
    wanted = import_quant_bias(values, threshold)
    assert ours._as_rounded(values, threshold).tobytes() == wanted.tobytes(), (size, threshold)
"""


@toolchain_needed
def test_arithmetic_is_that_of_the_tool(tmp_path: Path, toolchain: Toolchain) -> None:
    (tmp_path / "test.py").write_text(ARITHMETIC)
    done = toolchain.run(["python3", "test.py", str(PROGRAM.parent)], tmp_path)
    assert done.returncode == 0, done.stderr


# Untrained networks of all families, with live weights: how they are calibrated.
SWEEP = {
    "yolov5": "--input_num 5 --tune_num 2 --histogram_bin_num 1024",
    "yolov6": "--input_num 7 --tune_num 0 --histogram_bin_num 512",
    "yolov8": "--input_num 9 --tune_num 7 --histogram_bin_num 300",
    "yolov8-cls": "--input_num 40 --tune_num 3",
    "yolov9": "--input_num 3 --tune_num 1 --histogram_bin_num 4096",
    "yolo11-pose": "--input_num 7 --tune_num 5",
    "yolo11-obb": "--input_num 25 --tune_num 0 --histogram_bin_num 128",
    "yolo12-seg": "--input_num 2 --tune_num 2 --histogram_bin_num 3000",
    "yolo26": "--input_num 6 --tune_num 1",
}


@pytest.mark.full
@toolchain_needed
@pytest.mark.parametrize("name", SWEEP)
def test_every_familys_table_is_that_of_the_tool(
    tmp_path: Path, toolchain: Toolchain, name: str
) -> None:
    onnx.save(heads.alive(heads.load(name)), tmp_path / "whole.onnx")
    shape = "[[1,3,64,64]]"
    cut = helper_program("onnx_downgrade", "whole.onnx", "m.onnx", "--input-shapes", shape,
                         cwd=tmp_path)  # fmt: skip
    assert cut.returncode == 0, cut.stderr
    (tmp_path / "pictures").symlink_to(ROOT / "datasets/shapes")
    in_one_process(toolchain, tmp_path, [
        f"model_transform.py --model_name m --model_def m.onnx --input_shapes {shape} "
        "--mlir m.mlir --scale 0.0039216,0.0039216,0.0039216 --pixel_format rgb",
        f"run_calibration.py m.mlir --dataset pictures {SWEEP[name]} -o tool",
    ])  # fmt: skip
    for processes in (1, 4):
        words = f"m.mlir --dataset pictures {SWEEP[name]} --processes {processes}"
        done = calibrate(toolchain, tmp_path, words)
        assert done.returncode == 0, done.stderr
        assert "run_calibration does it" not in done.stdout
        assert untimed(tmp_path / "ours") == untimed(tmp_path / "tool")


# ---------------------------------------------------------------------------------------------
# What goes wrong


class Running(NamedTuple):
    """A calibration that is at work; ``pids`` are those of its processes."""

    process: subprocess.Popen
    pids: list[int]

    def gone(self) -> bool:
        """Whether nothing of it is left."""
        return not any(Path(f"/proc/{pid}").exists() for pid in [self.process.pid, *self.pids])


def started(
    toolchain: Toolchain, folder: Path, words: str, until: str, program: Path = PROGRAM,
    count: int = 3000,
) -> Running:  # fmt: skip
    """Start a calibration of many pictures, and wait until it has said something."""
    names = [f"pictures/{number % 7}.png" for number in range(count)]
    (folder / "many.txt").write_text("\n".join(names) + "\n")
    command = [toolchain.program, "python3", program, "pictured.mlir",
               *f"--data_list many.txt --processes 2 -o ours {words}".split()]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    while until not in process.stdout.readline():
        assert process.poll() is None
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return Running(process, [int(pid) for pid in children.split()])


@pytest.fixture
def own(place: Path, tmp_path: Path) -> Path:
    """A folder with the networks and samples, in which a calibration writes."""
    for path in place.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


def left_in(folder: Path) -> set[str]:
    """What a calibration has written, but for the list."""
    return {path.name for path in folder.iterdir() if not path.is_symlink()} - {"many.txt"}


def killed_child(running: Running) -> None:
    os.kill(running.pids[0], signal.SIGKILL)


def killed(running: Running) -> None:
    running.process.kill()


def interrupted(running: Running) -> None:
    os.killpg(running.process.pid, signal.SIGINT)


@toolchain_needed
@pytest.mark.parametrize(
    ("strike", "code", "said"),
    [
        (killed_child, 137, "a process was ended by signal 9 (SIGKILL)\n"),
        (killed, -9, ""),
        (interrupted, 130, "calibrate: interrupted\n"),
    ],
)
def test_nothing_half_done_is_left(
    own: Path, toolchain: Toolchain, strike: Callable[[Running], None], code: int, said: str
) -> None:
    running = started(toolchain, own, "", "PROGRESS")
    strike(running)
    _, errors = running.process.communicate(timeout=30)
    assert running.process.returncode == code
    assert errors.endswith(said)
    assert "Traceback" not in errors
    limit = time.monotonic() + 10
    while not running.gone() and time.monotonic() < limit:
        time.sleep(0.02)
    assert running.gone()
    assert left_in(own) == set()


ENDS_WITH_ANSWERS_UNREAD = """
import os, signal, time
from calibrate_processes import Processes
class Work:
    def answer(self): return bytes(100)
processes = Processes(2, Work)
for pipe in processes._pipes: pipe.send(("answer", ()))
time.sleep(0.3)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_processes_whose_parent_is_killed_have_nothing_to_say() -> None:
    """It had not read their answers, so that the pipe is reset: five in six told of that."""
    command = [sys.executable, "-c", ENDS_WITH_ANSWERS_UNREAD]
    for _ in range(5):
        done = subprocess.run(
            command, env={"PYTHONPATH": str(PROGRAM.parent)}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")


@toolchain_needed
def test_what_cannot_be_read_is_named(own: Path, toolchain: Toolchain) -> None:
    (own / "bad.png").write_bytes(b"no picture")
    np.savez(own / "small.npz", a=np.zeros((1, 2, 2), np.float32), b=np.zeros((1, 2), np.float32))
    for network, sample, words in (
        ("pictured", "bad.png", "calibrate: bad.png can't be read: AttributeError"),
        ("pictured", "no.png", "calibrate: no.png can't be read: no.png doesn't existed"),
        ("tensors", "small.npz", "data need size"),
    ):
        (own / "list.txt").write_text(f"{sample}\n")
        done = calibrate(toolchain, own, f"{network}.mlir --data_list list.txt")
        assert done.returncode not in (0, 2)
        assert words in done.stdout + done.stderr
        assert not (own / "ours").exists()


@toolchain_needed
def test_one_that_was_ended_goes_on(own: Path, toolchain: Toolchain) -> None:
    # As it is, but that it keeps what it knows all the time.
    often = own / "often.py"
    often.write_text(
        f"import sys\nsys.path.insert(0, {str(PROGRAM.parent)!r})\nimport calibrate_kept\n"
        "calibrate_kept.EVERY = 0\nimport calibrate\nsys.exit(calibrate.main())\n"
    )
    for until in ("ranges", "histograms"):
        running = started(toolchain, own, "--keep kept --tune_num 2", until, often, 300)
        killed_child(running)
        running.process.communicate()
    again = "pictured.mlir --data_list many.txt --tune_num 2 --processes 3"
    done = calibrate(toolchain, own, f"{again} --keep kept")
    assert done.returncode == 0, done.stderr
    # The first pass was over, and some of the second.
    assert "ranges" not in done.stdout
    assert "PROGRESS 300 300 histograms" in done.stdout
    assert "PROGRESS 8 300 histograms" not in done.stdout
    fresh = calibrate(toolchain, own, again, "fresh")
    assert "PROGRESS 8 300 ranges" in fresh.stdout
    assert untimed(own / "ours") == untimed(own / "fresh")
    assert not (own / "kept").exists()


# ---------------------------------------------------------------------------------------------
# The stage


def job(folder: Path, *command: str) -> Job:
    network = folder / "m.mlir"
    network.write_text("-> tensor<1x1000x1000xf32>\n" * 100)
    log = Path("build/m/logs/calibrate.log")
    return Job("calibrate", "m", {"m.mlir": network}, [], list(command), Path("build"), log)


OURS = ("run", "python3", "calibrate.py", "m.mlir", "--input_num")


def test_memory_does_not_grow_with_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4))
    for memory, processes in (("100G", 4), ("1300M", 2), ("1M", 1)):
        monkeypatch.setenv("MEMORY", memory)
        needs = {stages.STAGES["calibrate"].memory(job(tmp_path, *OURS, number))
                 for number in ("10", "1000")}  # fmt: skip
        assert needs == {processes * 6 * 10**8}
        command = [*OURS, "10"]
        assert stages.STAGES["calibrate"].before(tmp_path, command) == []
        assert command[-2:] == ["--processes", str(processes)]
    theirs = job(tmp_path, "run", "run_calibration.py", "m.mlir", "--input_num", "90")
    left = job(tmp_path, *OURS, "90", "--debug_cmd", "use_max")
    for each in (theirs, left):
        assert stages.STAGES["calibrate"].memory(each) == 2 * 10**8 + 4 * 10**9


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("PROGRESS 8 100 ranges", ("samples, ranges", 8, 100)),
        ("PROGRESS 9 300 tuned", ("searches, tuned", 9, 300)),
        ("tune op: x:   7%|7 | 11/152 [00:01]", ("tensors, tuned", 11, 152)),
        ("16 samples, 152 tensors, 4.1 s", None),
    ],
)
def test_progress_is_that_of_either(line: str, wanted: tuple | None) -> None:
    assert stages.STAGES["calibrate"].progress(line) == wanted


def test_the_cause_of_ours_is_told(tmp_path: Path) -> None:
    told = "calibrate: dataset/Calibration3.jpg can't be read: OSError: x"
    said = explain("calibrate", f"$ command\nPROGRESS 1 2 ranges\n{told}\n", 1, [])
    assert said.cause == told.partition(": ")[2]
    assert said.known
    said = explain("calibrate", "$ command\na process was ended by signal 9 (SIGKILL)", 137, [])
    assert "because memory ran out" in said.cause


@pytest.mark.parametrize(
    ("words", "program"),
    [
        ([], "calibrate.py"),
        (["CALIBRATOR=tpu_mlir"], "run_calibration.py"),
        (["tiny_CALIBRATOR=tpu_mlir"], "run_calibration.py"),
        (["CALIBRATOR=tpu_mlir", "tiny_CALIBRATOR=tpumake"], "calibrate.py"),
        (["TPU_MLIR_VERSION=1.30.2"], "run_calibration.py"),
    ],
)
def test_who_calibrates(checkout: Checkout, words: list[str], program: str) -> None:
    said = checkout.make("-n", "tiny_int8", *words).stdout.replace("\\\n", " ")
    (line,) = (line for line in said.splitlines() if " --stage calibrate " in line)
    assert re.search(rf"run'?( python3)? +{re.escape(program)} tiny.mlir ", line)
    assert ("--processes" in line) is False


@pytest.mark.slow
@pytest.mark.parametrize("value", ["tpu-mlir", "", "tpumake tpu_mlir", "%"])
def test_an_unknown_calibrator_is_told_with_those_that_there_are(
    checkout: Checkout, value: str
) -> None:
    done = checkout.make("tiny_int8", f"CALIBRATOR={value}", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert f"CALIBRATOR={value} is not known; known are: tpumake tpu_mlir" in line
    done = checkout.make("build/tiny/logs/stanza.key", "tiny_CALIBRATOR=x", check=False)
    assert "tiny_CALIBRATOR = x: must be" in done.stderr
