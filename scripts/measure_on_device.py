#!/usr/bin/env python3
"""Measure a model's times on a device, by the device's own program."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tpumake import profiles
from tpumake.cli import run
from tpumake.deployment import address, measuring, web
from tpumake.deployment.connection import words
from tpumake.deployment.deploying import Deploy
from tpumake.deployment.place import Load, Place, installing
from tpumake.errors import BadInput, one_line
from tpumake.files import atomic_write

_PATH = click.Path(path_type=Path)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", type=_PATH)
@click.argument("target", type=_PATH)
@click.option("--name", required=True, help="MODEL_VARIANT.")
@click.option("--device", required=True, help="A name of devices/*.json.")
@click.option("--host", required=True, help="Where it is: host, user@host, user@host:port.")
@click.option("--ssh", default="ssh", show_default=True, help="The ssh to use, with options.")
@click.option("--picture", type=_PATH, help="What the model is shown; PATH.* for any suffix.")
@click.option("--count", default=10, show_default=True, type=click.IntRange(1, 10000),
              help="How often.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print TARGET instead of lines.")
def main(
    model: Path,
    target: Path,
    name: str,
    device: str,
    host: str,
    ssh: str,
    picture: Path | None,
    count: int,
    as_json: bool,
) -> None:
    """Run MODEL on a device and write its times to TARGET, schemas/device_bench.schema.json.

    The model that is installed there stays. Exit code 0; 1: the device's program fails, or tells no
    times; 2: bad input, or no connection.
    """
    profile = profiles.read(device)
    install = installing(profile)
    if web.is_address(host):
        raise BadInput("times are measured over SSH: DEVICE_HOST=192.168.42.1, without http://")
    at = address.parse(host, install["host"].partition("@")[0])
    picture = _found(picture) if picture else None
    load = Load.read(model, None, profile)

    def say(text: str) -> None:
        click.echo(one_line(f"{at.host}  {text}"), err=as_json)

    order = Deploy(at, profile, Place.of(install, model.stem), words(ssh), False, say)
    runs = measuring.measure(order, load, picture, count)
    found = measuring.document(name, load, profile, runs, count)
    with atomic_write(target) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    click.echo(json.dumps(found, indent=1) if as_json else "\n".join(measuring.shown(found)))


def _found(picture: Path) -> Path:
    """The file; of a calibration set, Make knows only what it is called, and not its suffix."""
    if picture.is_file():
        return picture
    like = sorted(picture.parent.glob(picture.name)) if picture.name.endswith(".*") else []
    if not like:
        raise BadInput(f"{picture}: there is no such picture; IMAGE=photo.jpg")
    return like[0]


if __name__ == "__main__":
    run(main)
