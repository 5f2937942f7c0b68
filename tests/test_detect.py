"""What the helpers of `make X.detect` print, draw and refuse."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
from conftest import ROOT, helper, refused
from PIL import Image

from tpumake.detections import Detections
from tpumake.drawing import Panel, side_by_side
from tpumake.labels import names_in
from tpumake.network_input import read_network_input

SCHEMA = json.loads((ROOT / "schemas/detect.schema.json").read_text())
TINY = ROOT / "models/tiny.onnx"
PICTURE = ROOT / "datasets/shapes_val/images/0003.jpg"
# As model_transform writes it.
INPUT = (
    '  %1 = "top.Input"(%arg0) {{channel_format = "nchw", do_preprocess = true, '
    'keep_aspect_ratio = true, keep_ratio_mode = "letterbox", mean = [0.000000e+00, 1.0e+00, '
    '2.0e+00], pad_type = "center", pad_value = 0 : i64, pixel_format = "{order}", resize_dims = '
    "[64, 64], scale = [5.0e-01, 5.0e-01, 2.5e-01]}} : (tensor<{shape}xf32>) -> tensor<{shape}xf32>"
)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with a float network's description, net.mlir."""
    (tmp_path / "net.mlir").write_text(INPUT.format(order="rgb", shape="1x3x64x64"))
    return tmp_path


def outputs(here: Path, name: str, *rows: tuple[float, ...]) -> Path:
    """Outputs of a whole network of 2 classes at 64×64; a row: centre, size, two scores."""
    tensor = np.zeros((1, 6, 84), np.float32)
    for place, row in enumerate(rows):
        tensor[0, :, place] = row
    np.savez(here / name, output0=tensor)
    return here / name


def picture(here: Path, size: tuple[int, int] = (128, 64)) -> Path:
    Image.new("RGB", size, (90, 120, 150)).save(here / "my photo.png")
    return here / "my photo.png"


# ---------------------------------------------------------------------------------------------
# What a network wants


def test_a_network_s_input_is_read_and_made(here: Path) -> None:
    wanted = read_network_input(here / "net.mlir")
    assert (wanted.size, wanted.keep_aspect_ratio, wanted.centred) == ((64, 64), True, True)
    made = wanted.of(np.full((64, 64, 3), (10, 20, 30), np.uint8))
    assert (made.shape, made.dtype) == ((1, 3, 64, 64), np.float32)
    assert made[0, :, 5, 6].tolist() == [5.0, 9.5, 7.0]
    (here / "net.mlir").write_text(INPUT.format(order="bgr", shape="1x3x64x64"))
    made = read_network_input(here / "net.mlir").of(np.full((64, 64, 3), (10, 20, 30), np.uint8))
    assert made[0, :, 5, 6].tolist() == [15.0, 9.5, 2.0]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "0 inputs"),
        (INPUT.format(order="rgb", shape="1x3x64x64") * 2, "2 inputs"),
        ('%1 = "top.Input"(%arg0) : (tensor<1x5xf32>) -> tensor<1x5xf32>', "no picture"),
        (INPUT.format(order="rgb", shape="4x3x64x64"), "4×3×64×64"),
        (INPUT.format(order="gray", shape="1x1x64x64"), "1×1×64×64"),
        (INPUT.format(order="rgb", shape="1x3x64x64").replace("1.0e+00, ", ""), "mean"),
        (INPUT.format(order="rgb", shape="1x3x64x64").replace("pad_type", "pat_type"), "pad_type"),
    ],
)
def test_networks_that_take_no_picture_are_refused(here: Path, text: str, why: str) -> None:
    (here / "net.mlir").write_text(text)
    line = refused(
        helper("letterbox_picture", PICTURE, "out.png", "--network", "net.mlir", cwd=here)
    )
    assert why in line


# ---------------------------------------------------------------------------------------------
# letterbox_picture


