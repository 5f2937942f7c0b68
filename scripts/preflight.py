#!/usr/bin/env python3
"""Check all that can be known of a model before the first tool starts, and say what to mend."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tpumake import cli
from tpumake.preflight.checks import check
from tpumake.preflight.finding import ERROR, Finding, in_order, told
from tpumake.preflight.machine import check_here
from tpumake.preflight.plan import Plan
from tpumake.preflight.report import document, summary

TOP = Path(__file__).resolve().parent.parent
SCHEMA = TOP / "schemas" / "stanza.schema.json"


@click.command(help=__doc__)
@click.argument("plan", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--target", help="What is to be built, for the report; none in a build.")
@click.option("--variant", "variants", multiple=True, help="A precision that is to be built.")
@click.option("--sample", "samples", multiple=True, type=click.Path(path_type=Path),
              help="One of the dataset's files.")  # fmt: skip
@click.option("--build", type=click.Path(path_type=Path), help="The build folder: look at the "
              "machine, too.")  # fmt: skip
@click.option("--toolchain", type=click.Path(path_type=Path), help="Its folder.")
@click.option("--json", "as_json", is_flag=True, help="Print schemas/check.schema.json.")
def main(
    plan: Path,
    target: str | None,
    variants: tuple[str, ...],
    samples: tuple[Path, ...],
    build: Path | None,
    toolchain: Path | None,
    as_json: bool,
) -> int:
    """Check PLAN, a JSON document that the Makefile writes."""
    wanted = _read(plan, variants, samples)
    findings = check(wanted, json.loads(SCHEMA.read_text()), build)
    if build and toolchain:
        findings = in_order(findings + check_here(build, toolchain))
    failed = any(one.severity == ERROR for one in findings)
    if target is None:
        return _in_a_build(findings, failed)
    if as_json:
        click.echo(json.dumps(document(target, wanted.chip, findings), indent=1))
    else:
        click.echo("\n".join(filter(None, (told(findings), summary(target, findings)))))
    return int(failed)


def _read(path: Path, variants: tuple[str, ...], samples: tuple[Path, ...]) -> Plan:
    try:
        return Plan.read(json.loads(path.read_text(encoding="utf-8")), variants, samples)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise cli.BadInput(f"{path}: is not what the Makefile writes; remove it") from None


def _in_a_build(findings: list[Finding], failed: bool) -> int:
    """Errors end the build, all of them told at once; warnings are told, and it goes on."""
    if failed:
        raise cli.BadInput(*findings)
    if findings:
        click.echo(told(findings))
    return 0


if __name__ == "__main__":
    cli.run(main)
