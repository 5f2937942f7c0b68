#!/usr/bin/env python3
"""Make ONNX of a network of PyTorch's: an Ultralytics checkpoint, or TorchScript.

A checkpoint is a pickle, and a pickle may run any program. Only the layers of PyTorch and of
Ultralytics are taken from one, by Ultralytics' own restricted loader and torch's `weights_only`;
what else it names is refused, unless --allow-pickle says that the file can be trusted.
"""

from __future__ import annotations

import argparse
import inspect
import io
import json
import os
import sys
import tempfile
import zipfile
from pathlib import Path

from tpumake.errors import BadInput, run_guarded

# Layers, and what Ultralytics' loader knows how to take safely.
KNOWN = ("torch.nn.modules.", "ultralytics.", "numpy.", "pathlib.", "builtins.getattr")
# The network of these is one that its own project exports.
YOLOV5 = ("models.yolo", "models.common", "models.experimental")


def load(source: Path, allow_pickle: bool) -> torch.nn.Module:
    """Load a network, ready to be run.

    :raises BadInput: if the file isn't one, or isn't safe to load
    """
    if source.is_dir():
        raise BadInput(f"{source}: is a folder; PT names a file: a checkpoint, or TorchScript")
    if not zipfile.is_zipfile(source):
        raise BadInput(f"{source}: no file of PyTorch's, or not whole")
    with zipfile.ZipFile(source) as archive:
        names = archive.namelist()
    if any(name.endswith("/constants.pkl") for name in names):
        try:
            return torch.jit.load(str(source), map_location="cpu").eval()
        except RuntimeError as error:
            raise BadInput(
                f"{source}: TorchScript that can't be loaded: {one_line(error)}"
            ) from None
    if not any(name.endswith("/data.pkl") for name in names):
        raise BadInput(f"{source}: no file of PyTorch's")
    return _network_in(_checkpoint(source, allow_pickle), source)


def _checkpoint(source: Path, allow_pickle: bool) -> object:
    try:
        import ultralytics.nn.tasks as tasks
    except ImportError:
        tasks = None
    if allow_pickle:
        return _unpickled(source, tasks)
    named = _named_in(source)
    strangers = [name for name in named if not name.startswith(KNOWN)]
    try:
        if not any(name.startswith("ultralytics.") for name in named):
            with torch.serialization.safe_globals(_layers(named)):
                return torch.load(source, map_location="cpu", weights_only=True)
        if not tasks or "safe_only" not in inspect.signature(tasks.torch_safe_load).parameters:
            raise BadInput(
                f"{source}: needs an ultralytics that loads safely, as 8.4.190 does; this Python "
                "has none"
            )
        # A link with the suffix that it wants.
        with tempfile.TemporaryDirectory(prefix="tpumake-") as folder:
            link = Path(folder) / "network.pt"
            link.symlink_to(source.absolute())
            return tasks.torch_safe_load(str(link), safe_only=True)[0]
    except BadInput:
        raise
    except Exception as error:
        cause = error.__cause__ or error
        raise BadInput(_refusal(source, strangers, str(cause))) from None


def _named_in(source: Path) -> list[str]:
    """The classes and functions that a checkpoint names, but for those that are only data."""
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):
        raise BadInput(f"torch {torch.__version__} can't load checkpoints safely, 2.6 or newer can")
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(source))
    except Exception as error:
        raise BadInput(f"{source}: a checkpoint that can't be read: {one_line(error)}") from None


def _layers(named: list[str]) -> list[type]:
    """Those of them that are layers of PyTorch's own: making one runs nothing but its own code."""
    found = []
    for name in named:
        module, _, attribute = name.rpartition(".")
        if module.startswith("torch.nn.modules."):
            layer = getattr(sys.modules.get(module), attribute, None)
            if isinstance(layer, type) and issubclass(layer, torch.nn.Module):
                found.append(layer)
    return found


def _refusal(source: Path, strangers: list[str], cause: str) -> str:
    if any(name.startswith(YOLOV5) for name in strangers):
        return (
            f"{source}: a checkpoint of YOLOv5's own project; export it there: "
            "python export.py --include onnx --opset 17"
        )
    if strangers:
        return (
            f"{source}: names {', '.join(strangers[:3])}, which may be any program, so it is not "
            "loaded. If you know who made the file: ALLOW_PICKLE = 1 in its stanza"
        )
    return f"{source}: can't be loaded without running what is in it: {one_line(cause)}"


def _unpickled(source: Path, tasks: object) -> object:
    try:
        return torch.load(source, map_location="cpu", weights_only=False)
    except Exception as error:
        raise BadInput(
            f"{source}: can't be unpickled: {one_line(error)}; with TORCH_PYTHON=… it is loaded by "
            "your own Python, which has what it needs"
        ) from None


def _network_in(checkpoint: object, source: Path) -> torch.nn.Module:
    if isinstance(checkpoint, dict):
        network = checkpoint.get("ema") or checkpoint.get("model") or checkpoint
    else:
        network = checkpoint
    if isinstance(network, torch.nn.Module):
        return network.float().eval()
    raise BadInput(
        f"{source}: holds {'weights' if isinstance(network, dict) else type(network).__name__} but "
        "no network; save it as TorchScript: torch.jit.trace(network, example).save(…)"
    )


