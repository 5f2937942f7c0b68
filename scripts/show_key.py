#!/usr/bin/env python3
"""Show what the keys of a model's stages are made of, from the records that the stages keep."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tpumake import cli
from tpumake.errors import one_line
from tpumake.keys import Digest, Record, whole

# Enough to tell digests apart by eye; --json has them whole.
SHORT = 16


def told(name: str, record: Record, makers: dict[str, str]) -> list[str]:
    """A stage's key in lines: its digest, then a line for everything that is in it.

    :param makers: the stages that made something, by its digest
    """
    key = record.key
    lines = [f"{name}  {key.digest}"]
    lines += [_line("parameters", " ".join(key.parameters), "")]
    for what, part in (("input", key.inputs), ("code", key.code), ("made", record.outputs)):
        for file, digest in part.items():
            maker = makers.get(whole(digest), "") if what == "input" else ""
            lines.append(_line(what, _called(file, digest, maker), whole(digest)[:SHORT]))
    return [*lines, _line("format", str(key.format), "")]


def _line(what: str, text: str, digest: str) -> str:
    return f"  {what:<11} {f'{digest}  ' if digest else ''}{text}"


def _called(file: str, digest: Digest, maker: str) -> str:
    files = f", {len(digest)} files" if isinstance(digest, dict) else ""
    return f"{file}{files}{f' (made by {maker})' if maker else ''}"


def load(path: Path) -> Record:
    """Read a record.

    :raises BadInput: if it isn't one
    """
    record = Record.load(path)
    if record is None:
        raise cli.BadInput(f"{path}: there is no key that can be read; build the model again")
    return record


@click.command(help=__doc__)
@click.argument("records", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="The records as they are, in one array.")
def main(records: tuple[Path, ...], as_json: bool) -> None:
    """Show RECORDS, the files `*.key` beside the stages' logs, in the order of the stages."""
    loaded = [(path.stem, load(path)) for path in records]
    if as_json:
        document = [json.loads(record.to_json()) for _, record in loaded]
        click.echo(json.dumps(document, indent=1, ensure_ascii=False))
        return
    makers = {whole(digest): name for name, record in loaded for digest in record.outputs.values()}
    # A record may come from a cache that others write to.
    shown = (map(one_line, told(*item, makers)) for item in loaded)
    click.echo("\n\n".join("\n".join(lines) for lines in shown))


if __name__ == "__main__":
    cli.run(main)
