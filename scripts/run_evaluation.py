#!/usr/bin/env python3
"""Run a network, or a built model on its emulator, on the pictures that it is evaluated on."""

from __future__ import annotations

from pathlib import Path

import click

from tpumake.cli import BadInput, atomic_write, run
from tpumake.evaluation.found import Seen, write
from tpumake.evaluation.pictures import read_set
from tpumake.evaluation.running import (
    TOOLCHAIN,
    Feeding,
    Kept,
    Onnx,
    Runner,
    Toolchain,
    code_digest,
    cores,
    run_set,
)
from tpumake.letterbox import GREY
from tpumake.network_input import read_network_input

_PATH = click.Path(path_type=Path)


def told(seen: list[Seen]) -> str:
    """How long a picture took, and what was found, in a line."""
    mean = sum(each.seconds for each in seen) / len(seen)
    return f"{len(seen)} picture{'s' if len(seen) > 1 else ''}, {mean:.2f} s each"


@click.command(help=__doc__, context_settings={"ignore_unknown_options": True})
@click.argument("chosen", type=_PATH)
@click.argument("source", type=_PATH)
@click.argument("target", type=_PATH)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
@click.option("--network", type=_PATH, required=True,
              help="The float network (.mlir), which says what is done to pictures.")  # fmt: skip
@click.option("--onnx", type=_PATH, help="What to run: an ONNX, in onnxruntime.")
@click.option("--model", type=_PATH, help="What to run: .mlir, .cvimodel or .bmodel.")
@click.option("--beside", type=_PATH, multiple=True, help="What MODEL looks for: its weights.")
@click.option("--also", type=_PATH, multiple=True, help="What the results hang on as well.")
@click.option("--keep", type=_PATH, required=True, help="Where what was found is kept.")
@click.option("--ground", type=click.IntRange(0, 255), default=GREY, show_default=True,
              help="The grey around pictures.")  # fmt: skip
@click.option("--processes", type=click.IntRange(1), help="How many at once; one a core.")
def main(
    chosen: Path,
    source: Path,
    target: Path,
    flags: tuple[str, ...],
    network: Path,
    onnx: Path | None,
    model: Path | None,
    beside: tuple[Path, ...],
    also: tuple[Path, ...],
    keep: Path,
    ground: int,
    processes: int | None,
) -> None:
    """Run a network on the pictures of SOURCE that CHOSEN names; TARGET (.npz) is what it found.

    FLAGS are model_deploy's, of which those count that say something about a model's input. The
    toolchain's `run` is named by TPUMAKE_TOOLCHAIN.
    """
    if (onnx is None) == (model is None):
        raise BadInput("give --onnx or --model")
    pictures = read_set(chosen)
    runner: Runner
    if onnx:
        runner = Onnx(onnx)
    else:
        runner = Toolchain([model, *beside], network, flags, TOOLCHAIN, processes or cores(),
                           target.parent)  # fmt: skip
    feeding = Feeding(source, read_network_input(network), ground, pictures.known)
    digest = code_digest([*runner.files, *also], [*flags, ground, feeding.wanted, feeding.classes])
    seen = run_set(runner, pictures, feeding, Kept(keep, digest), _progress)
    with atomic_write(target) as temporary:
        write(temporary, seen)
    click.echo(told(seen))


def _progress(done: int, total: int) -> None:
    print(f"PROGRESS {done} {total}", flush=True)


if __name__ == "__main__":
    run(main)
