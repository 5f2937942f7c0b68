"""What a device will do with a finished model: the model's file, held against a device's profile.

``devices/<name>.json`` says what a device's software wants, ``decoders.py`` what it makes of
outputs, the model's own fields what it gets. A contract is broken where the device would refuse the
model or show nonsense; what may be meant so is a warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tpumake import decoders, profiles
from tpumake.decoders import Decoder
from tpumake.labels import metadata_of, names_in, read_labels

__all__ = ["Contract", "Finding", "Naming", "check", "document", "held", "lines", "summary"]

_MB = 1 << 20
# What a camera's picture buffers took of the same pool, in the log of a Milk-V; reCamera's have not
# been published.
CAMERA_MB = 21
# Rows of a picture begin at multiples of so many bytes (cviruntime, neuron.cpp; cv183x has 32).
_ROW = 64
# Scales within this share of each other do no harm where one is taken for the other.
_ALIKE = 1.02


class Finding(NamedTuple):
    """One thing that is wrong, or may be: ``severity`` is error or warning; what to do about it."""

    severity: str
    text: str
    remedy: str


@dataclass(frozen=True)
class Naming:
    """What is known of a model besides its file.

    ``model`` is its name in the stanza, for remedies; ``names`` those of its classes, none if
    nobody knows them; ``task`` in Ultralytics' words, empty if unknown; ``description`` the
    exporter's.
    """

    model: str = "<model>"
    names: tuple[str, ...] = ()
    task: str = ""
    description: str = ""

    @classmethod
    def of(cls, model: str, metadata: Mapping[str, str], names: Iterable[str] = ()) -> Naming:
        """From an ONNX file's metadata; ``names``, where there are some, come before its own."""
        task = metadata.get("task", "")
        known = tuple(names) or tuple(names_in(metadata))
        return cls(model, known, task, metadata.get("description", ""))

    @classmethod
    def read(cls, model: str, names_from: Path | None, labels: Path | None) -> Naming:
        """From an ONNX file and a list of names, where they are given."""
        metadata = metadata_of(names_from) if names_from else {}
        return cls.of(model, metadata, read_labels(labels) if labels else [])


@dataclass
class Contract:
    """What a device will do with a model.

    ``decoder`` is None where none can read the outputs, or nobody knows the device's decoders;
    ``memory`` is what it needs, in bytes.
    """

    device: dict
    naming: Naming
    decoder: Decoder | None
    picture: dict
    outputs: list[str]
    memory: int
    findings: list[Finding] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Whether nothing speaks against copying the model onto the device."""
        return not self.broken

    @property
    def broken(self) -> list[Finding]:
        """What the contract fails for."""
        return [each for each in self.findings if each.severity == "error"]


def held(told: dict, name: str, naming: Naming) -> Contract | None:
    """A model's contract with the device of that name; None where that has no such chip."""
    device = profiles.read(name)
    return check(told, device, naming) if told["chip"] in device["chips"] else None


def check(told: dict, device: dict, naming: Naming) -> Contract:
    """Hold a model against a device's profile.

    :param told: the model, as ``model_info.describe`` tells it
    :param device: the profile, as ``profiles.read`` gives it
    """
    program = told["programs"][0] if told["programs"] else {"inputs": [], "outputs": []}
    outputs = program["outputs"]
    contract = Contract(
        device,
        naming,
        None,
        program["inputs"][0] if program["inputs"] else {},
        [each["dtype"] for each in outputs],
        told["memory"]["total"],
    )
    if told["chip"] not in device["chips"]:
        chips = " or ".join(device["chips"])
        _fail(contract, f"it is for {told['chip']}, and {device['title']} has {_article(chips)}",
              f"make CHIP={device['chips'][0] if device['chips'] else '…'}")  # fmt: skip
        return contract
    if told["checksum"]["right"] is False:
        _fail(contract, "it is damaged, its checksum is wrong", "make it again")
    _memory(contract)
    if len(told["programs"]) != 1 or len(program["inputs"]) != 1:
        several = len(told["programs"]) != 1
        count = _count(len(told["programs"] if several else program["inputs"]),
                       *(("program", "programs") if several else ("input", "inputs")))  # fmt: skip
        _fail(contract, f"{device['title']} feeds models of one picture; this one has {count}",
              _elsewhere(naming))  # fmt: skip
        return contract
    if device["input"]:
        _input(contract)
    if decoders.known(device["name"]):
        _outputs(contract, outputs)
    return contract


