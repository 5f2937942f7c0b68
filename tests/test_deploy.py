"""Models on devices: the host's own ssh, a real server on loopback, and a folder for the board."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import boards
import jsonschema
import pytest
import servers
from boards import Board, fine, wrong
from conftest import ROOT, Checkout, copy_checkout, copy_project, helper, refused
from cvimodels import COMMANDS, WEIGHTS, camera_model, outputs_of
from supervisor import Supervisor

from tpumake import profiles
from tpumake.deployment import address, connection, measuring
from tpumake.errors import BadInput

# Larger than what connections buffer, so that a copy can be caught in its middle.
LARGE = 6 << 20
# A service that restarts when the test says so.
WAITING = 'while [ ! -e "$HOME/go" ]; do sleep 0.05; done'


def model_file(path: Path, name: str = "net", size: int = 0, **fields: object) -> Path:
    path.write_bytes(
        camera_model(outputs_of([(1, 64, 80, 80)]), name=name,
                     binary=WEIGHTS + COMMANDS + bytes(size), **fields)
    )  # fmt: skip
    path.with_suffix(".json").write_text(json.dumps({"classes": [name]}))
    return path


@pytest.fixture
def profile_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "devices").mkdir()
    monkeypatch.setattr(profiles, "FOLDER", tmp_path / "devices")
    return tmp_path / "devices"


@contextlib.contextmanager
def serving(tmp_path: Path, profiles_in: Path, name: str = "recamera",
            how: Callable = boards.serve) -> Iterator[Board]:  # fmt: skip
    """A board that answers, and the client to ask it with."""
    assert shutil.which("ssh"), "ssh is missing: install OpenSSH's client (openssh-client)"
    # As unhandy as a name can be.
    made = boards.board(tmp_path / 'the "board\'s" $disk', name)
    (profiles_in / f"{name}.json").write_text(json.dumps(made.profile))
    with how(made, tmp_path / "ssh"):
        yield made


@pytest.fixture
def board(tmp_path: Path, profile_folder: Path) -> Iterator[Board]:
    with serving(tmp_path, profile_folder) as made:
        yield made


def arguments(board: Board, model: Path, *more: object) -> list[str]:
    name = board.profile["name"]
    side_car = ["--side-car", model.with_suffix(".json")] if board.profile["side_car"] else []
    return list(map(str, [
        model, *side_car, "--device", name, "--host", f"{boards.user()}@127.0.0.1:{board.port}",
        "--ssh", f"ssh -F '{board.config}'", *more,
    ]))  # fmt: skip


def deploy(board: Board, model: Path, *more: object) -> subprocess.CompletedProcess[str]:
    (profiles.FOLDER / f"{board.profile['name']}.json").write_text(json.dumps(board.profile))
    return helper("deploy_model", *arguments(board, model, *more))


def holds(board: Board, model: Path, *previous: Path) -> None:
    """This model is in place, with its side-car; that one is kept; and nothing else is there."""
    assert board.model.read_bytes() == model.read_bytes()
    names = {board.model.name: model}
    if previous:
        names[f"{board.model.name}.previous"] = previous[0]
    if board.profile["side_car"]:
        names |= {
            name.replace(".cvimodel", ".json"): path.with_suffix(".json")
            for name, path in names.items()
        }
    assert board.left() == sorted(names)
    for name, path in names.items():
        assert (board.folder / name).read_bytes() == path.read_bytes(), name


def soon(what: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path, Path]:
    first, second, third = (model_file(tmp_path / f"{name} it's.cvimodel", name)
                            for name in ("first", "second", "third"))  # fmt: skip
    return first, second, third


def story(board: Board, first: Path, second: Path, third: Path) -> None:
    """Three deploys, one of them for nothing, and back twice."""
    said = fine(deploy(board, first))
    assert "chip cv181x, runtime 1.4 by its profile" in said
    assert f"in place: {board.model}\n" in said
    assert "sent and verified there (SHA-256)" in said
    holds(board, first)
    fine(deploy(board, second))
    holds(board, second, first)
    assert "is this model already; nothing to do" in fine(deploy(board, second))
    holds(board, second, first)
    assert board.restarts() == 2
    assert "the one before is model.cvimodel.previous" in fine(deploy(board, third))
    holds(board, third, second)
    fine(deploy(board, third, "--rollback"))
    holds(board, second, third)
    assert "restart: done" in fine(deploy(board, third, "--rollback"))
    holds(board, third, second)
    assert board.restarts() == 5


@pytest.mark.slow
def test_there_and_back(board: Board, models: tuple[Path, Path, Path]) -> None:
    story(board, *models)


if boards.SSHD:

    @pytest.mark.full
    def test_there_and_back_with_opensshs_own_server(
        tmp_path: Path, profile_folder: Path, models: tuple[Path, Path, Path]
    ) -> None:
        with serving(tmp_path, profile_folder, how=boards.serve_openssh) as made:
            story(made, *models)
            made.service("exit 3")
            assert "ended with 3" in wrong(deploy(made, models[0]))
            holds(made, models[2], models[1])


# ---------------------------------------------------------------------------------------------
# What the device can't take: nothing is changed there


def _other_chip(board: Board) -> None:
    (board.root / "proc/device-tree/compatible").write_bytes(b"cvitek,cv180x\0")


def _old_runtime(board: Board) -> None:
    board.profile["install"]["runtime"]["command"] = "echo libcviruntime.so 1.3.0"


def _no_space(board: Board) -> None:
    board.program("df", "echo 'Filesystem 1024-blocks Used Available Capacity Mounted on'\n"
                        "echo '/dev/mmcblk0p6 60000 59990 10 100% /userdata'")  # fmt: skip


def _full(board: Board) -> None:
    """A disk that is full sooner than it said."""
    board.program("cat", "case $(readlink /proc/$$/fd/1) in *.model) "
                         "echo \"cat: write error: No space left on device\" >&2; exit 1;; esac\n"
                         f'exec {shutil.which("cat")} "$@"')  # fmt: skip


def _read_only(board: Board) -> None:
    board.program("mkdir", 'case $* in *.lock) echo "mkdir: can\'t create directory \'x\': '
                           'Read-only file system" >&2; exit 1;; esac\n'
                           f'exec {shutil.which("mkdir")} "$@"')  # fmt: skip


def _locked(board: Board) -> None:
    """Somebody is at it: the process of the lock lives."""
    lock = board.folder / ".tpumake.lock"
    lock.mkdir()
    (lock / "pid").write_text(f"{os.getpid()}\n")
    (lock / "owner").write_text("anna@laptop since 12:00:00\n")


def _damaged(board: Board) -> None:
    board.faults["target="] = lambda _, data: data and data[:-1] + bytes([data[-1] ^ 1])


def _sudo_asks(board: Board) -> None:
    board.program("sudo", "exit 1")


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize(
    ("arrange", "words"),
    [
        (_other_chip, "its chip is cv180x, second it's.cvimodel is for cv181x; build it with"),
        (_old_runtime, "its runtime takes models up to version 1.3, and second it's.cvimodel has"),
        (_no_space, "has 0.0 MB free, and this takes 1.0 MB; remove something there"),
        (_full, "could not be written to"),
        (_read_only, "can't be written: Read-only file system; nothing has changed there"),
        (_locked, "another deploy is at work there, anna@laptop since 12:00:00"),
        (_damaged, "what arrived is not what was sent"),
        (_sudo_asks, "sudo wants a password for"),
    ],
)
def test_what_it_cant_take_changes_nothing(
    arrange: Callable, words: str, board: Board, models: tuple[Path, Path, Path]
) -> None:
    first, second, _ = models
    fine(deploy(board, first))
    arrange(board)
    said = wrong(deploy(board, second), 2 if arrange is _sudo_asks else 1)
    assert words in said
    assert "127.0.0.1" in said
    if arrange is _full:
        assert "No space left on device; nothing has changed there" in said
    if arrange is _locked:
        shutil.rmtree(board.folder / ".tpumake.lock")
    holds(board, first)
    assert board.restarts() == 1


@pytest.mark.slow
def test_the_devices_own_runtime_has_the_last_word(tmp_path: Path, profile_folder: Path) -> None:
    """A Milk-V's runner loads the model before it is in place; only a refusal counts."""
    with serving(tmp_path, profile_folder, "milkv") as made:
        made.profile["install"]["model"] = f"{made.root}/root/{{name}}.cvimodel"
        model = model_file(tmp_path / "a net.cvimodel")
        version = "cvimodel(1.4) is not supported in runtime(1.2)"
        made.program("model_runner", f"echo '[E] {version}'; exit 1")
        assert "has version 1.4, the runtime 1.2" in wrong(deploy(made, model))
        chip = "cvimodel built for cv181x CANNOT run on platform cv180x"
        made.program("model_runner", f"echo '{chip}'; exit 1")
        assert "build it with CHIP=cv180x" in wrong(deploy(made, model))
        target = made.root / "root/a net.cvimodel"
        assert not target.exists()
        # Of memory that another program has now, it says nothing that lasts.
        made.program("model_runner", "echo alloc memory failed; exit 1")
        assert "model_runner ended with 1 (alloc memory failed)" in fine(deploy(made, model))
        assert target.read_bytes() == model.read_bytes()
        assert [path.name for path in target.parent.iterdir() if path.is_file()] == [target.name]


