#!/usr/bin/env python3
"""Measure how long `make` takes, beside other tools with the same stages."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from pathlib import Path

import click
import jsonschema

from tpumake.bench.chart import chart
from tpumake.bench.measure import Bystanders, measure
from tpumake.bench.project import Project
from tpumake.bench.report import (
    accept,
    describe_machine,
    describe_row,
    left_out,
    missed,
    regressions,
    table,
)
from tpumake.bench.rows import ROWS, TOOLS, Bench
from tpumake.cli import BadInput, CheckFailed, atomic_write, run
from tpumake.folders import private_folder

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "schemas" / "bench.schema.json"
NOTHING_ACCEPTED = {"$schema": "bench.schema.json#/$defs/accepted", "targets": {}}
# What others may do, in cores, before it is told.
DISTURBING = 0.2
PATH = click.Path(path_type=Path)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("target")
@click.option("--row", "rows", multiple=True, type=click.Choice(list(ROWS)), help="Only this row.")
@click.option("--tool", "tools", multiple=True, type=click.Choice(TOOLS), help="Only this tool.")
@click.option("--rounds", default=11, show_default=True, type=click.IntRange(1))
@click.option("--out", default="build/bench", show_default=True, type=PATH, help="For the results.")
@click.option("--accepted", type=PATH, help="Ratios that those measured are held against.")
@click.option("--accept", "accepting", is_flag=True, help="Put those measured in their place.")
@click.option("--make", default="make", show_default=True, help="The program.")
@click.option("--venv", default=".venv", show_default=True, type=PATH)
@click.option("--toolchain", default=".toolchain", show_default=True, type=PATH)
@click.option("--rivals", default=".bench", show_default=True, type=PATH, help="DVC, Snakemake.")
def command(
    target: str,
    rows: tuple[str, ...],
    tools: tuple[str, ...],
    rounds: int,
    out: Path,
    accepted: Path | None,
    accepting: bool,
    make: str,
    venv: Path,
    toolchain: Path,
    rivals: Path,
) -> None:
    """Measure `make TARGET`, for instance tiny_int8, when there is nothing to compile.

    Everything runs in copies of this checkout. All that is compared runs in turn, round by round;
    figures are medians and quartiles. Writes bench.json (schemas/bench.schema.json) and bench.svg.

    Exit code 0: done, 1: something is slower than it has to be, or a ratio more than 20 % lower
    than accepted, 2: bad input.
    """
    if accepting and not accepted:
        raise BadInput("--accept needs --accepted, the file to write")
    before = _load(accepted) if accepted else NOTHING_ACCEPTED
    # So that folders are removed and programs ended then, too.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / "logs", ignore_errors=True)
    project = Project(ROOT, target, make, venv, toolchain, out / "logs")
    progress = _Progress(rounds)
    with private_folder(out, ".work-") as work:
        names = [name for name in TOOLS if name in (tools or TOOLS)]
        bench = Bench(project, work.absolute(), names, rivals / "bin" / "python", progress.step)
        document = _measured(bench, list(dict.fromkeys(rows or ROWS)), rounds, progress)
    document["missed"] = missed(document)
    document["regressions"] = [] if accepting else regressions(document, before)
    _write(out / "bench.json", document)
    with atomic_write(out / "bench.svg") as temporary:
        temporary.write_text(chart(document), encoding="utf-8")
    for line in ["", *table(document), "", *left_out(document)]:
        click.echo(line)
    click.echo(f"→ {out / 'bench.json'}, {out / 'bench.svg'}")
    if accepting:
        _write(accepted, accept(document, before))
        click.echo(f"→ {accepted}")
    _judge(document)


def _measured(bench: Bench, rows: list[str], rounds: int, progress: _Progress) -> dict:
    """The document, but for what is made of it."""
    described = []
    bystanders = Bystanders()
    for name in rows:
        row = ROWS[name](bench)
        progress.row = row.title
        samples = measure(row.contenders, rounds, progress.round)
        described.append(describe_row(row, samples))
        progress.done()
    return {
        "$schema": SCHEMA.name,
        "target": bench.project.target,
        "rounds": rounds,
        "machine": describe_machine() | {"others": round(bystanders.cores(), 2)},
        "versions": {name: said for name, said in bench.versions.items() if said},
        "stages": [stage.name for stage in bench.stages],
        "rows": described,
    }


def _judge(document: dict) -> None:
    """Say what is wrong with the figures, and what may be wrong with the measurement."""
    others, cores = document["machine"]["others"], document["machine"]["cores"]
    if others > DISTURBING:
        click.echo(f"other programs kept {others:.1f} of {cores} cores busy meanwhile", err=True)
    lines = document["missed"] + document["regressions"]
    if lines:
        raise CheckFailed(*lines)


def _load(path: Path) -> dict:
    """The accepted ratios, none if there is no such file yet."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        definitions = json.loads(SCHEMA.read_text())["$defs"]
        jsonschema.validate(document, {"$ref": "#/$defs/accepted", "$defs": definitions})
    except FileNotFoundError:
        return NOTHING_ACCEPTED
    except ValueError as error:
        raise BadInput(f"{path}: is not JSON: {error}") from None
    except jsonschema.ValidationError as error:
        place = "/".join(map(str, error.absolute_path)) or "the top"
        raise BadInput(f"{path}: at {place}: {error.message}") from None
    return document


def _write(path: Path, document: dict) -> None:
    with atomic_write(path) as temporary:
        text = json.dumps(document, indent=1, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


class _Progress:
    """A line for each step that is done, and on a terminal one that moves."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self.row = ""
        self.moving = sys.stdout.isatty()

    def step(self, name: str, text: str, seconds: float) -> None:
        """Show a step of the preparations."""
        print(f"bench    {name:<12} {text:<58} {seconds:6.1f} s", flush=True)

    def round(self, number: int, tool: str) -> None:
        """Show who is being measured."""
        if self.moving:
            when = f"round {number} of {self.rounds}" if number else "warming up"
            print(f"\r\033[Kbench    {self.row}: {when}, {tool}", end="", flush=True)

    def done(self) -> None:
        """Take the moving line away."""
        if self.moving:
            print("\r\033[K", end="", flush=True)


if __name__ == "__main__":
    run(command)
