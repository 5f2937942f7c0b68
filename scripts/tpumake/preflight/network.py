"""The network's file and its inputs."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from tpumake import onnx_io
from tpumake.errors import BadInput
from tpumake.onnx_io import Network
from tpumake.preflight.finding import ERROR, WARNING, Finding
from tpumake.preflight.plan import Plan, Shape, shapes

__all__ = ["check_file", "check_inputs", "read", "sides", "sniff"]

# What a file is, by its first bytes; and the variable that takes it, if one does.
_SIGNS = (
    (b"CviModel", "a finished cvimodel", ""),
    (b"\xee\xaa\x55\xff", "a finished bmodel", ""),
    (b"\x89HDF\r\n\x1a\n", "a Keras file (HDF5); save it as SavedModel", "SAVEDMODEL"),
    (b"PK\x03\x04", "a PyTorch file", "PT"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file: git lfs pull", ""),
    (b"<!DOCTYPE", "a web page: the download went wrong", ""),
    (b"<html", "a web page: the download went wrong", ""),
)
_TFLITE = b"TFL3"
# Suffixes that files of each kind have.
_SUFFIXES = {
    "ONNX": (".onnx",), "PT": (".pt", ".pth", ".torchscript", ".ts"), "PB": (".pb",),
    "TFLITE": (".tflite", ".lite"), "PROTOTXT": (".prototxt",),
    "TORCHSCRIPT": (".pt", ".pth", ".torchscript", ".ts"),
}  # fmt: skip
_FED = {TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64}


def sniff(head: bytes) -> tuple[str, str]:
    """What a file is that begins so, and which variable takes it; nothing if it may be ONNX."""
    if head[4:8] == _TFLITE:
        return "a TensorFlow Lite file", "TFLITE"
    for sign, what, variable in _SIGNS:
        if head.startswith(sign):
            return what, variable
    return "", ""


def check_file(plan: Plan) -> list[Finding]:
    """Is the network there, and what its variable says?"""
    where = plan.variable(plan.kind)
    if not plan.source.exists():
        if plan.value("URL"):
            return []
        return [Finding("missing", ERROR, where, f"there is no {plan.source}", "check the name")]
    if plan.source.is_dir() or plan.kind not in _SUFFIXES:
        return []
    with plan.source.open("rb") as file:
        what, variable = sniff(file.read(64))
    # TorchScript is what PT may be, too.
    takes = {plan.kind} | ({"PT"} if plan.kind == "TORCHSCRIPT" else set())
    if what and variable not in takes:
        remedy = f"name it by {plan.variable(variable)}" if variable else "name the network"
        return [Finding("kind", ERROR, where, f"{plan.source} is {what}", remedy)]
    known = [kind for kind, each in _SUFFIXES.items() if plan.source.suffix.lower() in each]
    # Of files of text or protobuf the first bytes say little, the name is all there is.
    if not what and known and plan.kind not in known:
        remedy = f"is it {plan.variable(known[0])}?"
        what = f"{plan.source} has the suffix of another kind"
        return [Finding("kind", WARNING, where, what, remedy)]
    return []


def read(plan: Plan) -> tuple[Network | None, list[Finding]]:
    """Read an ONNX; nothing, and why, where it can't be."""
    try:
        return onnx_io.load(plan.source), []
    except BadInput as error:
        what, _, remedy = str(error).partition("; ")
        return None, [Finding("unreadable", ERROR, plan.variable(plan.kind), what, remedy)]


def sides(value: onnx.ValueInfoProto) -> list[int]:
    """A tensor's shape, 0 for each side that is not a fixed number."""
    return [max(dim.dim_value, 0) for dim in value.type.tensor_type.shape.dim]