def as_exported(network: torch.nn.Module) -> None:
    """Have a network of Ultralytics' compute what their own export writes, with the same names."""
    try:
        from ultralytics.nn import modules
        from ultralytics.nn.tasks import BaseModel
    except ImportError:
        return
    if not isinstance(network, BaseModel):
        return
    if hasattr(network, "end2end"):
        # The head without the selection of boxes in it, which no TPU computes.
        network.end2end = False
    network.fuse(verbose=False)
    for module in network.modules():
        if isinstance(module, torch.nn.Upsample) and not hasattr(module, "recompute_scale_factor"):
            module.recompute_scale_factor = None
        if hasattr(module, "export"):
            module.export, module.format, module.dynamic = True, "onnx", False
            module.shape = None
        if isinstance(module, modules.C2f):
            module.forward = module.forward_split


def convert(chosen: argparse.Namespace) -> Imported:
    """Load the network, run it, and write down as ONNX what it did."""
    wanted = shapes(chosen.input_shapes)
    network = load(chosen.source, chosen.allow_pickle)
    if not wanted:
        raise BadInput(f"{chosen.source}: says nothing of its input; set INPUT_SHAPES")
    torch.manual_seed(0)
    inputs = [example(shape) for shape in wanted]
    tensors = [torch.from_numpy(one) for one in inputs]
    before = _run(network, tensors, chosen)
    as_exported(network)
    after = _run(network, tensors, chosen)
    # Its own form gives more in other shapes where it is not exported, but the same first.
    outputs = before if len(before) == len(after) else [before[0], *after[1:]]
    if outputs[0].shape != after[0].shape:
        outputs = after
    names = ["images"] if len(inputs) == 1 else [f"images{n}" for n in range(len(inputs))]
    data = io.BytesIO()
    try:
        torch.onnx.export(
            network, tuple(tensors), data, opset_version=OPSET, input_names=names,
            output_names=[f"output{n}" for n in range(len(outputs))], **_old_exporter(),
        )  # fmt: skip
    except Exception as error:
        raise BadInput(f"{chosen.source}: can't be made into ONNX: {one_line(error)}") from None
    model = onnx.load_from_string(data.getvalue())
    framework = f"torch {torch.__version__}"
    return Imported(model, inputs, outputs, framework, notes=_notes(network, chosen.source))


def _notes(network: torch.nn.Module, source: Path) -> dict[str, str]:
    """The classes' names, as Ultralytics' own export has them in an ONNX's metadata."""
    names = getattr(network, "names", None)
    if isinstance(network, torch.jit.ScriptModule):
        names = None
        with zipfile.ZipFile(source) as archive:
            for name in archive.namelist():
                if name.endswith("/extra/config.txt"):
                    notes = json.loads(archive.read(name))
                    names = notes.get("names") if isinstance(notes, dict) else None
    if not isinstance(names, dict) or not all(str(key).isdecimal() for key in names):
        return {}
    return {"names": str({int(key): str(names[key]) for key in sorted(names, key=int)})}


def _old_exporter() -> dict[str, bool]:
    """Whose names people know; the new one, from torch 2.5 on, needs another two packages."""
    return {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}


def _run(
    network: torch.nn.Module, tensors: list[torch.Tensor], chosen: argparse.Namespace
) -> list[np.ndarray]:
    try:
        with torch.no_grad():
            results = network(*tensors)
    except Exception as error:
        raise BadInput(
            f"{chosen.source}: doesn't run on an input of {chosen.input_shapes}: {one_line(error)}"
        ) from None
    return [one.numpy() for one in _flat(results)]


def _flat(results: object) -> list[torch.Tensor]:
    if isinstance(results, torch.Tensor):
        return [results]
    values = results.values() if isinstance(results, dict) else results
    return [tensor for one in values for tensor in _flat(one)]


def main() -> int:
    """Make ONNX of SOURCE."""
    arguments = parser(__doc__, "a checkpoint of Ultralytics', or TorchScript")
    arguments.add_argument("--allow-pickle", action="store_true",
                           help="load a checkpoint even if that may run any program")  # fmt: skip
    return importer(convert, arguments)


if __name__ == "__main__":
    # Ultralytics keeps settings in the home folder, asks the network whether it is there, and
    # installs what it misses; here it does none of that.
    with tempfile.TemporaryDirectory(prefix="tpumake-") as settings:
        os.environ |= {"YOLO_CONFIG_DIR": settings, "YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0",
                       "ULTRALYTICS_SAFE_LOAD": "1", "YOLO_VERBOSE": "0"}  # fmt: skip
        try:
            import numpy as np
            import onnx
            import torch

            from tpumake.importing import (
                OPSET,
                Imported,
                example,
                importer,
                one_line,
                parser,
                quietly,
                shapes,
            )
        except ImportError as error:
            sys.exit(f"import_torch: {error}: this Python needs torch, onnx, onnxruntime")
        quietly()
        run_guarded(main)
