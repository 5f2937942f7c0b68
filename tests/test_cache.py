"""The stage cache: what comes back, what is noticed, what it must never do."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import QUICK, ROOT, Checkout, copy_checkout, copy_project

from tpumake.amounts import byte_count
from tpumake.cache import Cache, Damaged, seal
from tpumake.errors import BadInput
from tpumake.keys import Key, Record, sha256

# What runs is counted beside the tree: the environment is not in a key.
SCRIPT = """
echo x >> "$RAN"; echo a note
cat in > out; mkdir set; cat in > set/a; echo b > set/manifest.json
echo the figure
"""
# Root may write anywhere, but for this.
BOUND = ["setpriv", "--bounding-set", "-dac_override"] if os.getuid() == 0 else []


class Tree:
    """A folder with one stage, a shell command; several share a cache."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.cache = cache
        if not folder.exists():
            folder.mkdir()
            (folder / "in").write_text("input")

    def run(self, *options: str, under: Sequence[str] = (), **environment: str) -> str:
        """Make the stage; gives what it says."""
        command = [
            *under,
            sys.executable, "-S", str(ROOT / "scripts/run_stage.py"), "--stage", "downgrade",
            "--model", "m", "--build", "build", "--log", "logs/stage.log", "--in", "in",
            "--out", "made/out", "--out", "made/set", *options, "--", "/bin/sh", "-c", SCRIPT,
        ]  # fmt: skip
        variables = {"CACHE": "1", "CACHE_DIR": str(self.cache), "RAN": str(self.folder / "ran"),
                     "CACHE_REMOTE": ""}  # fmt: skip
        done = subprocess.run(
            command, cwd=self.folder, env=os.environ | variables | environment, text=True,
            capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done
        assert done.stderr == ""
        assert (self.folder / "made/out").read_text() == (self.folder / "in").read_text()
        assert (self.folder / "made/set/manifest.json").read_text() == "b\n"
        return done.stdout

    @property
    def runs(self) -> int:
        ran = self.folder / "ran"
        return len(ran.read_text().split()) if ran.exists() else 0


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """A tree whose result is in its cache, to be copied."""
    folder = tmp_path_factory.mktemp("first")
    tree = Tree(folder / "one", folder / "cache ü")
    tree.run()
    assert tree.runs == 1
    return tree


@pytest.fixture
def trees(first: Tree, tmp_path: Path) -> list[Tree]:
    """Two, of which the first one's result is in their cache."""
    for folder in (first.folder, first.cache):
        shutil.copytree(folder, tmp_path / folder.name)
    return [Tree(tmp_path / name, tmp_path / "cache ü") for name in ("one", "two")]


def blobs(cache: Path) -> list[Path]:
    return sorted(cache.glob("cas/??/*"))


def entries(cache: Path) -> list[Path]:
    return sorted(cache.glob("ac/??/*"))


def test_a_second_tree_takes_it_with_figure_and_log(trees: list[Tree]) -> None:
    one, two = trees
    said = two.run()
    assert two.runs == 0
    assert re.search(r"^m +downgrade +the figure +cached$", said, re.M)
    assert (two.folder / "logs/stage.log").read_bytes() == (
        one.folder / "logs/stage.log"
    ).read_bytes()
    # Its record tells that, and how long the other one's run took; the key is the same.
    ours, theirs = (json.loads((tree.folder / "logs/stage.key").read_text()) for tree in trees)
    assert (ours["cached"], theirs["cached"]) == (False, True)
    assert ours["seconds"] > 0
    assert theirs | {"cached": False} == ours
    # And from then on it is there.
    assert two.run() == ""


def test_what_is_shown_of_it(trees: list[Tree]) -> None:
    _, two = trees
    said = two.run("--why", "--verbose")
    assert "comes from the cache: it has not run yet" in said
    assert "a note" in said


def test_going_back_costs_nothing(trees: list[Tree]) -> None:
    one, _ = trees
    (one.folder / "in").write_text("other")
    one.run()
    (one.folder / "in").write_text("input")
    one.run()
    assert one.runs == 2


def test_names_are_full_digests_of_contents(trees: list[Tree]) -> None:
    found = blobs(trees[0].cache)
    assert len(found) == 2  # The same content twice is there once.
    assert all(sha256(path) == path.name and path.name[:2] == path.parent.name for path in found)
    (entry,) = entries(trees[0].cache)
    document = json.loads(entry.read_text())
    assert entry.name == document["record"]["digest"]
    assert len(entry.name) == 64


def test_editing_a_result_in_place_does_not_edit_the_cache(trees: list[Tree]) -> None:
    one, two = trees
    for tree in trees:
        tree.run()
        with (tree.folder / "made/out").open("a") as file:
            file.write("edited")
    assert all(sha256(path) == path.name for path in blobs(one.cache))
    two.run()
    assert two.runs == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\1"),
    ],
    ids=["gone", "empty", "short", "another"],
)
@pytest.mark.parametrize("kind", [blobs, entries])
def test_damage_is_noticed_dropped_and_mended(trees: list[Tree], damage, kind) -> None:
    one, two = trees
    for path in kind(one.cache):
        damage(path)
    two.run()
    assert two.runs == 1
    assert all(sha256(path) == path.name for path in blobs(one.cache))
    third = Tree(two.folder.parent / "three", two.cache)
    third.run()
    assert third.runs == 0


