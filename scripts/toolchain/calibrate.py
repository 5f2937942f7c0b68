"""Calibrate a network: find the range of each tensor that a quantised network is to hold.

Runs in the toolchain's Python, and makes the table that tpu_mlir 1.7's run_calibration makes of the
same arguments, byte for byte but for the time in it, in several processes and without holding what
the network computes for more than one sample a process. In a first pass over the samples the least
and the most of each tensor are found, in a second one histograms between them, of which tpu_mlir's
own code chooses thresholds; those are tuned after that.

What this program does not do is left to run_calibration, which is started in its place.
"""

from __future__ import annotations

import os
import sys

if os.environ.get("OMP_NUM_THREADS") != "1":
    # Read when the libraries are loaded. Processes are what there are several of.
    os.environ["OMP_NUM_THREADS"] = "1"
    os.execv(sys.executable, [sys.executable, *sys.argv])

import argparse
import hashlib
import re
import signal
import time
from collections.abc import Iterable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import numpy as np
from calibrate_kept import Kept
from calibrate_network import Unsupported
from calibrate_processes import Died, Processes, Task, Told
from calibrate_searches import STEPS, Search, searches, tuned
from calibrate_sums import (
    ALL_ZERO,
    Range,
    capped,
    largest,
    merged_maxima,
    merged_minima,
    range_of,
)
from calibrate_worker import Description, Worker
from calibration.data_selector import DataSelector

# Samples that a process takes at once, at most, and parts of a network that one tunes at once.
CHUNK, PARTS = 8, 8
BINS = range(2, 1 << 16)
# In place of a distance that has not been measured yet.
UNKNOWN = -1


def parser() -> argparse.ArgumentParser:
    """run_calibration's flags, and two of its own."""
    arguments = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = arguments.add_argument
    add("mlir_file")
    add("--dataset")
    add("--data_list")
    add("--input_num", type=int, default=0)
    add("--tune_list", default="")
    add("--tune_num", type=int, default=5)
    add("--histogram_bin_num", type=int, default=2048)
    add("-o", "--calibration_table", required=True)
    add("--debug_cmd", default="")
    add("--processes", type=int, default=len(os.sched_getaffinity(0)), help="one a core")
    add("--keep", type=Path, help="where it is kept how far it came, until it is done")
    return arguments


class Progress:
    """What has been found out so far; arrays that are filled in any order."""

    def __init__(self, samples: int, tensors: int, bins: int, kept: Kept) -> None:
        self._kept = kept
        self.arrays = {
            "minima": np.zeros((samples, tensors), np.float32),
            "maxima": np.zeros((samples, tensors), np.float32),
            "seen": np.zeros(samples, bool),
            "histograms": np.zeros((tensors, bins), np.int64),
            "counted": np.zeros(samples, bool),
        }
        known = kept.load()
        if all(name in known and known[name].shape == array.shape
               for name, array in self.arrays.items()):  # fmt: skip
            self.arrays |= known

    def distances(self, shape: tuple[int, int, int]) -> np.ndarray:
        """The distances of searches, [searches, samples, thresholds] of float32."""
        if self.arrays.get("distances", np.empty(0)).shape != shape:
            self.arrays["distances"] = np.full(shape, UNKNOWN, np.float32)
        return self.arrays["distances"]

    def told(self, what: str, done: int, total: int) -> None:
        """Say how far it is, and keep that."""
        print(f"PROGRESS {done} {total} {what}", flush=True)
        self._kept.save(self.arrays)


