"""Each adapter beside the operator it replaces: known and unknown shapes, constants and inputs,
inside and outside of a subgraph. The operator itself runs in onnxruntime or, where that has no
kernel, in the reference implementation of the standard.
"""

import itertools

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from tpumake import onnx_io
from tpumake.downgrade import CannotExpress, downgrade
from tpumake.errors import BadInput

pytestmark = pytest.mark.slow

OLD = tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 26)
"""onnxruntime 1.23 is the last for Python 3.10. It ends at opset 23, and of what it has, it gets
some wrong: padding of AveragePool that counts, rows of Attention that are masked as a whole,
float16 scales."""

OLD_WRONG = {"Attention", "AveragePool", "DeformConv", "QuantizeLinear"}

RNG = np.random.default_rng(5)
F32, I64 = np.float32, np.int64


def normal(*shape, dtype=F32):
    return RNG.standard_normal(shape).astype(dtype)


def ints(*values):
    return np.array(values, I64)


def elem(array):
    return helper.np_dtype_to_tensor_dtype(array.dtype)


def node_model(
    op, arrays, opset, constants=(), dynamic=False, nested=False, results=None, outputs=1, **attrs
):
    """One node; ``constants`` are the inputs that become weights, absent inputs are None.

    ``results`` (arrays) tell type and rank of the outputs, which onnxruntime can do without.
    """
    names = [f"i{k}" if a is not None else "" for k, a in enumerate(arrays)]
    while names and not names[-1]:
        names.pop()
    ends = [f"o{k}" for k in range(outputs)]
    inputs, weights = [], []
    for k, array in enumerate(arrays):
        if array is None:
            continue
        if k in constants:
            weights.append(onnx.numpy_helper.from_array(array, names[k]))
        else:
            shape = [f"d{k}_{axis}" for axis in range(array.ndim)] if dynamic else array.shape
            inputs.append(helper.make_tensor_value_info(names[k], elem(array), shape))
    if results is None:
        kinds = [helper.make_empty_tensor_value_info(name) for name in ends]
    else:
        shapes = [
            [f"{name}_{k}" for k in range(r.ndim)] for name, r in zip(ends, results, strict=True)
        ]
        kinds = [
            helper.make_tensor_value_info(name, elem(r), shape)
            for name, r, shape in zip(ends, results, shapes, strict=True)
        ]
    node = helper.make_node(op, names, ends, name="it", **attrs)
    if nested:
        inner = [f"b{k}" for k in range(outputs)]
        bodies = []
        for name in ("then_branch", "else_branch"):
            values = [
                helper.make_tensor_value_info(n, elem(r), None)
                for n, r in zip(inner, results, strict=True)
            ]
            inside = helper.make_node(op, names, inner, name="it", **attrs)
            bodies.append(helper.make_graph([inside], name, [], values))
        node = helper.make_node("If", ["go"], ends, then_branch=bodies[0], else_branch=bodies[1])
        inputs.append(helper.make_tensor_value_info("go", TensorProto.BOOL, []))
    graph = helper.make_graph([node], "g", inputs, kinds, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def lowered(model, tmp_path, opset=17, ir=8):
    """Through a file, with the standard's checker, as the helper does it."""
    source, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
    source.write_bytes(model.SerializeToString())
    network = onnx_io.load(source)
    downgrade(network, opset, ir)
    onnx_io.save(network, target)
    onnx.checker.check_model(str(target), full_check=True)
    result = onnx.load(target)
    assert onnx_io.opset_of(result) <= opset
    assert result.ir_version <= ir
    return result


def run(model, feeds, reference=False):
    if reference:
        return ReferenceEvaluator(model).run(None, feeds)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    wanted = {value.name for value in session.get_inputs()}
    return session.run(None, {key: value for key, value in feeds.items() if key in wanted})


def assert_same(found, wanted, rtol, atol):
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        if a.dtype.kind in "fV":
            a, b = a.astype(np.float64), b.astype(np.float64)
            np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)
        else:
            np.testing.assert_array_equal(a, b)


