"""What PyTorch's files say of a network, read without loading them.

A checkpoint is a pickle, and loading a pickle can run any program. Here its opcodes are only read,
once from front to back (`pickletools`), for the few words that Ultralytics' trainer leaves in it.
"""

from __future__ import annotations

import json
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from tpumake.errors import BadInput

__all__ = ["read_checkpoint"]

_LONGEST = 64 << 20
_LONGEST_NOTES = 1 << 22
_TASKS = {
    "DetectionModel": "detect",
    "ClassificationModel": "classify",
    "SegmentationModel": "segment",
    "PoseModel": "pose",
    "OBBModel": "obb",
}
_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError,
            EOFError, ValueError, IndexError, OverflowError)  # fmt: skip
_PUT = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_GET = ("GET", "BINGET", "LONG_BINGET")


def read_checkpoint(path: Path) -> tuple[dict[str, str], str]:
    """Read the exporter's or trainer's notes, in the words of ONNX's metadata, and what they were.

    Notes are empty for networks of another origin than Ultralytics.

    :raises BadInput: no file of PyTorch's, or damaged
    """
    if not zipfile.is_zipfile(path):
        raise BadInput(f"{path}: no file of PyTorch's, or not whole")
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.filename.endswith("/extra/config.txt"):
                    return _exported(_bounded(archive, entry, _LONGEST_NOTES)), "its config.txt"
            pickled = [one for one in archive.infolist() if one.filename.endswith("/data.pkl")]
            script = any(name.endswith("/constants.pkl") for name in archive.namelist())
            if script or not pickled:
                return {}, ""
            return _trained(_bounded(archive, pickled[0], _LONGEST)), "its training's arguments"
    except _DAMAGED as error:
        raise BadInput(f"{path}: damaged, or cut short ({error}); save it again") from None


def _bounded(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int) -> bytes:
    if entry.file_size > most:
        raise ValueError(f"{entry.filename} is {entry.file_size} bytes")
    return archive.read(entry)


def _exported(data: bytes) -> dict[str, str]:
    notes = json.loads(data)
    if not isinstance(notes, dict):
        return {}
    # JSON has no numbers for keys, which the names of classes have.
    return {str(key): str(value) for key, value in notes.items()}


def _trained(data: bytes) -> dict[str, str]:
    notes: dict[str, str] = {}
    tokens = list(_tokens(data))
    for place, (kind, token) in enumerate(tokens):
        if kind == "global":
            module, _, name = str(token).partition(" ")
            if module.startswith("ultralytics.") and name in _TASKS:
                notes.setdefault("author", "Ultralytics")
                notes.setdefault("task", _TASKS[name])
        elif kind == "text" and token in ("imgsz", "names"):
            value = _value(tokens, place + 1)
            wanted = (int, list) if token == "imgsz" else (dict, list)
            if isinstance(value, wanted) and value and not isinstance(value, bool):
                notes[token] = str(value)
    return notes if notes.get("author") else {}


def _tokens(data: bytes) -> Iterator[tuple[str, object]]:
    """The pickle's words, numbers, classes and the brackets of what holds them."""
    memo: dict[int, tuple[str, object]] = {}
    last: tuple[str, object] = ("other", None)
    texts: list[object] = []
    for operation, argument, _ in pickletools.genops(data):
        name = operation.name
        if name in _PUT:
            memo[len(memo) if name == "MEMOIZE" else int(argument)] = last
            continue
        if name in _GET:
            last = memo.get(int(argument), ("other", None))
        elif "UNICODE" in name or "STRING" in name:
            last = ("text", argument)
            texts = [*texts[-1:], argument]
        elif isinstance(argument, int) and "INT" in name:
            last = ("number", argument)
        elif name == "GLOBAL":
            last = ("global", argument)
        elif name == "STACK_GLOBAL":
            last = ("global", " ".join(map(str, texts)))
        elif name in ("EMPTY_DICT", "EMPTY_LIST"):
            last = ("open", name)
        elif name == "MARK":
            last = ("mark", None)
        elif name in ("SETITEMS", "APPENDS", "SETITEM", "APPEND"):
            last = ("shut", name)
        else:
            last = ("other", None)
        yield last


def _value(tokens: list[tuple[str, object]], place: int) -> object:
    """A number, or a dict or list of plain things, that begins there; else None."""
    if place >= len(tokens):
        return None
    kind, token = tokens[place]
    if kind == "number":
        return token
    if kind != "open":
        return None
    items: list[object] = []
    for kind, item in tokens[place + 1 :]:
        if kind in ("text", "number"):
            items.append(item)
        elif kind == "shut":
            break
        elif kind != "mark":
            return None
    if token == "EMPTY_LIST":
        return items
    return dict(zip(items[::2], items[1::2], strict=False))
