"""Stanzas inferred from networks and pictures: what is told, what is asked, what is refused."""

from __future__ import annotations

import json
import os
import pickle
import re
import zipfile
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
from conftest import ROOT, helper, makefile_text, refused
from onnx import TensorProto, numpy_helper
from onnx.helper import (
    make_graph,
    make_model,
    make_node,
    make_opsetid,
    make_tensor_value_info,
    set_model_props,
)
from PIL import Image

from infer_stanza import all_settings, given_of
from tpumake.errors import BadInput
from tpumake.inference.facts import find_source, read_facts
from tpumake.inference.samples_seen import look_at_samples
from tpumake.inference.settings import infer
from tpumake.stanza import RESERVED, check_name, make_name

SCHEMA = json.loads((ROOT / "schemas/infer_stanza.schema.json").read_text())
ULTRALYTICS = {
    "description": "Ultralytics YOLO11n model", "author": "Ultralytics", "stride": "32",
    "task": "detect", "imgsz": "[96, 64]", "names": "{0: 'cat', 1: 'dog'}",
}  # fmt: skip
# What a network is told by who knows it, where nothing else does.
ANSWERS = ("SCALE=1", "PIXEL_FORMAT=bgr")
UNIT = "0.0039216,0.0039216,0.0039216"
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
Step = tuple[str, tuple[object, ...]]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "one.jpg")
    (folder / "notes.txt").write_text("of Monday")
    return folder


def network(
    path: Path,
    *steps: Step,
    shape: tuple[object, ...] = (1, 3, 64, 64),
    kind: int = TensorProto.FLOAT,
    inputs: int = 1,
    **notes: str,
) -> Path:
    """An ONNX file: the steps, each an operator and what it takes besides, and a convolution."""
    names = [f"in{number}" for number in range(inputs)]
    last, nodes, weights = names[0], [], []
    for number, (operator, constants) in enumerate(steps):
        taken = []
        for place, constant in enumerate(constants):
            array = np.asarray(constant, np.float32)
            taken.append(f"w{number}_{place}")
            weights.append(
                numpy_helper.from_array(
                    array if operator == "BatchNormalization" else array.reshape(1, -1, 1, 1),
                    taken[-1],
                )
            )
        nodes.append(make_node(operator, [last, *taken], [f"t{number}"]))
        last = f"t{number}"
    weights.append(numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "w"))
    nodes.append(make_node("Conv", [last, "w"], ["out"]))
    given = [make_tensor_value_info(name, kind, shape) for name in names]
    out = [make_tensor_value_info("out", TensorProto.FLOAT, [None] * 4)]
    model = make_model(
        make_graph(nodes, "g", given, out, weights), opset_imports=[make_opsetid("", 17)]
    )
    set_model_props(model, notes)
    onnx.save(model, path)
    return path


def look(model: Path, photos: Path, *given: str) -> tuple[dict[str, str], list[str]]:
    """The stanza's variables, and the names of those that are asked about."""
    answers = given_of(given, make_name(model))
    weights = Path(answers["CAFFEMODEL"]) if "CAFFEMODEL" in answers else None
    facts = read_facts(find_source(model, weights))
    found = infer(facts, look_at_samples(photos), answers)
    settings = {name: value for name, value, _ in all_settings(facts, photos, found)}
    return settings, [one.name for one in found.questions]


def inferred(model: Path, photos: Path, *given: str) -> dict[str, str]:
    settings, questions = look(model, photos, *given)
    assert questions == []
    return settings


def asked(model: Path, photos: Path, *given: str) -> list[str]:
    return look(model, photos, *given)[1]


# --- what files say ---------------------------------------------------------------------------


def test_ultralytics_notes_are_enough(tmp_path: Path, photos: Path) -> None:
    model = network(tmp_path / "best.onnx", **ULTRALYTICS)
    assert inferred(model, photos) == {
        "ONNX": str(model), "DATASET": str(photos), "INPUT_SHAPES": "[[1,3,64,64]]",
        "MEAN": "0,0,0", "SCALE": UNIT, "PIXEL_FORMAT": "rgb", "OUTPUTS": "auto",
    }  # fmt: skip