# ---------------------------------------------------------------------------------------------
# What goes wrong on the way: the model before is there again


@pytest.mark.slow
@pytest.mark.parametrize(
    ("service", "words"),
    [
        # The second time, with the old model, it does.
        ('[ $(wc -l <"$HOME/restarts") = 4 ] || exit 0; exit 3', "the model before is back;"),
        ("exit 3", "the service doesn't start with it either"),
    ],
)
def test_a_service_that_fails_has_the_model_before(
    service: str, words: str, board: Board, models: tuple[Path, Path, Path]
) -> None:
    first, second, third = models
    for model in (first, second, third):
        fine(deploy(board, model))
    board.service(service)
    said = wrong(deploy(board, first))
    assert "S91sscma-node' restart` ended with 3" in said
    assert words in said
    # Also what a rollback would bring is what it was.
    holds(board, third, second)
    assert board.restarts() == 5
    if service == "exit 3":
        assert "ended with 3" in wrong(deploy(board, first, "--rollback"))
        holds(board, third, second)


@pytest.mark.slow
def test_the_first_model_of_all(board: Board, models: tuple[Path, Path, Path]) -> None:
    first = models[0]
    assert "there is nothing to go back to" in wrong(deploy(board, first, "--rollback"))
    board.service("exit 3")
    assert "the service doesn't start" in wrong(deploy(board, first))
    assert board.left() == []
    said = fine(deploy(board, first, "--no-reload"))
    assert "the service was not told (DEVICE_RELOAD=0)" in said
    holds(board, first)


