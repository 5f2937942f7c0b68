"""Read what a network's file says of itself: inputs, exporter's notes, how it treats pictures."""

from __future__ import annotations

import ast
import json
import re
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tpumake import onnx_io
from tpumake.caffe import input_shapes, read_prototxt
from tpumake.errors import BadInput
from tpumake.inference.checkpoint import read_checkpoint
from tpumake.inference.entry import Entry, entry_of
from tpumake.labels import names_in
from tpumake.tflite import read_tflite

__all__ = ["Facts", "Input", "Source", "find_source", "read_facts"]

_BY_SUFFIX = {".onnx": "ONNX", ".pt": "PT", ".pth": "PT", ".torchscript": "PT", ".ts": "PT",
              ".tflite": "TFLITE", ".pb": "PB", ".prototxt": "PROTOTXT"}  # fmt: skip
_KNOWN = ".onnx, .pt, .torchscript, .tflite, .pb, .prototxt, a SavedModel's or Paddle's folder"
_PADDLE = (".pdiparams", ".pdmodel")
_FINISHED = (".cvimodel", ".bmodel")
_ELEMENTS = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 10: "float16",
             11: "float64", 16: "bfloat16"}  # fmt: skip
# Notes are short; what is longer is something else.
_LONGEST = 1 << 22


@dataclass(frozen=True)
class Source:
    """A network's file or folder, by the stanza variable of its kind; Caffe's has a second file."""

    kind: str
    path: Path
    weights: Path | None = None


@dataclass(frozen=True)
class Input:
    """An input: its sizes as a stanza has them, channels first; None for one that is open."""

    name: str
    shape: tuple[int | None, ...]
    type: str = "float32"


