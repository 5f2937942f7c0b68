"""In which parts two files differ that should be the same: a section, a tensor, a field, a line.

For whoever looks for the cause of two builds that differ, so a hex dump is no answer. Each kind of
file that a build makes is taken apart by its own format; what can't be is compared byte by byte.
"""

from __future__ import annotations

import enum
import json
import re
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message
from onnx import NodeProto, TensorProto
from PIL import Image

from tpumake.cvimodel_reader import ModelFile, SectionType, Weight, read_cvimodel
from tpumake.errors import BadInput
from tpumake.npz import NpzFile

__all__ = ["MOST", "differences"]

# So many lines tell enough about one file; and so many fields, before the sections' turn.
MOST = 8
_FIELDS = 3
_PIECE = 1 << 20
# How much is shown of a value, and of a name, whose end tells it from others.
_WIDTH = 48
_NAME = 160
T = TypeVar("T")
Lines = Iterator[str]
_UNREADABLE = (
    BadInput, DecodeError, zipfile.BadZipFile, Image.DecompressionBombError, RecursionError,
    OSError, ValueError, TypeError, KeyError,
)  # fmt: skip


def differences(first: Path, second: Path) -> list[str]:
    """Name the parts in which two files differ, one line each; empty if their bytes are the same.

    The kind of file is told by the first one's name. At most ``MOST`` lines, and one that counts
    the rest. The same two files give the same lines.
    """
    span = _span(first, second)
    if not span:
        return []
    compare = next((one for ending, one in _KINDS if first.name.endswith(ending)), _any)
    try:
        lines = list(compare(first, second))
    except _UNREADABLE as error:
        return [f"{span}; the parts can't be told: {' '.join(str(error).split())}"]
    if not lines:
        return [f"the same content, written otherwise: {span}"]
    more = len(lines) - MOST
    return lines if more <= 0 else [*lines[:MOST], f"… and {more} more"]


# ---------------------------------------------------------------------------------------------
# What several kinds of files need


def _span(first: Path, second: Path) -> str:
    """How many bytes differ, and from where; empty if none does."""
    sizes = first.stat().st_size, second.stat().st_size
    count, start, position = 0, -1, 0
    with first.open("rb") as one, second.open("rb") as other:
        while pieces := [file.read(_PIECE) for file in (one, other)]:
            if not all(pieces):
                break
            differing = _differing(*pieces)
            if len(differing) and start < 0:
                start = position + int(differing[0])
            count += len(differing)
            position += len(pieces[0])
    if sizes[0] != sizes[1]:
        start = start if start >= 0 else min(sizes)
        return f"{sizes[0]} → {sizes[1]} bytes, the first that differs at {start:#x}"
    return f"{count} of {sizes[0]} bytes differ, the first at {start:#x}" if count else ""


def _differing(first: bytes, second: bytes) -> np.ndarray:
    """Where two runs of bytes differ, as far as the shorter one goes."""
    size = min(len(first), len(second))
    one, other = (np.frombuffer(data, np.uint8, size) for data in (first, second))
    return np.flatnonzero(one != other)


def _bytes(first: bytes, second: bytes) -> str:
    """The same as ``_span``, for what is in memory already."""
    if first == second:
        return ""
    differing = _differing(first, second)
    if len(first) != len(second):
        return f"{len(first)} → {len(second)} bytes"
    return f"{len(differing)} of {len(first)} bytes differ, the first at {int(differing[0]):#x}"


def _quote(name: str) -> str:
    """A name in one line."""
    text = json.dumps(name, ensure_ascii=False)
    return text if len(text) <= _NAME else f"…{text[1 - _NAME :]}"


def _show(value: object) -> str:
    """A value in short, in one line."""
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, bytes):
        return value.hex() if len(value) <= 16 else f"{len(value)} bytes"
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
    elif isinstance(value, (list, tuple)):
        text = f"[{', '.join(map(str, value))}]"
    else:
        text = str(value)
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"


def _change(first: object, second: object) -> str:
    """Two values that differ; long texts from where they do."""
    if isinstance(first, str) and isinstance(second, str):
        first, second = _cut(first, second)
    return f"{_show(first)} → {_show(second)}"


def _cut(first: str, second: str) -> tuple[str, str]:
    """Leave out the words that two long texts begin and end with alike."""
    if max(len(first), len(second)) <= _WIDTH:
        return first, second
    one, other = (re.findall(r"[\w.+-]+|\s+|.", text) for text in (first, second))
    start = _alike(one, other)
    end = _alike(one[start:][::-1], other[start:][::-1])
    return "".join(one[start : len(one) - end]), "".join(other[start : len(other) - end])


