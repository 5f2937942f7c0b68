"""What is said of a tool that failed: the table of known messages, and the line that tells most."""

from __future__ import annotations

import json
import re
import string
import subprocess
import sys

import jsonschema
import pytest
from conftest import ROOT

from tpumake import failures
from tpumake.stages import STAGES

TABLE = failures.known_failures()
TRACEBACK = """Traceback (most recent call last):
  File "/x/tools/model_transform.py", line 290, in <module>
    tool.model_transform(args.mlir)
  File "/x/transform/OnnxConverter.py", line 489, in check_shape
    raise KeyError("input shapes error:{}".format(input_shapes))
"""
STACK = """PLEASE submit a bug report to https://github.com/llvm/llvm-project/issues/
Stack dump:
0.\tProgram arguments: tpuc-opt m.mlir -o x.mlir
 #0 0x000056024de038a7 (/x/bin/tpuc-opt+0x7948a7)
#10 0x00007f4bcee4524a __libc_start_call_main ./csu/libc-start.c:74:3
Aborted
Traceback (most recent call last):
  File "/x/utils/mlir_shell.py", line 51, in _os_system
    raise RuntimeError("[!Error]: {}".format(cmd_str))
RuntimeError: [!Error]: tpuc-opt m.mlir --canonicalize -o x.mlir
"""


def explained(said: str, code: int = 1, stage: str = "deploy") -> failures.Failure:
    return failures.explain(stage, f"$ the command\n{said}", code, ["out"])


def test_the_table_is_of_its_schema() -> None:
    document = json.loads((ROOT / "scripts/tpumake/known_failures.json").read_text())
    schema = json.loads((ROOT / "schemas/known_failures.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(document)
    names = [entry["name"] for entry in TABLE]
    assert len(names) == len(set(names))
    assert {stage for entry in TABLE for stage in entry.get("stages", [])} <= set(STAGES)


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry["name"])
def test_an_entry_names_only_what_its_pattern_finds(entry: dict) -> None:
    groups = re.compile(entry["pattern"], re.MULTILINE).groups
    for text in (entry["cause"], entry["remedy"]):
        used = {int(name) for _, name, _, _ in string.Formatter().parse(text) if name}
        assert used <= set(range(1, groups + 1))
    assert len(entry["cause"]) < 150


def test_a_message_is_known_only_in_its_stages() -> None:
    said = "RuntimeError: There is no inputs\n"
    assert explained(said, stage="calibrate").known
    assert explained(said, stage="transform") == (said.strip(), "", False)


def test_progress_does_not_hide_a_message() -> None:
    """Bars end their lines with a carriage return, and the last one with nothing."""
    bar = "\r[2048] threshold: y_Relu:  50%|█████     | 1/2 [00:00<00:00, 30.70it/s]"
    said = f"{bar * 3}\rRuntimeError: There is no inputs\n"
    assert explained(said, stage="calibrate").cause == "there is nothing to calibrate with"
    assert explained(f"half a word\n{bar * 3}", -11).cause.endswith("(SIGSEGV): half a word")


def test_known_messages_have_a_remedy_and_the_words_that_were_found() -> None:
    failure = explained("RuntimeError: Op not support:{'Mod', 'Det'}\n", stage="transform")
    assert failure.cause == "tpu_mlir has no operator 'Mod', 'Det'"
    assert "OUTPUTS" in failure.remedy
    assert failure.known


@pytest.mark.parametrize(
    ("said", "code", "cause"),
    [
        (f"can't frobnicate y\nUNREACHABLE executed at /x/A.cpp:7!\n{STACK}", 1,
         "can't frobnicate y: UNREACHABLE executed at /x/A.cpp:7!"),
        (f"terminate called after throwing an instance of 'std::x'\n  what():  it broke\n{STACK}",
         1, "what():  it broke"),
        (STACK, 1, "tpuc-opt failed"),
        (f"{TRACEBACK}KeyError: 'nothing of the kind'\n", 1, "KeyError: 'nothing of the kind'"),
        (f"{TRACEBACK}AssertionError\n", 1,
         'AssertionError: raise KeyError("input shapes error:{}".format(input_shapes))'),
        ("[Running]: tpuc-opt m.mlir\nSegmentation fault\nRuntimeError: [!Error]: tpuc-opt m\n", 1,
         "Segmentation fault"),
        ("[Running]: tpuc-opt m.mlir\n", -8, "the tool was ended by signal 8 (SIGFPE)"),
        ("all is well\n", 0, "the tool ended well but made no out"),
        ("", 3, "exit code 3"),
        ("x" * 5000, 1, "x" * 239 + "…"),
    ],
)  # fmt: skip
def test_of_unknown_failures_the_line_that_tells_most(said: str, code: int, cause: str) -> None:
    assert explained(said, code) == (cause, "", False)


@pytest.mark.parametrize("code", [-9, 137])
def test_a_tool_that_was_killed_ran_out_of_memory_most_likely(code: int) -> None:
    failure = explained("[2048] threshold: y:  50%|█ | 1/2\n", code)
    assert "killed, by the kernel most likely" in failure.cause
    assert "INPUT_NUM" in failure.remedy
    assert failure.known


@pytest.mark.parametrize(
    ("said", "code"), [("[Running]: tpuc-opt m\nBus error\n", 1), ("", -7), ("", 135)]
)
def test_a_tool_that_died_of_sigbus_is_told_of_the_machine(said: str, code: int) -> None:
    failure = explained(said, code)
    assert "SIGBUS" in failure.cause
    assert "dmesg" in failure.remedy
    assert failure.known


def test_nothing_of_this_is_imported_where_nothing_fails() -> None:
    code = (
        "import sys; sys.path.insert(0, 'scripts'); "
        "import tpumake.runner, tpumake.execution, tpumake.cache; "
        "print([name for name in sys.modules if name == 'tpumake.failures'])"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


# ---------------------------------------------------------------------------------------------
# docs/troubleshooting.md

DOCUMENT = (ROOT / "docs/troubleshooting.md").read_text()
# A cell may have code with a backtick in it, between two of them; none has a pipe.
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in DOCUMENT.splitlines()
    if line.startswith("| ") and not line.endswith("| test |")
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[3].strip("*`"))
def test_every_row_names_a_test_that_there_is(row: list[str]) -> None:
    assert len(row) == 4
    assert all(row)
    entry = re.fullmatch(r"\*([a-z-]+)\*", row[3])
    if entry:
        assert entry[1] in {each["name"] for each in TABLE}
        return
    file, name = re.fullmatch(r"`(test_\w+\.py)::(test_\w+)`", row[3]).groups()
    assert f"\ndef {name}(" in (ROOT / "tests" / file).read_text()


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry["name"])
def test_every_known_message_has_a_row(entry: dict) -> None:
    (row,) = [row for row in ROWS if row[3] == f"*{entry['name']}*"]
    assert row[0].strip("` ") == entry["says"].strip("` ")