def test_a_classifier_of_ultralytics_sees_the_middle(tmp_path: Path, photos: Path) -> None:
    model = network(tmp_path / "cls.onnx", **ULTRALYTICS | {"task": "classify"})
    assert inferred(model, photos)["KEEP_RATIO_MODE"] == "short_side_scale"


@pytest.mark.parametrize("notes", [{}, {"names": "{0: 'cat'}"}, {"author": "Ultralytics"}])
def test_without_notes_normalisation_and_colours_are_asked_about(
    tmp_path: Path, photos: Path, notes: dict[str, str]
) -> None:
    model = network(tmp_path / "x.onnx", **notes)
    assert asked(model, photos) == ["SCALE", "PIXEL_FORMAT"]
    assert asked(model, photos, "SCALE=0.5") == ["PIXEL_FORMAT"]
    settings = inferred(model, photos, *ANSWERS)
    assert (settings["MEAN"], settings["SCALE"]) == ("0,0,0", "1,1,1")
    assert settings["PIXEL_FORMAT"] == "bgr"


def test_open_sizes_are_those_of_the_training(tmp_path: Path, photos: Path) -> None:
    shape = ("batch", 3, "height", "width")
    model = network(tmp_path / "best.onnx", shape=shape, **ULTRALYTICS)
    assert inferred(model, photos)["INPUT_SHAPES"] == "[[1,3,96,64]]"
    # Without them they are asked for.
    unnoted = network(tmp_path / "x.onnx", shape=shape)
    assert asked(unnoted, photos, *ANSWERS) == ["INPUT_SHAPES"]
    given = "INPUT_SHAPES=[[1, 3, 32, 32]]"
    assert inferred(unnoted, photos, *ANSWERS, given)["INPUT_SHAPES"] == "[[1,3,32,32]]"


def batch_normalised(mean: object, deviation: object) -> Step:
    variance = np.square(np.asarray(deviation) * np.ones(3))
    return "BatchNormalization", (np.ones(3), np.zeros(3), mean * np.ones(3), variance)


@pytest.mark.parametrize(
    ("steps", "scale", "colours"),
    [
        ([("Div", (255,))], "1,1,1", None),
        ([("Mul", (1 / 255,))], "1,1,1", None),
        ([("Sub", (127.5,)), ("Div", (127.5,))], "1,1,1", None),
        ([("Sub", (255 * MEAN,)), ("Div", (255 * DEVIATION,))], "1,1,1", "rgb"),
        ([("Div", (255,)), ("Sub", (MEAN[::-1],)), ("Div", (DEVIATION[::-1],))], "1,1,1", "bgr"),
        ([("Add", (-255 * MEAN[::-1],))], "1,1,1", "bgr"),
        ([("Sub", (MEAN,)), ("Div", (DEVIATION,))], UNIT, "rgb"),
        ([("Mul", (2,)), ("Add", (-1,))], UNIT, None),
        ([("Mul", (255,))], UNIT, None),
        ([batch_normalised(255 * MEAN, 60)], "1,1,1", "rgb"),
        ([batch_normalised(0.45, 0.25)], UNIT, None),
    ],
)
def test_what_the_network_does_first_tells_what_it_wants(
    tmp_path: Path, photos: Path, steps: list[Step], scale: str, colours: str | None
) -> None:
    model = network(tmp_path / "x.onnx", *steps)
    if colours is None:
        assert asked(model, photos) == ["PIXEL_FORMAT"]
    settings = inferred(model, photos, *([] if colours else ["PIXEL_FORMAT=rgb"]))
    assert (settings["MEAN"], settings["SCALE"]) == ("0,0,0", scale)
    assert settings["PIXEL_FORMAT"] == (colours or "rgb")