def _fail(contract: Contract, text: str, remedy: str) -> None:
    contract.findings.append(Finding("error", _printable(text), remedy))


def _warn(contract: Contract, text: str, remedy: str) -> None:
    contract.findings.append(Finding("warning", _printable(text), remedy))


def _printable(text: str) -> str:
    """Without what moves a terminal's cursor: some words come from the file."""
    return "".join(letter if letter.isprintable() else "�"
                   for letter in text)  # fmt: skip


def _elsewhere(naming: Naming) -> str:
    return f"{naming.model}_DEVICE = none if it isn't for that device"


def _article(text: str) -> str:
    return f"a {text}" if text else "no chip of its own"


def _memory(contract: Contract) -> None:
    pool = contract.device["memory"]["ion_pool_mb"]
    need = contract.memory / _MB
    if pool is None:
        return
    smaller = f"a smaller network or input; {_elsewhere(contract.naming)}"
    if need > pool:
        _fail(contract, f"it needs {need:.1f} MB of ION memory, and {contract.device['title']} has "
              f"{pool:g} MB", smaller)  # fmt: skip
    elif need > pool - CAMERA_MB:
        _warn(contract, f"it needs {need:.1f} MB of ION memory, of {pool:g} MB that the camera's "
              f"pictures share (they took {CAMERA_MB} MB on a Milk-V)", smaller)  # fmt: skip


# ---------------------------------------------------------------------------------------------
# The input


def _input(contract: Contract) -> None:
    wanted, picture = contract.device["input"], contract.picture
    model, title = contract.naming.model, contract.device["title"]
    form = picture.get("pixel_format", "")
    if wanted["fuse_preprocess"] and not form:
        _fail(contract, f"its input is {picture['dtype']} numbers, and {title} feeds pictures as "
              "the camera has them", f"{model}_FUSE_PREPROCESS = 1 and {model}_QUANT_INPUT = 1, or "
              f"{_elsewhere(contract.naming)}")  # fmt: skip
        return
    if not wanted["fuse_preprocess"] and form:
        _fail(contract, f"it takes {form} pictures, mean and scale are in it, and {title} applies "
              "them itself", f"{model}_FUSE_PREPROCESS = 0")  # fmt: skip
        return
    if len(picture["shape"]) != 4 or _channels(picture) not in wanted["channels"]:
        _fail(contract, f"its input {_sizes(picture)} is no picture that {title} can feed",
              _elsewhere(contract.naming))  # fmt: skip
        return
    if form and form != wanted["format"] and _channels(picture) != 1:
        what = "red and blue would be swapped" if form.startswith("BGR") else "it would see noise"
        _fail(contract, f"its input is {form}, and {title} feeds {wanted['format']}: {what}",
              f"{model}_CUSTOMIZATION_FORMAT = {wanted['format']}")  # fmt: skip
    if form and picture["dtype"] != "uint8":
        _fail(contract, f"its input is {picture['dtype']}, and pictures are uint8",
              f"{model}_QUANT_INPUT = 1")  # fmt: skip
    if wanted["aligned"] and not picture.get("aligned", False) and _row(picture) % _ROW:
        _warn(contract, f"rows of its input are {_row(picture)} bytes, the camera's begin at "
              f"multiples of {_ROW}: pictures may lean", f"{model}_ALIGNED_INPUT = 1")  # fmt: skip
    _size(contract)


def _size(contract: Contract) -> None:
    wanted, title = contract.device["input"], contract.device["title"]
    width, height = decoders.sides(tuple(contract.picture["shape"]))
    if width % wanted["multiple_of"] or height % wanted["multiple_of"]:
        _fail(contract, f"its input is {width}×{height}, and {title} wants multiples of "
              f"{wanted['multiple_of']}", "export the network with another size, or "
              f"{_elsewhere(contract.naming)}")  # fmt: skip
    elif wanted["square"] and width != height:
        _fail(contract, f"its input is {width}×{height}, and {title} takes height and width for "
              "the same", "export the network with a square input, or "
              f"{_elsewhere(contract.naming)}")  # fmt: skip


def _channels(picture: dict) -> int:
    shape = picture["shape"]
    return shape[3] if shape[3] in (1, 3) else shape[1]


