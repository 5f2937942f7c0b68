#!/usr/bin/env python3
"""Make ONNX of a network of PaddlePaddle's: the folder of an inference model.

Paddle 3 writes NAME.json and NAME.pdiparams, Paddle 2 NAME.pdmodel and NAME.pdiparams.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnx

from tpumake.errors import BadInput, run_guarded
from tpumake.importing import (
    OPSET,
    Imported,
    example,
    fix_shapes,
    importer,
    input_shapes,
    one_line,
    parser,
    quietly,
    set_input_shapes,
    shapes,
)


def files(folder: Path) -> tuple[Path, Path]:
    """Find the network's structure and weights.

    :raises BadInput: if the folder doesn't hold just one network
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}: is a file; PADDLE names the folder that it lies in")
    weights = sorted(folder.glob("*.pdiparams"))
    found = [
        (weight.with_suffix(suffix), weight)
        for weight in weights
        for suffix in (".json", ".pdmodel")
        if weight.with_suffix(suffix).exists()
    ]
    if not found:
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
        raise BadInput(
            f"{folder}: holds no NAME.json or NAME.pdmodel with NAME.pdiparams beside it but "
            f"{there}; save the network with paddle.jit.save"
        )
    if len({weight for _, weight in found}) > 1:
        names = ", ".join(weight.stem for _, weight in found)
        raise BadInput(f"{folder}: holds more than one network: {names}; give each its folder")
    return found[0]


def convert(chosen: argparse.Namespace) -> Imported:
    """Load the network, make it ONNX, and run it on its own framework."""
    wanted = shapes(chosen.input_shapes)
    structure, weights = files(chosen.source)
    with tempfile.TemporaryDirectory(prefix="tpumake-") as folder:
        # The converter takes names apart at their dots, and writes beside them.
        here = Path(folder) / f"network{structure.suffix}"
        shutil.copyfile(structure, here)
        shutil.copyfile(weights, here.with_suffix(".pdiparams"))
        try:
            predictor = _predictor(here)
            model = _onnx(here)
        except (Exception, SystemExit) as error:
            raise BadInput(f"{structure}: can't be read: {one_line(error)}") from None
        known = input_shapes(model)
        shaped = fix_shapes(known, wanted)
        model = set_input_shapes(model, shaped)
        kinds = [onnx.helper.tensor_dtype_to_np_dtype(one.type.tensor_type.elem_type)
                 for one in model.graph.input]  # fmt: skip
        inputs = [example(shape, kind) for shape, kind in zip(shaped, kinds, strict=True)]
        try:
            outputs = _run(predictor, dict(zip((name for name, _ in known), inputs, strict=True)))
        except Exception as error:
            raise BadInput(
                f"{structure}: doesn't run on inputs of {shaped}: {one_line(error)}"
            ) from None
    return Imported(model, inputs, outputs, f"paddle {paddle.__version__}")


def _onnx(structure: Path) -> onnx.ModelProto:
    data = paddle2onnx.export(
        str(structure), str(structure.with_suffix(".pdiparams")), opset_version=OPSET,
        auto_upgrade_opset=False, optimize_tool="None",
    )  # fmt: skip
    return onnx.load_from_string(data)


def _predictor(structure: Path) -> paddle.inference.Predictor:
    settings = paddle.inference.Config(str(structure), str(structure.with_suffix(".pdiparams")))
    settings.disable_glog_info()
    settings.disable_gpu()
    settings.switch_ir_optim(False)
    settings.disable_mkldnn()
    return paddle.inference.create_predictor(settings)


def _run(predictor: paddle.inference.Predictor, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    for name, value in inputs.items():
        handle = predictor.get_input_handle(name)
        handle.reshape(value.shape)
        handle.copy_from_cpu(value)
    predictor.run()
    names = predictor.get_output_names()
    return [predictor.get_output_handle(name).copy_to_cpu() for name in names]


def main() -> int:
    """Make ONNX of SOURCE."""
    return importer(convert, parser(__doc__, "the folder of an inference model"))


if __name__ == "__main__":
    os.environ |= {"GLOG_minloglevel": "3", "FLAGS_call_stack_level": "0"}
    quietly()
    import paddle
    import paddle2onnx

    run_guarded(main)
