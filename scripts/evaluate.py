#!/usr/bin/env python3
"""Say what quantisation cost: what networks found in pictures, against labels and each other."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tpumake.cli import BadInput, CheckFailed, atomic_write, run
from tpumake.detections import CONFIDENCE
from tpumake.evaluation.document import Gate, Run, document, of_variant
from tpumake.evaluation.found import read_found
from tpumake.evaluation.layers import worst_layers
from tpumake.evaluation.pictures import EvalSet, read_set
from tpumake.evaluation.table import gate_line, lines

_PATH = click.Path(path_type=Path)


def read_runs(given: tuple[tuple[str, str, Path], ...], suffix: str, chosen: EvalSet) -> list[Run]:
    """Read what each network found; a variant of - is none."""
    return [
        Run(kind, "" if variant == "-" else variant, suffix, read_found(path, len(chosen.pictures)))
        for kind, variant, path in given
    ]


def insist(told: dict, layers: Path | None) -> None:
    """End with one line where a gate is not passed, which says what layers suffer most."""
    for gate in told["gates"]:
        if gate["passed"] is False:
            raise CheckFailed(gate_line(gate, worst_layers(layers) if layers else ()))


@click.command(help=__doc__)
@click.argument("target")
@click.argument("chosen", type=_PATH)
@click.option("--run", "given", type=(str, str, _PATH), multiple=True, required=True,
              metavar="KIND VARIANT NPZ", help="What a network found; the first is what the "
              "others are held against.")  # fmt: skip
@click.option("--write", "places", type=(str, str, _PATH), multiple=True,
              metavar="VARIANT TARGET FILE", help="Where a variant's part is written.")  # fmt: skip
@click.option("--chip", required=True)
@click.option("--suffix", default="cvimodel", show_default=True, help="The model's.")
@click.option("--confidence", type=click.FloatRange(0, 1), default=CONFIDENCE, show_default=True,
              help="Score above which boxes count for precision and agreement.")  # fmt: skip
@click.option("--max-drop", type=float, help="By how much mAP50 (or top-1) may drop.")
@click.option("--gate", is_flag=True, help="End with 1 if it drops by more.")
@click.option("--layers", type=_PATH, help="With --gate: the document of X.layers, which says what "
              "layers suffer most.")  # fmt: skip
@click.option("--quick", is_flag=True, help="The models themselves were not run.")
@click.option("--json", "as_json", is_flag=True, help="Print one document instead of lines.")
def main(
    target: str,
    chosen: Path,
    given: tuple[tuple[str, str, Path], ...],
    places: tuple[tuple[str, str, Path], ...],
    chip: str,
    suffix: str,
    confidence: float,
    max_drop: float | None,
    gate: bool,
    layers: Path | None,
    quick: bool,
    as_json: bool,
) -> None:
    """Tell what was found in the pictures of CHOSEN, by networks of TARGET, and what that cost."""
    pictures = read_set(chosen)
    runs = read_runs(given, suffix, pictures)
    if gate and (quick or max_drop is None or all(run.kind != "model" for run in runs)):
        raise BadInput("a gate wants --max-drop and the model itself")
    allowed = None if max_drop is None else Gate(max_drop, not quick)
    told = document(target, chip, pictures, runs, confidence, allowed)
    for variant, name, path in places:
        part = json.dumps(of_variant(told, name, variant), indent=1, ensure_ascii=False) + "\n"
        with atomic_write(path) as temporary:
            temporary.write_text(part, encoding="utf-8")
    if gate:
        insist(told, layers)
    if as_json:
        click.echo(json.dumps(told, indent=1, ensure_ascii=False))
        return
    shown = [gate_line(each) for each in told["gates"]] if gate else lines(told)
    if quick:
        shown.append("QUICK=1: the lowered mlir stands in for the model, which is nearly the same")
    click.echo("\n".join([*shown, *(f"→ {path}" for _, _, path in places if not gate)]))


if __name__ == "__main__":
    run(main)