def _row(picture: dict) -> int:
    """The bytes of a picture's row: of a plane, or with its colours beside each other."""
    shape = picture["shape"]
    return shape[2] * shape[3] if shape[3] in (1, 3) else shape[3]


def _sizes(tensor: dict) -> str:
    return "×".join(map(str, tensor["shape"])) or "scalar"


# ---------------------------------------------------------------------------------------------
# The outputs


def _outputs(contract: Contract, outputs: list[dict]) -> None:
    device, naming = contract.device, contract.naming
    shape = tuple(contract.picture["shape"])
    shapes = [tuple(each["shape"]) for each in outputs]
    contract.decoder = decoder = decoders.choose(device["name"], shape, shapes)
    if decoder is None:
        # Where the input itself is wrong, that is the cause, and told already.
        if not contract.broken:
            why = decoders.reason(device["name"], shape, shapes)
            _fail(contract, f"{device['title']} has no decoder for its "
                  f"{_outputs_called(outputs)}{f': {why}' if why else ''}",
                  f"{naming.model}_OUTPUTS = auto, or {_elsewhere(naming)}")  # fmt: skip
        return
    if decoder.flaw:
        _fail(contract, f"{device['title']}'s {decoder.name} can't be right: {decoder.flaw}",
              f"name the outputs in another order, {naming.model}_OUTPUTS, or have another number "
              "of classes")  # fmt: skip
    _task(contract, decoder)
    _types(contract, decoder, outputs)
    _names(contract, decoder)


def _outputs_called(outputs: list[dict]) -> str:
    if len(outputs) == 1:
        return f"output {_sizes(outputs[0])}"
    first = ", ".join(_sizes(each) for each in outputs[:6])
    return f"{len(outputs)} outputs ({first}{', …' if len(outputs) > 6 else ''})"


def _task(contract: Contract, decoder: Decoder) -> None:
    """A head that is still whole may look like another task's."""
    task, title = contract.naming.task, contract.device["title"]
    if task in ("detect", "segment", "pose", "classify", "obb") and task != decoder.task:
        _fail(contract, f"the network was trained to {task}, and {title} would take it for "
              f"{decoder.name} and {decoder.task}", f"{contract.naming.model}_OUTPUTS = auto, or "
              f"{_elsewhere(contract.naming)}")  # fmt: skip


def _types(contract: Contract, decoder: Decoder, outputs: list[dict]) -> None:
    model, title = contract.naming.model, contract.device["title"]
    others = sorted({each["dtype"] for each in outputs} - decoder.takes)
    if others:
        takes = " or ".join(sorted(decoder.takes))
        switch = "1" if decoder.takes == {"int8"} else "0"
        _fail(contract, f"its outputs are {', '.join(others)}, and {title}'s {decoder.name} reads "
              f"{takes}", f"{model}_QUANT_OUTPUT = {switch}, or "
              f"{_elsewhere(contract.naming)}")  # fmt: skip
    elif len({each["dtype"] for each in outputs}) > 1:
        _fail(contract, f"its outputs are of different types, and {title} goes by the first",
              f"{model}_QUANT_OUTPUT = 0 and no {model}_QUANT_OUTPUT_LIST")  # fmt: skip
    elif contract.device["name"] == "recamera" and decoder.name in ("YOLO11", "YOLOV8"):
        # Its arithmetic of 8 bit outputs, as read, not as run.
        apart = max((_apart(outputs[box], outputs[scores]) for box, scores in decoder.pairs),
                    default=1.0)  # fmt: skip
        if outputs[0]["dtype"] == "int8" and apart > _ALIKE:
            _warn(contract, "its outputs are int8, and the firmware seems to take the boxes' scale "
                  f"for the scores, and the other way round; they are up to {apart:.1f} times "
                  "apart here", f"{model}_QUANT_OUTPUT = 0")  # fmt: skip


def _apart(one: dict, other: dict) -> float:
    """How far apart two outputs' scales are, at least 1."""
    first, second = one["scale"] or 1.0, other["scale"] or 1.0
    return max(first, second) / min(first, second)


