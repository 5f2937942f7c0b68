#!/usr/bin/env python3
"""Look at the whole machine, and at each model in brief; on the host's Python if need be."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

if sys.version_info < (3, 10):  # noqa: UP036 (the host's Python may be any)
    found = ".".join(map(str, sys.version_info[:3]))
    sys.exit(f"doctor: python3 is {found}, 3.10 or newer is needed; name one: make PYTHON=…")

from tpumake.errors import run_guarded
from tpumake.preflight.finding import ERROR, WARNING, Finding, in_order, told
from tpumake.preflight.machine import check_here
from tpumake.preflight.report import document, summary

TOP = Path(__file__).resolve().parent.parent


def helpers(venv: Path) -> list[Finding]:
    """Is the helpers' environment there, and does it work?"""
    if (venv / "ready").exists() and (venv / "bin" / "python").exists():
        return []
    if (venv / "bin").is_symlink() or (venv / "bin" / "python").is_symlink():
        what = "its Python is gone, or it was not made to the end"
        return [Finding("python", WARNING, str(venv), what, "the next build makes it anew")]
    what, remedy = "it is not there yet", "the first build makes it, as does make setup"
    return [Finding("python", WARNING, str(venv), what, remedy)]


def extras(folders: list[Path]) -> list[Finding]:
    """Extras that were begun and not ended; that one is not there is nothing to tell."""
    return [
        Finding("extra", WARNING, str(folder), "it is not complete", f"rm -r {folder}")
        for folder in folders
        if folder.exists() and not (folder / "ready").exists()
    ]


def models(plans: list[Path]) -> dict[str, list[Finding]] | None:
    """What each model's check finds; None where the helpers' packages aren't there."""
    try:
        from tpumake.preflight.checks import check
        from tpumake.preflight.plan import Plan
    except ModuleNotFoundError:
        return None
    schema = json.loads((TOP / "schemas" / "stanza.schema.json").read_text())
    result = {}
    for path in plans:
        document = json.loads(path.read_text())
        plan = Plan.read(document, document["plan"]["values"]["VARIANTS"].split())
        result[plan.model] = check(plan, schema)
    return result


def parser() -> argparse.ArgumentParser:
    """What the Makefile may say."""
    arguments = argparse.ArgumentParser(prog="doctor", description=__doc__)
    arguments.add_argument("plans", nargs="*", type=Path, help="a model's plan each")
    for name in ("build", "toolchain", "venv"):
        arguments.add_argument(f"--{name}", required=True, type=Path)
    arguments.add_argument("--extra", action="append", default=[], type=Path)
    arguments.add_argument("--json", action="store_true")
    return arguments


def main() -> int:
    """Print what is wrong; 1 if something has to be mended before anything can be built."""
    chosen = parser().parse_args()
    machine = in_order(
        [*check_here(chosen.build, chosen.toolchain), *helpers(chosen.venv), *extras(chosen.extra)]
    )
    if not shutil.which("make"):
        what, remedy = "there is none on the PATH", "install GNU Make 4.3 or newer"
        machine.append(Finding("python", WARNING, "make", what, remedy))
    checked = models(chosen.plans) or {}
    if chosen.json:
        every = machine + [one for found in checked.values() for one in found]
        print(json.dumps(document("doctor", "", every), indent=1))
        return int(any(one.severity == ERROR for one in every))
    for line in filter(None, (told(machine), summary("this machine", machine))):
        print(line)
    for model, found in checked.items():
        first = f"; the first: {found[0]}" if found else ""
        print(summary(model, found) + first)
    # A model that can't be built is its own matter.
    return int(any(one.severity == ERROR for one in machine))


if __name__ == "__main__":
    run_guarded(main)
