"""What goes into a model, with the real tool: forms of pictures, several inputs, no pictures."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import conftest
import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import ROOT, Checkout, copy_checkout, copy_project
from onnx import helper, numpy_helper

from tpumake.cvimodel_reader import DType, Tensor, read_cvimodel

sys.path.insert(0, str(ROOT / "training"))
import make_several_inputs

pytestmark = [pytest.mark.toolchain, pytest.mark.slow]

STANZAS = """
pair_ONNX           = models/pair.onnx
pair_INPUT_SHAPES   = [[1,3,32,32],[1,16]]
pair_OUTPUTS        = none
pair_DEVICE         = none
pair_DATASET        = datasets/pair
pair_CHANNEL_FORMAT = none
pair_TUNE_NUM       = 2
$(eval $(call model,pair))
vector_ONNX           = models/vector.onnx
vector_INPUT_SHAPES   = [[1,8,16]]
vector_OUTPUTS        = none
vector_DEVICE         = none
vector_DATASET        = datasets/vector
vector_CHANNEL_FORMAT = none
vector_TUNE_NUM       = 2
$(eval $(call model,vector))
stereo_ONNX         = models/stereo.onnx
stereo_INPUT_SHAPES = [[1,3,32,32],[1,3,32,32]]
stereo_OUTPUTS      = none
stereo_DEVICE       = none
stereo_SCALE        = 0.0039216,0.0039216,0.0039216
stereo_PIXEL_FORMAT = rgb
stereo_DATA_LIST    = datasets/stereo.txt
stereo_TUNE_NUM     = 0
$(eval $(call model,stereo))
"""
CUT = ",".join(
    f"/model.23/cv{branch}.{stride}/cv{branch}.{stride}.2/Conv_output_0"
    for stride in range(3)
    for branch in (2, 3)
)
# Most of these inputs are no camera's. The network is cut as it is for one.
QUICK = (*conftest.QUICK, "tiny_DEVICE=none", f"tiny_OUTPUTS={CUT}")


def inputs(checkout: Checkout, name: str) -> list[Tensor]:
    """The inputs of a cvimodel, in their order."""
    file = read_cvimodel(checkout.path / f"build/{name}/cv181x/{name}_int8.cvimodel")
    (program,) = file.model.programs
    tensors = {tensor.name: tensor for tensor in program.tensor_map}
    return [tensors[name] for name in program.input_tensors]


def shapes(tensors: list[Tensor]) -> list[tuple[DType | int, tuple[int, ...]]]:
    return [(tensor.dtype, tensor.shape.dim) for tensor in tensors]


# ---------------------------------------------------------------------------------------------
# Several inputs, and inputs that are no pictures


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout with three networks and their samples; nothing is built."""
    checkout = copy_project(tmp_path_factory.mktemp("inputs") / "check out")
    (checkout.path / "models.mk").write_text(STANZAS)
    for name in make_several_inputs.NETWORKS:
        onnx.save(make_several_inputs.build(name), checkout.path / f"models/{name}.onnx")
    for name in ("pair", "vector"):
        folder = checkout.path / "datasets" / name
        folder.mkdir()
        for index, sample in enumerate(make_several_inputs.samples(name, 12)):
            np.savez(folder / f"{index:02}.npz", **sample)
    pictures = sorted((checkout.path / "datasets/shapes/images").iterdir())[:24]
    lines = [f"shapes/images/{a.name},shapes/images/{b.name}\n" for a, b in
             zip(pictures[::2], pictures[1::2], strict=True)]  # fmt: skip
    (checkout.path / "datasets/stereo.txt").write_text("".join(lines))
    return checkout


@pytest.mark.parametrize("name", make_several_inputs.NETWORKS)
def test_the_networks_are_live_and_every_input_counts(networks: Checkout, name: str) -> None:
    session = onnxruntime.InferenceSession(networks.path / f"models/{name}.onnx")
    one, other = make_several_inputs.samples(name, 2)
    (before,) = session.run(None, one)
    assert before.std() > 0.1
    for tensor in one:
        (after,) = session.run(None, one | {tensor: other[tensor]})
        assert np.abs(after - before).max() > 0.05


