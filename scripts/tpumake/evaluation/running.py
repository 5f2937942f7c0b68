"""Run a network on a set of pictures, and keep what it found in each.

What was found in a picture is kept in a folder under a name that hangs on the network's bytes, the
picture's, and all that lies between: a run that was ended goes on where it was, a larger set runs
what is new in it, and a network that changed finds nothing of an earlier one's.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from tpumake.errors import BadInput, CheckFailed
from tpumake.evaluation.found import Seen, find, read_raw, read_seen, write
from tpumake.evaluation.pictures import EvalSet, Picture, read_picture
from tpumake.files import atomic_write
from tpumake.float_onnx import open_network, run_on
from tpumake.letterbox import Fit, fit_input, letterbox
from tpumake.network_input import NetworkInput

__all__ = [
    "INSIDE", "TOOLCHAIN", "Feeding", "Inside", "Kept", "Onnx", "Runner", "Toolchain",
    "code_digest", "cores", "run_set",
]  # fmt: skip

# What runs networks in the toolchain's Python.
INSIDE = Path(__file__).resolve().parent.parent.parent / "toolchain" / "run_network.py"
# What starts it there.
TOOLCHAIN = Path(os.environ.get("TPUMAKE_TOOLCHAIN", ".toolchain/1.7/run"))
# Pictures that one process of the toolchain runs: starting it takes a second or two.
_BATCH = 32
# What is told of a process that failed (letters).
_TAIL = 2000

Progress = Callable[[int, int], None]


class Feeding(NamedTuple):
    """What a network is to see: pictures of ``source`` as ``wanted`` says, on a ``ground`` of grey.

    ``classes``: how many there are, where that is known.
    """

    source: Path
    wanted: NetworkInput
    ground: int
    classes: int

    def see(self, picture: Picture) -> tuple[np.ndarray, Fit]:
        """A picture as the network sees it, and where it lies there."""
        pixels = read_picture(self.source, picture.name, picture.sha256)
        fitted = fit_input(pixels, self.wanted)
        return letterbox(pixels, fitted, self.ground), fitted


class Runner(Protocol):
    """A way of running a network. ``files`` are what makes it that network."""

    files: Sequence[Path]

    def run(self, feeding: Feeding, pictures: list[Picture]) -> Iterator[tuple[Picture, Seen]]:
        """Run it on pictures, in any order."""


class Kept:
    """What was found in pictures by one network, a file each, in a folder of that network's own."""

    def __init__(self, place: Path, digest: str) -> None:
        self.folder = place / digest[:32]
        # What other networks found that were called so is of no use any more.
        with suppress(FileNotFoundError):
            for other in place.iterdir():
                if other != self.folder:
                    shutil.rmtree(other, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)

    def within(self, digest: str) -> Kept:
        """What was found by one of several variations of this network."""
        one = copy(self)
        one.folder = self.folder / digest[:32]
        one.folder.mkdir(exist_ok=True)
        return one

    def _path(self, picture: Picture) -> Path:
        return self.folder / f"{picture.sha256[:32]}.npz"

    def get(self, picture: Picture) -> Seen | None:
        """What was found in a picture; None if that isn't known, or damaged."""
        try:
            (seen,) = read_seen(self._path(picture))
        except (BadInput, ValueError):
            return None
        return seen

    def put(self, picture: Picture, seen: Seen) -> None:
        """Keep what was found in a picture."""
        with atomic_write(self._path(picture)) as temporary:
            write(temporary, [seen])


def code_digest(files: Sequence[Path], words: Sequence[object]) -> str:
    """A digest of files' contents, of words, and of this project's code as it is running."""
    scripts = str(INSIDE.parent.parent)
    names = [getattr(module, "__file__", None) or "" for module in list(sys.modules.values())]
    code = [Path(name) for name in sorted({*names}) if name.startswith(scripts)]
    total = hashlib.sha256(repr([str(word) for word in words]).encode())
    for path in (*files, *code):
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def cores() -> int:
    """How many processes run side by side without waiting for each other."""
    return len(os.sched_getaffinity(0))


def run_set(
    runner: Runner, chosen: EvalSet, feeding: Feeding, kept: Kept, progress: Progress
) -> list[Seen]:
    """Run a network on all pictures of a set; what was found, in the set's order."""
    seen = {each.sha256: found for each in chosen.pictures if (found := kept.get(each))}
    progress(len(seen), len(chosen.pictures))
    left = [each for each in chosen.pictures if each.sha256 not in seen]
    for picture, found in runner.run(feeding, left):
        kept.put(picture, found)
        seen[picture.sha256] = found
        progress(len(seen), len(chosen.pictures))
    return [seen[each.sha256] for each in chosen.pictures]


class Onnx:
    """A network in onnxruntime, in this process."""

    def __init__(self, network: Path) -> None:
        self.files = [network]
        self._network = network

    def run(self, feeding: Feeding, pictures: list[Picture]) -> Iterator[tuple[Picture, Seen]]:
        """Run it on pictures, one after the other."""
        if not pictures:
            return
        session = open_network(self._network)
        for picture in pictures:
            seen, fitted = feeding.see(picture)
            started = time.monotonic()
            outputs = run_on(session, feeding.wanted, seen)
            seconds = time.monotonic() - started
            try:
                yield picture, find(outputs, fitted, feeding.classes, seconds)
            except BadInput as error:
                raise BadInput(f"{self._network}: {error}") from None