def _alike(first: Sequence, second: Sequence) -> int:
    """The number of elements that two sequences begin with alike."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(first), len(second)))


def _unequal(first: object, second: object) -> bool:
    """Whether two plain values differ; a NaN equals a NaN, and 1 is neither True nor 1.0."""
    both_nan = first != first and second != second
    return type(first) is not type(second) or (first != second and not both_nan)


Named = Sequence[tuple[str, T]]


def _match(what: str, first: Named, second: Named) -> tuple[list[str], list[tuple[str, T, T]]]:
    """Pair two lists of named things by name, or by place where names are not unique.

    Gives lines about what only one list has and about another order, and the pairs with what to
    call them.
    """
    names = [[name for name, _ in each] for each in (first, second)]
    if any(len(set(each)) < len(each) or "" in each for each in names):
        lines = [f"{what}: {len(first)} → {len(second)}"] if len(first) != len(second) else []
        places = enumerate(zip(first, second, strict=False))
        return lines, [(f"{what}[{place}]", a[1], b[1]) for place, (a, b) in places]
    one, other = dict(first), dict(second)
    lines = [f"{what} {_quote(name)}: only in the first" for name in one if name not in other]
    lines += [f"{what} {_quote(name)}: only in the second" for name in other if name not in one]
    orders = [name for name in one if name in other], [name for name in other if name in one]
    if orders[0] != orders[1]:
        start = orders[0][_alike(*orders)]
        lines.append(f"{what}: in another order from {_quote(start)} on")
    return lines, [(f"{what} {_quote(name)}", one[name], other[name]) for name in orders[0]]


def _arrays(first: np.ndarray, second: np.ndarray) -> tuple[int, float]:
    """How many elements of two arrays of one type differ, and the largest difference.

    Bits count, so a NaN may equal a NaN, and -0 is not 0.
    """
    size = first.dtype.itemsize
    if not size:
        return 0, 0.0
    one, other = (
        np.frombuffer(each.tobytes(), np.uint8).reshape(-1, size) for each in (first, second)
    )
    unlike = (one != other).any(axis=1)
    count = int(unlike.sum())
    if not count or first.dtype.kind not in "biuf":
        return count, 0.0
    with np.errstate(all="ignore"):
        apart = np.abs(
            first.ravel()[unlike].astype(np.float64) - second.ravel()[unlike].astype(np.float64)
        )
    return count, float(np.nan_to_num(apart, nan=0.0, posinf=np.inf).max())


def _values(count: int, size: int, apart: float) -> str:
    by = f", by at most {apart:.3g}" if apart else ""
    return f"{count} of {size} values differ{by}"


# ---------------------------------------------------------------------------------------------
# cvimodel and bmodel

_SECTIONS = {
    SectionType.WEIGHT: "weights",
    SectionType.CMDBUF: "commands",
    SectionType.DMABUF: "DMA commands",
    SectionType.FUNC_X86: "x86 function",
    SectionType.FUNC_AARCH64: "AArch64 function",
}


def _cvimodel(first: Path, second: Path) -> Lines:
    one, other = read_cvimodel(first), read_cvimodel(second)
    for name in ("major", "minor", "chip", "body_size", "padding"):
        a, b = getattr(one.header, name), getattr(other.header, name)
        if a != b:
            yield f"header: {name} {_change(a, b)}"
    body = list(_cvimodel_body(one, other))
    yield from body
    # It follows everything else, so it only counts where nothing else differs.
    if not body and one.header.md5 != other.header.md5:
        yield f"header: md5 {_change(one.header.md5, other.header.md5)}"


def _cvimodel_body(one: ModelFile, other: ModelFile) -> Lines:
    found = list(_records("flatbuffer", one.model, other.model))
    yield from found[:_FIELDS]
    if len(found) > _FIELDS:
        yield f"flatbuffer: {len(found) - _FIELDS} more fields"
    if not found and one.flatbuffer != other.flatbuffer:
        yield f"flatbuffer: the same fields, {_bytes(one.flatbuffer, other.flatbuffer)}"
    sections = [[(each.name, each) for each in file.model.sections] for file in (one, other)]
    # What only one file has, the fields have told.
    _, pairs = _match("section", *sections)
    for _, a, b in pairs:
        data = one.section(a), other.section(b)
        if data[0] != data[1]:
            kind = _SECTIONS.get(a.type, f"section of type {a.type}")
            where = _weights(one.model.weight_map, *data) if a.type == SectionType.WEIGHT else ""
            yield f"{kind} {_quote(a.name)}: {_bytes(*data)}{where}"
    rest = [_without_sections(file) for file in (one, other)]
    if rest[0] != rest[1]:
        yield f"outside the sections: {_bytes(*rest)}"


def _without_sections(file: ModelFile) -> bytes:
    """What no section covers; a model has none of it, but damage may."""
    covered = sorted((each.offset, each.offset + each.size) for each in file.model.sections)
    rest, end = b"", 0
    for start, stop in covered:
        rest, end = rest + file.binary[end:start], max(end, stop)
    return rest + file.binary[end:]


def _weights(weights: Sequence[Weight], first: bytes, second: bytes) -> str:
    """Which weights are touched, by the first one's map."""
    differing = _differing(first, second)
    touched = [
        each.name
        for each in sorted(weights, key=lambda each: each.start)
        if np.searchsorted(differing, each.start)
        < np.searchsorted(differing, each.start + each.size)
    ]
    if not touched:
        return ""
    return f", in {_quote(touched[0])}" + (
        f" and {len(touched) - 1} more" if len(touched) > 1 else ""
    )


