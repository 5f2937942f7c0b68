#!/usr/bin/env python3
"""Tell what a compiled model is, from its file alone: no toolchain, no device."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tpumake import cli
from tpumake.model_info import describe, lines


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One document, schemas/info.schema.json.")
def command(file: Path, as_json: bool) -> None:
    """Tell what FILE, a cvimodel or a bmodel, is.

    For which chip, made when and by what, its inputs and outputs, the memory that it takes, the
    parts that it has. Exit code 0; 1: its checksum is wrong; 2: it is no model, or can't be read.
    """
    file = file.expanduser()
    told = describe(file)
    click.echo(json.dumps(told, indent=1, allow_nan=False) if as_json else "\n".join(lines(told)))
    if told["checksum"]["right"] is False:
        checksum = told["checksum"]
        raise cli.CheckFailed(
            f"{file}: damaged, the {checksum['algorithm'].upper()} of {checksum['covers']} is "
            "another than the file says; copy it again, or make it again"
        )


if __name__ == "__main__":
    cli.run(command)
