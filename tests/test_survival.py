"""What a build survives, with the real tools: kills, signals, full disks, company, read-only trees.

After each of them `make` goes on, ends in the bytes of an undisturbed build, and leaves nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import no_personality
import pytest
from conftest import QUICK, Checkout, copy_checkout
from test_reproducible import results

pytestmark = [pytest.mark.toolchain, pytest.mark.slow]

# Each stage's record and what Make asks it for, below build/.
STAGES = {
    "downgrade": ("tiny/logs/downgrade.key", "tiny/tiny_v8.onnx"),
    "dataset": ("datasets/logs/shapes-10.key", "datasets/shapes-10/manifest.json"),
    "transform": ("tiny/logs/transform.key", "tiny/tiny.mlir"),
    "calibrate": ("tiny/logs/calibrate.key", "tiny/tiny_calib_table"),
    "int8": ("tiny/cv181x/logs/int8.key", "tiny/cv181x/tiny_int8.cvimodel"),
    "bf16": ("tiny/cv181x/logs/bf16.key", "tiny/cv181x/tiny_bf16.cvimodel"),
}
# All of them by name: Make would not look for what only others need.
GOALS = [
    *(f"build/{place}" for _, place in STAGES.values()),
    *(f"build/tiny/cv181x/tiny_{variant}.json" for variant in ("int8", "bf16")),
]
MARK = "TPUMAKE_TEST_MARK"


@pytest.fixture(scope="module")
def undisturbed(quick: Checkout) -> Checkout:
    """Both variants of tiny, built in peace."""
    return quick


@pytest.fixture
def built(undisturbed: Checkout, tmp_path: Path) -> Checkout:
    """A copy of it, of the test's own."""
    return copy_checkout(undisturbed, tmp_path / "check out")


def ran(output: str) -> list[str]:
    """The stages that really ran, by their lines with seconds."""
    return sorted(
        line.split()[1] for line in output.splitlines() if re.search(r" \d+\.\d s$", line)
    )