def check(
    tmp_path,
    op,
    arrays,
    opset,
    constants=None,
    static_only=(),
    reference=False,
    outputs=1,
    rtol=1e-4,
    atol=1e-5,
    result_reference=None,
    **attrs,
):
    """Compare in every variant; those in ``static_only`` may be refused, and then must be."""
    if OLD and not reference and (opset > 23 or op in OLD_WRONG):
        pytest.skip("needs a newer onnxruntime to compare with")
    if constants is None:
        constants = tuple(range(1, len(arrays)))
    result_reference = reference if result_reference is None else result_reference
    feeds = {f"i{k}": a for k, a in enumerate(arrays) if a is not None} | {"go": np.array(True)}
    plain = node_model(op, arrays, opset, outputs=outputs, **attrs)
    wanted = run(plain, {key: feeds[key] for key in feeds if key != "go"}, reference)
    flags = (False, True)
    for weights, dynamic, nested in itertools.product(((), constants), flags, flags):
        model = node_model(op, arrays, opset, weights, dynamic, nested, wanted, outputs, **attrs)
        variant = ("dynamic" if dynamic else "static") + ("-weights" if weights else "-inputs")
        try:
            result = lowered(model, tmp_path)
        except CannotExpress as error:
            assert variant in static_only, f"{variant} refused: {error}"
            assert '"it"' in str(error) and "\n" not in str(error)
            continue
        here = {value.name: feeds[value.name] for value in model.graph.input}
        assert_same(run(result, here, result_reference), wanted, rtol, atol)


REDUCTIONS = [
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSumSquare",
]


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", [(1,), (-1, 0), (), None], ids=str)
@pytest.mark.parametrize("op", REDUCTIONS)
def test_reductions(tmp_path, op, axes, keepdims):
    data = np.abs(normal(2, 3, 4)) + 0.5
    arrays = [data] if axes is None else [data, ints(*axes)]
    check(tmp_path, op, arrays, 18, keepdims=keepdims)


@pytest.mark.parametrize("op", REDUCTIONS)
def test_reductions_of_nothing_in_particular(tmp_path, op):
    """noop_with_empty_axes: onnxruntime leaves the element-wise part out, the standard doesn't."""
    data = np.abs(normal(2, 3)) + 0.5
    for arrays in ([data], [data, ints()]):
        check(
            tmp_path,
            op,
            arrays,
            18,
            noop_with_empty_axes=1,
            reference=True,
            result_reference=False,
            keepdims=0,
        )


def test_reduced_bools(tmp_path):
    data = RNG.random((3, 4)) < 0.5
    for op in ("ReduceMax", "ReduceMin"):
        check(tmp_path, op, [data, ints(1)], 20)


def test_log_sum_exp_of_large_numbers(tmp_path):
    data = np.array([[1000.0, 1001.0], [-1000.0, -1001.0]], F32)
    check(tmp_path, "ReduceLogSumExp", [data, ints(1)], 18)


@pytest.mark.parametrize("size", [12, 13, 7])
def test_split_into_parts(tmp_path, size):
    check(tmp_path, "Split", [normal(2, size)], 18, outputs=4, axis=-1, num_outputs=4)


def test_split_into_given_parts(tmp_path):
    check(tmp_path, "Split", [normal(2, 5), ints(1, 4)], 18, outputs=2, axis=1)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_pad(tmp_path, mode):
    value = np.array(2.5, F32) if mode == "constant" else None
    data = normal(2, 3, 5, 6)
    check(tmp_path, "Pad", [data, ints(1, 2, 2, 1), value, ints(3, -2)], 19, mode=mode)
    check(tmp_path, "Pad", [data, ints(0, 0, 1, 2, 0, 0, 3, 0), value], 21, mode=mode)


def test_pad_crops_too(tmp_path):
    check(tmp_path, "Pad", [normal(4, 5), ints(-1, 2, 1, -2), np.array(1, F32)], 18)


@pytest.mark.parametrize("wanted", [(4, 9), (7, 2), (5, 6), (10, 10)])
def test_center_crop_pad(tmp_path, wanted):
    check(tmp_path, "CenterCropPad", [normal(2, 5, 6), ints(*wanted)], 18, axes=[1, 2])


RESIZES = [
    {"mode": "linear", "antialias": 1}, {"mode": "cubic", "antialias": 1},
    {"mode": "cubic", "antialias": 1, "cubic_coeff_a": -0.5, "exclude_outside": 1},
    {"mode": "linear", "antialias": 1, "coordinate_transformation_mode": "align_corners"},
    {"mode": "linear", "antialias": 1, "coordinate_transformation_mode": "asymmetric"},
    {"mode": "linear", "antialias": 1, "coordinate_transformation_mode": "pytorch_half_pixel"},
    {"mode": "linear", "coordinate_transformation_mode": "half_pixel_symmetric"},
]  # fmt: skip


