"""What a device will do with a finished model, on small ones that the tests make.

The rules are those of the devices' software, which isn't here: each is tested on models that it
takes and on models that differ in one thing. A real build's contract is in test_build.py.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import jsonschema
import onnx
import pytest
from conftest import ROOT, helper, refused
from cvimodels import BF16, FP32, INT8, Output, camera_model, outputs_of

VALIDATOR = jsonschema.Draft202012Validator(
    json.loads((ROOT / "schemas/info.schema.json").read_text())
)
GRIDS = (80, 40, 20)
PLACES = 8400


def interleaved(classes: int = 3, box: int = 64, side: int = 640) -> list[tuple[int, ...]]:
    grids = [side // stride for stride in (8, 16, 32)]
    return [(1, channels, grid, grid) for grid in grids for channels in (box, classes)]


def grouped(classes: int = 3, box: int = 64) -> list[tuple[int, ...]]:
    return [(1, channels, grid, grid) for channels in (box, classes) for grid in GRIDS]


def checked(
    folder: Path,
    outputs: list[tuple[int, ...]] | list[Output],
    *arguments: object,
    device: str = "recamera",
    types: int = FP32,
    name: str = "gate_int8.cvimodel",
    **fields: object,
) -> subprocess.CompletedProcess[str]:
    """What check_contract says of a model with these outputs; its side-car is ``side-car``."""
    if isinstance(outputs[0][0], int):
        outputs = outputs_of(outputs, types)
    model = folder / name
    model.write_bytes(camera_model(outputs, **fields))
    return helper("check_contract", model, folder / "side-car", "--device", device, "--variable",
                  "gate", *arguments)  # fmt: skip


def broken(result: subprocess.CompletedProcess[str], folder: Path) -> str:
    """A broken contract: one line, exit code 1, and no side-car; gives the line."""
    assert result.returncode == 1, result
    assert result.stderr.count("\n") == 1, result.stderr
    assert not (folder / "side-car").exists()
    return result.stderr.removeprefix("check_contract: ").rstrip()


def summary(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result
    return result.stdout.splitlines()[-1]


def network(folder: Path, **metadata: str) -> Path:
    """An ONNX file with this metadata and next to nothing else."""
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])],
    )  # fmt: skip
    model = onnx.helper.make_model(graph)
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, folder / "network.onnx")
    return folder / "network.onnx"


# ---------------------------------------------------------------------------------------------
# Which decoder reCamera takes


WHOLE_POSE, MASKS = (1, 56, PLACES, 1), (1, 32, 160, 160)


@pytest.mark.parametrize(
    ("outputs", "types", "decoder", "classes"),
    [
        (interleaved(), FP32, "YOLO11", 3),
        (interleaved(80), INT8, "YOLO11", 80),
        # As many classes as boxes have channels: the order alone tells.
        (interleaved(64), FP32, "YOLO11", 64),
        ([*interleaved(), (1, 7, 1, 1)], FP32, "YOLO11", 3),
        (grouped(), FP32, "YOLOV8", 3),
        (interleaved(80, box=4), FP32, "YOLO26", 80),
        (grouped(80, box=4), FP32, "YOLO26", 80),
        (grouped(4, box=4), FP32, "YOLO26", 4),
        ([WHOLE_POSE], FP32, "YOLO11_POSE", 1),
        ([(1, 116, PLACES, 1), MASKS], FP32, "YOLO11_SEG", 80),
        ([(1, 1000, 1, 1)], FP32, "IMCLS", 1000),
        ([(1, 3 * PLACES, 85, 1)], FP32, "YOLOV5", 80),
        ([(1, 80, 80, 5)], INT8, "FOMO", 5),
        ([(1, 40, 40, 4), (1, 40, 40, 16)], FP32, "NVIDIA_DET", 4),
    ],
)
def test_recameras_choice(
    tmp_path: Path, outputs: list, types: int, decoder: str, classes: int
) -> None:
    said = summary(checked(tmp_path, outputs, types=types))
    plural = "class" if classes == 1 else "classes"
    assert said.startswith(f"reCamera: {decoder} decoder, {classes} {plural}, ION 0.0 of 50 MB")


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        (interleaved()[:5], "5 outputs (1×64×80×80, 1×3×80×80, "),
        # Finest first is what it knows.
        (interleaved()[::-1], "box and class outputs come in an order that it doesn't know"),
        (grouped()[3:] + grouped()[:3], "box and class outputs come in an order that"),
        (interleaved(box=32), "no decoder for its 6 outputs"),
        ([(1, 84, PLACES, 1)], "output 1×84×8400×1: the whole head is in the model, which the "
         "device wants cut; gate_OUTPUTS = auto"),
        ([(1, 3 * PLACES, 86, 1)], "no decoder for its output 1×25200×86×1"),
        ([(1, 116, PLACES, 1), (1, 32, 80, 80)], "no decoder"),
        ([(1, 1, 1, 1)], "no decoder"),
        # Of another input's size.
        (interleaved(side=320), "no decoder"),
    ],
)  # fmt: skip
def test_outputs_that_recamera_has_no_decoder_for(tmp_path: Path, outputs: list, said: str) -> None:
    line = broken(checked(tmp_path, outputs), tmp_path)
    assert said in line
    assert line.endswith("gate_OUTPUTS = auto, or gate_DEVICE = none if it isn't for that device")


def test_the_order_decides_between_its_decoders(tmp_path: Path) -> None:
    """The same tensors in the order that an export has by itself are another decoder's."""
    assert "YOLO11 decoder" in summary(checked(tmp_path, interleaved()))
    assert "YOLOV8 decoder" in summary(checked(tmp_path, grouped()))