@pytest.mark.parametrize(
    "step",
    [
        # Made for what was normalised before, nobody knows how.
        batch_normalised(0, 1),
        ("Mul", (1.5,)),
        ("Div", (0,)),
        # Weights of another kind than numbers for channels.
        ("Add", (np.ones(64 * 64),)),
    ],
)
def test_first_steps_that_tell_nothing(tmp_path: Path, photos: Path, step: Step) -> None:
    model = network(tmp_path / "x.onnx", step)
    assert asked(model, photos) == ["SCALE", "PIXEL_FORMAT"]


def test_onnx_own_words_for_pictures(tmp_path: Path, photos: Path) -> None:
    words = {
        "Image.BitmapPixelFormat": "Bgr8",
        "Image.NominalPixelRange": "Normalized_1_1",
    }
    settings = inferred(network(tmp_path / "x.onnx", **words), photos)
    assert settings["MEAN"] == "127.5,127.5,127.5"
    assert settings["SCALE"] == "0.0078431,0.0078431,0.0078431"
    assert settings["PIXEL_FORMAT"] == "bgr"


@pytest.mark.parametrize(
    ("mean", "colours"), [("123.675,116.28,103.53", "rgb"), ("104,117,123", "bgr")]
)
def test_imagenets_means_have_an_order(
    tmp_path: Path, photos: Path, mean: str, colours: str
) -> None:
    model = network(tmp_path / "x.onnx")
    settings = inferred(model, photos, f"MEAN={mean}", "SCALE=0.017")
    assert (settings["PIXEL_FORMAT"], settings["MEAN"]) == (colours, mean)
    assert asked(model, photos, f"MEAN={mean}") == ["SCALE"]


def test_one_channel_is_grey(tmp_path: Path, photos: Path) -> None:
    model = network(tmp_path / "x.onnx", ("Div", (255,)), shape=(1, 1, 64, 64))
    settings = inferred(model, photos)
    assert (settings["PIXEL_FORMAT"], settings["CUSTOMIZATION_FORMAT"]) == ("gray", "GRAYSCALE")
    assert settings["SCALE"] == "1"


def test_channels_last(tmp_path: Path, photos: Path) -> None:
    model = network(tmp_path / "x.onnx", shape=(1, 64, 64, 3))
    assert inferred(model, photos, *ANSWERS)["CHANNEL_FORMAT"] == "nhwc"


def test_tensors_need_no_normalisation(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1, 16), np.float32))
    settings = inferred(network(tmp_path / "x.onnx", shape=(1, 16)), tmp_path)
    assert settings["CHANNEL_FORMAT"] == "none"
    assert not {"MEAN", "SCALE", "PIXEL_FORMAT"} & set(settings)


# --- other kinds of files ---------------------------------------------------------------------


class Run:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


def checkpoint(path: Path, content: object, name: str = "data.pkl") -> Path:
    data = content if isinstance(content, bytes) else pickle.dumps(content, protocol=2)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"best/{name}", data)
    return path


def test_a_checkpoint_is_read_and_not_loaded(tmp_path: Path, photos: Path) -> None:
    """Trainer's words, the class of the network before them, and a pickle that would do harm."""
    network_class = b"cultralytics.nn.tasks\nSegmentationModel\n0"
    content = {
        "train_args": {"task": "segment", "imgsz": 320},
        "model": {"names": {0: "cat", 1: "a 'dog'"}, "harm": Run(f"touch {tmp_path}/harm")},
    }
    data = pickle.dumps(content, protocol=2)
    model = checkpoint(tmp_path / "best.pt", data[:2] + network_class + data[2:])
    settings = inferred(model, photos)
    assert settings["PT"] == str(model)
    assert (settings["INPUT_SHAPES"], settings["PIXEL_FORMAT"]) == ("[[1,3,320,320]]", "rgb")
    said = helper("infer_stanza", model, photos).stdout
    assert "segment; 2 classes: cat, a 'dog'" in said
    assert not (tmp_path / "harm").exists()


def test_a_checkpoint_of_somebody_elses(tmp_path: Path, photos: Path) -> None:
    model = checkpoint(tmp_path / "x.pt", {"names": {0: "cat"}, "imgsz": 320})
    assert asked(model, photos) == ["INPUT_SHAPES", "SCALE", "PIXEL_FORMAT"]


