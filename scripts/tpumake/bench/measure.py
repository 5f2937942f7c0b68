"""Measuring side by side: rounds in which everybody runs once, and what is made of the seconds."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import TypeVar

from tpumake.cli import CheckFailed

__all__ = [
    "Bystanders",
    "Cost",
    "Summary",
    "measure",
    "paired_ratios",
    "run_costed",
    "run_timed",
    "summarize",
]

# How long a program that was asked to end may take (s), until it is made to.
PATIENCE = 10
# How often memory is looked at (s). A look takes less than a millisecond.
LOOK = 0.1
PAGE = os.sysconf("SC_PAGE_SIZE")
Sample = TypeVar("Sample")


@dataclass(frozen=True)
class Summary:
    """Median and quartiles, which a few disturbed rounds hardly move."""

    median: float
    low: float
    high: float


def summarize(samples: Sequence[float]) -> Summary:
    """Give median, lower and upper quartile of at least one sample.

    Quartiles are those of Hyndman and Fan's seventh kind (The American Statistician 50, 1996),
    as in NumPy and R.
    """
    if len(samples) == 1:
        return Summary(samples[0], samples[0], samples[0])
    low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Summary(median, low, high)


def paired_ratios(slow: Sequence[float], fast: Sequence[float]) -> list[float]:
    """Divide what was measured in the same round: what disturbs a whole round cancels out."""
    return [one / other for one, other in zip(slow, fast, strict=True)]


@dataclass(frozen=True)
class Cost:
    """What running something took, with all processes that it started.

    ``seconds`` and ``cpu`` (s, user and system); ``memory``: the most that all of them had at once,
    ``largest``: that one of them had (bytes, resident; what processes share counts for each);
    ``load``: the machine's load average just before; ``steps``: seconds of its parts.
    """

    seconds: float
    cpu: float
    memory: int
    largest: int
    load: float
    steps: Mapping[str, float] = field(default_factory=dict)

    def then(self, other: Cost) -> Cost:
        """What running this and then the other one took."""
        return Cost(
            self.seconds + other.seconds,
            self.cpu + other.cpu,
            max(self.memory, other.memory),
            max(self.largest, other.largest),
            self.load,
            {**self.steps, **other.steps},
        )


class Bystanders:
    """How many cores other programs kept busy since this was made, by the kernel's own count."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.before = self._busy()

    def cores(self) -> float:
        """The average number of cores, without those that this program's finished children used."""
        used = self._busy() - self.before
        return max(0.0, used / (time.monotonic() - self.started))

    def _busy(self) -> float:
        """Seconds of all cores, without our own."""
        # proc_stat(5): user nice system idle iowait irq softirq steal, in clock ticks.
        ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        idle = ticks[3] + ticks[4]
        ours = os.times()
        return (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK") - sum(ours[:4])


def measure(
    contenders: Mapping[str, Callable[[], Sample]],
    rounds: int,
    watch: Callable[[int, str], None] = lambda number, name: None,
    *,
    warm_up: bool = True,
    rotate: bool = True,
    note: Callable[[dict[str, list[Sample]]], None] = lambda samples: None,
) -> dict[str, list[Sample]]:
    """Let every contender run once in each round, and give what they measured, round by round.

    Nobody is always first: the order rotates. A round before the first is not counted; it fills
    the kernel's and the tools' own caches.

    :param contenders: functions that run something and say what it took
    :param watch: told the round, 0 for the one before the first, and who is about to run
    :param warm_up: whether there is that round
    :param rotate: not so where one goes on from what another left
    :param note: told all samples so far after each round that counts
    """
    samples: dict[str, list[Sample]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(0 if warm_up else 1, rounds + 1):
        first = number % max(len(names), 1) if rotate else 0
        for name in names[first:] + names[:first]:
            watch(number, name)
            sample = contenders[name]()
            if number:
                samples[name].append(sample)
        if number:
            note({name: list(values) for name, values in samples.items()})
    return samples


def run_timed(
    command: Sequence[str | Path], folder: Path, environment: Mapping[str, str], log: Path
) -> tuple[float, str]:
    """Run a command in a folder, and give its wall time in seconds and what it said.

    :param log: takes its standard output and standard error
    :raises CheckFailed: it failed
    """
    seconds, _, said = _run(command, folder, environment, log, lambda process: nullcontext())
    return seconds, said


def run_costed(
    command: Sequence[str | Path], folder: Path, environment: Mapping[str, str], log: Path
) -> tuple[Cost, str]:
    """Run a command in a folder, and give what it took and what it said.

    :param log: takes its standard output and standard error
    :raises CheckFailed: it failed
    """
    load = os.getloadavg()[0]
    memory = _Memory()
    seconds, usage, said = _run(command, folder, environment, log, memory.watching)
    # What was there for less than a look is in the kernel's own figure; but that begins with what
    # this process had, as a copy of which the command started.
    kernels, own = (1024 * each.ru_maxrss for each in (usage, getrusage(RUSAGE_SELF)))
    largest = kernels if kernels > own else memory.largest
    most = max(memory.most, largest)
    return Cost(seconds, usage.ru_utime + usage.ru_stime, most, largest, load), said


def _run(
    command: Sequence[str | Path],
    folder: Path,
    environment: Mapping[str, str],
    log: Path,
    watching: Callable[[int], AbstractContextManager],
) -> tuple[float, os.struct_rusage, str]:
    """Run a command; give its seconds, its and its children's resources, and what it said.

    :param watching: given the process' number, what is done while it runs
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [str(word) for word in command]
    with log.open("wb") as file:
        started = time.perf_counter()
        process = subprocess.Popen(
            words,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            # A group of its own, to be ended as one: a shell's children outlive it otherwise.
            start_new_session=True,
        )
        try:
            with watching(process.pid):
                _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            _end(process)
            raise
        seconds = time.perf_counter() - started
    process.returncode = code = os.waitstatus_to_exitcode(status)
    said = log.read_text(errors="replace")
    if code:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        # Make's own last line only says that something went wrong.
        telling = [line for line in lines if not line.startswith("make: ***")] or lines
        cause = telling[-1] if telling else f"exit code {code}"
        raise CheckFailed(f"{' '.join(words[:4])}: {cause} (log: {log})")
    return seconds, usage, said


def _end(process: subprocess.Popen) -> None:
    """Ask a program and its group to end, so that Make can end its stages; then make them."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class _Memory:
    """Looks now and then at how much memory a process and all below it have.

    ``most`` is what they had together, ``largest`` what one of them had.
    """

    def __init__(self) -> None:
        self.most = self.largest = 0
        self._ended = threading.Event()

    @contextmanager
    def watching(self, process: int) -> Iterator[None]:
        """Look until the block ends."""
        watcher = threading.Thread(target=self._watch, args=(process,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            self._ended.set()
            watcher.join()

    def _watch(self, process: int) -> None:
        while not self._ended.wait(LOOK):
            family = list(map(_resident, _family(process)))
            self.most = max(self.most, sum(family))
            self.largest = max(self.largest, *family)


def _family(process: int) -> Iterator[int]:
    """A process, its children, theirs, and so on, by their numbers."""
    waiting = [process]
    while waiting:
        yield (one := waiting.pop())
        # proc_pid_task(5); where the kernel tells no children, the process alone is seen.
        with suppress(OSError):
            for task in os.listdir(f"/proc/{one}/task"):  # noqa: PTH208 (ten times a second)
                with suppress(OSError), open(f"/proc/{one}/task/{task}/children") as file:  # noqa: PTH123
                    waiting += map(int, file.read().split())


def _resident(process: int) -> int:
    """The memory that a process has, in bytes; none if it has ended."""
    try:
        with open(f"/proc/{process}/statm") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0
