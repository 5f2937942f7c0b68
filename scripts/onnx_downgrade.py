"""Rewrite an ONNX network for an older operator set, meaning kept; cut its head on request."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import click
import onnx

from tpumake import devices, onnx_io, profiles
from tpumake.cli import BadInput, CheckFailed, run
from tpumake.downgrade import BASE, Report, downgrade
from tpumake.downgrade.model import LOWEST
from tpumake.downgrade.verify import ABSOLUTE, RELATIVE, Verdict, verify
from tpumake.samples import parse_inputs


def _insisting_on_a_model(function: Callable[..., None]) -> Callable[..., None]:
    """Adapters go by what operators promise; where one breaks, see whether the model keeps it."""

    @functools.wraps(function)
    def guarded(source: Path, **options: object) -> None:
        try:
            function(source, **options)
        except (BadInput, CheckFailed, OSError, MemoryError):
            raise
        except UnicodeDecodeError:
            raise BadInput(f"{source}: a text in it is no UTF-8; export it again") from None
        except Exception:
            try:
                _insist_on_a_model(source)
            except onnx.shape_inference.InferenceError as error:
                reason = " ".join(str(error).split())[:200]
                raise BadInput(f"{source} contradicts itself: {reason}") from None
            raise

    return guarded


@click.command(epilog="Exit codes: 0 written, 1 the result isn't the original's, 2 bad input.")
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--opset",
    default=BASE,
    show_default=True,
    type=click.IntRange(min=LOWEST),
    help="Highest operator set that the result may need.",
)
@click.option(
    "--ir",
    default=8,
    show_default=True,
    type=click.IntRange(min=4),
    help="Highest IR version that the result may need.",
)
@click.option(
    "--outputs",
    metavar="A,B,C",
    help="Cut the network at these tensors; they become its outputs, in this order. "
    "`auto` finds where a YOLO's head ends and takes what the device wants; others stay whole.",
)
@click.option(
    "--device",
    default=profiles.DEFAULT,
    show_default=True,
    help="With `--outputs auto`, which device's wishes count: a name of devices/*.json.",
)
@click.option(
    "--input-shapes",
    metavar="[[1,3,640,640]]",
    help="Sizes for what the inputs leave open; what they have stays.",
)
@click.option(
    "--verify",
    "check",
    is_flag=True,
    help="Run the result beside the original on random input and compare.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
@_insisting_on_a_model
def onnx_downgrade(
    source: Path,
    target: Path,
    opset: int,
    ir: int,
    outputs: str | None,
    device: str,
    input_shapes: str | None,
    check: bool,
    as_json: bool,
) -> None:
    """Rewrite the ONNX network IN for an older operator set and write it to OUT.

    Nothing is written if an operator can't be expressed in the older set, or, with --verify, if
    the results differ.
    """
    network = onnx_io.load(source)
    if input_shapes:
        onnx_io.close_inputs(network, [list(one) for one in parse_inputs(input_shapes, "").shapes])
    profile = profiles.read(device)
    selection = devices.automatic(network.model, profile) if outputs == "auto" else None
    names = selection.names() if selection else _given(outputs)
    onnx_io.check_target(network, target)
    if names is not None:
        onnx_io.select_outputs(network, names)
    report = downgrade(network, opset, ir)
    verdicts: list[Verdict] = []

    def accept(written: Path) -> None:
        _check(written, source)
        if check:
            verdicts.append(verify(onnx_io.load(source), written, names))

    onnx_io.save(network, target, accept)
    verdict = verdicts[0] if verdicts else None
    if as_json:
        click.echo(_as_json(report, names, verdict))
        return
    for note in selection.notes if selection else ():
        click.echo(note)
    cut = None if selection and selection.whole else names
    click.echo(_line(report, cut, verdict))


def _given(outputs: str | None) -> list[str] | None:
    if outputs is None:
        return None
    return [name.strip() for name in outputs.split(",") if name.strip()]


def _check(written: Path, source: Path) -> None:
    """The standard's own checker, shape inference included."""
    try:
        onnx.checker.check_model(str(written), full_check=True)
        return
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
    # Shapes that were wrong in the original are no reason to refuse it.
    try:
        _insist_on_a_model(source)
    except onnx.shape_inference.InferenceError:
        onnx.checker.check_model(str(written))
        return
    raise BadInput(f"the rewritten {source} isn't valid, please report this: {reason}")


def _insist_on_a_model(source: Path) -> None:
    try:
        onnx.checker.check_model(str(source), full_check=True)
    except onnx.shape_inference.InferenceError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"{source} isn't a valid model: {reason}") from None


def _line(report: Report, names: list[str] | None, verdict: Verdict | None) -> str:
    parts = [_step("opset", *report.opset), _step("IR", *report.ir)]
    if names is not None:
        parts.append(f"head cut at {len(names)} output{'s' if len(names) > 1 else ''}")
    return ", ".join(parts + (["verified"] if verdict else []))


def _step(what: str, before: int, after: int) -> str:
    return f"{what} {before} → {after}" if before != after else f"{what} {before} kept"


def _as_json(report: Report, names: list[str] | None, verdict: Verdict | None) -> str:
    document: dict[str, object] = {"opset": report.opset, "ir": report.ir, "outputs": names}
    document["verified"] = verdict and {
        "tensors": verdict.tensors,
        "runs": verdict.runs,
        "worst_share_of_tolerance": verdict.worst,
        "tolerance": {"relative": RELATIVE, "of_largest_value": ABSOLUTE},
    }
    return json.dumps(document)


if __name__ == "__main__":
    run(onnx_downgrade)
