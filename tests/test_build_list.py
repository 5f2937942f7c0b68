"""`make all` and its LIST: what is wanted, and the table of what came of it.

The builds here are a Makefile of few lines whose stages are shell commands, run by the real runner
and the real scripts/build_list.py; test_build.py has the real thing.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
from conftest import ROOT, Checkout, copy_project

from tpumake.batch import Catalogue, Target, Wanted, read_list
from tpumake.errors import BadInput

SCHEMAS = ROOT / "schemas"
MAKEFILE = """
CHIP ?= one
MODELS := good bad late
SCRIPTS := %(scripts)s
stage = @%(python)s -S $(SCRIPTS)/run_stage.py --build build --stage downgrade --make make --model $1 --label $2 \\
	--log build/$1/$(CHIP)/logs/$2.log --out build/$1/$(CHIP)/$1_$2 -- /bin/sh -c
empty :=
space := $(empty) $(empty)
comma := ,
all:
	+@%(python)s -S $(SCRIPTS)/build_list.py --build build $(if $(LIST),--list '$(LIST)') $(if $(JSON),--json)
event = $(if $(TPUMAKE_EVENTS),$(file >>$(TPUMAKE_EVENTS),$1))
good_x = echo x > good_x; echo 0.1 MB, lowest cosine 0.99
good_y = sleep $${SLEEP:-0}; echo y > good_y; echo 2 figures
bad_x = echo Error: no good; exit 1
late_x = echo x > late_x; echo ok
define target
$1_$2: build/$1/$$(CHIP)/$1_$2
	@:$$(call event,{"done": "$1_$2"})
build/$1/$$(CHIP)/$1_$2: $$(wildcard $1.source)
	$$(call stage,$1,$2) '$$($1_$2)'
endef
$(eval $(call target,good,x))
$(eval $(call target,good,y))
$(eval $(call target,bad,x))
$(eval $(call target,late,x))
one = {"target": "$1_$2", "model": "$1", "variant": "$2", "declared": true, "refused": null, \\
	"output": "build/$1/$(CHIP)/$1_$2", "sources": {}, "records": ["build/$1/$(CHIP)/logs/$2.key"]}
list:
	@:$(info {"chip": "$(CHIP)", "chips": ["one", "two"], "targets": [ \\
	$(call one,good,x), $(call one,good,y), $(call one,bad,x), $(call one,late,x)]})
"""  # noqa: E501


@pytest.fixture
def project(tmp_path: Path) -> Checkout:
    names = {"scripts": ROOT / "scripts", "python": sys.executable}
    (tmp_path / "Makefile").write_text(MAKEFILE % names)
    return Checkout(tmp_path)


def listed(project: Checkout, text: str | bytes) -> str:
    """Write a list and give the argument that names it."""
    path = project.path / "list.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return f"LIST={path}"


def rows(said: str) -> dict[str, str]:
    """The table's statuses, by target and chip."""
    names = "built|cached|up to date|failed|interrupted|not tried"
    found = re.findall(rf"^(\w+) +(\w+) +({names})\b", said, re.M)
    return {f"{target} {chip}": status for target, chip, status in found}


def summary(project: Checkout) -> dict:
    told = json.loads((project.path / "build/all.json").read_text())
    schema = json.loads((SCHEMAS / "build_list.schema.json").read_text())
    jsonschema.validate(told, schema, cls=jsonschema.Draft202012Validator)
    return told


# ---------------------------------------------------------------------------------------------
# What is wanted


KNOWN = Catalogue(
    "cv181x",
    ["cv181x", "bm1684x"],
    {
        f"{model}_{variant}": Target(
            f"{model}_{variant}", model, variant, variant != "f32", None, "o", {}, ["r"]
        )
        for model in ("yolo11n", "tiny")
        for variant in ("int8", "bf16", "f32")
    },
)


def read(folder: Path, text: str | bytes) -> list[Wanted]:
    path = folder / "full_cases.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_list(path, KNOWN)


def test_a_model_is_all_that_its_stanza_declares(tmp_path: Path) -> None:
    assert read(tmp_path, "tiny\n") == [
        Wanted("tiny_int8", "cv181x"), Wanted("tiny_bf16", "cv181x"),
    ]  # fmt: skip