def edited(trees: list[Tree], change) -> None:
    (entry,) = entries(trees[0].cache)
    document = json.loads(entry.read_text())
    del document["seal"]
    change(document)
    # Sealed anew: what it says must be seen to be wrong by itself.
    entry.write_text(json.dumps(document | {"seal": seal(document)}))


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry.pop("log"),
        lambda entry: entry.pop("files"),
        lambda entry: entry.update(files={"out": []}),
        lambda entry: entry.update(files={"../out": entry["files"]["out"], "set": {}}),
        lambda entry: entry["files"]["set"].update({"../../x": entry["files"]["out"][""]}),
        lambda entry: entry["files"]["set"].update({"/tmp/x": entry["files"]["out"][""]}),
        lambda entry: entry["files"]["out"].update({"": "../../../etc/passwd"}),
        lambda entry: entry["files"].pop("set"),
        lambda entry: entry["record"]["key"]["parameters"].append("x"),
        lambda entry: entry["record"].update(digest="0" * 64),
        lambda entry: entry.update(record=[]),
        # What it would put in place is not what the record, which is believed later on, tells of.
        lambda entry: entry["files"]["out"].update({"": entry["files"]["set"]["manifest.json"]}),
        lambda entry: entry["record"]["outputs"].update(out="0" * 64),
        lambda entry: entry["record"]["outputs"].pop("out"),
        lambda entry: entry["record"].update(outputs=5),
        lambda entry: entry["record"].update(figure=["x"]),
        lambda entry: entry["files"]["set"].update({"a/b": entry["files"]["out"][""]}),
        lambda entry: entry["files"]["set"].update({"a\0b": entry["files"]["out"][""]}),
    ],
)
def test_an_entry_that_says_something_else_is_not_believed(trees: list[Tree], change) -> None:
    _, two = trees
    edited(trees, change)
    two.run()
    assert two.runs == 1


def test_no_flipped_bit_of_an_entry_goes_unseen(trees: list[Tree]) -> None:
    (entry,) = entries(trees[0].cache)
    key = Record.load(trees[0].folder / "logs/stage.key").key
    whole, cache = entry.read_bytes(), Cache(trees[0].cache, 10**9)
    assert cache.find(key) is not None
    for place in range(0, len(whole), 3):
        entry.write_bytes(
            whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :]
        )
        assert cache.find(key) is None, whole[place - 20 : place + 20]
    for end in range(0, len(whole), 7):
        entry.write_bytes(whole[:end])
        assert cache.find(key) is None, end
    entry.write_bytes(b"[" * 100_000)
    assert cache.find(key) is None


@pytest.mark.parametrize("what", [entries, blobs])
def test_what_is_no_file_is_not_waited_for(trees: list[Tree], what) -> None:
    for number, path in enumerate(what(trees[0].cache)):
        path.unlink()
        if number:
            path.symlink_to("/dev/zero")
        else:
            os.mkfifo(path)
    trees[1].run()
    assert trees[1].runs == 1


