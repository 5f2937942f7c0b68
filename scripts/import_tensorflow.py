#!/usr/bin/env python3
"""Make ONNX of a network of TensorFlow's: a frozen graph, a SavedModel, or a TensorFlow Lite file.

Pictures go in with their colour channels first, as tpu_mlir wants them, whatever the network's own
order. What is quantised in a TensorFlow Lite network becomes float again.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx

from tpumake.errors import BadInput, run_guarded
from tpumake.importing import (
    OPSET,
    Imported,
    example,
    fix_shapes,
    importer,
    one_line,
    parser,
    quietly,
    shapes,
)

TFLITE_MAGIC = b"TFL3"
# What takes part in no result.
SILENT = ("Const", "NoOp", "Assert", "Placeholder")
CHANNELS = (1, 3, 4)
# A quantised network's steps, as a share of a tensor's largest value: what is float again may be
# some steps away.
STEPS = 0.1


class Input(NamedTuple):
    """One input: its tensor's name, its shape with None for what is open, its type."""

    name: str
    shape: list[int | None]
    kind: type

    @property
    def channels_last(self) -> bool:
        """Whether it is a picture with its colour channels last."""
        return len(self.shape) == 4 and self.shape[3] in CHANNELS and self.shape[1] not in CHANNELS

    @property
    def as_onnx(self) -> list[int | None]:
        """The shape with the channels first."""
        n, h, w, c = self.shape if self.channels_last else (0, 0, 0, 0)
        return [n, c, h, w] if self.channels_last else self.shape


def convert(chosen: argparse.Namespace) -> Imported:
    """Load the network, run it on its own framework, and make it ONNX."""
    wanted, source = shapes(chosen.input_shapes), chosen.source
    if source.is_dir():
        return _from_graph(*_saved_model(source), wanted)
    data = source.read_bytes()
    if data[4:8] == TFLITE_MAGIC:
        return _from_tflite(source, wanted)
    if source.suffix == ".tflite":
        raise BadInput(f"{source}: no TensorFlow Lite network")
    if source.name == "saved_model.pb":
        raise BadInput(
            f"{source}: part of a SavedModel; name its folder: SAVEDMODEL = {source.parent}"
        )
    return _from_graph(*_frozen_graph(source, data), wanted)


def _frozen_graph(
    source: Path, data: bytes
) -> tuple[Path, tf.compat.v1.GraphDef, list[Input], list[str]]:
    definition = tf.compat.v1.GraphDef()
    try:
        definition.ParseFromString(data)
        graph = _graph(definition)
    except Exception as error:
        raise BadInput(f"{source}: no frozen graph, or not whole: {one_line(error)}") from None
    operations = graph.get_operations()
    variables = [one.name for one in operations if one.type in ("VariableV2", "VarHandleOp")]
    if variables:
        raise BadInput(f'{source}: its weights are elsewhere ("{variables[0]}"): freeze it first')
    inputs = [_input(one.outputs[0]) for one in operations if one.type == "Placeholder"]
    outputs = [
        one.outputs[0].name
        for one in operations
        if one.outputs
        and one.type not in SILENT
        and not any(out.consumers() for out in one.outputs)
    ]
    if not inputs or not outputs:
        raise BadInput(f"{source}: no frozen graph: it has no {'output' if inputs else 'input'}")
    return source, definition, inputs, outputs


def _saved_model(source: Path) -> tuple[Path, tf.compat.v1.GraphDef, list[Input], list[str]]:
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    if not (source / "saved_model.pb").is_file():
        raise BadInput(f"{source}: no SavedModel: there is no saved_model.pb in it")
    try:
        # Held: its weights go with it.
        loaded = tf.saved_model.load(str(source))
        names = sorted(loaded.signatures)
    except Exception as error:
        raise BadInput(f"{source}: a SavedModel that can't be loaded: {one_line(error)}") from None
    if not names:
        raise BadInput(f"{source}: has no signature to run; save it with signatures=…")
    name = "serving_default" if "serving_default" in names else names[0]
    frozen = convert_variables_to_constants_v2(loaded.signatures[name])
    inputs = [_input(one) for one in frozen.inputs if one.dtype != tf.resource]
    outputs = [one.name for one in frozen.outputs]
    return source, frozen.graph.as_graph_def(), inputs, outputs


def _graph(definition: tf.compat.v1.GraphDef) -> tf.Graph:
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(definition, name="")
    return graph


def _input(tensor: tf.Tensor) -> Input:
    if tensor.shape.rank is None:
        raise BadInput(f'input "{tensor.name}" has no shape; freeze the network with one')
    return Input(tensor.name, list(tensor.shape), tensor.dtype.as_numpy_dtype)