def _names(contract: Contract, decoder: Decoder) -> None:
    names, model = contract.naming.names, contract.naming.model
    if not names:
        _warn(contract, f"nobody says what its {_count(decoder.classes, 'class', 'classes')} "
              f"{'is' if decoder.classes == 1 else 'are'} called: the device will show numbers",
              f"{model}_LABELS = a file of {_count(decoder.classes, 'name', 'names')}, one a "
              "line")  # fmt: skip
    elif len(names) != decoder.classes:
        _fail(contract, f"{contract.device['title']}'s {decoder.name} decoder finds "
              f"{_count(decoder.classes, 'class', 'classes')} in it, and there "
              f"{'is' if len(names) == 1 else 'are'} {_count(len(names), 'name', 'names')}",
              f"{model}_LABELS = a file of {_count(decoder.classes, 'name', 'names')}, one a line, "
              f"or other outputs, {model}_OUTPUTS")  # fmt: skip


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


# ---------------------------------------------------------------------------------------------
# What is told


def summary(contract: Contract) -> str:
    """The contract in a few words: ``reCamera: YOLO11 decoder, 3 classes, ION 8.7 of 50 MB``."""
    pool = contract.device["memory"]["ion_pool_mb"]
    parts = []
    if contract.decoder:
        classes = _count(contract.decoder.classes, "class", "classes")
        parts += [f"{contract.decoder.name} decoder", classes]
    parts.append(f"ION {contract.memory / _MB:.1f} {'' if pool is None else f'of {pool:g} '}MB")
    return f"{contract.device['title']}: {', '.join(parts)}"


def lines(contract: Contract) -> list[str]:
    """The contract as text, a line each, in columns."""
    device, decoder, naming = contract.device, contract.decoder, contract.naming
    rows = [("contract", f"with {device['title']}: {'kept' if contract.kept else 'BROKEN'}")]
    if decoder:
        rows.append(("decoder", f"{decoder.name} ({decoder.task}), by shapes and order"))
        names = f": {', '.join(naming.names)}" if naming.names else ", without names"
        rows.append(("classes", f"{decoder.classes}{names}"))
    rows.append(("ION memory", _ion(contract)))
    for each in contract.findings:
        rows.append((each.severity, f"{each.text}; {each.remedy}"))
    return [f"{name:<13}  {value}" for name, value in rows]


def _ion(contract: Contract) -> str:
    memory = contract.device["memory"]
    pool = memory["ion_pool_mb"]
    of = "" if pool is None else f" of {pool:g}"
    published = _published(contract)
    beside = f"; the vendor's {published} needs {memory['published_mb'][published]:g}" if (
        published) else ""  # fmt: skip
    return f"{contract.memory / _MB:.2f}{of} MB{beside}"


# Which of the models that vendors ship is like one of a decoder's.
_LIKE = {"YOLO11": "yolo11n", "YOLO26": "yolo26n", "YOLO11_POSE": "yolo11n-pose",
         "YOLO11_SEG": "yolo11n-seg", "IMCLS": "yolo11n-cls"}  # fmt: skip


def _published(contract: Contract) -> str:
    """The vendor's model to compare the memory with: of the same decoder and size; else empty."""
    if contract.decoder is None:
        return ""
    like = _LIKE.get(contract.decoder.name, "")
    side = 224 if contract.decoder.task == "classify" else 640
    same = decoders.sides(tuple(contract.picture["shape"])) == (side, side)
    return like if same and like in contract.device["memory"].get("published_mb", {}) else ""


def document(contract: Contract) -> dict:
    """The contract as in schemas/info.schema.json."""
    decoder, device = contract.decoder, contract.device
    pool = device["memory"]["ion_pool_mb"]
    published = _published(contract)
    return {
        "device": device["name"],
        "kept": contract.kept,
        "decoder": decoder.name if decoder else None,
        "task": decoder.task if decoder else None,
        "classes": decoder.classes if decoder else None,
        "names": list(contract.naming.names),
        "input": {
            "shape": contract.picture.get("shape", []),
            "dtype": contract.picture.get("dtype"),
            "pixel_format": contract.picture.get("pixel_format"),
            "aligned": contract.picture.get("aligned", False),
        },
        "outputs": sorted(set(contract.outputs)),
        "ion": {
            "need": contract.memory,
            "pool": None if pool is None else round(pool * _MB),
            "published": {"model": published,
                          "need": round(device["memory"]["published_mb"][published] * _MB)}
            if published else None,
        },
        "findings": [each._asdict() for each in contract.findings],
    }  # fmt: skip
