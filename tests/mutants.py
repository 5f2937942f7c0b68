"""Damaged and hostile variants of good files: of any file's bytes, of some formats' contents."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from random import Random

import numpy as np
import onnx
from google.protobuf.message import DecodeError

__all__ = ["NASTY", "mutated", "npz", "raw_npy"]

# What names, labels and tables may hold, and nothing may obey.
NASTY = (
    "$(shell touch pwned)", "$(touch pwned)", "`touch pwned`", "'; touch pwned; '", "a\nb", "\r",
    "\x1b[2J\x1b]0;x\x07", "\x9b31m", "../../secret", "/etc/passwd", "-rf", "--help", "%s%n", "",
    " ", "\t", "ü" * 3, "日本", "\u202e", "\ud800", "\0", "x" * 5000, "a.b", "*", "{0}", "=", ",",
)  # fmt: skip
NUMBERS = (0, 1, -1, 2**31 - 1, 2**31, -(2**31), 2**40, 2**62, 2**63 - 1, -(2**63), 255, 65536)


def mutated(data: bytes, suffix: str, random: Random) -> bytes:
    """A variant of a file, now and then one whose form is whole and whose contents are not.

    :param suffix: says which form that is: ".onnx", ".npz", or text of lines; others are bytes
    """
    knowing = {".onnx": _onnx, ".npz": _npz, ".npy": _npy}.get(suffix)
    if knowing and random.random() < 0.6:
        return knowing(data, random)
    if suffix in (".txt", ".json", ".mlir", ".prototxt") and random.random() < 0.7:
        return _text(data, random)
    return _bytes(data, random)


def _bytes(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4, 16))):
        random.choice(_WAYS)(changed, random)
    return bytes(changed)


def _place(data: bytearray, random: Random) -> int:
    # Headers and directories are where it hurts: the first and the last bytes come more often.
    size = len(data)
    if not size:
        return 0
    where = random.random()
    if where < 0.4:
        return random.randrange(min(size, 256))
    if where < 0.5:
        return size - 1 - random.randrange(min(size, 128))
    return random.randrange(size)


def _flip(data: bytearray, random: Random) -> None:
    if data:
        data[_place(data, random)] ^= 1 << random.randrange(8)


def _cut(data: bytearray, random: Random) -> None:
    del data[random.choice((_place(data, random), len(data) // 2, len(data) - 1)) :]


def _drop(data: bytearray, random: Random) -> None:
    start = _place(data, random)
    del data[start : start + random.choice((1, 2, 4, 16, 256))]


def _insert(data: bytearray, random: Random) -> None:
    start = _place(data, random)
    data[start:start] = random.randbytes(random.choice((1, 2, 4, 64)))


def _again(data: bytearray, random: Random) -> None:
    start = _place(data, random)
    data[start:start] = data[start : start + random.choice((4, 64, 1024))]


def _number(data: bytearray, random: Random) -> None:
    start, width = _place(data, random), random.choice((1, 2, 4, 8))
    value = random.choice(NUMBERS) % (1 << 8 * width)
    data[start : start + width] = value.to_bytes(width, random.choice(("little", "big")))


_WAYS: tuple[Callable[[bytearray, Random], None], ...] = (
    _flip, _flip, _flip, _cut, _drop, _insert, _again, _number, _number,
)  # fmt: skip


def _text(data: bytes, random: Random) -> bytes:
    """Words and lines of a text exchanged for others."""
    lines = data.decode(errors="replace").splitlines()
    for _ in range(random.choice((1, 1, 2, 5))):
        if not lines:
            break
        at = random.randrange(len(lines))
        separator = random.choice((" ", '"', ",", ":"))
        words = lines[at].split(separator)
        nasty = random.choice((*NASTY, *map(str, NUMBERS), "1e999", "nan", "[" * 3000, '{"a":'))
        words[random.randrange(len(words))] = nasty
        lines[at] = separator.join(words)
        if random.random() < 0.1:
            lines.insert(at, lines[random.randrange(len(lines))])
    return "\n".join(lines).encode(errors="surrogatepass")


# ---------------------------------------------------------------------------------------------
# ONNX


def _onnx(data: bytes, random: Random) -> bytes:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        return _bytes(data, random)
    for _ in range(random.choice((1, 1, 2, 3))):
        try:
            random.choice(_ONNX_WAYS)(model, random)
        except (ValueError, IndexError, UnicodeEncodeError):
            continue
    return model.SerializeToString()


def _name(random: Random) -> str:
    return random.choice([name for name in NASTY if "\ud800" not in name])


def _rename(model: onnx.ModelProto, random: Random) -> None:
    """Give a tensor another name everywhere, or only in one place."""
    graph, new = model.graph, _name(random)
    node = random.choice(graph.node)
    if random.random() < 0.5:
        old = random.choice(node.output)
        for each in graph.node:
            each.input[:] = [new if name == old else name for name in each.input]
            each.output[:] = [new if name == old else name for name in each.output]
        for value in graph.output:
            value.name = new if value.name == old else value.name
        return
    field = random.choice((node.input, node.output))
    field[random.randrange(len(field))] = random.choice((new, random.choice(graph.node).output[0]))


def _dims(model: onnx.ModelProto, random: Random) -> None:
    tensor = random.choice(model.graph.initializer)
    if tensor.dims and random.random() < 0.7:
        tensor.dims[random.randrange(len(tensor.dims))] = random.choice(NUMBERS)
    else:
        tensor.dims.append(random.choice(NUMBERS))


def _shape(model: onnx.ModelProto, random: Random) -> None:
    value = random.choice([*model.graph.input, *model.graph.output])
    dims = value.type.tensor_type.shape.dim
    if random.random() < 0.3:
        del dims[:]
    elif random.random() < 0.3:
        value.type.Clear()
    else:
        dims[random.randrange(len(dims))].dim_value = random.choice(NUMBERS)


def _attribute(model: onnx.ModelProto, random: Random) -> None:
    holders = [node for node in model.graph.node if node.attribute]
    attribute = random.choice(random.choice(holders).attribute)
    if attribute.ints:
        attribute.ints[random.randrange(len(attribute.ints))] = random.choice(NUMBERS)
    elif random.random() < 0.5:
        attribute.i = random.choice(NUMBERS)
    else:
        attribute.type = random.choice((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14))


def _operator(model: onnx.ModelProto, random: Random) -> None:
    node = random.choice(model.graph.node)
    known = ("Loop", "If", "Reshape", "Resize", "Split", "Range", "Expand", "ConstantOfShape",
             "Tile", "Pad", "GroupNormalization", "Attention", "DFT", "Gelu", "Cast")  # fmt: skip
    node.op_type = random.choice((*known, _name(random)))


def _types(model: onnx.ModelProto, random: Random) -> None:
    tensor = random.choice(model.graph.initializer)
    tensor.data_type = random.choice((0, 1, 2, 7, 8, 10, 16, 17, 21, 22, 23, 99, -1))


def _outside(model: onnx.ModelProto, random: Random) -> None:
    tensor = random.choice(model.graph.initializer)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    location = random.choice(("../secret", "/etc/passwd", "a/../../secret", "", "..", ".", "\\x",
                              "net.onnx", "missing", "C:\\x", "a\nb", "link"))  # fmt: skip
    offset = random.choice(("0", "-1", "x", "9" * 30))
    length = random.choice(("4", "-1", "", str(2**62)))
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if random.random() < 0.8:
            tensor.external_data.add(key=key, value=value)


def _versions(model: onnx.ModelProto, random: Random) -> None:
    if random.random() < 0.5:
        model.ir_version = random.choice(NUMBERS)
    elif model.opset_import:
        model.opset_import[0].version = random.choice((*NUMBERS, 5, 13, 22, 25))


def _metadata(model: onnx.ModelProto, random: Random) -> None:
    names = ("{0: 'a\\x1b[2J'}", "[" * 5000, "-" * 5000 + "1", "{0: __import__('os')}", "'\\d'",
             "{" + "0:" * 500, "[1e999]", _name(random))  # fmt: skip
    entry = model.metadata_props.add()
    entry.key, entry.value = "names", random.choice(names)


def _circle(model: onnx.ModelProto, random: Random) -> None:
    node = random.choice(model.graph.node)
    node.input[0] = node.output[0]


def _fewer(model: onnx.ModelProto, random: Random) -> None:
    field = random.choice((model.graph.node, model.graph.initializer, model.graph.output,
                           model.graph.input, model.opset_import))  # fmt: skip
    del field[random.randrange(len(field))]


_ONNX_WAYS = (_rename, _rename, _dims, _shape, _attribute, _operator, _types, _outside, _outside,
              _versions, _metadata, _circle, _fewer)  # fmt: skip


# ---------------------------------------------------------------------------------------------
# Arrays


def raw_npy(header: str, data: bytes = b"", version: int = 1) -> bytes:
    """An .npy file with whatever header."""
    text = header.encode("latin-1")
    width = 2 if version == 1 else 4
    size = len(text).to_bytes(width, "little")
    return b"\x93NUMPY" + bytes((version, 0)) + size + text + data


def npz(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A ZIP archive whose checksums are right, whatever is in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


def _npz(data: bytes, random: Random) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        name = random.choice(sorted(members))
        value = members.pop(name) if random.random() < 0.8 else members[name]
        if random.random() < 0.3:
            name = random.choice(
                [each for each in NASTY if "\ud800" not in each and "\0" not in each]
            )
        members[name] = _npy(value, random)
        return npz(members, random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))
    except (zipfile.BadZipFile, ValueError, IndexError):
        return _bytes(data, random)


def _npy(data: bytes, random: Random) -> bytes:
    if random.random() < 0.4:
        return _bytes(data, random)
    numbers = (*NUMBERS, "1.5", "'a'", "None", "[2]", "True")
    sides = ", ".join(
        str(random.choice(numbers)) for _ in range(random.choice((0, 1, 1, 2, 4, 40)))
    )
    kinds = ("<f4", "<f8", "|u1", "<i8", "|O", "<U5", "|V8", "|V0", "<U0", "|S0", ">f4", "<c8",
             "|b1", "<f2", "<M8[D]", "bogus", "[('a', '<f4')]", "(2,)<f4", "<f16")  # fmt: skip
    kind = random.choice(kinds)
    descr = kind if kind.startswith("[") else f"'{kind}'"
    header = "{'descr': %s, 'fortran_order': %s, 'shape': (%s,), }\n" % (  # noqa: UP031
        descr, random.choice(("True", "False", "0", "'x'")), sides,
    )  # fmt: skip
    values = np.zeros(random.choice((0, 1, 16, 300)), np.float32).tobytes()
    return raw_npy(header, values, random.choice((1, 1, 2, 3)))