def test_a_picture_and_a_vector(networks: Checkout) -> None:
    wrong = networks.path / "datasets/pair/wrong.npz"
    np.savez(wrong, image=np.zeros((1, 3, 32, 32)), vector=np.zeros((1, 15)))
    said = networks.make("pair_int8").stdout
    assert "12 samples, 9 thresholds" in said
    assert "7 of 7 tensors agree" in said
    assert "emulator ok" in said
    log = (networks.path / "build/datasets/logs/pair.log").read_text()
    assert "left out wrong.npz: holds no tensor 1x16, but 1x3x32x32, 1x15" in log
    assert shapes(inputs(networks, "pair")) == [
        (DType.FP32, (1, 3, 32, 32)), (DType.FP32, (1, 16, 1, 1)),
    ]  # fmt: skip
    # A sample of one's own, in two files; and those of the dataset, too.
    sample = make_several_inputs.samples("pair", 14)[13]
    for name, value in sample.items():
        np.save(networks.path / f"{name}.npy", value)
    said = networks.make("build/pair/pair.mlir", "pair_TEST_INPUT=image.npy,vector.npy").stdout
    assert "7 of 7 tensors agree" in said
    with np.load(networks.path / "build/pair/pair_in_f32.npz") as used:
        assert np.array_equal(used["vector"], sample["vector"])


def test_no_picture_at_all(networks: Checkout) -> None:
    said = networks.make("vector_int8").stdout
    assert "12 samples, 12 thresholds" in said
    assert "emulator ok" in said
    assert shapes(inputs(networks, "vector")) == [(DType.FP32, (1, 8, 16, 1))]


def test_samples_as_npy(networks: Checkout) -> None:
    folder = networks.path / "datasets/vector npy"
    folder.mkdir()
    for index, sample in enumerate(make_several_inputs.samples("vector", 10)):
        np.save(folder / f"{index}.npy", sample["features"])
    said = networks.make(
        "build/npy/vector/vector_calib_table", "BUILD=build/npy",
        "vector_DATASET=datasets/vector npy",
    ).stdout  # fmt: skip
    assert "10 samples, 12 thresholds" in said


def test_two_pictures_from_a_list_and_another_to_tune_by(networks: Checkout) -> None:
    lines = (networks.path / "datasets/stereo.txt").read_text().splitlines()
    (networks.path / "datasets/tune.txt").write_text("\n".join(lines[-2:]))
    said = networks.make(
        "stereo_int8", "stereo_TUNE_LIST=datasets/tune.txt", "stereo_TUNE_NUM=2"
    ).stdout
    assert "12 pictures, 6 thresholds" in said
    assert "emulator ok" in said
    assert shapes(inputs(networks, "stereo")) == [(DType.UINT8, (1, 32, 32, 3))] * 2
    data = networks.path / "build/datasets/stereo.txt-listed"
    first, second = (networks.path / "datasets" / name for name in lines[0].split(","))
    assert (data / "Calibration1_1.jpg").read_bytes() == first.read_bytes()
    assert (data / "Calibration1_2.jpg").read_bytes() == second.read_bytes()
    table = (networks.path / "build/stereo/stereo_calib_table").read_text()
    assert "# tune number: 2" in table
    # A listed picture is an input like any other.
    first.unlink()
    first.write_bytes(second.read_bytes())
    said = networks.make("build/datasets/stereo.txt-listed/manifest.json").stdout
    assert "12 of 100 wanted" in said


def test_a_sample_that_lacks_an_input_is_told(networks: Checkout) -> None:
    np.savez(networks.path / "half.npz", image=np.zeros((1, 3, 32, 32)), other=np.zeros((1, 16)))
    done = networks.make("build/pair/pair.mlir", "pair_TEST_INPUT=half.npz", check=False)
    assert "has no tensor of the name of one of the network's inputs" in done.stderr


# ---------------------------------------------------------------------------------------------
# Forms of pictures


