#!/usr/bin/env python3
"""Tell what a compiled model is, from its file alone: no toolchain, no device."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tpumake import cli, contract
from tpumake.contract import Naming
from tpumake.model_info import describe, lines

_PATH = click.Path(path_type=Path)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("file", type=_PATH)
@click.option("--json", "as_json", is_flag=True, help="One document, schemas/info.schema.json.")
@click.option("--device", help="Also tell what that device will do with it: a name of "
              "devices/*.json.")  # fmt: skip
@click.option("--variable", default="<model>", help="The model's name in its stanza.")
@click.option("--names-from", type=_PATH, help="The ONNX whose metadata name the classes.")
@click.option("--labels", type=_PATH, help="The classes' names, one a line, instead.")
def command(
    file: Path,
    as_json: bool,
    device: str | None,
    variable: str,
    names_from: Path | None,
    labels: Path | None,
) -> None:
    """Tell what FILE, a cvimodel or a bmodel, is.

    For which chip, made when and by what, its inputs and outputs, the memory that it takes, the
    parts that it has. Exit code 0; 1: its checksum is wrong; 2: it is no model, or can't be read.
    """
    file = file.expanduser()
    told = describe(file)
    held = None
    if device:
        held = contract.held(told, device, Naming.read(variable, names_from, labels))
    if as_json:
        document = told | {"contract": contract.document(held) if held else None}
        click.echo(json.dumps(document, indent=1, allow_nan=False))
    else:
        click.echo("\n".join(lines(told, contract.lines(held) if held else [])))
    if told["checksum"]["right"] is False:
        checksum = told["checksum"]
        raise cli.CheckFailed(
            f"{file}: damaged, the {checksum['algorithm'].upper()} of {checksum['covers']} is "
            "another than the file says; copy it again, or make it again"
        )


if __name__ == "__main__":
    cli.run(command)
