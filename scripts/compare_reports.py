#!/usr/bin/env python3
"""Put two builds side by side, by the facts of their reports. Runs in `.report`."""

from __future__ import annotations

from pathlib import Path

import click

from tpumake.cli import atomic_write, run
from tpumake.documents import read_document
from tpumake.errors import one_line
from tpumake.page.comparison import comparison, lines

_PATH = click.Path(path_type=Path)


@click.command(help=__doc__)
@click.argument("one", type=_PATH)
@click.argument("two", type=_PATH)
@click.argument("target", type=_PATH)
def main(one: Path, two: Path, target: Path) -> None:
    """Write a page of ONE and TWO, files `*.report.json`, to TARGET (.html), and print figures."""
    first, second = (read_document(path, "report.schema.json") for path in (one, two))
    text = comparison(first, second)
    with atomic_write(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    click.echo("\n".join([*map(one_line, lines(first, second)), f"→ {target}"]))


if __name__ == "__main__":
    run(main)
