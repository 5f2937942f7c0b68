"""What the importers of other frameworks' networks share.

They run in their framework's own environment (`.extras/<framework>`), where of tpumake's own
packages only onnx, onnxruntime and numpy are.
"""

from __future__ import annotations

import argparse
import ast
import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx

from tpumake.errors import BadInput, CheckFailed
from tpumake.files import atomic_write

__all__ = [
    "OPSET",
    "Imported",
    "example",
    "fix_shapes",
    "importer",
    "input_shapes",
    "parser",
    "quietly",
    "set_input_shapes",
    "shapes",
]

# The highest that tpu_mlir 1.7 reads; downgrade has the least to do then.
OPSET = 17
# How far ONNX's outputs may be from the framework's, as a share of a tensor's largest value: both
# compute in float32, in another order.
TOLERANCE = 1e-3
SEED = 0


class Imported(NamedTuple):
    """A network as ONNX, what it was run on, and what its own framework made of that.

    ``inputs`` and ``outputs`` are float or integer arrays, in the order of the network's.
    ``framework`` is its name and version, for people. ``tolerance`` is how far ONNX's outputs may
    be from ``outputs``, as a share of a tensor's largest value.
    """

    model: onnx.ModelProto
    inputs: list[np.ndarray]
    outputs: list[np.ndarray]
    framework: str
    tolerance: float | None = None


def parser(about: str, source: str) -> argparse.ArgumentParser:
    """The arguments that all importers take: SOURCE, OUT and the inputs' shapes."""
    arguments = argparse.ArgumentParser(
        description=about,
        epilog="Exit codes: 0 written, 1 the result isn't the original's, 2 bad input.",
    )
    arguments.add_argument("source", metavar="SOURCE", type=Path, help=source)
    arguments.add_argument("target", metavar="OUT", type=Path, help="the ONNX file to write")
    arguments.add_argument(
        "--input-shapes",
        default="",
        metavar="[[1,3,640,640]]",
        help="shapes of the inputs, batch first, channels before height",
    )
    return arguments


def importer(
    convert: Callable[[argparse.Namespace], Imported], arguments: argparse.ArgumentParser
) -> int:
    """Convert as the command line says, compare, write, and print one line about it.

    :raises BadInput: SOURCE isn't there, or isn't what it should be
    :raises CheckFailed: ONNX computes something else than the framework
    """
    chosen = arguments.parse_args()
    if not chosen.source.exists():
        raise BadInput(f"{chosen.source}: there is no such file or folder")
    if not chosen.target.absolute().parent.is_dir():
        raise BadInput(f"{chosen.target.parent}: there is no such folder")
    imported = convert(chosen)
    model = imported.model
    settle(model)
    difference = compare(imported)
    with atomic_write(chosen.target) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
    print(
        f"opset {opset(model)}, {len(model.graph.node)} nodes, same outputs as "
        f"{imported.framework} (largest difference {difference:.0g})"
    )
    return 0


def shapes(text: str) -> list[list[int]]:
    """Read shapes as a stanza has them: ``[[1,3,640,640]]``; none for an empty text.

    :raises BadInput: if the text is something else
    """
    if not text:
        return []
    try:
        lists = ast.literal_eval(text)
        if all(isinstance(size, int) and size > 0 for one in lists for size in one):
            return [list(one) for one in lists]
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError):
        pass
    raise BadInput(f"INPUT_SHAPES = {text}: must look like [[1,3,640,640]]")


def fix_shapes(
    known: list[tuple[str, list[int | None]]], wanted: list[list[int]]
) -> list[list[int]]:
    """Settle the inputs' shapes: the network's own, and the stanza's where it leaves them open.

    :param known: name and shape of each input; None for a size that the network leaves open
    :param wanted: what INPUT_SHAPES says; may be empty
    :raises BadInput: if the two don't agree, or a size stays open
    """
    if wanted and len(wanted) != len(known):
        raise BadInput(
            f"INPUT_SHAPES has {len(wanted)} shapes, the network has {len(known)} inputs: "
            + ", ".join(name for name, _ in known)
        )
    if not wanted:
        for name, shape in known:
            if None in shape:
                raise BadInput(
                    f'input "{name}" is {_text(shape)}, whose ? is up to you: set INPUT_SHAPES'
                )
        return [list(shape) for _, shape in known]
    for (name, shape), mine in zip(known, wanted, strict=True):
        fits = len(shape) == len(mine) and all(
            one in (None, other) for one, other in zip(shape, mine, strict=False)
        )
        if not fits:
            raise BadInput(f'input "{name}" is {_text(shape)}, INPUT_SHAPES says {_text(mine)}')
    return wanted


def _text(shape: list[int | None]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape)


def example(shape: list[int], kind: np.dtype | type = np.float32) -> np.ndarray:
    """A random input, the same each time: 0 to 1, or 0 to 9 where it is of whole numbers."""
    generator = np.random.default_rng([SEED, *shape])
    if np.issubdtype(kind, np.integer):
        return generator.integers(0, 10, shape).astype(kind)
    return generator.random(shape).astype(kind)


