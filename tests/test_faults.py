"""The runner at every step that it takes: killed before it, or told there that the disk is full.

Python announces what a program is about to do (audit events), so the steps can be counted, and
whatever happens at each of them can be tried. The command is a shell's; the runner does the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import ROOT

pytestmark = pytest.mark.slow

# Runs a program whose steps are counted, and at the one whose number is given, does something.
HARNESS = """
import errno, os, runpy, signal, sys
what, at, program = sys.argv[1], int(sys.argv[2]), sys.argv[3]
del sys.argv[:3]
STEPS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.utime", "os.symlink",
         "os.link", "os.truncate", "os.chmod", "sqlite3.connect", "subprocess.Popen",
         "tempfile.mkdtemp", "shutil.rmtree", "os.fork", "os.kill", "os.killpg"}
GROWS = {"open", "os.mkdir", "os.symlink", "sqlite3.connect", "tempfile.mkdtemp"}
count, me = 0, os.getpid()
def step(event, args):
    global count
    if event not in STEPS or os.getpid() != me:
        return
    if event == "open":
        path, _, flags = args
        # Only what is written: the interpreter reads its own modules this way.
        if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
    count += 1
    if what == "kill" and count == at:
        os.kill(me, signal.SIGKILL)
    elif what == "full" and count >= at and event in GROWS and args[0] != os.devnull:
        if event == "sqlite3.connect":
            import sqlite3
            raise sqlite3.OperationalError("unable to open database file")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(args[0]))
sys.addaudithook(step)
sys.path.insert(0, os.path.dirname(program))
try:
    runpy.run_path(program, run_name="__main__")
finally:
    if what == "count":
        print(count, file=sys.stderr)
"""
OUTPUTS = ("out", "other", "set/a")


class Tree:
    """A folder in which one stage makes two files and a folder out of one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / "in").exists():
            (folder / "in").write_text("first")

    def run(self, what: str = "", at: int = 0) -> subprocess.CompletedProcess[str]:
        runner = str(ROOT / "scripts/run_stage.py")
        program = [sys.executable, "-S", "-c", HARNESS, what, str(at), runner]
        script = "mkdir set; tee set/a other out < in; echo > set/manifest.json; echo done"
        command = [
            *(program if what else [sys.executable, "-S", runner]),
            "--stage", "dataset", "--model", "m", "--build", "build", "--log", "build/logs/m.log",
            "--in", "in", "--out", "build/m/out", "--out", "build/m/other", "--out", "build/m/set",
            "--", "/bin/sh", "-c", script,
        ]  # fmt: skip
        env = os.environ | {"CACHE": "1", "CACHE_DIR": str(self.folder / "cache")}
        return subprocess.run(
            command, cwd=self.folder, env=env, capture_output=True, text=True, check=False
        )

    def made(self) -> dict[str, str]:
        found = {}
        for name in OUTPUTS:
            path = self.folder / "build/m" / name
            if path.exists():
                found[name] = path.read_text()
        return found

    def leftovers(self) -> set[str]:
        """What is neither a result nor a log, nor a lock, nor a file of the cache."""
        known = {"build/m", "build/m/set", "build/m/set/manifest.json", "build/logs", "build",
                 "build/logs/m.log", "build/logs/m.key", "build/.digests", "build/.work",
                 "build/.work/memory", "cache", "cache/ac", "cache/cas", "cache/size",
                 "cache/lock", "in"}  # fmt: skip
        known |= {f"build/m/{name}" for name in OUTPUTS}
        found = {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")}
        return {
            name
            for name in found - known
            if not name.endswith(".lock") and not name.startswith(("cache/ac/", "cache/cas/"))
        }

    def assert_cache_is_valid(self) -> None:
        contents = set()
        for path in (self.folder / "cache").glob("cas/??/*"):
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
            contents.add(path.name)
        for path in (self.folder / "cache").glob("ac/??/*"):
            files = json.loads(path.read_text())["files"].values()
            assert {digest for each in files for digest in each.values()} <= contents


def finished(text: str) -> dict[str, str]:
    return dict.fromkeys(OUTPUTS, text)


# What there is before: nothing; results of another input; results in the cache.
SITUATIONS = ("new", "changed", "cached")


@pytest.fixture(params=SITUATIONS)
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Tree:
    folder = tmp_path / "before"
    folder.mkdir()
    tree = Tree(folder)
    if request.param != "new":
        assert tree.run().returncode == 0
    if request.param == "changed":
        (folder / "in").write_text("second")
    if request.param == "cached":
        shutil.rmtree(folder / "build")
    return tree


def at_each_step(tree: Tree, attempt: Callable[[Tree, int], None], every: int = 1) -> None:
    """Count a run's steps, and try each of them, or every so many, in a copy of the tree."""
    counting = copy(tree, "counting")
    done = counting.run("count")
    assert done.returncode == 0, done.stderr
    steps = int(done.stderr)
    assert steps > 20
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        tries = [pool.submit(attempt, copy(tree, str(at)), at) for at in range(1, steps + 1, every)]
        for each in tries:
            each.result()


def copy(tree: Tree, name: str) -> Tree:
    folder = tree.folder.with_name(name)
    subprocess.run(["cp", "-a", tree.folder, folder], check=True)
    return Tree(folder)


def assert_whole(tree: Tree) -> None:
    """No result is half one; the first is there only with all others, and so is a new record."""
    source, record = tree.folder / "in", tree.folder / "build/logs/m.key"
    wanted, made = source.read_text(), tree.made()
    assert set(made.values()) <= {"first", "second"}
    dated = record.exists() and record.stat().st_mtime_ns > source.stat().st_mtime_ns
    if made.get("out") == wanted or dated:
        assert made == dict.fromkeys(OUTPUTS, wanted)
    tree.assert_cache_is_valid()


def assert_goes_on(tree: Tree) -> None:
    """What failed is made, and what it left is gone at the latest when the stage runs again."""
    for text in ((tree.folder / "in").read_text(), "third"):
        (tree.folder / "in").write_text(text)
        done = tree.run()
        assert done.returncode == 0, done.stderr
        assert tree.made() == dict.fromkeys(OUTPUTS, text)
        assert (tree.folder / "build/m/set/manifest.json").exists()
        tree.assert_cache_is_valid()
    assert not tree.leftovers()


def test_killed_at_each_step(tree: Tree) -> None:
    def attempt(tree: Tree, at: int) -> None:
        done = tree.run("kill", at)
        # On a busy machine a run may take a step fewer than the one that was counted.
        ended = (-signal.SIGKILL,) if at <= 20 else (-signal.SIGKILL, 0)
        assert done.returncode in ended, (at, done.stderr)
        assert_whole(tree)
        assert_goes_on(tree)

    at_each_step(tree, attempt)


def test_no_room_from_each_step_on(tree: Tree) -> None:
    """One line, unless it was only about the cache, or about what only saves time."""

    def attempt(tree: Tree, at: int) -> None:
        done = tree.run("full", at)
        assert_whole(tree)
        if done.returncode:
            assert done.returncode == 2, (at, done.stderr)
            assert done.stderr.count("\n") == 1, (at, done.stderr)
            assert "No space left on device" in done.stderr, (at, done.stderr)
        else:
            assert tree.made() == dict.fromkeys(OUTPUTS, (tree.folder / "in").read_text())
        assert_goes_on(tree)

    at_each_step(tree, attempt, every=2)