@pytest.mark.parametrize(
    ("name", "sizes"), [("yolo.pt", ["INPUT_SHAPES"]), ("net.torchscript", None)]
)
def test_real_files_of_pytorchs(photos: Path, name: str, sizes: list[str] | None) -> None:
    model = ROOT / "tests/data/frameworks" / name
    assert asked(model, photos) == (sizes or ["INPUT_SHAPES", "SCALE", "PIXEL_FORMAT"])


def test_torchscript_has_the_exporters_notes(tmp_path: Path, photos: Path) -> None:
    notes = {"imgsz": [96, 64], "stride": 32, "names": {"0": "cat"}, "task": "detect"}
    model = checkpoint(tmp_path / "x.torchscript", json.dumps(notes).encode(), "extra/config.txt")
    settings = inferred(model, photos)
    assert (settings["PT"], settings["INPUT_SHAPES"]) == (str(model), "[[1,3,96,64]]")


def test_a_quantised_networks_input_has_a_range(tmp_path: Path, photos: Path) -> None:
    model = ROOT / "models/mobile_int8.tflite"
    assert asked(model, photos) == ["PIXEL_FORMAT"]
    settings = inferred(model, photos, "PIXEL_FORMAT=rgb")
    assert (settings["INPUT_SHAPES"], settings["SCALE"]) == ("[[1,3,64,64]]", UNIT)
    # A float one has none; Ultralytics appends its notes.
    model = ROOT / "models/mobile_f32.tflite"
    assert asked(model, photos) == ["SCALE", "PIXEL_FORMAT"]
    noted = tmp_path / "noted.tflite"
    noted.write_bytes(model.read_bytes())
    with zipfile.ZipFile(noted, "a") as archive:
        archive.writestr("temp_meta.txt", str(ULTRALYTICS))
    assert inferred(noted, photos)["PIXEL_FORMAT"] == "rgb"


def test_caffes_weights_lie_beside(tmp_path: Path, photos: Path) -> None:
    model = ROOT / "models/mobile.prototxt"
    settings = inferred(model, photos, *ANSWERS)
    assert settings["PROTOTXT"] == "models/mobile.prototxt"
    assert settings["CAFFEMODEL"] == "models/mobile.caffemodel"
    assert "OUTPUTS" not in settings
    alone = tmp_path / "net.prototxt"
    alone.write_bytes(model.read_bytes())
    with pytest.raises(BadInput, match="CAFFEMODEL=… names them"):
        look(alone, photos)
    weights = f"CAFFEMODEL={ROOT}/models/mobile.caffemodel"
    assert inferred(alone, photos, *ANSWERS, weights)["CAFFEMODEL"] == "models/mobile.caffemodel"


@pytest.mark.parametrize(
    ("name", "kind", "where"),
    [
        ("saved_model", "SAVEDMODEL", "saved_model"),
        ("saved_model/saved_model.pb", "SAVEDMODEL", "saved_model"),
        ("paddle2", "PADDLE", "paddle2"),
        ("paddle3/inference.json", "PADDLE", "paddle3"),
        ("net.pb", "PB", "net.pb"),
    ],
)
def test_kinds_that_say_nothing_are_told_apart(
    photos: Path, name: str, kind: str, where: str
) -> None:
    model = ROOT / "tests/data/frameworks" / name
    assert asked(model, photos) == ["INPUT_SHAPES", "SCALE", "PIXEL_FORMAT"]
    settings = inferred(model, photos, *ANSWERS, "INPUT_SHAPES=[[1,3,64,64]]")
    assert settings[kind] == f"tests/data/frameworks/{where}"


# --- refusals ---------------------------------------------------------------------------------


