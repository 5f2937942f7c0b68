"""From facts to a stanza's variables, each with where it is from; and questions about the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tpumake.errors import BadInput
from tpumake.inference.facts import Facts
from tpumake.inference.samples_seen import ENOUGH, Samples
from tpumake.shapes import read_shapes

__all__ = ["Inferred", "Question", "Setting", "infer"]

UNIT = "0.0039216"
"""1/255 as the guides, and this project's stanzas, have it."""

IMAGENET_MEAN = "123.675,116.28,103.53"
IMAGENET_SCALE = "0.0171248,0.0175070,0.0174292"
"""torchvision's 1 / (255 · (0.229, 0.224, 0.225))."""

_GIVEN = "as you gave it"
# https://github.com/onnx/onnx/blob/main/docs/MetadataProps.md
_PIXELS = {"gray8": "gray", "rgb8": "rgb", "bgr8": "bgr", "srgb8": "rgb", "rgba8": "rgba"}
_RANGES = {
    "nominalrange_0_255": ("0", "1"),
    "normalized_0_1": ("0", UNIT),
    "normalized_1_1": ("127.5", "0.0078431"),
}


@dataclass(frozen=True)
class Setting:
    """A variable without the model's name, its value, and where that is from."""

    name: str
    value: str
    source: str


@dataclass(frozen=True)
class Question:
    """A variable that nobody knows the value of, and a line to the user about it."""

    name: str
    text: str


@dataclass
class Inferred:
    """What came of it. ``notes`` are for the user's eyes, a line each."""

    settings: list[Setting] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def set(self, name: str, value: str, source: str) -> None:
        """Add a variable."""
        self.settings.append(Setting(name, value, source))

    def ask(self, name: str, text: str) -> None:
        """Add a question."""
        self.questions.append(Question(name, text))


def infer(facts: Facts, samples: Samples, given: Mapping[str, str]) -> Inferred:
    """Make the stanza's variables, but for the paths of network and pictures.

    :param given: variables that the user named, which come before all else
    :raises BadInput: a network that can't be built so, with what to do
    """
    result = Inferred()
    shapes = _shapes(facts, given, result)
    if samples.tensors:
        _set(result, given, "CHANNEL_FORMAT", "none", "the samples are tensors")
    elif shapes:
        if len(shapes) > 1:
            raise BadInput(
                f"{facts.source.path}: has {len(shapes)} inputs; IMAGES holds an .npz for each "
                "sample then, with all of them: docs/variables.md"
            )
        _picture(facts, shapes[0], given, result)
    else:
        # The colours can be asked about in the same go.
        _normalisation(facts, 3, given, result)
    if facts.source.kind != "PROTOTXT":
        heads = "a detection head is cut where the device's decoding begins; others stay whole"
        _set(result, given, "OUTPUTS", "auto", heads)
    done = {one.name for one in (*result.settings, *result.questions)}
    for name in given:
        if name not in done:
            result.set(name, given[name], _GIVEN)
    if samples.count < ENOUGH:
        kind = "samples" if samples.tensors else "pictures"
        result.notes.append(
            f"{samples.count} {kind} are few: calibrate with some hundred of what it will see"
        )
    return result


def _set(result: Inferred, given: Mapping[str, str], name: str, value: str, source: str) -> str:
    """Set a variable to what the user says, or else to ``value``; give which."""
    value, source = (given[name], _GIVEN) if name in given else (value, source)
    result.set(name, value, source)
    return value


# --- shapes -----------------------------------------------------------------------------------


def _shapes(facts: Facts, given: Mapping[str, str], result: Inferred) -> list[list[int]]:
    """Each input's shape; empty where it has to be asked for."""
    path = facts.source.path
    for one in facts.inputs:
        if one.type not in ("float32", "uint8") and "CHANNEL_FORMAT" not in given:
            raise BadInput(
                f"{path}: its input {one.name} is {one.type}; export it with float32 inputs"
            )
    if "INPUT_SHAPES" in given:
        shapes = _read_shapes(given["INPUT_SHAPES"])
        _check_shapes(facts, shapes)
        result.set("INPUT_SHAPES", _written(shapes), _GIVEN)
        return shapes
    for one in facts.inputs:
        if one.shape and one.shape[0] not in (None, 1):
            raise BadInput(
                f"{path}: takes {one.shape[0]} pictures at once; export it for one (batch=1)"
            )
    shapes = [[1, *one.shape[1:]] for one in facts.inputs]
    whence = ", ".join(f'the input "{one.name}" of {_text(one.shape)}' for one in facts.inputs)
    if facts.size and len(shapes) <= 1 and (not shapes or None in shapes[0]):
        shapes, whence = _from_size(facts, shapes)
    if not shapes or any(None in shape for shape in shapes):
        example = _written(
            [[size or 640 for size in shape] for shape in shapes or [[1, 3, 640, 640]]]
        )
        known = ", ".join(_text(one.shape) for one in facts.inputs)
        why = f"its input is {known}, of which ? is open" if known else "the file doesn't say"
        result.ask("INPUT_SHAPES", f"how large are its pictures? {why}; for instance '{example}'")
        return []
    result.set("INPUT_SHAPES", _written(shapes), whence)
    return shapes