def everything(folder: Path) -> set[str]:
    """All that is below a folder, but for Make's notes of when it looked at which code."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    return {name for name in found if not name.startswith(".code")}


def forget(checkout: Checkout, *stages: str) -> None:
    for stage in stages:
        for place in STAGES[stage]:
            (checkout.path / "build" / place).unlink(missing_ok=True)


# ---------------------------------------------------------------------------------------------
# Processes


class Run:
    """A make that runs, with all that it has started."""

    def __init__(self, checkout: Checkout, *arguments: str, **environment: str) -> None:
        self.mark = uuid.uuid4().hex
        self.output = checkout.path / f"output-{self.mark}"
        env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
        env |= {"CACHE": "0", MARK: self.mark} | environment
        with self.output.open("w") as output:
            self.make = subprocess.Popen(
                ["make", *arguments], cwd=checkout.path, env=env, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self.output.read_text()

    def processes(self) -> dict[int, str]:
        """Every process that comes from this make, wherever it went, by its command line."""
        wanted = f"{MARK}={self.mark}".encode()
        found = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    if wanted in (folder / "environ").read_bytes().split(b"\0"):
                        command = (folder / "cmdline").read_bytes().decode(errors="replace")
                        found[int(folder.name)] = command.replace("\0", " ")
                except OSError:
                    continue
        return found

    def tools(self) -> list[str]:
        """The command lines of what runs below the runner."""
        commands = self.processes().values()
        return [each for each in commands if "run_stage.py" not in each and "make " not in each]

    def runners(self) -> list[int]:
        """Those that Make has started; each has a child of the same name that guards the tool."""
        found = self.processes()
        runners = [pid for pid, command in found.items() if "run_stage.py" in command]
        return [pid for pid in runners if parent(pid) not in runners]

    def wait_for(self, there: Callable[[list[str]], object]) -> None:
        deadline = time.monotonic() + 60
        while not there(self.tools()):
            assert self.make.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.002)

    def assert_gone(self) -> None:
        """No process is left; one that tidies up takes a moment to go, on a busy machine more."""
        deadline = time.monotonic() + 20
        while self.processes():
            assert time.monotonic() < deadline, self.processes()
            time.sleep(0.01)

    def wait(self) -> int:
        code = self.make.wait(120)
        assert "Traceback" not in self.said
        return code


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


# ---------------------------------------------------------------------------------------------
# Kills


def kill(run: Run, whom: str) -> None:
    """Kill what may have ended by itself."""
    with suppress(ProcessLookupError):
        if whom == "group":
            os.killpg(run.make.pid, signal.SIGKILL)
        elif whom == "make":
            run.make.kill()
        else:
            for pid in run.runners():
                os.kill(pid, signal.SIGKILL)


def drop_from_cache(cache: Path, record: Path) -> None:
    """Remove what the cache knows of a stage, with the files that it made."""
    digest = json.loads(record.read_text())["digest"]
    entry = cache / "ac" / digest[:2] / digest
    if entry.exists():
        for files in json.loads(entry.read_text())["files"].values():
            for content in files.values():
                (cache / "cas" / content[:2] / content).unlink(missing_ok=True)
        entry.unlink()


def assert_valid(cache: Path) -> None:
    """Every file is what its name says, every entry has its files, and nothing else is there."""
    contents = set()
    for path in cache.glob("cas/??/*"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
        contents.add(path.name)
    for path in cache.glob("ac/??/*"):
        entry = json.loads(path.read_text())
        assert entry["record"]["digest"] == path.name
        assert {each for files in entry["files"].values() for each in files.values()} <= contents
    others = {path.name for path in cache.iterdir()} - {"ac", "cas", "size", "lock"}
    # What was killed last may have left one, which the next goes over.
    assert len(others) <= 1, others


@pytest.mark.parametrize(
    ("seed", "count"), [(1, 8), pytest.param(2, 170, marks=pytest.mark.full)], ids=["8", "170"]
)
def test_killed_at_any_moment(
    undisturbed: Checkout, built: Checkout, tmp_path: Path, seed: int, count: int
) -> None:
    """Make and all, only the runner, or only Make; in each stage, with and without the cache.

    A stage is forgotten, and what runs it again is killed while it does.
    """
    moments = random.Random(seed)
    wanted, places = results(undisturbed), everything(undisturbed.path / "build")
    seconds = {
        line.split()[1]: float(line.split()[-2])
        for line in undisturbed.path.with_name("said").read_text().splitlines()
        if line.endswith(" s")
    }
    # One stage, the quick ones more often; or variants side by side; and once all of them.
    deploy = ["int8", "bf16"]
    turns = [["downgrade"], ["dataset"], ["transform"], deploy, ["calibrate"],
             ["downgrade"], ["dataset"], ["transform"], deploy, ["transform"]]  # fmt: skip
    cache = tmp_path / "cache"
    in_time = 0
    for number in range(count):
        stages = list(STAGES) if number % 30 == 29 else turns[number % len(turns)]
        caching = {"CACHE": "1", "CACHE_DIR": str(cache)} if number % 2 else {}
        for stage in stages if caching else []:
            drop_from_cache(cache, built.path / "build" / STAGES[stage][0])
        forget(built, *stages)
        run = Run(built, "-j2", *QUICK, *GOALS, **caching)
        moment = moments.uniform(0, 0.3 + sum(seconds[stage] for stage in stages))
        time.sleep(moment)
        in_time += run.make.poll() is None
        whom = ("group", "runner", "make")[number % 3]
        kill(run, whom)
        what = f"{whom} after {moment:.2f} s of {'+'.join(stages)}"
        run.wait()
        run.assert_gone()
        done = built.make("-j2", *QUICK, *GOALS, **caching)
        assert results(built) == wanted, what
        # Where nothing had to run again nobody tidied up, either.
        if ran(done.stdout):
            assert everything(built.path / "build") == places, what
    assert in_time > count / 2
    forget(built, *STAGES)
    built.make("-j2", *QUICK, *GOALS)
    assert results(built) == wanted
    assert everything(built.path / "build") == places
    assert_valid(cache)


# ---------------------------------------------------------------------------------------------
# Signals

# What to wait for: the tool itself, and where it has children one of those.
TOOLS = {
    "downgrade": "onnx_downgrade.py",
    "dataset": "normalize_dataset.py",
    "transform": "tpuc-opt",
    "calibrate": "calibrate.py",
    "int8": "tpuc-opt",
}


@pytest.mark.parametrize("stage", TOOLS)
def test_a_signal_leaves_no_process_and_make_goes_on(
    undisturbed: Checkout, built: Checkout, stage: str
) -> None:
    forget(built, stage)
    for send, number in ((os.killpg, signal.SIGINT), (os.killpg, signal.SIGTERM),
                         (os.kill, signal.SIGTERM)):  # fmt: skip
        run = Run(built, *QUICK, *GOALS)
        run.wait_for(lambda tools: any(TOOLS[stage] in each for each in tools))
        send(run.make.pid, number)
        assert run.wait() != 0
        run.assert_gone()
        assert run.said.count("run_stage: interrupted") == 1
        left = everything(built.path / "build") - everything(undisturbed.path / "build")
        assert not left, (send, number)
    assert ran(built.make(*QUICK, *GOALS).stdout) == [stage]
    assert results(built) == results(undisturbed)


def test_sigint_to_make_alone_waits_for_the_stage(undisturbed: Checkout, built: Checkout) -> None:
    """That is GNU Make's way: a terminal would have sent it to the stage, too."""
    forget(built, "transform", "int8")
    run = Run(built, *QUICK, *GOALS)
    run.wait_for(lambda tools: any(TOOLS["transform"] in each for each in tools))
    run.make.send_signal(signal.SIGINT)
    assert run.wait() != 0
    run.assert_gone()
    assert ran(built.make(*QUICK, *GOALS).stdout) == ["int8"]
    assert results(built) == results(undisturbed)