@pytest.mark.parametrize("attrs", RESIZES, ids=lambda attrs: "-".join(map(str, attrs.values())))
@pytest.mark.parametrize("how", ["scales", "sizes"])
def test_resize_written_out(tmp_path, attrs, how):
    data = normal(1, 2, 9, 8)
    for sizes, scales in ((ints(4, 5), (0.45, 0.7)), (ints(13, 8), (1.5, 1.0))):
        given = (
            [data, None, np.array(scales, F32)] if how == "scales" else [data, None, None, sizes]
        )
        check(tmp_path, "Resize", given, 19, axes=[2, 3], **attrs)


@pytest.mark.parametrize("policy", ["stretch", "not_larger", "not_smaller"])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resize_keeps_aspect_ratio(tmp_path, policy, mode):
    for sizes in ((7, 12), (3, 2), (11, 4)):
        check(
            tmp_path,
            "Resize",
            [normal(1, 1, 4, 6), None, None, ints(*sizes)],
            18,
            axes=[2, 3],
            keep_aspect_ratio_policy=policy,
            mode=mode,
        )


@pytest.mark.parametrize("nearest", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
def test_resize_nearest(tmp_path, nearest):
    attrs = {"mode": "nearest", "nearest_mode": nearest}
    check(
        tmp_path,
        "Resize",
        [normal(1, 1, 4, 6), None, np.array([1.7, 0.6], F32)],
        19,
        axes=[3, 2],
        coordinate_transformation_mode="asymmetric",
        **attrs,
    )
    check(
        tmp_path,
        "Resize",
        [normal(1, 1, 4, 6), None, None, ints(9, 9)],
        19,
        axes=[2, 3],
        keep_aspect_ratio_policy="not_larger",
        **attrs,
    )


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("align", [0, 1])
def test_grid_sample(tmp_path, mode, padding, align):
    attrs = {"mode": mode, "padding_mode": padding, "align_corners": align}
    grid = (RNG.random((2, 5, 6, 2)) * 4 - 2).astype(F32)
    check(tmp_path, "GridSample", [normal(2, 3, 4, 7), grid], 20, **attrs)
    if mode != "cubic":
        grid = (RNG.random((2, 5, 2, 4, 3)) * 4 - 2).astype(F32)
        check(tmp_path, "GridSample", [normal(2, 3, 4, 5, 6), grid], 20, **attrs)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_deform_conv(tmp_path, groups, masked):
    shape = (2, groups * 6, 5, 6)
    mask = RNG.random(shape).astype(F32) if masked else None
    bias = normal(4) if masked else None
    offset = normal(2, groups * 12, 5, 6)
    check(
        tmp_path,
        "DeformConv",
        [normal(2, 4, 9, 9), normal(4, 2, 3, 2), offset, bias, mask],
        19,
        (1, 3),
        static_only=("dynamic-weights", "dynamic-inputs"),
        kernel_shape=[3, 2],
        group=2,
        offset_group=groups,
        strides=[2, 1],
        pads=[1, 0, 1, 1],
        dilations=[1, 4],
        rtol=1e-3,
        atol=1e-4,
    )


POOLS = [
    {"kernel_shape": [3, 3], "strides": [2, 2], "dilations": [2, 2], "pads": [1, 1, 1, 1]},
    {
        "kernel_shape": [3, 2],
        "dilations": [2, 1],
        "pads": [1, 0, 2, 1],
        "ceil_mode": 1,
        "strides": [2, 3],
    },
    {"kernel_shape": [2, 2], "dilations": [3, 3], "auto_pad": "VALID"},
    {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, "pads": [1, 1, 1, 1]},
    {"kernel_shape": [2, 2], "strides": [3, 3], "ceil_mode": 1, "pads": [0, 0, 1, 1]},
    {"kernel_shape": [2, 4], "strides": [3, 3], "ceil_mode": 1, "pads": [0, 0, 1, 1]},
]
"""Rounding up with windows inside, in the padding, and one of each."""

OPEN = ("dynamic-inputs", "dynamic-weights")


def pool_refusals(attrs, lp=False):
    """The variants in which sizes have to be known."""
    ceil, dilated = "ceil_mode" in attrs, "dilations" in attrs
    in_padding = ceil and attrs["strides"] == [3, 3]
    return OPEN if dilated or in_padding or (lp and ceil) else ()


@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize("attrs", POOLS, ids=str)
@pytest.mark.parametrize("size", [(11, 10), (12, 12)])
def test_average_pool(tmp_path, attrs, include, size):
    check(
        tmp_path,
        "AveragePool",
        [normal(2, 3, *size)],
        22,
        count_include_pad=include,
        static_only=pool_refusals(attrs),
        **attrs,
    )


def test_average_pool_rounding_up_is_padding(tmp_path):
    """PyTorch's rule: what rounding up adds never counts, whatever count_include_pad says."""
    x = np.ones((1, 1, 6, 6), F32)
    attrs = {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, "count_include_pad": 1}
    model = node_model("AveragePool", [x], 22, results=[x], **attrs)
    result = lowered(model, tmp_path)
    assert "ceil_mode" not in {a.name for a in result.graph.node[0].attribute}
    np.testing.assert_array_equal(run(result, {"i0": x})[0], np.ones((1, 1, 3, 3)))


@pytest.mark.parametrize("attrs", POOLS, ids=str)
@pytest.mark.parametrize("size", [(11, 10), (12, 12)])
def test_max_pool(tmp_path, attrs, size):
    refusals = pool_refusals(attrs) if 3 in attrs.get("strides", []) else ()
    check(tmp_path, "MaxPool", [normal(2, 3, *size)], 22, static_only=refusals, **attrs)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("attrs", POOLS, ids=str)
def test_lp_pool(tmp_path, attrs, order):
    check(
        tmp_path,
        "LpPool",
        [normal(2, 3, 11, 10)],
        22,
        p=order,
        static_only=pool_refusals(attrs, lp=True),
        **attrs,
    )


@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
)
def test_bitwise(tmp_path, dtype):
    info = np.iinfo(dtype)
    a = RNG.integers(info.min, info.max, (3, 4), dtype, endpoint=True)
    b = RNG.integers(info.min, info.max, (4,), dtype, endpoint=True)
    a[0, 0], a[0, 1] = info.min, info.max
    for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
        check(tmp_path, op, [a, b], 18)
    check(tmp_path, "BitwiseNot", [a], 18)


