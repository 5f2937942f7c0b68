#!/usr/bin/env python3
"""Choose the pictures that a model is evaluated on, and read their labels."""

from __future__ import annotations

from pathlib import Path

import click

from tpumake.cli import atomic_write, run
from tpumake.evaluation.pictures import EvalSet, choose
from tpumake.labels import class_names

_PATH = click.Path(path_type=Path)


def told(chosen: EvalSet) -> str:
    """What was chosen, in a line."""
    count = len(chosen.pictures)
    which = f"{count} of {chosen.of} pictures" if count < chosen.of else f"{count} pictures"
    if not chosen.labelled:
        return f"{which}, without labels"
    if chosen.layout == "folders":
        return f"{which} of {len(chosen.classes)} classes"
    objects = sum(len(each.objects or ()) for each in chosen.pictures)
    plain = f", {chosen.plain} without a label file taken for empty" if chosen.plain else ""
    return f"{which}, {objects} object{'' if objects == 1 else 's'}{plain}"


@click.command(help=__doc__)
@click.argument("source", type=_PATH)
@click.argument("target", type=_PATH)
@click.option("--count", type=click.IntRange(1), default=50, show_default=True,
              help="How many are wanted; fewer will do if there are no more.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Another one, other pictures.")
@click.option("--names-from", type=_PATH, help="The ONNX whose metadata name the classes.")
@click.option("--labels", type=_PATH, help="The classes' names, one a line, instead.")
def main(
    source: Path, target: Path, count: int, seed: int, names_from: Path | None, labels: Path | None
) -> None:
    """Choose pictures of SOURCE and write what they are, and what is on them, to TARGET (.json).

    SOURCE has images/ and labels/ as Ultralytics lays them out, or pictures and a .json as COCO's,
    or a folder of pictures for each class; or pictures alone.
    """
    chosen = choose(source, count, seed, class_names(labels, names_from))
    with atomic_write(target) as temporary:
        temporary.write_text(chosen.to_json(), encoding="utf-8")
    click.echo(told(chosen))


if __name__ == "__main__":
    run(main)