def _records(where: str, first: object, second: object) -> Lines:
    """Compare two tables of a flatbuffer, field by field."""
    for each in fields(first):
        a, b = getattr(first, each.name), getattr(second, each.name)
        if is_dataclass(a) and is_dataclass(b):
            yield from _records(f"{where}: {each.name}", a, b)
        elif a and b and isinstance(a, tuple) and is_dataclass(a[0]):
            lists = [[(getattr(one, "name", ""), one) for one in each] for each in (a, b)]
            lines, pairs = _match(f"{where}: {each.name}", *lists)
            yield from lines
            for label, one, other in pairs:
                yield from _records(label, one, other)
        elif is_dataclass(a) or is_dataclass(b):
            yield f"{where}: {each.name} only in the {'first' if b is None else 'second'}"
        elif isinstance(a, tuple) and (a or b) and is_dataclass((a or b)[0]):
            yield f"{where}: {each.name}: {len(a)} → {len(b)}"
        elif _unequal(a, b):
            yield f"{where}: {each.name} {_change(a, b)}"


# Magic, sizes of the header, of the flatbuffer and of the binary.
_BMODEL = struct.Struct("<4I")
_BMODEL_MAGIC = 0xFF55AAEE
# What ctime(3) writes: the build's local time.
_CTIME = re.compile(rb"[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}")


def _bmodel_parts(path: Path) -> tuple[bytes, bytes, bytes]:
    """Cut a bmodel at what its header says; the layout is that of tpu-mlir's ``bmodel.hpp``."""
    data = path.read_bytes()
    if len(data) < _BMODEL.size or _BMODEL.unpack_from(data)[0] != _BMODEL_MAGIC:
        raise BadInput("not a bmodel")
    _, start, size, _ = _BMODEL.unpack_from(data)
    return data[:start], data[start : start + size], data[start + size :]


def _bmodel(first: Path, second: Path) -> Lines:
    parts = [_bmodel_parts(path) for path in (first, second)]
    for name, one, other in zip(("header", "flatbuffer", "binary"), *parts, strict=True):
        times = [_CTIME.findall(each) for each in (one, other)]
        if one != other and times[0] != times[1] and _CTIME.sub(b"", one) == _CTIME.sub(b"", other):
            yield f"{name}: build time {_change(times[0][0].decode(), times[1][0].decode())}"
        elif one != other:
            yield f"{name}: {_bytes(one, other)}"


# ---------------------------------------------------------------------------------------------
# npz


def _npz(first: Path, second: Path) -> Lines:
    with NpzFile(first) as one, NpzFile(second) as other:
        names = [[(name, name) for name in each.names] for each in (one, other)]
        lines, pairs = _match("tensor", *names)
        yield from lines
        for label, name, _ in pairs:
            told = _tensor(one, other, name)
            if told:
                yield f"{label}: {told}"
    yield from _zip_metadata(first, second)