def test_bit_cast_of_one_width(tmp_path):
    check(tmp_path, "BitCast", [np.array([-1, 5, -128], np.int8)], 26, to=TensorProto.UINT8)


@pytest.mark.parametrize("dtype", [F32, np.float16])
def test_activations(tmp_path, dtype):
    x = normal(3, 40, dtype=dtype) * dtype(3)
    tolerance = {"rtol": 1e-4, "atol": 1e-6} if dtype == F32 else {"rtol": 4e-3, "atol": 2e-3}
    check(tmp_path, "Gelu", [x], 20, **tolerance)
    check(tmp_path, "Gelu", [x], 20, approximate="tanh", **tolerance)
    check(tmp_path, "Swish", [x], 24, **tolerance)
    check(tmp_path, "Swish", [x], 24, alpha=1.7, **tolerance)
    check(tmp_path, "Mish", [x], 22, reference=dtype != F32, **tolerance)


@pytest.mark.parametrize("dtype", [F32, np.float16])
def test_group_norm(tmp_path, dtype):
    tolerance = {} if dtype == F32 else {"rtol": 5e-3, "atol": 5e-3}
    x = normal(2, 6, 5, 4, dtype=dtype)
    scale, bias = normal(6, dtype=dtype), normal(6, dtype=dtype)
    check(
        tmp_path,
        "GroupNormalization",
        [x, scale, bias],
        21,
        num_groups=3,
        epsilon=1e-2,
        **tolerance,
    )


def test_group_norm_with_a_scale_for_each_group(tmp_path):
    """Only opsets 18 to 20 have it so; the standard withdrew it."""
    arrays = [normal(2, 6, 5, 4), normal(3), normal(3)]
    check(
        tmp_path,
        "GroupNormalization",
        arrays,
        18,
        num_groups=3,
        reference=True,
        result_reference=False,
    )


@pytest.mark.parametrize("axis", [-1, -2, 1, 2])
def test_rms_norm(tmp_path, axis):
    x = normal(2, 3, 8)
    check(tmp_path, "RMSNormalization", [x, normal(*x.shape[axis:])], 23, axis=axis, epsilon=1e-2)


QKV = [normal(2, 4, 5, 8), normal(2, 4, 7, 8), normal(2, 4, 7, 6)]


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("mask", ["none", "float", "bool", "one row shut"])
def test_attention(tmp_path, mask, causal):
    masks = {"none": None, "float": normal(5, 7), "bool": RNG.random((2, 1, 5, 7)) < 0.7}
    shut = np.ones((5, 7), bool)
    shut[2] = False
    given = {**masks, "one row shut": shut}[mask]
    check(tmp_path, "Attention", [*QKV, given], 23, constants=(3,), is_causal=causal)
    check(tmp_path, "Attention", [*QKV, given], 24, constants=(3,), is_causal=causal, scale=0.3)