def test_what_cannot_be_built_is_one_line(tmp_path: Path, photos: Path) -> None:
    whole = network(tmp_path / "whole.onnx").read_bytes()
    for name, content in {
        "cut.onnx": whole[:40], "x.cvimodel": b"", "x.h5": b"\x89HDF\r\n", "x.doc": b"?",
        "x.pt": b"?", "cut.tflite": b"\0\0\0\0TFL3", "lone.caffemodel": b"",
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(content)
    four = network(tmp_path / "four.onnx", shape=(4, 3, 64, 64))
    (tmp_path / "empty").mkdir()
    for model, said in {
        tmp_path / "no.onnx": "there is no such file",
        tmp_path / "cut.onnx": "isn't a complete ONNX file",
        tmp_path / "x.cvimodel": "make info FILE=",
        tmp_path / "x.h5": "model.export(",
        tmp_path / "x.doc": "no kind of network that is known",
        tmp_path / "x.pt": "no file of PyTorch's",
        tmp_path / "cut.tflite": "is damaged",
        tmp_path / "lone.caffemodel": "MODEL is the .prototxt",
        tmp_path / "empty": "a folder, but no SavedModel",
        tmp_path: f"MODEL={tmp_path}/cut.onnx?",
        four: "takes 4 pictures at once; export it for one (batch=1)",
        network(tmp_path / "two.onnx", inputs=2): "has 2 inputs",
        network(tmp_path / "half.onnx", kind=TensorProto.FLOAT16): "in0 is float16",
        network(tmp_path / "row.onnx", shape=(1, 16)): "1x16 is no picture",
    }.items():
        with pytest.raises(BadInput) as error:
            look(model, photos)
        assert said in str(error.value)
        assert "\n" not in str(error.value)
    line = refused(helper("infer_stanza", four, photos, "--out", tmp_path / "out.mk"))
    assert "takes 4 pictures at once" in line
    assert not (tmp_path / "out.mk").exists()


def test_pictures_that_are_none(tmp_path: Path, photos: Path) -> None:
    model = network(tmp_path / "best.onnx", **ULTRALYTICS)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/BMW.txt").write_text("BM, a text")
    (tmp_path / "photos.zip").write_bytes(b"PK\x03\x04")
    for name, said in {
        "nowhere": "there is no such folder; IMAGES is a folder of some hundred pictures",
        "texts": "no picture among 1 files",
        "photos/one.jpg": "is one picture",
        "photos.zip": "an archive; unpack it",
    }.items():
        with pytest.raises(BadInput, match=re.escape(said)):
            look(model, tmp_path / name)
    (tmp_path / "list.txt").write_text("photos/one.jpg\n")
    assert inferred(model, tmp_path / "list.txt")["DATASET"] == str(tmp_path / "list.txt")


def test_few_pictures_are_noted(tmp_path: Path, photos: Path) -> None:
    model = network(tmp_path / "best.onnx", **ULTRALYTICS)
    assert "best: 1 pictures are few" in helper("infer_stanza", model, photos).stdout
    for number in range(49):
        (photos / f"{number}.jpg").write_bytes((photos / "one.jpg").read_bytes())
    assert "are few" not in helper("infer_stanza", model, photos).stdout


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("SCLAE=1", "SCLAE: there is no such variable; did you mean SCALE?"),
        ("best_SCLAE=1", "did you mean SCALE?"),
        ("SCALE=255 ,x", "SCALE=255 ,x: must be a number"),
        ("PIXEL_FORMAT=RGB", "must be one of rgb, bgr"),
        ("INPUT_SHAPES=[1,3,64,64]", "must be Shapes of the inputs"),
        ("INPUT_SHAPES=[[1,3,32,32]]", "but the input in0 of"),
        ("INPUT_SHAPES=[[1,3,64,64],[1]]", "has 2 shapes, the network has 1 inputs: in0"),
    ],
)
def test_answers_that_are_wrong(tmp_path: Path, photos: Path, given: str, said: str) -> None:
    model = network(tmp_path / "best.onnx", **ULTRALYTICS)
    with pytest.raises(BadInput, match=re.escape(said)):
        look(model, photos, given)


