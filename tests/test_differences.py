"""In which part two files differ: every kind of file, every kind of difference."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from cvimodels import COMMANDS, WEIGHTS, cvimodel, flatbuffer
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, PngImagePlugin

from tpumake.differences import MOST, differences


@pytest.fixture
def told(tmp_path: Path):
    """Compare two files of a name, given as bytes or text."""

    def tell(name: str, first: bytes | str, second: bytes | str) -> list[str]:
        paths = []
        for folder, data in (("a", first), ("b", second)):
            path = tmp_path / folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data.encode() if isinstance(data, str) else data)
            paths.append(path)
        lines = differences(*paths)
        assert lines == differences(*paths)
        assert not [line for line in lines if "\n" in line]
        return lines

    return tell


def flipped(data: bytes, *places: int) -> bytes:
    changed = bytearray(data)
    for place in places:
        changed[place] ^= 0x55
    return bytes(changed)


@pytest.mark.parametrize(
    "name", ["m.cvimodel", "m.bmodel", "m.npz", "m.onnx", "m.mlir", "m.json", "m_qtable", "m.jpg"]
)
def test_equal_files_have_none_whatever_they_hold(told, name: str) -> None:
    assert told(name, b"not what it should be", b"not what it should be") == []
    (line,) = told(name, b"\xffnot what", b"\xffnot whit")
    assert "1 of 9 bytes differ, the first at 0x7" in line


# ---------------------------------------------------------------------------------------------
# cvimodel

LONGER = [(0, "weight", len(WEIGHTS), 0), (1, "subfunc_0", len(COMMANDS) + 4, len(WEIGHTS))]


@pytest.mark.parametrize(
    ("second", "lines"),
    [
        (cvimodel(chip=b"cv180x"), ['header: chip "cv181x" → "cv180x"']),
        (cvimodel(version=(1, 3)), ["header: minor 4 → 3"]),
        (cvimodel(md5=bytes(16)), [f"header: md5 {cvimodel()[14:30].hex()} → {'00' * 16}"]),
        (
            cvimodel(build_time="2026-11-21 05:17:03"),
            ['flatbuffer: build_time "1980-01-01 00:00:00" → "2026-11-21 05:17:03"'],
        ),
        (
            cvimodel(tensors=(("images", 0, 0.5), ("out", 32, 1.0))),
            ['flatbuffer: programs[0]: tensor_map "out": offset 16 → 32'],
        ),
        (
            cvimodel(tensors=(("images", 0, 0.25), ("out", 16, 1.0))),
            ['flatbuffer: programs[0]: tensor_map "images": quant: qscale 0.5 → 0.25'],
        ),
        (
            cvimodel(weights=(("conv.weight", 0, 48), ("conv.bia2", 48, 16))),
            [
                'flatbuffer: weight_map "conv.bias": only in the first',
                'flatbuffer: weight_map "conv.bia2": only in the second',
            ],
        ),
        (
            cvimodel(binary=flipped(WEIGHTS, 50, 51) + COMMANDS),
            ['weights "weight": 2 of 64 bytes differ, the first at 0x32, in "conv.bias"'],
        ),
        (
            cvimodel(binary=flipped(WEIGHTS, 47, 48) + COMMANDS),
            [
                'weights "weight": 2 of 64 bytes differ, the first at 0x2f, '
                'in "conv.weight" and 1 more'
            ],
        ),
        (
            cvimodel(binary=WEIGHTS + flipped(COMMANDS, 8, 9, 99)),
            ['commands "subfunc_0": 3 of 100 bytes differ, the first at 0x8'],
        ),
        (
            cvimodel(binary=WEIGHTS + COMMANDS + b"more", sections=LONGER),
            [
                'flatbuffer: sections "subfunc_0": size 100 → 104',
                'commands "subfunc_0": 100 → 104 bytes',
            ],
        ),
        (
            cvimodel(binary=WEIGHTS + COMMANDS + b"more"),
            ["outside the sections: 0 → 4 bytes"],
        ),
    ],
)
def test_a_cvimodels_section_is_named(told, second: bytes, lines: list[str]) -> None:
    assert told("m.cvimodel", cvimodel(), second) == lines


def test_fields_in_another_order(told) -> None:
    swapped = (("out", 16, 1.0), ("images", 0, 0.5))
    assert told("m.cvimodel", cvimodel(), cvimodel(tensors=swapped)) == [
        "flatbuffer: programs[0]: input_tensors [images] → [out]",
        "flatbuffer: programs[0]: output_tensors [out] → [images]",
        'flatbuffer: programs[0]: tensor_map: in another order from "images" on',
    ]


def test_many_fields_do_not_hide_the_sections(told) -> None:
    tensors = [(f"t{number}", number, 1.0) for number in range(30)]
    others = [(name, offset + 1, scale) for name, offset, scale in tensors]
    second = cvimodel(tensors=others, binary=WEIGHTS + flipped(COMMANDS, 0))
    lines = told("m.cvimodel", cvimodel(tensors=tensors), second)
    assert len(lines) <= MOST
    assert "flatbuffer: 27 more fields" in lines
    assert lines[-1] == 'commands "subfunc_0": 1 of 100 bytes differ, the first at 0x0'


def test_a_flatbuffer_that_is_only_laid_out_otherwise(told) -> None:
    padded = flatbuffer() + bytes(8)
    lines = told("m.cvimodel", cvimodel(), cvimodel(body=padded))
    size = len(flatbuffer())
    assert lines == [
        f"header: body_size {size} → {size + 8}",
        f"flatbuffer: the same fields, {size} → {size + 8} bytes",
    ]


def test_a_damaged_cvimodel_is_told_by_its_bytes(told) -> None:
    (line,) = told("m.cvimodel", cvimodel(), cvimodel()[:-10])
    assert "the parts can't be told" in line
    assert "cut short" in line


# ---------------------------------------------------------------------------------------------
# bmodel


def bmodel(time: bytes = b"Sat Nov 21 06:45:47 2026\n", binary: bytes = bytes(32)) -> bytes:
    flat = b"fields " + time + b" fields"
    return struct.pack("<4I", 0xFF55AAEE, 64, len(flat), len(binary)) + bytes(48) + flat + binary


@pytest.mark.parametrize(
    ("second", "line"),
    [
        (
            bmodel(b"Sun Nov 22 06:45:47 2026\n"),
            'flatbuffer: build time "Sat Nov 21 06:45:47 2026" → "Sun Nov 22 06:45:47 2026"',
        ),
        (flipped(bmodel(), 66), "flatbuffer: 1 of 39 bytes differ, the first at 0x2"),
        (flipped(bmodel(), 20), "header: 1 of 64 bytes differ, the first at 0x14"),
        (bmodel(binary=bytes(31) + b"x"), "binary: 1 of 32 bytes differ, the first at 0x1f"),
    ],
)
def test_a_bmodels_section_is_named(told, second: bytes, line: str) -> None:
    assert told("m.bmodel", bmodel(), second) == [line]


# ---------------------------------------------------------------------------------------------
# npz

TENSORS = {"a": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.zeros(5, np.int8)}


def npz(date: tuple = (1980, 1, 1, 0, 0, 0), kind: int = 0, **tensors: np.ndarray) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, tensor in tensors.items():
            data = io.BytesIO()
            np.save(data, tensor)
            info = zipfile.ZipInfo(f"{name}.npy", date)
            info.compress_type = kind
            archive.writestr(info, data.getvalue())
    return file.getvalue()


def changed(**tensors: np.ndarray) -> bytes:
    return npz(**(TENSORS | tensors))


NAN = np.full((3, 4), np.nan, np.float32)


@pytest.mark.parametrize(
    ("second", "lines"),
    [
        (
            changed(a=TENSORS["a"] + np.float32([0, 0, 0, 0.25])),
            ['tensor "a": 3 of 12 values differ, by at most 0.25'],
        ),
        (changed(a=TENSORS["a"].reshape(4, 3)), ['tensor "a": shape (3, 4) → (4, 3)']),
        (
            changed(a=TENSORS["a"].astype(np.float64)),
            ['tensor "a": dtype float32 → float64'],
        ),
        (changed(b=-TENSORS["b"].astype(np.float32)), ['tensor "b": dtype int8 → float32']),
        (npz(a=TENSORS["a"]), ['tensor "b": only in the first']),
        (changed(c=TENSORS["b"]), ['tensor "c": only in the second']),
        (
            npz(b=TENSORS["b"], a=TENSORS["a"]),
            ['tensor: in another order from "a" on'],
        ),
        (
            npz((2026, 11, 21, 6, 0, 0), **TENSORS),
            [
                'zip metadata: date_time of "a.npy" and 1 more: '
                "[1980, 1, 1, 0, 0, 0] → [2026, 11, 21, 6, 0, 0]"
            ],
        ),
        (
            npz(kind=zipfile.ZIP_DEFLATED, **TENSORS),
            ['zip metadata: compress_type of "a.npy" and 1 more: 0 → 8'],
        ),
        (changed(a=NAN), ['tensor "a": 12 of 12 values differ']),
        (
            changed(a=np.asfortranarray(TENSORS["a"])),
            [],
        ),
    ],
)
def test_an_archives_tensor_is_named(told, second: bytes, lines: list[str]) -> None:
    found = told("m.npz", npz(**TENSORS), second)
    if lines:
        assert found == lines
    else:
        assert found[0].startswith("the same content, written otherwise: ")


def test_minus_zero_is_not_zero_but_a_nan_is_a_nan(told) -> None:
    one = np.array([0.0, np.nan, 1.0], np.float32)
    other = np.array([-0.0, np.nan, 1.0], np.float32)
    assert told("m.npz", npz(x=one), npz(x=other)) == ['tensor "x": 1 of 3 values differ']


def test_a_large_tensor_is_compared_to_its_end(told) -> None:
    one = np.zeros(3 << 20, np.uint8)
    other = one.copy()
    other[[5, -1]] = 1, 9
    assert told("m.npz", npz(x=one), npz(x=other)) == [
        'tensor "x": 2 of 3145728 values differ, by at most 9'
    ]


# ---------------------------------------------------------------------------------------------
# ONNX


def network() -> onnx.ModelProto:
    weights = [
        numpy_helper.from_array(np.ones((2, 2), np.float32), "w1"),
        numpy_helper.from_array(np.zeros((2, 2), np.float32), "w2"),
    ]
    nodes = [
        helper.make_node("Gemm", ["x", "w1"], ["y"], name="first", alpha=1.0),
        helper.make_node("Gemm", ["y", "w2"], ["z"], name="", alpha=1.0),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in "xz"]
    graph = helper.make_graph(nodes, "net", values[:1], values[1:], weights)
    model = helper.make_model(graph, producer_name="p", opset_imports=[helper.make_opsetid("", 17)])
    helper.set_model_props(model, {"task": "detect"})
    return model


def _move_data(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.float_data.extend([1.0] * 4)


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (lambda m: setattr(m, "producer_name", "q"), ['producer_name "p" → "q"']),
        (lambda m: setattr(m, "ir_version", 3), [f"ir_version {network().ir_version} → 3"]),
        (lambda m: setattr(m, "doc_string", "d"), ["doc_string only in the second"]),
        (lambda m: setattr(m.opset_import[0], "version", 18), ["opset_import[0]: version 17 → 18"]),
        (
            lambda m: setattr(m.metadata_props[0], "value", "pose"),
            ['metadata_props "task": value "detect" → "pose"'],
        ),
        (
            lambda m: setattr(m.graph.node[0].attribute[0], "f", 2.0),
            ['graph: node "first" (Gemm): attribute "alpha": f 1.0 → 2.0'],
        ),
        (
            lambda m: setattr(m.graph.node[1], "op_type", "Gomm"),
            ['graph: node "z" (Gemm): op_type "Gemm" → "Gomm"'],
        ),
        (
            lambda m: m.graph.initializer[1].CopyFrom(
                numpy_helper.from_array(np.eye(2, dtype=np.float32), "w2")
            ),
            ['graph: initializer "w2": 2 of 4 values differ, by at most 1'],
        ),
        (
            lambda m: m.graph.initializer[1].CopyFrom(
                numpy_helper.from_array(np.zeros(2, np.float32), "w2")
            ),
            [
                'graph: initializer "w2": dims [2, 2] → [2]',
                'graph: initializer "w2": values differ',
            ],
        ),
        (_move_data, ['graph: initializer "w1": values stored otherwise']),
        (
            lambda m: m.graph.node.reverse(),
            ['graph: node: in another order from "first" on'],
        ),
        (
            lambda m: m.graph.initializer.pop(),
            ['graph: initializer "w2": only in the first'],
        ),
    ],
)
def test_a_networks_part_is_named(told, change, lines: list[str]) -> None:
    other = network()
    change(other)
    first, second = (model.SerializeToString() for model in (network(), other))
    assert told("m.onnx", first, second) == lines


def test_the_same_network_with_its_fields_in_another_order(told) -> None:
    """Protobuf doesn't lay down the order; this puts the producer last."""
    model = network()
    front = model.SerializeToString()
    model.ClearField("producer_name")
    tail = onnx.ModelProto(producer_name="p").SerializeToString()
    (line,) = told("m.onnx", front, model.SerializeToString() + tail)
    assert line.startswith("the same content, written otherwise: ")