@pytest.mark.slow
def test_a_rename_that_fails_is_undone(board: Board, models: tuple[Path, Path, Path]) -> None:
    first, second, _ = models
    fine(deploy(board, first))
    mv = shutil.which("mv")
    board.program("mv", f'case "$2$3" in *.model*) exit 1;; esac; exec {mv} "$@"')
    assert "could not be put in place; the model before is back" in wrong(deploy(board, second))
    holds(board, first)
    assert board.restarts() == 1


@pytest.mark.slow
def test_what_the_power_cut_off(board: Board, models: tuple[Path, Path, Path]) -> None:
    """In the middle of a switch: a lock without a process, halves, and both models."""
    first, second, third = models
    fine(deploy(board, first))
    lock = board.folder / ".tpumake.lock"
    lock.mkdir()
    ended = subprocess.Popen(["true"])
    ended.wait()
    (lock / "pid").write_text(f"{ended.pid}\n")
    (board.folder / ".tpumake-abc.model").write_text("half")
    for path in (board.model, board.side_car):
        path.rename(f"{path}.replaced")
    shutil.copy(second, board.model)
    shutil.copy(second.with_suffix(".json"), board.side_car)
    assert "a deploy before was cut off" in fine(deploy(board, third))
    holds(board, third, second)


@pytest.mark.slow
def test_a_connection_that_is_cut_while_copying(board: Board, tmp_path: Path) -> None:
    first = model_file(tmp_path / "first.cvimodel")
    second = model_file(tmp_path / "second.cvimodel", "second", LARGE)
    fine(deploy(board, first))

    def cut(process: object, data: bytes | None) -> bytes | None:
        if data:
            process.channel.get_connection().abort()
        return data

    board.faults["target="] = cut
    assert "the connection was lost" in wrong(deploy(board, second))
    # The device itself tidies up.
    soon(lambda: len(board.left()) == 2)
    holds(board, first)
    board.faults.clear()
    fine(deploy(board, second))
    holds(board, second, first)


