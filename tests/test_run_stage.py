"""The runner, on commands of its own: what counts as done, what is left, what is said.

Whether the real tools pass through it is for test_build.py.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import no_personality
import pytest
from conftest import ROOT

from tpumake import failures, stages
from tpumake.errors import CheckFailed

PASSED = "230 compared, 230 passed, lowest cosine 0.9999, lowest Euclidean 0.99 (t)"


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make hands its own on, and then nothing would run here."""
    monkeypatch.setenv("CACHE", "0")


class Runner:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "logs" / "stage.log"

    def command(self, script: str, *options: str, stage: str = "downgrade") -> list[str]:
        return [
            sys.executable, "-S", str(ROOT / "scripts/run_stage.py"),
            "--stage", stage, "--model", "m",
            "--build", "build", "--log", "logs/stage.log", *options, "--", "/bin/sh", "-c", script,
            "--test_input",
        ]  # fmt: skip

    def run(
        self, script: str, *options: str, stage: str = "downgrade", **settings: object
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(script, *options, stage=stage),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            **settings,
        )

    def start(self, script: str, *options: str, **settings: object) -> subprocess.Popen[str]:
        """Start a stage, and wait until its command has said ``started``."""
        process = subprocess.Popen(
            self.command(script, *options), cwd=self.folder, text=True, stderr=subprocess.PIPE,
            **settings,
        )  # fmt: skip
        while not self.started():
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        return process

    def started(self) -> bool:
        return self.log.exists() and "\nstarted" in self.log.read_text()

    def leftovers(self) -> list[Path]:
        """Private folders, and notes of memory that is taken."""
        work = self.folder / "build" / ".work"
        found = [*work.glob("*"), *work.glob("memory/*")]
        return [path for path in found if path.name != "memory" and path.suffix != ".lock"]


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    folder = tmp_path / "a b ü"
    folder.mkdir()
    return Runner(folder)


def test_a_result_is_moved_into_place_and_the_last_line_shown(runner: Runner) -> None:
    done = runner.run("echo hidden; echo made > out; echo the figure", "--out", "results/out")
    assert done.returncode == 0
    assert (runner.folder / "results/out").read_text() == "made\n"
    assert done.stdout.startswith("m        downgrade    the figure ")
    assert done.stdout.rstrip().endswith(" s")
    assert "hidden" not in done.stdout
    assert "hidden" in runner.log.read_text()
    assert not runner.leftovers()


def test_exit_code_0_without_the_output_is_a_failure(runner: Runner) -> None:
    done = runner.run("echo all is well", "--out", "results/out")
    assert done.returncode == 1
    assert "ended well but made no out" in done.stderr
    assert "log: logs/stage.log" in done.stderr
    assert not (runner.folder / "results").exists()


def test_an_output_of_a_failed_command_is_not_taken(runner: Runner) -> None:
    (runner.folder / "out").write_text("earlier\n")
    done = runner.run("echo half > out; echo 'RuntimeError: it broke' >&2; exit 1", "--out", "out")
    assert done.returncode == 1
    assert "RuntimeError: it broke" in done.stderr
    assert (runner.folder / "out").read_text() == "earlier\n"
    assert not runner.leftovers()


def test_a_check_that_fails_keeps_the_output_back(runner: Runner) -> None:
    script = (
        "echo '12 compared, 11 passed, lowest cosine 0.2, lowest Euclidean -1 (t)'; echo > m.mlir"
    )
    (runner.folder / "m.onnx").write_text("a network")
    done = runner.run(script, "--in", "m.onnx", "--out", "m.mlir", stage="transform")
    assert done.returncode == 1
    assert not (runner.folder / "m.mlir").exists()