class Toolchain:
    """A network of tpu_mlir's, or a model on its emulator, in processes of the toolchain's Python.

    A process uses one core, so there may be several at once, each with pictures of its own.

    :param files: the network or model, then what it looks for in the folder where it runs
    :param network: tpu_mlir's float network, which says what is done to pictures
    """

    def __init__(
        self, files: Sequence[Path], network: Path, flags: Sequence[str], program: Path,
        processes: int, scratch: Path,
    ) -> None:  # fmt: skip
        self.files = [*files, network, INSIDE]
        self._model, self._network, self._flags = files[0], network, list(flags)
        self._program, self._processes, self._scratch = program, processes, scratch
        self._running: set[Inside] = set()
        self._ended = threading.Event()

    def run(self, feeding: Feeding, pictures: list[Picture]) -> Iterator[tuple[Picture, Seen]]:
        """Run it on pictures, as many at once as there are processes."""
        # No batch is so large that a process has nothing to do meanwhile.
        size = max(1, min(_BATCH, -(-len(pictures) // self._processes)))
        batches = [pictures[start : start + size] for start in range(0, len(pictures), size)]
        found: list[tuple[Picture, Seen]] = []
        ready = threading.Condition()

        def one(batch: list[Picture]) -> None:
            for pair in self._batch(feeding, batch):
                with ready:
                    found.append(pair)
                    ready.notify()

        with ThreadPoolExecutor(self._processes) as pool:
            jobs = [pool.submit(one, batch) for batch in batches]
            try:
                for _ in pictures:
                    with ready:
                        while not found:
                            _raise_if_failed(jobs)
                            ready.wait(0.2)
                        pair = found.pop(0)
                    yield pair
                for job in as_completed(jobs):
                    job.result()
            except BaseException:
                self._end()
                raise

    def _end(self) -> None:
        self._ended.set()
        for process in list(self._running):
            process.kill()

    def _batch(self, feeding: Feeding, batch: list[Picture]) -> Iterator[tuple[Picture, Seen]]:
        if self._ended.is_set():
            return
        with tempfile.TemporaryDirectory(prefix="part-", dir=self._scratch) as name:
            folder = Path(name)
            for path in {*self.files, self._network}:
                (folder / path.name).symlink_to(path.absolute())
            fits, words = {}, []
            for index, picture in enumerate(batch):
                seen, fits[index] = feeding.see(picture)
                Image.fromarray(seen).save(folder / f"{index}.png", "PNG", compress_level=1)
                words += ["--picture", f"{index}.png", f"{index}.npz"]
            for index, seconds in self._process(folder, words):
                raw = folder / f"{index}.npz"
                try:
                    yield batch[index], read_raw(raw, fits[index], feeding.classes, seconds)
                except BadInput as error:
                    told = f"{self._model.name} on {batch[index].name}: {error}"
                    raise BadInput(told) from None
                raw.unlink()

    def _process(self, folder: Path, words: list[str]) -> Iterator[tuple[int, float]]:
        """Run one process; gives each picture that it is done with, and the seconds it took."""
        command = [INSIDE.name, "--network", self._network.name, "--model", self._model.name,
                   *words, *self._flags]  # fmt: skip
        with Inside(self._program, command, folder, f"{self._model.name} can't be run") as process:
            self._running.add(process)
            try:
                for done, _, seconds in process.told("PROGRESS", 3):
                    yield int(done) - 1, float(seconds)
            finally:
                self._running.discard(process)


class Inside:
    """A process of the toolchain's Python. It is killed where its ``with`` is left.

    :param command: a program of ours there, as the folder that it runs in has it, and its words
    :param failing: what can't be done if it fails
    """

    def __init__(self, program: Path, command: Sequence[str], folder: Path, failing: str) -> None:
        self._failing, self._tail = failing, ""
        self._process = subprocess.Popen(
            [program.absolute(), "python3", *command], cwd=folder, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            env=os.environ,
        )  # fmt: skip

    def __enter__(self) -> Inside:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        with suppress(OSError), self._process:
            pass

    def kill(self) -> None:
        """End it, from any thread."""
        self._process.kill()

    def ask(self, line: str) -> None:
        """Give it a line on its standard input; if it has ended, what it tells says why."""
        with suppress(BrokenPipeError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def told(self, sign: str, words: int) -> Iterator[list[str]]:
        """Give what follows ``sign`` in each line that begins so, and has so many words.

        :raises CheckFailed: it ended, and failed; what it said goes to standard output before
        """
        for line in self._process.stdout or ():
            kind, *rest = line.split()[: words + 1] or [""]
            if kind == sign and len(rest) == words:
                yield rest
            else:
                self._tail = (self._tail + line)[-_TAIL:]
        if self._process.wait():
            print(self._tail, flush=True)
            lines = [line for line in self._tail.splitlines() if line.strip()]
            raise CheckFailed(f"{self._failing}: {(lines or ['it said nothing'])[-1]}")


def _raise_if_failed(jobs: Sequence[Future]) -> None:
    """Tell of a job that failed, or of all having ended while there is still one to wait for."""
    ended = [job.done() for job in jobs]
    for job, done in zip(jobs, ended, strict=True):
        if done:
            job.result()
    if all(ended):
        raise CheckFailed("the toolchain's program ended well without running all pictures")
