"""Run a network in tpu_mlir's form, or a built model on its emulator, on pictures.

Runs in the toolchain's Python. Pictures are 8-bit RGB files of exactly the network's size; what the
network wants of them (colour order, mean, scale; for a fused model the camera's frame) is made by
tpu_mlir's own code, as model_deploy makes it for its comparisons. Takes model_deploy's flags, of
which those that say nothing about the input are ignored.

What is written for each picture is an .npz of the outputs in the network's order, float32: what is
quantised in the model is given in the numbers that it stands for.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pymlir
from tools import model_runner
from tools.model_deploy import getCustomFormat
from utils.mlir_parser import MlirParser
from utils.preprocess import preprocess


def parser(description: str) -> argparse.ArgumentParser:
    """What to run, and the flags of model_deploy that tell what its input looks like."""
    arguments = argparse.ArgumentParser(description=description, allow_abbrev=False)
    add = arguments.add_argument
    add("--network", required=True, help="the float network, which says what is done to pictures")
    add("--model", required=True, help="what to run: .mlir, .cvimodel or .bmodel")
    add("--processor", default="")
    add("--fuse_preprocess", action="store_true")
    add("--customization_format", default="")
    add("--aligned_input", action="store_true")
    return arguments


class Inputs:
    """What a network is fed with, made from pictures.

    The float network and models without fused preprocessing take float32 [1,channels,h,w], models
    with it take bytes as they come from the camera.
    """

    def __init__(self, chosen: argparse.Namespace) -> None:
        # Its operations live as long as it does.
        network = MlirParser(chosen.network)
        inputs = network.inputs
        if len(inputs) != 1:
            raise RuntimeError(f"Error: the network has {len(inputs)} inputs, pictures go into one")
        self.name = inputs[0].name
        self.settings = preprocess()
        self.settings.load_config(inputs[0].op)
        if not self.settings.has_pre:
            raise RuntimeError("Error: the network's input is no picture (CHANNEL_FORMAT)")
        # Pictures come in the network's size; what else they were resized to is not wanted again.
        self.settings.resize_dims = self.settings.net_input_dims
        if chosen.fuse_preprocess:
            self.settings = self._camera(chosen)
            self.name += "_raw"

    def _camera(self, chosen: argparse.Namespace) -> preprocess:
        own, camera = self.settings, preprocess()
        camera.config(
            input_shapes=[[own.batch_size, own.channel_num, *own.net_input_dims]],
            resize_dims=own.net_input_dims,
            fuse_pre=True,
            keep_aspect_ratio=own.keep_aspect_ratio,
            keep_ratio_mode=own.keep_ratio_mode,
            pixel_format=own.pixel_format,
            customization_format=chosen.customization_format
            or getCustomFormat(own.pixel_format, own.channel_format),
            aligned=chosen.aligned_input,
            pad_type=own.pad_type,
            pad_value=own.pad_value,
            chip=chosen.processor,
        )
        return camera

    def of(self, picture: str) -> dict[str, np.ndarray]:
        """The input for a picture, by its name."""
        return {self.name: self.settings.run(picture)}


def invoke(module: pymlir.module, inputs: dict[str, np.ndarray]) -> None:
    """Run a network that is loaded in tpu_mlir's interpreter."""
    for name, values in inputs.items():
        whole = values.dtype in (np.int8, np.uint8)
        put = module.set_tensor_from_int if whole else module.set_tensor
        put(name, values.astype(np.float32))
    module.invoke()


def outputs_of(model: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a model and give its outputs, float32, in its own order."""
    if model.endswith(".mlir"):
        found = model_runner.mlir_inference(inputs, model, dump_all=False)
        # It adds what an output was before its conversion to float.
        names = list(model_runner.g_mlir_module.output_names)
        found = {name: found[name].copy() for name in names}
        model_runner.free_mlir_module()
    else:
        found = model_runner.model_inference(inputs, model, dump_all=False)
    return {name: np.asarray(values, np.float32) for name, values in found.items()}


def main() -> None:
    """Run a model on pictures."""
    arguments = parser(__doc__)
    arguments.add_argument(
        "--picture", dest="pairs", nargs=2, action="append", required=True, metavar=("PNG", "NPZ")
    )
    chosen, _ = arguments.parse_known_args()
    inputs = Inputs(chosen)
    for done, (picture, target) in enumerate(chosen.pairs, 1):
        if not Path(picture).exists():
            raise RuntimeError(f"Error: there is no picture {picture}")
        started = time.monotonic()
        outputs = outputs_of(chosen.model, inputs.of(picture))
        seconds = time.monotonic() - started
        np.savez(target, **outputs)
        print(f"PROGRESS {done} {len(chosen.pairs)} {seconds:.3f}", flush=True)
    print(f"{len(outputs)} output{'s' if len(outputs) > 1 else ''}")


if __name__ == "__main__":
    main()