def test_inputs_are_linked_under_the_names_asked_for(runner: Runner) -> None:
    (runner.folder / "data set").mkdir()
    (runner.folder / "data set" / "Calibration1.png").write_text("picture")
    done = runner.run(
        "cat test.jpg > out; echo ok",
        "--in", "test.jpg=data set/Calibration1.*", "--out", "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (runner.folder / "out").read_text() == "picture"


def test_a_missing_input_is_named(runner: Runner) -> None:
    done = runner.run("true", "--in", "x=no/such", "--out", "out")
    assert done.returncode == 2
    assert "no/such: there is no such file or folder" in done.stderr


def test_a_folder_replaces_the_one_before(runner: Runner) -> None:
    for content in ("first", "second"):
        done = runner.run(f"mkdir set; echo > set/{content}; echo ok", "--out", "data/set")
        assert done.returncode == 0, done.stderr
    assert [path.name for path in (runner.folder / "data/set").iterdir()] == ["second"]


def test_verbose_shows_everything(runner: Runner) -> None:
    done = runner.run("echo detail; echo > out; echo ok", "--out", "out", "--verbose")
    assert "detail" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_tool_and_its_children(runner: Runner, number: int) -> None:
    process = runner.start("sleep 61.25 & echo started; sleep 61.25", "--out", "out")
    process.send_signal(number)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 130
    assert said.strip() == "run_stage: interrupted"
    assert not runner.leftovers()
    time.sleep(0.1)
    alive = subprocess.run(["pgrep", "-f", "sleep 61.2[5]"], capture_output=True, check=False)
    assert not alive.stdout


def test_what_nohup_ignores_stays_ignored(runner: Runner) -> None:
    ignore = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    process = runner.start("echo started; sleep 0.5; echo > out", "--out", "out", **ignore)
    process.send_signal(signal.SIGHUP)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 0, said


@pytest.mark.parametrize("command", ["exec sleep 71.25", "sleep 71.25 & sleep 71.25"])
def test_a_killed_runner_takes_the_tool_along_and_its_folder_goes_next_time(
    runner: Runner, command: str
) -> None:
    """The tool's children, too: they would write where the next run tidies up."""
    process = runner.start(f"echo started; {command}", "--out", "out")
    process.kill()
    process.communicate()
    assert len(runner.leftovers()) == 2
    time.sleep(0.2)
    alive = subprocess.run(["pgrep", "-f", "sleep 71.2[5]"], capture_output=True, check=False)
    assert not alive.stdout
    assert runner.run("echo > out; echo ok", "--out", "out").returncode == 0
    assert not runner.leftovers()


def test_a_runner_whose_make_is_killed_ends(runner: Runner) -> None:
    """Here a shell that waits stands for Make."""
    command = shlex.join(runner.command("echo started; sleep 81.25", "--out", "out"))
    shell = subprocess.Popen(["/bin/sh", "-c", f"{command}; true"], cwd=runner.folder)
    while not runner.started():
        assert shell.poll() is None
        time.sleep(0.02)
    shell.kill()
    shell.wait()
    deadline = time.monotonic() + 10
    while subprocess.run(["pgrep", "-f", "sleep 81.2[5]"], capture_output=True).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    while runner.leftovers():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_input_that_changes_meanwhile_makes_no_result(runner: Runner) -> None:
    """Nobody knows what it was made from; and the next run makes it from what there is."""
    (runner.folder / "in").write_text("before")
    script = f"cat in > out; echo after > {shlex.quote(str(runner.folder / 'in'))}; echo ok"
    done = runner.run(script, "--in", "in", "--out", "out")
    assert done.returncode == 2
    assert "in changed while the tool ran: make again" in done.stderr
    assert not (runner.folder / "out").exists()
    assert runner.run("cat in > out; echo ok", "--in", "in", "--out", "out").returncode == 0
    assert (runner.folder / "out").read_text() == "after\n"


def test_a_folder_that_lost_its_notes_is_made_again(runner: Runner) -> None:
    """Make asks for the notes, and would look again each time."""
    script = "mkdir set; echo > set/a; echo > set/manifest.json; echo ok"
    assert runner.run(script, "--out", "data/set").returncode == 0
    (runner.folder / "data/set/manifest.json").unlink()
    assert "ok" in runner.run(script, "--out", "data/set").stdout
    assert (runner.folder / "data/set/manifest.json").exists()
    assert "ok" not in runner.run(script, "--out", "data/set").stdout


@pytest.mark.parametrize("damage", [b"no database", b"SQLite format 3\0" + bytes(4096)])
def test_a_damaged_memory_of_digests_costs_nothing(runner: Runner, damage: bytes) -> None:
    for content in (b"", damage):
        (runner.folder / "build").mkdir(exist_ok=True)
        (runner.folder / "build/.digests").write_bytes(content)
        done = runner.run("echo > out; echo ok", "--out", "out")
        assert (done.returncode, done.stderr) == (0, "")


def test_a_kernel_that_keeps_randomising_is_told_of(runner: Runner) -> None:
    """Other bytes each time are not what anybody asked for; who wants them has to say so."""
    forbid = {"preexec_fn": no_personality.forbid}
    done = runner.run("echo > out; echo ok", "--out", "out", "--same-addresses", **forbid)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert "address randomisation can't be switched off (Operation not permitted)" in lines[0]
    assert "REPRODUCIBLE=0" in lines[0]
    assert "--security-opt seccomp=unconfined" in lines[0]
    assert not (runner.folder / "out").exists()
    done = runner.run("echo > out; echo ok", "--out", "out", **forbid)
    assert done.returncode == 0, done.stderr


def test_a_file_in_the_build_folders_place_is_one_line(runner: Runner) -> None:
    (runner.folder / "build").touch()
    done = runner.run("true", "--out", "out")
    assert done.returncode == 2
    assert "build" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("log", "code", "missing", "said"),
    [
        ("$ c\nValueError: bad\n", 1, [], "ValueError: bad"),
        ("$ c\nnormalize_dataset: too few pictures\n", 2, [], "too few pictures"),
        (f"$ c\n{PASSED.replace('230 passed', '229 passed')}\nRuntimeError: x", 1, [],
         "229 of 230 tensors agree"),
        ("$ c\n", -11, [], "ended by signal 11"),
        ("$ c\n", 134, [], "ended by signal 6"),
        ("$ c\nlast words\n", 134, [], "ended by signal 6 (SIGABRT): last words"),
        ("$ c\nOMP: Error #179: Function Can't open SHM2 failed:\n", 134, [], "shared memory"),
        ("$ c\nlast words\n", 3, [], "last words"),
        ("$ c\ngood\n", 0, ["x.mlir"], "made no x.mlir"),
        ("$ c\nfirst\nUNREACHABLE executed at a.cpp:3!\nPLEASE submit a bug report\n", 134, [],
         "UNREACHABLE executed at a.cpp:3!"),
    ],
)  # fmt: skip
def test_the_cause_is_one_line(log: str, code: int, missing: list[str], said: str) -> None:
    failure = failures.explain("transform", log, code, missing)
    assert said in failure.cause
    assert "\n" not in failure.cause