def test_cache_0_neither_takes_nor_keeps(trees: list[Tree]) -> None:
    _, two = trees
    (two.folder / "in").write_text("other")
    before = entries(two.cache)
    two.run(CACHE="0")
    (two.folder / "in").write_text("input")
    two.run(CACHE="0")
    assert two.runs == 2
    assert entries(two.cache) == before


def test_a_cache_that_can_only_be_read_is_read(trees: list[Tree]) -> None:
    one, two = trees
    everything = [one.cache, *one.cache.rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    two.run(under=BOUND)
    assert two.runs == 0
    (two.folder / "in").write_text("another")
    said = two.run("--verbose", under=BOUND)
    assert two.runs == 1
    assert re.search(r"not kept in the cache: .*: Permission denied", said)
    assert sorted([one.cache, *one.cache.rglob("*")]) == sorted(everything)
    for path in everything:
        path.chmod(0o755)


def test_a_cache_that_can_not_be_made_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    tree = Tree(tmp_path / "tree", tmp_path / "file" / "cache")
    assert "the figure" in tree.run()


@pytest.mark.slow
def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "tree", tmp_path / "cache")
    text = {number: str(number) * 10_000 for number in range(6)}
    for number in range(6):
        (tree.folder / "in").write_text(text[number])
        # Files of one moment would be told apart by their names.
        tree.run(CACHE_MAX="60K")
        time.sleep(0.01)
        if number > 0:
            (tree.folder / "in").write_text(text[0])
            tree.run(CACHE_MAX="60K")
            time.sleep(0.01)
    total = sum(path.stat().st_size for path in [*blobs(tree.cache), *entries(tree.cache)])
    assert total <= 60_000
    assert tree.runs == 6, "the first one was used all the time"
    (tree.folder / "in").write_text(text[1])
    tree.run(CACHE_MAX="60K")
    assert tree.runs == 7, "the second one was not"


def test_a_result_larger_than_the_cache_empties_nothing(trees: list[Tree]) -> None:
    one, two = trees
    before = blobs(one.cache)
    (one.folder / "in").write_text("x" * 30_000)
    one.run(CACHE_MAX="20K")
    assert blobs(one.cache) == before
    two.run()
    assert two.runs == 0


@pytest.mark.parametrize("text", ["", "5", "5G", "5GB", "0.5g", "200M"])
def test_amounts_are_written_so(text: str) -> None:
    if text:
        assert byte_count("CACHE_MAX", text) > 0
    else:
        with pytest.raises(BadInput, match="CACHE_MAX=: an amount of bytes"):
            byte_count("CACHE_MAX", text)


@pytest.mark.parametrize("text", ["five", "5X", "G", "inf", "1e400", "-"])
def test_what_is_no_amount_is_one_line(text: str) -> None:
    with pytest.raises(BadInput, match=f"CACHE_MAX={text}: an amount of bytes is wanted"):
        byte_count("CACHE_MAX", text)


def record(number: int, content: bytes = b"x") -> Record:
    made = {"out": hashlib.sha256(content).hexdigest()}
    return Record(Key("downgrade", [str(number)], {}, {}), made, "figure")


@pytest.mark.slow
def test_many_processes_at_once(tmp_path: Path) -> None:
    """They keep and take the same few results in a cache that is too small for all of them."""
    program = f"""
import hashlib, random, sys
sys.path.insert(0, {str(ROOT / "scripts")!r})
from pathlib import Path
from tpumake.cache import Cache, Damaged
from tpumake.keys import Key, Record
cache, here = Cache(Path("cache"), 300_000), Path(sys.argv[1])
here.mkdir()
draw = random.Random(sys.argv[1])
taken = 0
for _ in range(150):
    number = draw.randrange(8)
    content = bytes([number]) * 50_000
    made = {{"out": hashlib.sha256(content).hexdigest()}}
    record = Record(Key("downgrade", [str(number)], {{}}, {{}}), made, "figure")
    entry = cache.find(record.key)
    if entry:
        try:
            cache.take(entry, here)
        except Damaged:
            continue
        assert (here / "out").read_bytes() == content
        taken += 1
    else:
        (here / "out").write_bytes(content)
        cache.put(record, [here / "out"], "log")
assert taken > 20, taken
"""
    with ThreadPoolExecutor(4) as pool:
        done = list(
            pool.map(
                lambda name: subprocess.run(
                    [sys.executable, "-S", "-c", program, name], cwd=tmp_path, text=True,
                    capture_output=True, check=False,
                ),
                "abcd",
            )
        )  # fmt: skip
    assert [(one.returncode, one.stderr) for one in done] == [(0, "")] * 4
    cache = tmp_path / "cache"
    assert all(sha256(path) == path.name for path in blobs(cache))
    total = sum(path.stat().st_size for path in [*blobs(cache), *entries(cache)])
    assert total <= 300_000
    assert not list(cache.glob("tmp-*"))