@pytest.fixture(scope="module")
def tiny(quick: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in which all that deploying tiny needs is built."""
    return copy_checkout(quick, tmp_path_factory.mktemp("forms") / "check out")


PLANAR, PACKED = (1, 3, 64, 64), (1, 64, 64, 3)


@pytest.mark.parametrize(
    ("form", "aligned", "shape", "size"),
    [
        ("RGB_PACKED", 0, PACKED, 12288),
        ("BGR_PACKED", 1, PACKED, 12288),
        ("RGB_PLANAR", 1, PLANAR, 12288),
        ("BGR_PLANAR", 0, PLANAR, 12288),
        # Rows of luminance are padded to 128 bytes, those of colour to 64.
        ("YUV420_PLANAR", 0, PLANAR, 12288),
        ("YUV_NV12", 0, PLANAR, 6144),
        ("YUV_NV21", 1, PLANAR, 6144),
        # What they mean for three channels is nothing; the camera must hand over three planes.
        ("GRAYSCALE", 0, PLANAR, 12288),
        ("RGBA_PLANAR", 0, PLANAR, 12288),
    ],
)
def test_forms_of_pictures(
    tiny: Checkout, form: str, aligned: int, shape: tuple[int, ...], size: int
) -> None:
    said = tiny.make(
        "tiny_int8", *QUICK, f"tiny_CUSTOMIZATION_FORMAT={form}", f"tiny_ALIGNED_INPUT={aligned}"
    ).stdout
    assert "emulator ok" in said
    (tensor,) = inputs(tiny, "tiny")
    assert (tensor.dtype, tensor.shape.dim, tensor.size) == (DType.UINT8, shape, size)
    assert tensor.pixel_format == form
    assert tensor.aligned == (aligned == 1 or form.startswith("YUV"))
    assert ("means nothing" in said) == (form in ("GRAYSCALE", "RGBA_PLANAR"))


def test_a_model_that_takes_float_and_gives_whole_numbers(tiny: Checkout) -> None:
    """And many a compiler's flag at once."""
    said = tiny.make(
        "tiny_int8", *QUICK, "tiny_FUSE_PREPROCESS=0", "tiny_QUANT_INPUT=0",
        "tiny_QUANT_OUTPUT_LIST=1,3", "tiny_DISABLE_LAYER_GROUP=1", "tiny_OP_DIVIDE=1",
        "tiny_MODEL_VERSION=1.2", "tiny_COMPARE_ALL=1", "tiny_SKIP_VALIDATION=1",
        "tiny_EXCEPTS=/model.0/conv/Conv_output_0_Conv,/model.0/act/Mul_output_0_Mul",
        "tiny_TOLERANCE=0.5,0.1",
    ).stdout  # fmt: skip
    assert "not run (SKIP_VALIDATION=1)" in said
    assert shapes(inputs(tiny, "tiny")) == [(DType.FP32, PLANAR)]
    file = read_cvimodel(tiny.path / "build/tiny/cv181x/tiny_int8.cvimodel")
    assert (file.header.major, file.header.minor) == (1, 2)
    (program,) = file.model.programs
    kinds = {tensor.name: tensor.dtype for tensor in program.tensor_map}
    assert [kinds[name] for name in program.output_tensors] == [
        DType.INT8, DType.FP32, DType.INT8, DType.FP32, DType.FP32, DType.FP32,
    ]  # fmt: skip
    log = (tiny.path / "build/tiny/cv181x/logs/int8.log").read_text()
    assert int(re.search(r"^(\d+) compared", log, re.M)[1]) > 20


def test_preprocessing_and_calibration_by_other_rules(tiny: Checkout, tmp_path: Path) -> None:
    """Each of them changes what the network is given, or the thresholds."""
    build = f"BUILD={tmp_path}/build"
    table, network = (f"{tmp_path}/build/tiny/{name}" for name in ("tiny_calib_table", "tiny.mlir"))
    said = tiny.make(
        network, table, *QUICK, build, "tiny_RESIZE_DIMS=80,80", "tiny_PAD_VALUE=114",
        "tiny_PAD_TYPE=normal", "tiny_CALIBRATION_DEBUG_CMD=use_max;find_lower_th",
    ).stdout  # fmt: skip
    assert "151 of 151 tensors agree" in said
    text = Path(network).read_text()
    assert "resize_dims = [80, 80]" in text
    assert "pad_value = 114" in text
    assert 'pad_type = "normal"' in text
    with (
        np.load(f"{tmp_path}/build/tiny/tiny_in_f32.npz") as new,
        np.load(tiny.path / "build/tiny/tiny_in_f32.npz") as old,
    ):
        assert not np.array_equal(new["images"], old["images"])
    assert Path(table).read_text() != (tiny.path / "build/tiny/tiny_calib_table").read_text()


def four_channels() -> onnx.ModelProto:
    """A network of four channels, as a Bayer picture has them."""
    rng = np.random.RandomState(0)
    weight = numpy_helper.from_array(rng.uniform(-1, 1, (8, 4, 3, 3)).astype(np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], "y", kernel_shape=[3, 3], pads=[1] * 4)],
        "bayer",
        [helper.make_tensor_value_info("x", 1, [1, 4, 32, 32])],
        [helper.make_tensor_value_info("y", 1, [1, 8, 32, 32])],
        [weight],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize("chip", ["bm1688"])