def test_the_document_is_what_its_schema_says(tmp_path: Path, photos: Path) -> None:
    model = network(tmp_path / "x.onnx")
    done = helper("infer_stanza", model, photos, "--json", "--out", tmp_path / "out.mk")
    document = json.loads(done.stdout)
    jsonschema.validate(document, SCHEMA)
    assert [one["name"] for one in document["questions"]] == ["SCALE", "PIXEL_FORMAT"]
    # The same questions for people, a line each; and no stanza that lacks what is asked for.
    assert done.returncode == 2
    lines = done.stderr.splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == ["SCALE", "PIXEL_FORMAT"]
    assert not (tmp_path / "out.mk").exists()
    answers = [word for pair in ANSWERS for word in ("--set", pair)]
    done = helper("infer_stanza", model, photos, "--json", *answers)
    document = json.loads(done.stdout)
    jsonschema.validate(document, SCHEMA)
    assert (done.returncode, document["questions"]) == (0, [])
    assert {"name": "SCALE", "value": "1,1,1", "from": "as you gave it"} in document["settings"]


# --- the stanza -------------------------------------------------------------------------------


def test_answers_come_before_all_else_and_stay_in_the_stanza(tmp_path: Path, photos: Path) -> None:
    model = network(tmp_path / "best.onnx", **ULTRALYTICS)
    given = ("best_SCALE=0.5", "PIXEL_FORMAT=bgr", "OUTPUTS=none", "TUNE_NUM=0", "VARIANTS=bf16")
    settings = inferred(model, photos, *given)
    wanted = {"SCALE": "0.5,0.5,0.5", "PIXEL_FORMAT": "bgr", "OUTPUTS": "none", "TUNE_NUM": "0",
              "VARIANTS": "bf16"}  # fmt: skip
    assert wanted.items() <= settings.items()


def test_each_value_says_where_it_is_from(tmp_path: Path, photos: Path) -> None:
    model = network(tmp_path / "best.onnx", shape=(1, 3, "h", "w"), **ULTRALYTICS)
    done = helper(
        "infer_stanza", model, photos, "--out", tmp_path / "made/best.mk", "--name", "gate"
    )
    text = (tmp_path / "made/best.mk").read_text()
    assert done.stdout.startswith(text)
    first = "# gate: Ultralytics YOLO11n model; detect; 2 classes: cat, dog"
    assert text.splitlines()[0] == first
    assert "# imgsz = [96, 64] in the file's metadata; the input 1x3x?x? leaves it open" in text
    assert text.endswith("$(eval $(call model,gate))\n")
    # Twice the same.
    assert helper("infer_stanza", model, photos, "--name", "gate").stdout == done.stdout


def test_what_a_file_says_stays_a_comment(tmp_path: Path, photos: Path) -> None:
    notes = ULTRALYTICS | {
        "description": "x\n$(shell touch harm)\nall: ;touch harm\\",
        "names": "{0: 'a\\nb', 1: '\\\\'}",
        "imgsz": "[64, 64]\n$(error harm)",
    }
    model = network(tmp_path / "best.onnx", **notes)
    lines = helper("infer_stanza", model, photos).stdout.splitlines()
    assert all(
        line.startswith(("# ", "best_", "$(eval $(call model,best))")) for line in lines[:-1]
    )
    assert not any(line.endswith("\\") for line in lines)
    assert all(len(line) < 110 for line in lines if line.startswith("#"))


