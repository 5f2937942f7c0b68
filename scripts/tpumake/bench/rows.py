"""The rows of the table: who is measured against whom, doing what, and what is asked of it.

A row is a function that takes a :class:`Bench` and gives a :class:`Row`; ROWS lists them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tpumake.bench.guides import starter
from tpumake.bench.measure import Cost
from tpumake.bench.project import Project, stages_that_ran
from tpumake.bench.tools import RIVALS, Make, Tool
from tpumake.cli import BadInput, CheckFailed
from tpumake.keys import Record

__all__ = ["COMPARED", "ROWS", "TOOLS", "Bench", "Ratio", "Row"]

TOOLS = ("make", *RIVALS)
# Nobody starts a build within the clock's tick after a change, for which tools have to allow (s).
PAUSE = 0.1


@dataclass(frozen=True)
class Ratio:
    """How many times as long ``slow`` takes as ``fast``, and how many it has to be at least.

    ``of`` may be processor time or memory instead.
    """

    slow: str
    fast: str
    at_least: float | None = None
    of: str = "time"


@dataclass(frozen=True)
class Row:
    """What is measured together: functions that run something once and give its seconds.

    ``at_most`` are limits in seconds; ``left_out`` says why something can't be measured, by name.
    Of what is heavy they give all that it took, and ``expected`` are the seconds that it may take;
    ``prepare`` is called once before, and without ``rotate`` they run in their order.
    """

    name: str
    title: str
    contenders: Mapping[str, Callable[[], float | Cost]]
    ratios: Sequence[Ratio] = ()
    at_most: Mapping[str, float] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    expected: Mapping[str, float] = field(default_factory=dict)
    prepare: Callable[[], None] = lambda: None
    rotate: bool = True

    @property
    def heavy(self) -> bool:
        """Whether something is built, and more than wall time counts."""
        return bool(self.expected)


class Bench:
    """The project, built, in a copy for each tool; all below the folder ``work``.

    ``tools`` are those that take part and ``missing`` says why others don't; ``versions`` is what
    they call themselves; ``sources`` are the files of a copy in which nothing is built, ``built``
    is one in which the target is, and ``seconds`` are those that its stages took, at some time.

    :param names: the tools that should take part
    :param rivals: the Python of the environment that has all of them but Make
    :param say: told what was done, and in how many seconds, or without them what begins
    :raises BadInput: the project or the tools can't be used
    :raises CheckFailed: something can't be built, or wants to be built again
    """

    def __init__(
        self,
        project: Project,
        work: Path,
        names: Sequence[str],
        rivals: Path,
        say: Callable[[str, str, float | None], None],
    ) -> None:
        self.project = project
        self.work = work
        self.versions = {name: self._version(name, rivals) for name in ("make", *names)}
        self.missing = {
            name: "the environment lacks it" for name in names if not self.versions[name]
        }
        self.built = built = work / "built"
        project.copy(built)
        self.sources = [
            path.relative_to(built)
            for path in built.rglob("*")
            if path.is_file() and not path.is_symlink()
        ]
        self.stages = project.stages(built)
        transform = [stage for stage in self.stages if stage.name == "transform"]
        for stage in transform:
            self.versions["tpu_mlir"] = starter(stage).parent.name
        if [stage.name for stage in self.stages].count("deploy") > 1:
            raise BadInput(
                f"TARGET={project.target}: is several variants; one is measured, such as "
                f"{project.target}_int8"
            )
        say("build", f"{project.target}, where the cache does not have it", None)
        say("build", project.target, project.run_make(built, project.target, log="build")[0])
        records = {stage.name: Record.load(built / stage.record) for stage in self.stages}
        self.seconds = {name: record.seconds if record else 0 for name, record in records.items()}
        self.tools: dict[str, Tool] = {}
        for name in names:
            if name not in self.missing:
                started = time.monotonic()
                self.tools[name] = self._prepared(name, built, rivals)
                say(name, f"finds {len(self.stages)} stages done", time.monotonic() - started)

    def _version(self, name: str, rivals: Path) -> str:
        command = [self.project.make] if name == "make" else [rivals, "-m", RIVALS[name].module]
        if name != "make" and not rivals.exists():
            raise BadInput(f"{rivals}: is not there; make {rivals.parent.parent}/ready makes it")
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
        return done.stdout.splitlines()[0].strip() if done.returncode == 0 else ""

    def _prepared(self, name: str, built: Path, rivals: Path) -> Tool:
        folder = self.work / name
        shutil.copytree(built, folder, symlinks=True)
        if name == "make":
            tool: Tool = Make(self.project, folder, self.stages)
        else:
            tool = RIVALS[name](self.project, folder, self.stages, rivals)
        tool.prepare()
        return tool

    def against_make(self, at_least: Mapping[str, float]) -> list[Ratio]:
        """Ratios of every other tool to Make."""
        rivals = [name for name in self.tools if name != "make"]
        if "make" not in self.tools:
            return []
        return [Ratio(name, "make", at_least.get(name)) for name in rivals]


def nothing(bench: Bench) -> Row:
    """Nothing changed: everybody looks, and does nothing."""
    return Row(
        name="nothing",
        title="nothing changed",
        contenders={name: tool.run_idle for name, tool in bench.tools.items()},
        ratios=bench.against_make({"dvc": 8}),
        at_most={"make": 0.05},
        left_out=bench.missing,
    )


def touched(bench: Bench) -> Row:
    """Every input got a new time, as in a fresh checkout, and the contents that it had."""

    def runner(tool: Tool) -> Callable[[], float]:
        def run() -> float:
            for source in bench.sources:
                os.utime(tool.folder / source)
            time.sleep(PAUSE)
            return tool.run_idle()

        return run

    return Row(
        name="touched",
        title="every input touched",
        contenders={name: runner(tool) for name, tool in bench.tools.items()},
        ratios=bench.against_make({}),
        at_most={"make": 0.5},
        left_out=bench.missing,
    )


def restored(bench: Bench) -> Row:
    """A fresh copy, nothing built, and a cache that has everything."""
    title = "fresh copy, warm cache"
    reason = _no_cache(bench.project)
    if reason:
        return Row(name="restored", title=title, contenders={}, left_out={"make": reason})

    def run() -> float:
        folder = bench.work / "restored"
        shutil.rmtree(folder, ignore_errors=True)
        bench.project.copy(folder)
        seconds, said = bench.project.run_make(folder, bench.project.target, log="restored")
        ran = stages_that_ran(said)
        if ran:
            raise CheckFailed(f"the cache was to have everything, but this ran: {', '.join(ran)}")
        return seconds

    return Row(name="restored", title=title, contenders={"make": run}, at_most={"make": 2})


def _no_cache(project: Project) -> str:
    """Why results can't come from the cache; empty if they can."""
    knobs = dict(re.findall(r"^  ([A-Z_]+)=(.*)$", project.run_make(project.root, "help")[1], re.M))
    if "CACHE_DIR" not in knobs:
        return "this Makefile has no cache"
    return "CACHE=0" if knobs.get("CACHE") == "0" else ""


ROWS: dict[str, Callable[[Bench], Row]] = {
    "nothing": nothing,
    "touched": touched,
    "restored": restored,
}
# Those for which other tools are wanted.
COMPARED = {"nothing", "touched"}