# ---------------------------------------------------------------------------------------------
# Texts

MLIR = """\
#loc = loc(unknown)
module @tiny attributes {module.chip = "ALL"} {
  func.func @main(%arg0: tensor<1x3xf32>) -> tensor<1x3xf32> {
    %0 = "top.None"() : () -> none loc(#loc)
    %1 = "top.Conv"(%arg0, %0) {dilations = [1, 1], do_relu = false, group = 1 : i64} : (tensor)
    return %1 : tensor<1x3xf32> loc(#loc)
  }
}
"""


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("do_relu = false", "do_relu = true", 'line 5, top.Conv: "false" → "true"'),
        ("[1, 1]", "[2, 1]", 'line 5, top.Conv: "1" → "2"'),
        ("ALL", "cv181x", "line 2, module: "),
        ("loc(unknown)", "loc(other)", "line 1, loc: "),
        ("main(", "mine(", 'line 3, func.func: "main" → "mine"'),
        ('    %0 = "top.None"() : () -> none loc(#loc)\n', "", "line 4, top.None: 1 → 0 lines"),
    ],
)
def test_an_mlirs_line_and_operation_are_named(told, old: str, new: str, line: str) -> None:
    (found,) = told("m.mlir", MLIR, MLIR.replace(old, new, 1))
    assert found.startswith(line)


