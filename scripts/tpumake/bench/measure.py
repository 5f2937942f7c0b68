"""Measuring side by side: rounds in which everybody runs once, and what is made of the seconds."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tpumake.cli import CheckFailed

__all__ = ["Bystanders", "Summary", "measure", "paired_ratios", "run_timed", "summarize"]

# How long a program that was asked to end may take (s), until it is made to.
PATIENCE = 10


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
    contenders: Mapping[str, Callable[[], float]],
    rounds: int,
    watch: Callable[[int, str], None] = lambda number, name: None,
) -> dict[str, list[float]]:
    """Let every contender run once in each round, and give their seconds in the order of rounds.

    Nobody is always first: the order rotates. A round before the first is not counted; it fills
    the kernel's and the tools' own caches.

    :param contenders: functions that run something and say how many seconds it took
    :param watch: told the round, 0 for the one before the first, and who is about to run
    """
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(rounds + 1):
        first = number % max(len(names), 1)
        for name in names[first:] + names[:first]:
            watch(number, name)
            seconds = contenders[name]()
            if number:
                samples[name].append(seconds)
    return samples


def run_timed(
    command: Sequence[str | Path], folder: Path, environment: Mapping[str, str], log: Path
) -> tuple[float, str]:
    """Run a command in a folder, and give its wall time in seconds and what it said.

    :param log: takes its standard output and standard error
    :raises CheckFailed: it failed
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
        )
        try:
            code = process.wait()
        except BaseException:
            _end(process)
            raise
        seconds = time.perf_counter() - started
    said = log.read_text(errors="replace")
    if code:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        # Make's own last line only says that something went wrong.
        telling = [line for line in lines if not line.startswith("make: ***")] or lines
        cause = telling[-1] if telling else f"exit code {code}"
        raise CheckFailed(f"{' '.join(words[:4])}: {cause} (log: {log})")
    return seconds, said


def _end(process: subprocess.Popen) -> None:
    """Ask a program to end, so that it can end its children; then make it."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