def result(tmp_path: Path, log: str, *command: str) -> stages.Result:
    return stages.Result(log, tmp_path, [Path("m_calib_table")], list(command))


def test_a_comparison_that_compared_nothing_is_not_a_pass(tmp_path: Path) -> None:
    log = PASSED.replace("230 compared, 230 passed", "0 compared, 0 passed")
    with pytest.raises(CheckFailed):
        stages.STAGES["transform"].figure(result(tmp_path, log, "--test_input", "x"))


def test_a_comparison_that_did_not_run_is_not_a_pass(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="0 of 1 comparisons ran"):
        stages.STAGES["transform"].figure(result(tmp_path, "fine", "--test_input", "x"))


def test_without_validation_it_says_so(tmp_path: Path) -> None:
    figure = stages.STAGES["transform"].figure(result(tmp_path, "fine"))
    assert "VALIDATE=0" in figure


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("# sample number: 3\n###\nx 1.0 -1.0 1.0\n", "3 of 8 pictures"),
        ("# sample number: 8\n###\nx 1.0 -1.0\n", "not complete"),
        ("# sample number: 8\n###\n", "not complete"),
        ("x 1.0 -1.0 1.0\n", "not complete"),
    ],
)
def test_a_calibration_table_is_looked_into(tmp_path: Path, table: str, reason: str) -> None:
    (tmp_path / "m_calib_table").write_text(table)
    (tmp_path / "dataset").mkdir()
    for number in range(1, 9):
        (tmp_path / "dataset" / f"Calibration{number}.png").touch()
    with pytest.raises(CheckFailed, match=reason):
        stages.STAGES["calibrate"].figure(result(tmp_path, "", "--input_num", "12"))


SEARCHED = "int8 outputs_cos:0.97 old\nmix model outputs_cos:{}\n"


def searched(tmp_path: Path, log: str) -> str:
    (tmp_path / "m_qtable").write_text("# n\n###\na BF16\nb BF16\n")
    command = ["run", "run_qtable.py", "--expected_cos", "0.99"]
    found = stages.Result(log, tmp_path, [Path("m_qtable")], command)
    return stages.STAGES["qtable"].figure(found)


def test_a_search_that_broke_off_is_a_failure(tmp_path: Path) -> None:
    """The tool goes on after its own errors, with the table that it has by then."""
    log = "An exception happened: /model.10/a 's input:b not exist\n" + SEARCHED.format("0.995")
    with pytest.raises(CheckFailed, match=r"broke off.*: /model\.10/a"):
        searched(tmp_path, log)


def test_a_search_that_does_not_reach_its_goal_says_so(tmp_path: Path) -> None:
    assert searched(tmp_path, SEARCHED.format("0.991")).endswith("INT8 0.97 → 0.991")
    assert "2 float layers" in searched(tmp_path, SEARCHED.format("0.991"))
    assert "0.99 is not reached" in searched(tmp_path, SEARCHED.format("0.5"))


def test_a_search_without_an_end_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="not complete"):
        searched(tmp_path, "Processing a")


def test_calibrations_progress_is_read() -> None:
    line = (
        "tune op: /model.4/cv2/Conv_output_0_Conv:  13%|#3       | 29/231 [00:03<00:31,  6.34it/s]"
    )
    assert stages.STAGES["calibrate"].progress(line) == ("tensors, tuned", 29, 231)
    assert stages.STAGES["calibrate"].progress("input_num = 12, ref = 12") is None
