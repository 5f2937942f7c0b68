"""Make, and the tools that it is measured against, each on the same stages in a folder of its own.

The others take over what Make has built (`dvc commit`, `snakemake --touch`) instead of building it
again. What they know afterwards is what they know after a build of their own: all digests.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from tpumake.bench.graph import Stage
from tpumake.bench.measure import run_timed
from tpumake.bench.project import Project, stages_that_ran
from tpumake.cli import CheckFailed

__all__ = ["RIVALS", "Dvc", "Make", "Snakemake", "Tool"]


class Tool(ABC):
    """A program that builds a project's stages in ``folder``, where they are built already."""

    name: str

    def __init__(self, project: Project, folder: Path, stages: Sequence[Stage]) -> None:
        self.project = project
        self.folder = folder
        self.stages = stages

    @abstractmethod
    def prepare(self) -> None:
        """Get to know the graph and what is built."""

    @abstractmethod
    def run(self) -> tuple[float, str]:
        """Bring the target up to date; give the seconds that it took and what was said."""

    @abstractmethod
    def idle(self, said: str) -> bool:
        """Say whether the run that said this found nothing to do."""

    def run_idle(self) -> float:
        """Run, and give the seconds.

        :raises CheckFailed: it did something
        """
        seconds, said = self.run()
        if not self.idle(said):
            log = self.project.logs / f"{self.name}.log"
            raise CheckFailed(f"{self.name} was to find nothing to do, and did (log: {log})")
        return seconds


class Make(Tool):
    """GNU Make with this project's Makefile."""

    name = "make"

    def prepare(self) -> None:  # noqa: D102
        self.run_idle()

    def run(self) -> tuple[float, str]:  # noqa: D102
        return self.project.run_make(self.folder, self.project.target)

    def idle(self, said: str) -> bool:  # noqa: D102
        return not stages_that_ran(said)


class Rival(Tool):
    """A tool of the environment that only measuring needs, in which ``python`` is."""

    module: str

    def __init__(
        self, project: Project, folder: Path, stages: Sequence[Stage], python: Path
    ) -> None:
        super().__init__(project, folder, stages)
        self.python = python.absolute()

    def call(self, *arguments: str) -> tuple[float, str]:
        """Run the tool with arguments."""
        # The user's own settings of it don't count, nor are they changed.
        home = self.folder.with_name(f"{self.name}-home")
        home.mkdir(exist_ok=True)
        own = {name: str(home) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")}
        own["DVC_SITE_CACHE_DIR"] = str(home)
        command = [self.python, "-m", self.module, *arguments]
        environment = self.project.environment | own
        return run_timed(command, self.folder, environment, self.project.logs / f"{self.name}.log")

    def write_parameters(self) -> None:
        """Write each stage's parameters to the file from which the tool takes them."""
        _write(self.folder / "params.yaml", {each.name: each.parameters for each in self.stages})


class Dvc(Rival):
    """DVC's pipelines: a stage is stale if a digest or the command has changed."""

    name = module = "dvc"

    def prepare(self) -> None:  # noqa: D102
        self.write_parameters()
        stages = {
            stage.name: {
                "cmd": stage.command,
                "deps": stage.inputs,
                "params": [stage.name],
                "outs": stage.outputs,
            }
            for stage in self.stages
        }
        # Every JSON document is YAML.
        _write(self.folder / "dvc.yaml", {"stages": stages})
        self.call("init", "--no-scm", "--quiet")
        for switch in ("analytics", "check_update"):
            self.call("config", f"core.{switch}", "false")
        self.call("commit", "--force")
        self.run_idle()

    def run(self) -> tuple[float, str]:  # noqa: D102
        return self.call("repro")

    def idle(self, said: str) -> bool:  # noqa: D102
        skipped = said.count("didn't change, skipping")
        return "Data and pipelines are up to date" in said and skipped == len(self.stages)


class Snakemake(Rival):
    """Snakemake: a stage is stale if its rule changed, or an input is newer and another."""

    name = module = "snakemake"
    # It compares contents of files up to 1 MB, unless it is told to compare those of larger ones;
    # otherwise it would build all of a larger network again when that is touched.
    OPTIONS = ("--cores", "1", "--max-checksum-file-size", "1000000000000")

    def prepare(self) -> None:  # noqa: D102
        self.write_parameters()
        rules = [self._rule(stage) for stage in self.stages]
        wanted = self.stages[-1].outputs[0]
        head = f'configfile: "params.yaml"\n\nrule all:\n    input: {_quoted(wanted)}\n'
        (self.folder / "Snakefile").write_text("\n".join([head, *rules]))
        self.call("--touch", "--forceall", *self.OPTIONS)
        self.run_idle()

    def _rule(self, stage: Stage) -> str:
        made = {out for each in self.stages for out in each.outputs}
        # Of a folder it would see the time only; it is given the files, all of which Make sees.
        inputs = [
            name
            for path in stage.inputs
            for name in ([path] if path in made else self._files(path))
        ]
        outputs = [
            f"directory({_quoted(out)})" if (self.folder / out).is_dir() else _quoted(out)
            for out in stage.outputs
        ]
        # In braces it puts variables.
        command = stage.command.replace("{", "{{").replace("}", "}}")
        return (
            f"rule {stage.name}:\n"
            f"    input: {', '.join(map(_quoted, inputs))}\n"
            f"    output: {', '.join(outputs)}\n"
            f"    params: lambda wildcards: config[{_quoted(stage.name)}]\n"
            f"    shell: {_quoted(command)}\n"
        )

    def _files(self, path: str) -> list[str]:
        place = self.folder / path
        if not place.is_dir():
            return [path]
        files = sorted(file for file in place.rglob("*") if file.is_file())
        return [file.relative_to(self.folder).as_posix() for file in files]

    def run(self) -> tuple[float, str]:  # noqa: D102
        return self.call(*self.OPTIONS)

    def idle(self, said: str) -> bool:  # noqa: D102
        return "Nothing to be done" in said


RIVALS: dict[str, type[Rival]] = {"dvc": Dvc, "snakemake": Snakemake}


def _write(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def _quoted(text: str) -> str:
    """As a string of Python."""
    return json.dumps(text, ensure_ascii=False)
