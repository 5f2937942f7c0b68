"""Boards for tests of deploying: a folder as the device's disk, and servers of SSH to it."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
import os
import shlex
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from conftest import ROOT

CHIP = "cvitek,cv181x"
# BUSYBOX=/bin/busybox has the board's shell and programs be those that boards have.
BUSYBOX = os.environ.get("BUSYBOX", "")
SSHD = os.environ.get("SSHD") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin")


@dataclass
class Board:
    """A made-up device. ``profile``: the real one's, with its paths led into the folder."""

    root: Path
    profile: dict
    # What the server does to a command, by a part of it: it is told of its start (None), and
    # hands on what comes in.
    faults: dict[str, Callable] = field(default_factory=dict)
    port: int = 0
    config: Path | None = None

    @property
    def model(self) -> Path:
        return Path(self.profile["install"]["model"])

    @property
    def side_car(self) -> Path:
        return Path(self.profile["install"]["side_car"])

    @property
    def folder(self) -> Path:
        return self.model.parent

    def program(self, name: str, text: str) -> Path:
        """A program on the board, in place of its own."""
        path = self.root / "bin" / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def restarts(self) -> int:
        log = self.root / "restarts"
        return len(log.read_text().splitlines()) if log.exists() else 0

    def service(self, text: str = "") -> None:
        """What restarts the service there; ``text`` comes after it has noted that it was."""
        script = self.root / "etc/init.d/S91sscma-node"
        log = shlex.quote(str(self.root / "restarts"))
        script.write_text(f"#!/bin/sh\necho restarted >>{log}\n{text}\n")
        script.chmod(0o755)

    def left(self) -> list[str]:
        """What lies in the models' folder."""
        return sorted(path.name for path in self.folder.iterdir())

    def path(self) -> str:
        return f"{self.root / 'bin'}:{os.environ['PATH']}"


def board(root: Path, name: str = "recamera") -> Board:
    """A board with the disk that a profile describes."""
    for folder in ("bin", "userdata/Models", "root/models", "etc/init.d", "proc/device-tree"):
        (root / folder).mkdir(parents=True)
    (root / "proc/device-tree/compatible").write_bytes(CHIP.encode() + b"\0")
    text = (ROOT / f"devices/{name}.json").read_text()
    profile = json.loads(text)
    install = profile["install"]
    for part in ("model", "side_car"):
        install[part] = install[part] and f"{root}{install[part]}"
    install["chip"] = install["chip"].replace("/proc/", f"{shlex.quote(str(root))}/proc/")
    if "reload" in install:
        script, words = install["reload"]["command"].split(maxsplit=1)
        install["reload"]["command"] = f"{shlex.quote(f'{root}{script}')} {words}"
    made = Board(root, profile)
    if BUSYBOX:
        for each in ("sh", "cat", "mv", "cp", "ln", "rm", "mkdir", "df", "tail", "tr", "sed", "cmp",
                     "sha256sum", "md5sum", "sync", "id", "sleep"):  # fmt: skip
            (root / "bin" / each).symlink_to(BUSYBOX)
    # The tests' user may be root, or have a sudo that asks.
    made.program("id", "echo 1000")
    made.program("sudo", '[ "$1" = -n ] || exit 1; shift; exec "$@"')
    made.service()
    return made


def write_config(made: Board, folder: Path, key: Path, host_key: str) -> None:
    """The user's own configuration of ssh, which tests must not have."""
    host = f"[127.0.0.1]:{made.port}"
    (folder / "known_hosts").write_text(f"{host} {host_key}\n")
    made.config = folder / "config"
    made.config.write_text(
        f"IdentityFile {key}\nIdentitiesOnly yes\nIdentityAgent none\nStrictHostKeyChecking yes\n"
        f"UserKnownHostsFile {folder / 'known_hosts'}\nGlobalKnownHostsFile none\n"
    )


