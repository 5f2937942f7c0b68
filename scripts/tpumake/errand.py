"""What goes to a worker and comes back: a folder beside the stage's, on the file system of both.

Nothing else is asked of a launcher than to start one command somewhere and to wait for its end: it
need not hand on the environment, the folder, the output or the exit code. All files are there
before it starts and are written in place: a network file system may go on saying for a while that
a file isn't there which somebody else has made since.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

__all__ = ["Ended", "Errand"]


class Ended(NamedTuple):
    """How a command ended: its exit code, negative for a signal, and its peak memory in bytes.

    ``where`` and ``seconds`` are told by workers: their name, and how long the commands took.
    ``refused`` says why a worker ran nothing.
    """

    code: int
    peak: int
    where: str = ""
    seconds: float | None = None
    refused: str = ""


class Errand(NamedTuple):
    """The folder, with a file for each thing that is told."""

    folder: Path

    @property
    def order(self) -> Path:
        """What is to be done; see ``write``. Has the user's environment in it."""
        return self.folder / "order.json"

    @property
    def wanted(self) -> Path:
        """There as long as somebody waits for the result; without it a worker ends its command."""
        return self.folder / "wanted"

    @property
    def place(self) -> Path:
        """The worker's name, from its start on."""
        return self.folder / "place"

    @property
    def output(self) -> Path:
        """All that the commands say."""
        return self.folder / "output"

    @property
    def result(self) -> Path:
        """How they ended."""
        return self.folder / "ended.json"

    def write(
        self,
        commands: list[list[str]],
        cwd: Path,
        environment: dict[str, str],
        same_addresses: bool,
        libc: str,
    ) -> None:
        """Write the order, and the files for the answers.

        :param commands: run one after the other, until one fails
        :param libc: the C library that the worker must have; empty for any
        """
        order = {"commands": commands, "cwd": str(cwd), "environment": environment,
                 "same_addresses": same_addresses, "libc": libc}  # fmt: skip
        for path in (self.order, self.wanted, self.place, self.output, self.result):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        self.order.write_text(json.dumps(order))

    def ended(self) -> Ended | None:
        """What the worker told at its end; None if it did not come to that."""
        # Opening a folder has a network file system look again.
        os.listdir(self.folder)  # noqa: PTH208
        try:
            return Ended(**json.loads(self.result.read_text()))
        except ValueError:
            return None
