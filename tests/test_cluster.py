"""RUN: heavy stages through a launcher: odd ones, ones that die, and a real Slurm."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, Checkout, helper
from slurm_cluster import Slurm
from test_run_stage import Runner

from tpumake import worker
from tpumake.errand import Errand
from tpumake.files import try_lock


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make hands its own on, and then nothing would run here."""
    monkeypatch.setenv("CACHE", "0")


class Sender(Runner):
    """Stages that a launcher, a script of the test's own, runs."""

    def launcher(self, script: str) -> dict[str, object]:
        path = self.folder / "launch"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return {"env": os.environ | {"RUN": f"./launch {shlex.quote('two words')}"}}

    def send(self, script: str, launcher: str, *options: str) -> subprocess.CompletedProcess[str]:
        return self.run(script, "--out", "out", *options, **self.launcher(f"shift; {launcher}"))


@pytest.fixture
def sender(tmp_path: Path) -> Sender:
    folder = tmp_path / "a b ü"
    folder.mkdir()
    return Sender(folder)


def alive(seconds: str) -> bool:
    """Whether a `sleep` of so many seconds runs."""
    pattern = f"sleep {seconds[:-1]}[{seconds[-1]}]"
    return bool(subprocess.run(["pgrep", "-f", pattern], capture_output=True, check=False).stdout)


def ends(seconds: str) -> bool:
    deadline = time.monotonic() + 10
    while alive(seconds) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(seconds)


GOOD = {
    "at once": 'exec "$@"',
    "in a session of its own": 'exec setsid --wait "$@"',
    "with nothing of the environment": 'exec env -i "$@"',
    "in one word for a shell": 'exec sh -c "$*"',
    "without its output": '"$@" > /dev/null 2>&1',
    "with its own output": 'echo noise; echo "RuntimeError: mine" >&2; exec "$@"',
    "with another exit code": '"$@"; exit 9',
}


@pytest.mark.parametrize("launcher", GOOD.values(), ids=GOOD)
def test_a_launcher_has_to_start_a_command_and_wait_and_nothing_else(
    sender: Sender, launcher: str
) -> None:
    script = 'echo "$THE_WORD, $PPID" > out; echo "the figure: $THE_WORD"'
    done = sender.send(script, launcher, "--env", "THE_WORD=größer als 1")
    assert done.returncode == 0, done.stderr
    assert (sender.folder / "out").read_text().startswith("größer als 1, ")
    assert "the figure: größer als 1" in done.stdout
    # The tool's, whole, and nobody else's.
    log = sender.log.read_text()
    assert log.startswith("$ /bin/sh -c ")
    assert log.endswith("\nthe figure: größer als 1\n")
    assert not sender.leftovers()


def test_one_that_starts_it_in_another_folder_does_where_paths_are_plain(tmp_path: Path) -> None:
    if not str(ROOT).isascii() or " " in str(ROOT):
        pytest.fail("this checkout's own path is not plain")
    sender = Sender(tmp_path)
    done = sender.send("pwd > out; echo ok", 'cd / && exec sh -c "$*"')
    assert done.returncode == 0, done.stderr
    assert "/build/.work/stage-" in (tmp_path / "out").read_text()


