"""Which decoder a device's software takes for a model's outputs, by their shapes and order alone.

reCamera's firmware asks its decoders one after the other whether they can read a model, and takes
the first that says yes; names count for nothing (SSCMA-Micro at 60e2ede, ``core/model``:
``ma_model_factory.cpp`` has the order, each ``ma_model_*.cpp`` its rules). Whoever programs a
MaixCAM or a Milk-V names the decoder, so what is told of them is which one could read the outputs
(MaixCDK at 060a19b, ``maix_nn_yolo11.hpp``; TDL SDK at a20881a, ``yolov8.cpp``).

Every shape has four dimensions here: cviruntime reads that many of each (``neuron.cpp``), and
tpu_mlir fills up with 1. Decoders that want fewer, of which the firmware has four (PFLD,
YOLOV8_POSE, RTMDET, YOLO_WORLD), can't be met by a cvimodel and are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

__all__ = ["Decoder", "Shape", "choose", "known", "reason", "sides"]

Shape = tuple[int, ...]
_STRIDES = (8, 16, 32)
# 4 sides of 16 bins each, of which the camera takes the mean (DFL); or 4 distances.
_BINS, _DISTANCES = 64, 4
_MASKS = 32


class Decoder(NamedTuple):
    """A decoder, and what it makes of the outputs.

    ``task`` is in Ultralytics' words; ``takes`` are the types of outputs that its arithmetic reads;
    ``pairs`` are the numbers of the box and class output of each stride, where it tells them apart;
    ``flaw`` says what goes wrong although it accepts the model.
    """

    name: str
    task: str
    classes: int
    takes: frozenset[str] = frozenset({"float32", "int8"})
    pairs: tuple[tuple[int, int], ...] = ()
    flaw: str = ""


_FLOAT = frozenset({"float32"})
_Rule = Callable[[Shape, Sequence[Shape]], Decoder | None]


def known(device: str) -> bool:
    """Whether anything is known of a device's decoders."""
    return device in _RULES


def choose(device: str, picture: Shape, outputs: Sequence[Shape]) -> Decoder | None:
    """The decoder that a device's software takes; None where none of them can read the outputs.

    :param picture: the shape of the one input
    """
    if len(picture) != 4 or any(len(shape) != 4 for shape in outputs):
        return None
    decoders = (rule(picture, outputs) for rule in _RULES[device])
    return next((decoder for decoder in decoders if decoder), None)


def sides(picture: Shape) -> tuple[int, int]:
    """Width and height of an input: channels come last where the last dimension is 3 or 1."""
    return (picture[2], picture[1]) if picture[3] in (1, 3) else (picture[3], picture[2])


def reason(device: str, picture: Shape, outputs: Sequence[Shape]) -> str:
    """Why no decoder can read the outputs, where that can be told; empty where it can't."""
    if len(picture) != 4 or any(len(shape) != 4 for shape in outputs):
        return ""
    width, height = sides(picture)
    firmware = device == "recamera"
    if width % 32 or height % 32:
        return f"width and height must be multiples of 32, and are {width}×{height}"
    if firmware and width != height:
        return f"it reads square pictures only, and the input is {width}×{height}"
    if any(shape[2] == _places(width, height) and shape[1] > _DISTANCES for shape in outputs):
        return "the whole head is in the model, which the device wants cut"
    if sorted(outputs) in (sorted(_branches(picture, outputs, box)) for box in (_BINS, _DISTANCES)):
        return "box and class outputs come in an order that it doesn't know"
    return ""


