#!/usr/bin/env python3
"""Make one HTML file, which needs nothing else, of a report's facts. Runs in `.report`."""

from __future__ import annotations

from pathlib import Path

import click

from tpumake.cli import atomic_write, run
from tpumake.documents import read_document
from tpumake.page.page import page

_PATH = click.Path(path_type=Path)


@click.command(help=__doc__)
@click.argument("facts", type=_PATH)
@click.argument("pictures", type=_PATH)
@click.argument("target", type=_PATH)
def main(facts: Path, pictures: Path, target: Path) -> None:
    """Write the page of FACTS (.json), with the folder of its PICTURES, to TARGET (.html)."""
    text = page(read_document(facts, "report.schema.json"), pictures)
    with atomic_write(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    click.echo(f"{target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    run(main)
