#!/usr/bin/env python3
"""Put a model onto a device over SSH, or the one before back."""

from __future__ import annotations

from pathlib import Path

import click

from tpumake import profiles
from tpumake.cli import run
from tpumake.deployment import address, deploying
from tpumake.deployment.connection import words
from tpumake.deployment.deploying import Deploy
from tpumake.deployment.place import Load, Place, installing
from tpumake.errors import one_line

_PATH = click.Path(path_type=Path)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", type=_PATH)
@click.option("--side-car", type=_PATH, help="The file that goes with it.")
@click.option("--device", required=True, help="A name of devices/*.json.")
@click.option("--host", required=True, help="Where it is: host, user@host, user@host:port.")
@click.option("--ssh", default="ssh", show_default=True, help="The ssh to use, with options.")
@click.option("--rollback", is_flag=True, help="Put the model before back instead.")
@click.option("--reload/--no-reload", default=True, help="Have the device's service take it.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done; asks nobody.")
def main(
    model: Path,
    side_car: Path | None,
    device: str,
    host: str,
    ssh: str,
    rollback: bool,
    reload: bool,
    dry_run: bool,
) -> None:
    """Put MODEL, a cvimodel, onto a device.

    It is sent to a temporary name, verified there by its digest, and renamed; the model before is
    kept as .previous, and put back where the device's service doesn't take the new one. Exit code
    0; 1: the device can't take it, or it went wrong there; 2: bad input, or no connection.
    """
    profile = profiles.read(device)
    install = installing(profile)
    at = address.parse(host, install["host"].partition("@")[0])
    place = Place.of(install, model.stem)
    order = Deploy(at, profile, place, words(ssh), reload,
                   lambda text: click.echo(one_line(f"{at.host}  {text}")))  # fmt: skip
    goes = side_car if place.side_car else None
    if dry_run:
        load = Load.read(model, goes, profile) if model.exists() else None
        told = deploying.steps(order, load, model.name, rollback)
        click.echo("\n".join(f"{at.host}  would {one_line(step)}" for step in told))
    elif rollback:
        deploying.rollback(order)
    else:
        deploying.deploy(order, Load.read(model, goes, profile))


if __name__ == "__main__":
    run(main)