def test_a_target_need_not_be_declared_and_may_have_a_chip(tmp_path: Path) -> None:
    text = "tiny_f32 CHIP=bm1684x\nCHIP=cv181x tiny_int8\n"
    assert read(tmp_path, text) == [Wanted("tiny_f32", "bm1684x"), Wanted("tiny_int8", "cv181x")]


@pytest.mark.parametrize(
    "text",
    [
        "tiny_int8",
        "\n\n# all of it\n  tiny_int8\t # the small one\n",
        "tiny_int8\r\ntiny_int8 CHIP=cv181x\r\n\r\n",
        b"\xef\xbb\xbftiny_int8\n",
        "tiny_int8\rtiny_int8\r",
    ],
)
def test_comments_blanks_ends_of_lines_and_repetitions_do_not_matter(
    tmp_path: Path, text: str | bytes
) -> None:
    assert read(tmp_path, text) == [Wanted("tiny_int8", "cv181x")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tiny\ntiny_int9\n", ":2: there is no tiny_int9; did you mean tiny_int8"),
        ("resnet", ":1: there is no resnet; make list shows"),
        ("tiny yolo11n", ":1: tiny yolo11n: one target a line"),
        ("CHIP=bm1684x", ":1: CHIP=bm1684x: one target a line"),
        ("\ntiny CHIP=bm1685", ":2: CHIP=bm1685 is not known; known are: cv181x bm1684x"),
        ("tiny tiny_ONNX=x", ":1: tiny_ONNX=… can't be given here"),
        ("tiny CHIP=cv181x CHIP=bm1684x", ":1: CHIP=… can't be given here, only one"),
        ("# nothing\n\n", "names no target"),
        (b"\xff\xfe\x00t", "not a text file"),
        ("tiny.int8", ":1: there is no tiny.int8; did you mean tiny_int8"),
    ],
)
def test_what_can_not_be_followed_is_one_line_with_its_number(
    tmp_path: Path, text: str | bytes, said: str
) -> None:
    with pytest.raises(BadInput) as error:
        read(tmp_path, text)
    assert f"full_cases.txt{said}" in str(error.value) or said in str(error.value)
    assert "\n" not in str(error.value)


def test_nothing_runs_where_a_line_is_wrong(project: Checkout) -> None:
    done = project.make("all", "-k", listed(project, "good\nno_such\n"), check=False)
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if not line.startswith("make: ")]
    assert len(said) == 1
    assert "list.txt:2: there is no no_such" in said[0]
    assert not (project.path / "build").exists()


@pytest.mark.parametrize("name", ["no/such.txt", "."])
def test_a_list_that_can_not_be_read_is_one_line(project: Checkout, name: str) -> None:
    done = project.make("all", f"LIST={name}", check=False)
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if not line.startswith("make: ")]
    assert len(said) == 1
    assert f"{name.removesuffix('/.')}: " in said[0]


# ---------------------------------------------------------------------------------------------
# What came of it


def test_everything_and_again(project: Checkout) -> None:
    argument = listed(project, "good\nlate\n")
    done = project.make("all", argument)
    assert rows(done.stdout) == {
        "good_x one": "built",
        "good_y one": "built",
        "late_x one": "built",
    }
    told = summary(project)
    assert (told["done"], told["interrupted"], told["list"]) == (True, False, argument[5:])
    first = told["targets"][0]
    assert (first["target"], first["lowest_cosine"], first["size"]) == ("good_x", 0.99, 2)
    assert 0 < first["seconds"] < told["seconds"]
    assert told["targets"][1]["lowest_cosine"] is None
    done = project.make("all", argument)
    assert set(rows(done.stdout).values()) == {"up to date"}
    assert "3 up to date; " in done.stdout
    assert [each["seconds"] for each in summary(project)["targets"]] == [0, 0, 0]


def test_the_table_ends_what_is_said_and_its_order_is_the_lists(project: Checkout) -> None:
    said = project.make("all", "-j4", listed(project, "late\ngood_y\ngood_x\n")).stdout
    lines = said.splitlines()
    assert re.fullmatch(r"3 built; \d+\.\d s", lines[-1])
    assert [line.split()[0] for line in lines[-4:-1]] == ["late_x", "good_y", "good_x"]
    assert lines[-5].split() == ["target", "chip", "status", "seconds", "MB", "lowest", "cosine"]


