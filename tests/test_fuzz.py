"""Files that are damaged or mean harm, through every helper: one line, no harm, in bounded time.

TPUMAKE_FUZZ=3000 runs so many variants for each helper (pytest -m full), TPUMAKE_FUZZ_SEED others.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import shutil
import struct
import zipfile
import zlib
from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import sandbox
from bmodels import bmodel
from conftest import ROOT, Checkout
from cvimodels import cvimodel
from mutants import mutated, npz, raw_npy
from picture_zoo import zoo
from sandbox import Outcome, run

from tpumake import bounded_run

# What is no file, in place of its bytes.
PIPE, LINK, DEVICE = b"a pipe", b"a link to the secret", b"a link to a device"
# What takes a while to make.
BOMB = b"an archive that unpacks to much"
SECRET = b"what lies outside of the model's folder, 0123456789abcdef"
SEED = int(os.environ.get("TPUMAKE_FUZZ_SEED", "0"))
MANY = int(os.environ.get("TPUMAKE_FUZZ", "2000"))
MLIR = (
    '  %1 = "top.Input"(%arg0) {channel_format = "nchw", do_preprocess = true, '
    'keep_aspect_ratio = true, keep_ratio_mode = "letterbox", mean = [0.0, 1.0, 2.0], '
    'pad_type = "center", pad_value = 0 : i64, pixel_format = "rgb", resize_dims = [64, 64], '
    "scale = [5.0e-01, 5.0e-01, 2.5e-01]} : (tensor<1x3x64x64xf32>) -> tensor<1x3x64x64xf32>\n"
)
CALIB = "# genetated time: 1980-01-01 00:00:00\n###\n# op_name threshold min max\n" + "".join(
    f"{name} 2.0 -1.0 2.0\n" for name in ("images", "/a/Conv", "/head/Mul", "output0")
)
QTABLE = "###\n# op_name quantize_mode\n/head/Mul BF16\noutput0 F16\n"
RECORD = {
    "key": {"stage": "downgrade", "parameters": ["a", "--verify"], "inputs": {"source": "a" * 64},
            "code": {"scripts/x.py": "b" * 64}, "format": 1},
    "outputs": {"m_v8.onnx": "c" * 64, "set": {"a": "d" * 64}}, "figure": "opset 19 → 17",
    "by_products": {}, "peak": 5,
}  # fmt: skip
STANZA = {"model": "m", "ONNX": "models/m.onnx", "INPUT_SHAPES": "[[1,3,64,64]]",
          "SCALE": "0.1,0.1,0.1", "PIXEL_FORMAT": "rgb", "VARIANTS": "int8 bf16",
          "EXCEPTS": "a,b", "OUTPUTS": "auto"}  # fmt: skip
PLAN = {"chip": "cv181x", "version": "1.7", "device": "recamera", "kind": "ONNX",
        "source": "net.onnx", "labels": "labels.txt", "test_inputs": "in.jpg", "validating": "1",
        "dataset": "set", "counts": {".jpg": "100"}, "refused": {"int8": "", "f32": "none"},
        "values": STANZA | {"MEAN": "0,0,0", "CHANNEL_FORMAT": "nchw", "FUSE_PREPROCESS": "1",
                            "QUANT_OUTPUT": "0", "INPUT_NUM": "100", "DATA_LIST": "", "URL": "",
                            "SILENCE": ""}}  # fmt: skip
DOCUMENT = STANZA | {"ONNX": "net.onnx", "DATASET": "set", "plan": PLAN}
PICTURES = {"moving.gif", "plain.jpg", "turned.png", "palette.bmp", "lossy.webp", "lzw.tif",
            "grey16.png", "plain.ppm", "progressive.jpg", "palette.png"}  # fmt: skip


COCO = {"images": [{"id": 1, "file_name": "plain.jpg"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4]}],
        "categories": [{"id": 2, "name": "disc"}]}  # fmt: skip
EVAL_SET = json.dumps({
    "source": "set", "layout": "yolo", "seed": 0, "of": 1, "plain": 0, "known": 0, "classes": [],
    "pictures": [{"name": "a.jpg", "sha256": "", "width": 64, "height": 64, "number": None,
                  "objects": [[0, [0, 0, 9, 9], False]]}],
})  # fmt: skip


class Target(NamedTuple):
    """A helper, what it is told, and the files that it reads; ``victims`` are those to damage."""

    script: str
    arguments: tuple[str, ...]
    files: dict[str, bytes]
    victims: tuple[str, ...]
    allowed: tuple[str, ...] = ("out",)


def archive(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def evaluated() -> bytes:
    """What was found in a picture: two boxes."""
    return archive(
        kind=np.array([0, 2]), counts=np.array([2]), seconds=np.array([0.5]),
        boxes=np.array([[0, 0, 9, 9], [9, 9, 20, 20]], np.float32),
        scores=np.array([0.9, 0.3], np.float32), classes=np.array([0, 1]),
    )  # fmt: skip


def cut_short() -> bytes:
    """The network below, with half the numbers of a weight."""
    model = onnx.load_from_string(network())
    weight = model.graph.initializer[0]
    weight.raw_data = weight.raw_data[: len(weight.raw_data) // 2]
    return model.SerializeToString()


def network() -> bytes:
    """A detector of 2 classes for pictures of 64×64, as small as can be."""
    make = onnx.helper
    weight = np.random.default_rng(1).random((4, 3, 3, 3), np.float32)
    tensors = [
        onnx.numpy_helper.from_array(weight, "w"),
        onnx.numpy_helper.from_array(np.array([1, 6, 84], np.int64), "shape"),
        onnx.numpy_helper.from_array(np.full(6 * 84, 0.5, np.float32), "places"),
    ]
    nodes = [
        make.make_node("Conv", ["images", "w"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        make.make_node("ReduceMean", ["c"], ["mean"], keepdims=0),
        make.make_node("Relu", ["mean"], ["r"]),
        make.make_node("Mul", ["places", "r"], ["m"]),
        make.make_node("Reshape", ["m", "shape"], ["output0"]),
    ]
    value = make.make_tensor_value_info
    graph = make.make_graph(
        nodes, "g", [value("images", 1, [1, 3, 64, 64])], [value("output0", 1, [1, 6, 84])], tensors
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    entry = model.metadata_props.add()
    entry.key, entry.value = "names", "{0: 'disc', 1: 'box'}"
    return model.SerializeToString()


@cache
def targets() -> dict[str, Target]:
    data, models = ROOT / "tests/data", ROOT / "models"
    net, mlir = network(), MLIR.encode()
    pictures = {name: kind.data for name, kind in zoo().items() if name in PICTURES}
    # Two things are found, no more: drawing takes longest.
    found = np.zeros((1, 6, 84), np.float32)
    found[0, :, :2] = [[20, 40], [20, 40], [10, 30], [10, 20], [0.9, 0], [0, 0.8]]
    arrays = archive(output0=found)
    several = archive(a=np.arange(6.0, dtype=np.float32), b=np.ones((2, 3), np.int8))
    picture = pictures["plain.jpg"]
    two = {f"{n}.npz": archive(a=np.full((1, 3), n, np.float32)) for n in range(3)}
    dataset = {f"set/{name}": data for name, data in pictures.items()}
    text = "".join(f"set/{name}\n" for name in pictures).encode()
    shape = ("--input-shapes", "[[1,3,64,64]]")
    return {
        "downgrade": Target("onnx_downgrade", ("net.onnx", "out", "--outputs", "auto", "--verify"),
                            {"net.onnx": net}, ("net.onnx",), ("out", "out.data")),
        "downgrade_18": Target("onnx_downgrade", ("net.onnx", "out", "--verify"),
                               {"net.onnx": (data / "torch_cnn_18.onnx").read_bytes()},
                               ("net.onnx",), ("out", "out.data")),
        "downgrade_23": Target("onnx_downgrade", ("net.onnx", "out"),
                               {"net.onnx": (data / "torch_vit_23.onnx").read_bytes()},
                               ("net.onnx",), ("out", "out.data")),
        "pictures": Target("normalize_dataset", ("set", "out", "--min", "1"),
                           dataset, tuple(dataset)),
        "list": Target("normalize_dataset", ("list.txt", "out", "--min", "1", "--in-order"),
                       dataset | {"list.txt": text}, ("list.txt",)),
        "samples": Target("normalize_dataset", ("set", "out", "--min", "1", "--input-shapes",
                          "[[1,3]]"), {f"set/{k}": v for k, v in two.items()}, ("set/0.npz",)),
        "arrays": Target("normalize_dataset", ("set", "out", "--min", "1"),
                         {"set/0.npy": _npy(), "set/1.npy": _npy(1)}, ("set/0.npy",)),
        "compare": Target("npz_compare", ("a.npz", "b.npz", "--report", "out"),
                          {"a.npz": several, "b.npz": several}, ("a.npz", "b.npz")),
        "cvimodel": Target("model_info", ("x.cvimodel",), {"x.cvimodel": cvimodel()},
                           ("x.cvimodel",)),
        "bmodel": Target("model_info", ("x.bmodel", "--json"), {"x.bmodel": bmodel()},
                         ("x.bmodel",)),
        "tflite": Target("check_tflite", ("x.tflite", *shape),
                         {"x.tflite": (models / "mobile_int8.tflite").read_bytes()}, ("x.tflite",)),
        "prototxt": Target("check_caffe", ("x.prototxt", "x.caffemodel", *shape),
                           {"x.prototxt": (models / "mobile.prototxt").read_bytes(),
                            "x.caffemodel": (models / "mobile.caffemodel").read_bytes()},
                           ("x.prototxt", "x.caffemodel")),
        "stanza": Target("preflight", ("stanza.json", "--variant", "int8", "--sample",
                         "set/a.jpg"),
                         {"stanza.json": json.dumps(DOCUMENT, indent=0).encode(), "net.onnx": net,
                          "in.jpg": picture, "set/a.jpg": picture, "labels.txt": b"disc\nbox\n"},
                         ("stanza.json", "net.onnx", "in.jpg", "set/a.jpg", "labels.txt")),
        "tables": Target("merge_qtable", ("calib.txt", "out", "--table", "q.txt", "--float",
                         "output*"), {"calib.txt": CALIB.encode(), "q.txt": QTABLE.encode()},
                         ("calib.txt", "q.txt")),
        "letterbox": Target("letterbox_picture", ("in.jpg", "out", "--network", "net.mlir"),
                            {"in.jpg": picture, "net.mlir": mlir}, ("in.jpg", "net.mlir")),
        "run_onnx": Target("run_onnx", ("net.onnx", "in.png", "out", "--input", "net.mlir"),
                           {"net.onnx": net, "in.png": _png(), "net.mlir": mlir},
                           ("net.onnx", "net.onnx", "in.png", "net.mlir")),
        "detect": Target("detect", ("in.jpg", "out", "--network", "net.mlir", "--run", "ONNX",
                         "raw.npz", "--names-from", "net.onnx"),
                         {"in.jpg": picture, "net.mlir": mlir, "raw.npz": arrays, "net.onnx": net},
                         ("raw.npz", "raw.npz", "net.onnx", "in.jpg", "net.mlir")),
        "labels": Target("detect", ("in.jpg", "out", "--network", "net.mlir", "--run", "ONNX",
                         "raw.npz", "--labels", "labels.txt"),
                         {"in.jpg": picture, "net.mlir": mlir, "raw.npz": arrays,
                          "labels.txt": b"disc\nbox\n"}, ("labels.txt",)),
        "yolo": Target("prepare_evaluation", ("set", "out"),
                       {"set/a.jpg": picture, "set/a.txt": b"0 0.5 0.5 0.2 0.2\n"},
                       ("set/a.txt",)),
        "coco": Target("prepare_evaluation", ("set", "out"),
                       {"set/plain.jpg": picture, "set/a.json": json.dumps(COCO).encode()},
                       ("set/a.json",)),
        "found": Target("evaluate", ("x_int8", "set.json", "--chip", "cv181x", "--run", "onnx", "-",
                        "a.npz", "--run", "model", "int8", "a.npz", "--write", "int8", "x", "out"),
                        {"set.json": EVAL_SET.encode(), "a.npz": evaluated()}, ("a.npz",)),
        "records": Target("show_key", ("a.key.json",),
                          {"a.key.json": json.dumps({"digest": "x"} | RECORD, indent=1).encode()},
                          ("a.key.json",)),
    }  # fmt: skip


def _npy(value: int = 0) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.full((2, 3), value, np.float32))
    return buffer.getvalue()


def _png() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (90, 120, 150)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session", autouse=True)
def loaded() -> None:
    """What helpers import, so that it is there when their processes are forked."""
    for name in ("onnxruntime", "jsonschema", "PIL.Image", "onnx.checker", "onnx.shape_inference",
                 "tpumake.datasets", "tpumake.downgrade.verify", "tpumake.npz_compare",
                 "tpumake.caffe", "tpumake.model_info", "tpumake.drawing", "tpumake.runner",
                 "tpumake.cache", "tpumake.execution", "tpumake.bounded_run",
                 "tpumake.preflight.checks"):  # fmt: skip
        importlib.import_module(name)


def place(folder: Path, files: dict[str, bytes]) -> Path:
    """Files in a folder of their own, beside which there is a secret."""
    shutil.rmtree(folder, ignore_errors=True)
    work = folder / "work"
    work.mkdir(parents=True)
    (folder / "secret").write_bytes(SECRET)
    for name, data in files.items():
        (work / name).parent.mkdir(exist_ok=True)
        if data is PIPE:
            os.mkfifo(work / name)
        elif data in (LINK, DEVICE):
            (work / name).symlink_to("../secret" if data is LINK else "/dev/zero")
        else:
            (work / name).write_bytes(zip_bomb() if data is BOMB else data)
    return work


def tried(folder: Path, target: Target, files: dict[str, bytes]) -> tuple[Outcome, list[str]]:
    """Run a helper on files, and tell what is wrong with what it did."""
    work = place(folder, files)
    outcome = run(target.script, list(target.arguments), work, target.allowed)
    faults = outcome.faults()
    here = {path.relative_to(work).as_posix() for path in work.rglob("*") if not path.is_dir()}
    strange = {
        name for name in here - files.keys() if not name.startswith(target.allowed)
    }  # fmt: skip
    if strange or {path.name for path in folder.iterdir()} != {"work", "work.said", "secret"}:
        faults.append(f"left something behind: {sorted(strange)}")
    faults += [f"changed {name}" for name, data in files.items()
               if name not in here or (data not in (PIPE, LINK, DEVICE, BOMB)
                                       and (work / name).read_bytes() != data)]  # fmt: skip
    made = [work / name for name in here - files.keys()]
    if outcome.code == 2 and made:
        faults.append("refused its input and wrote something")
    if SECRET in (outcome.out + outcome.err).encode() or any(
        SECRET[:20] in path.read_bytes() for path in made
    ):
        faults.append("told the secret")
    return outcome, faults


def sweep(folder: Path, name: str, seeds: range) -> None:
    target, failures = targets()[name], []
    for seed in seeds:
        random = Random(f"{name} {seed}")
        victim = random.choice(target.victims)
        suffix = Path(victim).suffix
        files = target.files | {victim: mutated(target.files[victim], suffix, random)}
        outcome, faults = tried(folder, target, files)
        if faults:
            failures.append(f"{name} {seed} ({victim}): {'; '.join(faults)}: "
                            f"{outcome.err[-300:] or outcome.out[-300:]!r}")  # fmt: skip
    assert not failures, "\n".join(failures)


@pytest.mark.slow
@pytest.mark.parametrize("name", targets())
def test_good_files_are_taken(name: str, tmp_path: Path) -> None:
    target = targets()[name]
    outcome, faults = tried(tmp_path / "x", target, target.files)
    assert (outcome.code, outcome.err, faults) == (0, "", []), outcome


@pytest.mark.slow
@pytest.mark.parametrize("name", targets())
def test_damaged_files(name: str, tmp_path: Path) -> None:
    # Drawing takes longest, and is the last thing that is done.
    count = 8 if targets()[name].script == "detect" else 17
    sweep(tmp_path / "x", name, range(SEED, SEED + count))


@pytest.mark.full
@pytest.mark.parametrize("name", targets())
def test_many_damaged_files(name: str, tmp_path: Path) -> None:
    sweep(tmp_path / "x", name, range(SEED, SEED + MANY))


@pytest.mark.parametrize(
    ("program", "fault"),
    [
        ("open('../secret', 'a')", "left its folder"),
        ("__import__('os').symlink('x', '../y')", "left its folder"),
        ("__import__('os').rename('a', '/tmp/a')", "left its folder"),
        ("__import__('os').system('true')", "started something"),
        ("__import__('subprocess').run(['true'])", "started something"),
        ("__import__('pickle').loads(b'cos\\nsystem\\n.')", "started something"),
        ("__import__('socket').create_connection(('127.0.0.1', 9))", "started something"),
        ("1 / 0", "a traceback"),
        ("raise SystemExit(3)", "ended with 3"),
        ("raise SystemExit(1)", "without a word"),
        ("import sys; sys.exit(print('a\\nb', file=sys.stderr) or 2)", "not one line"),
        ("print('\\x1b[2J')", "terminal"),
        ("__import__('os').kill(__import__('os').getpid(), 11)", "ended with -11"),
        ("open('new', 'w')", "left its folder"),
        ("open('out', 'w'); raise SystemExit(2)", "refused its input and wrote"),
        ("print(open('../secret').read())", "told the secret"),
    ],
)
def test_the_sandbox_sees(tmp_path: Path, program: str, fault: str) -> None:
    (tmp_path / "program.py").write_text(program)
    target = Target(str(tmp_path / "program"), (), {"a": b"x"}, ())
    _, faults = tried(tmp_path / "x", target, target.files)
    assert fault in " ".join(faults)


@pytest.mark.slow
def test_the_sandbox_sees_what_takes_too_much(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sandbox, "CPU", 1)
    monkeypatch.setattr(sandbox, "MEMORY", 1 << 25)
    for program, fault in (
        ("b'x' * 2**29", "took"),
        ("bytes(2**33)", "a traceback"),
        ("while True: pass", "ended with -"),
        ("__import__('time').sleep(60)", "ended with -9"),
    ):
        (tmp_path / "program.py").write_text(program)
        # Only what sleeps waits so long.
        monkeypatch.setattr(sandbox, "WAIT", 1 if "sleep" in program else 60)
        target = Target(str(tmp_path / "program"), (), {}, ())
        _, faults = tried(tmp_path / "x", target, {})
        assert fault in " ".join(faults), program


# ---------------------------------------------------------------------------------------------
# Files that somebody made with care: each was, or could be, a way to do harm


def outside(location: str) -> bytes:
    """A network of which a weight is said to lie elsewhere."""
    model = onnx.ModelProto.FromString(network())
    tensor = next(one for one in model.graph.initializer if one.name == "w")
    tensor.ClearField("raw_data")
    tensor.dims[:] = [3]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "12")):
        tensor.external_data.add(key=key, value=value)
    return model.SerializeToString()


def one_node(kind: str, inputs: dict[str, np.ndarray], output: tuple[int, list], **more) -> bytes:
    make = onnx.helper
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in inputs.items()]
    images = make.make_tensor_value_info("images", 1, [1, 3, 64, 64])
    result = make.make_tensor_value_info("output0", *output)
    node = make.make_node(kind, list(inputs), ["output0"], **more)
    graph = make.make_graph([node], "g", [images], [result], tensors)
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def endless() -> bytes:
    """A loop that ends in some centuries."""
    make = onnx.helper
    value = make.make_tensor_value_info
    body = make.make_graph(
        [make.make_node("Identity", ["going"], ["on"]), make.make_node("Relu", ["x"], ["y"])],
        "body",
        [value("number", 7, []), value("going", 9, []), value("x", 1, [1])],
        [value("on", 9, []), value("y", 1, [1])],
    )
    rounds, going = np.array(2**62, np.int64), np.array(True)
    return one_node(
        "Loop", {"m": rounds, "c": going, "v": np.ones(1, np.float32)}, (1, [1]), body=body
    )


def nested(depth: int) -> bytes:
    """Graphs within graphs."""
    make = onnx.helper
    value = make.make_tensor_value_info
    inner = make.make_graph(
        [make.make_node("Relu", ["images"], ["r"])], "g", [], [value("r", 1, None)]
    )
    for _ in range(depth):
        node = make.make_node("If", ["c"], ["r"], then_branch=inner, else_branch=inner)
        inner = make.make_graph([node], "g", [], [value("r", 1, None)])
        inner.node[0].attribute[1].g.Clear()
    inner.input.append(value("images", 1, [1]))
    inner.initializer.append(onnx.numpy_helper.from_array(np.array(True), "c"))
    model = make.make_model(inner, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def calling_itself() -> bytes:
    model = onnx.ModelProto.FromString(network())
    node = onnx.helper.make_node("F", ["x"], ["y"], domain="d")
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("d", 1)]
    model.functions.append(onnx.helper.make_function("d", "F", ["x"], ["y"], [node], opsets))
    model.graph.node[2].op_type, model.graph.node[2].domain = "F", "d"
    model.opset_import.append(opsets[1])
    return model.SerializeToString()


def vast_input() -> bytes:
    model = onnx.ModelProto.FromString(network())
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 2**33
    return model.SerializeToString()


def named(names: str) -> bytes:
    model = onnx.ModelProto.FromString(network())
    model.metadata_props[0].value = names
    return model.SerializeToString()


def header_of(width: int, height: int) -> bytes:
    """A PNG that is nothing but large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    parts = ((b"IHDR", head), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


class Payload:
    """Unpickled, it touches a file."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch pwned",)


def pickled() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Payload()], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def shared_lists() -> bytes:
    """A TFLite file of which every operator has the same, longest list of outputs."""
    count = 20_000
    vector = struct.pack("<I", count) + bytes(4 * count)
    # An operator's vtable and table; field 2 leads to the vector behind it.
    operator = struct.pack("<HHHHH2x", 10, 8, 0, 0, 4) + struct.pack("<iI", 12, 4) + vector
    graph_vtable = struct.pack("<HHHHHH", 12, 8, 0, 0, 0, 4)
    head = struct.pack("<I4s", 8 + 12, b"TFL3") + struct.pack("<HHHHHH", 10, 8, 0, 0, 4, 0)
    model = struct.pack("<iI", 12, 4) + struct.pack("<II", 1, 4 + 12)
    graph = graph_vtable + struct.pack("<iI", 12, 4)
    start = len(head + model + graph)
    place = start + 4 + 4 * count + 12
    offsets = b"".join(struct.pack("<I", place - (start + 4 + 4 * n)) for n in range(count))
    return head + model + graph + struct.pack("<I", count) + offsets + operator


@cache
def zip_bomb() -> bytes:
    """Some kilobytes that hold 288 MiB of zeros, a little more than is read."""
    buffer = io.BytesIO()
    whole = zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with whole, whole.open("output0.npy", "w", force_zip64=True) as member:
        member.write(raw_npy(FLOATS % ("False", f"1, 6, {288 * 2**20 // 24}")))
        for _ in range(18):
            member.write(bytes(1 << 24))
    return buffer.getvalue()


FLOATS = "{'descr': '<f4', 'fortran_order': %s, 'shape': (%s,), }\n"
HUGE = raw_npy(FLOATS % ("False", 2**60), bytes(64))


def cases() -> dict[str, tuple[str, dict[str, bytes]]]:
    """By name: the target, and its files that are others."""
    net = "net.onnx"
    wide = one_node("ConstantOfShape", {"n": np.array([2**33], np.int64)}, (1, [None]))
    tall = MLIR.replace("x64x64xf32", "x999999x999999xf32").encode()
    flat = MLIR.replace("x64x64xf32", "x0x64xf32").encode()
    vast = header_of(10**6, 10**6)
    drawing = RECORD["key"] | {"parameters": ["\x1b[2J"]}
    few = {f"set/{name}": b"not a picture" for name in PICTURES - {"plain.ppm"}}
    return {
        "weights in a secret, downgraded": ("downgrade", {net: outside("../secret")}),
        "weights in a secret, run": ("run_onnx", {net: outside("../secret")}),
        "weights in a secret by its whole path, run": ("run_onnx", {net: outside("/etc/passwd")}),
        "weights in a pipe": ("run_onnx", {net: outside("pipe"), "pipe": PIPE}),
        "weights behind a link": ("run_onnx", {net: outside("link"), "link": LINK}),
        "a weight cut short, checked": ("stanza", {net: cut_short()}),
        "a weight cut short, its head looked for": ("detect", {net: cut_short()}),
        "a loop without end, verified": ("downgrade", {net: endless()}),
        "a loop without end, run": ("run_onnx", {net: endless()}),
        "a result of 32 GB": ("downgrade", {net: wide}),
        "a result of 32 GB, run": ("run_onnx", {net: wide}),
        "graphs within graphs": ("downgrade", {net: nested(28)}),
        "a message within messages": ("downgrade", {net: b"\x3a\x80\x80\x04" * 20000}),
        "a function that calls itself": ("downgrade", {net: calling_itself()}),
        "a text that is no UTF-8": ("downgrade", {net: named("text").replace(b"text", b"t\xffxt")}),
        "names that are no UTF-8": ("detect", {net: named("text").replace(b"text", b"t\xffxt")}),
        "an input of 2^33": ("downgrade", {net: vast_input()}),
        "names without end": ("detect", {net: named("[" * 100_000)}),
        "names with a minus without end": ("detect", {net: named("-" * 100_000 + "1")}),
        "names added up": ("detect", {net: named("+".join("1" * 50_000))}),
        "names to run": ("detect", {net: named("__import__('os').system('touch pwned')")}),
        "a picture of a million by a million": ("pictures", few | {"set/plain.jpg": vast}),
        "a picture of 88 megapixels": ("letterbox", {"in.jpg": header_of(11_000, 8_000)}),
        "a picture of 10 gigapixels, run": ("run_onnx", {"in.png": header_of(10**5, 10**5)}),
        "a pipe among pictures": ("pictures", {"set/pipe.jpg": PIPE}),
        "a device among pictures": ("pictures", {"set/device.jpg": DEVICE}),
        "a list of pipes and devices": ("list", {"list.txt": b"pipe\ndev\n../secret\n/dev/zero\n",
                                                 "pipe": PIPE, "dev": DEVICE}),
        "a pickle for an array": ("arrays", {"set/0.npy": pickled()}),
        "a pickle in an archive": ("samples", {"set/0.npz": npz({"a.npy": pickled()})}),
        "pickles compared": ("compare", {"a.npz": npz({"a.npy": pickled()}),
                                         "b.npz": npz({"a.npy": pickled()})}),
        "a header of 2^60": ("arrays", {"set/0.npy": HUGE}),
        "a header of 2^60, archived": ("samples", {"set/0.npz": npz({"a.npy": HUGE})}),
        "a header of 2^60, found": ("detect", {"raw.npz": npz({"output0.npy": HUGE})}),
        "a header of 2^60, turned": ("compare", {"a.npz": npz({"a.npy": raw_npy(
            FLOATS % ("True", f"{2**30}, {2**30}"), bytes(64))})}),
        "elements of nothing": ("compare", dict.fromkeys(("a.npz", "b.npz"), npz({"a.npy": raw_npy(
            "{'descr': '|V0', 'fortran_order': False, 'shape': (%d,), }\n" % 2**60)}))),  # noqa: UP031
        "a header in brackets": ("arrays", {"set/0.npy": raw_npy("(" * 9000)}),
        "much in an archive": ("samples", {"set/0.npz": BOMB}),
        "much found": ("detect", {"raw.npz": BOMB}),
        "an archive with paths": ("compare", {"a.npz": npz({"../../pwned": b"x", "/pwned": b"x"})}),
        "a class of a billion": ("detect", {"raw.npz": archive(output0=np.full(
            (1, 300, 6), 2.0**40, np.float32))}),
        "lists that are shared": ("tflite", {"x.tflite": shared_lists()}),
        "sections on top of each other": ("cvimodel", {"x.cvimodel": cvimodel(
            sections=[(0, f"s{n}", 160, 0) for n in range(3000)])}),
        "braces in braces": ("prototxt", {"x.prototxt": b"layer { a { " * 5000}),
        "braces in braces of lists": ("stanza", {"stanza.json": b"[" * 100_000}),
        "a stanza of numbers": ("stanza", {"stanza.json": json.dumps(
            DOCUMENT | {"model": 1, "ONNX": {}, "x": None}).encode()}),
        "a stanza that is a list": ("stanza", {"stanza.json": b'["model"]'}),
        "a stanza that is long": ("stanza", {"stanza.json": json.dumps(
            DOCUMENT | dict.fromkeys(STANZA, "[[" + "1, " * 20000 + " " * 20000 + "x")).encode()}),
        "a stanza for a shell": ("stanza", {"stanza.json": json.dumps(
            DOCUMENT | {"model": "$(shell touch pwned)", "LABELS": "'; touch pwned; '"}).encode()}),
        "a line of a megabyte": ("tables", {"q.txt": b"x" * 10**6 + b" BF16\n"}),
        "a record that draws": ("records", {"a.key.json": json.dumps(
            {"digest": "x"} | RECORD | {"key": drawing}).encode()}),
        "a record of numbers": ("records", {"a.key.json": json.dumps(
            {"digest": "x"} | RECORD | {"outputs": 5}).encode()}),
        "a label that draws": ("labels", {"labels.txt": b"\x1b[2J\x1b]0;x\x07\nbox"}),
        "a label that is long": ("labels", {"labels.txt": b"x" * 10**6 + b"\nbox"}),
        "an input of no size": ("letterbox", {"net.mlir": flat}),
        "an input of any size": ("letterbox", {"net.mlir": tall}),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", cases())
def test_files_that_mean_harm(name: str, tmp_path: Path, monkeypatch) -> None:
    target_name, files = cases()[name]
    monkeypatch.setattr(bounded_run, "LIMIT", 1.0)
    target = targets()[target_name]
    _, faults = tried(tmp_path / "x", target, target.files | files)
    assert not faults


# ---------------------------------------------------------------------------------------------
# Names

HOSTILE = (
    "a b.jpg", "it's.jpg", 'q".jpg', "$(touch pwned).jpg", "`touch pwned`.jpg", "-rf.jpg",
    "--help.jpg", "a\nb.jpg", "ü日.jpg", "x" * 240 + ".jpg", "a,b.jpg", "#c.jpg", "a=b;c&d|e.jpg",
    "$(shell touch pwned).jpg", "%.jpg", "*.jpg", "\udcff.jpg", "a|b.jpg",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ["it's `touch pwned`", "--help", 'a;(x) $(touch pwned) & "q"'])
def test_make_obeys_no_names(checkout: Checkout, name: str) -> None:
    folder = checkout.path / name
    folder.mkdir()
    pictures = sorted((ROOT / "datasets/shapes/images").iterdir())
    for picture, hostile in zip(pictures, HOSTILE, strict=False):
        shutil.copy(picture, folder / hostile)
    given = f"tiny_DATASET={name.replace('$', '$$')}"
    told = checkout.make("-n", "build/tiny/tiny_calib_table", given).stdout
    # The set's name is made of the folder's.
    [made] = re.findall(r" --log 'build/datasets/logs/(.*?)\.log'", told)
    place = f"build/datasets/{made}"
    checkout.make(f"{place}/manifest.json", given)
    manifest = json.loads((checkout.path / place / "manifest.json").read_text())
    assert manifest["count"] == 16
    if "'" not in name:
        network = f"{name}=1.onnx"
        shutil.copy(ROOT / "models/tiny.onnx", checkout.path / network)
        checkout.make("build/tiny/tiny_v8.onnx", f"tiny_ONNX={network.replace('$', '$$')}")
    # Whatever they are called, one that is new is seen.
    shutil.copy(pictures[20], folder / "zz.jpg")
    (folder / HOSTILE[5]).unlink()
    assert "dataset" in checkout.make(f"{place}/manifest.json", given).stdout
    assert not list(checkout.path.rglob("pwned*"))
