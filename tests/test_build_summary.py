"""`summarize_build.py`: results of many jobs as one table in Markdown."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import helper, refused

from tpumake.columns import in_markdown, plain_markdown

PLANNED = json.dumps({"include": [{"target": each, "chip": "cv181x"} for each in ("b_x", "a_x")]})


def built(path: Path, name: str, **more: object) -> Path:
    target = {"target": name, "model": name[0], "variant": "x", "chip": "cv181x", "status": "built",
              "seconds": 1.25, "output": "x", "size": 123456, "lowest_cosine": 0.5, "figure": "",
              "causes": []} | more  # fmt: skip
    told = {"$schema": "build_list.schema.json", "list": None, "done": True, "interrupted": False,
            "seconds": 2.5, "targets": [target]}  # fmt: skip
    path.write_text(json.dumps(told))
    return path


def test_documents_become_one_table_in_the_plans_order(tmp_path: Path) -> None:
    files = [built(tmp_path / "1", "a_x"), built(tmp_path / "2", "b_x", status="cached", seconds=0)]
    done = helper("summarize_build", *files, "--planned", PLANNED)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "| target | chip | status | seconds | MB | lowest cosine |",
        "|---|---|---|--:|--:|--:|",
        "| b_x | cv181x | cached |  | 0.12 | 0.5000000 |",
        "| a_x | cv181x | built | 1.2 | 0.12 | 0.5000000 |",
        "",
        "1 built, 1 cached; 5.0 s",
    ]


def test_what_failed_or_left_nothing_is_told_and_fails(tmp_path: Path) -> None:
    causes = [{"cause": "no <b>tensor</b> | `x`", "log": "build/a/logs/x.log"}]
    file = built(tmp_path / "1", "a_x", status="failed", size=None, causes=causes)
    done = helper("summarize_build", file, "--planned", PLANNED)
    assert done.returncode == 1
    assert "| b_x | cv181x | not tried |  |  |" in done.stdout
    assert "**b_x**: its job ended without a result" in done.stdout
    assert r"**a_x**: no \<b\>tensor\</b\> \| \`x\` (log: build/a/logs/x.log)" in done.stdout


def test_nothing_to_build_is_no_failure() -> None:
    done = helper("summarize_build")
    assert (done.returncode, done.stdout) == (0, "Nothing was to be built.\n")


def test_what_is_no_result_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "all.json").write_text("{}")
    assert "is no build_list.json" in refused(helper("summarize_build", tmp_path / "all.json"))
    assert "No such file" in refused(helper("summarize_build", tmp_path / "none"))
    for text in ("", "[]", '{"include": [1]}', '{"include": [{"target": "a"}]}'):
        assert "--planned: is no matrix" in refused(helper("summarize_build", f"--planned={text}"))


def test_markdown_shows_texts_as_they_are() -> None:
    assert plain_markdown("a|b\n*c* [d](e) <f> ~~g~~ \\") == (
        r"a\|b\\n\*c\* \[d\](e) \<f\> \~\~g\~\~ \\"
    )
    assert in_markdown([("a", "b"), ("x|y", "1")], words=1) == [
        "| a | b |", "|---|--:|", r"| x\|y | 1 |",
    ]  # fmt: skip
