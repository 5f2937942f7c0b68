"""The file that goes with a model onto a device, which tells the software there what it is.

reCamera's node reads ``classes`` of the JSON beside the model and nothing else; the other fields
are those of the models that Seeed ships (sscma-example-sg200x, ``models/*.json``), among them the
MD5 of the whole model. MaixPy reads all of its MUD file
(https://wiki.sipeed.com/maixcdk/doc/convention/nn.html).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from tpumake.contract import Contract, document
from tpumake.errors import BadInput

__all__ = ["Feeding", "write"]

# MaixPy's names of the decoders, and of the tasks where a decoder has several.
_MUD_TYPES = {"YOLO11": "yolo11", "YOLO26": "yolo26", "YOLOv5": "yolov5",
              "Classifier": "classifier"}  # fmt: skip
_MUD_TASKS = {"detect": "detector", "segment": "seg", "pose": "pose", "obb": "obb"}


class Feeding(NamedTuple):
    """What is done to a picture where the model doesn't do it itself, as the stanza has it."""

    mean: str = "0,0,0"
    scale: str = "1,1,1"
    pixel_format: str = "rgb"


def write(contract: Contract, model: Path, feeding: Feeding) -> str:
    """The side-car of a model; its contract where the device wants none.

    The same for the same model, names and device: it has no dates.

    :param model: the model's file, by whose name the device finds it
    :raises BadInput: a class's name can't be written as the device reads it
    """
    kind = contract.device["side_car"]
    if kind == "json":
        fields = _for_recamera(contract, model)
    elif kind == "mud":
        return _for_maixcam(contract, model, feeding)
    else:
        fields = {"$schema": "info.schema.json#/$defs/contract", **document(contract)}
    return json.dumps(fields, indent=4, ensure_ascii=False) + "\n"


def _for_recamera(contract: Contract, model: Path) -> dict:
    made = contract.decoder
    shape = contract.picture["shape"]
    return {
        "model_id": model.stem,
        "version": "1.0.0",
        "model_name": model.stem,
        "model_format": "cvimodel",
        # So it is spelt there.
        "ai_framwork": "6",
        "pic_url": "",
        "description": f"{made.name if made else ''} {'x'.join(map(str, shape))}".strip(),
        "author": "",
        "classes": list(contract.naming.names),
        "checksum": hashlib.md5(model.read_bytes()).hexdigest(),
    }


def _for_maixcam(contract: Contract, model: Path, feeding: Feeding) -> str:
    decoder = contract.decoder
    if decoder is None:
        raise BadInput(f"{model.name}: no decoder of MaixPy's is known for it")
    kind = _MUD_TYPES[decoder.name]
    # The networks differ inside and are decoded alike, but MaixPy insists on the right word.
    if kind == "yolo11" and "YOLOv8" in contract.naming.description:
        kind = "yolov8"
    for name in contract.naming.names:
        if "," in name:
            raise BadInput(f"class {name!r}: MaixPy's list of names has commas between; name it "
                           f"otherwise, in {contract.naming.model}_LABELS")  # fmt: skip
    # Where nobody knows the names MaixPy still counts them.
    names = contract.naming.names or [str(number) for number in range(decoder.classes)]
    task = "" if kind == "classifier" else f"type = {_MUD_TASKS[decoder.task]}\n"
    return (
        f"[basic]\ntype = cvimodel\nmodel = {model.name}\n\n"
        f"[extra]\nmodel_type = {kind}\n{task}input_type = {feeding.pixel_format}\n"
        f"mean = {_spaced(feeding.mean)}\nscale = {_spaced(feeding.scale)}\n"
        f"labels = {', '.join(names)}\n"
    )


def _spaced(numbers: str) -> str:
    return ", ".join(part.strip() for part in numbers.split(","))
