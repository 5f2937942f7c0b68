#!/usr/bin/env python3
"""Put a model onto a device over SSH or HTTP, or the one before back."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tpumake import profiles
from tpumake.cli import run
from tpumake.deployment import address, deploying, uploading, web
from tpumake.deployment.address import Address
from tpumake.deployment.connection import words
from tpumake.deployment.deploying import Deploy
from tpumake.deployment.place import Load, Place, installing
from tpumake.errors import one_line

_PATH = click.Path(path_type=Path)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", type=_PATH)
@click.option("--side-car", type=_PATH, help="The file that goes with it.")
@click.option("--device", required=True, help="A name of devices/*.json.")
@click.option(
    "--host", required=True, help="Where it is: host, user@host, user@host:port, http://host."
)
@click.option("--ssh", default="ssh", show_default=True, help="The ssh to use, with options.")
@click.option("--kept", type=_PATH, default=Path("build/.device"), show_default=True,
              help="Over HTTP, where the model before is kept.")  # fmt: skip
@click.option("--rollback", is_flag=True, help="Put the model before back instead.")
@click.option("--reload/--no-reload", default=True, help="Have the device's service take it.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done; asks nobody.")
def main(
    model: Path,
    side_car: Path | None,
    device: str,
    host: str,
    ssh: str,
    kept: Path,
    rollback: bool,
    reload: bool,
    dry_run: bool,
) -> None:
    """Put MODEL, a cvimodel, onto a device.

    It is sent to a temporary name, verified there by its digest, and renamed; the model before is
    kept as .previous, and put back where the device's service doesn't take the new one. To an
    http:// address it is sent to the device's web interface, read back and compared. Exit code
    0; 1: the device can't take it, or it went wrong there; 2: bad input, or no connection.
    """
    profile = profiles.read(device)
    install = installing(profile)
    place = Place.of(install, model.stem)
    at: Address | web.Web
    if web.is_address(host):
        over, at = uploading, web.Web.at(host)
        order = uploading.Upload.to(at, profile, place, kept, say=lambda text: _say(at, text),
                                    sending=lambda *sent: _show(at, *sent))  # fmt: skip
    else:
        over, at = deploying, address.parse(host, install["host"].partition("@")[0])
        order = Deploy(at, profile, place, words(ssh), reload, lambda text: _say(at, text))
    goes = side_car if place.side_car else None
    if dry_run:
        load = Load.read(model, goes, profile) if model.exists() else None
        for step in over.steps(order, load, model.name, rollback):
            _say(at, f"would {step}")
    elif rollback:
        over.rollback(order)
    else:
        over.deploy(order, Load.read(model, goes, profile))


def _say(at: Address | web.Web, text: str) -> None:
    click.echo(one_line(f"{at.host}  {text}"))


def _show(at: web.Web, sent: int, size: int) -> None:
    """How far it is, on a terminal; whatever is said next takes its place, and is longer."""
    if sys.stderr.isatty():
        click.echo(f"{at.host}  {100 * sent // size} % sent\r", err=True, nl=False)


if __name__ == "__main__":
    run(main)