def test_names_of_classes_that_lie_beside(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    model = network(tmp_path / "x.onnx")
    assert inferred(model, photos, *ANSWERS)["LABELS"] == str(tmp_path / "labels.txt")
    assert inferred(model, photos, *ANSWERS, "LABELS=my.txt")["LABELS"] == "my.txt"
    assert "LABELS" not in inferred(network(tmp_path / "y.onnx", **ULTRALYTICS), photos)


def test_paths_from_home_and_from_here(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    model = network(tmp_path / "my best (1).onnx", **ULTRALYTICS)
    settings = inferred(model, photos)
    assert (settings["ONNX"], settings["DATASET"]) == ("~/my best (1).onnx", "~/photos")
    assert inferred(model, ROOT / "datasets/shapes")["DATASET"] == "datasets/shapes"


@pytest.mark.parametrize("letter", "'$%#:;*?[=|&\"\\\n")
def test_a_path_that_make_cannot_say(tmp_path: Path, photos: Path, letter: str) -> None:
    model = network(tmp_path / f"a{letter}b.onnx", **ULTRALYTICS)
    with pytest.raises(BadInput, match="rename it, or link to it"):
        look(model, photos)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("best.onnx", "best"), ("yolo11n-cls (1).onnx", "yolo11n_cls_1"), ("11n.pt", "net_11n"),
        ("größe.onnx", "gro_e"), ("模型.onnx", "net"), ("test.onnx", "test_net"),
        ("model.onnx", "model"), ("v1.2.onnx", "v1_2"), ("paddle", "paddle"),
    ],
)  # fmt: skip
def test_a_models_name_is_its_files(file: str, name: str) -> None:
    assert make_name(Path(file)) == name


def test_names_that_the_makefile_has_for_itself() -> None:
    text = makefile_text()
    targets = {word for line in re.findall(r"^\.PHONY:(.*)", text, re.M) for word in line.split()}
    plain = {word for word in targets if re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", word)}
    assert plain - {"FORCE"} <= RESERVED
    folders = set(re.findall(r"\$\(BUILD\)/([a-z]+)/", text))
    assert folders <= RESERVED
    variables = re.findall(r"^(\w+?)_([A-Z0-9_]+) +:?=", text, re.M)
    stanza = set(json.loads((ROOT / "schemas/stanza.schema.json").read_text())["properties"])
    assert {name for name, rest in variables if rest in stanza} <= RESERVED


def test_a_name_that_cannot_be(tmp_path: Path, photos: Path) -> None:
    model = network(tmp_path / "best.onnx", **ULTRALYTICS)
    for name in ("a b", "1a", "größe", "test"):
        with pytest.raises(BadInput, match=f"NAME={name}: "):
            check_name(name)
    assert "NAME=test: " in refused(helper("infer_stanza", model, photos, "--name", "test"))


# --- adding it --------------------------------------------------------------------------------

STANZA = "# new\ngate_ONNX = ~/gate.onnx\n$(eval $(call model,gate))\n"


@pytest.mark.parametrize(
    ("before", "gap"),
    [(b"", b""), (b"# mine\r\n", b"\n"), (b"# no end", b"\n\n"), (b"\xff\n", b"\n")],
)
def test_what_was_there_keeps_its_bytes(tmp_path: Path, before: bytes, gap: bytes) -> None:
    (tmp_path / "new.mk").write_text(STANZA)
    kept = tmp_path / "kept.mk"
    kept.write_bytes(before)
    kept.chmod(0o640)
    (tmp_path / "models.mk").symlink_to(kept)
    done = helper("add_stanza", tmp_path / "new.mk", tmp_path / "models.mk")
    assert (done.returncode, done.stderr) == (0, "")
    assert "gate is added; make gate" in done.stdout
    assert kept.read_bytes() == before + gap + STANZA.encode()
    assert kept.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "models.mk").is_symlink()


@pytest.mark.parametrize(
    ("there", "taken"),
    [("gate", []), ("other", ["gate"]), ("other", ["gate_int8"]), ("gate_int8", [])],
)
def test_a_name_that_is_taken_is_refused(tmp_path: Path, there: str, taken: list[str]) -> None:
    (tmp_path / "new.mk").write_text(STANZA)
    before = f"$(eval $(call model,{there}))\n"
    (tmp_path / "models.mk").write_text(before)
    words = [word for name in taken for word in ("--taken", name)]
    done = helper(
        "add_stanza", tmp_path / "new.mk", tmp_path / "models.mk", *words, "--variant", "int8"
    )
    assert f"has {(taken or [there])[0]} already; NAME=gate, say" in refused(done)
    assert (tmp_path / "models.mk").read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models.mk", "new.mk"]