@dataclass(frozen=True)
class Facts:
    """What a file says.

    ``inputs`` is empty where the file doesn't say. ``notes`` are the exporter's, in the words of
    ONNX's metadata; ``noted`` is where they were found. ``span`` is the least and the largest value
    that a quantised network's input can have. ``classifies``: its one output is a row of numbers.
    """

    source: Source
    inputs: tuple[Input, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    noted: str = "the file's metadata"
    entry: Entry | None = None
    span: tuple[float, float] | None = None
    classifies: bool = False

    @property
    def names(self) -> list[str]:
        """The classes' names, empty if they aren't noted."""
        return names_in(self.notes)

    @property
    def task(self) -> str:
        """What Ultralytics calls it: detect, classify, segment, pose, obb; or nothing."""
        return self.notes.get("task", "")

    @property
    def of_ultralytics(self) -> bool:
        """Written by Ultralytics' exporter, or that of YOLOv5's project, or in their manner."""
        signs = {"stride", "imgsz"} & set(self.notes)
        return "names" in self.notes and bool(signs or self.notes.get("author") == "Ultralytics")

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the pictures that it was exported or trained for."""
        with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = ast.literal_eval(self.notes.get("imgsz", ""))
            sides = [value, value] if isinstance(value, int) else [int(side) for side in value]
            sides = sides * 2 if len(sides) == 1 else sides
            if len(sides) == 2 and min(sides) > 0:
                return sides[0], sides[1]
        return None


def find_source(path: Path, weights: Path | None = None) -> Source:
    """Tell what kind of network a file or folder is.

    :param weights: the caffemodel, if it isn't called like the prototxt
    :raises BadInput: there is no such file, or nothing that can be built from
    """
    if not path.exists():
        raise BadInput(f"{path}: there is no such file or folder; MODEL names the network")
    if path.is_dir():
        return _folder(path)
    suffix = path.suffix.lower()
    if suffix in _FINISHED:
        raise BadInput(f"{path}: is a finished model: make info FILE={path}; MODEL is the network")
    if suffix == ".pb" and path.name == "saved_model.pb":
        return Source("SAVEDMODEL", path.parent)
    if suffix in _PADDLE or (suffix == ".json" and path.with_suffix(".pdiparams").exists()):
        return Source("PADDLE", path.parent)
    if suffix in (".prototxt", ".caffemodel"):
        return _caffe(path, weights)
    with path.open("rb") as file:
        head = file.read(16)
    kind = "TFLITE" if head[4:8] == b"TFL3" else _BY_SUFFIX.get(suffix)
    if kind:
        return Source(kind, path)
    if head.startswith(b"\x89HDF") or suffix in (".h5", ".keras"):
        raise BadInput(f"{path}: a network of Keras'; save it so: model.export('folder')")
    raise BadInput(f"{path}: no kind of network that is known; there are {_KNOWN}")


def _folder(path: Path) -> Source:
    if (path / "saved_model.pb").is_file():
        return Source("SAVEDMODEL", path)
    if any(path.glob("*.pdiparams")):
        return Source("PADDLE", path)
    found = sorted(each.name for each in path.iterdir() if each.suffix.lower() in _BY_SUFFIX)
    hint = f"; MODEL={path / found[0]}?" if found else ""
    raise BadInput(f"{path}: a folder, but no SavedModel and no network of Paddle's{hint}")


def _caffe(path: Path, weights: Path | None) -> Source:
    structure = path.with_suffix(".prototxt")
    weights = weights or path.with_suffix(".caffemodel")
    if not structure.is_file():
        raise BadInput(f"{path}: MODEL is the .prototxt that belongs to it")
    if not weights.is_file():
        raise BadInput(f"{path}: where are its weights? CAFFEMODEL=… names them")
    return Source("PROTOTXT", structure, weights)


def read_facts(source: Source) -> Facts:
    """Read what a network's file says; nothing in it is run.

    :raises BadInput: it is damaged, or is no such network
    """
    readers = {"ONNX": _onnx, "PT": _torch, "TFLITE": _tflite, "PROTOTXT": _of_caffe}
    return readers.get(source.kind, Facts)(source)


def _onnx(source: Source) -> Facts:
    network = onnx_io.load(source.path)
    graph = network.model.graph
    inputs = tuple(
        Input(
            one.name,
            tuple(size.dim_value or None for size in one.type.tensor_type.shape.dim),
            _ELEMENTS.get(one.type.tensor_type.elem_type, "another type"),
        )
        for one in onnx_io.fed_inputs(graph)
    )
    ranks = [len(one.type.tensor_type.shape.dim) for one in graph.output]
    return Facts(
        source,
        inputs,
        onnx_io.metadata(network.model),
        entry=entry_of(network, inputs[0].name) if len(inputs) == 1 else None,
        classifies=ranks == [2],
    )


def _torch(source: Source) -> Facts:
    notes, noted = read_checkpoint(source.path)
    return Facts(source, (), notes, noted)


def _tflite(source: Source) -> Facts:
    network = read_tflite(source.path)
    inputs = []
    for tensor in network.inputs:
        shape = [None if size < 0 else size for size in tensor.shape]
        if len(shape) == 4:
            shape = [shape[0], shape[3], shape[1], shape[2]]
        inputs.append(Input(tensor.name, tuple(shape), tensor.type))
    return Facts(source, tuple(inputs), _appended(source.path), span=network.span)


def _appended(path: Path) -> dict[str, str]:
    """Ultralytics' notes, which it appends to a TFLite file as a ZIP archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if re.search(r"meta.*\.(txt|json)$", entry.filename):
                    return {} if entry.file_size > _LONGEST else _notes(archive.read(entry))
    except (OSError, zipfile.BadZipFile, zlib.error, ValueError, NotImplementedError, RuntimeError):
        # Most have none.
        pass
    return {}


def _notes(data: bytes) -> dict[str, str]:
    """Notes as JSON, or as a Python literal."""
    for read in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            value = read(data.decode())
            if isinstance(value, dict):
                return {str(key): str(item) for key, item in value.items()}
    return {}


def _of_caffe(source: Source) -> Facts:
    shapes = input_shapes(read_prototxt(source.path))
    return Facts(source, tuple(Input("data", tuple(shape)) for shape in shapes))