@pytest.mark.slow
def test_a_connection_that_is_cut_while_switching(
    board: Board, models: tuple[Path, Path, Path]
) -> None:
    first, second, third = models
    fine(deploy(board, first))
    board.service(WAITING)

    def cut(process: object, _: bytes | None) -> None:
        asyncio.ensure_future(cut_then(process.channel.get_connection()))  # noqa: RUF006

    async def cut_then(device: object) -> None:
        while board.restarts() < 2:
            await asyncio.sleep(0.02)
        device.abort()

    board.faults["take_up"] = cut
    said = wrong(deploy(board, second))
    assert "during the switch, which the device ends or undoes by itself" in said
    # Until then it has the lock.
    board.faults.clear()
    assert "another deploy is at work there" in wrong(deploy(board, third))
    (board.root / "go").touch()
    soon(lambda: len(board.left()) == 4)
    holds(board, second, first)


@pytest.mark.slow
def test_two_at_once(board: Board, models: tuple[Path, Path, Path]) -> None:
    """One of them does it, the other one is told."""
    first, second, third = models
    fine(deploy(board, first))
    board.service(WAITING)
    process = start(board, second)
    soon(lambda: board.restarts() == 2)
    assert "another deploy is at work there" in wrong(deploy(board, third))
    (board.root / "go").touch()
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    holds(board, second, first)