def check_inputs(plan: Plan, model: onnx.ModelProto) -> list[Finding]:
    """Do INPUT_SHAPES and the network agree, and is all said that must be?"""
    inputs, said = onnx_io.fed_inputs(model.graph), shapes(plan.value("INPUT_SHAPES"))
    where = plan.variable("INPUT_SHAPES")
    if not inputs:
        return [Finding("inputs", ERROR, plan.variable(plan.kind), "it has no input",
                        "export the network without its data")]  # fmt: skip
    found = _typed(plan, inputs)
    has = ", ".join(f"{value.name} {_form(value)}" for value in inputs)
    if said and len(said) != len(inputs):
        what = f"{len(said)} shapes, the network has {len(inputs)} inputs: {has}"
        remedy = f"for instance {plan.variable('INPUT_SHAPES')} = {_offer(inputs)}"
        return [*found, Finding("shapes", ERROR, where, what, remedy)]
    for index, value in enumerate(inputs):
        found += _one_input(plan, value, said[index] if said else None, _offer(inputs))
    if not said and plan.fused and not any(each.name == "dynamic" for each in found):
        # Fused preprocessing writes the picture's shape down, and aborts where none was given.
        what = "it is not set, which FUSE_PREPROCESS = 1 needs"
        found.append(Finding("shapes", ERROR, where, what, f"set it to {_offer(inputs)}"))
    return found


def _typed(plan: Plan, inputs: list[onnx.ValueInfoProto]) -> list[Finding]:
    where = plan.variable(plan.kind)
    return [
        Finding("inputs", WARNING, where,
                f"its input {value.name} is {TensorProto.DataType.Name(kind)}, which tpu_mlir "
                "takes for float", "export it with a float input")
        for value in inputs
        if (kind := value.type.tensor_type.elem_type) not in _FED
    ]  # fmt: skip


def _one_input(
    plan: Plan, value: onnx.ValueInfoProto, said: Shape | None, offer: str
) -> list[Finding]:
    where, has = plan.variable("INPUT_SHAPES"), sides(value)
    if said is None:
        if 0 in has:
            what = f"the network's input {value.name} is {_form(value)}, which is not fixed"
            return [Finding("dynamic", ERROR, where, what, f"set it to {offer}")]
        return _batch(plan, has, value.name)
    if len(said) != len(has):
        what = f"{list(said)} has {len(said)} sides, the network's {value.name} {_form(value)}"
        return [Finding("shapes", ERROR, where, what, f"set it to {offer}")]
    found = _batch(plan, list(said), value.name)
    unlike = [(a, b) for a, b in zip(said, has, strict=True) if b and a != b]
    if unlike:
        # tpu_mlir takes another size, though the network may have its own folded in; channels that
        # differ it can't take, and says so long after.
        severity = ERROR if len(has) == 4 and has[1] and said[1] != has[1] else WARNING
        what = f"{list(said)}, but the network's {value.name} is {_form(value)}"
        remedy = f"set it to {offer}, or export the network again in this size"
        found.append(Finding("shapes", severity, where, what, remedy))
    return found


def _batch(plan: Plan, shape: list[int], name: str) -> list[Finding]:
    if len(shape) < 2 or shape[0] in (0, 1) or not plan.pictures:
        return []
    one = f"[[{','.join(map(str, [1, *shape[1:]]))}]]"
    what = f"{name} takes {shape[0]} pictures at once, a camera gives one"
    return [Finding("batch", WARNING, plan.variable("INPUT_SHAPES"), what,
                    f"set it to {one}, or export with batch 1")]  # fmt: skip


def _form(value: onnx.ValueInfoProto) -> str:
    dims = value.type.tensor_type.shape.dim
    return "×".join(str(dim.dim_value) if dim.dim_value > 0 else dim.dim_param or "?"
                    for dim in dims) or "of unknown shape"  # fmt: skip


def _offer(inputs: list[onnx.ValueInfoProto]) -> str:
    """INPUT_SHAPES that fit the network: what is not fixed is what detectors mostly have."""
    usual = {4: (1, 3, 640, 640), 3: (1, 1, 1), 2: (1, 1)}
    offered = []
    for value in inputs:
        has = sides(value) or [1]
        fallback = usual.get(len(has), (1,) * len(has))
        offered.append([side or fallback[index] for index, side in enumerate(has)])
    return str(offered).replace(" ", "")
