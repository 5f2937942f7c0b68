"""Lower a float network to a chip's own operations and precision, and stop there.

Runs in the toolchain's Python, in the stage's private folder. model_deploy does the same as its
first step, and throws the weights away; here the network stays, to be run in tpu_mlir's
interpreter. Takes model_deploy's flags, of which those that say nothing about this step are
ignored.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from tools.model_deploy import getCustomFormat
from utils.mlir_parser import MlirParser
from utils.mlir_shell import mlir_lowering
from utils.preprocess import preprocess

WEIGHT_FILE = re.compile(r'(module\.weight_file = )"([^"]+)"')


def parser(description: str) -> argparse.ArgumentParser:
    """The flags of model_deploy that lowering looks at."""
    arguments = argparse.ArgumentParser(description=description, allow_abbrev=False)
    add = arguments.add_argument
    add("--mlir", required=True)
    add("--processor", required=True)
    add("--quantize", required=True)
    add("--calibration_table")
    add("--quantize_table")
    add("--fuse_preprocess", action="store_true")
    add("--customization_format", default="")
    add("--aligned_input", action="store_true")
    add("--ignore_f16_overflow", action="store_true")
    add("--do_winograd", action="store_true")
    add("--q_group_size", type=int, default=0)
    add("--num_device", type=int, default=1)
    add("--num_core", type=int, default=1)
    return arguments


def frame_format(chosen: argparse.Namespace) -> str:
    """What the fused input looks like; model_deploy derives it where nobody says."""
    if chosen.customization_format:
        return chosen.customization_format
    settings, parsed = preprocess(), MlirParser(chosen.mlir)
    settings.load_config(parsed.inputs[0].op)
    return getCustomFormat(settings.pixel_format, settings.channel_format)


def lower(chosen: argparse.Namespace, lowered: Path) -> int:
    """Lower, and give the weights a name that tells whose they are.

    :param lowered: to write; its weights go beside it
    :returns: how many operations of the chip there are
    """
    fused = chosen.fuse_preprocess
    mlir_lowering(
        chosen.mlir,
        str(lowered),
        chosen.quantize,
        chosen.processor,
        num_device=chosen.num_device,
        num_core=chosen.num_core,
        cali_table=chosen.calibration_table,
        quantize_table=chosen.quantize_table,
        customization_format=frame_format(chosen) if fused else "",
        fuse_preprocess=fused,
        aligned_input=chosen.aligned_input,
        ignore_f16_overflow=chosen.ignore_f16_overflow,
        do_winograd=chosen.do_winograd,
        q_group_size=chosen.q_group_size,
    )
    # The tool's own name for them holds chip and precision, which the folder and the name say here.
    text = lowered.read_text()
    weights = WEIGHT_FILE.search(text)
    if not weights:
        raise RuntimeError("Error: the lowered network names no weights")
    renamed = lowered.with_name(f"{lowered.stem}_weight.npz")
    Path(weights[2]).replace(renamed)
    lowered.write_text(WEIGHT_FILE.sub(rf'\1"{renamed.name}"', text, count=1))
    return len(re.findall(r"= .tpu[.]", text))


def main() -> None:
    """Lower, and tell how many operations came of it."""
    arguments = parser(__doc__)
    arguments.add_argument("--lowered", required=True, type=Path, help="to write")
    chosen, _ = arguments.parse_known_args()
    print(f"{lower(chosen, chosen.lowered)} operations of the chip")


if __name__ == "__main__":
    main()