def test_the_picture_that_a_network_sees(here: Path) -> None:
    source = picture(here)
    done = helper("letterbox_picture", source, "out.png", "--network", "net.mlir", cwd=here)
    assert (done.returncode, done.stdout) == (0, "128×64 → 64×32 in 64×64\n")
    seen = np.asarray(Image.open(here / "out.png"))
    assert (seen[:16] == 114).all()
    assert (seen[16:48] == (90, 120, 150)).all()


def test_a_picture_is_turned_as_its_camera_says(here: Path) -> None:
    turned = Image.new("RGB", (128, 64), "red")
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(here / "turned.jpg", exif=exif)
    done = helper("letterbox_picture", "turned.jpg", "out.png", "--network", "net.mlir", cwd=here)
    assert done.stdout.startswith("64×128 → 32×64")


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("none.jpg", None, "No such file"),
        ("empty.jpg", b"", "empty"),
        ("text.jpg", b"hello", "not a picture"),
        ("cut.jpg", PICTURE.read_bytes()[:3000], "cut short"),
    ],
)
def test_what_is_no_picture_is_refused(here: Path, name: str, content: bytes, why: str) -> None:
    if content is not None:
        (here / name).write_bytes(content)
    done = helper("letterbox_picture", name, "out.png", "--network", "net.mlir", cwd=here)
    line = refused(done)
    assert name in line
    assert why in line
    assert not (here / "out.png").exists()


# ---------------------------------------------------------------------------------------------
# run_onnx


def run_onnx(here: Path, network: Path, *more: object) -> subprocess.CompletedProcess[str]:
    helper("letterbox_picture", PICTURE, "in.png", "--network", "net.mlir", cwd=here)
    words = ["in.png", "out.npz", "--input", "net.mlir", *more]
    return helper("run_onnx", network, *words, cwd=here)


def test_an_onnx_is_run(here: Path) -> None:
    done = run_onnx(here, TINY)
    assert (done.returncode, done.stdout) == (0, "1 output\n"), done.stderr
    found = np.load(here / "out.npz")
    assert found["output0"].shape == (1, 8, 84)
    assert found["output0"].std() > 0


def test_an_onnx_that_is_no_detector_is_refused(here: Path) -> None:
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("GlobalAveragePool", ["x"], ["y"])],
        "classifier",
        [value("x", onnx.TensorProto.FLOAT, [1, 3, 64, 64])],
        [value("y", onnx.TensorProto.FLOAT, [1, 3, 1, 1])],
    )
    onnx.save(
        onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
        ),
        here / "c.onnx",
    )
    line = refused(run_onnx(here, here / "c.onnx"))
    assert "1×3×1×1" in line
    assert not (here / "out.npz").exists()


def test_what_is_no_onnx_is_refused(here: Path) -> None:
    (here / "c.onnx").write_bytes(b"\x08\x07nonsense")
    assert "c.onnx" in refused(run_onnx(here, here / "c.onnx"))


def test_names_that_do_not_fit_are_refused(here: Path) -> None:
    (here / "names.txt").write_text("cat\ndog\n")
    line = refused(run_onnx(here, TINY, "--labels", "names.txt"))
    assert "of 4 classes, but 2 are named" in line


# ---------------------------------------------------------------------------------------------
# detect


def detect(here: Path, *more: object) -> subprocess.CompletedProcess[str]:
    return helper("detect", picture(here), "out.png", "--network", "net.mlir", *more, cwd=here)


def two_runs(here: Path) -> list[object]:
    one = outputs(here, "one.npz", (32, 32, 16, 16, 0.64, 0.1), (12, 24, 8, 8, 0.1, 0.3))
    two = outputs(here, "two.npz", (32, 32, 16, 12, 0.6, 0.1))
    return ["--run", "ONNX", one, "--run", "INT8 mlir", two]


