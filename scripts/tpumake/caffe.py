"""The messages of caffe.proto (BVLC Caffe 1.0), as far as anything here reads or writes them.

Caffe itself is not needed. Fields keep their numbers for ever; what is left out here is skipped in
reading.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import DecodeError, Message

from tpumake.errors import BadInput

__all__ = ["input_shapes", "messages", "read_caffemodel", "read_prototxt"]

_KIND = descriptor_pb2.FieldDescriptorProto
_TEXT, _INT32, _INT64, _FLOAT = (
    _KIND.TYPE_STRING,
    _KIND.TYPE_INT32,
    _KIND.TYPE_INT64,
    _KIND.TYPE_FLOAT,
)
_ONE, _MANY = _KIND.LABEL_OPTIONAL, _KIND.LABEL_REPEATED
# Name, number, type or message, how many.
_FIELDS = {
    "BlobShape": [("dim", 1, _INT64, _MANY)],
    "BlobProto": [("data", 5, _FLOAT, _MANY), ("shape", 7, "BlobShape", _ONE)],
    "InputParameter": [("shape", 1, "BlobShape", _MANY)],
    "LayerParameter": [
        ("name", 1, _TEXT, _ONE),
        ("type", 2, _TEXT, _ONE),
        ("bottom", 3, _TEXT, _MANY),
        ("blobs", 7, "BlobProto", _MANY),
        ("input_param", 143, "InputParameter", _ONE),
    ],
    # What Caffe wrote until 2014, and still reads.
    "V1LayerParameter": [("name", 4, _TEXT, _ONE), ("blobs", 6, "BlobProto", _MANY)],
    "NetParameter": [
        ("name", 1, _TEXT, _ONE),
        ("layers", 2, "V1LayerParameter", _MANY),
        ("input_dim", 4, _INT32, _MANY),
        ("input_shape", 8, "BlobShape", _MANY),
        ("layer", 100, "LayerParameter", _MANY),
    ],
}
# Lists that caffe.proto packs, which in its syntax has to be said.
_PACKED = ("dim", "data")


@cache
def messages() -> dict[str, type[Message]]:
    """Classes by the messages' names; ``NetParameter`` is a whole network."""
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe")
    for name, fields in _FIELDS.items():
        entry = file.message_type.add(name=name)
        for field, number, kind, label in fields:
            new = entry.field.add(name=field, number=number, label=label)
            if isinstance(kind, str):
                new.type, new.type_name = _KIND.TYPE_MESSAGE, f".caffe.{kind}"
            else:
                new.type = kind
            if field in _PACKED:
                new.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}"))
        for name in _FIELDS
    }


def read_prototxt(path: Path) -> Message:
    """Read a network's structure, a ``NetParameter``.

    :raises BadInput: if the file is none
    """
    net = messages()["NetParameter"]()
    try:
        text_format.Parse(path.read_text(encoding="utf-8"), net, allow_unknown_field=True)
    except (text_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        why = " ".join(str(error).split())
        raise BadInput(f"{path}: is no network in Caffe's text form ({why})") from None
    if not net.layer and not net.layers:
        raise BadInput(
            f"{path}: has no layers; is it the network's .prototxt, and not the solver's?"
        )
    return net


def read_caffemodel(path: Path) -> Message:
    """Read a network's weights, a ``NetParameter``.

    :raises BadInput: if the file is none, or cut short
    """
    net = messages()["NetParameter"]()
    try:
        net.ParseFromString(path.read_bytes())
    except DecodeError:
        raise BadInput(f"{path}: is no caffemodel, or cut short") from None
    if not any(layer.blobs for layer in [*net.layer, *net.layers]):
        raise BadInput(f"{path}: has no weights; is it a caffemodel?")
    return net


def input_shapes(net: Message) -> list[list[int]]:
    """The inputs' shapes, in whichever of Caffe's three ways they are given."""
    if net.input_dim:
        dims = list(net.input_dim)
        return [dims[start : start + 4] for start in range(0, len(dims), 4)]
    if net.input_shape:
        return [list(shape.dim) for shape in net.input_shape]
    return [list(shape.dim) for layer in net.layer for shape in layer.input_param.shape]