def _from_graph(
    source: Path, definition: tf.compat.v1.GraphDef, inputs: list[Input], outputs: list[str],
    wanted: list[list[int]],
) -> Imported:  # fmt: skip
    shaped = fix_shapes([(one.name, one.as_onnx) for one in inputs], wanted)
    examples = [example(shape, one.kind) for shape, one in zip(shaped, inputs, strict=True)]
    own = [_own_order(one, value) for one, value in zip(inputs, examples, strict=True)]
    try:
        with tf.compat.v1.Session(graph=_graph(definition)) as session:
            feed = {one.name: value for one, value in zip(inputs, own, strict=True)}
            results = session.run(outputs, feed)
    except Exception as error:
        raise BadInput(f"{source}: doesn't run on inputs of {shaped}: {one_line(error)}") from None
    try:
        model, _ = tf2onnx.convert.from_graph_def(
            definition,
            input_names=[one.name for one in inputs],
            output_names=outputs,
            opset=OPSET,
            inputs_as_nchw=[one.name for one in inputs if one.channels_last],
            shape_override={
                one.name: list(value.shape) for one, value in zip(inputs, own, strict=True)
            },
        )
    except (Exception, SystemExit) as error:
        raise BadInput(f"{source}: can't be made into ONNX: {one_line(error)}") from None
    return Imported(model, examples, results, f"tensorflow {tf.__version__}")


def _own_order(one: Input, value: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(value.transpose(0, 2, 3, 1)) if one.channels_last else value


def _from_tflite(source: Path, wanted: list[list[int]]) -> Imported:
    _insist_on_whole(source)
    try:
        network = tf.lite.Interpreter(str(source), num_threads=1)
        inputs = [
            # -1 is an open size; what the file gives beside it is 1.
            Input(one["name"], [None if size < 0 else int(size) for size in one["shape_signature"]],
                  one["dtype"])
            for one in network.get_input_details()
        ]  # fmt: skip
        for one in (*network.get_input_details(), *network.get_output_details()):
            if one["quantization"][0]:
                kind = np.dtype(one["dtype"]).name
                raise BadInput(
                    f'{source}: "{one["name"]}" is {kind}; convert the network with inputs and '
                    "outputs of float32 (inference_input_type, inference_output_type)"
                )
        shaped = fix_shapes([(one.name, one.as_onnx) for one in inputs], wanted)
        examples = [example(shape) for shape in shaped]
        for detail, one, value in zip(network.get_input_details(), inputs, examples, strict=True):
            network.resize_tensor_input(detail["index"], _own_order(one, value).shape)
        network.allocate_tensors()
        for detail, one, value in zip(network.get_input_details(), inputs, examples, strict=True):
            network.set_tensor(detail["index"], _own_order(one, value))
        network.invoke()
        details = network.get_output_details()
        results = [network.get_tensor(one["index"]) for one in details]
    except ValueError as error:
        raise BadInput(
            f"{source}: no TensorFlow Lite network, or not whole: {one_line(error)}"
        ) from None
    quantised = any(one["quantization"][0] for one in network.get_tensor_details())
    try:
        model = _tflite_as_onnx(source, inputs)
    except (Exception, SystemExit) as error:
        raise BadInput(f"{source}: can't be made into ONNX: {one_line(error)}") from None
    return Imported(
        model, examples, results, f"tensorflow {tf.__version__}", STEPS if quantised else None
    )


def _insist_on_whole(source: Path) -> None:
    """Read every part of the file: the interpreter believes its offsets, and dies of wrong ones."""
    from tensorflow.lite.python import schema_py_generated as schema

    try:
        network = schema.ModelT.InitFromPackedBuf(bytearray(source.read_bytes()), 0)
        graph = network.subgraphs[0]
        used = [index for one in graph.operators for index in (*one.inputs, *one.outputs)]
        whole = all(index < len(graph.tensors) for index in used) and all(
            one.buffer < len(network.buffers) for one in graph.tensors
        )
    except Exception:
        whole = False
    if not whole:
        raise BadInput(f"{source}: no TensorFlow Lite network, or not whole")


def _tflite_as_onnx(source: Path, inputs: list[Input]) -> onnx.ModelProto:
    from tf2onnx.convert import _convert_common

    model, _ = _convert_common(
        None,
        tflite_path=str(source),
        name="main",
        opset=OPSET,
        dequantize=True,
        inputs_as_nchw=[one.name for one in inputs if one.channels_last],
    )
    return model


def main() -> int:
    """Make ONNX of SOURCE."""
    about = "a frozen graph, a TensorFlow Lite file, or the folder of a SavedModel"
    return importer(convert, parser(__doc__, about))


if __name__ == "__main__":
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
    quietly()
    import tensorflow as tf
    import tf2onnx

    run_guarded(main)