def test_with_k_one_that_fails_keeps_no_other_from_being_built(project: Checkout) -> None:
    done = project.make("all", "-k", check=False)
    assert done.returncode == 2
    assert rows(done.stdout) == {
        "good_x one": "built", "good_y one": "built", "bad_x one": "failed", "late_x one": "built",
    }  # fmt: skip
    assert "    Error: no good\n    log: build/bad/one/logs/x.log\n" in done.stdout
    assert "Traceback" not in done.stderr
    told = summary(project)
    assert not told["done"]
    assert told["targets"][2]["causes"] == [
        {"cause": "Error: no good", "log": "build/bad/one/logs/x.log"}
    ]
    assert (told["targets"][2]["size"], told["targets"][2]["lowest_cosine"]) == (None, None)


def test_without_k_what_comes_after_it_is_not_tried(project: Checkout) -> None:
    done = project.make("all", check=False)
    assert done.returncode == 2
    assert rows(done.stdout) == {
        "good_x one": "built", "good_y one": "built", "bad_x one": "failed",
        "late_x one": "not tried",
    }  # fmt: skip
    assert not summary(project)["done"]


def test_an_earlier_result_of_what_fails_now_is_not_called_built(project: Checkout) -> None:
    project.make("all", listed(project, "good_x"))
    (project.path / "good.source").write_text("newer")
    makefile = project.path / "Makefile"
    makefile.write_text(makefile.read_text().replace("good_x = echo x", "good_x = exit 3; echo"))
    done = project.make("all", "LIST=list.txt", check=False)
    assert rows(done.stdout) == {"good_x one": "failed"}
    assert summary(project)["targets"][0]["size"] is None


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("-k",), ("-k", "-j3")])
def test_each_chip_has_a_make_of_its_own(project: Checkout, flags: tuple[str, ...]) -> None:
    text = "good_x CHIP=two\nbad\nlate CHIP=two\ngood_x\nlate\n"
    done = project.make("all", *flags, listed(project, text), check=False)
    assert done.returncode == 2
    told = rows(done.stdout)
    assert list(told) == ["good_x two", "bad_x one", "late_x two", "good_x one", "late_x one"]
    assert [told[name] for name in ("good_x two", "bad_x one", "late_x two")] == [
        "built", "failed", "built",
    ]  # fmt: skip
    assert told["late_x one"] == ("built" if flags else "not tried")
    assert (project.path / "build/good/two/good_x").exists()


def test_a_chip_on_the_command_line_is_that_of_lines_without(project: Checkout) -> None:
    argument = listed(project, "good_x\nlate CHIP=one\n")
    done = project.make("all", "CHIP=two", argument)
    assert rows(done.stdout) == {"good_x two": "built", "late_x one": "built"}


def test_a_failure_that_nobody_noted_is_one(project: Checkout) -> None:
    makefile = project.path / "Makefile"
    makefile.write_text(makefile.read_text() + "\nlate_x: no/such/file\n")
    done = project.make("all", "-k", listed(project, "late"), check=False)
    assert rows(done.stdout) == {"late_x one": "failed"}
    assert "what it said above tells why" in done.stdout
    assert "No rule to make target" in done.stderr


def test_json_is_one_document_on_standard_output(project: Checkout) -> None:
    done = project.make("all", "-k", "JSON=1", check=False)
    assert json.loads(done.stdout) == summary(project)
    assert "bad_x" in done.stderr
    assert "4 " not in done.stdout


@pytest.mark.parametrize(("flag", "code"), [("-n", 0), ("-q", 1)])
def test_makes_own_questions_write_nothing(project: Checkout, flag: str, code: int) -> None:
    done = project.make(flag, "all", listed(project, "good\nlate CHIP=two\n"), check=False)
    assert done.returncode == code
    assert ("echo y > good_y" in done.stdout) is (flag == "-n")
    assert not (project.path / "build").exists()


@pytest.mark.slow
def test_all_jobs_run_side_by_side(project: Checkout) -> None:
    """The jobs are the outer make's: two stages of a second each take little more than one."""
    makefile = project.path / "Makefile"
    text = re.sub(r"^(good_x|late_x) = ", r"\1 = date +%s%N > \1.began; sleep 1; ",
                  makefile.read_text(), flags=re.M)  # fmt: skip
    text = text.replace("> good_x.began", f"> {project.path}/good.began")
    text = text.replace("> late_x.began", f"> {project.path}/late.began")
    makefile.write_text(text)
    done = project.make("all", "-j2", listed(project, "good_x\nlate\n"))
    assert "jobserver" not in done.stderr
    began = [int((project.path / f"{name}.began").read_text()) for name in ("good", "late")]
    assert abs(began[0] - began[1]) < 0.9e9


