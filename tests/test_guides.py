"""docs/guides.md: every command that it names can be pasted, and builds."""

from __future__ import annotations

import re
import shlex

import pytest
from conftest import ROOT, Checkout, copy_project

PAGE = (ROOT / "docs/guides.md").read_text()
COMMANDS = list(dict.fromkeys(re.findall(r"`(make [^`…]+)`", PAGE)))
# Not a build, or one of the user's own files.
NO_BUILDS = ("make setup", "make info FILE=")
OWN = ("~/",)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return copy_project(tmp_path_factory.mktemp("guides") / "check out")


def words(command: str) -> list[str]:
    return shlex.split(command)[1:]


def refused(command: str) -> bool:
    """The page says that it is told why this is not built."""
    return command == "make yolo11n_f16"


def test_the_page_names_commands_for_every_flow() -> None:
    assert len(COMMANDS) > 20
    said = " ".join(COMMANDS)
    for needed in (
        "_int8", "_bf16", "_mix", "_f16 ", "_f32 ", "CHIP=bm1684x", "CHIP=bm1684 ", ".info",
        ".detect", "LIST=", "mobilenet", "_tf_", "_pt_", "mnet", "squeezenet",
    ):  # fmt: skip
        assert needed in said, needed


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one_that_make_knows(project: Checkout, command: str) -> None:
    if any(word in command for word in OWN) or "FILE=" in command:
        return
    if refused(command):
        done = project.make(*words(command), check=False)
        assert done.returncode == 2
        assert "does not compute in F16" in done.stderr
    else:
        done = project.make("-n", *words(command), check=False)
        assert done.returncode == 0, done.stderr
        assert "there is no" not in done.stdout
        assert done.stdout or "setup" in command


# Hours, with pictures enough to calibrate well; here few do.
@pytest.mark.toolchain
@pytest.mark.full
@pytest.mark.parametrize(
    "command",
    [each for each in COMMANDS
     if not each.startswith(NO_BUILDS) and not refused(each)
     and not any(word in each for word in OWN)],
)  # fmt: skip
def test_every_command_builds(project: Checkout, command: str) -> None:
    models = project.make("list", "STANZAS=examples/guides.mk").stdout + project.make("list").stdout
    names = [line.partition(":")[0] for line in models.splitlines()]
    few = [f"{name}_{what}" for name in names for what in ("INPUT_NUM=8", "TUNE_NUM=0")]
    # F16 is emulated number by number, for this size all too slowly.
    slow = ["VALIDATE=0"] if "yolov5s_cut_f16" in command else []
    done = project.make(*words(command), *few, *slow, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
