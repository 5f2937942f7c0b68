"""What a running stage shows: one line that moves on a terminal, one line at the end."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tpumake.errors import one_line

if TYPE_CHECKING:
    from tpumake.stages import Stage

__all__ = ["Display"]

BAR = 20
# A line is redrawn at most this often (seconds).
INTERVAL = 0.1


class Display:
    """The line of one stage.

    On a terminal a bar moves while the stage runs, unless Make runs several stages at once, whose
    lines would overwrite each other. Elsewhere nothing is shown before the end.
    """

    def __init__(self, model: str, stage: str, verbose: bool, timed: bool = True) -> None:
        self.timed = timed
        self.head = f"{model:<8} {stage:<12}"
        self.verbose = verbose
        together = any(word.startswith(("-j", "--jobserver")) for word in
                       os.environ.get("MAKEFLAGS", "").split())  # fmt: skip
        self.moving = sys.stdout.isatty() and not verbose and not together
        self.started = time.monotonic()
        self.drawn = 0.0
        self.phase_started = time.monotonic()
        self.phase = ""

    def line(self, text: str, rules: Stage) -> None:
        """Take in one line of the tool's output."""
        if self.verbose:
            print(text, flush=True)
        if not self.moving or time.monotonic() - self.drawn < INTERVAL:
            return
        step = rules.progress(text)
        if not step:
            return
        phase, done, total = step
        now = time.monotonic()
        if phase != self.phase:
            self.phase, self.phase_started = phase, now
        full = BAR * done // max(total, 1)
        left = (now - self.phase_started) / done * (total - done) if done else None
        rest = "" if left is None else f", {left:.0f} s left"
        self._draw(f"{'█' * full}{'░' * (BAR - full)}  {done} of {total} {phase}{rest}")
        self.drawn = now

    def note(self, text: str) -> None:
        """Show a line that stays."""
        self._erase()
        print(f"{self.head} {one_line(text)}", flush=True)

    def detail(self, text: str) -> None:
        """Show a line only to who wants to see everything."""
        if self.verbose:
            self.note(text)

    def replay(self, log: Path) -> None:
        """Show a log as if its stage ran now, to who wants to see everything."""
        if self.verbose:
            print(log.read_text(), end="", flush=True)

    def tick(self, doing: str = "") -> None:
        """Show that a stage that counts nothing is still at work, or what it waits for."""
        if self.moving and (doing or not self.phase):
            self._draw(f"{time.monotonic() - self.started:.0f} s … {doing}")

    def done(self, figure: str, how_long: str) -> None:
        """Show the stage's last line, if it has a figure to show, or each of its warnings."""
        self._erase()
        if figure.startswith("warning: "):
            for line in figure.splitlines():
                self.note(one_line(line))
        elif figure:
            first, *more = map(one_line, figure.splitlines())
            if self.timed:
                first = f"{first:<58} {how_long:>8}"
            below = [f"{' ' * len(self.head)} {each}" for each in more]
            print("\n".join([f"{self.head} {first}", *below]), flush=True)

    def failed(self, cause: str, advice: str, log: Path | None, asking: str = "") -> None:
        """Show why the stage failed, what to do, and where to read more, on standard error.

        :param asking: how to ask others, where the cause isn't known
        """
        self._erase()
        sys.stdout.flush()
        where = f"log: {log}" if log else ""
        lines = [line.strip() for line in (*cause.splitlines(), advice, where, asking) if line]
        heads = [self.head] + [" " * len(self.head)] * len(lines)
        lines = [f"{head} {one_line(line)}" for head, line in zip(heads, lines, strict=False)]
        print("\n".join(lines), file=sys.stderr, flush=True)

    def _draw(self, text: str) -> None:
        # Imported where something moves: most stages that are looked into have nothing to show.
        import shutil

        width = shutil.get_terminal_size().columns - 1
        print(f"\r\033[K{self.head} {text}"[: width + 4], end="", flush=True)

    def _erase(self) -> None:
        if self.moving:
            print("\r\033[K", end="")