def test_an_environment_that_is_being_made_ends_too(built: Checkout) -> None:
    """Set-up is started by a stage: it must not go on alone, and its stage must not hang."""
    makefile = built.path / "mk/setup.mk"
    rule = re.sub(
        r"(?m)^\$\(TOOLS\): .*\n.*$", "$(TOOLS): FORCE\n\tsleep 61 & sleep 61", makefile.read_text()
    )
    makefile.write_text(rule)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        forget(built, "transform")
        run = Run(built, *QUICK, *GOALS)
        run.wait_for(lambda tools: sum(each.startswith("sleep") for each in tools) == 2)
        os.killpg(run.make.pid, number)
        run.wait()
        run.assert_gone()


def test_a_kernel_that_keeps_randomising(undisturbed: Checkout, built: Checkout) -> None:
    """Loudly; and where the bytes don't matter, all the same."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}

    def make(*arguments: str) -> subprocess.CompletedProcess[str]:
        forget(built, "transform")
        return subprocess.run(
            ["make", *QUICK, *arguments, "build/tiny/tiny.mlir"], cwd=built.path,
            env=env | {"CACHE": "0"}, preexec_fn=no_personality.forbid,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = make()
    assert done.returncode == 2
    assert "start the container with --security-opt seccomp=unconfined" in done.stderr
    assert not (built.path / "build/tiny/tiny.mlir").exists()
    done = make("REPRODUCIBLE=0")
    assert done.returncode == 0, done.stderr
    assert ran(done.stdout) == ["transform"]
    # The bytes of another key, though these don't follow addresses.
    assert results(built) == results(undisturbed)


# ---------------------------------------------------------------------------------------------
# Company


def test_two_makes_at_once_do_the_work_once(undisturbed: Checkout, built: Checkout) -> None:
    shutil.rmtree(built.path / "build")
    runs = [Run(built, "-j2", *QUICK, "tiny") for _ in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    assert sorted(ran(runs[0].said) + ran(runs[1].said)) == sorted(STAGES)
    assert results(built) == results(undisturbed)
    assert everything(built.path / "build") == everything(undisturbed.path / "build")


def test_one_build_folder_by_two_names(undisturbed: Checkout, built: Checkout) -> None:
    forget(built, "transform")
    build = built.path / "build"
    # Make takes no spaces in an absolute name.
    named = built.path.parent / "link"
    named.symlink_to(build)
    runs = [Run(built, *QUICK, f"{folder}/tiny/tiny.mlir", f"BUILD={folder}")
            for folder in ("build", named)]  # fmt: skip
    assert [run.wait() for run in runs] == [0, 0]
    assert ran(runs[0].said) + ran(runs[1].said) == ["transform"]
    assert results(built) == results(undisturbed)


def test_two_build_folders_share_a_cold_cache(
    undisturbed: Checkout, built: Checkout, tmp_path: Path
) -> None:
    shutil.rmtree(built.path / "build")
    other = copy_checkout(built, tmp_path / "other")
    caching = {"CACHE": "1", "CACHE_DIR": str(tmp_path / "cache")}
    runs = [Run(checkout, *QUICK, "tiny_bf16", **caching) for checkout in (built, other)]
    assert [run.wait() for run in runs] == [0, 0]
    for checkout in (built, other):
        # One that took the network from the cache has no reference outputs.
        assert len(results(checkout)) >= 6
        assert results(checkout).items() <= results(undisturbed).items()
    assert_valid(tmp_path / "cache")


# ---------------------------------------------------------------------------------------------
# Side by side


VARIANTS = {"one": "int8 bf16", "two": "bf16"}


@pytest.fixture
def several(built: Checkout) -> Checkout:
    """Two models that are tiny by other names."""
    stanzas = [
        f"{name}_ONNX = models/tiny.onnx\n"
        f"{name}_INPUT_SHAPES = [[1,3,64,64]]\n"
        f"{name}_SCALE = 0.0039216,0.0039216,0.0039216\n"
        f"{name}_PIXEL_FORMAT = rgb\n"
        f"{name}_DATASET = datasets/shapes\n"
        f"{name}_INPUT_NUM = 10\n"
        f"{name}_TUNE_NUM = 0\n"
        f"{name}_OPT = 1\n"
        f"{name}_VARIANTS = {variants}\n"
        f"$(eval $(call model,{name}))\n"
        for name, variants in VARIANTS.items()
    ]
    (built.path / "models.mk").write_text("\n".join(stanzas))
    shutil.rmtree(built.path / "build")
    return built


def most_at_once(run: Run) -> int:
    """Wait for a make's end, and tell how many stages had tools running at once, at the most."""
    most = 0
    while run.make.poll() is None:
        folders = set()
        for pid in run.processes():
            try:
                folders.add(Path(f"/proc/{pid}/cwd").readlink())
            except OSError:
                continue
        most = max(most, sum(folder.parent.name == ".work" for folder in folders))
        time.sleep(0.02)
    return most


