"""Measure what a precision does to each layer: the lowered network beside the float one.

Runs in the toolchain's Python. Both networks run in tpu_mlir's interpreter on the same pictures,
and every tensor that both have is compared; quantised ones count as the numbers that they stand
for. Takes model_deploy's flags, of which those that say nothing about the input are ignored.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import numpy as np
import pymlir
from run_network import Inputs, invoke, parser
from utils.mlir_parser import MlirParser

# So many layers, of those that add most noise and of those least like the float network, get a
# histogram of their values, of so many bins.
SHOWN, BINS = 8, 64
PRECISIONS = (
    ("i8:f32", "INT8"), ("u8:f32", "INT8"), ("i4:f32", "INT4"), ("i16:f32", "INT16"),
    ("i32:f32", "INT32"), ("bf16", "BF16"), ("f16", "F16"), ("f32", "F32"), ("i8", "INT8"),
)  # fmt: skip


class Network:
    """A network in tpu_mlir's form, ready to run."""

    def __init__(self, path: str) -> None:
        self.module = pymlir.module()
        self.module.load(path)

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All tensors of a run by name, float32."""
        invoke(self.module, inputs)
        return self.module.get_all_tensor()


class Sums:
    """What is added up over pictures of one tensor, float (a) and lowered (b)."""

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self.count = self.clipped = 0
        self.ab = self.aa = self.bb = self.error = 0.0
        self.least, self.most = np.inf, -np.inf

    def add(self, a: np.ndarray, b: np.ndarray, threshold: float | None) -> None:
        """Add one picture's, float a and lowered b, both of the same number of values."""
        self.shape = a.shape
        a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
        self.count += a.size
        self.ab, self.aa, self.bb = self.ab + a @ b, self.aa + a @ a, self.bb + b @ b
        self.error += float(np.square(a - b).sum())
        self.least, self.most = min(self.least, float(a.min())), max(self.most, float(a.max()))
        if threshold is not None:
            self.clipped += int(np.count_nonzero(np.abs(a) > threshold))

    @property
    def cosine(self) -> float:
        """1 where both are zero throughout."""
        size = np.sqrt(self.aa * self.bb)
        return float(self.ab / size) if size else float(self.aa == self.bb)

    @property
    def noise(self) -> float:
        """Power of the quantisation noise by that of the signal; 0 where there is no signal."""
        return float(self.error / self.aa) if self.aa else 0.0

    @property
    def sqnr(self) -> float | None:
        """The same the other way round, in dB; None where there is no noise, or no signal."""
        return float(-10 * np.log10(self.noise)) if self.noise else None


def thresholds(table: str | None) -> dict[str, float]:
    """The calibration table's thresholds by tensor."""
    rows = [line.split() for line in Path(table).read_text().splitlines()] if table else []
    return {row[0]: float(row[1]) for row in rows if len(row) == 4 and not row[0].startswith("#")}


def precisions(lowered: MlirParser) -> dict[str, str]:
    """What each tensor of the lowered network is held in."""
    found = {}
    for op in lowered.ops:
        for name, result in zip(op.outputs, op.op.results, strict=False):
            kind = re.sub(r"^tensor<(?:\d+x)*|>$", "", str(result.type))
            found[name] = next((said for sign, said in PRECISIONS if sign in kind), kind)
    return found