def input_shapes(model: onnx.ModelProto) -> list[tuple[str, list[int | None]]]:
    """Name and shape of each input of an ONNX network; None for a size that is left open."""
    weights = {one.name for one in model.graph.initializer}
    return [
        (one.name, [size.dim_value or None for size in one.type.tensor_type.shape.dim])
        for one in model.graph.input
        if one.name not in weights
    ]


def set_input_shapes(model: onnx.ModelProto, wanted: list[list[int]]) -> onnx.ModelProto:
    """Give a network's inputs these shapes, and have the other tensors' follow."""
    for one, shape in zip(model.graph.input, wanted, strict=True):
        for size, value in zip(one.type.tensor_type.shape.dim, shape, strict=True):
            size.Clear()
            size.dim_value = value
    del model.graph.value_info[:]
    for one in model.graph.output:
        one.type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(model)


def settle(model: onnx.ModelProto) -> None:
    """Take out of a network what says where, when and by what it was made, and computes nothing."""
    model.producer_name, model.producer_version, model.domain = "tpumake", "", ""
    model.doc_string, model.model_version = "", 0
    del model.metadata_props[:]
    model.graph.name = "main"
    _settle_graph(model.graph)
    _settle_order(model.graph)


def _settle_graph(graph: onnx.GraphProto) -> None:
    graph.doc_string = ""
    del graph.metadata_props[:]
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]
    for node in graph.node:
        for attribute in node.attribute:
            attribute.doc_string = ""
            if attribute.type == onnx.AttributeProto.GRAPH:
                _settle_graph(attribute.g)


# A name that a converter made up: what it stands for, and a number.
_MADE_UP = re.compile(r"__\d+(?=$|:)")


def _settle_order(graph: onnx.GraphProto) -> None:
    """Sort nodes depth first from the outputs, weights by first use, and count made-up names so.

    Converters go through sets, whose order follows addresses in memory.
    """
    if any(one.type == onnx.AttributeProto.GRAPH for node in graph.node for one in node.attribute):
        # Inner graphs use outer names; what has them is left as it is.
        return
    maker = {name: node for node in graph.node for name in node.output}
    order: dict[int, onnx.NodeProto] = {}
    waiting = [maker[one.name] for one in reversed(graph.output) if one.name in maker]
    while waiting:
        node = waiting[-1]
        missing = [
            maker[name] for name in node.input if name in maker and id(maker[name]) not in order
        ]
        if missing:
            waiting += reversed(missing)
        else:
            order.setdefault(id(waiting.pop()), node)
    nodes = list(order.values())
    given = {one.name for one in (*graph.input, *graph.output)}
    names: dict[str, str] = {}

    def settled(name: str) -> str:
        if name not in names:
            made_up = name not in given and _MADE_UP.search(name)
            names[name] = _MADE_UP.sub(f"__{len(names)}", name) if made_up else name
        return names[name]

    for node in nodes:
        for part in (node.input, node.output):
            part[:] = [settled(name) for name in part]
        node.name = _MADE_UP.sub(f"__{len(names)}", node.name)
    weights = {settled(one.name): one for one in graph.initializer if one.name in names}
    for name, one in weights.items():
        one.name = name
    place = {name: number for number, name in enumerate(names.values())}
    sort = sorted(weights.values(), key=lambda one: place[one.name])
    for field, new in (("node", nodes), ("initializer", sort)):
        kept = [type(one).FromString(one.SerializeToString()) for one in new]
        graph.ClearField(field)
        getattr(graph, field).extend(kept)
    # Shapes between; who needs them infers them.
    graph.ClearField("value_info")


def opset(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that a network asks for."""
    return next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))


def compare(imported: Imported) -> float:
    """Run the ONNX on what the framework was run on, and give the largest difference.

    :raises CheckFailed: if the outputs differ, or there is nothing to compare
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    try:
        session = onnxruntime.InferenceSession(
            imported.model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"it can't be said in ONNX: {reason}") from None
    names = [one.name for one in session.get_inputs()]
    found = session.run(None, dict(zip(names, imported.inputs, strict=True)))
    if not found or len(found) != len(imported.outputs):
        raise CheckFailed(
            f"the ONNX has {len(found)} outputs, {imported.framework} gave {len(imported.outputs)}"
        )
    worst = 0.0
    for output, mine, theirs in zip(session.get_outputs(), found, imported.outputs, strict=True):
        if mine.shape != theirs.shape:
            raise CheckFailed(
                f'output "{output.name}" is {_text(mine.shape)} in ONNX, {_text(theirs.shape)} in '
                f"{imported.framework}"
            )
        difference = np.abs(mine.astype(np.float64) - theirs.astype(np.float64)).max(initial=0)
        largest = np.abs(theirs.astype(np.float64)).max(initial=0)
        # Written so that NaN fails.
        if not difference <= (imported.tolerance or TOLERANCE) * largest:
            raise CheckFailed(
                f'output "{output.name}" differs between ONNX and {imported.framework} by '
                f"{difference:.3g}, where the largest value is {largest:.3g}"
            )
        worst = max(worst, float(difference))
    return worst if math.isfinite(worst) else 0.0


def quietly() -> None:
    """Have the frameworks say less: their warnings are no help to who imports a network."""
    import logging
    import warnings

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    sys.stdout.flush()