def test_eight_jobs_give_the_bytes_of_one(several: Checkout) -> None:
    several.make("-j1", "all", "VALIDATE=0")
    wanted = results(several)
    assert sum(name.endswith(".cvimodel") for name in wanted) == 3
    (several.path / "build").rename(several.path / "alone")
    run = Run(several, "-j8", "all", "VALIDATE=0", MEMORY="100G")
    assert most_at_once(run) > 1
    assert run.wait() == 0, run.said
    assert results(several) == wanted


def test_memory_bounds_what_runs_at_once(several: Checkout) -> None:
    models = [f"build/{name}/{name}.mlir" for name in VARIANTS]
    run = Run(several, "-j8", *models, "VALIDATE=0", MEMORY="200M")
    assert most_at_once(run) == 1
    assert run.wait() == 0, run.said
    assert ran(run.said).count("transform") == 2


# ---------------------------------------------------------------------------------------------
# Full disks and read-only trees


class Mounts:
    """A mount namespace: what is mounted in it nobody else sees, and it goes with its process."""

    def __init__(self) -> None:
        for kind in (["--mount"], ["--user", "--map-root-user", "--mount"]):
            self.process = subprocess.Popen(
                ["unshare", *kind, "sh", "-c", "echo ready; exec cat"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            if self.process.stdout.readline():
                break
            self.close()
        else:
            pytest.fail(
                "neither root nor a user may mount here, and full disks and read-only trees can't "
                "be had otherwise; in a container: --privileged"
            )
        rights = ["--preserve-credentials"] if "--user" in kind else []
        kinds = [each for each in kind if each != "--map-root-user"]
        self.enter = ["nsenter", f"--target={self.process.pid}", *kinds, *rights]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def run(
        self, cwd: Path, *command: str | Path, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
        env |= {"CACHE": "0"} | environment
        return subprocess.run(
            [*self.enter, "env", f"--chdir={cwd}", *command],
            env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def mount(self, *arguments: str | Path) -> None:
        done = self.run(Path("/"), "mount", *arguments)
        assert done.returncode == 0, done.stderr

    def seen(self, path: Path) -> Path:
        """How a path in it is read from outside."""
        return Path(f"/proc/{self.process.pid}/root{path}")


@pytest.fixture
def mounts() -> Iterator[Mounts]:
    mounts = Mounts()
    yield mounts
    mounts.close()


class Disk:
    """A small disk, mounted as a checkout's build folder."""

    def __init__(self, mounts: Mounts, checkout: Checkout) -> None:
        self.mounts, self.checkout = mounts, checkout
        self.folder = checkout.path / "build"
        self.folder.mkdir()
        mounts.mount("-t", "tmpfs", "-o", "size=100m", "none", self.folder)

    def fill(self, source: Path) -> None:
        done = self.mounts.run(Path("/"), "cp", "-a", f"{source}/.", self.folder)
        assert done.returncode == 0, done.stderr

    def forget(self, *stages: str) -> None:
        forget(Checkout(self.mounts.seen(self.checkout.path)), *stages)

    def leave(self, room: int | None) -> None:
        """Make it so small that there are that many kB of room; None for enough of it."""
        if room is None:
            size = 100_000
        else:
            stat = os.statvfs(self.mounts.seen(self.folder))
            size = (stat.f_blocks - stat.f_bfree) * stat.f_frsize // 1024 + room
        self.mounts.mount("-o", f"remount,size={size}k", self.folder)

    def make(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.mounts.run(self.checkout.path, "make", *arguments, *QUICK, **environment)

    def results(self) -> dict[str, str]:
        return results(Checkout(self.mounts.seen(self.checkout.path)))

    def everything(self) -> set[str]:
        return everything(self.mounts.seen(self.folder))


@pytest.fixture
def disk(mounts: Mounts, built: Checkout) -> Disk:
    shutil.rmtree(built.path / "build")
    return Disk(mounts, built)


def assert_told(done: subprocess.CompletedProcess[str], place: str) -> None:
    """One line that names the place, and Make's own."""
    assert done.returncode == 2, done.stdout + done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith("make: ")]
    assert len(said) == 1, done.stderr
    assert re.search(rf"\b{place}(/\S*)?: No space left on device", said[0]), said


@pytest.mark.parametrize(
    ("stage", "rooms"),
    [
        ("downgrade", (0, 40)),
        ("dataset", (0, 40)),
        ("transform", (0, 300, 580, 640)),
        ("calibrate", (0, 8)),
        ("int8", (0, 150, 300, 600)),
    ],
)
def test_a_full_disk_is_one_line_and_room_mends_it(
    undisturbed: Checkout, disk: Disk, stage: str, rooms: tuple[int, ...]
) -> None:
    disk.fill(undisturbed.path / "build")
    for room in rooms:
        disk.forget(stage)
        disk.leave(room)
        assert_told(disk.make(*GOALS), "build")
    disk.leave(None)
    done = disk.make(*GOALS)
    assert done.returncode == 0, done.stderr
    assert stage in ran(done.stdout)
    assert disk.results() == results(undisturbed)
    assert disk.everything() == everything(undisturbed.path / "build")


def test_a_disk_that_is_full_from_the_start(undisturbed: Checkout, disk: Disk) -> None:
    for room in (4, 8, 16, 24, 40):
        disk.leave(room)
        assert_told(disk.make(*GOALS), "build")
    disk.leave(None)
    assert disk.make(*GOALS).returncode == 0
    assert disk.results() == results(undisturbed)
    assert disk.everything() == everything(undisturbed.path / "build")


def test_a_cache_on_a_full_disk_fails_no_build(
    undisturbed: Checkout, mounts: Mounts, built: Checkout, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    mounts.mount("-t", "tmpfs", "-o", "size=400k", "none", cache)
    caching = {"CACHE": "1", "CACHE_DIR": str(cache)}

    def make() -> list[str]:
        forget(built, "downgrade", "dataset", "transform", "bf16")
        done = mounts.run(built.path, "make", *QUICK, *GOALS, **caching)
        assert (done.returncode, done.stderr) == (0, "")
        assert results(built).items() <= results(undisturbed).items()
        assert_valid(mounts.seen(cache))
        return ran(done.stdout)

    assert make() == ["bf16", "dataset", "downgrade", "transform"]
    mounts.mount("-o", "remount,size=100m", cache)
    # What found room is there, the rest, of which the network is most, is put there now.
    assert {"bf16", "transform"} <= set(make()) < {"bf16", "dataset", "downgrade", "transform"}
    assert make() == []


def test_a_source_tree_that_can_only_be_read(
    undisturbed: Checkout, mounts: Mounts, built: Checkout, tmp_path: Path
) -> None:
    shutil.rmtree(built.path / "build")
    build = tmp_path / "elsewhere"
    mounts.mount("--bind", built.path, built.path)
    mounts.mount("-o", "remount,ro,bind", built.path)
    done = mounts.run(built.path, "make", "tiny_bf16", *QUICK, f"BUILD={build}")
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    build.rename(tmp_path / "build")
    found = results(Checkout(tmp_path))
    assert "tiny/cv181x/tiny_bf16.cvimodel" in found
    assert found.items() <= results(undisturbed).items()
    done = mounts.run(built.path, "touch", "x")
    assert "Read-only file system" in done.stderr