def test_attention_of_three_dimensions(tmp_path):
    arrays = [normal(2, 5, 12), normal(2, 7, 12), normal(2, 7, 24)]
    check(tmp_path, "Attention", arrays, 23, q_num_heads=3, kv_num_heads=3)
    arrays = [normal(2, 5, 24), normal(2, 7, 12), normal(2, 7, 12)]
    check(tmp_path, "Attention", arrays, 23, q_num_heads=6, kv_num_heads=3, softcap=2.0)


def test_plain_attention_is_written_short(tmp_path):
    model = node_model("Attention", QKV, 23, results=[QKV[2]])
    kinds = [node.op_type for node in lowered(model, tmp_path).graph.node]
    assert kinds == ["Mul", "Transpose", "MatMul", "Softmax", "MatMul"]


@pytest.mark.parametrize("mode", ["max", "min", "add", "mul"])
def test_scatter(tmp_path, mode):
    data = normal(4, 5)
    indices = RNG.integers(-4, 4, (6, 3))
    check(tmp_path, "ScatterElements", [data, indices, normal(6, 3)], 18, axis=0, reduction=mode)
    indices = RNG.integers(0, 4, (3, 3, 1))
    unknown = ("dynamic-inputs",) if mode in ("max", "min") else ()
    check(
        tmp_path,
        "ScatterND",
        [data, indices, normal(3, 3, 5)],
        18,
        static_only=unknown,
        reduction=mode,
    )


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("exclusive,reverse", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_cum_prod(tmp_path, axis, exclusive, reverse):
    check(
        tmp_path,
        "CumProd",
        [normal(2, 4, 3), np.array(axis, I64)],
        26,
        exclusive=exclusive,
        reverse=reverse,
    )


@pytest.mark.parametrize("mode", ["linear", "circular"])
def test_tensor_scatter(tmp_path, mode):
    check(
        tmp_path,
        "TensorScatter",
        [normal(2, 3, 6, 4), normal(2, 3, 2, 4), ints(1, 4)],
        24,
        mode=mode,
        axis=-2,
    )


def test_col2im(tmp_path):
    columns = normal(2, 3 * 4, 16)
    check(
        tmp_path,
        "Col2Im",
        [columns, ints(7, 9), ints(2, 2)],
        18,
        strides=[2, 2],
        static_only=("dynamic-inputs",),
        dilations=[1, 2],
        pads=[0, 1, 1, 0],
    )


@pytest.mark.parametrize("dtype", ["int16", "uint16", "int8", "uint8"])
@pytest.mark.parametrize("block", [0, 2])
def test_quantisation(tmp_path, dtype, block):
    x = normal(3, 4) * 20
    scale = np.abs(normal(3, 2)) + 0.01 if block else np.abs(normal(4)) + 0.01
    info = np.iinfo(dtype)
    zero = RNG.integers(info.min, info.max, scale.shape, dtype)
    attrs = {"axis": 1, "block_size": block}
    check(tmp_path, "QuantizeLinear", [x, scale, zero], 21, **attrs)
    level = RNG.integers(info.min, info.max, x.shape, dtype)
    check(tmp_path, "DequantizeLinear", [level, scale, zero], 21, **attrs)


def test_quantisation_without_zero_point(tmp_path):
    x, scale = normal(3, 4) * 20, np.array(0.1, F32)
    for to in (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16):
        check(tmp_path, "QuantizeLinear", [x, scale], 21, output_dtype=to)


def test_four_bit_weights(tmp_path):
    level = RNG.integers(-8, 8, (3, 4)).astype(ml_dtypes.int4)
    arrays, results = [level, normal(4)], [normal(3, 4)]
    model = node_model("DequantizeLinear", arrays, 21, (0, 1), results=results, axis=1)
    assert_same(run(lowered(model, tmp_path), {}), run(model, {}, reference=True), 0, 0)


def test_half_precision_scale(tmp_path):
    x, scale = normal(3, 4, dtype=np.float16), np.array(0.1, np.float16)
    zero = np.array(3, np.uint8)
    check(tmp_path, "QuantizeLinear", [x, scale, zero], 21)
    check(tmp_path, "DequantizeLinear", [np.arange(9, dtype=np.uint8), scale, zero], 21)


BF16 = ml_dtypes.bfloat16


@pytest.mark.parametrize("op", ["Sin", "HardSwish", "Softplus", "Elu", "Selu", "Round", "Tan"])
def test_bfloat16_through_float32(tmp_path, op):
    """onnxruntime has no such kernels; the reference computes in bfloat16 and rounds more often."""
    model = node_model(op, [normal(20).astype(BF16)], 22, results=[normal(20).astype(BF16)])
    x = {"i0": normal(20).astype(BF16)}
    result = lowered(model, tmp_path)
    assert [node.op_type for node in result.graph.node] == ["Cast", op, "Cast"]
    assert_same(run(result, x, True), run(model, x, True), 3e-2, 3e-2)


def test_small_things(tmp_path):
    check(tmp_path, "IsInf", [np.array([1, np.inf, -np.inf, np.nan], np.float16)], 20)
    check(
        tmp_path,
        "Range",
        [np.array(v, np.float16) for v in (1, 9, 2)],
        27,
        reference=True,
        result_reference=False,
    )
    check(
        tmp_path,
        "SpaceToDepth",
        [normal(2, 3, 4, 6)],
        28,
        reference=True,
        result_reference=False,
        mode="CRD",
        blocksize=2,
        static_only=("dynamic-inputs", "dynamic-weights"),
    )
    check(
        tmp_path,
        "DFT",
        [normal(2, 8, 1), None, np.array(-2, I64)],
        20,
        constants=(2,),
        static_only=("static-inputs", "dynamic-inputs"),
        reference=True,
        result_reference=False,
    )
    check(tmp_path, "CastLike", [normal(3), normal(1, dtype=np.float16)], 19)
    check(tmp_path, "ConstantOfShape", [ints(2, 3)], 20)
    check(tmp_path, "EyeLike", [normal(3, 4)], 22, k=1)
    check(tmp_path, "Equal", [ints(1, 2), ints(1, 3)], 19)
    check(
        tmp_path,
        "Cast",
        [normal(3)],
        23,
        to=TensorProto.BFLOAT16,
        reference=True,
        result_reference=True,
    )


REFUSED = [
    ("Equal", [np.array(["a"]), np.array(["b"])], 19, {}),
    ("StringConcat", [np.array(["a"]), np.array(["b"])], 20, {}),
    ("BitCast", [normal(2)], 26, {"to": TensorProto.INT32}),
    ("Cast", [normal(2)], 19, {"to": TensorProto.FLOAT8E4M3FN}),
    ("Mod", [normal(2), normal(2)], 28, {}),
    ("BitShift", [ints(1), ints(1)], 28, {"direction": "LEFT"}),
]


@pytest.mark.parametrize("op,arrays,opset,attrs", REFUSED, ids=lambda value: str(value)[:12])
def test_refusals_name_operator_node_and_version(tmp_path, op, arrays, opset, attrs):
    arrays = [a.astype(object) if a.dtype.kind == "U" else a for a in arrays]
    model = node_model(op, arrays, opset, results=arrays[:1], **attrs)
    with pytest.raises(CannotExpress) as error:
        lowered(model, tmp_path)
    text = str(error.value)
    assert f'{op} "it" of opset {opset} in opset 17' in text
    assert "--outputs" in text


def test_newer_targets_get_the_newer_forms(tmp_path):
    """Asked for opset 18 or 20, what adapters write for 17 must still fit."""
    for target in (18, 20, 21):
        arrays, results = [normal(2, 8), normal(8)], [normal(2, 8)]
        model = node_model("RMSNormalization", arrays, 23, results=results)
        result = lowered(model, tmp_path, target, 10)
        assert onnx_io.opset_of(result) == target
        x = {"i0": normal(2, 8), "i1": normal(8)}
        assert_same(run(result, x), run(model, x), 1e-4, 1e-5)


def test_older_targets(tmp_path):
    """Below 17 onnx's own converter goes on, and what it can't do is refused."""
    model = node_model(
        "MaxPool", [normal(1, 2, 6, 6)], 22, results=[normal(1, 2, 5, 5)], kernel_shape=[2, 2]
    )
    x = {"i0": normal(1, 2, 6, 6)}
    assert_same(run(lowered(model, tmp_path, 13, 7), x), run(model, x), 0, 0)
    model = node_model("Gelu", [normal(2, 8)], 20, results=[normal(2, 8)])
    with pytest.raises(BadInput, match="below opset 17"):
        lowered(model, tmp_path, 13, 7)