TABLE = """\
# genetated time: 1980-01-01 00:00:00
# sample number: 10
###
# op_name    threshold    min    max
images 1.0 0.0 1.0
/model.0/conv 5.3 -4.3 7.7
"""


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "1980-01-01 00:00:00",
            "2026-11-21 06:00:00",
            'comment "genetated time": "1980-01-01 00:00:00" → "2026-11-21 06:00:00"',
        ),
        ("number: 10", "number: 12", 'comment "sample number": "10" → "12"'),
        ("5.3", "5.4", 'tensor "/model.0/conv": threshold 5.3 → 5.4'),
        ("7.7", "7.8", 'tensor "/model.0/conv": max 7.7 → 7.8'),
        ("images 1.0 0.0 1.0", "images 1.0 0.0", 'tensor "images": max 1.0 → nothing'),
        ("images 1.0 0.0 1.0\n", "", 'tensor "images": only in the first'),
        ("###", "####", "the same content, written otherwise: "),
    ],
)
def test_a_tables_tensor_is_named(told, old: str, new: str, line: str) -> None:
    (found,) = told("m_calib_table", TABLE, TABLE.replace(old, new, 1))
    assert found.startswith(line)


def test_a_quantisation_tables_tensor_is_named(told) -> None:
    table = "# chip: cv181x  mix_mode: BF16\n###\n# op_name   quantize_mode\nconv BF16\n"
    assert told("m_qtable", table, table.replace("conv BF16", "conv INT8")) == [
        'tensor "conv": quantize_mode BF16 → INT8'
    ]


