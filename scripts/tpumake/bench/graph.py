"""The stages that `make <target>` runs, read from Make's own dry run, for other tools to run.

So what they are measured on is what Make builds, also after the Makefile has changed.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from tpumake.cli import BadInput

__all__ = ["Stage", "outside_inputs", "read_graph"]

# They check variables that only the Makefile has, and what a device will do with the model.
ONLY_OURS = {"stanza", "contract"}


@dataclass(frozen=True)
class Stage:
    """One stage: paths as in the Makefile, relative to the top of the checkout.

    ``inputs`` are what the stage reads, with the code that does its work; ``parameters`` are what
    its tool is told.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    command: str
    parameters: str

    @property
    def record(self) -> Path:
        """Where is kept what it was made from, and how long that took."""
        words = shlex.split(self.command)
        return Path(words[words.index("--log") + 1]).with_suffix(".key")


def read_graph(dry_run: str) -> list[Stage]:
    """Find the stages in what `make --dry-run` prints for a target of which nothing is built.

    :raises BadInput: there are none
    """
    lines = dry_run.replace("\\\n", " ").splitlines()
    stages = [_stage(line) for line in lines if "run_stage.py" in line]
    stages = [stage for stage in stages if stage.name not in ONLY_OURS]
    if not stages:
        raise BadInput("no stage builds it; make list shows what can be built")
    outputs = [out for stage in stages for out in stage.outputs]
    return [_linked(stage, outputs) for stage in stages]


def _stage(line: str) -> Stage:
    words = shlex.split(line)
    end = words.index("--")
    options: dict[str, list[str]] = {}
    for name, value in pairwise(words[:end]):
        if name.startswith("--"):
            options.setdefault(name, []).append(value)
    inputs = [pair.rpartition("=")[2] for pair in options["--in"]]
    return Stage(
        name=options["--stage"][0],
        inputs=tuple(inputs + options.get("--code", [])),
        outputs=tuple(options.get("--out", [])),
        command=shlex.join(words),
        parameters=shlex.join(options.get("--env", []) + words[end + 1 :]),
    )


def _linked(stage: Stage, outputs: list[str]) -> Stage:
    """Let a stage that takes a file from another one's folder depend on that folder.

    Such a file is named by a pattern, which other tools don't take.
    """
    inputs = [
        next((out for out in outputs if path.startswith(f"{out}/")), path) for path in stage.inputs
    ]
    return replace(stage, inputs=tuple(dict.fromkeys(inputs)))


def outside_inputs(stages: list[Stage]) -> list[str]:
    """List what the stages read and none of them makes, each once."""
    made = {out for stage in stages for out in stage.outputs}
    inputs = dict.fromkeys(path for stage in stages for path in stage.inputs)
    return [path for path in inputs if path not in made]