class Calibration:
    """One calibration, made by some processes.

    :param described: what a process says of the network and the samples
    """

    def __init__(self, chosen: argparse.Namespace, processes: Processes,
                 described: Description, kept: Kept) -> None:  # fmt: skip
        self._processes, self._count = processes, chosen.processes
        self._ops, self._work, self.samples, self._tune_samples = described
        self.names = [name for name, _, _ in self._ops]
        self._bins = chosen.histogram_bin_num
        self._progress = Progress(self.samples, len(self._ops), self._bins, kept)

    def ranges(self) -> list[Range]:
        """The range of each tensor.

        :raises Unsupported: where one has values that are no numbers
        """
        arrays = self._progress.arrays
        for numbers, pairs in self._over_samples("ranges", "seen"):
            for number, (least, most) in zip(numbers, pairs, strict=True):
                arrays["minima"][number], arrays["maxima"][number] = least, most
        least, most = merged_minima(arrays["minima"]), merged_maxima(arrays["maxima"])
        both = np.isfinite(arrays["minima"]) & np.isfinite(arrays["maxima"])
        if not both.all():
            name = self.names[int(np.argmin(both.all(axis=0)))]
            raise Unsupported(f"{name} has values that are no numbers")
        return list(map(range_of, least, most, largest(least, most)))

    def thresholds(self, ranges: list[Range]) -> list[float]:
        """The threshold of each tensor that its histogram tells."""
        sizes = [each.largest for each in ranges]
        histograms = self._progress.arrays["histograms"]
        for _, counts in self._over_samples("histograms", "counted", sizes):
            histograms += counts
        # As wide as run_calibration's, where very many values come round again.
        histograms = histograms.astype(np.int32)
        parts = np.array_split(np.arange(len(sizes)), self._count)
        tasks = [Task("thresholds", (histograms[part], [sizes[each] for each in part]), part)
                 for part in parts]  # fmt: skip
        found: dict[int, float] = {}
        for part, thresholds in self._processes.run(tasks):
            found.update(zip(part.tolist(), thresholds, strict=True))
        return [capped(found[each], size) for each, size in enumerate(sizes)]

    def _over_samples(
        self, what: str, done: str, *more: object
    ) -> Iterator[tuple[list[int], object]]:
        """Have something done with each sample where that is not known yet."""
        known = self._progress.arrays[done]
        left = np.flatnonzero(~known).tolist()
        size = max(1, min(CHUNK, -(-len(left) // (4 * self._count))))
        chunks = [left[at : at + size] for at in range(0, len(left), size)]
        tasks = [Task(what, (chunk, *more), chunk) for chunk in chunks]
        for numbers, result in self._processes.run(tasks):
            yield numbers, result
            known[numbers] = True
            self._progress.told(what, int(known.sum()), self.samples)

    def tune(self, ranges: list[Range], thresholds: list[float]) -> list[float]:
        """The threshold of each tensor after tuning.

        :param thresholds: rounded as the table has them
        """
        initial = dict(zip(self.names, thresholds, strict=True))
        ends = {name: each.largest for name, each in zip(self.names, ranges, strict=True)}
        made = searches(self._ops, initial, ends)
        distances = self._progress.distances((len(made), self._tune_samples, STEPS + 1))
        unknown = distances[:, :, 0] == UNKNOWN
        tasks = [
            Task("distances", (sample, [made[each] for each in part]), (sample, part))
            for sample in range(self._tune_samples) for part in self._parts(made)
            if unknown[part, sample].any()
        ]  # fmt: skip
        for (sample, part), found in self._processes.run(tasks, next_part):
            distances[part, sample] = found
            known = np.count_nonzero(distances[:, :, 0] != UNKNOWN)
            self._progress.told("tuned", known, unknown.size)
        return list(tuned(initial, made, list(distances.swapaxes(1, 2))).values())

    def _parts(self, made: list[Search]) -> list[list[int]]:
        """Searches by number, in parts of about the same work."""
        work = [self._work[each.op] for each in made]
        ends = np.cumsum(work) * PARTS // max(sum(work), 1)
        numbers = np.arange(len(made))
        return [numbers[ends == each].tolist() for each in np.unique(ends)]


def next_part(left: list[Task], last: Task | None) -> int:
    """The part of the network behind the last one, on the same sample; else one far from others."""
    by_sample: dict[int, list[int]] = {}
    for number, task in enumerate(left):
        sample, part = task.tag
        if last and sample == last.tag[0] and part > last.tag[1]:
            return number
        by_sample.setdefault(sample, []).append(number)
    most = max(by_sample.values(), key=len)
    # Whoever is at that sample comes from its beginning.
    return most[0] if len(most) >= PARTS else most[len(most) // 2]


def calibrate(chosen: argparse.Namespace) -> None:
    """Calibrate, and write the table.

    :raises Unsupported: by what is left to run_calibration
    """
    if chosen.debug_cmd:
        raise Unsupported("it has --debug_cmd")
    if not one_each(chosen.histogram_bin_num):
        raise Unsupported(f"it has {chosen.histogram_bin_num} bins")
    started = time.monotonic()
    selected = DataSelector(chosen.dataset, chosen.input_num, chosen.data_list)
    for_tuning = selected
    if chosen.tune_list:
        for_tuning = DataSelector(None, chosen.tune_num, chosen.tune_list)
        chosen.tune_num = len(for_tuning.data_list)
    work = partial(Worker, chosen.mlir_file, selected, for_tuning, chosen.histogram_bin_num)
    with Processes(chosen.processes, work) as processes:
        ((_, described),) = processes.run([Task("describe", (chosen.tune_num,))])
        kept = Kept(chosen.keep, partial(digest, chosen, selected, for_tuning))
        calibration = Calibration(chosen, processes, described, kept)
        ranges = calibration.ranges()
        thresholds = calibration.thresholds(ranges)
        if chosen.tune_num > 0:
            thresholds = calibration.tune(ranges, [float(f"{each:.7f}") for each in thresholds])
    text = table(
        chosen, calibration.samples, zip(calibration.names, thresholds, ranges, strict=True)
    )
    write(Path(chosen.calibration_table), text)
    kept.drop()
    for name, each in zip(calibration.names, ranges, strict=True):
        if each.largest == ALL_ZERO:
            print(f"warning: {name} is zero throughout")
    seconds = time.monotonic() - started
    print(f"{calibration.samples} samples, {len(ranges)} tensors, {seconds:.1f} s")


def one_each(bins: int) -> bool:
    """Whether run_calibration counts whole numbers each in its bin.

    It has NumPy do that, with borders in single precision, which are too coarse for many bins.
    """
    if bins not in BINS:
        return False
    numbers = np.arange(bins, dtype=np.float32)
    return bool((np.histogram(numbers, bins, (0, bins - 1))[0] == 1).all())


def table(
    chosen: argparse.Namespace, samples: int, rows: Iterable[tuple[str, float, Range]]
) -> str:
    """The table as run_calibration writes it; its time is SOURCE_DATE_EPOCH."""
    when = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", "0")))
    head = [
        f"# genetated time: {time.strftime('%Y-%m-%d %H:%M:%S', when)}",
        f"# histogram number: {chosen.histogram_bin_num}",
        f"# sample number: {samples}",
        *([f"# tune number: {chosen.tune_num}"] if chosen.tune_num > 0 else []),
        "###",
        "# op_name    threshold    min    max",
    ]
    lines = [f"{name} {threshold:.7f} {each.least:.7f} {each.most:.7f}"
             for name, threshold, each in rows]  # fmt: skip
    return "\n".join([*head, *lines]) + "\n"


def digest(chosen: argparse.Namespace, *selected: DataSelector) -> str:
    """What the result hangs on: arguments, the bytes of files, and this program's own."""
    words = [chosen.input_num, chosen.tune_num, chosen.histogram_bin_num]
    total = hashlib.sha256(repr([words, *(each.data_list for each in selected)]).encode())
    network = Path(chosen.mlir_file)
    weights = re.search(r'module\.weight_file = "([^"]+)"', network.read_text())
    own = sorted(Path(__file__).parent.glob("calibrate*.py"))
    samples = {name.strip() for each in selected for line in each.data_list
               for name in line.split(",")}  # fmt: skip
    for path in (network, *map(Path, weights.groups() if weights else ()), *own,
                 *map(Path, sorted(samples))):  # fmt: skip
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def write(path: Path, text: str) -> None:
    """Write a file as a whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def use_the_tool(chosen: argparse.Namespace, why: object) -> NoReturn:
    """Become run_calibration."""
    print(f"run_calibration does it, because {why}", flush=True)
    flags = {name: value for name, value in vars(chosen).items()
             if name not in ("mlir_file", "processes", "keep") and value is not None}  # fmt: skip
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    program = find_spec("tools.run_calibration").origin
    os.execv(sys.executable, [sys.executable, program, chosen.mlir_file, *words])


def main() -> int:
    """Calibrate; or say why not, in a line."""
    chosen = parser().parse_args()
    given = argparse.Namespace(**vars(chosen))
    try:
        calibrate(chosen)
    except Unsupported as why:
        use_the_tool(given, why)
    except Died as died:
        if died.code >= 0:
            return died.code or 1
        name = signal.Signals(-died.code).name
        print(f"a process was ended by signal {-died.code} ({name})", file=sys.stderr)
        return 128 - died.code
    except Told as told:
        print(f"calibrate: {told}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("calibrate: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