def test_four_classes_interleaved_are_misread_by_recameras_yolo26(tmp_path: Path) -> None:
    line = broken(checked(tmp_path, interleaved(4, box=4)), tmp_path)
    assert "with 4 classes it takes these outputs for three of boxes" in line


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (
            (1, 384, 640, 3),
            "its input is 640×384, and reCamera takes height and width for the same",
        ),
        ((1, 624, 624, 3), "its input is 624×624, and reCamera wants multiples of 32"),
        ((1, 640, 640, 4), "its input 1×640×640×4 is no picture that reCamera can feed"),
    ],
)
def test_an_input_of_a_size_that_recamera_does_not_decode(
    tmp_path: Path, picture: tuple[int, ...], said: str
) -> None:
    line = broken(checked(tmp_path, interleaved(), picture=picture), tmp_path)
    assert line.startswith(said)


def test_a_picture_of_another_batch_is_not_taken(tmp_path: Path) -> None:
    broken(checked(tmp_path, interleaved(), picture=(2, 640, 640, 3)), tmp_path)


# ---------------------------------------------------------------------------------------------
# Input, types, memory


@pytest.mark.parametrize(
    ("fields", "said", "remedy"),
    [
        ({"form": "BGR_PACKED"}, "red and blue would be swapped",
         "gate_CUSTOMIZATION_FORMAT = RGB_PACKED"),
        ({"form": "YUV_NV12"}, "it would see noise", "gate_CUSTOMIZATION_FORMAT = RGB_PACKED"),
        ({"form": "", "dtype": FP32}, "its input is float32 numbers", "gate_FUSE_PREPROCESS = 1"),
        ({"dtype": INT8}, "its input is int8, and pictures are uint8", "gate_QUANT_INPUT = 1"),
        ({"inputs": 2}, "this one has 2 inputs", "gate_DEVICE = none"),
        ({"programs": 2}, "this one has 2 programs", "gate_DEVICE = none"),
        ({"chip": b"cv182x"}, "it is for cv182x, and reCamera has a cv181x", "make CHIP=cv181x"),
        ({"md5": bytes(16)}, "it is damaged, its checksum is wrong", "make it again"),
    ],
)  # fmt: skip
def test_an_input_or_file_that_recamera_can_not_use(
    tmp_path: Path, fields: dict, said: str, remedy: str
) -> None:
    line = broken(checked(tmp_path, interleaved(), **fields), tmp_path)
    assert said in line
    assert remedy in line


@pytest.mark.parametrize("aligned", [True, False])
def test_rows_that_begin_elsewhere_than_the_cameras(tmp_path: Path, aligned: bool) -> None:
    """672 bytes are no multiple of 64; 1920, of a picture of 640, are."""
    said = checked(tmp_path, [(1, 5, 1, 1)], picture=(1, 224, 224, 3), aligned=aligned).stdout
    assert ("rows of its input are 672 bytes" in said) is not aligned
    assert "rows of" not in checked(tmp_path, interleaved(), aligned=False).stdout


