"""Try quantisation tables: lower the float network with each, and run what comes of it on pictures.

Runs in the toolchain's Python, for scripts/search_qtable.py, and goes on as long as there is
something on its standard input: a line of JSON for each trial, {"table": FILE, "pictures":
[[PNG, NPZ], ...]}. It answers with a line for each picture that it is done with, "TRIED" and how
many seconds that took. Before the first trial it writes what layers the network has. Takes
model_deploy's flags, of which those that say nothing about lowering or the input are ignored.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import time
from pathlib import Path

import lower_network
import numpy as np
import pymlir
import run_network
from utils.mlir_parser import MlirParser

# What a network begins with, and what stands for nothing.
NOT_COMPUTED = ("top.Input", "top.None", "top.Weight")


def layers(network: str) -> list[dict]:
    """Every layer's name, type and size: how many values its weights and its outputs have."""
    graph = MlirParser(network)
    found = []
    for op in graph.ops:
        if op.type in NOT_COMPUTED:
            continue
        weights = [each.type for each in op.op.operands
                   if getattr(each.owner, "name", "") == "top.Weight"]  # fmt: skip
        outputs = [each.type for each in op.op.results]
        sizes = {"weights": sum(map(values, weights)), "outputs": sum(map(values, outputs))}
        found.append({"name": op.name, "type": op.type.removeprefix("top.")} | sizes)
    return found


def values(kind: object) -> int:
    """How many values a tensor's type, tensor<1x16x320x320xf32>, has; 0 of what is none."""
    shape = re.match(r"tensor<((?:\d+x)+)", str(kind))
    return math.prod(map(int, shape[1].rstrip("x").split("x"))) if shape else 0


def main() -> None:
    """Write the layers, then try what is asked for."""
    arguments = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, conflict_handler="resolve",
        parents=[lower_network.parser(""), run_network.parser("")], add_help=False,
    )  # fmt: skip
    arguments.add_argument("--layers", required=True, type=Path, help="to write")
    chosen, _ = arguments.parse_known_args()
    chosen.layers.write_text(json.dumps(layers(chosen.network)))
    print("LAYERS ready", flush=True)
    inputs = run_network.Inputs(chosen)
    pymlir.set_mem_mode("value_mem")
    for line in sys.stdin:
        trial = json.loads(line)
        chosen.quantize_table = trial["table"]
        lower_network.lower(chosen, Path(chosen.model))
        module = pymlir.module()
        module.load(chosen.model)
        for picture, target in trial["pictures"]:
            started = time.monotonic()
            run_network.invoke(module, inputs.of(picture))
            np.savez(target, **{name: module.get_tensor(name) for name in module.output_names})
            print(f"\nTRIED {time.monotonic() - started:.3f}", flush=True)


if __name__ == "__main__":
    main()