def _places(width: int, height: int) -> int:
    """How many places there are at all strides."""
    return sum((width // stride) * (height // stride) for stride in _STRIDES)


def _branches(picture: Shape, outputs: Sequence[Shape], box: int) -> list[Shape]:
    """The outputs of a head of the same number of classes, interleaved; [] where there are not six.

    A box output comes first at each stride; with as many classes all are alike.
    """
    width, height = sides(picture)
    coarse = [shape[1] for shape in outputs if shape[2:] == (height // 32, width // 32)]
    if len(outputs) != 6 or len(coarse) != 2 or box not in coarse:
        return []
    classes = coarse[1 - coarse.index(box)]
    return [
        (1, channels, height // stride, width // stride)
        for stride in _STRIDES
        for channels in (box, classes)
    ]


# ---------------------------------------------------------------------------------------------
# reCamera


def _side(picture: Shape, channels: Sequence[int] = (1, 3)) -> int:
    """The side that the firmware reckons with, or 0 for a picture that it doesn't take.

    Where channels come first it takes the width for the height, and the other way round.
    """
    last = picture[3] in (1, 3)
    checked, side, depth = (picture[1], picture[2], picture[3]) if last else (
        picture[3], picture[2], picture[1])  # fmt: skip
    fits = picture[0] == 1 and checked >= 32 and checked % 32 == 0 and depth in channels
    return side if fits else 0


def _grid(side: int, stride: int) -> tuple[int, int]:
    """Both dimensions of a square grid, for the firmware knows no other."""
    return side // stride, side // stride


def _fomo(picture: Shape, outputs: Sequence[Shape]) -> Decoder | None:
    width, height = sides(picture)
    if not _side(picture) or width != height or len(outputs) != 1:
        return None
    one, rows, columns, classes = outputs[0]
    fits = one == 1 and 2 <= rows <= width and 2 <= columns <= height and classes >= 2
    return Decoder("FOMO", "detect", classes, frozenset({"int8"})) if fits else None


def _yolov5(picture: Shape, outputs: Sequence[Shape]) -> Decoder | None:
    side = _side(picture)
    if not side or len(outputs) != 1:
        return None
    # It means the anchors of a place, of which there are as many as a picture has colours.
    anchors = picture[3] if picture[3] in (1, 3) else picture[1]
    one, places, values, _ = outputs[0]
    fits = one == 1 and places == _places(side, side) * anchors and 6 <= values <= 85
    return Decoder("YOLOV5", "detect", values - 5) if fits else None


def _classifier(picture: Shape, outputs: Sequence[Shape]) -> Decoder | None:
    if not _side(picture) or len(outputs) != 1:
        return None
    one, classes, *rest = outputs[0]
    takes = frozenset({"float32", "int8", "uint8", "uint16"})
    fits = one == 1 and classes >= 2 and rest == [1, 1]
    return Decoder("IMCLS", "classify", classes, takes) if fits else None


def _heads(
    picture: Shape, outputs: Sequence[Shape], box: int, pairs: tuple[tuple[int, int], ...]
) -> int:
    """How many classes a head has that is cut at its strides, finest first; 0 where it is none.

    Only the first class output counts for that.

    :param pairs: at each stride, which output is the boxes' and which the classes'
    """
    side = _side(picture)
    if not side or len(outputs) < 6:
        return 0
    for stride, (boxes, classes) in zip(_STRIDES, pairs, strict=True):
        if outputs[boxes] != (1, box, *_grid(side, stride)):
            return 0
        if outputs[classes][0] != 1 or outputs[classes][2:] != _grid(side, stride):
            return 0
    return outputs[pairs[0][1]][1]


_INTERLEAVED = ((0, 1), (2, 3), (4, 5))
_GROUPED = ((0, 3), (1, 4), (2, 5))


def _yolov8(picture: Shape, outputs: Sequence[Shape]) -> Decoder | None:
    classes = _heads(picture, outputs, _BINS, _GROUPED)
    return Decoder("YOLOV8", "detect", classes, pairs=_GROUPED) if classes else None


def _nvidia(picture: Shape, outputs: Sequence[Shape]) -> Decoder | None:
    width, height = sides(picture)
    if not _side(picture) or width != height or len(outputs) < 2:
        return None
    # Its numbers are those of a picture whose channels come last, whatever comes last.
    grid = picture[1] // 16, picture[2] // 16
    if any(shape[1:3] != grid for shape in outputs[:2]):
        return None
    return Decoder("NVIDIA_DET", "detect", min(shape[3] for shape in outputs[:2]), _FLOAT)


def _yolo11(picture: Shape, outputs: Sequence[Shape]) -> Decoder | None:
    classes = _heads(picture, outputs, _BINS, _INTERLEAVED)
    return Decoder("YOLO11", "detect", classes, pairs=_INTERLEAVED) if classes else None


def _yolo11_pose(picture: Shape, outputs: Sequence[Shape]) -> Decoder | None:
    side = _side(picture)
    if not side or len(outputs) != 1:
        return None
    one, values, places, _ = outputs[0]
    fits = one == 1 and places == _places(side, side) and values >= 6 and values % 3 == 2
    # Its way for 8 bit outputs reads them as floats.
    return Decoder("YOLO11_POSE", "pose", 1, _FLOAT) if fits else None


def _yolo11_seg(picture: Shape, outputs: Sequence[Shape]) -> Decoder | None:
    side = _side(picture)
    if not side or len(outputs) != 2:
        return None
    one, values, places, _ = outputs[0]
    masks = (1, _MASKS, *_grid(side, 4))
    fits = one == 1 and places == _places(side, side) and values >= 37 and outputs[1] == masks
    return Decoder("YOLO11_SEG", "segment", values - 36, _FLOAT) if fits else None


def _yolo26(picture: Shape, outputs: Sequence[Shape]) -> Decoder | None:
    classes = _heads(picture, outputs, _DISTANCES, _INTERLEAVED)
    if classes == _DISTANCES:
        flaw = "with 4 classes it takes these outputs for three of boxes and then three of classes"
        return Decoder("YOLO26", "detect", classes, pairs=_INTERLEAVED, flaw=flaw)
    if classes:
        return Decoder("YOLO26", "detect", classes, pairs=_INTERLEAVED)
    classes = _heads(picture, outputs, _DISTANCES, _GROUPED)
    return Decoder("YOLO26", "detect", classes, pairs=_GROUPED) if classes else None


# ---------------------------------------------------------------------------------------------
# MaixCAM


def _maix_joined(picture: Shape, outputs: Sequence[Shape]) -> Decoder | None:
    """What all strides make together: distances [1,1,4,places], scores, and a task's own."""
    width, height = sides(picture)
    places = _places(width, height)
    distances = (1, 1, _DISTANCES, places)
    if not outputs or outputs[0] != distances or len(outputs) < 2:
        return None
    _, scores, *own = outputs
    if scores != (1, scores[1], places, 1):
        return None
    masks = [(1, _MASKS, places, 1), (1, _MASKS, height // 4, width // 4)]
    task = ""
    if not own:
        task = "detect"
    elif own == masks:
        task = "segment"
    elif own == [(1, 1, places, 1)]:
        task = "obb"
    elif len(own) == 1 and own[0][1] % 3 == 0 and own[0][2:] == (places, 1):
        task = "pose"
    return Decoder("YOLO11", task, scores[1], _FLOAT) if task else None


def _any_order(picture: Shape, outputs: Sequence[Shape], box: int) -> int:
    """How many classes a cut head has, whatever the order of its outputs; 0 where it is none."""
    expected = _branches(picture, outputs, box)
    return expected[1][1] if expected and sorted(expected) == sorted(outputs) else 0


def _maix_yolo26(picture: Shape, outputs: Sequence[Shape]) -> Decoder | None:
    classes = _any_order(picture, outputs, _DISTANCES)
    return Decoder("YOLO26", "detect", classes, _FLOAT) if classes else None


def _maix_yolov5(picture: Shape, outputs: Sequence[Shape]) -> Decoder | None:
    width, height = sides(picture)
    channels = outputs[0][1] if len(outputs) == 3 else 0
    grids = [(1, channels, height // stride, width // stride) for stride in _STRIDES]
    fits = channels % 3 == 0 and channels // 3 > 5 and list(outputs) == grids
    return Decoder("YOLOv5", "detect", channels // 3 - 5, _FLOAT) if fits else None


def _maix_classifier(_: Shape, outputs: Sequence[Shape]) -> Decoder | None:
    fits = len(outputs) == 1 and outputs[0][1] >= 2 and outputs[0][2:] == (1, 1)
    return Decoder("Classifier", "classify", outputs[0][1], _FLOAT) if fits else None


# ---------------------------------------------------------------------------------------------
# Milk-V


def _milkv_yolov8(picture: Shape, outputs: Sequence[Shape]) -> Decoder | None:
    classes = _any_order(picture, outputs, _BINS)
    flaw = "with 64 classes it takes scores for boxes" if classes == _BINS else ""
    return Decoder("YoloV8Detection", "detect", classes, flaw=flaw) if classes else None


def _milkv_yolo26(picture: Shape, outputs: Sequence[Shape]) -> Decoder | None:
    classes = _any_order(picture, outputs, _DISTANCES)
    flaw = "with 4 classes it takes scores for boxes" if classes == _DISTANCES else ""
    return Decoder("Yolo26Detection", "detect", classes, flaw=flaw) if classes else None


def _milkv_more(picture: Shape, outputs: Sequence[Shape]) -> Decoder | None:
    """Boxes, classes and a third branch at each stride: masks, with their prototypes, or points."""
    width, height = sides(picture)
    prototypes = (1, _MASKS, height // 4, width // 4)
    rest = [shape for shape in outputs if shape != prototypes]
    branches = [
        sorted(shape[1] for shape in rest if shape[2:] == (height // stride, width // stride))
        for stride in _STRIDES
    ]
    if len(rest) != 9 or len(branches[0]) != 3 or branches.count(branches[0]) != 3:
        return None
    if _BINS not in branches[0]:
        return None
    others = list(branches[0])
    others.remove(_BINS)
    if len(outputs) == 10 and _MASKS in others:
        others.remove(_MASKS)
        flaw = "with 32 or 64 classes it takes one output for the other"
        return Decoder("YoloV8Segmentation", "segment", others[0],
                       flaw=flaw if others[0] in (_MASKS, _BINS) else "")  # fmt: skip
    classes, points = others
    fits = len(outputs) == 9 and classes == 1 and points % 3 == 0
    return Decoder("YoloV8Pose", "pose", classes) if fits else None


# In the order in which they are asked.
_RULES: dict[str, tuple[_Rule, ...]] = {
    "recamera": (_fomo, _yolov5, _classifier, _yolov8, _nvidia, _yolo11, _yolo11_pose,
                 _yolo11_seg, _yolo26),
    "maixcam": (_maix_joined, _maix_yolo26, _maix_yolov5, _maix_classifier),
    "milkv": (_milkv_yolov8, _milkv_yolo26, _milkv_more),
}  # fmt: skip