def descendants(folder: Path) -> list[str]:
    """The command lines of the processes that were started in a folder."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and str(process.joinpath("cwd").readlink()).startswith(
                str(folder)
            ):
                found.append(process.joinpath("cmdline").read_bytes().decode())
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    ("send", "number"),
    [
        (os.killpg, signal.SIGINT),
        (os.killpg, signal.SIGTERM),
        (os.kill, signal.SIGTERM),
        (os.kill, signal.SIGKILL),
    ],
    ids=["terminal", "group", "make", "kill"],
)
def test_a_signal_ends_everything_and_what_was_done_is_told(
    project: Checkout, send, number: int
) -> None:
    argument = listed(project, "good\nlate\n")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    output = project.path / "said"
    with output.open("w") as file:
        make = subprocess.Popen(
            ["make", "all", argument], cwd=project.path, stdout=file, stderr=subprocess.STDOUT,
            env=env | {"CACHE": "0", "SLEEP": "60"}, start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + 60
    while not any(each.startswith("sleep") for each in descendants(project.path)):
        assert make.poll() is None, output.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    send(make.pid, number)
    assert make.wait(30) != 0
    deadline = time.monotonic() + 20
    while descendants(project.path):
        assert time.monotonic() < deadline, descendants(project.path)
        time.sleep(0.05)
    said = output.read_text()
    assert "Traceback" not in said
    assert rows(said) == {
        "good_x one": "built", "good_y one": "interrupted", "late_x one": "not tried",
    }  # fmt: skip
    assert re.search(r"^1 built, 1 interrupted, 1 not tried; \d+\.\d s, interrupted$", said, re.M)
    assert summary(project)["interrupted"]
    assert not list((project.path / "build/.work").glob("list-*"))


# ---------------------------------------------------------------------------------------------
# The project's own Makefile


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """For tests that build nothing."""
    return copy_project(tmp_path_factory.mktemp("lists") / "check out")


@pytest.mark.parametrize("chip", ["cv181x", "bm1684x"])
def test_what_can_be_built_as_a_document(copied: Checkout, chip: str) -> None:
    argument = 'tiny_ONNX=my networks/"a", b.onnx'
    told = json.loads(copied.make("list", "JSON=1", f"CHIP={chip}", argument).stdout)
    schema = json.loads((SCHEMAS / "list.schema.json").read_text())
    jsonschema.validate(told, schema, cls=jsonschema.Draft202012Validator)
    assert (told["chip"], "bm1690" in told["chips"]) == (chip, True)
    targets = {each["target"]: each for each in told["targets"]}
    tiny = targets["tiny_int8"]
    assert tiny["sources"] == {"tiny_ONNX": 'my networks/"a", b.onnx'}
    assert tiny["records"][0] == "build/tiny/logs/stanza.key"
    assert tiny["records"][-1] == f"build/tiny/{chip}/logs/int8.key"
    assert (tiny["declared"], targets["tiny_mix"]["declared"]) == (True, False)
    assert ("BF16 under that name" in (targets["tiny_f16"]["refused"] or "")) is (chip == "cv181x")
    plain = copied.make("list").stdout
    assert "tiny: tiny_int8 tiny_bf16" in plain


def test_a_missing_dataset_and_network_are_told_with_what_to_do(copied: Checkout) -> None:
    text = "tiny_bf16 # no pictures\n"
    done = copied.make(
        "all", "-k", listed(copied, text), "tiny_DATASET=no/pictures", "tiny_ONNX=no/such.onnx",
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert rows(done.stdout) == {"tiny_bf16 cv181x": "failed"}
    assert "    there is no no/such.onnx, which tiny_ONNX names\n" in done.stdout
    assert "    no/pictures: there is no such file or folder; put pictures there" in done.stdout


def test_what_the_chip_does_not_have_is_told_as_such(copied: Checkout) -> None:
    done = copied.make("all", listed(copied, "tiny_f16"), check=False)
    assert rows(done.stdout) == {"tiny_f16 cv181x": "failed"}
    assert "    cv181x does not compute in F16" in done.stdout