@contextlib.contextmanager
def serve(made: Board, folder: Path) -> Iterator[None]:
    """A server on loopback, in a thread, whose commands run in the board's folder."""
    import asyncssh

    folder.mkdir()
    key, host_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    key.write_private_key(folder / "key")
    (folder / "key").chmod(0o600)
    key.write_public_key(folder / "authorized")
    loop, ready = asyncio.new_event_loop(), threading.Event()

    async def handle(process: asyncssh.SSHServerProcess) -> None:
        command = process.command or ""
        environment = {"PATH": made.path(), "HOME": str(made.root)}
        child = await asyncio.create_subprocess_exec(
            str(made.root / "bin/sh") if BUSYBOX else "sh", "-c", command, env=environment,
            cwd=made.root, stdin=-1, stdout=-1, stderr=-1,
        )  # fmt: skip
        fault = next((do for part, do in made.faults.items() if part in command), None)
        if fault:
            fault(process, None)

        async def into() -> None:
            with contextlib.suppress(Exception):
                while data := await process.stdin.read(1 << 16):
                    if fault:
                        data = fault(process, data)
                    child.stdin.write(data)
                    await child.stdin.drain()
            child.stdin.close()

        async def out(source: asyncio.StreamReader, target: asyncssh.SSHWriter) -> None:
            with contextlib.suppress(Exception):
                while data := await source.read(1 << 16):
                    target.write(data)

        reading = asyncio.ensure_future(into())
        await asyncio.gather(out(child.stdout, process.stdout), out(child.stderr, process.stderr))
        code = await child.wait()
        reading.cancel()
        process.exit(code)

    async def start() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            "127.0.0.1", 0, server_host_keys=[host_key], encoding=None, process_factory=handle,
            authorized_client_keys=str(folder / "authorized"), sftp_factory=None,
            password_auth=False,
        )  # fmt: skip

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.call_soon(ready.set)
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait()
    server = asyncio.run_coroutine_threadsafe(start(), loop).result()
    made.port = server.get_port()
    public = host_key.export_public_key().decode().strip()
    write_config(made, folder, folder / "key", public)
    try:
        yield
    finally:

        async def stop() -> None:
            server.close()
            await server.wait_closed()

        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


@contextlib.contextmanager
def serve_openssh(made: Board, folder: Path) -> Iterator[None]:
    """OpenSSH's own server, as a user's program."""
    folder.mkdir(mode=0o700)
    for name in ("key", "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name],
                       check=True)  # fmt: skip
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        made.port = free.getsockname()[1]
    # OpenSSH's own settings take no path with a quote in it.
    into = folder / "into"
    into.write_text(
        f"#!/bin/sh\ncd {shlex.quote(str(made.root))} && PATH={shlex.quote(made.path())} && "
        'HOME=$PWD && export PATH HOME && exec sh -c "$SSH_ORIGINAL_COMMAND"\n'
    )
    into.chmod(0o755)
    config = folder / "sshd_config"
    config.write_text(
        f"Port {made.port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host_key'}\n"
        f"AuthorizedKeysFile {folder / 'key.pub'}\nStrictModes no\nUsePAM no\nPidFile none\n"
        f"PasswordAuthentication no\nPermitRootLogin yes\nForceCommand {into}\n"
    )
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", config], stderr=(folder / "log").open("w"))
    write_config(made, folder, folder / "key", (folder / "host_key.pub").read_text().strip())
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", made.port)):
                break
            assert server.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)
        yield
    finally:
        server.terminate()
        server.wait()


def user() -> str:
    """Whom OpenSSH's server lets in when it is a user's program."""
    return getpass.getuser()


def fine(done: subprocess.CompletedProcess[str]) -> str:
    """What a deploy says that went well."""
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def wrong(done: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """The one line that tells what was wrong."""
    assert done.returncode == code, done
    assert done.stderr.count("\n") == 1, done.stderr
    assert "bug in tpumake" not in done.stderr
    return done.stderr