def test_a_killed_writers_leftovers_go(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 10**6)
    (tmp_path / "cache/tmp-killed").mkdir(parents=True)
    (tmp_path / "out").write_text("x")
    cache.put(record(1), [tmp_path / "out"], "")
    assert not list((tmp_path / "cache").glob("tmp-*"))


def test_a_file_that_goes_between_finding_and_taking(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 10**6)
    (tmp_path / "out").write_text("x")
    cache.put(record(1), [tmp_path / "out"], "")
    entry = cache.find(record(1).key)
    shutil.rmtree(tmp_path / "cache/cas")
    with pytest.raises(Damaged):
        cache.take(entry, tmp_path)
    assert cache.find(record(1).key) is None


@pytest.mark.toolchain
@pytest.mark.slow
def test_a_fresh_clone_takes_all_stages_without_any_environment(
    quick: Checkout, tmp_path: Path, record_property
) -> None:
    """Nor is one made: what is in the cache needs none."""
    assert "cached" not in quick.path.with_name("said").read_text()
    environment = {"CACHE": "1", "CACHE_DIR": str(quick.path.with_name("cache"))}
    fresh = copy_project(tmp_path / "fresh")
    (fresh.path / ".venv").unlink()
    (fresh.path / ".toolchain").unlink()
    started = time.perf_counter()
    said = fresh.make("tiny", *QUICK, f"PYTHON={sys.executable}", **environment).stdout
    seconds = time.perf_counter() - started
    assert said.count("cached") == 6
    assert not (fresh.path / ".venv").exists()
    assert not (fresh.path / ".toolchain").exists()
    # 2 s on an idle machine; the bound leaves room for a busy one.
    assert seconds < 5
    record_property(
        "figure", f"fresh checkout of tiny, two variants, from the cache: {seconds:.2f} s"
    )
    there, made = (
        {
            path.relative_to(one.path): path.read_bytes()
            for path in (one.path / "build/tiny").rglob("*")
            if path.is_file()
        }
        for one in (quick, fresh)
    )
    # Reference outputs are left out; they are made again where they are needed.
    assert there.keys() - made.keys() == {Path("build/tiny/tiny_top_outputs.npz")}
    for name in made:
        one, other = there[name], made[name]
        if name.suffix == ".key":
            # Records tell where results came from.
            one, other = (json.loads(text) | {"cached": True} for text in (one, other))
        assert one == other, name


@pytest.mark.toolchain
@pytest.mark.slow
def test_a_stage_that_needs_reference_outputs_makes_them_again(
    built: Checkout, tmp_path: Path
) -> None:
    """A model that is compared with them comes out the same as with those of transform."""
    copy = copy_checkout(built, tmp_path / "copy")
    model = copy.path / "build/tiny/cv181x/tiny_int8.cvimodel"
    log = copy.path / "build/tiny/cv181x/logs/int8.log"
    before = model.read_bytes(), log.read_text()
    reference = copy.path / "build/tiny/tiny_top_outputs.npz"
    reference.write_bytes(reference.read_bytes() + b"edited")
    model.unlink()
    said = copy.make("tiny_int8").stdout
    assert "emulator ok" in said
    assert "model_runner.py --input tiny_test.npz" in log.read_text()
    assert "model_runner.py --input tiny_test.npz" not in before[1]
    assert model.read_bytes() == before[0]
    compared = [
        [line for line in text.splitlines() if " compared, " in line]
        for text in (before[1], log.read_text())
    ]
    assert compared[0] == compared[1]
    assert len(compared[0]) == 2