@pytest.mark.slow
def test_one_that_goes_on_after_the_end_is_ended(sender: Sender) -> None:
    """As srun does when the scheduler is gone by then."""
    settings = sender.launcher('shift; "$@"; exec sleep 91.35')
    command = sender.command("echo > out; echo ok", "--out", "out")
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "from tpumake import launcher, runner\n"
        "launcher.LINGER = 0.5\nrunner.run_guarded(runner.main)"
    )
    command[2:3] = ["-c", program, str(ROOT / "scripts")]
    done = subprocess.run(
        command, cwd=sender.folder, capture_output=True, text=True, check=False, timeout=30,
        **settings,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (sender.folder / "out").exists()
    assert ends("91.35")


# The errand's folder is the last word; there the worker says that it has begun.
BEGUN = 'for last; do :; done; "$@" & until [ -s "$last/place" ]; do sleep 0.02; done; '
BAD = {
    "dies": ("exit 3", "before the stage began, exit code 3", "wait for its end"),
    "says why": (
        "echo 'launch: submitting'; echo 'launch: error: no such partition' >&2; exit 1",
        "before the stage began, exit code 1: launch: error: no such partition",
        "wait for its end",
    ),
    "starts nothing": ("exit 0", "before the stage began, exit code 0", "wait for its end"),
    "does not wait": (
        BEGUN.replace('"$@"', 'setsid "$@"') + "exit 0",
        "ended the stage on {host}, exit code 0",
        "goes on where it was",
    ),
    "runs out of time": (
        BEGUN + "kill $!; wait; exit 124",
        "ended the stage on {host}, exit code 124",
        "goes on where it was",
    ),
    "runs out of memory": (
        BEGUN + "kill -9 $!; wait; exit 137",
        "ended the stage on {host}, exit code 137",
        "ask for more in RUN",
    ),
    "is cancelled": (
        BEGUN + "kill $!; wait; echo 'x: error: a' >&2; echo '*** STEP 3 CANCELLED ***' >&2",
        "ended the stage on {host}, exit code 0: *** STEP 3 CANCELLED ***",
        "goes on where it was",
    ),
    "is killed": (BEGUN + "kill -9 $!; kill -9 $$", "signal 9", "ask for more in RUN"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "cause", "remedy"), BAD.values(), ids=BAD)
def test_one_that_ends_before_the_stage_is_told_of_and_nothing_is_left(
    sender: Sender, launcher: str, cause: str, remedy: str
) -> None:
    done = sender.send("echo half > out; sleep 61.35; echo ok", launcher)
    assert done.returncode == 1
    first, *others = done.stderr.splitlines()
    assert first.startswith("m        downgrade    RUN's launcher ")
    assert cause.format(host=worker.here()) in first
    assert remedy in others[0]
    assert "bugreport" not in done.stderr
    assert ends("61.35")
    assert not (sender.folder / "out").exists()
    assert not (sender.folder / "logs/stage.key").exists()
    assert not sender.leftovers()


@pytest.mark.parametrize(
    ("value", "words"),
    [("no-such-launcher -n1", "there is no program no-such-launcher here"),
     ("srun '--comment=x", "no closing quotation")],
)  # fmt: skip
def test_what_cannot_be_a_launcher_is_one_line(sender: Sender, value: str, words: str) -> None:
    done = sender.run("echo > out", "--out", "out", env=os.environ | {"RUN": value})
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("launcher", ['"$@"', 'trap "" TERM; setsid --wait "$@"'])
def test_what_runs_elsewhere_ends_with_the_runner(
    sender: Sender, number: int, launcher: str
) -> None:
    """Also where the launcher hands no signal on."""
    settings = sender.launcher(f"shift; {launcher}")
    process = sender.start("echo started; sleep 71.35", "--out", "out", **settings)
    process.send_signal(number)
    process.communicate(timeout=15)
    assert ends("71.35")
    assert sender.run("echo > out; echo ok", "--out", "out").returncode == 0
    assert not sender.leftovers()


@pytest.mark.slow
def test_a_tool_that_fails_or_is_killed_there_is_told_as_here(sender: Sender) -> None:
    done = sender.send("echo half > out; echo 'RuntimeError: it broke' >&2; exit 1", 'exec "$@"')
    assert done.returncode == 1
    assert "RuntimeError: it broke" in done.stderr
    done = sender.send("kill -9 $$", 'exec "$@"')
    assert f"the tool was killed on {worker.here()}, most likely" in done.stderr
    assert not (sender.folder / "out").exists()


@pytest.mark.slow
def test_it_is_no_part_of_the_key_and_counts_in_the_record(sender: Sender) -> None:
    script = "sleep 0.3; echo > out; echo ok"
    assert sender.send(script, 'sleep 1; exec "$@"').returncode == 0
    record = json.loads((sender.folder / "logs/stage.key").read_text())
    # What the tool took, without the queue.
    assert 0.3 <= record["seconds"] < 1
    assert record["peak"] > 10**5
    again = sender.run(script, "--out", "out", "--why")
    assert "does not run: nothing changed" in again.stdout


def test_light_stages_stay_here(sender: Sender) -> None:
    settings = sender.launcher("exit 3")
    done = sender.run("echo > out; echo ok", "--out", "out", stage="contract", **settings)
    assert done.returncode == 0, done.stderr


def test_what_runs_elsewhere_takes_no_memory_here(sender: Sender) -> None:
    place = sender.folder / "build/.work/memory"
    place.mkdir(parents=True)
    handle = try_lock(place / f"{10**15}-1")
    try:
        assert sender.send("echo > out; echo ok", 'exec "$@"').returncode == 0
    finally:
        os.close(handle)


def test_a_launcher_that_is_a_script_knows_what_to_ask_for(sender: Sender) -> None:
    asked = 'echo "$TPUMAKE_STAGE $TPUMAKE_MEMORY" > asked; exec "$@"'
    assert sender.send("echo > out; echo ok", asked).returncode == 0
    assert (sender.folder / "asked").read_text() == "m.stage 100000000\n"


def test_a_worker_with_another_c_library_runs_nothing(tmp_path: Path) -> None:
    errand = Errand(tmp_path)
    errand.write([["touch", str(tmp_path / "ran")]], tmp_path, {}, False, "glibc 1.9")
    assert helper("run_on_worker", tmp_path).returncode == 1
    ended = errand.ended()
    assert ended is not None
    assert "that of the machine on which make runs glibc 1.9" in ended.refused
    assert not (tmp_path / "ran").exists()


# ---------------------------------------------------------------------------------------------
# The launchers that docs/scale.md shows, with stand-ins for what they call

DOCUMENT = (ROOT / "docs/scale.md").read_text()
KUBECTL = """\
#!/bin/sh
echo "$*" | head -n 1 >> calls
[ "$1" = run ] || exit 0
for word; do
  case $word in --overrides=*) printf %s "${word#--overrides=}" > overrides ;; esac
done
while [ "$1" != -- ]; do shift; done
shift
cd / && exec env -i "$@"
"""
AWS = """\
#!/bin/sh
echo "$2" >> calls
case $2 in
  submit-job)
    while [ "$1" != --container-overrides ]; do shift; done
    printf %s "$2" > overrides
    python3 -c 'import json, subprocess, sys
done = subprocess.run(json.load(open("overrides"))["command"], stdout=sys.stderr)
open("state", "w").write("FAILED lost" if done.returncode else "SUCCEEDED")'
    echo job-1 ;;
  describe-jobs) cat state ;;
esac
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "program", "stand_in"),
    [("on-kubernetes", "kubectl", KUBECTL), ("on-batch", "aws", AWS)],
)
def test_the_launchers_of_the_document(
    tmp_path: Path, name: str, program: str, stand_in: str
) -> None:
    sender = Sender(tmp_path)
    (script,) = re.findall(rf"```sh\n(#![^\n]*\n# {name}: .*?)```", DOCUMENT, re.S)
    for path, text in (("launch", script), (f"bin/{program}", stand_in)):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
        (tmp_path / path).chmod(0o755)
    env = os.environ | {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "RUN": "./launch", "IMAGE": "image",
        "CLAIM": "claim", "QUEUE": "queue", "DEFINITION": "definition", "EVERY": "0.1",
    }  # fmt: skip
    done = sender.run("echo > out; echo ok", "--out", "out", env=env)
    assert done.returncode == 0, done.stderr
    asked = json.loads((tmp_path / "overrides").read_text())
    calls = (tmp_path / "calls").read_text()
    if program == "aws":
        assert calls.split() == ["submit-job", "describe-jobs"]
        assert {each["type"]: each["value"] for each in asked["resourceRequirements"]} == {
            "VCPU": "1", "MEMORY": "595"
        }  # fmt: skip
    else:
        (container,) = asked["spec"]["containers"]
        assert re.fullmatch(r"tpumake-m-stage-\d+", container["name"])
        assert container["volumeMounts"][0]["mountPath"] == str(tmp_path)
        assert f"delete pod {container['name']}" in calls


# ---------------------------------------------------------------------------------------------
# A real cluster: Slurm with two nodes, both on this machine

NAMES = ("one", "two", "three")
SRUN = "srun -c1 --mem=900M"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Its absence is a failure, told in one line."""
    cluster = Slurm(tmp_path_factory.mktemp("slurm") / "cluster")
    try:
        cluster.start()
        yield cluster
    except RuntimeError as error:
        pytest.fail(str(error), pytrace=False)
    finally:
        cluster.stop()


@pytest.fixture
def many(checkout: Checkout) -> Checkout:
    """Tiny under three names, with means of their own, so that no result serves two."""
    lines = (checkout.path / "models.mk").read_text().splitlines()
    tiny = "\n".join(line for line in lines if line.startswith("tiny_"))
    stanzas = ""
    for number, name in enumerate(NAMES):
        stanzas += re.sub("^tiny_", f"{name}_", tiny, flags=re.M) + (
            f"\n{name}_MEAN = {number},0,0\n{name}_VARIANTS = int8\n{name}_INPUT_NUM = 10\n"
            f"{name}_TUNE_NUM = 0\n{name}_OPT = 1\n$(eval $(call model,{name}))\n"
        )
    (checkout.path / "models.mk").write_text(stanzas)
    return checkout


def models(checkout: Checkout) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in checkout.path.glob("build/*/cv181x/*_int8.*")}