def start(board: Board, model: Path, **options: object) -> subprocess.Popen:
    """The program itself, which is sent a signal, or given a terminal."""
    code = (
        "import runpy, sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; "
        "from tpumake import profiles; profiles.FOLDER = Path(sys.argv[2]); "
        "sys.argv = sys.argv[3:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    script = ROOT / "scripts/deploy_model.py"
    return subprocess.Popen(
        [sys.executable, "-c", code, ROOT / "scripts", profiles.FOLDER, script,
         *arguments(board, model)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        **options,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("where", ["while copying", "while switching"])
def test_ctrl_c(where: str, board: Board, tmp_path: Path) -> None:
    first = model_file(tmp_path / "first.cvimodel")
    second = model_file(tmp_path / "second.cvimodel", "second", LARGE)
    fine(deploy(board, first))
    board.service(WAITING)
    begun, sent = [], []

    def slow(_: object, data: bytes | None) -> bytes | None:
        begun.append(data)
        time.sleep(0.1 if data and not sent else 0)
        return data

    copying = where == "while copying"
    board.faults["target="] = slow if copying else lambda _, data: data
    # As a terminal does it: to all in its foreground.
    process = start(board, second, start_new_session=True)
    soon(lambda: len(begun) > 2 if copying else board.restarts() == 2)
    os.killpg(process.pid, signal.SIGINT)
    sent.append(True)
    (board.root / "go").touch()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.strip() == "deploy_model: interrupted"
    soon(lambda: not [name for name in board.left() if name.startswith(".")])
    holds(board, *([first] if copying else [second, first]))


@pytest.mark.slow
@pytest.mark.parametrize("word", ["recamera", "wrong"])
def test_sudos_password_is_asked_for_on_the_terminal(
    word: str, board: Board, models: tuple[Path, Path, Path]
) -> None:
    board.program("sudo", '[ "$1" = -S ] || exit 1; IFS= read -r word; '
                          '[ "$word" = recamera ] || exit 1; shift 3; '
                          '[ "$1" = -v ] && exit; exec "$@"')  # fmt: skip
    ours, theirs = pty.openpty()

    def own_terminal() -> None:
        import fcntl
        import termios

        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    process = start(board, models[0], stdin=theirs, start_new_session=True, preexec_fn=own_terminal)
    asked = b""
    while b": " not in asked:
        asked += os.read(ours, 1000)
    assert b"sudo's password for" in asked
    os.write(ours, word.encode() + b"\n")
    out, err = process.communicate(timeout=30)
    os.close(ours)
    os.close(theirs)
    assert word not in out + err + asked.decode()[len("recamera") :].rpartition("sudo")[2]
    if word == "recamera":
        assert (process.returncode, err) == (0, "")
        holds(board, models[0])
        assert board.restarts() == 1
    else:
        assert process.returncode == 2
        assert "sudo doesn't take that password; nothing has changed there" in err
        assert board.left() == []


# ---------------------------------------------------------------------------------------------
# What keeps from there being a connection


def _unknown(board: Board, _: Path) -> None:
    (board.config.parent / "known_hosts").write_text("")


def _another(board: Board, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "k"],
                   check=True)  # fmt: skip
    known = board.config.parent / "known_hosts"
    host = known.read_text().split()[0]
    known.write_text(f"{host} {(tmp_path / 'k.pub').read_text()}")


def _not_let_in(board: Board, tmp_path: Path) -> None:
    key = board.config.parent / "no"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    text = board.config.read_text()
    board.config.write_text(text.replace("/key\n", "/no\n"))


def _nobody(board: Board, _: Path) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        board.port = free.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arrange", "words"),
    [
        (_unknown, "its key is not known here yet: compare it once by hand, ssh -p "),
        (_another, "if it was flashed anew, ssh-keygen -R '[127.0.0.1]:"),
        (_not_let_in, "it refused the log-in; see whether this works: ssh -p "),
        (_nobody, "nothing answers at that port: is SSH on, and the port right?"),
    ],
)
def test_no_connection(arrange: Callable, words: str, board: Board, tmp_path: Path,
                       models: tuple[Path, Path, Path]) -> None:  # fmt: skip
    arrange(board, tmp_path)
    assert words in wrong(deploy(board, models[0]), 2)
    assert board.left() == []


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("ssh: Could not resolve hostname x: Name or service not known", "no host of that name"),
        ("ssh: connect to host x port 22: Connection timed out", "is the board on"),
        ("ssh: connect to host x port 22: No route to host", "is the board on"),
        ("kex_exchange_identification: banner line contains\nbad", "no connection (kex_exchange"),
        ("", "ssh said nothing"),
    ],
)
def test_what_ssh_complains_of_is_told_in_a_line(said: str, words: str) -> None:
    told = connection._why(said, address.parse("x", "root"))
    assert words in told
    assert told.startswith("root@x: ")
    assert "\n" not in told


def test_without_ssh_it_says_what_to_install(tmp_path: Path) -> None:
    model = model_file(tmp_path / "m.cvimodel")
    done = helper("deploy_model", model, "--side-car", model.with_suffix(".json"), "--device",
                  "recamera", "--host", "x", "--ssh", "no-such-ssh")  # fmt: skip
    assert "no-such-ssh: not found on PATH; install OpenSSH's client" in refused(done)


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ("", "its shell didn't do as a POSIX sh does, or not within a minute; see whether"),
        ("tpumake digest none\\ntpumake root no\\ntpumake held", "has no sha256sum, openssl or"),
        # What a device says is shown without what a terminal obeys.
        ("tpumake locked by \\033[2Jme", "another deploy is at work there, by \\x1b[2Jme; wait"),
    ],
)
def test_what_a_strange_device_answers(answers: str, words: str, tmp_path: Path) -> None:
    model = model_file(tmp_path / "m.cvimodel")
    ssh = tmp_path / "ssh"
    ssh.write_text(f"#!/bin/sh\ncase $* in *LC_ALL*) printf '{answers}\\n';; esac\n")
    ssh.chmod(0o755)
    done = helper("deploy_model", model, "--side-car", model.with_suffix(".json"), "--device",
                  "recamera", "--host", "x", "--ssh", f"'{ssh}'")  # fmt: skip
    assert words in wrong(done)


