"""The vendors' guides: the commands that one types there, for the network that a target builds.

Seeed Studio's model conversion guide for reCamera has three for an INT8 model, `model_transform`,
`run_calibration` and `model_deploy`, to be typed in an empty folder with the pictures beside it.
They are made here of what Make tells the same tools, which are the same flags but for
`--output_names`, the names of the files, and the values that the tools have by default anyway.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tpumake.bench.graph import Stage
from tpumake.bench.measure import Cost, run_costed, run_timed
from tpumake.bench.project import Project
from tpumake.cli import CheckFailed

__all__ = ["Guides", "starter", "thresholds", "why_not"]

# What the guides call them.
PICTURES, PICTURE = "COCO2017", "image/dog.jpg"
TOOLS = {
    "transform": "model_transform.py",
    "calibrate": "run_calibration.py",
    "deploy": "model_deploy.py",
}
# What only our own calibration knows.
OURS = {"--keep"}
# What a tool does without the flag.
BY_ITSELF = {
    "transform": {"--tolerance": "0.99,0.99"},
    "calibrate": {"--tune_num": "5", "--histogram_bin_num": "2048"},
    "deploy": {"--tolerance": "0.8,0.5"},
}


@dataclass(frozen=True)
class Guides:
    """The guides' commands for a network, whose files are those of a folder where it is built."""

    project: Project
    stages: Mapping[str, Stage]
    built: Path

    @classmethod
    def of(cls, project: Project, stages: Sequence[Stage], built: Path) -> Guides:
        """Those for the target whose stages these are.

        :raises CheckFailed: the tools are not the toolchain's own
        """
        guides = cls(project, {stage.name: stage for stage in stages}, built)
        guides._insist_on_own_tools()
        return guides

    @property
    def model(self) -> str:
        """The model's name."""
        return _value(_words(self.stages["transform"]), "--model_name")

    def commands(self, outputs: Sequence[str]) -> dict[str, list[str]]:
        """The commands by stage, each a tool with its arguments.

        :param outputs: the names of the network's outputs
        """
        name, picture = self.model, f"../{PICTURE}"
        renamed = {
            "transform": {"--test_input": picture},
            "calibrate": {"--dataset": f"../{PICTURES}"},
            "deploy": {"--test_input": picture},
        }
        if "--fuse_preprocess" not in _words(self.stages["deploy"]):
            renamed["deploy"] = {"--test_input": f"{name}_in_f32.npz"}
        more = {"transform": ["--output_names", ",".join(outputs)]}
        commands = {}
        for stage in TOOLS:
            if stage in self.stages:
                words = _words(self.stages[stage])
                told = _told(words, renamed[stage], BY_ITSELF[stage])
                commands[stage] = [TOOLS[stage], *told, *more.get(stage, [])]
        return commands

    def run(self, folder: Path) -> Cost:
        """Type the commands in an empty folder; give what they took, and each one's seconds.

        :param folder: is made; not there yet
        :raises CheckFailed: one of them failed
        """
        workspace = folder / "Workspace"
        workspace.mkdir(parents=True)
        shutil.copy2(self._network, workspace)
        (folder / PICTURES).mkdir()
        for each in self._pictures:
            shutil.copy2(each, folder / PICTURES)
        place = folder / PICTURE
        place.parent.mkdir()
        shutil.copy2(next(each for each in self._pictures if each.stem == "Calibration1"), place)
        total = None
        for stage, words in self.commands(_outputs(self._network)).items():
            log = self.project.logs / f"guides-{stage}.log"
            command = [self._program, *words]
            cost, _ = run_costed(command, workspace, self.project.environment, log)
            cost = replace(cost, steps={stage: cost.seconds})
            total = total.then(cost) if total else cost
        assert total
        return total

    def table(self, folder: Path) -> Path:
        """The calibration table that the commands have made in a folder."""
        words = _words(self.stages["calibrate"])
        return folder / "Workspace" / _value(words, "-o")

    @property
    def _program(self) -> Path:
        """What starts the toolchain's tools."""
        return self.built / starter(self.stages["transform"])

    @property
    def _network(self) -> Path:
        name = _value(_words(self.stages["transform"]), "--model_def")
        inputs = self.stages["transform"].inputs
        return self.built / next(path for path in inputs if Path(path).name == name)

    @property
    def _pictures(self) -> list[Path]:
        (folder,) = self.stages["dataset"].outputs
        return sorted((self.built / folder).glob("Calibration*"))

    def _insist_on_own_tools(self) -> None:
        """Make sure that what the tools call by name is the wheel's, and not what stands in for it.

        :raises CheckFailed: it isn't
        """
        command = [self._program, "sh", "-c", "command -v npz_tool.py"]
        log = self.project.logs / "guides-tools.log"
        said = run_timed(command, self.built, self.project.environment, log)[1].strip()
        if not said.endswith("/site-packages/tpu_mlir/python/tools/npz_tool.py"):
            raise CheckFailed(f"the guides' tools would call {said}, which is not tpu_mlir's own")


def starter(stage: Stage) -> Path:
    """What starts the tools of the toolchain that a stage runs in."""
    return Path(next(word for word in shlex.split(stage.parameters) if word.endswith("/run")))


def why_not(stages: Sequence[Stage]) -> str:
    """Why the guides' commands can't build what these stages do; empty if they can."""
    named = {stage.name: stage for stage in stages}
    others = named.keys() - {"dataset", "downgrade", *TOOLS}
    if others or not {"downgrade", "dataset", "transform", "deploy"} <= named.keys():
        return "their three commands are for an ONNX in one precision, by pictures"
    if not _value(_words(named["transform"]), "--test_input").endswith("_test.jpg"):
        return "their commands compare on one picture"
    return ""


def thresholds(table: Path) -> list[str]:
    """A calibration table without its comments, of which one is the time."""
    return [line for line in table.read_text().splitlines() if not line.startswith("#")]


def _words(stage: Stage) -> list[str]:
    """What a stage's tool is told, without what is before its name."""
    words = shlex.split(stage.parameters)
    tool = next(number for number, word in enumerate(words) if word.endswith(".py"))
    return words[tool + 1 :]


def _value(words: Sequence[str], flag: str) -> str:
    return words[words.index(flag) + 1]


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Flags, each with its value if it has one; what is no flag's stands for itself."""
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        is_flag = word.startswith("--") or word == "-o"
        # A value may begin with a minus.
        has_value = is_flag and waiting and not waiting[0].startswith("--") and waiting[0] != "-o"
        yield word, [waiting.pop(0)] if has_value else []


def _told(words: Sequence[str], renamed: Mapping[str, str], usual: Mapping[str, str]) -> list[str]:
    """The words with other values for some flags, and without those that change nothing."""
    told = []
    for word, value in _pairs(words):
        if word not in OURS and not (value and usual.get(word) == value[0]):
            told += [word, *([renamed[word]] if word in renamed else value)]
    return told


def _outputs(network: Path) -> list[str]:
    # Takes a while to import.
    import onnx

    model = onnx.load(network, load_external_data=False)
    return [output.name for output in model.graph.output]
