#!/usr/bin/env python3
"""Append a stanza to a file of stanzas, unless a model of that name is there."""

from __future__ import annotations

from pathlib import Path

import click

from tpumake import cli
from tpumake.stanza import append_stanza


@click.command(help=__doc__)
@click.argument("stanza", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--taken", multiple=True, help="A model that is there, wherever it was read from.")
@click.option("--variant", "variants", multiple=True, help="What targets end in: int8.")
def main(stanza: Path, target: Path, taken: tuple[str, ...], variants: tuple[str, ...]) -> None:
    """Append STANZA to TARGET."""
    name = append_stanza(stanza, target, taken, variants)
    click.echo(f"{target}: {name} is added; make {name}")


if __name__ == "__main__":
    cli.run(main)