def test_a_device_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_ASKING_SECONDS", 0.2)
    model = model_file(tmp_path / "m.cvimodel")
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\ncase $* in *LC_ALL*) exec sleep 30;; esac\n")
    ssh.chmod(0o755)
    done = helper("deploy_model", model, "--side-car", model.with_suffix(".json"), "--device",
                  "recamera", "--host", "x", "--ssh", ssh)  # fmt: skip
    assert "or not within a minute" in wrong(done)


@pytest.mark.parametrize("name", ["recamera", "milkv", "maixcam"])
def test_profiles_say_how_models_get_there(name: str) -> None:
    install = profiles.read(name)["install"]
    folders = {Path(install[part]).parent for part in ("model", "side_car") if install[part]}
    # One lock, and renames within a folder.
    assert len(folders) == 1
    assert "@" in install["host"]
    texts = " ".join(json.dumps(install.get(part, "")) for part in ("trial", "bench"))
    names = {"model", "picture", "drawing", "count"}
    assert set(re.findall(r"{(\w+)}", texts)) <= names
    # These run without a shell.
    for part in ("reload", "bench"):
        assert not set("|&;<>$`\\\"'") & set(install.get(part, {"command": ""})["command"])


@pytest.mark.parametrize(
    ("text", "user", "host", "port"),
    [
        ("192.168.42.1", "recamera", "192.168.42.1", None),
        ("root@recamera.local", "root", "recamera.local", None),
        ("anna@cam_1:2222", "anna", "cam_1", 2222),
        ("ssh://anna@cam:22/", "anna", "cam", 22),
        ("[fe80::1%usb0]:2222", "recamera", "fe80::1%usb0", 2222),
        ("::1", "recamera", "::1", None),
        ("root@fe80::1", "root", "fe80::1", None),
    ],
)
def test_addresses(text: str, user: str, host: str, port: int | None) -> None:
    assert address.parse(text, "recamera") == address.Address(user, host, port)


