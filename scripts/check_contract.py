#!/usr/bin/env python3
"""Say what a device will do with a finished model, and write the file that goes with it there."""

from __future__ import annotations

from pathlib import Path

import click

from tpumake import profiles, side_car
from tpumake.cli import BadInput, CheckFailed, atomic_write, run
from tpumake.contract import Contract, Naming, check, summary
from tpumake.model_info import describe

_PATH = click.Path(path_type=Path)


@click.command(epilog="Exit codes: 0 written, 1 the device can't use the model, 2 bad input.")
@click.argument("model", type=_PATH)
@click.argument("target", type=_PATH)
@click.option("--device", required=True, help="Whose software: a name of devices/*.json.")
@click.option("--variable", default="<model>", help="The model's name in its stanza.")
@click.option("--names-from", type=_PATH, help="The ONNX whose metadata name the classes.")
@click.option("--labels", type=_PATH, help="The classes' names, one a line, instead.")
@click.option("--mean", default="0,0,0", show_default=True, help="The stanza's MEAN.")
@click.option("--scale", default="1,1,1", show_default=True, help="The stanza's SCALE.")
@click.option("--pixel-format", default="rgb", show_default=True, help="The stanza's PIXEL_FORMAT.")
def main(
    model: Path,
    target: Path,
    device: str,
    variable: str,
    names_from: Path | None,
    labels: Path | None,
    mean: str,
    scale: str,
    pixel_format: str,
) -> None:
    """Check the cvimodel MODEL against a device's profile and write its side-car to TARGET.

    Nothing is written if the device would refuse the model, or show nonsense.
    """
    naming = Naming.read(variable, names_from, labels)
    told = describe(model)
    if told["kind"] != "cvimodel":
        raise BadInput(f"{model}: a {told['kind']}; devices have profiles for cvimodels")
    contract = check(told, profiles.read(device), naming)
    _insist(contract, model.stem)
    feeding = side_car.Feeding(mean, scale, pixel_format)
    with atomic_write(target) as temporary:
        temporary.write_text(side_car.write(contract, model, feeding), encoding="utf-8")
    for each in contract.findings:
        click.echo(f"warning: {each.text}; {each.remedy}")
    click.echo(summary(contract))


def _insist(contract: Contract, target: str) -> None:
    """One line for the first thing that is wrong, and how many more there are."""
    broken = contract.broken
    if broken:
        more = f" (and {len(broken) - 1} more: make {target}.info)"
        first = f"{broken[0].text}; {broken[0].remedy}"
        raise CheckFailed(first + (more if len(broken) > 1 else ""))


if __name__ == "__main__":
    run(main)
