"""Run a network on pictures with one quantisation table after the other."""

from __future__ import annotations

import hashlib
import json
import queue
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from tpumake.errors import BadInput, CheckFailed
from tpumake.evaluation.found import Seen, read_raw
from tpumake.evaluation.pictures import Picture
from tpumake.evaluation.running import INSIDE, Feeding, Inside, Kept
from tpumake.letterbox import Fit
from tpumake.mixed.search import Layer

__all__ = ["PROGRAMS", "Trial", "Trials", "table"]

# What tries tables in the toolchain's Python, and what it imports of ours.
PROGRAMS = [INSIDE.with_name(name) for name in
            ("try_tables.py", "lower_network.py", "run_network.py")]  # fmt: skip
# How many bytes a value takes in float; in INT8 it is one.
_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_LOWERED = "tried.mlir"


class Trial(NamedTuple):
    """Float layers, by name, in the network's order, and the pictures to run them on."""

    floats: Sequence[str]
    pictures: Sequence[Picture]


class _Process(NamedTuple):
    inside: Inside
    folder: Path


def table(floats: Sequence[str], mode: str) -> str:
    """The text of a quantisation table: these layers in ``mode``, all others in INT8."""
    lines = ["###", "# op_name   quantize_mode", *(f"{name} {mode}" for name in floats)]
    return "\n".join(lines) + "\n"


class Trials:
    """A network, ready to be run with tables. Use it in a ``with``.

    :param network: tpu_mlir's float network
    :param beside: its weights and its calibration table, which go by their names in ``flags``
    :param flags: model_deploy's
    :param mode: what float is: BF16, F16 or F32
    :param processes: how many there are at once; each uses a core
    """

    def __init__(
        self, program: Path, network: Path, beside: Sequence[Path], flags: Sequence[str],
        mode: str, feeding: Feeding, kept: Kept, scratch: Path, processes: int,
    ) -> None:  # fmt: skip
        self._mode, self._feeding, self._kept, self._scratch = mode, feeding, kept, scratch
        self._files = [network, *beside, *PROGRAMS]
        self._command = [PROGRAMS[0].name, "--network", network.name, "--mlir", network.name,
                         "--model", _LOWERED, "--layers", "layers.json", *flags]  # fmt: skip
        self._program, self._count = program, processes
        self._fits: dict[str, Fit] = {}
        self._all: list[_Process] = []
        self._free: queue.Queue[_Process] = queue.Queue()
        self._open = ExitStack()

    def __enter__(self) -> Trials:
        with self._open:
            self._all = [self._start(number) for number in range(self._count)]
            for process in self._all:
                next(process.inside.told("LAYERS", 1), None)
                self._free.put(process)
            self._open = self._open.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def _start(self, number: int) -> _Process:
        folder = self._scratch / f"process-{number}"
        folder.mkdir()
        for path in self._files:
            (folder / path.name).symlink_to(path.absolute())
        inside = Inside(self._program, self._command, folder, "a table can't be tried")
        return _Process(self._open.enter_context(inside), folder)

    def layers(self) -> list[Layer]:
        """The network's layers in their order."""
        more = _BYTES[self._mode] - 1
        listed = json.loads((self._all[0].folder / "layers.json").read_text())
        return [Layer(each["name"], each["type"], more * (each["weights"] + each["outputs"]))
                for each in listed]  # fmt: skip

    def run(self, trials: Sequence[Trial]) -> list[list[Seen]]:
        """Run all trials; what was found in the pictures of each, in their order."""
        parts = [part for trial in trials for part in self._parts(trial, len(trials))]
        with ThreadPoolExecutor(self._count) as pool:
            jobs = [pool.submit(self._one, part) for part in parts]
            try:
                seen = iter([each for job in jobs for each in job.result()])
            except BaseException:
                for process in self._all:
                    process.inside.kill()
                raise
        return [[next(seen) for _ in trial.pictures] for trial in trials]

    def _parts(self, trial: Trial, together: int) -> list[Trial]:
        """Share a trial's pictures out, where there are more processes than trials."""
        shares = max(1, min(self._count // together, len(trial.pictures)))
        size = -(-len(trial.pictures) // shares)
        starts = range(0, len(trial.pictures), size)
        return [trial._replace(pictures=trial.pictures[at : at + size]) for at in starts]

    def _one(self, trial: Trial) -> list[Seen]:
        text = table(trial.floats, self._mode)
        kept = self._kept.within(hashlib.sha256(text.encode()).hexdigest())
        known = {each.sha256: kept.get(each) for each in trial.pictures}
        left = [each for each in trial.pictures if known[each.sha256] is None]
        process = self._free.get()
        try:
            if left:
                (process.folder / "table").write_text(text)
                pairs = [[str(self._picture(each)), f"{each.sha256[:32]}.npz"] for each in left]
                process.inside.ask(json.dumps({"table": "table", "pictures": pairs}))
            for each, (seconds,) in zip(left, process.inside.told("TRIED", 1), strict=False):
                known[each.sha256] = self._read(process.folder, each, float(seconds))
                kept.put(each, known[each.sha256])
        finally:
            self._free.put(process)
        found = [seen for each in trial.pictures if (seen := known[each.sha256])]
        if len(found) < len(trial.pictures):
            raise CheckFailed("the toolchain's program ended well without trying all tables")
        return found

    def _read(self, folder: Path, picture: Picture, seconds: float) -> Seen:
        raw = folder / f"{picture.sha256[:32]}.npz"
        try:
            seen = read_raw(raw, self._fits[picture.sha256], self._feeding.classes, seconds)
        except BadInput as error:
            raise BadInput(f"with float layers, on {picture.name}: {error}") from None
        raw.unlink()
        return seen

    def _picture(self, picture: Picture) -> Path:
        """A picture as the network sees it, written when it is first asked for."""
        path = (self._scratch / f"{picture.sha256[:32]}.png").absolute()
        if not path.exists() or picture.sha256 not in self._fits:
            seen, self._fits[picture.sha256] = self._feeding.see(picture)
            # Two threads may want the same one.
            part = path.with_name(f"{path.stem}-{id(seen)}.part")
            Image.fromarray(seen).save(part, "PNG", compress_level=1)
            part.replace(path)
        return path