@pytest.mark.parametrize(
    "text",
    ["", "-oProxyCommand=reboot", "a b", "x:0", "x:65536", "x:ssh", "a@", "@x", "a@-x", "-l@x",
     "x/y", "http://x", "x;reboot", "$(reboot)", "a\nb", "[::1", "x:1:2z"],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(BadInput, match="not an address"):
        address.parse(text, "recamera")


@pytest.mark.parametrize("tool", ["sha256sum", "openssl", "md5sum"])
def test_each_tool_that_a_board_may_have_gives_the_digest(tool: str, tmp_path: Path) -> None:
    """Of a file whose name the tool must not print, nor take for its own."""
    if tool == "openssl" and not shutil.which("openssl"):
        program = tmp_path / "openssl"
        program.write_text('#!/bin/sh\nsha256sum | sed "s/^/SHA2-256(stdin)= /; s/ *-$//"\n')
        program.chmod(0o755)
    file = tmp_path / "-a (b)= c"
    file.write_bytes(b"some bytes")
    common = (ROOT / "scripts/tpumake/deployment/common.sh").read_text()
    done = subprocess.run(
        ["sh", "-c", f'tool={tool}\n{common}\ndigest "$1"', "sh", file], capture_output=True,
        text=True, check=True, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )  # fmt: skip
    algorithm = "md5" if tool == "md5sum" else "sha256"
    assert done.stdout == hashlib.new(algorithm, b"some bytes").hexdigest() + "\n"


@pytest.mark.parametrize(
    ("device", "change", "words"),
    [
        ("none", {}, "devices/none.json says nothing of installing"),
        ("recamera", {"chip": b"cv180x"}, "built for cv180x, but reCamera has cv181x"),
        ("recamera", {"md5": bytes(16)}, "damaged, its checksum is wrong; build it again"),
    ],
)
def test_what_is_not_for_the_device_is_told_before_it_is_asked(
    device: str, change: dict, words: str, tmp_path: Path
) -> None:
    model = model_file(tmp_path / "m.cvimodel", **change)
    done = helper("deploy_model", model, "--device", device, "--host", "x", "--ssh", "no-such-ssh")
    assert words in refused(done)


# ---------------------------------------------------------------------------------------------
# Times on the device


def bench(board: Board, model: Path, target: Path, *more: object) -> subprocess.CompletedProcess:
    (profiles.FOLDER / f"{board.profile['name']}.json").write_text(json.dumps(board.profile))
    words = arguments(board, model)
    if "--side-car" in words:
        del words[1:3]
    return helper("measure_on_device", words[0], target, "--name", "net_int8", *words[1:], *more)


SCHEMA = json.loads((ROOT / "schemas/device_bench.schema.json").read_text())


@pytest.mark.slow
def test_a_recameras_own_times(board: Board, tmp_path: Path) -> None:
    """As sscma-model prints them, a picture a run."""
    model = model_file(tmp_path / "net.cvimodel")
    fine(deploy(board, model))
    (tmp_path / "it's.jpg").write_bytes(b"a picture")
    board.program(
        "sscma-model",
        '[ "$(cat "$2")" = "a picture" ] && [ -s "$1" ] || exit 1\n'
        'echo x >"$3"; echo x >>"$HOME/runs"; n=$(wc -l <"$HOME/runs")\n'
        'echo "[I] engine load model $1"; echo "[I] model type: 9"\n'
        'echo "[I] main: pre: 13ms, infer: $((44 + n))ms, post: 1ms"',
    )
    target = tmp_path / "net.bench.json"
    said = fine(bench(board, model, target, "--picture", tmp_path / "it's.*", "--count", 3))
    found = json.loads(target.read_text())
    jsonschema.validate(found, SCHEMA)
    assert found["milliseconds"] == {"pre": 13, "infer": 46, "post": 1}
    assert [run["infer"] for run in found["runs"]] == [45, 46, 47]
    assert found["tried_on_hardware"] is False
    assert found["model_sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert "net_int8 on a reCamera, by sscma-model: before 13 ms, inference 46 ms" in said
    assert "not on a board yet" in said
    assert "127.0.0.1" not in target.read_text()
    holds(board, model)
    for program, words in (
        ("echo '[E] model not supported'; exit 1", "ended with 1: [E] model not supported"),
        ("echo 'score: 0.9 target: 1'", "told no times; its last line: score: 0.9"),
        ("exit 127", "there is no sscma-model there"),
    ):
        board.program("sscma-model", program)
        picture = ("--picture", tmp_path / "it's.jpg")
        assert words in wrong(bench(board, model, target, *picture))
    assert json.loads(target.read_text()) == found
    assert "wants a picture: IMAGE=photo.jpg" in wrong(bench(board, model, target), 2)
    holds(board, model)


@pytest.mark.slow
def test_a_milk_vs_own_times(tmp_path: Path, profile_folder: Path) -> None:
    """As model_runner prints them, the mean of all its runs."""
    with serving(tmp_path, profile_folder, "milkv") as made:
        made.program(
            "model_runner",
            '[ "$3$5" = --count--enable-timer ] || exit 1\n'
            'echo "Performance result: $4 runs take 681.513 ms, each run takes 68.151000 ms, '
            'fps 14.673299"',
        )
        model = model_file(tmp_path / "net.cvimodel")
        done = bench(made, model, tmp_path / "net.bench.json", "--json", "--count", 7)
        found = json.loads(done.stdout)
        jsonschema.validate(found, SCHEMA)
        assert found["milliseconds"] == {"pre": None, "infer": 68.151, "post": None}
        assert (found["count"], len(found["runs"])) == (7, 1)


def test_times_of_neither_form_are_none() -> None:
    assert measuring.read_times("pre: 1 ms, infer: ?") is None


# ---------------------------------------------------------------------------------------------
# By make


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return copy_project(tmp_path_factory.mktemp("make") / "check out")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("nosuch.deploy", "there is no nosuch to deploy; make list shows what there is"),
        ("tiny.deploy DEVICE_HOST=x", "which variant of tiny? make tiny_int8.deploy"),
        ("tiny_int8.deploy", "to which device? make tiny_int8.deploy DEVICE_HOST=192.168.42.1"),
        ("tiny_int8.deploy DEVICE_HOST=x DEVICE=none", "DEVICE=none is no device to put"),
        ("tiny_int8.bench DEVICE_HOST=x CHIP=bm1684x", "DEVICE=recamera has no bm1684x for"),
        ("tiny_int8.deploy-rollback DEVICE_HOST=a;b", "DEVICE_HOST=a;b: not an address"),
    ],
)
def test_make_says_what_is_missing(words: str, told: str, project: Checkout) -> None:
    done = project.make(*words.split(), check=False)
    assert done.returncode == 2
    assert told in done.stderr
    assert not list(project.path.glob("build/**/*.cvimodel"))