def _tensor(first: NpzFile, second: NpzFile, name: str) -> str:
    """How a tensor differs: shape, type or values; read in pieces, as it may be large."""
    with first.open(name) as one, second.open(name) as other:
        for what in ("shape", "dtype"):
            a, b = getattr(one, what), getattr(other, what)
            if a != b:
                return f"{what} {a} → {b}"
        count, apart = 0, 0.0
        for _ in range(0, max(one.size, 1), _PIECE):
            unlike, by = _arrays(one.read(_PIECE), other.read(_PIECE))
            count, apart = count + unlike, max(apart, by)
        return _values(count, one.size, apart) if count else ""


def _zip_metadata(first: Path, second: Path) -> Lines:
    """What an archive notes about its members, besides what follows from their contents."""
    notes = (
        "date_time", "compress_type", "create_system", "create_version", "extract_version",
        "flag_bits", "internal_attr", "external_attr", "extra", "comment",
    )  # fmt: skip
    with zipfile.ZipFile(first) as one, zipfile.ZipFile(second) as other:
        members = [{info.filename: info for info in each.infolist()} for each in (one, other)]
        if one.comment != other.comment:
            yield f"zip metadata: comment {_change(one.comment, other.comment)}"
    common = [name for name in members[0] if name in members[1]]
    for note in notes:
        values = [[getattr(each[name], note) for name in common] for each in members]
        unlike = [place for place in range(len(common)) if values[0][place] != values[1][place]]
        if unlike:
            a, b = (each[unlike[0]] for each in values)
            more = f" and {len(unlike) - 1} more" if len(unlike) > 1 else ""
            yield f"zip metadata: {note} of {_quote(common[unlike[0]])}{more}: {_change(a, b)}"


# ---------------------------------------------------------------------------------------------
# ONNX

_DATA = frozenset(
    ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data",
     "string_data")
)  # fmt: skip


def _onnx(first: Path, second: Path) -> Lines:
    one, other = (onnx.load_model(path, load_external_data=False) for path in (first, second))
    yield from _messages("", one, other)


def _messages(where: str, first: Message, second: Message) -> Lines:
    """Compare two protobuf messages, field by field."""
    skip = _DATA if isinstance(first, TensorProto) else frozenset()
    for field in first.DESCRIPTOR.fields:
        name = field.name
        a, b = getattr(first, name), getattr(second, name)
        if name in skip:
            continue
        if field.is_repeated and field.message_type:
            lists = [[(_label(one), one) for one in each] for each in (a, b)]
            lines, pairs = _match(f"{where}{name}", *lists)
            yield from lines
            for label, one, other in pairs:
                kind = f" ({one.op_type})" if isinstance(one, NodeProto) else ""
                yield from _messages(f"{label}{kind}: ", one, other)
        elif field.is_repeated:
            if any(map(_unequal, a, b)) or len(a) != len(b):
                yield f"{where}{name} {_change(list(a), list(b))}"
        elif first.HasField(name) != second.HasField(name):
            yield f"{where}{name} only in the {'first' if first.HasField(name) else 'second'}"
        elif field.message_type:
            # One that neither has would lead to the next, without end: types nest.
            if first.HasField(name):
                yield from _messages(f"{where}{name}: ", a, b)
        elif _unequal(a, b):
            yield f"{where}{name} {_change(a, b)}"
    if skip:
        yield from _tensor_data(where, first, second)


def _label(message: Message) -> str:
    """What a message is known by among its like: its name, or a node's first output."""
    for name in ("name", "key", "tensor_name"):
        text = getattr(message, name, "")
        if text:
            return text
    return message.output[0] if isinstance(message, NodeProto) and message.output else ""


def _tensor_data(where: str, first: TensorProto, second: TensorProto) -> Lines:
    if all(getattr(first, name) == getattr(second, name) for name in _DATA):
        return
    if list(first.dims) == list(second.dims) and first.data_type == second.data_type:
        one, other = (onnx.numpy_helper.to_array(each) for each in (first, second))
        count, apart = _arrays(one, other)
        yield where + (_values(count, one.size, apart) if count else "values stored otherwise")
    else:
        yield f"{where}values differ"


# ---------------------------------------------------------------------------------------------
# Texts

_OPERATION = re.compile(r'^\s*(?:%\S+ = |#\w+ = )?"?([a-z_]\w*(?:\.\w+)*)"?(?=[\s(])')


def _text(path: Path) -> str:
    return path.read_bytes().decode()


def _mlir(first: Path, second: Path) -> Lines:
    def operation(line: str) -> str:
        match = _OPERATION.match(line)
        return f", {match[1]}" if match else ""

    yield from _lines(_text(first), _text(second), operation)