def _from_size(facts: Facts, shapes: list[list[int | None]]) -> tuple[list[list[int | None]], str]:
    """The size that the exporter noted, where the network itself leaves it open."""
    height, width = facts.size
    shape = list(shapes[0]) if shapes else [1, int(facts.notes.get("channels", "3")), None, None]
    if len(shape) != 4:
        return shapes, ""
    whence = f"imgsz = {facts.notes['imgsz']} in {facts.noted}"
    if shapes:
        whence += f"; the input {_text(facts.inputs[0].shape)} leaves it open"
    return [[shape[0], shape[1] or 3, shape[2] or height, shape[3] or width]], whence


def _check_shapes(facts: Facts, shapes: list[list[int]]) -> None:
    """Insist that shapes which the user gave are those of the network."""
    if facts.inputs and len(shapes) != len(facts.inputs):
        names = ", ".join(one.name for one in facts.inputs)
        raise BadInput(
            f"INPUT_SHAPES has {len(shapes)} shapes, the network has {len(facts.inputs)} inputs: "
            f"{names}"
        )
    for one, shape in zip(facts.inputs, shapes, strict=False):
        # Caffe's networks are reshaped, whatever their own file says.
        fits = facts.source.kind == "PROTOTXT" or (
            len(shape) == len(one.shape)
            and all(own in (None, size) for own, size in zip(one.shape, shape, strict=True))
        )
        if not fits:
            raise BadInput(
                f"INPUT_SHAPES says {_text(shape)}, but the input {one.name} of "
                f"{facts.source.path} is {_text(one.shape)}"
            )


def _read_shapes(text: str) -> list[list[int]]:
    try:
        return read_shapes(text)
    except ValueError as error:
        raise BadInput(f"INPUT_SHAPES={error}") from None


def _written(shapes: Iterable[Iterable[int]]) -> str:
    return "[" + ",".join(f"[{','.join(map(str, shape))}]" for shape in shapes) + "]"


def _text(shape: Iterable[int | None]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape)


# --- pictures ---------------------------------------------------------------------------------


def _picture(facts: Facts, shape: list[int], given: Mapping[str, str], result: Inferred) -> None:
    """The variables that turn a picture into the network's input."""
    channels = _channels(facts, shape, given, result)
    _normalisation(facts, channels, given, result)
    if facts.of_ultralytics and facts.task == "classify":
        why = "Ultralytics' classifiers see the middle of a picture"
        _set(result, given, "KEEP_RATIO_MODE", "short_side_scale", why)


def _channels(facts: Facts, shape: list[int], given: Mapping[str, str], result: Inferred) -> int:
    if len(shape) == 4 and given.get("CHANNEL_FORMAT", "nchw") == "nchw" and shape[1] in (1, 3, 4):
        return shape[1]
    if len(shape) == 4 and given.get("CHANNEL_FORMAT", "nhwc") == "nhwc" and shape[3] in (1, 3, 4):
        _set(result, given, "CHANNEL_FORMAT", "nhwc", f"the input is {_text(shape)}")
        return shape[3]
    raise BadInput(
        f"{facts.source.path}: its input {_text(shape)} is no picture; IMAGES holds .npy or .npz "
        "samples then: docs/variables.md"
    )


def _normalisation(facts: Facts, channels: int, given: Mapping[str, str], result: Inferred) -> None:
    """MEAN, SCALE and PIXEL_FORMAT, or questions about them."""
    means = [given["MEAN"]] if "MEAN" in given else []
    mean, scale, why = _how(facts, given)
    if scale:
        mean = given.get("MEAN", mean)
        result.set("MEAN", _each(mean, channels), _GIVEN if "MEAN" in given else why)
        result.set("SCALE", _each(scale, channels), _GIVEN if "SCALE" in given else why)
        means.append(mean)
    else:
        result.ask("SCALE", _ask_scale(facts))
    _colours(facts, channels, means, given, result)