@pytest.mark.parametrize(
    ("outputs", "types", "said"),
    [
        ([WHOLE_POSE], INT8, "reCamera's YOLO11_POSE reads float32; gate_QUANT_OUTPUT = 0"),
        (interleaved(), BF16, "its outputs are bfloat16, and reCamera's YOLO11 reads float32 or "
         "int8; gate_QUANT_OUTPUT = 0"),
        ([(1, 80, 80, 5)], FP32, "reCamera's FOMO reads int8; gate_QUANT_OUTPUT = 1"),
    ],
)  # fmt: skip
def test_outputs_of_a_type_that_the_decoder_does_not_read(
    tmp_path: Path, outputs: list, types: int, said: str
) -> None:
    assert said in broken(checked(tmp_path, outputs, types=types), tmp_path)


def test_outputs_of_two_types(tmp_path: Path) -> None:
    outputs = [(shape, INT8 if n else FP32, 1.0) for n, shape in enumerate(interleaved())]
    assert "of different types" in broken(checked(tmp_path, outputs), tmp_path)


@pytest.mark.parametrize("order", [interleaved, grouped])
def test_int8_outputs_whose_scales_the_firmware_seems_to_swap(
    tmp_path: Path, order: Callable[[], list]
) -> None:
    """A warning: it was read and not run. Alike scales do no harm, nor do floats."""
    scales = {64: 0.233, 3: 0.113}
    outputs = [(shape, INT8, scales[shape[1]]) for shape in order()]
    said = checked(tmp_path, outputs)
    assert "up to 2.1 times apart here; gate_QUANT_OUTPUT = 0" in said.stdout
    assert (tmp_path / "side-car").exists()
    assert "times apart" not in checked(tmp_path, order(), types=INT8).stdout
    floats = [(shape, FP32, scale) for shape, _, scale in outputs]
    assert "times apart" not in checked(tmp_path, floats).stdout


@pytest.mark.parametrize(
    ("megabytes", "severity"), [(20, None), (30, "warning"), (49, "warning"), (51, "error")]
)
def test_memory_beside_the_cameras(tmp_path: Path, megabytes: int, severity: str | None) -> None:
    """The pool is 50 MB; in one log, the pictures of a camera took 21 of it."""
    done = checked(tmp_path, interleaved(), memory=megabytes << 20)
    if severity == "error":
        line = broken(done, tmp_path)
        assert f"it needs {megabytes}.0 MB of ION memory, and reCamera has 50 MB" in line
    else:
        assert f"ION {megabytes}.0 of 50 MB" in summary(done)
        assert ("camera's pictures share" in done.stdout) is (severity == "warning")


# ---------------------------------------------------------------------------------------------
# Classes


def test_names_come_from_the_network_or_a_list(tmp_path: Path) -> None:
    onnx_file = network(tmp_path, names="{0: 'car', 1: 'bus', 2: 'van'}", task="detect")
    checked(tmp_path, interleaved(), "--names-from", onnx_file)
    side_car = json.loads((tmp_path / "side-car").read_text())
    assert side_car["classes"] == ["car", "bus", "van"]
    labels = tmp_path / "labels.txt"
    labels.write_text("Auto\nBüs\nVan\n")
    checked(tmp_path, interleaved(), "--names-from", onnx_file, "--labels", labels)
    assert json.loads((tmp_path / "side-car").read_text())["classes"] == ["Auto", "Büs", "Van"]


