#!/usr/bin/env python3
"""Collect all that is known of a build, from the files that its stages made, for its report."""

from __future__ import annotations

import io
import json
from pathlib import Path, PurePosixPath

import click
from PIL import Image

from tpumake import contract
from tpumake.cli import BadInput, run
from tpumake.contract import Naming
from tpumake.documents import read_document
from tpumake.errors import one_line
from tpumake.keys import Record
from tpumake.model_info import describe
from tpumake.pictures import UnusableError, pixels
from tpumake.report.facts import Evaluation, document, summary
from tpumake.report.records import read_records

_PATH = click.Path(path_type=Path)
# A picture's longest side, in pixels: two stand beside each other on a page.
LONGEST = 560


def read_evaluation(path: Path, evaluated: dict[str, str], now: dict[str, str]) -> Evaluation:
    """Read an evaluation, and whether it was of the model that is there now.

    :param evaluated: what each variant's model was when it was evaluated, by digest
    :param now: what each variant's model is now
    """
    found = Evaluation(read_document(path, "eval.schema.json"))
    for run_ in found["runs"]:
        variant = run_["variant"]
        if run_["kind"] == "model" and variant in now:
            found.outdated = evaluated.get(variant, now[variant]) != now[variant]
    return found


def model_digests(paths: tuple[Path, ...], part: str) -> dict[str, str]:
    """What a variant's model is by a record, `int8.key` or `int8.eval_model.key`."""
    digests: dict[str, str] = {}
    for path in paths:
        record = Record.load(path)
        files = getattr(record, part) if part == "outputs" else record and record.key.inputs
        for name, digest in (files or {}).items():
            if name.endswith((".cvimodel", ".bmodel")) and isinstance(digest, str):
                digests[path.name.split(".")[0]] = digest
    return digests


def keep_pictures(shown: list[dict], source: Path | None, folder: Path) -> None:
    """Write small copies of pictures, under names of our own; one that is gone is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, each in enumerate(shown):
        data = _small(source, each["name"]) if source else None
        if data:
            each["file"] = f"{number}.jpg"
            (folder / each["file"]).write_bytes(data)


def _small(source: Path, name: str) -> bytes | None:
    inside = PurePosixPath(name)
    if inside.is_absolute() or ".." in inside.parts:
        raise BadInput(f"{one_line(name)}: a picture's name that leads out of its folder")
    try:
        image = Image.fromarray(pixels((source / inside).read_bytes()))
    except (OSError, UnusableError):
        return None
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=82, optimize=True)
    return data.getvalue()


@click.command(help=__doc__)
@click.argument("model", type=_PATH)
@click.argument("target", type=_PATH)
@click.argument("pictures", type=_PATH)
@click.option("--name", required=True, help="MODEL_VARIANT.")
@click.option("--record", "records", type=_PATH, multiple=True, required=True,
              help="A stage's, in the order of the pipeline.")  # fmt: skip
@click.option("--layers", type=_PATH, help="What a precision does to layers.")
@click.option("--goal", type=_PATH, help="What a search for float layers tried.")
@click.option("--eval", "evaluations", type=_PATH, multiple=True,
              help="Of this variant, and of others of the model.")  # fmt: skip
@click.option("--evaluated", type=_PATH, multiple=True,
              help="Records of the models' evaluations.")  # fmt: skip
@click.option("--built", type=_PATH, multiple=True, help="Records of the models.")
@click.option("--source", type=_PATH, help="The folder of the pictures that were evaluated on.")
@click.option("--device", required=True, help="A name of devices/*.json.")
@click.option("--variable", required=True, help="The model's name in its stanza.")
@click.option("--names-from", type=_PATH, help="The ONNX whose metadata name the classes.")
@click.option("--labels", type=_PATH, help="The classes' names, one a line, instead.")
def main(
    model: Path,
    target: Path,
    pictures: Path,
    name: str,
    records: tuple[Path, ...],
    layers: Path | None,
    goal: Path | None,
    evaluations: tuple[Path, ...],
    evaluated: tuple[Path, ...],
    built: tuple[Path, ...],
    source: Path | None,
    device: str,
    variable: str,
    names_from: Path | None,
    labels: Path | None,
) -> None:
    """Write what is known of MODEL to TARGET (.json), small pictures into the folder PICTURES."""
    told = describe(model)
    held = contract.held(told, device, Naming.read(variable, names_from, labels))
    told["contract"] = contract.document(held) if held else None
    then, now = model_digests(evaluated, "inputs"), model_digests(built, "outputs")
    facts = document(
        name,
        name.removeprefix(f"{variable}_"),
        read_records(list(records)),
        told,
        read_document(layers, "layers.schema.json") if layers else None,
        [read_evaluation(path, then, now) for path in evaluations],
        read_document(goal, "qtable_goal.schema.json") if goal else None,
    )
    keep_pictures(facts["pictures"], source, pictures)
    target.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    click.echo("\n".join(map(one_line, summary(facts))))


if __name__ == "__main__":
    run(main)