@pytest.mark.parametrize(
    ("second", "line"),
    [
        ({"a": 1, "files": [{"n": 1}, {"n": 3}]}, "files[1].n: 2 → 3"),
        ({"a": True, "files": [{"n": 1}, {"n": 2}]}, "a: 1 → True"),
        ({"a": 1, "files": [{"n": 1}]}, "files: 2 → 1 elements"),
        ({"files": [{"n": 1}, {"n": 2}]}, "a: only in the first"),
        ({"a": 1, "files": [{"n": 1}, {"n": 2, "m": 0}]}, "files[1].m: only in the second"),
        ({"files": [{"n": 1}, {"n": 2}], "a": 1}, "top: keys in another order"),
        ([], "top: {'a': 1, 'files': [{'n': 1}, {'n': 2}]} → []"),
    ],
)
def test_a_documents_key_is_named(told, second: object, line: str) -> None:
    first = {"a": 1, "files": [{"n": 1}, {"n": 2}]}
    assert told("m.json", json.dumps(first), json.dumps(second)) == [line]


def test_a_document_that_is_only_spaced_otherwise(told) -> None:
    (line,) = told("m.json", '{"a": 1}', '{"a":1}')
    assert line.startswith("the same content, written otherwise: ")


def test_any_other_text_is_told_by_its_lines(told) -> None:
    assert told("m.csv", "a\nb\nc\n", "a\nx\nc\n") == ['line 2: "b" → "x"']


def test_no_more_lines_than_are_read(told) -> None:
    first = "".join(f"{number}\n" for number in range(100))
    lines = told("m.csv", first, first.replace("\n", "!\n"))
    assert len(lines) == MOST + 1
    assert lines[-1] == f"… and {100 - MOST} more"


# ---------------------------------------------------------------------------------------------
# Pictures


def png(pixels: np.ndarray, note: str = "") -> bytes:
    file, notes = io.BytesIO(), PngImagePlugin.PngInfo()
    if note:
        notes.add_text("note", note)
    Image.fromarray(pixels).save(file, "png", pnginfo=notes)
    return file.getvalue()


def test_a_pictures_pixels_or_metadata(told) -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    other = pixels.copy()
    other[0, 0] = other[3, 5, 1] = 1
    assert told("1.png", png(pixels), png(other)) == ["picture: 2 of 24 pixels differ"]
    assert told("1.png", png(pixels), png(pixels, "x")) == [
        "picture: the same pixels, other metadata or compression"
    ]
    assert told("1.png", png(pixels), png(pixels[:3])) == ["picture: size [6, 4] → [6, 3]"]
    assert told("1.png", png(pixels), png(pixels[..., 0])) == ['picture: mode "RGB" → "L"']