@pytest.mark.slow
def test_a_dry_run_asks_nobody_and_builds_nothing(project: Checkout) -> None:
    host = ("DEVICE_HOST=x.invalid", "DRY_RUN=1")
    said = project.make("tiny_int8.deploy", *host).stdout.splitlines()
    assert all(line.startswith("x.invalid  would ") for line in said)
    assert "connect to recamera@x.invalid and lock /userdata/Models/.tpumake.lock" in said[0]
    assert "which is still to be built" in said[2]
    assert "sudo /etc/init.d/S91sscma-node restart; if that fails, all back" in said[-2]
    back = project.make("tiny_int8.deploy-rollback", *host, "DEVICE_RELOAD=0").stdout
    assert "would put back /userdata/Models/model.cvimodel" in back
    assert "restart" not in back
    assert not (project.path / "build").exists()


@pytest.mark.slow
def test_nor_does_one_over_http(project: Checkout) -> None:
    host = ("DEVICE_HOST=http://x.invalid", "DRY_RUN=1")
    said = project.make("tiny_int8.deploy", *host).stdout
    assert all(line.startswith("x.invalid  would ") for line in said.splitlines())
    assert "send tiny_int8.cvimodel, which is still to be built, in parts of 512 KB" in said
    assert "keep what was there as build/.device/x.invalid.cvimodel" in said
    back = project.make("tiny_int8.deploy-rollback", *host).stdout
    assert "would send build/.device/x.invalid.cvimodel" in back
    done = project.make("tiny_int8.deploy-rollback", host[0], check=False)
    assert "build/.device/x.invalid.cvimodel is not there, so there is nothing" in done.stderr
    assert not (project.path / "build").exists()


@pytest.mark.slow
@pytest.mark.toolchain
def test_make_deploys_what_it_built(built: Checkout, board: Board, tmp_path: Path) -> None:
    checkout = copy_checkout(built, tmp_path / "check out")
    (checkout.path / "devices/recamera.json").write_text(json.dumps(board.profile))
    board.program("sscma-model", "echo 'pre: 13ms, infer: 46ms, post: 1ms'")
    words = (f"DEVICE_HOST={boards.user()}@127.0.0.1:{board.port}",
             f"DEVICE_SSH=ssh -F '{board.config}'")  # fmt: skip
    said = checkout.make("tiny_int8.deploy", *words).stdout
    folder = checkout.path / "build/tiny/cv181x"
    assert "in place:" in said
    assert board.model.read_bytes() == (folder / "tiny_int8.cvimodel").read_bytes()
    assert board.side_car.read_bytes() == (folder / "tiny_int8.json").read_bytes()
    assert "nothing to do" in checkout.make("tiny_int8.deploy", *words).stdout
    said = checkout.make("tiny_int8.bench", *words, "COUNT=2").stdout
    assert "before 13 ms, inference 46 ms, after 1 ms (of 2)" in said
    jsonschema.validate(json.loads((folder / "tiny_int8.bench.json").read_text()), SCHEMA)
    done = checkout.make("tiny_int8.deploy-rollback", *words, check=False)
    assert "there is nothing to go back to" in done.stderr
    device = Supervisor(tmp_path)
    with servers.serving(device):
        assert "sent, read back and compared" in checkout.make(
            "tiny_int8.deploy", f"DEVICE_HOST={device.url}").stdout  # fmt: skip
    assert device.model.read_bytes() == (folder / "tiny_int8.cvimodel").read_bytes()
    assert device.side_car.read_bytes() == (folder / "tiny_int8.json").read_bytes()