def test_raw_pictures_and_flags_of_other_chips(tiny: Checkout, toolchain, chip: str) -> None:
    onnx.save(four_channels(), tiny.path / "models/bayer.onnx")
    flags = ["NUM_CORE=2", "GROUP_BY_CORES=true", "COMPRESS_MODE=all", "ADDR_MODE=io_alone",
             "IGNORE_F16_OVERFLOW=1", "WHITE_LEVEL=1023", "BLACK_LEVEL=64"]  # fmt: skip
    tiny.make(
        "tiny_f16", f"CHIP={chip}", "VALIDATE=0", "BUILD=build/raw", "tiny_OPT=1",
        "tiny_ONNX=models/bayer.onnx", "tiny_OUTPUTS=none", "tiny_INPUT_SHAPES=[[1,4,32,32]]",
        "tiny_MEAN=0,0,0,0", "tiny_SCALE=1,1,1,1", "tiny_PIXEL_FORMAT=rggb",
        "tiny_FUSE_PREPROCESS=1", "tiny_CUSTOMIZATION_FORMAT=RGGB_RAW",
        *[f"tiny_{flag}" for flag in flags],
    )  # fmt: skip
    model = tiny.path / f"build/raw/tiny/{chip}/tiny_f16.bmodel"
    info = toolchain.run(["model_tool", "--info", str(model)], tiny.path).stdout
    # Two pixels of 12 bits in three bytes.
    assert "x_raw, [1, 1, 64, 96], uint8" in info


@pytest.mark.full
@pytest.mark.parametrize(
    ("form", "pixels", "channels", "validate"),
    [("GRAYSCALE", "gray", 1, 1), ("RGBA_PLANAR", "rgba", 4, 0)],
)
def test_forms_of_other_channels(
    tiny: Checkout, form: str, pixels: str, channels: int, validate: int
) -> None:
    rng = np.random.RandomState(0)
    weight = rng.uniform(-1, 1, (8, channels, 3, 3)).astype(np.float32)
    model = four_channels()
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = channels
    onnx.save(model, tiny.path / "models/channels.onnx")
    scale = ",".join(["0.0039216"] * channels)
    said = tiny.make(
        "tiny_int8", *QUICK, "tiny_ONNX=models/channels.onnx", "tiny_OUTPUTS=none",
        f"tiny_INPUT_SHAPES=[[1,{channels},32,32]]", f"tiny_PIXEL_FORMAT={pixels}",
        f"tiny_MEAN={','.join('0' * channels)}", f"tiny_SCALE={scale}",
        f"tiny_CUSTOMIZATION_FORMAT={form}", "tiny_ALIGNED_INPUT=0", "tiny_KEEP_ASPECT_RATIO=0",
        f"VALIDATE={validate}",
    ).stdout  # fmt: skip
    assert "means nothing" not in said
    assert ("emulator ok" in said) == bool(validate)
    assert shapes(inputs(tiny, "tiny")) == [(DType.UINT8, (1, channels, 32, 32))]


@pytest.mark.full
def test_asymmetric_int8_is_what_symmetric_is(tiny: Checkout) -> None:
    """Why it is refused. ASYMMETRIC_<version> names the chips where it is another."""
    tiny.make("tiny_int8", "tiny_int8_asym", *QUICK, "ASYMMETRIC_1.7=cv181x", "VALIDATE=0")
    models = tiny.path / "build/tiny/cv181x"
    assert (models / "tiny_int8_asym.cvimodel").read_bytes() == (
        models / "tiny_int8.cvimodel"
    ).read_bytes()