def start(checkout: Checkout, slurm: Slurm, target: str) -> subprocess.Popen[str]:
    """A make that sends jobs with the names of their stages."""
    launcher = checkout.path / "launch"
    launcher.write_text(f'#!/bin/sh\nexec {SRUN} --job-name="$TPUMAKE_STAGE" "$@"\n')
    launcher.chmod(0o755)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    return subprocess.Popen(
        ["make", target, "RUN=./launch"], cwd=checkout.path, text=True, start_new_session=True,
        env=env | slurm.environment | {"CACHE": "0"}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def running(checkout: Checkout, slurm: Slurm, job: str) -> str:
    """Wait until a job runs, and its worker has begun; give its node."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        node = slurm.ask("squeue", "-h", f"--name={job}", "--states=R", "-o", "%N").strip()
        places = checkout.path.glob("build/.work/stage-*/place")
        if node and any(place.stat().st_size for place in places):
            return node
        time.sleep(0.1)
    raise AssertionError(f"{job} never ran: {slurm.ask('squeue')}")


def goes_on(checkout: Checkout, slurm: Slurm, target: str, *done: str) -> None:
    """The next make runs what is missing, none of what was done, and leaves nothing behind."""
    again = checkout.make(target, f"RUN={SRUN}", **slurm.environment)
    for stage in done:
        assert f" {stage} " not in again.stdout
    assert "calibrate    10 pictures" in again.stdout
    work = checkout.path / "build/.work"
    assert not [path for path in work.iterdir() if path.name.startswith("stage-")]
    assert slurm.ask("squeue", "-h") == ""


@pytest.mark.full
@pytest.mark.toolchain
def test_slurm_builds_three_models_at_once_of_the_same_bytes(many: Checkout, slurm: Slurm) -> None:
    said = many.make("all", "-j8", f"RUN={SRUN}", **slurm.environment).stdout
    assert "3 built" in said
    logs = [(slurm.folder / f"{node}.log").read_text() for node in slurm.nodes]
    assert all("launch task" in log for log in logs)
    there = models(many)
    assert len(there) == 6
    shutil.rmtree(many.path / "build")
    many.make("all")
    assert models(many) == there


@pytest.mark.full
@pytest.mark.toolchain
def test_a_cancelled_job_is_told_of_and_the_next_make_goes_on(many: Checkout, slurm: Slurm) -> None:
    make = start(many, slurm, "one_int8")
    node = running(many, slurm, "one.calibrate")
    slurm.ask("scancel", "--name=one.calibrate")
    _, said = make.communicate(timeout=60)
    assert make.returncode
    assert f"RUN's launcher or its scheduler ended the stage on {node}" in said
    assert "CANCELLED" in said
    assert "make again goes on where it was" in said
    assert "Traceback" not in said
    assert not (many.path / "build/one/one_calib_table").exists()
    goes_on(many, slurm, "one_int8", "downgrade", "transform")


@pytest.mark.full
@pytest.mark.toolchain
def test_a_lost_node_is_told_of_and_the_next_make_goes_on(many: Checkout, slurm: Slurm) -> None:
    make = start(many, slurm, "one_int8")
    node = running(many, slurm, "one.calibrate")
    slurm.lose(node)
    _, said = make.communicate(timeout=120)
    assert make.returncode
    assert f"RUN's launcher or its scheduler ended the stage on {node}" in said
    assert "Node failure" in said
    assert "make again goes on where it was" in said
    assert not (many.path / "build/one/one_calib_table").exists()
    # The other one does it alone.
    goes_on(many, slurm, "one_int8", "downgrade", "transform")
    slurm.start_node(node)
    slurm.wait_idle()


@pytest.mark.full
@pytest.mark.toolchain
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_what_ends_make_cancels_its_jobs(many: Checkout, slurm: Slurm, number: int) -> None:
    make = start(many, slurm, "one_int8")
    running(many, slurm, "one.calibrate")
    if number == signal.SIGINT:
        os.killpg(make.pid, number)
    else:
        make.kill()
    make.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while slurm.ask("squeue", "-h"):
        assert time.monotonic() < deadline, slurm.ask("squeue")
        time.sleep(0.2)
    goes_on(many, slurm, "one_int8", "downgrade", "transform")
