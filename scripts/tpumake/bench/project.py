"""Copies of this checkout to measure in, so that nothing of it is touched."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tpumake.bench.graph import Stage, outside_inputs, read_graph
from tpumake.bench.measure import Cost, run_costed, run_timed
from tpumake.cli import BadInput, CheckFailed

__all__ = ["Project", "seconds_of_stages", "stages_that_ran"]

# What a build reads besides networks and pictures.
PARTS = ("Makefile", "mk", "models.mk", "scripts", "schemas", "devices", "requirements")
# Of the environment, so that a run doesn't depend on who starts it: where things are, and the knobs
# that say how, not what, is built.
KEPT = ("PATH", "HOME", "TMPDIR", "XDG_CACHE_HOME", "CACHE_DIR", "CACHE", "CACHE_MAX", "MEMORY",
        "REPRODUCIBLE", "CHIP", "TPU_MLIR_VERSION")  # fmt: skip
# The line of a stage that ran ends with its seconds.
RAN = re.compile(r"^(\S+ +\S+) .* \d+\.\d s$", re.M)
TOOK = re.compile(r"^\S+ +(\S+) .* (\d+\.\d) s$", re.M)


def stages_that_ran(said: str) -> list[str]:
    """The first two columns of the stages that really ran, from what Make printed."""
    return RAN.findall(said)


def seconds_of_stages(said: str) -> dict[str, float]:
    """The seconds of the stages that really ran, by the second column, from what Make printed."""
    return {name: float(seconds) for name, seconds in TOOK.findall(said)}


@dataclass(frozen=True)
class Project:
    """A checkout, a target of it, and the programs that build it.

    ``logs`` is a folder for what the programs say; ``settings`` are variables of the stanza, as
    NAME=VALUE, that Make is given every time.
    """

    root: Path
    target: str
    make: str
    venv: Path
    toolchain: Path
    logs: Path
    settings: Sequence[str] = ()

    @property
    def environment(self) -> dict[str, str]:
        """What programs are started with."""
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        return kept | {"LC_ALL": "C.UTF-8"}

    def run_make(self, folder: Path, *arguments: str, log: str = "make") -> tuple[float, str]:
        """Run Make in a folder; give its seconds and what it said."""
        command = [self.make, *self.settings, *arguments]
        return run_timed(command, folder, self.environment, self.logs / f"{log}.log")

    def cost_of_make(self, folder: Path, *arguments: str, log: str) -> tuple[Cost, str]:
        """Run Make in a folder, without the cache; give what it took and what it said."""
        command = [self.make, *self.settings, "CACHE=0", "CACHE_REMOTE=", *arguments]
        return run_costed(command, folder, self.environment, self.logs / f"{log}.log")

    def copy(self, folder: Path, *others: str) -> None:
        """Copy what a build of the target reads, with its times, and link to the environments.

        :param others: further targets to be built there
        :raises BadInput: there is no such target, or it takes files from outside the checkout
        """
        folder.mkdir()
        inputs = [path for target in (self.target, *others) for path in self._inputs(target)]
        for name in (*PARTS, *inputs):
            source, place = self.root / name, folder / name
            if place.exists():
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, place)
        for name, place in ((".venv", self.venv), (".toolchain", self.toolchain)):
            (folder / name).symlink_to(place.absolute())
        # What a network of another framework needs is installed once, for the checkout.
        extras = self.root / os.environ.get("EXTRAS", ".extras")
        extras.mkdir(exist_ok=True, parents=True)
        (folder / ".extras").symlink_to(extras.absolute())

    def _inputs(self, target: str) -> list[str]:
        # In a folder that isn't there, so that every stage would have to run.
        stages = replace(self, target=target).stages(self.root, "BUILD=not-built")
        inputs = outside_inputs(stages)
        for path in inputs:
            if Path(path).is_absolute() or ".." in Path(path).parts:
                raise BadInput(
                    f"{target} takes {path} from outside the checkout, and measuring touches "
                    "its inputs; measure with a model whose files are inside"
                )
        return inputs

    def variants(self) -> dict[str, list[str]]:
        """The variants that each model's stanza names, by model."""
        said = self.run_make(self.root, "list", log="list")[1]
        lines = [line.split(": ", 1) for line in said.splitlines() if ": " in line]
        return {
            model: [target.removeprefix(f"{model}_") for target in targets.split()]
            for model, targets in lines
        }

    def stages(self, folder: Path, *arguments: str) -> list[Stage]:
        """The target's stages, in a folder where nothing is built.

        :raises BadInput: there is no such target
        """
        try:
            said = self.run_make(folder, "--dry-run", self.target, *arguments, log="graph")[1]
            return read_graph(said)
        except (BadInput, CheckFailed) as error:
            raise BadInput(f"{self.target}: {error}") from None