def histogram(values: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """How many values are in each of BINS equal parts between the bounds."""
    return np.histogram(values, BINS, bounds)[0]


def measure(chosen: argparse.Namespace, pictures: list[str]) -> dict:
    """Compare all tensors, and give schemas/layers.schema.json's document."""
    float_graph = MlirParser(chosen.network)
    held = precisions(MlirParser(chosen.model))
    limits = thresholds(chosen.calibration_table)
    limits = {name: limit for name, limit in limits.items() if held.get(name) == "INT8"}
    unfused = argparse.Namespace(**{**vars(chosen), "fuse_preprocess": False})
    float_inputs, lowered_inputs = Inputs(unfused), Inputs(chosen)
    float_network, lowered_network = Network(chosen.network), Network(chosen.model)
    sums: dict[str, Sums] = {}
    for done, picture in enumerate(pictures, 1):
        float_tensors = float_network.run(float_inputs.of(picture))
        lowered_tensors = lowered_network.run(lowered_inputs.of(picture))
        for name, values in float_tensors.items():
            other = lowered_tensors.get(name)
            if name in held and other is not None and other.size == values.size:
                sums.setdefault(name, Sums()).add(values, other, limits.get(name))
        print(f"PROGRESS {done} {len(pictures)}", flush=True)
    layers = list(_layers(float_graph, sums, held, limits))
    if not layers:
        raise RuntimeError("Error: the networks have no tensor in common")
    worst = _worst(layers)
    counts = {name: np.zeros(BINS, int) for name in worst}
    for picture in pictures:
        tensors = float_network.run(float_inputs.of(picture))
        for name in worst:
            counts[name] += histogram(tensors[name], (sums[name].least, sums[name].most))
    return {
        "$schema": "layers.schema.json",
        "target": chosen.target,
        "chip": chosen.processor,
        "pictures": len(pictures),
        "layers": layers,
        "histograms": [{"name": name, "counts": counts[name].tolist()} for name in worst],
    }


def _layers(graph: MlirParser, sums: dict[str, Sums], held: dict[str, str], limits: dict):
    """One entry for each tensor that was compared, in the network's order."""
    for op in graph.ops:
        before = max((sums[name].noise for name in op.opds if name in sums), default=0.0)
        for name in op.outputs:
            if name not in sums:
                continue
            found = sums[name]
            yield {
                "name": name,
                "type": op.type.removeprefix("top."),
                "shape": list(found.shape),
                "precision": held[name],
                "cosine": round(found.cosine, 7),
                "sqnr_db": _rounded(found.sqnr),
                "added_noise": round(found.noise - before, 7),
                "min": _rounded(found.least, 6),
                "max": _rounded(found.most, 6),
                "threshold": limits.get(name),
                "clipped": round(found.clipped / found.count, 7) if name in limits else None,
            }


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)


def _worst(layers: list[dict]) -> list[str]:
    """The layers that add most noise, and those least like the float network."""
    adding = sorted(layers, key=lambda layer: -layer["added_noise"])[:SHOWN]
    unlike = sorted(layers, key=lambda layer: layer["cosine"])[:SHOWN]
    return list(dict.fromkeys(layer["name"] for layer in adding + unlike))


def samples(folder: Path, count: int) -> list[str]:
    """The first samples of a calibration set, in their order: Calibration1.jpg and so on."""
    numbered = {int(path.stem.removeprefix("Calibration")): path
                for path in folder.glob("Calibration*") if path.stem[11:].isdigit()}  # fmt: skip
    if not numbered:
        raise RuntimeError("Error: the set has no samples of one file each")
    return [str(numbered[number]) for number in sorted(numbered)[:count]]


def main() -> None:
    """Measure, and write the document."""
    arguments = parser(__doc__)
    arguments.add_argument("--samples", type=Path, required=True, help="a calibration set")
    arguments.add_argument("--count", type=int, required=True, help="how many of them")
    arguments.add_argument("--calibration_table")
    arguments.add_argument("--target", required=True, help="what is built, for the document")
    arguments.add_argument("out", type=Path)
    chosen, _ = arguments.parse_known_args()
    pymlir.set_mem_mode("value_mem")
    document = measure(chosen, samples(chosen.samples, chosen.count))
    chosen.out.write_text(json.dumps(document, indent=1) + "\n")
    least = min(document["layers"], key=lambda layer: layer["cosine"])
    print(f"{len(document['layers'])} tensors, least like the float network's: {least['name']}, "
          f"cosine {least['cosine']:.6f}")  # fmt: skip


if __name__ == "__main__":
    main()