def test_what_was_found_is_printed_in_the_picture_s_pixels(here: Path) -> None:
    (here / "names.txt").write_text("person\n狗\n", encoding="utf-8")
    done = detect(here, *two_runs(here), "--labels", "names.txt")
    assert done.returncode == 0, done.stderr
    # The picture is twice as large as it is in the network's input, where it begins at y = 16.
    assert done.stdout.splitlines() == [
        "ONNX",
        "  person: 64.0 %  x 48  y 16  w 32  h 32",
        "  狗: 30.0 %      x 16  y  8  w 16  h 16",
        "INT8 mlir: 1 of 2 found again, boxes overlap ≥ 75.0 %, scores within 4.0 points",
        "  person: 60.0 %  x 48  y 20  w 32  h 24",
        "→ out.png",
    ]


def test_classes_without_names_have_numbers(here: Path) -> None:
    done = detect(here, *two_runs(here))
    assert "  class 0: 64.0 %" in done.stdout


def test_thresholds(here: Path) -> None:
    done = detect(here, *two_runs(here), "--confidence", 0.62)
    assert "INT8 mlir: 0 of 1 found again\n  nothing above 62 %\n" in done.stdout
    crowd = outputs(here, "crowd.npz", (32, 32, 16, 16, 0.9, 0), (32, 32, 16, 12, 0.8, 0))
    for overlap, count in ((0.7, 1), (0.8, 2)):
        done = detect(here, "--run", "ONNX", crowd, "--overlap", overlap)
        assert done.stdout.count("class 0") == count


def test_the_document(here: Path) -> None:
    done = detect(here, *two_runs(here), "--json")
    document = json.loads(done.stdout)
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert document["picture"] == {"name": "my photo.png", "width": 128, "height": 64}
    first, second = document["runs"]
    assert first["agreement"] is None
    assert first["detections"][0] == {
        "class": 0, "name": "class 0", "score": 0.64, "box": [48, 16, 80, 48],
    }  # fmt: skip
    assert second["agreement"] == {
        "same": 1, "missing": 1, "new": 0, "overlap": 0.75, "score": 0.04,
    }  # fmt: skip


def test_names_come_from_the_onnx(here: Path) -> None:
    tensor = np.zeros((1, 8, 84), np.float32)
    tensor[0, :, 0] = 32, 32, 16, 16, 0, 0, 0, 0.5
    np.savez(here / "four.npz", output0=tensor)
    done = detect(here, "--run", "ONNX", "four.npz", "--names-from", TINY)
    assert "star: 50.0 %" in done.stdout


@pytest.mark.parametrize(
    ("names", "read"),
    [
        ("{0: 'person', 1: 'bicycle'}", ["person", "bicycle"]),
        ("{1: 'b', 0: 'a'}", ["a", "b"]),
        ("['a', 'b']", ["a", "b"]),
        ("{'0': 'a'}", ["a"]),
        ("{0: 'a\\x1b[2J'}", ["a?[2J"]),
        ("{0: 'a', 2: 'c'}", []),
        ("__import__('os').getcwd()", []),
        ("my network", []),
        ("(" * 5000, []),
        ("7", []),
    ],
)
def test_names_in_metadata(names: str, read: list[str]) -> None:
    assert names_in({"names": names}) == read
    assert names_in({}) == []


def test_bad_outputs_are_refused(here: Path) -> None:
    np.savez(here / "nan.npz", output0=np.full((1, 6, 84), np.nan, np.float32))
    np.savez(here / "other.npz", output0=np.zeros((1, 1000), np.float32))
    np.savez(here / "object.npz", output0=np.array([{}], dtype=object))
    (here / "cut.npz").write_bytes(b"PK\x03\x04")
    for name, why in {
        "nan": "NaN",
        "other": "1×1000",
        "object": "not loaded",
        "cut": "cut short",
        "none": "no such",
    }.items():
        line = refused(detect(here, "--run", "ONNX", f"{name}.npz"))
        assert f"{name}.npz" in line
        assert why in line
    assert not (here / "out.png").exists()