def test_names_for_another_number_of_classes(tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("car\n")
    line = broken(checked(tmp_path, interleaved(), "--labels", labels), tmp_path)
    assert "finds 3 classes in it, and there is 1 name; gate_LABELS = a file of 3 names" in line


def test_nobody_knows_the_names(tmp_path: Path) -> None:
    done = checked(tmp_path, interleaved())
    assert "warning: nobody says what its 3 classes are called" in done.stdout
    assert json.loads((tmp_path / "side-car").read_text())["classes"] == []


def test_a_whole_detector_that_looks_like_a_pose(tmp_path: Path) -> None:
    """4 sides and 7 classes, or 4 sides, a score and two points."""
    outputs = [(1, 11, PLACES, 1)]
    assert "YOLO11_POSE" in summary(checked(tmp_path, outputs))
    (tmp_path / "side-car").unlink()
    detector = network(tmp_path, task="detect")
    line = broken(checked(tmp_path, outputs, "--names-from", detector), tmp_path)
    assert "trained to detect, and reCamera would take it for YOLO11_POSE" in line
    assert "gate_OUTPUTS = auto" in line


# ---------------------------------------------------------------------------------------------
# Side-cars


def test_recameras_side_car_has_the_fields_of_the_vendors(tmp_path: Path) -> None:
    checked(tmp_path, interleaved())
    side_car = json.loads((tmp_path / "side-car").read_text())
    assert list(side_car) == [
        "model_id", "version", "model_name", "model_format", "ai_framwork", "pic_url",
        "description", "author", "classes", "checksum",
    ]  # fmt: skip
    assert side_car["model_format"] == "cvimodel"
    assert side_car["ai_framwork"] == "6"
    whole = (tmp_path / "gate_int8.cvimodel").read_bytes()
    assert side_car["checksum"] == hashlib.md5(whole).hexdigest()


def test_side_cars_are_the_same_each_time(tmp_path: Path) -> None:
    made = set()
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        checked(tmp_path / name, interleaved())
        made.add((tmp_path / name / "side-car").read_bytes())
    assert len(made) == 1


JOINED = [(1, 1, 4, PLACES), (1, 3, PLACES, 1)]


@pytest.mark.parametrize(
    ("outputs", "description", "kind", "classes"),
    [
        (JOINED, "Ultralytics YOLO11n model", "model_type = yolo11\ntype = detector", 3),
        (JOINED, "Ultralytics YOLOv8n model", "model_type = yolov8\ntype = detector", 3),
        ([*JOINED, (1, 32, PLACES, 1), MASKS], "", "model_type = yolo11\ntype = seg", 3),
        ([*JOINED, (1, 51, PLACES, 1)], "", "model_type = yolo11\ntype = pose", 3),
        ([*JOINED, (1, 1, PLACES, 1)], "", "model_type = yolo11\ntype = obb", 3),
        (interleaved(box=4), "", "model_type = yolo26\ntype = detector", 3),
        ([(1, 24, 80, 80), (1, 24, 40, 40), (1, 24, 20, 20)], "",
         "model_type = yolov5\ntype = detector", 3),
        ([(1, 3, 1, 1)], "", "model_type = classifier", 3),
    ],
)  # fmt: skip
def test_maixcams_side_car(
    tmp_path: Path, outputs: list, description: str, kind: str, classes: int
) -> None:
    onnx_file = network(tmp_path, names="['car', 'bus', 'van']", description=description)
    done = checked(
        tmp_path, outputs, "--names-from", onnx_file, "--scale", "0.0039216,0.0039216,0.0039216",
        "--pixel-format", "bgr", device="maixcam", picture=(1, 3, 640, 640), form="", dtype=INT8,
    )  # fmt: skip
    assert f"{classes} classes" in summary(done)
    text = (tmp_path / "side-car").read_text()
    assert text.startswith("[basic]\ntype = cvimodel\nmodel = gate_int8.cvimodel\n\n[extra]\n")
    assert f"\n{kind}\n" in text
    assert "\ninput_type = bgr\nmean = 0, 0, 0\nscale = 0.0039216, 0.0039216, " in text
    assert text.endswith("\nlabels = car, bus, van\n")


def test_what_maixcam_can_not_use(tmp_path: Path) -> None:
    plain = {"picture": (1, 3, 640, 640), "form": "", "dtype": INT8}
    line = broken(checked(tmp_path, JOINED, device="maixcam"), tmp_path)
    assert "MaixCAM applies them itself; gate_FUSE_PREPROCESS = 0" in line
    line = broken(checked(tmp_path, interleaved(), device="maixcam", **plain), tmp_path)
    assert "MaixCAM has no decoder" in line
    labels = tmp_path / "labels.txt"
    labels.write_text("car, small\nbus\nvan\n")
    said = refused(checked(tmp_path, JOINED, "--labels", labels, device="maixcam", **plain))
    assert "class 'car, small': MaixPy's list of names has commas between" in said
    assert not (tmp_path / "side-car").exists()


@pytest.mark.parametrize(
    ("outputs", "decoder"),
    [
        (interleaved(), "YoloV8Detection"),
        (grouped()[::-1], "YoloV8Detection"),
        (interleaved(box=4), "Yolo26Detection"),
        ([*interleaved(), *((1, 32, grid, grid) for grid in GRIDS), MASKS], "YoloV8Segmentation"),
        ([*interleaved(1), *((1, 51, grid, grid) for grid in GRIDS)], "YoloV8Pose"),
    ],
)
def test_milkvs_decoders_know_outputs_in_any_order(
    tmp_path: Path, outputs: list, decoder: str
) -> None:
    fields = {"device": "milkv", "picture": (1, 3, 640, 640), "form": "RGB_PLANAR"}
    assert f"{decoder} decoder" in summary(checked(tmp_path, outputs, **fields))
    # It wants no side-car: what is written is the contract.
    written = json.loads((tmp_path / "side-car").read_text())
    written.pop("$schema")
    assert VALIDATOR.evolve(schema=VALIDATOR.schema["$defs"]["contract"] | {
        "$defs": VALIDATOR.schema["$defs"]}).is_valid(written)  # fmt: skip


def test_64_classes_are_boxes_to_milkv(tmp_path: Path) -> None:
    fields = {"device": "milkv", "picture": (1, 3, 640, 640), "form": "RGB_PLANAR"}
    line = broken(checked(tmp_path, interleaved(64), **fields), tmp_path)
    assert "with 64 classes it takes scores for boxes" in line


# ---------------------------------------------------------------------------------------------
# Errors, and `info`


def test_several_things_that_are_wrong_are_counted(tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("car\n")
    line = broken(checked(tmp_path, interleaved(), "--labels", labels, form="BGR_PACKED"), tmp_path)
    assert line.endswith("(and 1 more: make gate_int8.info)")


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    assert "DEVICE=toaster: there is no such device; there are: maixcam, milkv, none, recamera" in (
        refused(checked(tmp_path, interleaved(), device="toaster"))
    )
    missing = tmp_path / "no.txt"
    assert "no.txt" in refused(checked(tmp_path, interleaved(), "--labels", missing))
    junk = tmp_path / "junk.onnx"
    junk.write_bytes(b"junk")
    assert "no ONNX" in refused(checked(tmp_path, interleaved(), "--names-from", junk))


def test_words_from_the_file_do_not_move_the_cursor(tmp_path: Path) -> None:
    line = broken(checked(tmp_path, interleaved(), form="BGR\x1b[2J"), tmp_path)
    assert "\x1b" not in line


def test_info_tells_the_contract(tmp_path: Path) -> None:
    model = tmp_path / "gate_int8.cvimodel"
    model.write_bytes(camera_model(outputs_of(grouped(box=32))))
    said = helper("model_info", model, "--device", "recamera", "--variable", "gate").stdout
    assert "contract       with reCamera: BROKEN\n" in said
    assert "error          reCamera has no decoder for its 6 outputs" in said
    document = json.loads(helper("model_info", model, "--device", "recamera", "--json").stdout)
    VALIDATOR.validate(document)
    assert document["contract"]["kept"] is False
    assert document["contract"]["decoder"] is None

    model.write_bytes(camera_model(outputs_of(interleaved())))
    document = json.loads(helper("model_info", model, "--device", "recamera", "--json").stdout)
    VALIDATOR.validate(document)
    held = document["contract"]
    assert (held["decoder"], held["task"], held["classes"]) == ("YOLO11", "detect", 3)
    assert held["input"]["pixel_format"] == "RGB_PACKED"
    assert held["ion"] == {
        "need": document["memory"]["total"], "pool": 50 << 20,
        "published": {"model": "yolo11n", "need": round(7.69 * 2**20)},
    }  # fmt: skip
    said = helper("model_info", model, "--device", "recamera").stdout
    assert "of 50 MB; the vendor's yolo11n needs 7.69\n" in said


def test_info_binds_only_the_devices_own_chips(tmp_path: Path) -> None:
    model = tmp_path / "gate_int8.cvimodel"
    model.write_bytes(camera_model(outputs_of(grouped(box=32)), chip=b"cv180x"))
    done = helper("model_info", model, "--device", "recamera", "--json")
    assert json.loads(done.stdout)["contract"] is None
    assert "contract" not in helper("model_info", model, "--device", "recamera").stdout


def test_every_decoder_that_a_profile_names_is_known() -> None:
    """A profile may only promise what the contract's check can see."""
    code = (ROOT / "scripts/tpumake/decoders.py").read_text()
    for path in (ROOT / "devices").glob("*.json"):
        profile = json.loads(path.read_text())
        for head in profile["heads"].values():
            assert head["decoder"] is None or f'"{head["decoder"]}"' in code, path