def _lines(first: str, second: str, name: Callable[[str], str] = lambda line: "") -> Lines:
    """Compare texts line by line, between what they begin and end with alike."""
    one, other = first.split("\n"), second.split("\n")
    start = _alike(one, other)
    end = _alike(one[start:][::-1], other[start:][::-1])
    mine, yours = one[start : len(one) - end], other[start : len(other) - end]
    if len(mine) != len(yours):
        title = name((mine or yours)[0])
        yield f"line {start + 1}{title}: {len(mine)} → {len(yours)} lines"
        return
    for number, (a, b) in enumerate(zip(mine, yours, strict=True), start + 1):
        if a != b:
            yield f"line {number}{name(a)}: {_change(a, b)}"


def _table(first: Path, second: Path) -> Lines:
    """Calibration and quantisation tables: comments, and a line of columns for each tensor."""
    tables = [_text(path).splitlines() for path in (first, second)]
    comments, tensors = [], []
    for lines in tables:
        marked = [line.lstrip("# ") for line in lines if line.startswith("#")]
        comments.append([(key.strip(), text.strip()) for key, _, text in
                         (line.partition(":") for line in marked if line)])  # fmt: skip
        rows = [line.split() for line in lines if line.strip() and not line.startswith("#")]
        tensors.append([(row[0], row[1:]) for row in rows])
    columns = next((key.split()[1:] for key, _ in comments[0] if key.startswith("op_name")), [])
    notes, pairs = _match("comment", *comments)
    yield from notes
    for label, a, b in pairs:
        if a != b:
            yield f"{label}: {_change(a, b)}"
    notes, pairs = _match("tensor", *tensors)
    yield from notes
    for label, a, b in pairs:
        for place, (old, new) in enumerate(zip_longest(a, b, fillvalue="nothing")):
            if old != new:
                column = columns[place] if place < len(columns) else f"column {place + 2}"
                yield f"{label}: {column} {old} → {new}"


def _json(first: Path, second: Path) -> Lines:
    yield from _items("", json.loads(_text(first)), json.loads(_text(second)))


def _items(where: str, first: Any, second: Any) -> Lines:
    if isinstance(first, dict) and isinstance(second, dict):
        for key in first | second:
            place = f"{where}.{key}" if where else key
            if key not in first or key not in second:
                yield f"{place}: only in the {'first' if key in first else 'second'}"
            else:
                yield from _items(place, first[key], second[key])
        orders = [key for key in first if key in second], [key for key in second if key in first]
        if orders[0] != orders[1]:
            yield f"{where or 'top'}: keys in another order"
    elif isinstance(first, list) and isinstance(second, list):
        if len(first) != len(second):
            yield f"{where or 'top'}: {len(first)} → {len(second)} elements"
        for place, (a, b) in enumerate(zip(first, second, strict=False)):
            yield from _items(f"{where}[{place}]", a, b)
    elif _unequal(first, second):
        yield f"{where or 'top'}: {_change(first, second)}"


# ---------------------------------------------------------------------------------------------
# Pictures, and whatever else there is


def _picture(first: Path, second: Path) -> Lines:
    with Image.open(first) as one, Image.open(second) as other:
        for what in ("format", "mode", "size"):
            if getattr(one, what) != getattr(other, what):
                yield f"picture: {what} {_change(getattr(one, what), getattr(other, what))}"
                return
        pixels = [np.asarray(each) for each in (one, other)]
    unlike = pixels[0] != pixels[1]
    count = int((unlike.any(axis=2) if unlike.ndim == 3 else unlike).sum())
    if count:
        yield f"picture: {count} of {one.width * one.height} pixels differ"
    else:
        yield "picture: the same pixels, other metadata or compression"


def _any(first: Path, second: Path) -> Lines:
    texts = [path.read_bytes() for path in (first, second)]
    if b"\0" in texts[0] + texts[1]:
        yield _bytes(*texts)
    else:
        yield from _lines(*(text.decode() for text in texts))


Compare = Callable[[Path, Path], Iterable[str]]
_KINDS: tuple[tuple[str | tuple[str, ...], Compare], ...] = (
    (".cvimodel", _cvimodel),
    (".bmodel", _bmodel),
    (".npz", _npz),
    (".onnx", _onnx),
    (".mlir", _mlir),
    (("_calib_table", "_qtable"), _table),
    (".json", _json),
    ((".jpg", ".jpeg", ".png", ".bmp"), _picture),
)
