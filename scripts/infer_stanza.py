#!/usr/bin/env python3
"""Write the stanza of a network from its file, its metadata and the pictures to calibrate with.

What can't be inferred is asked for, a line each. Exit codes: 0 written, 2 bad input or questions.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path

import click
import jsonschema

from tpumake import cli
from tpumake.inference.facts import Facts, find_source, read_facts
from tpumake.inference.samples_seen import look_at_samples
from tpumake.inference.settings import Inferred, infer
from tpumake.labels import read_labels
from tpumake.stanza import check_name, make_name, stanza_text, written_path

TOP = Path(__file__).resolve().parent.parent
SCHEMA = TOP / "schemas" / "stanza.schema.json"
# The network and the pictures have options of their own.
OTHERWISE = {"model", "ONNX", "PT", "TORCHSCRIPT", "PB", "SAVEDMODEL", "PADDLE", "TFLITE",
             "PROTOTXT", "DATASET", "URL"}  # fmt: skip
LISTS = ("labels.txt", "classes.txt")

Settings = list[tuple[str, str, str]]


def given_of(pairs: tuple[str, ...], name: str) -> dict[str, str]:
    """The variables that the user named, with or without the model's name before them.

    :raises cli.BadInput: there is no such variable
    """
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    known = set(schema["properties"]) - OTHERWISE
    given = {}
    for pair in pairs:
        variable, _, value = pair.partition("=")
        variable = variable.removeprefix(f"{name}_")
        if variable not in known:
            near = difflib.get_close_matches(variable.upper(), sorted(known), 1)
            hint = f"did you mean {near[0]}?" if near else "make help lists them"
            raise cli.BadInput(f"{variable}: there is no such variable; {hint}")
        value = value.strip()
        form = {"$defs": schema["$defs"], **schema["properties"][variable]}
        if value and not jsonschema.Draft202012Validator(form).is_valid(value):
            named = schema["$defs"].get(form.get("$ref", "").rpartition("/")[2], form)
            choice = ", ".join(filter(None, form.get("enum", ())))
            wanted = f"one of {choice}" if choice else named["description"]
            raise cli.BadInput(f"{variable}={value}: must be {wanted}")
        if value:
            given[variable] = value
    return given


def all_settings(facts: Facts, images: Path, inferred: Inferred) -> Settings:
    """The stanza's variables in the order of models.mk: the network, the pictures, what it is."""
    home = Path.home()

    def path(of: Path) -> str:
        return written_path(of, home, TOP)

    source = facts.source
    settings = [(source.kind, path(source.path), "")]
    if source.weights:
        settings.append(("CAFFEMODEL", path(source.weights), ""))
    settings.append(("DATASET", path(images), ""))
    settings += [
        (one.name, one.value, one.source) for one in inferred.settings if one.name != "CAFFEMODEL"
    ]
    labels = beside(facts)
    if labels and not any(one.name == "LABELS" for one in inferred.settings):
        settings.append(("LABELS", path(labels), "the list of names beside the network"))
    return settings


def beside(facts: Facts) -> Path | None:
    """A list of names in the network's folder, where the file itself has none."""
    if facts.names:
        return None
    folder = facts.source.path.parent
    for name in (f"{facts.source.path.stem}.txt", f"{facts.source.path.stem}.names", *LISTS):
        if (folder / name).is_file():
            try:
                read_labels(folder / name)
            except cli.BadInput:
                continue
            return folder / name
    return None


def about(facts: Facts, name: str) -> str:
    """What the network is, in a line."""
    notes, names = facts.notes, facts.names
    parts = [notes.get("description", "").strip() or notes.get("author", ""), facts.task]
    if names:
        some = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
        parts.append(f"{len(names)} classes: {some}")
    said = "; ".join(filter(None, parts))
    return f"{name}: {said}" if said else f"{name}: what its file and the command told"


def document(name: str, settings: Settings, inferred: Inferred) -> str:
    """The same as JSON: schemas/infer_stanza.schema.json."""
    return json.dumps(
        {
            "$schema": "infer_stanza.schema.json",
            "model": name,
            "settings": [{"name": n, "value": v, "from": s} for n, v, s in settings],
            "questions": [{"name": one.name, "text": one.text} for one in inferred.questions],
            "notes": inferred.notes,
        },
        ensure_ascii=False,
    )


@click.command(help=__doc__)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("images", type=click.Path(path_type=Path))
@click.option("--name", help="What the model is called; by default what its file is called.")
@click.option("--set", "pairs", multiple=True, metavar="NAME=VALUE", help="A stanza variable.")
@click.option("--out", type=click.Path(path_type=Path), help="The file to write the stanza to.")
@click.option(
    "--taken", multiple=True, help="A model that there is; a note tells of the same name."
)
@click.option("--json", "as_json", is_flag=True, help="Print what was inferred as JSON.")
def main(
    model: Path,
    images: Path,
    name: str | None,
    pairs: tuple[str, ...],
    out: Path | None,
    taken: tuple[str, ...],
    as_json: bool,
) -> None:
    """Infer the stanza of the network MODEL, to be calibrated with IMAGES."""
    if name:
        check_name(name)
    name = name or make_name(model)
    given = given_of(pairs, name)
    weights = Path(given["CAFFEMODEL"]).expanduser() if "CAFFEMODEL" in given else None
    facts = read_facts(find_source(model, weights))
    inferred = infer(facts, look_at_samples(images), given)
    if name in taken:
        inferred.notes.append(
            f"there is a stanza {name} already; NAME= gives this one another name"
        )
    settings = all_settings(facts, images, inferred)
    if as_json:
        click.echo(document(name, settings, inferred))
    if inferred.questions:
        lines = [f"{one.name}: {one.text}" for one in inferred.questions]
        raise cli.BadInput(f"{model} leaves questions open; add the answers to the command", *lines)
    text = stanza_text(name, about(facts, name), settings)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        with cli.atomic_write(out) as temporary:
            temporary.write_text(text, encoding="utf-8")
    if not as_json:
        click.echo(text + "".join(f"{name}: {note}\n" for note in inferred.notes), nl=False)


if __name__ == "__main__":
    cli.run(main)