def _how(facts: Facts, given: Mapping[str, str]) -> tuple[str, str, str]:
    """Mean, scale (empty if it isn't known) and where they are from."""
    if "SCALE" in given:
        return "0", given["SCALE"], "SCALE came without a MEAN"
    if "MEAN" in given:
        return "0", "", ""
    if facts.of_ultralytics:
        return "0", UNIT, f"Ultralytics' networks take 0 to 1; names and sizes in {facts.noted}"
    noted = facts.notes.get("Image.NominalPixelRange", "").lower()
    if noted in _RANGES:
        return *_RANGES[noted], f"Image.NominalPixelRange = {noted} in {facts.noted}"
    if facts.entry and facts.entry.takes:
        scale = "1" if facts.entry.takes == 255 else UNIT
        return "0", scale, f"the network begins with {facts.entry} for 0 to {facts.entry.takes}"
    if facts.span:
        low, high = facts.span
        span = f"its quantised input goes from {low:.3g} to {high:.3g}"
        for least, most, mean, scale in ((0, 1, "0", UNIT), (-1, 1, "127.5", "0.0078431"),
                                         (0, 255, "0", "1")):  # fmt: skip
            room = 0.05 * (most - least)
            if abs(low - least) <= room and abs(high - most) <= room:
                return mean, scale, span
    return "0", "", ""


def _ask_scale(facts: Facts) -> str:
    kinds = [
        f"SCALE={UNIT} if pixels were divided by 255",
        f"MEAN={IMAGENET_MEAN} SCALE={IMAGENET_SCALE} as torchvision and timm do it",
        "SCALE=1 if they stay 0 to 255",
    ]
    if facts.classifies:
        kinds[:2] = reversed(kinds[:2])
    return f"how were pictures normalised in training? Not in the file. {'; '.join(kinds)}"


def _each(value: str, channels: int) -> str:
    """A number for each channel."""
    return value if "," in value else ",".join([value] * channels)


def _colours(
    facts: Facts, channels: int, means: list[str], given: Mapping[str, str], result: Inferred
) -> None:
    if "PIXEL_FORMAT" in given:
        result.set("PIXEL_FORMAT", given["PIXEL_FORMAT"], _GIVEN)
        return
    noted = facts.notes.get("Image.BitmapPixelFormat", "").lower()
    order = _order(facts, means)
    if channels == 1:
        result.set("PIXEL_FORMAT", "gray", "the network takes one channel")
        _set(result, given, "CUSTOMIZATION_FORMAT", "GRAYSCALE", "the network takes one channel")
    elif noted in _PIXELS:
        why = f"Image.BitmapPixelFormat = {noted} in {facts.noted}"
        result.set("PIXEL_FORMAT", _PIXELS[noted], why)
    elif channels == 3 and facts.of_ultralytics:
        result.set("PIXEL_FORMAT", "rgb", "Ultralytics' networks")
    elif channels == 3 and order:
        result.set("PIXEL_FORMAT", order, "the means are ImageNet's in this order")
    elif channels == 4:
        result.ask("PIXEL_FORMAT", "what are its four channels? rgba, or a Bayer pattern: rggb")
    else:
        result.ask(
            "PIXEL_FORMAT",
            "rgb or bgr? Not in the file. PyTorch's and TensorFlow's networks mostly take rgb, "
            "Caffe's and those trained with OpenCV bgr",
        )


def _order(facts: Facts, means: list[str]) -> str:
    """Red before blue or after, where the means are those of ImageNet, which everybody takes."""
    known = [float(mean) for mean in IMAGENET_MEAN.split(",")]
    candidates = [list(facts.entry.colours)] if facts.entry and facts.entry.takes else []
    for text in means:
        try:
            candidates.append([float(number) for number in text.split(",")])
        except ValueError:
            raise BadInput(f"MEAN={text}: must be numbers with commas between") from None
    for mean in candidates:
        for order, wanted in (("rgb", known), ("bgr", known[::-1])):
            if len(mean) == 3 and max(abs(a - b) for a, b in zip(mean, wanted, strict=True)) < 3:
                return order
    return ""