def test_other_bad_input_is_refused(here: Path) -> None:
    runs = two_runs(here)
    (here / "latin.txt").write_bytes(b"\xff\xfe\x00caf\xe9")
    (here / "empty.txt").write_text("\n")
    (here / "c.onnx").write_bytes(b"\x08")
    for words, why in (
        (["--labels", "nowhere.txt"], "nowhere.txt"),
        (["--labels", "latin.txt"], "no text"),
        (["--labels", "empty.txt"], "0 names"),
        (["--names-from", "c.onnx"], "c.onnx"),
        (["--names-from", "d.onnx"], "d.onnx"),
        (["--confidence", "2"], "--confidence"),
        (["--overlap", "x"], "--overlap"),
    ):
        assert why in refused(detect(here, *runs, *words))


# ---------------------------------------------------------------------------------------------
# The drawing


def detections(*rows: tuple[float, ...]) -> Detections:
    table = np.array(rows, float).reshape(-1, 6)
    return Detections(table[:, :4].astype("f4"), table[:, 4], table[:, 5].astype(int))


@pytest.mark.parametrize(
    ("size", "count", "columns"),
    [((640, 480), 4, 2), ((640, 480), 8, 4), ((640, 480), 2, 2), ((300, 900), 4, 4),
     ((1600, 300), 4, 1), ((640, 480), 1, 1)],
)  # fmt: skip
def test_panels_stand_side_by_side(size: tuple[int, int], count: int, columns: int) -> None:
    grey = np.full((size[1], size[0], 3), 90, np.uint8)
    panels = [Panel(f"panel {index}", detections()) for index in range(count)]
    sheet = side_by_side(grey, panels, [])
    scale = min(max(*size, 480), 800) / max(size)
    # Besides the pictures there are gaps of 16 and headings of 34 pixels.
    assert sheet.width == 16 + columns * (round(size[0] * scale) + 16)
    assert sheet.height == 8 + count // columns * (round(size[1] * scale) + 34 + 16)


def test_a_box_lies_where_it_was_found_and_has_its_class_s_colour() -> None:
    grey = np.full((480, 640, 3), 90, np.uint8)
    found = detections((100, 200, 300, 400, 0.9, 0), (350, 50, 450, 150, 0.8, 1))
    sheet = np.asarray(side_by_side(grey, [Panel("one", found), Panel("two", found)], ["a", "b"]))
    orange, blue = [(sheet == colour).all(axis=2) for colour in ((230, 159, 0), (86, 180, 233))]
    # Left edge of the first box, well below its label: in both panels.
    rows, columns = np.nonzero(orange)
    assert set(np.diff(np.unique(columns[rows == rows.max() - 50]))) >= {1}
    left = sorted({int(c) for c in columns[rows == rows.max() - 50]})
    assert left[0] == 16 + 100
    assert 16 + 640 + 16 + 100 in left
    assert blue.sum() > 1000
    assert np.nonzero(blue)[1].max() < 16 + 640 + 16 + 640


def test_labels_stay_in_the_picture_and_off_each_other() -> None:
    grey = np.full((480, 640, 3), 90, np.uint8)
    corner = detections(*((600, 0, 640, 30, 0.9 - index / 10, index) for index in range(4)))
    sheet = np.asarray(side_by_side(grey, [Panel("one", corner)], ["a long name"] * 4))
    for colour in ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66)):
        rows, columns = np.nonzero((sheet == colour).all(axis=2))
        # Each label's ground can be seen: some 20 by 150 pixels, less the letters.
        assert len(rows) > 1200, colour
        assert columns.max() < 16 + 640


def test_small_pictures_are_enlarged_and_large_ones_reduced() -> None:
    for side, expected in ((16, 480), (600, 600), (3000, 800)):
        panel = Panel("one", detections((0, 0, side, side, 0.5, 99)))
        sheet = side_by_side(np.zeros((side, side, 3), np.uint8), [panel], [])
        assert sheet.width == expected + 2 * 16


def test_the_same_drawing_has_the_same_bytes(here: Path) -> None:
    runs = two_runs(here)
    detect(here, *runs)
    first = (here / "out.png").read_bytes()
    detect(here, *runs)
    assert (here / "out.png").read_bytes() == first
