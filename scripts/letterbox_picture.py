#!/usr/bin/env python3
"""Make the picture that a network sees: any picture, in the network's size."""

from __future__ import annotations

from pathlib import Path

import click
from PIL import Image

from tpumake.cli import BadInput, atomic_write, run
from tpumake.letterbox import GREY, fit_input, letterbox
from tpumake.network_input import read_network_input
from tpumake.pictures import UnusableError, pixels

_PATH = click.Path(path_type=Path)


@click.command(help=__doc__)
@click.argument("picture", type=_PATH)
@click.argument("target", type=_PATH)
@click.option("--network", type=_PATH, required=True, help="The float network (.mlir).")
@click.option("--ground", type=click.IntRange(0, 255), default=GREY, show_default=True,
              help="The grey around the picture.")  # fmt: skip
def main(picture: Path, target: Path, network: Path, ground: int) -> None:
    """Write PICTURE as TARGET, an 8-bit RGB PNG of the network's size."""
    wanted = read_network_input(network)
    try:
        source = pixels(picture.read_bytes())
    except UnusableError as error:
        raise BadInput(f"{picture}: {error}") from None
    fitted = fit_input(source, wanted)
    with atomic_write(target) as temporary:
        Image.fromarray(letterbox(source, fitted, ground)).save(temporary, "PNG", compress_level=3)
    inside = f" in {wanted.width}×{wanted.height}" if fitted.left or fitted.top else ""
    click.echo(f"{fitted.width}×{fitted.height} → {fitted.new_width}×{fitted.new_height}{inside}")


if __name__ == "__main__":
    run(main)
