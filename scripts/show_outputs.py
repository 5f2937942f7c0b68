#!/usr/bin/env python3
"""Show where a network's head is, why it is taken for one, and what each device wants of it."""

from __future__ import annotations

import json
from pathlib import Path

import click
import onnx

from tpumake import devices, onnx_io, profiles
from tpumake.cli import BadInput, run
from tpumake.columns import in_columns
from tpumake.detection_head import Head, NoHead, Tensor, find_head
from tpumake.devices import Selection

FAMILIES = {
    "dfl": "distances to the box's sides as distributions, as in YOLOv8 to 12 and v5u",
    "distances": "distances to the box's sides, as in YOLO26",
    "anchors": "three anchors a place, as in YOLOv5",
}
TASKS = {"detect": "", "segment": " and masks", "pose": " and poses", "obb": ", turned"}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("network", type=click.Path(path_type=Path))
@click.option("--device", default=profiles.DEFAULT, show_default=True, help="The stanza's DEVICE.")
@click.option("--outputs", default="auto", show_default=True, help="The stanza's OUTPUTS.")
@click.option("--json", "as_json", is_flag=True, help="One document, schemas/outputs.schema.json.")
def main(network: Path, device: str, outputs: str, as_json: bool) -> None:
    """Show where the head of NETWORK, an ONNX file, is, and what each device wants of it.

    Exit code 0; 2: it has no detection head that is known, or can't be read.
    """
    network = network.expanduser()
    loaded = onnx_io.load(network)
    wanted = {name: profiles.read(name) for name in sorted({*profiles.names(), device})}
    try:
        head = find_head(loaded.model)
    except NoHead as reason:
        raise BadInput(f"{network}: no detection head: {reason}; it keeps its outputs") from None
    chosen = {name: devices.select(head, profile) for name, profile in wanted.items()}
    built = _built(outputs, device, chosen, loaded.model)
    if as_json:
        start = {"$schema": "outputs.schema.json", "network": network.name, "device": device}
        click.echo(json.dumps(start | {"built": built} | describe(head, chosen), indent=1))
        return
    click.echo(f"{network.name}: boxes{TASKS[head.task]} of {head.classes} classes: "
               f"{FAMILIES[head.family]}")  # fmt: skip
    click.echo("\n".join([*_head(head), "", *_devices(chosen, device, outputs, built)]))


def _built(
    outputs: str, device: str, chosen: dict[str, Selection], model: onnx.ModelProto
) -> list[str]:
    """What the stanza's OUTPUTS makes the model's outputs."""
    if outputs == "auto":
        return [tensor.name for _, tensor in chosen[device].outputs]
    if outputs == "none":
        return [value.name for value in model.graph.output]
    return [name.strip() for name in outputs.split(",") if name.strip()]


def describe(head: Head, chosen: dict[str, Selection]) -> dict:
    """All that is told, as schemas/outputs.schema.json has it."""
    return {
        "kind": head.kind,
        "family": head.family,
        "task": head.task,
        "classes": head.classes,
        "bins": head.bins,
        "chooses": list(head.chooses),
        "levels": [
            {
                "stride": level.stride,
                "branches": [
                    {"role": role, "why": reason(head, role)} | _told(tensor)
                    for role, tensor in level.branches.items()
                ],
            }
            for level in head.levels
        ],
        "joined": [{"role": role} | _told(tensor) for role, tensor in head.joined.items()],
        "devices": {
            name: {
                "decoder": selection.decoder,
                "cut": not selection.whole,
                "outputs": [{"role": role} | _told(tensor) for role, tensor in selection.outputs],
                "notes": list(selection.notes),
            }
            for name, selection in chosen.items()
        },
    }


def _told(tensor: Tensor) -> dict:
    return {"name": tensor.name, "shape": list(tensor.shape)}


def reason(head: Head, role: str) -> str:
    """Why a branch is taken for what it is."""
    if role == "box":
        return (
            f"a mean over {head.bins} bins is taken of it"
            if head.family == "dfl"
            else "4 channels, and no sigmoid follows"
        )
    return {
        "class": "a sigmoid follows",
        "anchors": "alone at its stride, 3 × (5 + classes) channels",
        "mask": "as many channels as the prototypes of masks",
        "keypoints": "sums with, and products by, numbers of the grid follow",
        "angle": "its cosine is taken",
    }[role]


def _head(head: Head) -> list[str]:
    rows = [
        (str(level.stride or "?") if first else "", role, _shape(tensor), tensor.name,
         reason(head, role) if level is head.levels[0] else "")
        for level in head.levels
        for first, (role, tensor) in zip([True] + [False] * 9, level.branches.items(), strict=False)
    ]  # fmt: skip
    rows += [("", role, _shape(tensor), tensor.name, "") for role, tensor in head.joined.items()]
    if head.chooses:
        rows.append(("", " and ".join(head.chooses), "", "", "chooses its boxes by itself"))
    return in_columns([("stride", "what", "shape", "tensor", "because"), *rows], words=5)


def _devices(
    chosen: dict[str, Selection], device: str, outputs: str, built: list[str]
) -> list[str]:
    rows = [("", "DEVICE", "decoder", "outputs, in this order", "shape")]
    first: dict[tuple, str] = {}
    for name in sorted(chosen, key=lambda name: (name != device, name)):
        selection = chosen[name]
        start = "→" if name == device and outputs == "auto" else "", name, selection.decoder or "-"
        same = first.setdefault(selection.outputs, name)
        if same != name:
            rows.append((*start, f"as {same}", ""))
            continue
        for at, (role, tensor) in enumerate(selection.outputs):
            own = " (its own)" if role == "own" else ""
            rows.append((*(("", "", "") if at else start), tensor.name + own, _shape(tensor)))
    lines = in_columns(rows, words=len(rows[0]))
    lines += [f"{name}: {note}" for name, each in chosen.items() for note in each.notes]
    if outputs != "auto":
        lines.append(f"OUTPUTS = {outputs} comes first: {', '.join(built)}")
    return lines


def _shape(tensor: Tensor) -> str:
    return "×".join(str(size or "?") for size in tensor.shape) or "?"


if __name__ == "__main__":
    run(main)
