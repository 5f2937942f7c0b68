#!/usr/bin/env python3
"""Compare two .npz files of tensors, the worst pair first."""

from __future__ import annotations

import csv
import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tpumake.cli import BadInput, CheckFailed, atomic_write, run
from tpumake.errors import one_line

if TYPE_CHECKING:
    from tpumake.npz_compare import Comparison, TensorResult
    from tpumake.similarity import Tolerance

_SCHEMA = "npz_compare.schema.json"


def _ignored(name: str, **settings) -> click.Option:
    """An option of npz_tool's that has no effect there either; taken so that its callers work."""
    return click.option(name, hidden=True, expose_value=False, **settings)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("target", type=click.Path(path_type=Path))
@click.argument("reference", type=click.Path(path_type=Path))
@click.option(
    "--tolerance",
    default="0.99,0.99",
    show_default=True,
    metavar="COS,EUC",
    help="Least cosine and Euclidean similarity; a pair must be above both.",
)
@click.option(
    "--excepts", "--except", default="", metavar="A,B", help="Tensors to leave out, by full name."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, all tensors in it.")
@click.option("--report", type=click.Path(path_type=Path), help="Also write that document here.")
@click.option("--save", type=click.Path(path_type=Path), help="Also write a CSV table here.")
@click.option(
    "--top", default=10, show_default=True, type=click.IntRange(0), help="Rows of the table."
)
@click.option(
    "--per_axis_compare",
    "axis",
    default=-1,
    metavar="AXIS",
    help="Judge each slice up to this axis by itself.",
)
@click.option(
    "--int8_tensor_close",
    "int8_exact",
    default=1,
    show_default=True,
    help="1: int8 tensors must be equal; 0: they may be similar.",
)
@click.option(
    "--renamed",
    default="",
    metavar="ENDING",
    help="What TARGET may have at the end of a name that REFERENCE has without it.",
)
@click.option("--verbose", "-v", count=True, help="Print all rows of the table.")
@_ignored("--full-array", is_flag=True)
@_ignored("--stats_int8_tensor", is_flag=True)
@_ignored("--dequant", is_flag=True)
@_ignored("--op_info")
def command(
    target: Path,
    reference: Path,
    tolerance: str,
    excepts: str,
    as_json: bool,
    report: Path | None,
    save: Path | None,
    top: int,
    axis: int,
    int8_exact: int,
    renamed: str,
    verbose: int,
) -> None:
    """Compare the tensors that TARGET.npz and REFERENCE.npz have in common.

    A pair passes if it is equal, close (every element within 0.1 %), or if both its similarities
    are above the tolerance. It fails if the numbers of elements differ or a NaN is in it. Files
    without a common tensor fail.

    Exit code 0: all pass, 1: some fail, 2: bad input.
    """
    # One-thread BLAS: the pieces are small, and tensors are compared side by side anyway. It must
    # be said before numpy is imported, which is why the imports are here.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from tpumake.npz_compare import compare_files

    result = compare_files(
        target,
        reference,
        _parse_tolerance(tolerance),
        frozenset(excepts.split(",")),
        int8_exact=bool(int8_exact),
        axis=axis,
        renamed=renamed,
    )
    document = json.dumps(_document(result, target, reference), indent=1, ensure_ascii=False)
    if report:
        with atomic_write(report) as temporary:
            temporary.write_text(document + "\n", encoding="utf-8")
    if save:
        _save_csv(result, save)
    if as_json:
        click.echo(document)
    else:
        for line in _table(result, len(result.tensors) if verbose else top):
            click.echo(line)
        click.echo(_summary(result))
    if not result.passed:
        raise CheckFailed(_failure(result))


def _parse_tolerance(text: str) -> Tolerance:
    from tpumake.similarity import Tolerance

    try:
        cosine, euclidean = (float(part) for part in text.split(","))
        if math.isfinite(cosine) and math.isfinite(euclidean):
            return Tolerance(cosine, euclidean)
    except ValueError:
        pass
    raise BadInput(f'--tolerance "{text}": give two numbers, cosine and Euclidean: 0.99,0.9')


def _table(result: Comparison, rows: int) -> list[str]:
    lines = [f"{'verdict':<12} {'cosine':>10} {'Euclidean':>10} {'SQNR dB':>8}  tensor"]
    worst = result.worst_first()
    for tensor in worst[:rows]:
        verdict = tensor.verdict
        cosine, euclidean, sqnr = verdict.figures
        line = f"{verdict.kind:<12} {_figure(cosine, 7):>10} {_figure(euclidean, 7):>10}"
        line += f" {_figure(sqnr, 1):>8}  {one_line(tensor.name)}"
        shape = "x".join(map(str, tensor.target_shape)) or "scalar"
        line += f" ({shape} {tensor.target_dtype})"
        lines.append(line + (f": {verdict.reason}" if verdict.reason else ""))
    if not worst or not rows:
        return []
    if len(worst) > rows:
        lines.append(f"… and {len(worst) - rows} more, none of them worse")
    return lines


def _summary(result: Comparison) -> str:
    """The last line; scripts/tpumake/stages.py reads it, so it always has all its parts."""
    cosine, _ = result.lowest("cosine") or (None, None)
    euclidean, tensor = result.lowest("euclidean") or (None, None)
    return (
        f"{len(result.tensors)} compared, {result.passed_count} passed, "
        f"lowest cosine {_figure(cosine, 7)}, lowest Euclidean {_figure(euclidean, 4)}"
    ) + (f" ({one_line(tensor)})" if tensor else "")


def _figure(value: float | None, digits: int) -> str:
    """A figure rounded down: a similarity that isn't 1 must not look like 1."""
    if value is None:
        return "-"
    scale = 10**digits
    return f"{math.floor(value * scale) / scale:.{digits}f}"


def _failure(result: Comparison) -> str:
    reasons = result.reasons()
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return reasons[0] + more


def _document(result: Comparison, target: Path, reference: Path) -> dict:
    """The result as schemas/npz_compare.schema.json has it."""
    return {
        "$schema": _SCHEMA,
        # Names only: a report must not depend on where the tree lies.
        "target": target.name,
        "reference": reference.name,
        "tolerance": result.tolerance._asdict(),
        "passed": result.passed,
        "reasons": result.reasons(),
        "compared_count": len(result.tensors),
        "passed_count": result.passed_count,
        "lowest": {
            measure: _lowest(result.lowest(measure)) for measure in ("cosine", "euclidean", "sqnr")
        },
        "excepted": list(result.excepted),
        "only_in_target": list(result.only_in_target),
        "only_in_reference": list(result.only_in_reference),
        "tensors": [_row(tensor) for tensor in result.worst_first()],
    }


def _lowest(found: tuple[float, str] | None) -> dict | None:
    return {"value": found[0], "tensor": found[1]} if found else None


def _row(tensor: TensorResult) -> dict:
    return {
        "name": tensor.name,
        "verdict": tensor.verdict.kind,
        "passed": tensor.passed,
        **tensor.verdict.figures._asdict(),
        "target_shape": list(tensor.target_shape),
        "reference_shape": list(tensor.reference_shape),
        "target_dtype": tensor.target_dtype,
        "reference_dtype": tensor.reference_dtype,
        "reason": tensor.verdict.reason,
    }


def _save_csv(result: Comparison, path: Path) -> None:
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["name", "verdict", "passed", "cosine", "euclidean", "sqnr_db"])
        for tensor in result.worst_first():
            figures = ["" if value is None else value for value in tensor.verdict.figures]
            writer.writerow([tensor.name, tensor.verdict.kind, tensor.passed, *figures])


if __name__ == "__main__":
    run(command)
